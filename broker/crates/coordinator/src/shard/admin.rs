//! The APIs of tools: DescribeGroups, ListGroups, DeleteGroups; and topics that go away.

use takhin_protocol::ErrorCode;
use takhin_protocol::messages::delete_groups_response::DeletableGroupResult;
use takhin_protocol::messages::describe_groups_response::DescribedGroup;
use takhin_protocol::messages::list_groups_response::ListedGroup;
use takhin_protocol::messages::{
    DeleteGroupsResponse, DescribeGroupsResponse, GroupId, ListGroupsRequest, ListGroupsResponse, StrBytes,
};

use super::{Shard, answer};
use crate::group::{Group, own};
use crate::outcome::{Context, Outcome, Reply};
use crate::records::{OffsetRecord, Record};
use crate::topics::Topics;

/// First version of DescribeGroups that says that a group does not exist (KIP-1043).
const DESCRIBE_KNOWS_MISSING_GROUP: i16 = 6;

impl Shard {
    /// Describes one group of a DescribeGroups. A missing one is Dead; from version 6 it is GROUP_ID_NOT_FOUND as well.
    /// Authorized operations are left for the caller to fill in.
    pub fn describe_groups(&self, cx: &Context<'_>, group_id: &str) -> Outcome {
        let described = match self.groups.get(group_id.as_bytes()) {
            Some(Group::Classic(group)) => group.describe(),
            Some(Group::Consumer(_)) => missing(
                cx.version,
                group_id,
                &format!("Group {group_id} is not a classic group."),
            ),
            None => missing(cx.version, group_id, &format!("Group {group_id} not found.")),
        };
        let response = DescribeGroupsResponse::default().with_groups(vec![described]);
        answer(cx, Reply::DescribeGroups(response))
    }

    /// Lists the groups of this shard that pass the filters. Names in filters are compared without case, and unknown ones
    /// match nothing; an empty filter matches all.
    pub fn list_groups(&self, cx: &Context<'_>, request: &ListGroupsRequest) -> Outcome {
        let passes = |filter: &[StrBytes], name: &str| {
            filter.is_empty() || filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(name))
        };
        let groups = self.groups.iter().filter(|(_, group)| {
            passes(&request.states_filter, group.state_name())
                && passes(&request.types_filter, group.type_name())
        });
        let groups = groups.map(|(id, group)| {
            ListedGroup::default()
                .with_group_id(GroupId(id.clone()))
                .with_protocol_type(group.protocol_type())
                .with_group_state(StrBytes::from_static_str(group.state_name()))
                .with_group_type(StrBytes::from_static_str(group.type_name()))
        });
        let response = ListGroupsResponse::default().with_groups(groups.collect());
        answer(cx, Reply::ListGroups(response))
    }

    /// Deletes one group of a DeleteGroups, with its offsets. A group with many offsets takes several outcomes, to be
    /// appended in order; the reply comes with the last. Should an append fail between them, some offsets are gone and
    /// the group is still there, to be deleted again.
    pub fn delete_groups(&mut self, cx: &Context<'_>, group_id: &str) -> Vec<Outcome> {
        let result = match self.groups.get(group_id.as_bytes()) {
            None => Err(ErrorCode::GroupIdNotFound),
            Some(group) if !group.is_empty() => Err(ErrorCode::NonEmptyGroup),
            Some(group) => {
                let offsets = self.offsets.tombstones(group_id, |_| true);
                let mut records: Vec<Record> = offsets.into_iter().map(Record::Offset).collect();
                records.extend(group.tombstones());
                Ok(records)
            }
        };
        let (mut outcomes, code) = match result {
            Ok(records) => (self.in_batches(records), ErrorCode::NoError),
            Err(code) => (vec![Outcome::default()], code),
        };
        let result = DeletableGroupResult::default()
            .with_group_id(GroupId(own(group_id)))
            .with_error_code(code as i16);
        let reply = Reply::DeleteGroups(DeleteGroupsResponse::default().with_results(vec![result]));
        if let Some(last) = outcomes.last_mut() {
            last.replies.push((cx.ticket, reply));
        }
        outcomes
    }

    /// After loading: offsets for topics that were deleted while nobody served the shard go as well, also where there is
    /// a topic of the name again. Offsets with an expiry, which only OffsetCommit 2 to 4 can ask for, and those that
    /// Kafka before 4.1 has written do not say which topic they are of: they are kept where the name lives, as in Kafka.
    pub fn topics_missing(&mut self, topics: &dyn Topics) -> Vec<Outcome> {
        let orphans = self
            .offsets
            .orphan_tombstones(|name| topics.by_name(name).map(|info| info.id));
        self.forget(orphans)
    }

    /// Topics were deleted: so are all groups' offsets for them. Each outcome is one batch; they are appended in order.
    pub fn topics_deleted(&mut self, names: &[&str]) -> Vec<Outcome> {
        let records = self.offsets.topic_tombstones(names);
        self.forget(records)
    }

    fn forget(&mut self, records: Vec<OffsetRecord>) -> Vec<Outcome> {
        let mut outcomes = self.in_batches(records.into_iter().map(Record::Offset).collect());
        outcomes.retain(|outcome| !outcome.records.is_empty());
        outcomes
    }
}

fn missing(version: i16, group_id: &str, why: &str) -> DescribedGroup {
    let group = DescribedGroup::default()
        .with_group_id(GroupId(own(group_id)))
        .with_group_state(StrBytes::from_static_str("Dead"));
    if version < DESCRIBE_KNOWS_MISSING_GROUP {
        return group;
    }
    group
        .with_error_code(ErrorCode::GroupIdNotFound as i16)
        .with_error_message(Some(own(why)))
}
