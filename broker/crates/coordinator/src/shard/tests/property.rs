//! Random clients and time against the promises of a shard.

use super::*;

use std::collections::BTreeSet;

use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    /// A client joins with the member id that it has, if any.
    Join {
        client: usize,
        version: i16,
        protocols: usize,
    },
    /// It forgets its member id, as a process that restarts does.
    Forget {
        client: usize,
    },
    Sync {
        client: usize,
    },
    Heartbeat {
        client: usize,
    },
    Leave {
        client: usize,
    },
    Commit {
        client: usize,
        partition: i32,
        offset: i64,
    },
    DeleteGroup,
    TopicsDeleted,
    Wait {
        ms: u64,
    },
    FailOver,
}

/// A client as its own code would see the group. Those with an odd number are static members.
#[derive(Debug, Default)]
struct Client {
    member_id: String,
    generation: i32,
    protocol: Option<StrBytes>,
    joining: Option<Ticket>,
    syncing: Option<Ticket>,
}

const CLIENTS: usize = 5;

fn any_step() -> impl Strategy<Value = Step> {
    let client = || 0..CLIENTS;
    prop_oneof![
        6 => (client(), prop_oneof![Just(0i16), Just(3), Just(4), Just(5), Just(7), Just(9)], 0usize..3)
            .prop_map(|(client, version, protocols)| Step::Join { client, version, protocols }),
        1 => client().prop_map(|client| Step::Forget { client }),
        6 => client().prop_map(|client| Step::Sync { client }),
        3 => client().prop_map(|client| Step::Heartbeat { client }),
        1 => client().prop_map(|client| Step::Leave { client }),
        2 => (client(), 0..3, 0..100i64)
            .prop_map(|(client, partition, offset)| Step::Commit { client, partition, offset }),
        1 => Just(Step::DeleteGroup),
        1 => Just(Step::TopicsDeleted),
        4 => prop_oneof![Just(1u64), 100..4_000u64, 3_000..70_000u64, Just(8 * 24 * 3_600_000)]
            .prop_map(|ms| Step::Wait { ms }),
        1 => Just(Step::FailOver),
    ]
}

struct World {
    rig: Rig,
    clients: Vec<Client>,
    /// Who was told to assign, by generation. Forgotten with the group, and when the shard moves: an unwritten
    /// generation comes again.
    leaders: BTreeMap<i32, StrBytes>,
    seen: BTreeSet<Ticket>,
    deletions: usize,
    failed_over: bool,
}

impl World {
    fn new() -> Self {
        let config = GroupConfig {
            max_group_size: 4,
            max_batch_bytes: 2_000,
            ..GroupConfig::default()
        };
        Self {
            rig: Rig::with(config),
            clients: (0..CLIENTS).map(|_| Client::default()).collect(),
            leaders: BTreeMap::new(),
            seen: BTreeSet::new(),
            deletions: 0,
            failed_over: false,
        }
    }

