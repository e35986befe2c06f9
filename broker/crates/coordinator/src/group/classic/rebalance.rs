//! The join barrier: from the decision to rebalance to the next generation.

use std::time::Duration;

use takhin_protocol::ErrorCode;
use takhin_protocol::messages::StrBytes;

use super::{Classic, State, replies};
use crate::group::{Effects, millis};
use crate::outcome::Reply;
use crate::timers::Timer;

/// Least time until a join barrier that nobody has come to is looked at again. Clients may ask for no timeout at all.
const NOBODY_JOINED_PAUSE: Duration = Duration::from_secs(1);

/// The first rebalance of an empty group, which gives its members time to arrive (KIP-134).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InitialRebalance {
    /// The wait under way.
    delay: Duration,
    /// What it may be extended by, altogether.
    remaining: Duration,
    /// Whether a member came during this wait.
    pub(super) member_added: bool,
}

impl Classic {
    /// Begins a rebalance, or goes on with the one that is under way if this was what it waited for.
    pub(super) fn rebalance_or_complete(&mut self, effects: &mut Effects<'_>) {
        match self.state {
            State::PreparingRebalance => self.complete_if_all_joined(effects),
            _ => self.prepare_rebalance(effects),
        }
    }

    /// Opens the join barrier. Who waits for an assignment is sent to join again.
    pub(super) fn prepare_rebalance(&mut self, effects: &mut Effects<'_>) {
        if self.state == State::CompletingRebalance {
            self.refuse_sync(effects, ErrorCode::RebalanceInProgress);
        }
        self.pending_sync.clear();
        effects.timers.cancel(&self.id, Timer::Sync);
        if self.state == State::Empty {
            let delay = effects.config.initial_rebalance_delay;
            let remaining = self.rebalance_timeout().saturating_sub(delay);
            self.initial = Some(InitialRebalance {
                delay,
                remaining,
                member_added: false,
            });
            effects.arm(&self.id, Timer::Join, delay);
            self.transition(effects, State::PreparingRebalance);
            return;
        }
        self.transition(effects, State::PreparingRebalance);
        if self.all_joined() {
            self.complete_join(effects);
        } else {
            effects.arm(&self.id, Timer::Join, self.rebalance_timeout());
        }
    }

    fn rebalance_timeout(&self) -> Duration {
        millis(self.members.rebalance_timeout())
    }

    pub(super) fn all_joined(&self) -> bool {
        self.members.len() == self.members.waiting_joins() && self.pending.is_empty()
    }

    /// Closes the join barrier if nobody is missing. The first rebalance of an empty group always takes its time.
    pub(super) fn complete_if_all_joined(&mut self, effects: &mut Effects<'_>) {
        if self.state == State::PreparingRebalance && self.initial.is_none() && self.all_joined() {
            self.complete_join(effects);
        }
    }

    /// The join timer is due.
    pub(super) fn join_timeout(&mut self, effects: &mut Effects<'_>) {
        if self.state != State::PreparingRebalance {
            return;
        }
        match &mut self.initial {
            Some(initial) if initial.member_added && !initial.remaining.is_zero() => {
                let delay = effects.config.initial_rebalance_delay.min(initial.remaining);
                let remaining = initial.remaining.saturating_sub(initial.delay);
                *initial = InitialRebalance {
                    delay,
                    remaining,
                    member_added: false,
                };
                effects.arm(&self.id, Timer::Join, delay);
            }
            _ => self.complete_join(effects),
        }
    }

    /// Closes the join barrier: begins the next generation with those who have joined, and with static members who have
    /// not, since they may be restarting.
    pub(super) fn complete_join(&mut self, effects: &mut Effects<'_>) {
        effects.timers.cancel(&self.id, Timer::Join);
        let missing: Vec<StrBytes> = self
            .members
            .iter()
            .filter(|(_, member)| !member.waits_for_join() && member.group_instance_id.is_none())
            .map(|(id, _)| id.clone())
            .collect();
        for id in &missing {
            self.remove_member(effects, id);
        }
        if !self.elect_leader() && !self.members.is_empty() {
            // Only static members are left and none has come. Their sessions decide.
            effects.arm(
                &self.id,
                Timer::Join,
                self.rebalance_timeout().max(NOBODY_JOINED_PAUSE),
            );
            return;
        }
        self.initial = None;
        self.pending_sync.clear();
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.protocol = self.members.select_protocol(self.leader.as_ref());
        if self.members.is_empty() {
            self.transition(effects, State::Empty);
            effects.record(self.snapshot());
            return;
        }
        self.transition(effects, State::CompletingRebalance);
        for id in self.members.ids() {
            self.answer_join(effects, &id);
        }
        effects.arm(&self.id, Timer::Sync, self.rebalance_timeout());
    }

    fn answer_join(&mut self, effects: &mut Effects<'_>, id: &StrBytes) {
        if let Some(wait) = self.members.take_join(id) {
            effects.reply(wait.ticket, Reply::JoinGroup(self.joined(wait.version, id)));
        }
        self.members.settle(id);
        self.keep_alive(effects, id);
        self.pending_sync.insert(id.clone());
    }

    /// Keeps the leader if it has joined, else takes the first member that has. Returns whether there is one.
    fn elect_leader(&mut self) -> bool {
        let leader = self.leader.as_ref().and_then(|id| self.members.get(id));
        if leader.is_some_and(|member| member.waits_for_join()) {
            return true;
        }
        let joined = self.members.iter().find(|(_, member)| member.waits_for_join());
        let Some((id, _)) = joined else {
            return false;
        };
        self.leader = Some(id.clone());
        true
    }

    /// Takes a member out of the group. What it waits for is answered UNKNOWN_MEMBER_ID: a client that is still there
    /// begins anew.
    pub(super) fn remove_member(&mut self, effects: &mut Effects<'_>, id: &StrBytes) {
        self.answer_waits(effects, id, (&StrBytes::new(), ErrorCode::UnknownMemberId));
        effects.timers.cancel(&self.id, Timer::Session(id.clone()));
        self.members.remove(id);
        self.pending_sync.remove(id);
        if self.is_leader(id) {
            self.leader = self.members.first_id().cloned();
        }
    }

    /// Answers a member's waiting requests with an error. `told` is the member id of the response.
    pub(super) fn answer_waits(
        &mut self,
        effects: &mut Effects<'_>,
        id: &StrBytes,
        (told, code): (&StrBytes, ErrorCode),
    ) {
        if let Some(wait) = self.members.take_join(id) {
            effects.reply(wait.ticket, replies::join_error(wait.version, told, code));
        }
        if let Some(wait) = self.members.take_sync(id) {
            effects.reply(wait.ticket, replies::sync_error(code));
        }
    }
}
