//! Random lives of members. Whatever happens, no partition has two owners, a new leader knows what the old one knew, and
//! when all is quiet everything is assigned evenly.
//!
//! A member owns a partition from the reply that tells it so until it sends a heartbeat that does not name it any more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use takhin_protocol::ErrorCode;
use takhin_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use takhin_protocol::messages::{ConsumerGroupHeartbeatRequest, TopicName};
use uuid::Uuid;

use super::bench::{Bench, GROUP, join, stay, text};
use crate::group::Group;
use crate::outcome::Reply;
use crate::topics::Topics;

const MEMBERS: usize = 5;
const TOPICS: [&str; 3] = ["ta", "tb", "uc"];

#[derive(Debug, Clone)]
enum Step {
    /// A heartbeat of this member, who joins if it is not in the group. What it was told to give up it has given up if
    /// `revokes`; the reply does not arrive if `is_lost`.
    Beat {
        member: usize,
        revokes: bool,
        is_lost: bool,
    },
    Subscribe {
        member: usize,
        topics: usize,
        regex: bool,
    },
    Leave(usize),
    /// It says no more, and nothing of it is left.
    Die(usize),
    Grow(usize),
    Wait(u64),
    FailOver,
}

fn step() -> impl Strategy<Value = Step> {
    let member = 0..MEMBERS;
    prop_oneof![
        12 => (member.clone(), any::<bool>(), prop::bool::weighted(0.1))
            .prop_map(|(member, revokes, is_lost)| Step::Beat { member, revokes, is_lost }),
        2 => (member.clone(), 0_usize..8, prop::bool::weighted(0.3))
            .prop_map(|(member, topics, regex)| Step::Subscribe { member, topics, regex }),
        1 => member.clone().prop_map(Step::Leave),
        1 => member.prop_map(Step::Die),
        1 => (0..TOPICS.len()).prop_map(Step::Grow),
        1 => (1_u64..30).prop_map(Step::Wait),
        1 => Just(Step::FailOver),
    ]
}

type Slots = BTreeSet<(Uuid, i32)>;

/// A client.
#[derive(Debug, Clone, Default)]
struct Client {
    /// Changes with every life.
    life: usize,
    epoch: i32,
    /// What it was told to have.
    assigned: Slots,
    /// What it has not given up, all of `assigned` included.
    owned: Slots,
    /// Whether the coordinator knows what it owns.
    is_said: bool,
    topics: usize,
    regex: bool,
    /// Whether the coordinator knows its subscription.
    is_subscribed: bool,
    /// Whether a reply was lost: it then says everything anew.
    says_all: bool,
}

struct World {
    bench: Bench,
    clients: Vec<Client>,
    partitions: BTreeMap<&'static str, i32>,
}

impl World {
    fn new() -> Self {
        let topics: Vec<(&str, i32)> = TOPICS.iter().map(|name| (*name, 3)).collect();
        Self {
            bench: Bench::new(&topics),
            clients: (0..MEMBERS)
                .map(|n| Client {
                    topics: n + 1,
                    ..Client::default()
                })
                .collect(),
            partitions: TOPICS.iter().map(|name| (*name, 3)).collect(),
        }
    }

    fn id(&self, member: usize) -> String {
        format!("m{member}-{}", self.clients[member].life)
    }

    fn request(&self, member: usize) -> ConsumerGroupHeartbeatRequest {
        let client = &self.clients[member];
        let id = self.id(member);
        let names: Vec<&str> = (0..TOPICS.len())
            .filter(|n| client.topics & (1 << n) != 0)
            .map(|n| TOPICS[n])
            .collect();
        let regex = text(if client.regex { "t.*" } else { "" });
        if client.epoch == 0 {
            return join(&id, &names).with_subscribed_topic_regex(Some(regex));
        }
        let mut request = stay(&id, client.epoch);
        if !client.is_subscribed || client.says_all {
            request.subscribed_topic_names = Some(names.iter().map(|name| TopicName(text(name))).collect());
            request.subscribed_topic_regex = Some(regex);
        }
        if client.says_all {
            request.rebalance_timeout_ms = 60_000;
        }
        if !client.is_said || client.says_all {
            let mut owned: BTreeMap<Uuid, Vec<i32>> = BTreeMap::new();
            for (topic, partition) in &client.owned {
                owned.entry(*topic).or_default().push(*partition);
            }
            let owned = owned.into_iter().map(|(topic, partitions)| {
                TopicPartitions::default()
                    .with_topic_id(topic)
                    .with_partitions(partitions)
            });
            request.topic_partitions = Some(owned.collect());
        }
        request
    }

