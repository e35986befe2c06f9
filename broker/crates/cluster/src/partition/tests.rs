//! A partition against a replicator whose every step the test decides.

use std::path::Path;
use std::sync::Arc;

use futures_util::FutureExt;
use parking_lot::Mutex;
use takhin_config::topic::TopicConfig;
use takhin_protocol::record::{Batch, BatchBuilder, Compression, NewRecord};
use takhin_runtime::sim::Sim;
use takhin_storage::{Log, LogOptions, NewEntry, PreviousStop, StorageContext};
use uuid::Uuid;

use super::*;
use crate::replicator::{ProposalSink, ProposeError, Replicator};

#[derive(Default)]
struct Proposals(Mutex<Vec<Batch>>);

impl Replicator for Proposals {
    fn propose(&self, _term: u64, batch: Batch) -> Result<(), ProposeError> {
        self.0.lock().push(batch);
        Ok(())
    }

    fn propose_log_start(&self, _term: u64, _offset: i64) -> Result<(), ProposeError> {
        Ok(())
    }
}

struct Fixture {
    partition: Arc<Partition>,
    proposals: Arc<Proposals>,
    log: Arc<Log>,
    _sim: Sim,
}

impl Fixture {
    fn leading() -> Self {
        let sim = Sim::new(1);
        let cx = StorageContext::new(Arc::new(sim.disk().clone()));
        let opened = Log::open(
            &cx,
            Path::new("log"),
            LogOptions::default(),
            None,
            PreviousStop::Clean,
        );
        let log = Arc::new(opened.unwrap().0);
        let id = PartitionId {
            topic_id: Uuid::from_u128(7),
            index: 0,
        };
        let partition = Partition::new(id, Arc::new(TopicConfig::default()), Arc::default());
        let proposals = Arc::new(Proposals::default());
        partition.lead(1, Arc::clone(&log), Arc::clone(&proposals) as _);
        Self {
            partition,
            proposals,
            log,
            _sim: sim,
        }
    }

    fn lead_again(&self, term: u64) {
        self.partition
            .lead(term, Arc::clone(&self.log), Arc::clone(&self.proposals) as _);
    }

    /// Writes everything proposed so far into the log.
    fn append(&self) {
        for batch in std::mem::take(&mut *self.proposals.0.lock()) {
            let raft_index = self.log.end().last.map_or(0, |last| last.index + 1);
            let term = u32::try_from(batch.header.partition_leader_epoch).unwrap();
            self.log
                .append(&[NewEntry {
                    term,
                    raft_index,
                    batch,
                }])
                .unwrap();
        }
        self.partition
            .appended(self.term(), self.log.end().log_end_offset);
    }

    fn commit(&self) {
        self.partition
            .committed(self.term(), self.log.end().log_end_offset);
    }

    /// That of the last entry.
    fn term(&self) -> u64 {
        self.log.end().last.map_or(0, |last| last.term.into())
    }
}

fn batch(records: usize, producer: i64, epoch: i16, sequence: i32) -> Batch {
    let mut builder = BatchBuilder::new(Compression::None).producer(producer, epoch, sequence);
    for _ in 0..records {
        builder.push(NewRecord {
            timestamp: 1000,
            key: None,
            value: Some(b"value"),
            headers: &[],
        });
    }
    builder.build().unwrap()
}

fn plain(records: usize) -> Batch {
    batch(records, -1, -1, -1)
}

fn outcome(ticket: &mut Ticket) -> Option<Result<i64, ProduceError>> {
    ticket
        .now_or_never()
        .map(|result| result.map(|produced| produced.base_offset))
}

#[test]
fn acks_all_is_answered_at_commit_and_acks_1_at_append() {
    let f = Fixture::leading();
    let mut all = f.partition.produce(plain(3), Acks::All).unwrap();
    let mut one = f.partition.produce(plain(2), Acks::Leader).unwrap();
    assert_eq!((outcome(&mut all), outcome(&mut one)), (None, None));
    f.append();
    assert_eq!(outcome(&mut one), Some(Ok(3)));
    assert_eq!(outcome(&mut all), None);
    assert_eq!(
        f.partition.offsets().high_watermark,
        0,
        "an append commits nothing"
    );
    f.commit();
    assert_eq!(outcome(&mut all), Some(Ok(0)));
    assert_eq!(f.partition.offsets().high_watermark, 5);
}

