//! Requests to a group coordinator, one group or partition each.

use anyhow::{Result, ensure};

use super::{Connection, Reader, Writer};

mod api {
    pub(super) const OFFSET_COMMIT: i16 = 8;
    pub(super) const OFFSET_FETCH: i16 = 9;
    pub(super) const FIND_COORDINATOR: i16 = 10;
    pub(super) const JOIN_GROUP: i16 = 11;
    pub(super) const HEARTBEAT: i16 = 12;
    pub(super) const LEAVE_GROUP: i16 = 13;
    pub(super) const SYNC_GROUP: i16 = 14;
    pub(super) const DESCRIBE_GROUPS: i16 = 15;
    pub(super) const DELETE_GROUPS: i16 = 42;
    pub(super) const OFFSET_DELETE: i16 = 47;
    pub(super) const CONSUMER_GROUP_HEARTBEAT: i16 = 68;
}

/// What a JoinGroup says.
#[derive(Debug, Clone)]
pub struct Join {
    /// Group id.
    pub group: String,
    /// Milliseconds; the rebalance timeout is the same.
    pub session_timeout: i32,
    /// Member id, empty for a new member.
    pub member: String,
    /// Name of a static member.
    pub instance: Option<String>,
    /// `consumer` for consumers.
    pub protocol_type: String,
    /// Names of the protocols with the member's metadata for each.
    pub protocols: Vec<(String, Vec<u8>)>,
}

/// The answer to a JoinGroup.
#[derive(Debug)]
pub struct Joined {
    /// Error code.
    pub error: i16,
    /// Generation of the group.
    pub generation: i32,
    /// The member's id.
    pub member: String,
    /// The id of the leader.
    pub leader: String,
}

/// Who asks, in the words of a classic group.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// Group id.
    pub group: &'a str,
    /// Generation; -1 for nobody's.
    pub generation: i32,
    /// Member id; empty for nobody's.
    pub member: &'a str,
}

/// A group as DescribeGroups shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Error code.
    pub error: i16,
    /// State.
    pub state: String,
    /// Chosen protocol.
    pub protocol: String,
    /// Member id, metadata and assignment of each member.
    pub members: Vec<(String, Vec<u8>, Vec<u8>)>,
}

/// What a ConsumerGroupHeartbeat says (KIP-848); `None` is what has not changed.
#[derive(Debug, Clone)]
pub struct Beat<'a> {
    /// Group id.
    pub group: &'a str,
    /// Member id, made by the client.
    pub member: &'a str,
    /// 0 joins, -1 leaves.
    pub epoch: i32,
    /// Name of a static member.
    pub instance: Option<&'a str>,
    /// Milliseconds; -1 for unchanged.
    pub rebalance_timeout: i32,
    /// The topic subscribed to.
    pub topic: Option<&'a str>,
    /// Topics subscribed to by a regular expression.
    pub regex: Option<&'a str>,
    /// Name of the server-side assignor.
    pub assignor: Option<&'a str>,
    /// Topic id and partition of what it has: `Some(None)` is nothing.
    pub owned: Option<Option<([u8; 16], i32)>>,
}

/// A length of the flexible versions: one more, so that 0 is null.
fn compact_len(w: &mut Writer, len: Option<usize>) {
    let mut rest = len.map_or(0, |len| len + 1);
    while rest >= 0x80 {
        w.raw(&[rest.to_le_bytes()[0] | 0x80]);
        rest >>= 7;
    }
    w.raw(&[rest.to_le_bytes()[0]]);
}

/// COMPACT_NULLABLE_STRING.
fn compact(w: &mut Writer, text: Option<&str>) {
    compact_len(w, text.map(str::len));
    w.raw(text.unwrap_or_default().as_bytes());
}

