//! Responses of classic groups, and how their versions differ.

use takhin_protocol::ErrorCode;
use takhin_protocol::messages::{HeartbeatResponse, JoinGroupResponse, StrBytes, SyncGroupResponse};

use super::Classic;
use crate::outcome::Reply;

/// First version of JoinGroup whose response can say that there is no protocol.
const JOIN_NULLABLE_PROTOCOL: i16 = 7;

/// A protocol's name as this version of a JoinGroup response has it: before version 7 none is the empty string.
fn join_protocol(version: i16, name: Option<StrBytes>) -> Option<StrBytes> {
    name.or_else(|| (version < JOIN_NULLABLE_PROTOCOL).then(StrBytes::new))
}

/// `member_id` is the one that the client is to know, empty if it has to begin anew.
pub(crate) fn join_error(version: i16, member_id: &StrBytes, code: ErrorCode) -> Reply {
    Reply::JoinGroup(
        JoinGroupResponse::default()
            .with_error_code(code as i16)
            .with_generation_id(-1)
            .with_protocol_type(None)
            .with_protocol_name(join_protocol(version, None))
            .with_member_id(member_id.clone()),
    )
}

pub(crate) fn sync_error(code: ErrorCode) -> Reply {
    Reply::SyncGroup(
        SyncGroupResponse::default()
            .with_error_code(code as i16)
            .with_protocol_type(None)
            .with_protocol_name(None),
    )
}

pub(crate) fn heartbeat(code: ErrorCode) -> Reply {
    Reply::Heartbeat(HeartbeatResponse::default().with_error_code(code as i16))
}

impl Classic {
    /// The current generation for one of its members. The leader alone gets everybody's metadata.
    pub(super) fn joined(&self, version: i16, member_id: &StrBytes) -> JoinGroupResponse {
        let members = if self.is_leader(member_id) {
            self.joined_members()
        } else {
            Vec::new()
        };
        JoinGroupResponse::default()
            .with_error_code(ErrorCode::NoError as i16)
            .with_generation_id(self.generation)
            .with_protocol_type(self.protocol_type.clone())
            .with_protocol_name(join_protocol(version, self.protocol.clone()))
            .with_leader(self.leader.clone().unwrap_or_default())
            .with_member_id(member_id.clone())
            .with_members(members)
    }

    pub(super) fn synced(&self, member_id: &StrBytes) -> Reply {
        let assignment = self
            .members
            .get(member_id)
            .map(|member| member.assignment.clone());
        Reply::SyncGroup(
            SyncGroupResponse::default()
                .with_error_code(ErrorCode::NoError as i16)
                .with_protocol_type(self.protocol_type.clone())
                .with_protocol_name(self.protocol.clone())
                .with_assignment(assignment.unwrap_or_default()),
        )
    }
}
