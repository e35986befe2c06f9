//! What tools are told of a classic group.

use takhin_protocol::messages::GroupId;
use takhin_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use takhin_protocol::messages::join_group_response::JoinGroupResponseMember;

use super::{Classic, State};
use crate::group::own;

impl Classic {
    /// Members' metadata and assignments are shown while the group is stable; before that they do not belong together.
    pub(crate) fn describe(&self) -> DescribedGroup {
        let stable = self.state == State::Stable;
        let protocol = self.protocol.clone().filter(|_| stable);
        let members = self.members.iter().map(|(id, member)| {
            let described = DescribedGroupMember::default()
                .with_member_id(id.clone())
                .with_group_instance_id(member.group_instance_id.clone())
                .with_client_id(member.client_id.clone())
                .with_client_host(member.client_host.clone());
            if !stable {
                return described;
            }
            described
                .with_member_metadata(member.metadata(protocol.as_ref()))
                .with_member_assignment(member.assignment.clone())
        });
        DescribedGroup::default()
            .with_group_id(GroupId(self.id.clone()))
            .with_group_state(own(self.state.name()))
            .with_protocol_type(self.protocol_type.clone().unwrap_or_default())
            .with_protocol_data(protocol.clone().unwrap_or_default())
            .with_members(members.collect())
    }

    /// Everybody's metadata for the chosen protocol, from which the leader assigns.
    pub(super) fn joined_members(&self) -> Vec<JoinGroupResponseMember> {
        let members = self.members.iter().map(|(id, member)| {
            JoinGroupResponseMember::default()
                .with_member_id(id.clone())
                .with_group_instance_id(member.group_instance_id.clone())
                .with_metadata(member.metadata(self.protocol.as_ref()))
        });
        members.collect()
    }
}
