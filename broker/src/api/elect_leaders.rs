//! ElectLeaders (key 43), versions 0-2.
//!
//! Moves leadership to the preferred replica, or to any that is left (KIP-183, KIP-460).
//!
//! - v1: the kind of election; before it is always the preferred one. v2: flexible encoding.
//!
//! A preferred replica that is in sync is handed the leadership. Any replica that is left: none leads that lacks committed
//! records, so that a partition without a leader waits for a majority of its replicas, and the answer says so.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use futures_util::stream::{self, StreamExt as _};
use takhin_cluster::NoElection;
use takhin_protocol::ErrorCode;
use takhin_protocol::messages::elect_leaders_request::TopicPartitions;
use takhin_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use takhin_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse, StrBytes, TopicName};

use super::change::Refused;
use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::replicas::View;

/// Kinds of election.
const PREFERRED: i8 = 0;
const ANY: i8 = 1;

/// Elections held at a time for one request.
const AT_A_TIME: usize = 32;

pub(crate) struct ElectLeaders;

impl Api for ElectLeaders {
    type Request = ElectLeadersRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=2;

    async fn handle(cx: &RequestContext, request: ElectLeadersRequest) -> ElectLeadersResponse {
        let response = ElectLeadersResponse::default();
        let without_leader = match request.election_type {
            PREFERRED => ErrorCode::PreferredLeaderNotAvailable,
            ANY => ErrorCode::EligibleLeadersNotAvailable,
            _ => return response.with_error_code(cx.code(ErrorCode::InvalidRequest)),
        };
        let election = Election {
            cx,
            view: View::new(cx.cluster()),
            is_preferred: request.election_type == PREFERRED,
            without_leader,
        };
        let results = match &request.topic_partitions {
            Some(named) => election.of(named).await,
            None => election.of_all().await,
        };
        response.with_replica_election_results(results)
    }
}

struct Election<'a> {
    cx: &'a RequestContext,
    view: View,
    is_preferred: bool,
    /// The code for a partition that nobody leads.
    without_leader: ErrorCode,
}

impl Election<'_> {
    /// Each named partition once.
    async fn of(&self, named: &[TopicPartitions]) -> Vec<ReplicaElectionResult> {
        let mut seen = BTreeSet::new();
        let mut results = Vec::with_capacity(named.len());
        for topic in named {
            let indexes = topic.partitions.iter().copied();
            let fresh = indexes.filter(|index| seen.insert((topic.topic.clone(), *index)));
            let outcomes = self.outcomes(&topic.topic, fresh.collect()).await;
            let partitions = outcomes
                .into_iter()
                .map(|(index, outcome)| self.result(index, outcome));
            results.push(result(topic.topic.clone(), partitions.collect()));
        }
        results
    }

    /// All partitions but those that need no election (as in Kafka).
    async fn of_all(&self) -> Vec<ReplicaElectionResult> {
        let mut results = Vec::new();
        for topic in self.view.image.topics.values() {
            let indexes = (0..).zip(&topic.partitions).map(|(index, _)| index);
            let outcomes = self.outcomes(&topic.name, indexes.collect()).await;
            let not_needed = |outcome: &Option<Refused>| {
                let refused = outcome.as_ref();
                refused.is_some_and(|refused| refused.code == ErrorCode::ElectionNotNeeded)
            };
            let partitions: Vec<_> = outcomes
                .into_iter()
                .filter(|(_, outcome)| !not_needed(outcome))
                .map(|(index, outcome)| self.result(index, outcome))
                .collect();
            if !partitions.is_empty() {
                let name = StrBytes::from_string(topic.name.clone()).into();
                results.push(result(name, partitions));
            }
        }
        results
    }

    /// What came of each partition, in order; `None` is an election.
    async fn outcomes(&self, topic: &str, indexes: Vec<i32>) -> Vec<(i32, Option<Refused>)> {
        stream::iter(indexes)
            .map(async |index| (index, self.elect(topic, index).await.err()))
            .buffered(AT_A_TIME)
            .collect()
            .await
    }

    async fn elect(&self, name: &str, index: i32) -> Result<(), Refused> {
        let topic = self.view.topic(name).map_err(|_| {
            let message = format!("No such topic as {name}");
            Refused::new(ErrorCode::UnknownTopicOrPartition, message)
        })?;
        if usize::try_from(index).map_or(true, |index| index >= topic.partitions.len()) {
            let message = format!("No such partition as {name}-{index}");
            return Err(Refused::new(ErrorCode::UnknownTopicOrPartition, message));
        }
        let not_needed = || {
            let message = "Leader election not needed for topic partition.";
            Refused::new(ErrorCode::ElectionNotNeeded, message)
        };
        if !self.is_preferred && self.view.leadership(topic.id, index).leader >= 0 {
            return Err(not_needed());
        }
        let elected = self.cx.cluster().elect_preferred(topic.id, index).await;
        elected.map_err(|error| match error {
            NoElection::NotNeeded => not_needed(),
            NoElection::NotAvailable(_) | NoElection::Draining(_) => {
                Refused::new(ErrorCode::PreferredLeaderNotAvailable, error.to_string())
            }
            NoElection::NoLeader => {
                let message = format!("No replica of {name}-{index} can lead at the moment.");
                Refused::new(self.without_leader, message)
            }
        })
    }

    fn result(&self, index: i32, outcome: Option<Refused>) -> PartitionResult {
        let result = PartitionResult::default().with_partition_id(index);
        match outcome {
            Some(refused) => result
                .with_error_code(self.cx.code(refused.code))
                .with_error_message(refused.text()),
            None => result,
        }
    }
}

fn result(topic: TopicName, partitions: Vec<PartitionResult>) -> ReplicaElectionResult {
    ReplicaElectionResult::default()
        .with_topic(topic)
        .with_partition_result(partitions)
}
