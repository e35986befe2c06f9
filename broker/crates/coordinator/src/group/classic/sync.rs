//! SyncGroup: the leader's assignment, and everybody's share of it.

use std::collections::BTreeMap;

use bytes::Bytes;
use takhin_protocol::ErrorCode;
use takhin_protocol::messages::{StrBytes, SyncGroupRequest};

use super::members::Wait;
use super::{Classic, State, replies};
use crate::group::Effects;
use crate::outcome::Context;
use crate::timers::Timer;

/// First version that must name protocol type and protocol (KIP-559).
const NAMES_PROTOCOL: i16 = 5;

impl Classic {
    /// Handles a SyncGroup. Followers wait for the leader; its assignment is written down, and then answers all.
    pub(crate) fn sync(&mut self, effects: &mut Effects<'_>, cx: &Context<'_>, request: &SyncGroupRequest) {
        if let Err(code) = self.validate_sync(cx.version, request) {
            return effects.reply(cx.ticket, replies::sync_error(code));
        }
        let member_id = &request.member_id;
        self.pending_sync.remove(member_id);
        if self.pending_sync.is_empty() {
            effects.timers.cancel(&self.id, Timer::Sync);
        }
        if self.state == State::Stable {
            return effects.reply(cx.ticket, self.synced(member_id));
        }
        if let Some(old) = self.members.wait_for_sync(member_id, Wait::from(cx)) {
            effects.reply(old.ticket, replies::sync_error(ErrorCode::RebalanceInProgress));
        }
        if self.is_leader(member_id) {
            self.assign(effects, request);
        }
    }

    fn validate_sync(&self, version: i16, request: &SyncGroupRequest) -> Result<(), ErrorCode> {
        self.validate_member(&request.member_id, request.group_instance_id.as_ref())?;
        if request.generation_id != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        let differs = |named: &Option<StrBytes>, ours: &Option<StrBytes>| match named {
            Some(named) => Some(named) != ours.as_ref(),
            None => version >= NAMES_PROTOCOL,
        };
        if differs(&request.protocol_type, &self.protocol_type)
            || differs(&request.protocol_name, &self.protocol)
        {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        match self.state {
            State::PreparingRebalance => Err(ErrorCode::RebalanceInProgress),
            State::Empty => Err(ErrorCode::UnknownMemberId),
            State::CompletingRebalance | State::Stable => Ok(()),
        }
    }

    /// Takes the leader's assignment; members that it does not name get an empty one. If the group's record would not
    /// fit a batch, all get what Kafka answers when the append is refused, and the group rebalances.
    fn assign(&mut self, effects: &mut Effects<'_>, request: &SyncGroupRequest) {
        let assigned: BTreeMap<&StrBytes, &Bytes> = request
            .assignments
            .iter()
            .map(|assignment| (&assignment.member_id, &assignment.assignment))
            .collect();
        let ids = self.members.ids();
        for id in &ids {
            let assignment = assigned
                .get(id)
                .map(|assignment| Bytes::copy_from_slice(assignment));
            self.members.set_assignment(id, assignment.unwrap_or_default());
        }
        let before = (self.state, self.state_since);
        self.transition(effects, State::Stable);
        let snapshot = self.snapshot();
        if snapshot.size() > effects.config.max_batch_bytes {
            (self.state, self.state_since) = before;
            tracing::warn!(group = %self.id, bytes = snapshot.size(), "assignment does not fit a batch");
            self.refuse_sync(effects, ErrorCode::UnknownServerError);
            return self.prepare_rebalance(effects);
        }
        effects.record(snapshot);
        for id in &ids {
            if let Some(wait) = self.members.take_sync(id) {
                effects.reply(wait.ticket, self.synced(id));
                self.keep_alive(effects, id);
            }
        }
    }

    /// Answers all who wait for an assignment with an error, and takes back what they were assigned.
    pub(super) fn refuse_sync(&mut self, effects: &mut Effects<'_>, code: ErrorCode) {
        for id in self.members.ids() {
            self.members.set_assignment(&id, Bytes::new());
            if let Some(wait) = self.members.take_sync(&id) {
                effects.reply(wait.ticket, replies::sync_error(code));
                self.keep_alive(effects, &id);
            }
        }
    }

    /// The sync timer is due: who has not asked for the assignment is removed, and the others rebalance.
    pub(super) fn sync_timeout(&mut self, effects: &mut Effects<'_>) {
        if !matches!(self.state, State::CompletingRebalance | State::Stable) || self.pending_sync.is_empty() {
            return;
        }
        for id in std::mem::take(&mut self.pending_sync) {
            self.remove_member(effects, &id);
        }
        self.prepare_rebalance(effects);
    }
}