impl Connection {
    /// ConsumerGroupHeartbeat v1; returns error code and member epoch.
    pub fn consumer_heartbeat(&mut self, beat: &Beat<'_>) -> Result<(i16, i32)> {
        let mut w = Writer::default();
        // The end of request header v2: no tagged fields.
        w.i8(0);
        compact(&mut w, Some(beat.group));
        compact(&mut w, Some(beat.member));
        w.i32(beat.epoch);
        compact(&mut w, beat.instance);
        compact(&mut w, None);
        w.i32(beat.rebalance_timeout);
        compact_len(&mut w, beat.topic.map(|_| 1));
        if beat.topic.is_some() {
            compact(&mut w, beat.topic);
        }
        compact(&mut w, beat.regex);
        compact(&mut w, beat.assignor);
        compact_len(&mut w, beat.owned.map(|owned| usize::from(owned.is_some())));
        if let Some(Some((topic, partition))) = beat.owned {
            w.raw(&topic);
            compact_len(&mut w, Some(1));
            w.i32(partition).i8(0);
        }
        w.i8(0);
        let answer = self.call(api::CONSUMER_GROUP_HEARTBEAT, 1, &w.0)?;
        let mut r = Reader(&answer);
        ensure!(r.i8()? == 0, "tagged fields in the header of an answer");
        r.i32()?;
        let error = r.i16()?;
        for _message_and_member in 0..2 {
            // Both are short: their lengths take one byte, or two.
            let mut len = usize::from(r.i8()?.cast_unsigned());
            if len >= 0x80 {
                len = len - 0x80 + (usize::try_from(r.i8()?)? << 7);
            }
            r.some(len.saturating_sub(1))?;
        }
        Ok((error, r.i32()?))
    }

    /// FindCoordinator v1 for a group; returns its error code.
    pub fn find_coordinator(&mut self, group: &str) -> Result<i16> {
        let mut w = Writer::default();
        w.string(group)?.i8(0);
        let answer = self.call(api::FIND_COORDINATOR, 1, &w.0)?;
        let mut r = Reader(&answer);
        r.i32()?;
        r.i16()
    }

    /// JoinGroup v5, answered when the group is complete.
    pub fn join_group(&mut self, join: &Join) -> Result<Joined> {
        let mut w = Writer::default();
        w.string(&join.group)?
            .i32(join.session_timeout)
            .i32(join.session_timeout);
        w.string(&join.member)?
            .nullable(join.instance.as_deref())?
            .string(&join.protocol_type)?;
        w.i32(i32::try_from(join.protocols.len())?);
        for (name, metadata) in &join.protocols {
            w.string(name)?.bytes(metadata)?;
        }
        let answer = self.call(api::JOIN_GROUP, 5, &w.0)?;
        let mut r = Reader(&answer);
        r.i32()?;
        let (error, generation) = (r.i16()?, r.i32()?);
        r.string()?;
        let (leader, member) = (r.string()?.to_owned(), r.string()?.to_owned());
        Ok(Joined {
            error,
            generation,
            member,
            leader,
        })
    }

    /// SyncGroup v3; returns error code and assignment.
    pub fn sync_group(&mut self, asker: Asker<'_>, assignments: &[(&str, &[u8])]) -> Result<(i16, Vec<u8>)> {
        let mut w = Writer::default();
        w.string(asker.group)?
            .i32(asker.generation)
            .string(asker.member)?
            .nullable(None)?;
        w.i32(i32::try_from(assignments.len())?);
        for (member, assignment) in assignments {
            w.string(member)?.bytes(assignment)?;
        }
        let answer = self.call(api::SYNC_GROUP, 3, &w.0)?;
        let mut r = Reader(&answer);
        r.i32()?;
        Ok((r.i16()?, r.bytes()?.unwrap_or_default().to_vec()))
    }

    /// Heartbeat v3; returns its error code.
    pub fn heartbeat(&mut self, asker: Asker<'_>) -> Result<i16> {
        let mut w = Writer::default();
        w.string(asker.group)?
            .i32(asker.generation)
            .string(asker.member)?
            .nullable(None)?;
        let answer = self.call(api::HEARTBEAT, 3, &w.0)?;
        let mut r = Reader(&answer);
        r.i32()?;
        r.i16()
    }

    /// LeaveGroup v3 of one member; returns its error code, or that of the whole request.
    pub fn leave_group(&mut self, group: &str, member: &str) -> Result<i16> {
        let mut w = Writer::default();
        w.string(group)?.i32(1).string(member)?.nullable(None)?;
        let answer = self.call(api::LEAVE_GROUP, 3, &w.0)?;
        let mut r = Reader(&answer);
        r.i32()?;
        let error = r.i16()?;
        if error != 0 {
            return Ok(error);
        }
        ensure!(
            r.i32()? == 1 && r.string()? == member,
            "one answer for one member"
        );
        r.nullable()?;
        r.i16()
    }

