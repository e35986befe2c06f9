//! How members go: by their own wish, or because they have been silent or slow.

use takhin_protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, StrBytes};

use super::admit::{fenced_unless_same, unknown, unknown_instance};
use super::{Consumer, LEAVE_STATIC_EPOCH, Refusal};
use crate::group::{Effects, own};
use crate::records::{ConsumerRecord, MemberState, Partitions};
use crate::timers::Timer;

impl Consumer {
    /// Handles a heartbeat with epoch -1 or -2.
    pub(super) fn leave(
        &mut self,
        effects: &mut Effects<'_>,
        request: &ConsumerGroupHeartbeatRequest,
    ) -> Result<ConsumerGroupHeartbeatResponse, Refusal> {
        let member_id = request.member_id.as_str();
        if let Some(instance) = request.instance_id.as_deref() {
            let owner = self
                .instances
                .get(instance)
                .ok_or_else(|| unknown_instance(instance))?;
            fenced_unless_same(member_id, instance, owner)?;
        }
        if !self.members.contains_key(member_id) {
            return Err(unknown(member_id, &self.id));
        }
        if request.member_epoch == LEAVE_STATIC_EPOCH {
            self.leave_for_a_while(effects, member_id);
        } else {
            self.remove(effects, &[member_id.to_owned()]);
        }
        let response = ConsumerGroupHeartbeatResponse::default()
            .with_member_id(Some(own(member_id)))
            .with_member_epoch(request.member_epoch);
        Ok(response)
    }

    /// A static member keeps its partitions until its session ends; what it had still to give up it has given up.
    fn leave_for_a_while(&mut self, effects: &mut Effects<'_>, member_id: &str) {
        let Some(member) = self.members.get(member_id) else {
            return;
        };
        let mut current = member.current.clone();
        current.epoch = LEAVE_STATIC_EPOCH;
        current.revoking = Partitions::new();
        let record = ConsumerRecord::Current {
            group_id: self.key(),
            member_id: member_id.to_owned(),
            value: Some(current),
        };
        self.write(effects, record);
        effects.timers.cancel(&self.id, Timer::Revocation(own(member_id)));
    }

    /// Takes members out. The next heartbeat of another makes the target assignment without them.
    pub(super) fn remove(&mut self, effects: &mut Effects<'_>, member_ids: &[String]) {
        for member_id in member_ids {
            self.cancel_timers(effects, member_id);
            self.write_member_tombstones(effects, member_id);
        }
        self.drop_unused_regexes(effects);
        // Their topics may no longer count; the next heartbeat looks.
        self.checked = None;
        self.write_epoch(effects, self.next_epoch(), self.metadata_hash);
    }

    /// The order is Kafka's: a member without an assignment may go.
    pub(super) fn write_member_tombstones(&mut self, effects: &mut Effects<'_>, member_id: &str) {
        let (group_id, member_id) = (self.key(), member_id.to_owned());
        let current = ConsumerRecord::Current {
            group_id: group_id.clone(),
            member_id: member_id.clone(),
            value: None,
        };
        self.write(effects, current);
        let target = ConsumerRecord::Target {
            group_id: group_id.clone(),
            member_id: member_id.clone(),
            value: None,
        };
        self.write(effects, target);
        let member = ConsumerRecord::Member {
            group_id,
            member_id,
            value: None,
        };
        self.write(effects, member);
    }

    /// One of its timers is due.
    pub(crate) fn expire(&mut self, effects: &mut Effects<'_>, timer: Timer) {
        let (member_id, why) = match timer {
            Timer::Session(id) => (id, "its session expired"),
            Timer::Revocation(id) if !self.has_to_revoke(&id) => return,
            Timer::Revocation(id) => (id, "it did not give up its partitions in its rebalance timeout"),
            Timer::MemberJoin(id) => (id, "it did not join in its rebalance timeout"),
            Timer::MemberSync(id) => (id, "it did not sync in its rebalance timeout"),
            Timer::Join | Timer::Sync => return,
        };
        if self.members.contains_key(member_id.as_str()) {
            tracing::info!(group = %self.id, member = %member_id, "member fenced: {why}");
            self.remove(effects, &[member_id.to_string()]);
        }
    }

    fn has_to_revoke(&self, member_id: &StrBytes) -> bool {
        let member = self.members.get(member_id.as_str());
        member.is_some_and(|member| member.current.state == MemberState::UnrevokedPartitions)
    }
}