#[test]
fn a_duplicate_gets_the_original_offset_once_the_original_commits() {
    let f = Fixture::leading();
    let mut first = f.partition.produce(batch(2, 9, 0, 0), Acks::All).unwrap();
    let mut again = f.partition.produce(batch(2, 9, 0, 0), Acks::All).unwrap();
    f.append();
    assert_eq!(f.log.end().log_end_offset, 2, "a duplicate appends nothing");
    assert_eq!((outcome(&mut first), outcome(&mut again)), (None, None));
    f.commit();
    assert_eq!(
        (outcome(&mut first), outcome(&mut again)),
        (Some(Ok(0)), Some(Ok(0)))
    );
    let mut late = f.partition.produce(batch(2, 9, 0, 0), Acks::All).unwrap();
    assert_eq!(outcome(&mut late), Some(Ok(0)));
}

#[test]
fn gaps_and_old_epochs_are_refused_and_unknown_producers_may_begin_anywhere() {
    let f = Fixture::leading();
    f.partition.produce(batch(2, 9, 3, 10), Acks::All).unwrap();
    let gap = f.partition.produce(batch(1, 9, 3, 13), Acks::All).unwrap_err();
    assert_eq!(
        gap,
        ProduceError::OutOfOrderSequence {
            producer_id: 9,
            found: 13,
            expected: 12,
            epoch: f.partition.leader_epoch()
        }
    );
    let old = f.partition.produce(batch(1, 9, 2, 12), Acks::All).unwrap_err();
    assert_eq!(
        old,
        ProduceError::InvalidProducerEpoch {
            producer_id: 9,
            found: 2,
            current: 3
        }
    );
    let not_zero = f.partition.produce(batch(1, 9, 4, 12), Acks::All).unwrap_err();
    assert_eq!(
        not_zero,
        ProduceError::OutOfOrderSequence {
            producer_id: 9,
            found: 12,
            expected: 0,
            epoch: f.partition.leader_epoch()
        }
    );
    f.partition.produce(batch(1, 9, 4, 0), Acks::All).unwrap();
    f.append();
    assert_eq!(f.log.end().log_end_offset, 3);
}

#[test]
fn sequences_wrap_to_zero() {
    let f = Fixture::leading();
    f.partition
        .produce(batch(2, 9, 0, i32::MAX - 1), Acks::All)
        .unwrap();
    f.partition.produce(batch(1, 9, 0, 0), Acks::All).unwrap();
    f.partition.produce(batch(1, 9, 0, 1), Acks::All).unwrap();
}

#[test]
fn a_rejected_proposal_discards_the_overlay_and_what_is_queued_behind_it() {
    let f = Fixture::leading();
    f.partition.produce(batch(1, 9, 0, 0), Acks::All).unwrap();
    f.append();
    f.commit();
    let mut lost = f.partition.produce(batch(1, 9, 0, 1), Acks::All).unwrap();
    let mut behind = f.partition.produce(batch(1, 9, 0, 2), Acks::All).unwrap();
    f.proposals.0.lock().clear();
    f.partition.rejected(1);
    assert_eq!(
        f.partition.produce(plain(1), Acks::All).unwrap_err(),
        ProduceError::NotLeader
    );
    assert!(f.partition.is_over(1) && !f.partition.is_over(2));
    f.partition.step_down();
    assert_eq!(outcome(&mut lost), Some(Err(ProduceError::Unknown)));
    assert_eq!(outcome(&mut behind), Some(Err(ProduceError::Unknown)));
    f.lead_again(2);
    let mut retried = f.partition.produce(batch(1, 9, 0, 1), Acks::All).unwrap();
    f.append();
    f.commit();
    assert_eq!(outcome(&mut retried), Some(Ok(1)));
}

/// It does not know it yet: what is appended and committed where its proposals were to stand is the other one's.
#[test]
fn entries_of_a_later_term_acknowledge_nothing_of_a_leader_that_was_replaced() {
    let f = Fixture::leading();
    let mut one = f.partition.produce(plain(2), Acks::Leader).unwrap();
    let mut all = f.partition.produce(plain(2), Acks::All).unwrap();
    f.partition.appended(2, 4);
    let unknown = Some(Err(ProduceError::Unknown));
    assert_eq!((outcome(&mut one), outcome(&mut all)), (unknown.clone(), unknown));
    assert!(f.partition.produce(plain(1), Acks::All).is_err());

    let f = Fixture::leading();
    let mut all = f.partition.produce(plain(2), Acks::All).unwrap();
    f.partition.committed(2, 2);
    assert_eq!(outcome(&mut all), Some(Err(ProduceError::Unknown)));
    assert!(f.partition.is_over(1));
}

#[test]
fn an_offline_partition_says_why_even_after_a_rejected_proposal() {
    let f = Fixture::leading();
    f.partition.offline("no space left".into(), true);
    // What was under way is dropped as the group ends, after the partition was told.
    f.partition.rejected(1);
    assert!(matches!(
        f.partition.produce(plain(1), Acks::All).unwrap_err(),
        ProduceError::StorageOffline { .. }
    ));
}

