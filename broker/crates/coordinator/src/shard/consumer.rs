//! The APIs of consumer groups (KIP-848), and groups that change their kind.

use takhin_protocol::ErrorCode;
use takhin_protocol::messages::consumer_group_describe_response::DescribedGroup;
use takhin_protocol::messages::{
    ConsumerGroupDescribeResponse, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, GroupId,
    StrBytes,
};

use super::{Shard, answer};
use crate::group::consumer::{JOIN_EPOCH, Refusal, validate_request};
use crate::group::{Classic, Consumer, Effects, Group, own};
use crate::outcome::{Context, Now, Outcome, Reply};
use crate::records::{ConsumerRecord, Record};
use crate::timers::Timers;
use crate::topics::Topics;

impl Shard {
    /// Handles a ConsumerGroupHeartbeat; it is always answered at once. A join may make the group, or turn a classic group
    /// of consumers into one of the consumer protocol.
    pub fn consumer_group_heartbeat(
        &mut self,
        cx: &Context<'_>,
        request: &ConsumerGroupHeartbeatRequest,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        let response = match self.beat(cx, request, &mut outcome) {
            Ok(response) => response,
            Err(refusal) => ConsumerGroupHeartbeatResponse::default()
                .with_error_code(refusal.code as i16)
                .with_error_message(Some(StrBytes::from_string(refusal.message))),
        };
        outcome
            .replies
            .push((cx.ticket, Reply::ConsumerGroupHeartbeat(response)));
        outcome
    }

    fn beat(
        &mut self,
        cx: &Context<'_>,
        request: &ConsumerGroupHeartbeatRequest,
        outcome: &mut Outcome,
    ) -> Result<ConsumerGroupHeartbeatResponse, Refusal> {
        validate_request(cx.version, request)?;
        let id = own(&request.group_id);
        let is_full = self.groups.len() >= self.config.max_groups;
        match self.groups.get_mut(&id) {
            Some(Group::Consumer(group)) => {
                let mut effects = Effects {
                    now: cx.now,
                    config: &self.config,
                    timers: &mut self.timers,
                    outcome,
                };
                let response = group.heartbeat(&mut effects, cx, request)?;
                self.settle(cx.now, cx.topics, &id, outcome);
                Ok(response)
            }
            Some(Group::Classic(_)) if request.member_epoch != JOIN_EPOCH => Err(not_of_consumers(&id)),
            None if request.member_epoch != JOIN_EPOCH => Err(not_found(&id)),
            None if is_full => Err(Refusal {
                code: ErrorCode::GroupMaxSizeReached,
                message: "The coordinator has reached its maximum number of groups.".to_owned(),
            }),
            Some(Group::Classic(_)) | None => self.first_beat(cx, request, outcome),
        }
    }

    /// A join that makes the group. Nothing happens if it is refused.
    fn first_beat(
        &mut self,
        cx: &Context<'_>,
        request: &ConsumerGroupHeartbeatRequest,
        outcome: &mut Outcome,
    ) -> Result<ConsumerGroupHeartbeatResponse, Refusal> {
        let id = own(&request.group_id);
        let (mut group, records) = match self.groups.get(&id) {
            Some(before @ Group::Classic(classic)) => {
                let (group, records) = self.upgraded(classic, cx.topics)?;
                let records = records.into_iter().map(Record::Consumer);
                (group, before.tombstones().into_iter().chain(records).collect())
            }
            _ => (Consumer::new(id.clone()), Vec::new()),
        };
        let mut made = Outcome {
            records,
            replies: Vec::new(),
        };
        // Timers are armed below, for all members, when the group has really come about.
        let mut timers = Timers::default();
        let mut effects = Effects {
            now: cx.now,
            config: &self.config,
            timers: &mut timers,
            outcome: &mut made,
        };
        let response = group.heartbeat(&mut effects, cx, request)?;
        if made.records.iter().map(Record::size).sum::<usize>() > self.config.max_batch_bytes {
            return Err(Refusal {
                code: ErrorCode::UnknownServerError,
                message: "The group does not fit a batch.".to_owned(),
            });
        }
        if let Some(mut before) = self.groups.insert(id.clone(), Group::Consumer(group)) {
            outcome
                .replies
                .extend(before.drop_waiting(ErrorCode::RebalanceInProgress));
            self.timers.cancel_group(&id);
        }
        outcome.records.extend(made.records);
        self.start_timers(cx.now, &id, outcome);
        Ok(response)
    }

