//! The leader's side of a copy.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use takhin_storage::Log;
use uuid::Uuid;

use super::entry_id;
use super::wire::{self, Begin};
use crate::links::{Class, Kind};
use crate::raft::hard_state::{GroupId, GroupState};
use crate::raft::pace::Pacing;
use crate::raft::state_machine::Meta;
use crate::raft::types::RaftVote;

/// Bytes of a part. One is on its way at a time; the stream of bulk requests is shared by all copies to a node.
const PART: usize = 1 << 20;

/// How long a part may take to be written.
const PART_WAIT: Duration = Duration::from_secs(30);

/// How often a replica hears of a copy whose next part waits for its throttle; sooner than it gives the copy up.
const KEEP: Duration = Duration::from_secs(20);

/// Pause between two questions whether the copy is in place.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// Largest plan that is sent with the state derived from the entries; without it the replica reads all headers again.
const MAX_PLAN: usize = 8 << 20;

/// Where a copy comes from and goes to.
#[derive(Clone)]
pub(in crate::raft) struct Source {
    pub(in crate::raft) pacing: Pacing,
    pub(in crate::raft) log: Arc<Log>,
    pub(in crate::raft) group: GroupId,
}

/// Sends a copy up to the snapshot's last entry; returns the replica's vote once the copy is its log.
///
/// # Errors
/// Why there is none; a new attempt begins at the beginning.
///
/// # Cancel safety
/// Safe: what the replica has received is of no use and goes with its next copy.
pub(in crate::raft) async fn send(
    source: &Source,
    target: u32,
    vote: RaftVote,
    meta: &Meta,
) -> Result<RaftVote, String> {
    let Source { pacing, log, group } = source;
    let env = &pacing.env;
    let last = meta.last_log_id.and_then(entry_id);
    let last = last.ok_or("there is nothing to copy yet")?;
    let exported = Arc::clone(log);
    let plan = env.tasks.blocking(move || exported.export(last)).await;
    let mut plan = plan.map_err(|e| e.to_string())?;
    if plan.encode().len() > MAX_PLAN {
        plan.drop_derived();
    }
    let session = Uuid::from_bytes(env.rng.uuid());
    tracing::info!(partition = %group, target, bytes = plan.bytes(), last = last.index, "copying segments to a replica");
    let begin = Begin {
        vote,
        state: GroupState {
            applied: meta.last_log_id,
            membership: meta.last_membership.clone(),
        },
        export: plan.clone(),
    };
    call(source, target, wire::encode_begin(*group, session, &begin)).await?;
    let copying = pacing.standing.copying(target);
    for (segment, (id, bytes)) in plan.segments().enumerate() {
        let mut pos = 0;
        while pos < bytes {
            wait(source, target, session, (bytes - pos).min(PART as u64)).await?;
            let log = Arc::clone(log);
            let read = move || log.read_export(id, bytes, pos, PART);
            let part = env.tasks.blocking(read).await.map_err(|e| e.to_string())?;
            let len = part.len() as u64;
            call(
                source,
                target,
                wire::encode_part(*group, session, segment, pos, part),
            )
            .await?;
            pos += len;
            copying.sent(len);
        }
    }
    loop {
        let answer = call(source, target, wire::encode_end(*group, session)).await?;
        if let Some(vote) = wire::decode_answer(answer).map_err(|e| e.to_string())? {
            return Ok(vote);
        }
        env.clock.sleep(ASK_AGAIN).await;
    }
}

/// Waits until a part of this size may be sent, and tells the replica meanwhile that the copy is not given up.
async fn wait(source: &Source, target: u32, session: Uuid, bytes: u64) -> Result<(), String> {
    let pacing = &source.pacing;
    let mut waiting = pin!(pacing.wait(target, bytes));
    loop {
        tokio::select! {
            biased;
            () = &mut waiting => return Ok(()),
            () = pacing.env.clock.sleep(KEEP) => {}
        }
        call(source, target, wire::encode_keep(source.group, session)).await?;
    }
}

async fn call(source: &Source, target: u32, body: Vec<Bytes>) -> Result<Bytes, String> {
    let answer = source
        .pacing
        .links
        .call(target, Class::Bulk, 0, Kind::Copy, body, PART_WAIT);
    answer.await.map_err(|e| e.to_string())
}
