//! ConsumerGroupHeartbeat: the one request by which members join, stay, learn their assignment and leave.

use takhin_protocol::ErrorCode;
use takhin_protocol::messages::consumer_group_heartbeat_response::{Assignment, TopicPartitions};
use takhin_protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};

use super::admit::Admission;
use super::reconcile::{self, Target};
use super::{Consumer, JOIN_EPOCH, Member, Refusal, collect};
use crate::group::{Effects, own};
use crate::outcome::Context;
use crate::records::{ConsumerMember, ConsumerRecord, CurrentAssignment, Partitions, Record};
use crate::topics::Topics;

/// What a member takes in memory besides the bytes it sent, roughly.
const MEMBER_OVERHEAD: usize = 256;

/// What a request wants of the group.
#[derive(Debug)]
pub(super) struct Update<'a> {
    pub(super) member_id: &'a str,
    pub(super) admission: Admission,
    pub(super) metadata: ConsumerMember,
    /// What the member says it owns.
    pub(super) claimed: Option<&'a Partitions>,
}

impl Consumer {
    /// Handles a heartbeat that [`super::validate_request`] has passed.
    ///
    /// # Errors
    ///
    /// The code and message to answer with; the group and the outcome are as before.
    pub(crate) fn heartbeat(
        &mut self,
        effects: &mut Effects<'_>,
        cx: &Context<'_>,
        request: &ConsumerGroupHeartbeatRequest,
    ) -> Result<ConsumerGroupHeartbeatResponse, Refusal> {
        if request.member_epoch < JOIN_EPOCH {
            return self.leave(effects, request);
        }
        let made_id = cx.uuid.to_string();
        let member_id = match request.member_id.as_str() {
            "" => made_id.as_str(),
            member_id => member_id,
        };
        let claimed = claimed(request);
        let admission = self.admit(member_id, request, claimed.as_ref())?;
        let known = match &admission {
            Admission::New => Member::new(),
            Admission::Known => self.members.get(member_id).cloned().unwrap_or_else(Member::new),
            Admission::Replaces(old) => self.members.get(old).cloned().unwrap_or_else(Member::new),
        };
        let metadata = updated(&known.metadata, cx, request)?;
        self.check_room(effects, &admission, &known.metadata, &metadata)?;
        let update = Update {
            member_id,
            admission,
            metadata,
            claimed: claimed.as_ref(),
        };
        self.update(effects, cx.topics, update)?;
        self.keep_alive(effects, member_id);
        self.answer(effects, member_id, request, &known.current)
    }

    /// Lets a member in or changes it, makes a new target assignment if that is called for, and takes the member a step
    /// towards it.
    ///
    /// # Errors
    ///
    /// UNKNOWN_SERVER_ERROR if the records do not fit a batch, as Kafka answers when the append is refused;
    /// FENCED_MEMBER_EPOCH. The group and the outcome are then as before.
    pub(super) fn update(
        &mut self,
        effects: &mut Effects<'_>,
        topics: &dyn Topics,
        update: Update<'_>,
    ) -> Result<(), Refusal> {
        let first = effects.outcome.records.len();
        // A heartbeat that changes nothing for others writes one record at most; it is not worth a copy.
        let is_quiet = update.admission == Admission::Known
            && self.members.get(update.member_id).map(|member| &member.metadata) == Some(&update.metadata)
            && self.checked == Some(topics.version())
            && self.epoch == self.target_epoch;
        let before = (!is_quiet).then(|| self.clone());
        let current = self
            .members
            .get(update.member_id)
            .map(|member| member.current.clone());
        let result = self.try_update(effects, topics, &update).and_then(|()| {
            let records = effects.outcome.records.iter().skip(first);
            if records.map(Record::size).sum::<usize>() > effects.config.max_batch_bytes {
                let message = "The assignment of the group does not fit a batch.";
                return Err(Refusal::new(ErrorCode::UnknownServerError, message));
            }
            Ok(())
        });
        match (result, before) {
            (Ok(()), _) => {
                if let Admission::Replaces(old) = &update.admission
                    && old != update.member_id
                {
                    self.cancel_timers(effects, old);
                }
                self.arm_rebalance(effects, first, update.member_id);
                Ok(())
            }
            (Err(refusal), before) => {
                effects.outcome.records.truncate(first);
                match before {
                    Some(before) => *self = before,
                    None => self.replay_current(update.member_id, current.as_ref()),
                }
                Err(refusal)
            }
        }
    }

    fn try_update(
        &mut self,
        effects: &mut Effects<'_>,
        topics: &dyn Topics,
        update: &Update<'_>,
    ) -> Result<(), Refusal> {
        let member_id = update.member_id;
        if let Admission::Replaces(old) = &update.admission {
            self.replace(effects, old, member_id);
        }
        let known = self.members.get(member_id).map(|member| &member.metadata);
        let subscription_changed = known.is_none_or(|known| {
            known.topics != update.metadata.topics || known.regex != update.metadata.regex
        });
        if known != Some(&update.metadata) {
            let record = ConsumerRecord::Member {
                group_id: self.key(),
                member_id: member_id.to_owned(),
                value: Some(update.metadata.clone()),
            };
            self.write(effects, record);
        }
        self.refresh_target(effects, topics, subscription_changed);
        self.reconcile(effects, member_id, update.claimed)
    }

