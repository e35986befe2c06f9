//! The APIs of members: JoinGroup, SyncGroup, Heartbeat, LeaveGroup.

use takhin_protocol::ErrorCode;
use takhin_protocol::messages::leave_group_request::MemberIdentity;
use takhin_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, LeaveGroupResponse, StrBytes, SyncGroupRequest,
};

use super::{Shard, answer, check_group_id};
use crate::group::classic::{left_response, replies};
use crate::group::{Classic, Effects, Group, millis, own};
use crate::outcome::{Context, Outcome, Reply};

/// Longest instance id, in bytes; clients refuse longer ones themselves.
const MAX_INSTANCE_ID_BYTES: usize = 249;

/// First version of LeaveGroup with a list of members (KIP-345).
const LEAVE_WITH_MEMBERS: i16 = 3;

impl Shard {
    /// Handles a JoinGroup: at once if nothing has to be waited for, else when the join barrier opens.
    ///
    /// A join with an empty member id may make the group; that it exists is written down, as in Kafka.
    pub fn join_group(&mut self, cx: &Context<'_>, request: &JoinGroupRequest) -> Outcome {
        if let Err(code) = self.check_join(request) {
            let told = match code {
                ErrorCode::GroupMaxSizeReached => StrBytes::new(),
                _ => request.member_id.clone(),
            };
            return answer(cx, replies::join_error(cx.version, &told, code));
        }
        let mut outcome = Outcome::default();
        let id = own(&request.group_id);
        match self.groups.get_mut(&id) {
            Some(Group::Consumer(group)) if !group.is_empty() => {
                let mut effects = Effects {
                    now: cx.now,
                    config: &self.config,
                    timers: &mut self.timers,
                    outcome: &mut outcome,
                };
                group.join_classic(&mut effects, cx, request);
                self.settle(cx.now, cx.topics, &id, &mut outcome);
            }
            Some(Group::Classic(_)) => self.join_classic(cx, request, &id, &mut outcome),
            // An empty consumer group makes way for a classic one.
            Some(Group::Consumer(_)) if !request.member_id.is_empty() => {
                let code = ErrorCode::UnknownMemberId;
                return answer(cx, replies::join_error(cx.version, &request.member_id, code));
            }
            Some(Group::Consumer(_)) | None => self.join_new(cx, request, &id, &mut outcome),
        }
        outcome
    }

    fn join_classic(
        &mut self,
        cx: &Context<'_>,
        request: &JoinGroupRequest,
        id: &StrBytes,
        outcome: &mut Outcome,
    ) {
        if let Some(Group::Classic(group)) = self.groups.get_mut(id) {
            let mut effects = Effects {
                now: cx.now,
                config: &self.config,
                timers: &mut self.timers,
                outcome,
            };
            group.join(&mut effects, cx, request);
        }
    }

    /// A join that makes the group, unless it is refused.
    fn join_new(
        &mut self,
        cx: &Context<'_>,
        request: &JoinGroupRequest,
        id: &StrBytes,
        outcome: &mut Outcome,
    ) {
        let mut group = Classic::new(id.clone(), cx.now.wall_ms);
        let created = group.creation_record();
        let mut effects = Effects {
            now: cx.now,
            config: &self.config,
            timers: &mut self.timers,
            outcome,
        };
        group.join(&mut effects, cx, request);
        if group.is_vacant() {
            return;
        }
        let replaced = self.groups.insert(id.clone(), Group::Classic(group));
        let tombstones = replaced.map_or_else(Vec::new, |group| group.tombstones());
        outcome
            .records
            .splice(0..0, tombstones.into_iter().chain([created]));
    }

