//! ElectLeaders (key 43), versions 0-2.
//!
//! Moves leadership to the preferred replica, or to any that is left (KIP-183, KIP-460).
//!
//! - v1: the kind of election; before it is always the preferred one. v2: flexible encoding.
//!
//! Replicas elect a leader by themselves as soon as a majority is there. Not done: passing leadership to a preferred replica
//! while another one leads; the answer says so.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use takhin_protocol::ErrorCode;
use takhin_protocol::messages::elect_leaders_request::TopicPartitions;
use takhin_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use takhin_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse, StrBytes, TopicName};

use super::change::Refused;
use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::replicas::View;

pub(crate) struct ElectLeaders;

impl Api for ElectLeaders {
    type Request = ElectLeadersRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=2;

    async fn handle(cx: &RequestContext, request: ElectLeadersRequest) -> ElectLeadersResponse {
        let response = ElectLeadersResponse::default();
        let without_leader = match request.election_type {
            0 => ErrorCode::PreferredLeaderNotAvailable,
            1 => ErrorCode::EligibleLeadersNotAvailable,
            _ => return response.with_error_code(cx.code(ErrorCode::InvalidRequest)),
        };
        let election = Election {
            cx,
            view: View::new(cx.cluster()),
            without_leader,
        };
        let results = match &request.topic_partitions {
            Some(named) => election.of(named),
            None => election.of_all(),
        };
        response.with_replica_election_results(results)
    }
}

struct Election<'a> {
    cx: &'a RequestContext,
    view: View,
    /// The code for a partition that nobody leads.
    without_leader: ErrorCode,
}

impl Election<'_> {
    /// Each named partition once.
    fn of(&self, named: &[TopicPartitions]) -> Vec<ReplicaElectionResult> {
        let mut seen = BTreeSet::new();
        let mut results = Vec::with_capacity(named.len());
        for topic in named {
            let indexes = topic.partitions.iter().copied();
            let fresh = indexes.filter(|index| seen.insert((topic.topic.clone(), *index)));
            let partitions = fresh.map(|index| self.result(index, self.outcome(&topic.topic, index)));
            results.push(result(topic.topic.clone(), partitions.collect()));
        }
        results
    }

    /// All partitions but those that need no election (as in Kafka).
    fn of_all(&self) -> Vec<ReplicaElectionResult> {
        let mut results = Vec::new();
        for topic in self.view.image.topics.values() {
            let indexes = (0..).zip(&topic.partitions).map(|(index, _)| index);
            let outcomes = indexes.map(|index| (index, self.outcome(&topic.name, index)));
            let partitions: Vec<_> = outcomes
                .filter(|(_, refused)| refused.code != ErrorCode::ElectionNotNeeded)
                .map(|(index, refused)| self.result(index, refused))
                .collect();
            if !partitions.is_empty() {
                let name = StrBytes::from_string(topic.name.clone()).into();
                results.push(result(name, partitions));
            }
        }
        results
    }

    fn outcome(&self, name: &str, index: i32) -> Refused {
        let Ok(topic) = self.view.topic(name) else {
            let message = format!("No such topic as {name}");
            return Refused::new(ErrorCode::UnknownTopicOrPartition, message);
        };
        if usize::try_from(index).map_or(true, |index| index >= topic.partitions.len()) {
            let message = format!("No such partition as {name}-{index}");
            return Refused::new(ErrorCode::UnknownTopicOrPartition, message);
        }
        let leader = self.view.leadership(topic.id, index).leader;
        let preferred = usize::try_from(index)
            .ok()
            .and_then(|index| topic.partitions[index].replicas.first());
        let is_stray =
            self.without_leader == ErrorCode::PreferredLeaderNotAvailable && preferred != Some(&leader);
        if leader >= 0 && is_stray {
            let message =
                format!("Broker {leader} leads {name}-{index}; leadership is not passed on by this version.");
            return Refused::new(self.without_leader, message);
        }
        if leader >= 0 {
            return Refused::new(
                ErrorCode::ElectionNotNeeded,
                "Leader election not needed for topic partition.",
            );
        }
        let message = format!("No replica of {name}-{index} can lead at the moment.");
        Refused::new(self.without_leader, message)
    }

    fn result(&self, index: i32, refused: Refused) -> PartitionResult {
        PartitionResult::default()
            .with_partition_id(index)
            .with_error_code(self.cx.code(refused.code))
            .with_error_message(refused.text())
    }
}

fn result(topic: TopicName, partitions: Vec<PartitionResult>) -> ReplicaElectionResult {
    ReplicaElectionResult::default()
        .with_topic(topic)
        .with_partition_result(partitions)
}