    /// `group.consumer.max.size`, and the bytes that members may take.
    pub(super) fn check_room(
        &self,
        effects: &Effects<'_>,
        admission: &Admission,
        known: &ConsumerMember,
        metadata: &ConsumerMember,
    ) -> Result<(), Refusal> {
        let max = effects.config.consumer_max_size;
        if *admission == Admission::New && self.members.len() >= max {
            let message = format!("The consumer group has reached its maximum capacity of {max} members.");
            return Err(Refusal::new(ErrorCode::GroupMaxSizeReached, message));
        }
        if known == metadata && *admission == Admission::Known {
            return Ok(());
        }
        let members = self.members.iter();
        let bytes: usize = members
            .map(|(id, member)| id.len() + size(&member.metadata))
            .sum();
        let before = match admission {
            Admission::New => 0,
            Admission::Known | Admission::Replaces(_) => size(known),
        };
        let max = effects.config.max_group_bytes;
        if bytes.saturating_sub(before) + size(metadata) > max {
            let message = format!("The subscriptions of the consumer group have reached {max} bytes.");
            return Err(Refusal::new(ErrorCode::GroupMaxSizeReached, message));
        }
        Ok(())
    }

    /// Takes the member a step towards its target.
    pub(super) fn reconcile(
        &mut self,
        effects: &mut Effects<'_>,
        member_id: &str,
        claimed: Option<&Partitions>,
    ) -> Result<(), Refusal> {
        let Some(member) = self.members.get(member_id) else {
            return Ok(());
        };
        if member.is_reconciled_to(self.target_epoch) {
            return Ok(());
        }
        let none = Partitions::new();
        let target = Target {
            epoch: self.target_epoch,
            partitions: self.target.get(member_id).unwrap_or(&none),
        };
        let next = reconcile::step(&member.current, &target, claimed, |topic, partition| {
            self.owners.contains_key(&(topic, partition))
        });
        let next = next.map_err(|_| {
            let message = "The consumer group member is in a unknown state. The member must abandon all its \
                           partitions and rejoin.";
            Refusal::new(ErrorCode::FencedMemberEpoch, message)
        })?;
        if next != member.current {
            let record = ConsumerRecord::Current {
                group_id: self.key(),
                member_id: member_id.to_owned(),
                value: Some(next),
            };
            self.write(effects, record);
        }
        Ok(())
    }

    /// The assignment is part of it if it has changed, or if the member said everything about itself, as it does after
    /// an error.
    fn answer(
        &self,
        effects: &Effects<'_>,
        member_id: &str,
        request: &ConsumerGroupHeartbeatRequest,
        before: &CurrentAssignment,
    ) -> Result<ConsumerGroupHeartbeatResponse, Refusal> {
        let Some(member) = self.members.get(member_id) else {
            return Err(super::admit::unknown(member_id, &self.id));
        };
        let subscribes = request.subscribed_topic_names.is_some() || request.subscribed_topic_regex.is_some();
        let is_full = request.member_epoch == JOIN_EPOCH
            || (request.rebalance_timeout_ms != -1 && subscribes && request.topic_partitions.is_some());
        let assigned = &member.current.assigned;
        let assignment = (is_full || *assigned != before.assigned).then(|| {
            let topics = assigned.iter().map(|(topic, partitions)| {
                TopicPartitions::default()
                    .with_topic_id(*topic)
                    .with_partitions(partitions.iter().copied().collect())
            });
            Assignment::default().with_topic_partitions(topics.collect())
        });
        let interval = effects.config.consumer_heartbeat_interval(&self.id).as_millis();
        let response = ConsumerGroupHeartbeatResponse::default()
            .with_member_id(Some(own(member_id)))
            .with_member_epoch(member.current.epoch)
            .with_heartbeat_interval_ms(i32::try_from(interval).unwrap_or(i32::MAX))
            .with_assignment(assignment);
        Ok(response)
    }
}

/// What the member says it owns.
fn claimed(request: &ConsumerGroupHeartbeatRequest) -> Option<Partitions> {
    let topics = request.topic_partitions.as_ref()?;
    Some(collect(topics.iter().flat_map(|topic| {
        topic
            .partitions
            .iter()
            .map(|partition| (topic.topic_id, *partition))
    })))
}

/// A member's metadata after a request, which leaves out what has not changed.
fn updated(
    known: &ConsumerMember,
    cx: &Context<'_>,
    request: &ConsumerGroupHeartbeatRequest,
) -> Result<ConsumerMember, Refusal> {
    let mut metadata = known.clone();
    if let Some(instance) = request.instance_id.as_deref() {
        metadata.instance_id = Some(instance.to_owned());
    }
    if let Some(rack) = request.rack_id.as_deref() {
        metadata.rack_id = Some(rack.to_owned());
    }
    if request.rebalance_timeout_ms != -1 {
        metadata.rebalance_timeout_ms = request.rebalance_timeout_ms;
    }
    if let Some(assignor) = request.server_assignor.as_deref() {
        metadata.assignor = Some(assignor.to_owned());
    }
    if let Some(topics) = &request.subscribed_topic_names {
        metadata.topics = topics.iter().map(|topic| topic.to_string()).collect();
    }
    if let Some(regex) = request.subscribed_topic_regex.as_deref() {
        if metadata.regex.as_deref() != Some(regex) {
            super::regex::compile(regex).map_err(|why| {
                let message =
                    format!("SubscribedTopicRegex `{regex}` is not a valid regular expression: {why}.");
                Refusal::new(ErrorCode::InvalidRegularExpression, message)
            })?;
        }
        metadata.regex = Some(regex.to_owned());
    }
    cx.client_id.clone_into(&mut metadata.client_id);
    cx.client_host.clone_into(&mut metadata.client_host);
    metadata.classic = None;
    Ok(metadata)
}

/// What a member takes in memory, in bytes, without its id. Its topics are in a tree.
fn size(metadata: &ConsumerMember) -> usize {
    MEMBER_OVERHEAD + 64 * metadata.topics.len() + metadata.size()
}
