//! A leader that others have replaced, and that nobody has told so: clients that find it must not give up for what it does not
//! know.

use std::time::Duration;

use bytes::Bytes;
use takhin_protocol::ErrorCode;
use takhin_protocol::messages::create_topics_request::CreatableTopic;
use takhin_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use takhin_protocol::messages::{
    CreateTopicsRequest, FetchRequest, ListOffsetsRequest, MetadataRequest, ProduceRequest,
};
use takhin_protocol::record::{BatchBuilder, Compression, NewRecord};
use takhin_runtime::sim::{Fault, FaultRule, Op, When};
use uuid::Uuid;

use crate::coordinators::{Brokers, NAMES, with_brokers};
use crate::support::{altered, code, topic};
use crate::{fetch, produce};

pub(crate) const TOPIC: &str = "replicated";

/// A record of an idempotent producer, from long ago: real time must not enter a story.
fn sequenced(sequence: i32) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(NewRecord {
        timestamp: 1,
        value: Some(b"a"),
        ..NewRecord::default()
    });
    altered(&builder.build().unwrap(), |batch| {
        batch.header.producer_id = 7;
        batch.header.producer_epoch = 0;
        batch.header.base_sequence = sequence;
    })
}

/// A topic with a replica on every broker; its id.
pub(crate) async fn create(brokers: &Brokers) -> Uuid {
    let topic = CreatableTopic::default()
        .with_name(topic(TOPIC))
        .with_num_partitions(1)
        .with_replication_factor(3);
    let request = CreateTopicsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(20_000);
    let answer = brokers.ask(0, 7, &request).await.expect("an answer");
    assert_eq!(code(answer.topics[0].error_code), ErrorCode::NoError);
    answer.topics[0].topic_id
}

async fn write(brokers: &Brokers, at: usize, id: Uuid, sequence: i32) -> Option<ErrorCode> {
    let request = produce::request(13, id, -1, Some(sequenced(sequence)));
    let answer = brokers.ask::<ProduceRequest>(at, 13, &request).await?;
    Some(code(produce::only(answer).error_code))
}

async fn read(brokers: &Brokers, at: usize, id: Uuid, offset: i64) -> Option<ErrorCode> {
    // From before consumers could read from followers.
    let mut request = fetch::from(id, 0, offset);
    request.topics[0].topic = topic(TOPIC);
    request.topics[0].topic_id = Uuid::nil();
    let answer = brokers.ask::<FetchRequest>(at, 10, &request).await?;
    Some(code(fetch::only(answer).error_code))
}

/// Who leads in which epoch, as a broker says.
async fn leadership(brokers: &Brokers, asked: usize) -> Option<(i32, i32)> {
    let request = MetadataRequest::default().with_topics(None);
    let answer = brokers.ask(asked, 12, &request).await?;
    let name = Some(topic(TOPIC));
    let found = answer.topics.iter().find(|topic| topic.name == name)?;
    let partition = found.partitions.first()?;
    Some((partition.leader_id.0, partition.leader_epoch))
}

/// Who leads, as a broker says.
async fn leader(brokers: &Brokers, asked: usize) -> Option<usize> {
    let (leader, _) = leadership(brokers, asked).await?;
    usize::try_from(leader - 1).ok()
}

