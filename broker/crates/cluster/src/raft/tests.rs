//! openraft's own storage suite on the segment files, over the real disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use openraft::storage::{IOFlushed, RaftLogStorage as _};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt as _;
use openraft::{EntryPayload, StorageError};
use takhin_config::node::Durability;
use takhin_config::topic::TopicConfig;
use takhin_runtime::sim::{Fault, FaultRule, Op, Sim, When};
use takhin_runtime::thread::Thread;
use takhin_runtime::{Env, RealDisk};
use takhin_storage::{FlushPolicy, Flusher, Journal, Log, LogOptions, PreviousStop, StorageContext};
use uuid::Uuid;

use super::hard_state::{GroupId, HardStateStore};
use super::log_store::LogStore;
use super::state_machine::StateMachine;
use super::types::{RaftEntry, RaftMembership, RaftVote, Runtime, TypeConfig, Voter, log_id};
use crate::partition::Partition;

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, tempfile::TempDir> for Builder {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::real();
        let cx = StorageContext::new(Arc::new(RealDisk));
        let opened = Log::open(
            &cx,
            &dir.path().join("log"),
            LogOptions::default(),
            None,
            PreviousStop::Clean,
        );
        let log = Arc::new(opened.unwrap().0);
        let journal =
            Arc::new(Journal::create(Arc::clone(&env.disk), &dir.path().join("hardstate.journal")).unwrap());
        let group = GroupId {
            topic_id: Uuid::from_u128(7),
            index: 0,
        };
        let partition = Partition::new(group, Arc::new(TopicConfig::default()), Arc::default());
        let store = LogStore {
            group,
            env: env.clone(),
            log: Arc::clone(&log),
            flusher: running_flusher(&env, &cx, dir.path()),
            hard_state: Arc::new(HardStateStore::new(journal, env.tasks.clone())),
            partition: Arc::clone(&partition),
            order: Arc::default(),
            begins_after: Arc::default(),
            full_bodies: false,
            in_flight: Arc::default(),
        };
        let machine = StateMachine {
            purge_to: Arc::default(),
            partition,
            log,
            observer: None,
            progress: Arc::default(),
            current: Arc::default(),
            term_begun: takhin_runtime::watch::channel(0).0,
        };
        Ok((dir, store, machine))
    }
}

fn running_flusher(env: &Env, cx: &StorageContext, root: &Path) -> Flusher {
    let flusher = Flusher::new(cx, root.to_owned(), FlushPolicy::default());
    let (rounds, clock) = (flusher.clone(), env.clock.clone());
    Thread::spawn("flusher", move || rounds.run(&clock)).unwrap();
    flusher
}

#[test]
fn the_log_on_segment_files_passes_openrafts_storage_suite() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime
        .block_on(Runtime::scope(7, Suite::test_all(Builder)))
        .unwrap();
}

fn on_one_thread(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(Runtime::scope(7, test));
}

/// A replica that lost one with the power might elect itself alone.
#[test]
fn memberships_are_stored_only_on_the_disk_also_where_records_are_not() {
    on_one_thread(async {
        let (_dir, mut store, _) = Builder.build().await.unwrap();
        store.partition.set_config(Arc::new(TopicConfig {
            durability: Durability::Cached,
            ..TopicConfig::default()
        }));
        let voters = vec![BTreeSet::from([1])];
        let nodes = BTreeMap::from([(
            1,
            Voter {
                directory: Uuid::nil(),
            },
        )]);
        let membership = RaftMembership::new(voters, nodes).unwrap();
        let payloads = [EntryPayload::Blank, EntryPayload::Membership(membership)];
        for (index, payload) in (0..).zip(payloads) {
            let is_durable = matches!(payload, EntryPayload::Membership(_));
            let entry = RaftEntry {
                log_id: log_id(1, index),
                payload,
            };
            let (done, stored) = TypeConfig::oneshot();
            store.append([entry], IOFlushed::signal(done)).await.unwrap();
            stored.await.unwrap().unwrap();
            assert_eq!(store.log.checkpoint().last == store.log.end().last, is_durable);
        }
    });
}

/// openraft keeps one watermark for both. A round for nothing would make every election wait.
#[test]
fn a_vote_waits_for_the_entries_before_it_and_for_nothing_else() {
    on_one_thread(async {
        let (_dir, mut store, _) = Builder.build().await.unwrap();
        let entry = RaftEntry {
            log_id: log_id(1, 0),
            payload: EntryPayload::Blank,
        };
        store.append([entry], IOFlushed::noop()).await.unwrap();
        store.save_vote(&RaftVote::new(2, 1)).await.unwrap();
        assert!(store.log.end().last.is_some());
        assert_eq!(store.log.checkpoint().last, store.log.end().last);
        // From now on it would wait for ever.
        store.flusher.close();
        store.save_vote(&RaftVote::new(3, 1)).await.unwrap();
    });
}

/// A vote for whoever won the term already is durable: winning is not waited for.
#[test]
fn a_durable_vote_that_has_won_waits_for_no_disk() {
    let mut sim = Sim::new(5);
    let disk = sim.disk().clone();
    sim.run(|env| async move {
        let journal = Journal::create(Arc::clone(&env.disk), Path::new("/journal")).unwrap();
        let votes = HardStateStore::new(Arc::new(journal), env.tasks.clone());
        let group = GroupId {
            topic_id: Uuid::from_u128(7),
            index: 0,
        };
        votes.save_vote(group, &RaftVote::new(3, 1)).await.unwrap();
        disk.arm(FaultRule {
            op: Op::SyncData,
            path: "journal".into(),
            when: When::Probability(1.0),
            fault: Fault::Eio,
        });
        let won = RaftVote::new_committed(3, 1);
        votes.save_vote(group, &won).await.unwrap();
        votes.save_vote(group, &won).await.unwrap();
        assert_eq!(votes.vote(group).unwrap(), Some(won));
        // Nobody here has voted for that one.
        let other = votes.save_vote(group, &RaftVote::new_committed(4, 2)).await;
        assert!(other.is_err());
    });
}
