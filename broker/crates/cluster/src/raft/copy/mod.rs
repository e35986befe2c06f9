//! Bringing a replica up to date by a copy of the leader's segment files, when entries that it needs are purged.
//!
//! ```text
//! leader   begin: what the copy consists of ─▶ parts, in order ─▶ end, asked again until the copy is the replica's log
//! replica  a directory beside the log's       ─▶ checked, made durable, takes the log's place; the group begins anew on it
//! ```
//! The copy ends where a segment of the leader's ends, at its purge point; from there on entries follow as ever.
//!
//! Invariants
//! - A copy holds committed entries only. So it may take the place of any log that lacks its last entry: what such a log
//!   holds beyond, or instead, is not committed. Whoever sends it, and when, does not matter to safety.
//! - The replica's vote stays, or rises to the sender's; it never votes twice in a term.
//! - What was applied and the membership as of the copy travel in it, and are durable before the group begins anew.
//! - Whether the log lacks the copy's last entry is looked at once nothing is appended to it any more: what the replica
//!   acknowledged to a leader while the copy was being checked is never dropped.

mod receive;
mod send;
mod wire;

pub(super) use receive::{Copies, Replacement};
pub(super) use send::{Source, send};

use takhin_storage::EntryId;

use super::types::RaftLogId;

fn entry_id(id: RaftLogId) -> Option<EntryId> {
    Some(EntryId {
        term: u32::try_from(**id.committed_leader_id()).ok()?,
        index: id.index,
    })
}