    /// The consumer group that a classic group can become. An empty one becomes an empty one; offsets stay either way.
    fn upgraded(
        &self,
        classic: &Classic,
        topics: &dyn Topics,
    ) -> Result<(Consumer, Vec<ConsumerRecord>), Refusal> {
        if classic.is_empty() {
            return Ok((Consumer::new(classic.id().clone()), Vec::new()));
        }
        if !classic.is_of_consumers() || classic.len() > self.config.consumer_max_size {
            return Err(not_of_consumers(classic.id()));
        }
        Consumer::from_classic(classic, topics).map_err(|why| Refusal {
            code: ErrorCode::GroupIdNotFound,
            message: format!(
                "Cannot upgrade the classic group {} to consumer group because the embedded consumer protocol is \
                 malformed: {why}.",
                classic.id()
            ),
        })
    }

    /// Makes a classic group of a consumer group that has lost its last member of the consumer protocol, and has
    /// others. A group that cannot change stays as it is, and serves its members all the same.
    pub(super) fn settle(&mut self, now: Now, topics: &dyn Topics, id: &StrBytes, outcome: &mut Outcome) {
        let Some(before @ Group::Consumer(group)) = self.groups.get(id) else {
            return;
        };
        if !group.is_all_classic() || group.len() > self.config.max_group_size {
            return;
        }
        let Ok(mut classic) = group.to_classic(now, topics) else {
            return;
        };
        let mut made = Outcome {
            records: before.tombstones(),
            replies: Vec::new(),
        };
        let mut timers = Timers::default();
        classic.begin(&mut Effects {
            now,
            config: &self.config,
            timers: &mut timers,
            outcome: &mut made,
        });
        let size = |records: &[Record]| records.iter().map(Record::size).sum::<usize>();
        if size(&made.records) + size(&outcome.records) > self.config.max_batch_bytes {
            return;
        }
        tracing::info!(group = %id, "consumer group becomes classic");
        self.timers.cancel_group(id);
        self.timers.adopt(timers);
        self.groups.insert(id.clone(), Group::Classic(classic));
        outcome.records.extend(made.records);
        outcome.replies.extend(made.replies);
    }

    fn start_timers(&mut self, now: Now, id: &StrBytes, outcome: &mut Outcome) {
        if let Some(group) = self.groups.get_mut(id) {
            group.loaded(&mut Effects {
                now,
                config: &self.config,
                timers: &mut self.timers,
                outcome,
            });
        }
    }

    /// Describes one group of a ConsumerGroupDescribe. Authorized operations are left for the caller to fill in.
    pub fn consumer_group_describe(&self, cx: &Context<'_>, group_id: &str) -> Outcome {
        let refusal = match self.groups.get(group_id.as_bytes()) {
            Some(Group::Consumer(group)) => {
                let response = ConsumerGroupDescribeResponse::default();
                let described = vec![group.describe(cx.topics)];
                return answer(cx, Reply::ConsumerGroupDescribe(response.with_groups(described)));
            }
            Some(Group::Classic(_)) => not_of_consumers(group_id),
            None => not_found(group_id),
        };
        let described = DescribedGroup::default()
            .with_group_id(GroupId(own(group_id)))
            .with_error_code(refusal.code as i16)
            .with_error_message(Some(StrBytes::from_string(refusal.message)));
        let response = ConsumerGroupDescribeResponse::default().with_groups(vec![described]);
        answer(cx, Reply::ConsumerGroupDescribe(response))
    }

    /// Applies a record of a consumer group. Values make the group, in the place of one that only held offsets;
    /// tombstones do not.
    pub(super) fn replay_consumer(&mut self, record: &ConsumerRecord) {
        let id = own(record.group_id());
        let known = match self.groups.get_mut(&id) {
            Some(Group::Consumer(group)) => Some(group),
            Some(Group::Classic(_)) | None => None,
        };
        match (known, record) {
            (Some(_), ConsumerRecord::Group { value: None, .. }) => self.remove_group(&id),
            (Some(group), record) => group.replay(record),
            (None, record) if record.is_tombstone() => {}
            (None, record) => {
                let mut group = Consumer::new(id.clone());
                group.replay(record);
                self.groups.insert(id, Group::Consumer(group));
            }
        }
    }
}

fn not_found(group_id: &str) -> Refusal {
    Refusal {
        code: ErrorCode::GroupIdNotFound,
        message: format!("Group {group_id} not found."),
    }
}

fn not_of_consumers(group_id: &str) -> Refusal {
    Refusal {
        code: ErrorCode::GroupIdNotFound,
        message: format!("Group {group_id} is not a consumer group."),
    }
}

#[cfg(test)]
mod tests;
