//! JoinGroup: who may come in, and whether that makes the group rebalance.

use takhin_protocol::ErrorCode;
use takhin_protocol::messages::{JoinGroupRequest, StrBytes};

use super::members::{Declared, Member, Wait};
use super::{Classic, MEMBER_OVERHEAD, State, replies};
use crate::group::{Effects, millis, own};
use crate::outcome::{Context, Reply};
use crate::timers::Timer;

/// First version whose clients join a second time with the member id that the first join gave them (KIP-394).
const REQUIRES_KNOWN_MEMBER_ID: i16 = 4;
/// First version that can tell a leader not to assign (KIP-814).
const SUPPORTS_SKIP_ASSIGNMENT: i16 = 9;
/// Characters of the client id that a member id begins with; the rest is a UUID.
const MEMBER_ID_PREFIX: usize = 255;

impl Classic {
    /// Handles a JoinGroup whose session timeout and lengths were checked. It is answered at once or when the join
    /// barrier opens.
    pub(crate) fn join(&mut self, effects: &mut Effects<'_>, cx: &Context<'_>, request: &JoinGroupRequest) {
        match self.admit(effects, cx, request) {
            Ok(declared) if request.member_id.is_empty() => self.join_new(effects, cx, request, declared),
            Ok(declared) => self.join_known(effects, cx, request, declared),
            Err(code @ ErrorCode::GroupMaxSizeReached) => {
                effects.reply(cx.ticket, replies::join_error(cx.version, &StrBytes::new(), code));
            }
            Err(code) => effects.reply(
                cx.ticket,
                replies::join_error(cx.version, &request.member_id, code),
            ),
        }
    }