    /// OffsetCommit v7 of one partition; returns its error code.
    pub fn offset_commit(
        &mut self,
        asker: Asker<'_>,
        topic: &str,
        partition: i32,
        offset: i64,
        metadata: &str,
    ) -> Result<i16> {
        let mut w = Writer::default();
        w.string(asker.group)?
            .i32(asker.generation)
            .string(asker.member)?
            .nullable(None)?;
        w.i32(1)
            .string(topic)?
            .i32(1)
            .i32(partition)
            .i64(offset)
            .i32(-1)
            .string(metadata)?;
        let answer = self.call(api::OFFSET_COMMIT, 7, &w.0)?;
        let mut r = Reader(&answer);
        r.i32()?;
        ensure!(r.i32()? == 1 && r.string()? == topic && r.i32()? == 1 && r.i32()? == partition);
        r.i16()
    }

    /// OffsetFetch v5 of one partition; returns error code and offset, -1 for none.
    pub fn offset_fetch(&mut self, group: &str, topic: &str, partition: i32) -> Result<(i16, i64)> {
        let mut w = Writer::default();
        w.string(group)?.i32(1).string(topic)?.i32(1).i32(partition);
        let answer = self.call(api::OFFSET_FETCH, 5, &w.0)?;
        let mut r = Reader(&answer);
        r.i32()?;
        if r.i32()? == 0 {
            return Ok((r.i16()?, -1));
        }
        ensure!(r.string()? == topic && r.i32()? == 1 && r.i32()? == partition);
        let offset = r.i64()?;
        r.i32()?;
        r.nullable()?;
        Ok((r.i16()?, offset))
    }

    /// DescribeGroups v4 of one group.
    pub fn describe_group(&mut self, group: &str) -> Result<Described> {
        let mut w = Writer::default();
        w.i32(1).string(group)?.i8(0);
        let answer = self.call(api::DESCRIBE_GROUPS, 4, &w.0)?;
        let mut r = Reader(&answer);
        r.i32()?;
        ensure!(r.i32()? == 1, "one answer for one group");
        let error = r.i16()?;
        ensure!(r.string()? == group, "the group asked for");
        let state = r.string()?.to_owned();
        r.string()?;
        let protocol = r.string()?.to_owned();
        let mut members = Vec::new();
        for _ in 0..r.i32()? {
            let member = r.string()?.to_owned();
            r.nullable()?;
            r.string()?;
            r.string()?;
            let metadata = r.bytes()?.unwrap_or_default().to_vec();
            let assignment = r.bytes()?.unwrap_or_default().to_vec();
            members.push((member, metadata, assignment));
        }
        Ok(Described {
            error,
            state,
            protocol,
            members,
        })
    }

    /// DeleteGroups v1 of one group; returns its error code.
    pub fn delete_group(&mut self, group: &str) -> Result<i16> {
        let mut w = Writer::default();
        w.i32(1).string(group)?;
        let answer = self.call(api::DELETE_GROUPS, 1, &w.0)?;
        let mut r = Reader(&answer);
        r.i32()?;
        ensure!(r.i32()? == 1 && r.string()? == group, "one answer for one group");
        r.i16()
    }

    /// OffsetDelete v0 of one partition; returns its error code, or that of the whole request.
    pub fn offset_delete(&mut self, group: &str, topic: &str, partition: i32) -> Result<i16> {
        let mut w = Writer::default();
        w.string(group)?.i32(1).string(topic)?.i32(1).i32(partition);
        let answer = self.call(api::OFFSET_DELETE, 0, &w.0)?;
        let mut r = Reader(&answer);
        let error = r.i16()?;
        r.i32()?;
        if error != 0 {
            return Ok(error);
        }
        ensure!(r.i32()? == 1 && r.string()? == topic && r.i32()? == 1 && r.i32()? == partition);
        r.i16()
    }
}
