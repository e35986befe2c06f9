//! Sessions: heartbeats, and what is done when they stay away.

use takhin_protocol::ErrorCode;
use takhin_protocol::messages::{HeartbeatRequest, StrBytes};

use super::{Classic, State};
use crate::group::{Effects, millis, own};
use crate::timers::Timer;

impl Classic {
    /// Handles a Heartbeat. REBALANCE_IN_PROGRESS sends the member to join; it is no failure of the heartbeat.
    pub(crate) fn heartbeat(&mut self, effects: &mut Effects<'_>, request: &HeartbeatRequest) -> ErrorCode {
        let member_id = &request.member_id;
        if let Err(code) = self.validate_member(member_id, request.group_instance_id.as_ref()) {
            return code;
        }
        if request.generation_id != self.generation {
            return ErrorCode::IllegalGeneration;
        }
        self.keep_alive(effects, member_id);
        match self.state {
            State::PreparingRebalance => ErrorCode::RebalanceInProgress,
            State::Empty | State::CompletingRebalance | State::Stable => ErrorCode::NoError,
        }
    }

    /// A commit was accepted: it is a sign of life too.
    pub(crate) fn committed(&mut self, effects: &mut Effects<'_>, member_id: &StrBytes) {
        if matches!(self.state, State::Stable | State::PreparingRebalance) {
            self.keep_alive(effects, member_id);
        }
    }

    /// Begins the member's session anew.
    pub(super) fn keep_alive(&self, effects: &mut Effects<'_>, member_id: &StrBytes) {
        if let Some(member) = self.members.get(member_id) {
            let timeout = millis(member.declared.session_timeout);
            effects.arm(&self.id, Timer::Session(own(member_id)), timeout);
        }
    }

    /// The sessions of a group that was read from the log begin now. A group that has become too large, because the
    /// limit was lowered, rebalances so that its members can commit before some are turned away.
    pub(crate) fn loaded(&mut self, effects: &mut Effects<'_>) {
        for id in self.members.ids() {
            self.keep_alive(effects, &id);
        }
        if self.members.len() > effects.config.max_group_size {
            self.prepare_rebalance(effects);
        }
    }

    pub(crate) fn expire(&mut self, effects: &mut Effects<'_>, timer: Timer) {
        match timer {
            Timer::Join => self.join_timeout(effects),
            Timer::Sync => self.sync_timeout(effects),
            Timer::Session(id) => self.session_timeout(effects, &id),
            // Those of consumer groups.
            Timer::Revocation(_) | Timer::MemberJoin(_) | Timer::MemberSync(_) => {}
        }
    }

    fn session_timeout(&mut self, effects: &mut Effects<'_>, id: &StrBytes) {
        if !self.remove_pending(id) {
            let Some(member) = self.members.get(id) else {
                return;
            };
            // Who waits here is alive; the session begins anew with the answer. But nobody knows of a new member.
            if !member.is_new && (member.waits_for_join() || member.sync.is_some()) {
                return;
            }
            tracing::info!(group = %self.id, member = %id, "session expired");
            self.remove_member(effects, id);
            if matches!(self.state, State::Stable | State::CompletingRebalance) {
                return self.prepare_rebalance(effects);
            }
        }
        // Even in the first rebalance, or nobody would be left to wait for.
        if self.state == State::PreparingRebalance && self.all_joined() {
            self.complete_join(effects);
        }
    }
}
