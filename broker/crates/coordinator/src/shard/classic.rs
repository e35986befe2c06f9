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
        let existed = self.groups.contains_key(&id);
        let group = self
            .groups
            .entry(id.clone())
            .or_insert_with(|| Group::Classic(Classic::new(id.clone(), cx.now.wall_ms)));
        let mut effects = Effects {
            now: cx.now,
            config: &self.config,
            timers: &mut self.timers,
            outcome: &mut outcome,
        };
        match group {
            Group::Classic(group) => {
                let created = (!existed).then(|| group.creation_record());
                group.join(&mut effects, cx, request);
                if !existed && group.is_vacant() {
                    self.groups.remove(&id);
                } else if let Some(created) = created {
                    outcome.records.insert(0, created);
                }
            }
        }
        outcome
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
        }
        outcome
    }

    /// Handles a Heartbeat.
    pub fn heartbeat(&mut self, cx: &Context<'_>, request: &HeartbeatRequest) -> Outcome {
        let mut outcome = Outcome::default();
        let code = match self.member_group(&request.group_id, cx, &mut outcome) {
            Err(code) => code,
            Ok((Group::Classic(group), mut effects)) => group.heartbeat(&mut effects, request),
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
            Err(code @ ErrorCode::UnknownMemberId) => {
                Ok(members.iter().map(|member| left_response(member, code)).collect())
            }
            Err(code) => Err(code as i16),
        };
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