    fn beat(&mut self, member: usize, revokes: bool, is_lost: bool) -> Result<(), TestCaseError> {
        let client = &mut self.clients[member];
        if revokes && client.owned != client.assigned {
            client.owned = client.assigned.clone();
            client.is_said = false;
        }
        let request = self.request(member);
        let reply = self
            .bench
            .ask(1, |shard, cx| shard.consumer_group_heartbeat(cx, &request));
        let Reply::ConsumerGroupHeartbeat(response) = reply else {
            panic!("{reply:?}");
        };
        let client = &mut self.clients[member];
        if is_lost {
            client.says_all = true;
            return Ok(());
        }
        match ErrorCode::from_code(response.error_code) {
            Some(ErrorCode::NoError) => {}
            Some(ErrorCode::FencedMemberEpoch | ErrorCode::UnknownMemberId | ErrorCode::GroupIdNotFound) => {
                // It gives up everything and begins anew.
                *client = Client {
                    topics: client.topics,
                    regex: client.regex,
                    life: client.life,
                    ..Client::default()
                };
                return Ok(());
            }
            other => panic!("{other:?} {response:?}"),
        }
        client.epoch = response.member_epoch;
        client.is_said = true;
        client.is_subscribed = true;
        client.says_all = false;
        if let Some(assignment) = response.assignment {
            let topics = assignment.topic_partitions.iter();
            client.assigned = topics
                .flat_map(|topic| {
                    topic
                        .partitions
                        .iter()
                        .map(|partition| (topic.topic_id, *partition))
                })
                .collect();
            if !client.assigned.is_subset(&client.owned) {
                client.owned.extend(client.assigned.iter().copied());
                client.is_said = false;
            }
        }
        self.no_two_owners()
    }

    fn no_two_owners(&self) -> Result<(), TestCaseError> {
        let mut owners: BTreeMap<(Uuid, i32), usize> = BTreeMap::new();
        for (member, client) in self.clients.iter().enumerate() {
            for slot in &client.owned {
                let other = owners.insert(*slot, member);
                prop_assert_eq!(other, None, "{:?} has another owner: {}", slot, member);
            }
        }
        Ok(())
    }

    /// Who is not in the group any more has lost what it had; its client learns it later.
    fn fence(&mut self) {
        let members: BTreeSet<String> = match self.bench.shard.groups.get(GROUP.as_bytes()) {
            Some(Group::Consumer(group)) => {
                let described = group.describe(&self.bench.topics);
                described
                    .members
                    .iter()
                    .map(|member| member.member_id.to_string())
                    .collect()
            }
            _ => BTreeSet::new(),
        };
        for member in 0..MEMBERS {
            if !members.contains(&self.id(member)) {
                self.clients[member].owned.clear();
                self.clients[member].assigned.clear();
            }
        }
    }

    fn run(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Beat {
                member,
                revokes,
                is_lost,
            } => self.beat(member, revokes, is_lost)?,
            Step::Subscribe {
                member,
                topics,
                regex,
            } => {
                let client = &mut self.clients[member];
                (client.topics, client.regex, client.is_subscribed) = (topics, regex, false);
            }
            Step::Leave(member) => {
                let request = stay(&self.id(member), -1);
                self.bench.beat(&request);
                self.end(member);
            }
            Step::Die(member) => {
                self.end(member);
            }
            Step::Grow(topic) => {
                let partitions = self.partitions.get_mut(TOPICS[topic]).unwrap();
                *partitions += 1;
                self.bench.topics.set(TOPICS[topic], *partitions);
            }
            Step::Wait(seconds) => {
                self.bench.advance(Duration::from_secs(seconds));
                self.fence();
            }
            Step::FailOver => self.bench.fail_over(),
        }
        Ok(())
    }

    fn end(&mut self, member: usize) {
        let client = &mut self.clients[member];
        *client = Client {
            life: client.life + 1,
            topics: client.topics,
            regex: client.regex,
            ..Client::default()
        };
    }

    /// All members do what they are told, and the dead are forgotten.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        for round in 0..4 * MEMBERS + 10 {
            for member in 0..MEMBERS {
                self.beat(member, true, false)?;
            }
            if round < 8 {
                self.bench.advance(Duration::from_secs(10));
                self.fence();
            }
        }
        prop_assert_eq!(self.bench.state(), "Stable");
        self.is_even()
    }

    fn is_even(&self) -> Result<(), TestCaseError> {
        let subscribes = |client: &Client, topic: usize| {
            client.topics & (1 << topic) != 0 || (client.regex && TOPICS[topic].starts_with('t'))
        };
        for (n, name) in TOPICS.iter().enumerate() {
            let topic = self.bench.topics.by_name(name).unwrap();
            let subscribers: Vec<&Client> = self
                .clients
                .iter()
                .filter(|client| subscribes(client, n))
                .collect();
            for partition in 0..topic.partitions {
                let slot = (topic.id, partition);
                let owner = self.clients.iter().find(|client| client.owned.contains(&slot));
                prop_assert_eq!(owner.is_some(), !subscribers.is_empty(), "{} {}", name, partition);
                if let Some(owner) = owner {
                    prop_assert!(subscribes(owner, n));
                    for other in &subscribers {
                        prop_assert!(owner.owned.len() <= other.owned.len() + 1);
                    }
                }
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn members_come_to_an_even_share_and_never_share_a_partition(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new();
        for step in &steps {
            world.run(step)?;
        }
        world.settle()?;
        world.bench.fail_over();
        // Nothing else makes the group move now.
        world.run(&Step::Grow(0))?;
        world.settle()?;
    }
}
