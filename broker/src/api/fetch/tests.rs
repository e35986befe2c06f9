//! The hand-written encoding against the message codec's.

use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use takhin_cluster::Isolation;
use takhin_protocol::ErrorCode;
use takhin_protocol::messages::fetch_response::{
    EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
};
use takhin_protocol::messages::{FetchResponse, StrBytes, encode_response};
use takhin_runtime::Env;
use takhin_runtime::disk::{File, OpenMode};
use takhin_storage::{FileRange, FileRanges};
use uuid::Uuid;

use super::encode::{Answered, frame};
use super::plan::Answer;
use crate::fetch_session::{Key, TopicRef};
use crate::replicas::{Leadership, Node};
use crate::reply::{Part, Reply};

const TOPIC: Uuid = Uuid::from_u128(0x1234);

/// A file of the bytes 0 to 99.
fn file(dir: &tempfile::TempDir) -> Arc<dyn File> {
    let file = Env::real()
        .disk
        .open(&dir.path().join("f"), OpenMode::CreateOrWrite)
        .unwrap();
    let bytes: Vec<u8> = (0..100).collect();
    file.write_at(&mut [std::io::IoSlice::new(&bytes)], 0).unwrap();
    file
}

fn answers(file: &Arc<dyn File>, by_id: bool) -> Vec<Answered> {
    let topic = if by_id {
        TopicRef::Id(TOPIC)
    } else {
        TopicRef::Name(StrBytes::from_static_str("t").into())
    };
    let empty = || FileRanges {
        ranges: Vec::new(),
        bytes: 0,
        next_offset: 0,
    };
    let base = |code, ranges| Answer {
        code,
        topic: Some(TOPIC),
        high_watermark: 40,
        last_stable_offset: 30,
        log_start_offset: 20,
        diverging: None,
        leader: None,
        in_epoch: None,
        preferred_read_replica: -1,
        ranges,
    };
    let range = |pos, len| FileRange {
        file: Arc::clone(file),
        pos,
        len,
    };
    let split = FileRanges {
        ranges: vec![range(3, 5), range(90, 4)],
        bytes: 9,
        next_offset: 0,
    };
    let answers = [
        base(ErrorCode::NoError, split),
        base(ErrorCode::NoError, empty()),
        Answer {
            diverging: Some((3, 17)),
            ..base(ErrorCode::NoError, empty())
        },
        Answer {
            leader: Some(Leadership { leader: 2, epoch: 9 }),
            ..base(ErrorCode::NotLeaderOrFollower, empty())
        },
        Answer {
            preferred_read_replica: 3,
            ..base(ErrorCode::NoError, empty())
        },
        base(
            ErrorCode::NoError,
            FileRanges {
                ranges: vec![range(0, 100)],
                bytes: 100,
                next_offset: 0,
            },
        ),
    ];
    let keyed = (0..).zip(answers).map(|(partition, answer)| Answered {
        key: Key {
            topic: topic.clone(),
            partition,
        },
        answer,
    });
    keyed.collect()
}

/// The same answers as the message codec has them.
fn expected(version: i16, answers: &[Answered], read_committed: bool) -> FetchResponse {
    let partitions = answers.iter().map(|answered| {
        let answer = &answered.answer;
        let read = |r: &FileRange| {
            (r.pos..r.pos + r.len as u64)
                .map(|b| u8::try_from(b).unwrap())
                .collect::<Vec<u8>>()
        };
        let records: Vec<u8> = answer.ranges.ranges.iter().flat_map(read).collect();
        let mut data = PartitionData::default()
            .with_partition_index(answered.key.partition)
            .with_error_code(answer.code.code())
            .with_high_watermark(answer.high_watermark)
            .with_last_stable_offset(answer.last_stable_offset)
            .with_log_start_offset(answer.log_start_offset)
            .with_aborted_transactions(read_committed.then(Vec::new))
            .with_records(Some(Bytes::from(records)));
        if version >= 11 {
            data = data.with_preferred_read_replica(answer.preferred_read_replica.into());
        }
        if version >= 12
            && let Some((epoch, end_offset)) = answer.diverging
        {
            data = data.with_diverging_epoch(
                EpochEndOffset::default()
                    .with_epoch(epoch)
                    .with_end_offset(end_offset),
            );
        }
        if version >= 16
            && let Some(leader) = answer.leader
        {
            let leader = LeaderIdAndEpoch::default()
                .with_leader_id(leader.leader.into())
                .with_leader_epoch(leader.epoch);
            data = data.with_current_leader(leader);
        }
        data
    });
    let topic = FetchableTopicResponse::default().with_partitions(partitions.collect());
    let topic = if version >= 13 {
        topic.with_topic_id(TOPIC)
    } else {
        topic.with_topic(StrBytes::from_static_str("t").into())
    };
    let response = FetchResponse::default().with_responses(vec![topic]);
    let response = if version >= 7 {
        response.with_session_id(77)
    } else {
        response
    };
    if version < 16 {
        return response;
    }
    let endpoint = NodeEndpoint::default()
        .with_node_id(2.into())
        .with_host("h".into())
        .with_port(9);
    response.with_node_endpoints(vec![endpoint.clone().with_rack(Some("r".into())), endpoint])
}

fn all_bytes(reply: &Reply) -> Vec<u8> {
    match reply {
        Reply::Bytes(bytes) => bytes.to_vec(),
        Reply::Parts(parts) => parts
            .iter()
            .flat_map(|part| match part {
                Part::Bytes(bytes) => bytes.to_vec(),
                Part::File { file, pos, len } => {
                    let mut bytes = vec![0; *len];
                    file.read_exact_at(&mut bytes, *pos).unwrap();
                    bytes
                }
            })
            .collect(),
    }
}

#[test]
fn every_version_has_the_bytes_that_the_codec_gives_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = file(&dir);
    for version in 4..=18 {
        for isolation in [Isolation::ReadUncommitted, Isolation::ReadCommitted] {
            let answers = answers(&file, version >= 13);
            let node = Node {
                id: 2,
                host: "h".into(),
                port: 9,
                rack: Some("r".into()),
            };
            let nodes = [node.clone(), Node { rack: None, ..node }];
            let endpoints = if version >= 16 { &nodes[..] } else { &[] };
            let reply = frame(version, 0x0a0b_0c0d, 77, &answers, endpoints, isolation).unwrap();
            let bytes = all_bytes(&reply);
            assert_eq!(bytes.len(), reply.len());
            let committed = isolation == Isolation::ReadCommitted;
            let codec =
                encode_response(version, 0x0a0b_0c0d, &expected(version, &answers, committed)).unwrap();
            assert_eq!(Bytes::from(bytes), codec, "version {version} {isolation:?}");
            assert_eq!((&codec[..4]).get_i32(), i32::try_from(codec.len() - 4).unwrap());
        }
    }
}

#[test]
fn nothing_to_say_is_one_piece() {
    for version in 4..=18 {
        let reply = frame(version, 1, 0, &[], &[], Isolation::ReadUncommitted).unwrap();
        assert!(matches!(reply, Reply::Bytes(_)));
        assert_eq!(
            Bytes::from(all_bytes(&reply)),
            encode_response(version, 1, &FetchResponse::default()).unwrap()
        );
    }
}