    fn instance(client: usize) -> Option<StrBytes> {
        (client % 2 == 1).then(|| text(&format!("i{client}")))
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Join {
                client,
                version,
                protocols,
            } => self.join(client, version, protocols),
            Step::Forget { client } => self.clients[client] = Client::default(),
            Step::Sync { client } => self.sync(client),
            Step::Heartbeat { client } => {
                let (id, generation) = (
                    self.clients[client].member_id.clone(),
                    self.clients[client].generation,
                );
                self.rig.heartbeat(&id, generation);
            }
            Step::Leave { client } => {
                let id = self.clients[client].member_id.clone();
                self.rig.leave(&[(&id, Self::instance(client).as_deref())]);
            }
            Step::Commit {
                client,
                partition,
                offset,
            } => {
                let (id, generation) = (
                    self.clients[client].member_id.clone(),
                    self.clients[client].generation,
                );
                self.rig
                    .commit(9, &commit(&id, generation, &[("t", partition, offset)]));
            }
            Step::DeleteGroup => {
                self.rig.call(2, |shard, cx| shard.delete_groups(cx, "g"));
            }
            Step::TopicsDeleted => {
                let outcomes = self.rig.shard.topics_deleted(&["t"]);
                outcomes.into_iter().for_each(|outcome| self.rig.absorb(outcome));
            }
            Step::Wait { ms } => self.rig.advance(ms),
            Step::FailOver => {
                for (ticket, reply) in self.rig.fail_over() {
                    self.rig.absorb(Outcome {
                        records: Vec::new(),
                        replies: vec![(ticket, reply)],
                    });
                }
                self.leaders.clear();
                self.failed_over = true;
            }
        }
        self.receive();
    }

    fn join(&mut self, client: usize, version: i16, protocols: usize) {
        let lists: [&[&str]; 3] = [&["range"], &["range", "sticky"], &["sticky", "range"]];
        let id = self.clients[client].member_id.clone();
        let mut request = with_protocols(join(&id), lists[protocols]);
        let instance = Self::instance(client);
        let version = if instance.is_some() {
            version.max(5)
        } else {
            version
        };
        request.group_instance_id = instance;
        self.clients[client].joining = Some(self.rig.join_at(version, &request));
    }

    fn sync(&mut self, client: usize) {
        let state = &self.clients[client];
        let ids: Vec<String> = self
            .clients
            .iter()
            .map(|client| client.member_id.clone())
            .collect();
        let work: Vec<(&str, &'static str)> = ids.iter().map(|id| (id.as_str(), "work")).collect();
        let request = sync(&state.member_id, state.generation, &work)
            .with_protocol_name(state.protocol.clone())
            .with_group_instance_id(Self::instance(client));
        let ticket = self.rig.call(4, |shard, cx| vec![shard.sync_group(cx, &request)]);
        self.clients[client].syncing = Some(ticket);
    }

    /// Clients read the replies that have come.
    fn receive(&mut self) {
        for client in &mut self.clients {
            let Some(ticket) = client.joining.filter(|ticket| !self.rig.waits(*ticket)) else {
                continue;
            };
            client.joining = None;
            let Some(Reply::JoinGroup(response)) = self.rig.replies.get(&ticket) else {
                panic!()
            };
            match code(response.error_code) {
                ErrorCode::NoError => {
                    client.generation = response.generation_id;
                    client.protocol = response.protocol_name.clone();
                    client.member_id = response.member_id.to_string();
                }
                ErrorCode::MemberIdRequired => client.member_id = response.member_id.to_string(),
                ErrorCode::UnknownMemberId | ErrorCode::FencedInstanceId | ErrorCode::GroupMaxSizeReached => {
                    *client = Client::default();
                }
                ErrorCode::RebalanceInProgress | ErrorCode::NotCoordinator => {}
                // Of members that were read from the log only the chosen protocol is known, as in Kafka.
                ErrorCode::InconsistentGroupProtocol if self.failed_over => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// At most one member of a generation is told to assign.
    fn check_leaders(&mut self) {
        for (ticket, reply) in &self.rig.replies {
            let Reply::JoinGroup(response) = reply else {
                continue;
            };
            let assigns = response.leader == response.member_id && !response.skip_assignment;
            if !self.seen.insert(*ticket) || response.error_code != 0 || !assigns {
                continue;
            }
            let generation = response.generation_id;
            let leader = self
                .leaders
                .entry(generation)
                .or_insert_with(|| response.leader.clone());
            assert_eq!(*leader, response.leader, "both lead generation {generation}");
        }
        let tombstones = self
            .rig
            .log
            .iter()
            .filter(|record| matches!(record, Record::Classic(ClassicRecord { value: None, .. })));
        let deletions = tombstones.count();
        if deletions > self.deletions {
            self.deletions = deletions;
            self.leaders.clear();
        }
    }

    /// What the log says is what the shard knows, as far as it is written down.
    fn check_log(&self) {
        let mut restored = Shard::new(self.rig.shard.config.clone());
        for record in &self.rig.log {
            restored.replay(record);
        }
        let offsets = |shard: &Shard| shard.offsets.of_group("g").cloned();
        assert_eq!(offsets(&restored), offsets(&self.rig.shard));
        let ids = |shard: &Shard| shard.groups.keys().cloned().collect::<Vec<_>>();
        assert_eq!(ids(&restored), ids(&self.rig.shard));
        for (id, group) in &self.rig.shard.groups {
            let (Group::Classic(live), Group::Classic(restored)) = (group, &restored.groups[id]) else {
                panic!("no member speaks the consumer protocol");
            };
            if matches!(live.state_name(), "Stable" | "Empty") {
                assert_eq!(restored.snapshot(), live.snapshot());
            }
            assert!(matches!(restored.state_name(), "Stable" | "Empty"));
        }
    }
}

proptest! {
    #[test]
    fn a_shard_keeps_its_promises(steps in prop::collection::vec(any_step(), 1..120)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            world.check_log();
            world.check_leaders();
        }
        // Everybody who waits is answered in the end, at most when sessions have expired.
        world.rig.advance(30 * 60 * 1000);
        let asked = world.rig.asked.keys();
        let waiting: Vec<_> = asked.filter(|ticket| world.rig.waits(**ticket)).collect();
        prop_assert!(waiting.is_empty(), "{waiting:?} wait forever");
        world.check_log();
    }
}
