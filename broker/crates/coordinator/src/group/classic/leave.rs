//! LeaveGroup: members that go, and tools that send them away.

use takhin_protocol::ErrorCode;
use takhin_protocol::messages::StrBytes;
use takhin_protocol::messages::leave_group_request::MemberIdentity;
use takhin_protocol::messages::leave_group_response::MemberResponse;

use super::{Classic, State};
use crate::group::Effects;
use crate::timers::Timer;

impl Classic {
    /// Removes members, each by its id, or by its instance id alone as tools do (KIP-345). One rebalance follows for
    /// all of them.
    pub(crate) fn leave(
        &mut self,
        effects: &mut Effects<'_>,
        members: &[MemberIdentity],
    ) -> Vec<MemberResponse> {
        let mut left = false;
        let mut responses = Vec::with_capacity(members.len());
        for member in members {
            let result = self.leave_one(effects, &member.member_id, member.group_instance_id.as_ref());
            left |= result.is_ok();
            responses.push(left_response(member, result.err().unwrap_or(ErrorCode::NoError)));
        }
        if left {
            match self.state {
                State::Stable | State::CompletingRebalance => self.prepare_rebalance(effects),
                State::PreparingRebalance => self.complete_if_all_joined(effects),
                State::Empty => {}
            }
        }
        responses
    }

    fn leave_one(
        &mut self,
        effects: &mut Effects<'_>,
        member_id: &StrBytes,
        group_instance_id: Option<&StrBytes>,
    ) -> Result<(), ErrorCode> {
        if member_id.is_empty() {
            let id = group_instance_id
                .and_then(|instance| self.members.static_id(instance))
                .cloned();
            let id = id.ok_or(ErrorCode::UnknownMemberId)?;
            self.remove_member(effects, &id);
        } else if self.remove_pending(member_id) {
            effects.timers.cancel(&self.id, Timer::Session(member_id.clone()));
        } else {
            self.validate_member(member_id, group_instance_id)?;
            self.remove_member(effects, member_id);
        }
        Ok(())
    }
}

/// The part of the response for one member.
pub(crate) fn left_response(member: &MemberIdentity, code: ErrorCode) -> MemberResponse {
    MemberResponse::default()
        .with_member_id(member.member_id.clone())
        .with_group_instance_id(member.group_instance_id.clone())
        .with_error_code(code as i16)
}