#[test]
fn readers_see_committed_records_only() {
    let f = Fixture::leading();
    f.partition.produce(plain(3), Acks::All).unwrap();
    f.append();
    let read = |from| {
        f.partition
            .fetch(from, 1 << 20, true, Isolation::ReadUncommitted, ServedBy::Leader)
    };
    assert_eq!(read(0).unwrap().ranges.bytes, 0);
    assert_eq!(
        read(2).unwrap().ranges.bytes,
        0,
        "between high watermark and log end: empty, not an error"
    );
    assert!(matches!(
        read(4),
        Err(ReadError::OffsetOutOfRange {
            requested: 4,
            start: 0,
            end: 3
        })
    ));
    let waiter = Waiter::new();
    f.partition.wait(&waiter);
    assert!(!waiter.is_woken());
    f.commit();
    assert!(waiter.is_woken());
    let fetched = read(1).unwrap();
    assert_eq!(fetched.ranges.bytes, fetched.ranges.read_all().unwrap().len());
    assert_eq!(
        fetched.ranges.next_offset, 3,
        "an offset inside a batch returns the whole batch"
    );
}

#[test]
fn a_follower_serves_whoever_asks_no_leader() {
    let f = Fixture::leading();
    f.partition.produce(plain(3), Acks::All).unwrap();
    f.append();
    f.commit();
    f.partition.produce(plain(2), Acks::All).unwrap();
    f.append();
    f.partition.step_down();
    let read = |from, by| {
        let fetched = f
            .partition
            .fetch(from, 1 << 20, true, Isolation::ReadUncommitted, by);
        fetched.map(|fetched| fetched.ranges.next_offset)
    };
    assert!(matches!(read(0, ServedBy::Leader), Err(ReadError::NotLeader)));
    assert!(matches!(
        f.partition.check_epoch(-1, ServedBy::Leader),
        Err(ReadError::NotLeader)
    ));
    assert_eq!(
        read(0, ServedBy::AnyReplica).unwrap(),
        3,
        "below the high watermark"
    );
    assert_eq!(
        read(4, ServedBy::AnyReplica).unwrap(),
        4,
        "empty up to the log end"
    );
    assert!(matches!(
        read(6, ServedBy::AnyReplica),
        Err(ReadError::OffsetOutOfRange { end: 5, .. })
    ));
    let waiter = Waiter::new();
    f.partition.wait(&waiter);
    f.commit();
    assert!(waiter.is_woken());
    assert_eq!(read(3, ServedBy::AnyReplica).unwrap(), 5);
}

#[test]
fn a_follower_knows_the_epoch_of_the_leader_that_it_hears() {
    let f = Fixture::leading();
    f.partition.step_down();
    let check = |epoch| f.partition.check_epoch(epoch, ServedBy::AnyReplica);
    assert_eq!(check(1).unwrap(), 1);
    let waiter = Waiter::new();
    f.partition.wait(&waiter);
    f.partition.follow(4);
    assert!(waiter.is_woken(), "who waits in an old epoch is told");
    assert!(matches!(check(1), Err(ReadError::FencedLeaderEpoch { .. })));
    assert!(matches!(check(5), Err(ReadError::UnknownLeaderEpoch { .. })));
    f.partition.follow(3);
    assert_eq!(check(4).unwrap(), 4, "epochs never go back");
}

#[test]
fn epochs_are_checked_as_kip_320_says() {
    let f = Fixture::leading();
    f.lead_again(5);
    assert_eq!(f.partition.check_epoch(-1, ServedBy::Leader).unwrap(), 5);
    assert_eq!(f.partition.check_epoch(5, ServedBy::Leader).unwrap(), 5);
    assert!(matches!(
        f.partition.check_epoch(4, ServedBy::Leader),
        Err(ReadError::FencedLeaderEpoch { .. })
    ));
    assert!(matches!(
        f.partition.check_epoch(6, ServedBy::Leader),
        Err(ReadError::UnknownLeaderEpoch { .. })
    ));
}

#[test]
fn offline_and_deleted_partitions_answer_for_themselves() {
    let f = Fixture::leading();
    let mut waiting = f.partition.produce(plain(1), Acks::All).unwrap();
    f.partition.offline("disk is on fire".into(), true);
    let offline = ProduceError::StorageOffline {
        reason: "disk is on fire".into(),
    };
    assert_eq!(outcome(&mut waiting), Some(Err(offline.clone())));
    assert_eq!(f.partition.produce(plain(1), Acks::All).unwrap_err(), offline);
    f.partition.delete();
    assert_eq!(
        f.partition.produce(plain(1), Acks::All).unwrap_err(),
        ProduceError::Deleted
    );
    f.lead_again(9);
    assert_eq!(f.partition.leadership(), None, "deletion is final");
}