    /// Checks the bounds of the group and that it has a protocol in common with the member.
    fn admit(
        &mut self,
        effects: &mut Effects<'_>,
        cx: &Context<'_>,
        request: &JoinGroupRequest,
    ) -> Result<Declared, ErrorCode> {
        if !self.has_room_for(effects, &request.member_id) {
            // In a rebalance the last to come are turned away, even if they were members before.
            self.remove_pending(&request.member_id);
            if self.members.contains(&request.member_id) {
                self.remove_member(effects, &request.member_id);
            }
            self.complete_if_all_joined(effects);
            return Err(ErrorCode::GroupMaxSizeReached);
        }
        let declared = Declared::from_request(cx.version, request);
        if !self.supports(&request.protocol_type, &declared) {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        let instance = request.group_instance_id.as_ref();
        let known = match instance.and_then(|instance| self.members.static_id(instance)) {
            Some(id) => Some(id),
            None => Some(&request.member_id).filter(|id| self.members.contains(id)),
        };
        let (more, less) = self.members.growth(known, &declared);
        let overhead = match known {
            Some(_) => 0,
            None => MEMBER_OVERHEAD + cx.client_id.len() + MEMBER_ID_PREFIX,
        };
        if self.bytes().saturating_sub(less) + more + overhead > effects.config.max_group_bytes {
            return Err(ErrorCode::GroupMaxSizeReached);
        }
        Ok(declared)
    }

    /// `group.max.size`. During a rebalance those count who have joined it, since the others may never come.
    fn has_room_for(&self, effects: &Effects<'_>, member_id: &StrBytes) -> bool {
        let max = effects.config.max_group_size;
        let member = self.members.get(member_id);
        match self.state {
            State::Empty => true,
            State::PreparingRebalance => {
                member.is_some_and(Member::waits_for_join) || self.members.waiting_joins() < max
            }
            State::CompletingRebalance | State::Stable => member.is_some() || self.members.len() < max,
        }
    }

    fn supports(&self, protocol_type: &StrBytes, declared: &Declared) -> bool {
        if self.is_empty() {
            return !protocol_type.is_empty() && !declared.protocols.is_empty();
        }
        // The type is chosen by the first member, and a group that all have left in a rebalance has still its type.
        self.protocol_type.as_ref() == Some(protocol_type)
            && declared
                .protocols
                .iter()
                .any(|(name, _)| self.members.all_support(name))
    }

    fn join_new(
        &mut self,
        effects: &mut Effects<'_>,
        cx: &Context<'_>,
        request: &JoinGroupRequest,
        declared: Declared,
    ) {
        let instance = request.group_instance_id.as_ref();
        let prefix: String = instance
            .map_or(cx.client_id, |instance| instance.as_str())
            .chars()
            .take(MEMBER_ID_PREFIX)
            .collect();
        let member_id = StrBytes::from_string(format!("{prefix}-{}", cx.uuid));
        let replaced = instance
            .and_then(|instance| self.members.static_id(instance))
            .cloned();
        if let Some(old_id) = replaced {
            self.replace_static(effects, cx, (old_id, member_id), declared);
        } else if instance.is_none() && cx.version >= REQUIRES_KNOWN_MEMBER_ID {
            let timeout = millis(declared.session_timeout);
            effects.arm(&self.id, Timer::Session(member_id.clone()), timeout);
            let code = ErrorCode::MemberIdRequired;
            effects.reply(cx.ticket, replies::join_error(cx.version, &member_id, code));
            self.add_pending(member_id);
        } else {
            self.add_member(effects, cx, (request, member_id), declared);
        }
    }

    fn add_member(
        &mut self,
        effects: &mut Effects<'_>,
        cx: &Context<'_>,
        (request, member_id): (&JoinGroupRequest, StrBytes),
        declared: Declared,
    ) {
        if self.members.is_empty() {
            self.protocol_type = Some(own(&request.protocol_type));
        }
        if let Some(initial) = &mut self.initial {
            initial.member_added = true;
        }
        if self.leader.is_none() {
            self.leader = Some(member_id.clone());
        }
        self.remove_pending(&member_id);
        let member = Member::new(cx, request.group_instance_id.as_ref(), declared);
        self.members.insert(member_id.clone(), member);
        // It cannot send heartbeats before it knows its id, nor can a closed connection be noticed while its request
        // waits. A limit keeps requests that nobody waits for from piling up; who is still there asks again.
        let timeout = effects.config.new_member_join_timeout;
        effects.arm(&self.id, Timer::Session(member_id), timeout);
        self.rebalance_or_complete(effects);
    }

    fn join_known(
        &mut self,
        effects: &mut Effects<'_>,
        cx: &Context<'_>,
        request: &JoinGroupRequest,
        declared: Declared,
    ) {
        let member_id = &request.member_id;
        let instance = request.group_instance_id.as_ref();
        if instance.is_none() && self.pending.contains(member_id) {
            return self.add_member(effects, cx, (request, own(member_id)), declared);
        }
        if let Err(code) = self.validate_member(member_id, instance) {
            return effects.reply(cx.ticket, replies::join_error(cx.version, member_id, code));
        }
        let changed = self
            .members
            .get(member_id)
            .is_none_or(|member| member.declared.protocols != declared.protocols);
        let rebalances = match self.state {
            State::Empty | State::PreparingRebalance => true,
            // The answer to its first join may have been lost.
            State::CompletingRebalance => changed,
            // The leader may know of changes that no member's metadata shows, such as new partitions.
            State::Stable => changed || self.is_leader(member_id),
        };
        if rebalances {
            self.members.declare(member_id, declared);
            self.await_join(effects, member_id, Wait::from(cx));
            self.rebalance_or_complete(effects);
        } else {
            effects.reply(cx.ticket, Reply::JoinGroup(self.joined(cx.version, member_id)));
        }
    }

    /// A join that waited before is answered so that its client asks again, should there be one.
    fn await_join(&mut self, effects: &mut Effects<'_>, member_id: &StrBytes, wait: Wait) {
        if let Some(old) = self.members.wait_for_join(member_id, wait) {
            let code = ErrorCode::RebalanceInProgress;
            effects.reply(old.ticket, replies::join_error(old.version, member_id, code));
        }
    }

    /// A static member comes back under a new id (KIP-345). In a stable group nobody else notices, as long as the same
    /// protocol would be chosen: the metadata is expected to have changed, since it tells what the member owns.
    fn replace_static(
        &mut self,
        effects: &mut Effects<'_>,
        cx: &Context<'_>,
        (old_id, new_id): (StrBytes, StrBytes),
        declared: Declared,
    ) {
        let former_leader = self.leader.clone();
        let timeout = millis(declared.session_timeout);
        self.rename_static(effects, &old_id, &new_id);
        self.members.declare(&new_id, declared);
        effects.arm(&self.id, Timer::Session(new_id.clone()), timeout);
        match self.state {
            State::Stable => {
                let unchanged = self.members.select_protocol(self.leader.as_ref()) == self.protocol;
                let snapshot = self.snapshot();
                if unchanged && snapshot.size() <= effects.config.max_batch_bytes {
                    effects.record(snapshot);
                    let reply = self.rejoined(cx.version, &new_id, former_leader);
                    return effects.reply(cx.ticket, reply);
                }
                self.await_join(effects, &new_id, Wait::from(cx));
                self.rebalance_or_complete(effects);
            }
            // The leader may be assigning to the old id already.
            State::CompletingRebalance => {
                self.await_join(effects, &new_id, Wait::from(cx));
                self.prepare_rebalance(effects);
            }
            State::PreparingRebalance | State::Empty => {
                self.await_join(effects, &new_id, Wait::from(cx));
                self.complete_if_all_joined(effects);
            }
        }
    }

    /// Gives a static member its new id; what waits under the old one is fenced.
    fn rename_static(&mut self, effects: &mut Effects<'_>, old_id: &StrBytes, new_id: &StrBytes) {
        self.answer_waits(effects, old_id, (old_id, ErrorCode::FencedInstanceId));
        effects.timers.cancel(&self.id, Timer::Session(old_id.clone()));
        if let Some(mut member) = self.members.remove(old_id) {
            member.is_new = false;
            self.members.insert(new_id.clone(), member);
        }
        if self.is_leader(old_id) {
            self.leader = Some(new_id.clone());
        }
        if self.pending_sync.remove(old_id) {
            self.pending_sync.insert(new_id.clone());
        }
    }

    /// The answer to a static member that came back to a stable group. Old clients would assign if they were told that
    /// they lead, and nobody would want the result: they get the id that they had before for the leader's (KIP-814).
    fn rejoined(&self, version: i16, member_id: &StrBytes, former_leader: Option<StrBytes>) -> Reply {
        let response = self.joined(version, member_id);
        Reply::JoinGroup(if version >= SUPPORTS_SKIP_ASSIGNMENT {
            response.with_skip_assignment(self.is_leader(member_id))
        } else {
            response
                .with_leader(former_leader.unwrap_or_default())
                .with_members(Vec::new())
        })
    }
}