#[test]
fn a_leader_that_was_replaced_refuses_nobody_for_good() {
    with_brokers(53, |brokers, net| async move {
        let clock = brokers.env.clock.clone();
        let id = create(&brokers).await;
        let pause = || clock.sleep(Duration::from_millis(50));
        let old = loop {
            if let Some(leader) = leader(&brokers, 0).await
                && write(&brokers, leader, id, 0).await == Some(ErrorCode::NoError)
            {
                break leader;
            }
            pause().await;
        };
        // What it knows for sure.
        assert_eq!(
            write(&brokers, old, id, 2).await,
            Some(ErrorCode::OutOfOrderSequenceNumber)
        );
        assert_eq!(
            read(&brokers, old, id, 3).await,
            Some(ErrorCode::OffsetOutOfRange)
        );

        for name in NAMES.iter().filter(|name| **name != NAMES[old]) {
            net.partition(NAMES[old], name);
        }
        let other = (old + 1) % NAMES.len();
        let mut sequence = 1;
        while sequence < 4 {
            match leader(&brokers, other).await.filter(|leader| *leader != old) {
                Some(new) if write(&brokers, new, id, sequence).await == Some(ErrorCode::NoError) => {
                    sequence += 1
                }
                _ => pause().await,
            }
        }
        for _ in 0..3 {
            let told = write(&brokers, old, id, 4).await;
            assert_eq!(told, Some(ErrorCode::NotLeaderOrFollower), "a producer gives up");
            let told = read(&brokers, old, id, 4).await;
            assert_eq!(
                told,
                Some(ErrorCode::NotLeaderOrFollower),
                "a consumer begins anew"
            );
            pause().await;
        }
        net.heal_all();
    });
}

/// What a consumer of now is told that goes on at `offset` as it knows the partition from before.
async fn read_on(brokers: &Brokers, at: usize, epoch: i32, offset: i64) -> Option<ErrorCode> {
    let mut request = fetch::from(Uuid::nil(), 0, offset);
    request.topics[0].topic = topic(TOPIC);
    request.topics[0].partitions[0].current_leader_epoch = epoch;
    let answer = brokers.ask::<FetchRequest>(at, 12, &request).await?;
    Some(code(fetch::only(answer).error_code))
}

/// What who asks for the end is told.
async fn ask_for_end(brokers: &Brokers, at: usize) -> Option<(ErrorCode, i64)> {
    let wanted = ListOffsetsPartition::default().with_timestamp(-1);
    let wanted = ListOffsetsTopic::default()
        .with_name(topic(TOPIC))
        .with_partitions(vec![wanted.with_current_leader_epoch(-1)]);
    let request = ListOffsetsRequest::default()
        .with_replica_id((-1).into())
        .with_topics(vec![wanted]);
    let answer = brokers.ask(at, 7, &request).await?;
    let partition = &answer.topics[0].partitions[0];
    Some((code(partition.error_code), partition.offset))
}

/// Its broker lives and answers: a consumer that is told that there is nothing new looks for no other leader.
#[test]
fn a_replica_whose_storage_failed_does_not_keep_its_consumers() {
    with_brokers(55, |brokers, _| async move {
        let clock = brokers.env.clock.clone();
        let id = create(&brokers).await;
        let pause = || clock.sleep(Duration::from_millis(20));
        let old = loop {
            if let Some(leader) = leader(&brokers, 0).await
                && write(&brokers, leader, id, 0).await == Some(ErrorCode::NoError)
            {
                break leader;
            }
            pause().await;
        };
        let (_, epoch) = leadership(&brokers, old).await.expect("an answer");
        brokers.machines[old].disk().arm(FaultRule {
            op: Op::Write,
            path: id.to_string(),
            when: When::Always,
            fault: Fault::Eio,
        });
        let _ = write(&brokers, old, id, 1).await;
        let other = (old + 1) % NAMES.len();
        let mut sequence = 1;
        while sequence < 4 {
            match leader(&brokers, other).await.filter(|leader| *leader != old) {
                Some(new) if write(&brokers, new, id, sequence).await == Some(ErrorCode::NoError) => {
                    sequence += 1
                }
                _ => pause().await,
            }
        }
        for _ in 0..100 {
            let told = read_on(&brokers, old, epoch, 1).await.expect("an answer");
            assert!(told.retriable(), "a consumer stays: {told:?}");
            let told = read(&brokers, old, id, 1).await.expect("an answer");
            assert!(told.retriable(), "an old consumer stays: {told:?}");
            let (told, end) = ask_for_end(&brokers, old).await.expect("an answer");
            assert!(told.retriable(), "the end is said to be {end}: {told:?}");
            pause().await;
        }
        brokers.machines[old].disk().clear_faults();
    });
}