    fn check_join(&self, request: &JoinGroupRequest) -> Result<(), ErrorCode> {
        check_group_id(&request.group_id)?;
        let timeout = millis(request.session_timeout_ms);
        if timeout < self.config.min_session_timeout || timeout > self.config.max_session_timeout {
            return Err(ErrorCode::InvalidSessionTimeout);
        }
        if request
            .group_instance_id
            .as_ref()
            .is_some_and(|id| id.len() > MAX_INSTANCE_ID_BYTES)
        {
            return Err(ErrorCode::InvalidRequest);
        }
        // The record has 16-bit lengths for these.
        let too_long = |name: &StrBytes| i16::try_from(name.len()).is_err();
        if too_long(&request.protocol_type)
            || request.protocols.iter().any(|protocol| too_long(&protocol.name))
        {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        if self.groups.contains_key(request.group_id.as_bytes()) {
            Ok(())
        } else if !request.member_id.is_empty() {
            Err(ErrorCode::UnknownMemberId)
        } else if self.groups.len() >= self.config.max_groups {
            Err(ErrorCode::GroupMaxSizeReached)
        } else {
            Ok(())
        }
    }

    /// Handles a SyncGroup: at once if the assignment is there, else when the leader brings it.
    pub fn sync_group(&mut self, cx: &Context<'_>, request: &SyncGroupRequest) -> Outcome {
        let mut outcome = Outcome::default();
        match self.member_group(&request.group_id, cx, &mut outcome) {
            Err(code) => return answer(cx, replies::sync_error(code)),
            Ok((Group::Classic(group), mut effects)) => group.sync(&mut effects, cx, request),
            Ok((Group::Consumer(group), mut effects)) => {
                let reply = group.sync_classic(&mut effects, cx.topics, request);
                effects.reply(cx.ticket, reply);
            }
        }
        outcome
    }

    /// Handles a Heartbeat.
    pub fn heartbeat(&mut self, cx: &Context<'_>, request: &HeartbeatRequest) -> Outcome {
        let mut outcome = Outcome::default();
        let code = match self.member_group(&request.group_id, cx, &mut outcome) {
            Err(code) => code,
            Ok((Group::Classic(group), mut effects)) => group.heartbeat(&mut effects, request),
            Ok((Group::Consumer(group), mut effects)) => group.heartbeat_classic(&mut effects, request),
        };
        outcome.replies.push((cx.ticket, replies::heartbeat(code)));
        outcome
    }

    /// Handles a LeaveGroup: one member before version 3, a list from there.
    pub fn leave_group(&mut self, cx: &Context<'_>, request: &LeaveGroupRequest) -> Outcome {
        let single = [MemberIdentity::default().with_member_id(request.member_id.clone())];
        let members = if cx.version < LEAVE_WITH_MEMBERS {
            &single
        } else {
            request.members.as_slice()
        };
        let mut outcome = Outcome::default();
        let result = match self.member_group(&request.group_id, cx, &mut outcome) {
            Ok((Group::Classic(group), mut effects)) => Ok(group.leave(&mut effects, members)),
            Ok((Group::Consumer(group), mut effects)) => Ok(group.leave_classic(&mut effects, members)),
            Err(code @ ErrorCode::UnknownMemberId) => {
                Ok(members.iter().map(|member| left_response(member, code)).collect())
            }
            Err(code) => Err(code as i16),
        };
        self.settle(cx.now, cx.topics, &request.group_id, &mut outcome);
        let response = LeaveGroupResponse::default();
        let response = match result {
            Err(code) => response.with_error_code(code),
            Ok(members) if cx.version < LEAVE_WITH_MEMBERS => {
                response.with_error_code(members.first().map_or(0, |member| member.error_code))
            }
            Ok(members) => response.with_members(members),
        };
        outcome.replies.push((cx.ticket, Reply::LeaveGroup(response)));
        outcome
    }

    /// The group of a request that only its members make, and what it may reach.
    fn member_group<'a>(
        &'a mut self,
        id: &str,
        cx: &Context<'_>,
        outcome: &'a mut Outcome,
    ) -> Result<(&'a mut Group, Effects<'a>), ErrorCode> {
        check_group_id(id)?;
        let group = self
            .groups
            .get_mut(id.as_bytes())
            .ok_or(ErrorCode::UnknownMemberId)?;
        let effects = Effects {
            now: cx.now,
            config: &self.config,
            timers: &mut self.timers,
            outcome,
        };
        Ok((group, effects))
    }
}