/// The only replica is read on, for nobody else has the records; of several another one leads by now.
#[test]
fn an_offline_partition_is_read_only_where_nobody_else_can_lead() {
    let read = |is_alone| {
        let f = Fixture::leading();
        f.partition.produce(plain(3), Acks::All).unwrap();
        f.append();
        f.commit();
        f.partition.offline("disk is on fire".into(), is_alone);
        let end = f
            .partition
            .find_offset(OffsetSpec::Latest, Isolation::ReadUncommitted);
        [ServedBy::Leader, ServedBy::AnyReplica].map(|by| {
            let isolation = Isolation::ReadUncommitted;
            let fetched = f.partition.fetch(0, 1 << 20, true, isolation, by);
            let refused = |error: &ReadError| matches!(error, ReadError::StorageOffline { .. });
            assert_eq!(fetched.is_ok(), f.partition.check_epoch(1, by).is_ok());
            assert!(fetched.as_ref().err().is_none_or(refused), "{fetched:?}");
            (fetched.is_ok(), end.is_ok())
        })
    };
    assert_eq!(read(true), [(true, true); 2]);
    assert_eq!(read(false), [(false, false); 2]);
}

/// Only with one voter everything in a log is committed.
#[test]
fn a_damaged_log_of_one_of_several_replicas_commits_nothing() {
    for (is_alone, committed) in [(true, 3), (false, 0)] {
        let f = Fixture::leading();
        f.partition.produce(plain(3), Acks::All).unwrap();
        f.append();
        f.partition.attach_damaged(Arc::clone(&f.log), is_alone);
        assert_eq!(f.partition.offsets().high_watermark, committed);
    }
}

/// A majority is two; the topic wants all three.
#[test]
fn acks_all_waits_for_as_many_replicas_as_the_topic_asks_for() {
    let f = Fixture::leading();
    let wants = |min_insync_replicas| {
        f.partition.set_config(Arc::new(TopicConfig {
            min_insync_replicas,
            ..TopicConfig::default()
        }));
    };
    let send = |sequence| {
        let batch = batch(1, 5, 0, sequence);
        f.partition.produce(batch, Acks::All)
    };
    wants(3);
    f.partition.set_quorum(3, 2, true);
    assert!(f.partition.holds_acks());
    let (mut first, mut second) = (send(0).unwrap(), send(1).unwrap());
    assert!(!f.partition.is_settled());
    f.append();
    f.commit();
    assert_eq!(f.partition.offsets().high_watermark, 2, "it is committed");
    assert!(f.partition.is_settled());
    f.partition.replicated(vec![2, 0, 2]);
    assert_eq!(outcome(&mut first), None);
    let mut again = send(0).unwrap();
    assert_eq!(outcome(&mut again), None, "nor is a duplicate answered");
    f.partition.replicated(vec![2, 1, 2]);
    assert_eq!(outcome(&mut first), Some(Ok(0)));
    assert_eq!(outcome(&mut again), Some(Ok(0)));
    assert_eq!(outcome(&mut second), None);

    // The third is lost: what waits for it is told, and nothing more is taken.
    let mut leader_only = f.partition.produce(batch(1, 5, 0, 2), Acks::Leader).unwrap();
    f.partition.set_quorum(2, 2, true);
    let (in_sync, wanted) = (2, 3);
    let lost = ProduceError::NotEnoughReplicasAfterAppend { in_sync, wanted };
    assert_eq!(outcome(&mut second), Some(Err(lost)));
    let refused = send(3).map(drop);
    assert_eq!(refused, Err(ProduceError::NotEnoughReplicas { in_sync, wanted }));
    f.append();
    assert_eq!(outcome(&mut leader_only), Some(Ok(2)));

    // The topic wants less.
    wants(2);
    assert!(!f.partition.holds_acks());
    f.commit();
    let mut again = send(1).unwrap();
    assert_eq!(outcome(&mut again), Some(Ok(1)), "a retry hears of the original");
    let mut more = send(3).unwrap();
    f.append();
    f.commit();
    assert_eq!(outcome(&mut more), Some(Ok(3)));
    // A new term knows nothing of what was matched in the old one.
    wants(3);
    f.lead_again(2);
    f.partition.set_quorum(3, 2, true);
    let mut first = send(4).unwrap();
    f.append();
    f.commit();
    assert_eq!(outcome(&mut first), None);
}
