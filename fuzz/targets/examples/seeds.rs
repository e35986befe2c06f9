//! Writes the named seeds of the corpus: `cargo run -p takhin-fuzz-targets --example seeds`.
//!
//! Small valid inputs from which a fuzzer finds its way; regressions are added to the same folders by hand.

use std::path::Path;

use bytes::{BufMut, Bytes, BytesMut};
use takhin_protocol::messages::{
    AlterConfigsRequest, AlterPartitionReassignmentsRequest, ApiVersionsRequest,
    ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, CreatePartitionsRequest,
    CreateTopicsRequest, DeleteGroupsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
    DescribeClusterRequest, DescribeConfigsRequest, DescribeGroupsRequest, DescribeLogDirsRequest,
    DescribeProducersRequest, DescribeQuorumRequest, DescribeTopicPartitionsRequest, ElectLeadersRequest,
    FetchRequest, FindCoordinatorRequest, HeartbeatRequest, IncrementalAlterConfigsRequest,
    InitProducerIdRequest, JoinGroupRequest, LeaveGroupRequest, ListConfigResourcesRequest,
    ListGroupsRequest, ListOffsetsRequest, ListPartitionReassignmentsRequest, MetadataRequest,
    OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest, OffsetForLeaderEpochRequest,
    ProduceRequest, Request, StrBytes, SyncGroupRequest, UnregisterBrokerRequest, UpdateFeaturesRequest,
    encode_request,
};
use takhin_protocol::record::{BatchBuilder, Compression, NewRecord};

fn main() {
    let Some(crate_dir) = std::env::var_os("CARGO_MANIFEST_DIR") else {
        eprintln!("run it with `cargo run -p takhin-fuzz-targets --example seeds`");
        std::process::exit(2);
    };
    let corpus = Path::new(&crate_dir).join("../corpus");
    let write = |target: &str, name: &str, bytes: &[u8]| {
        let folder = corpus.join(target);
        std::fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let path = folder.join(format!("seed-{name}"));
        std::fs::write(&path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    };
    frames(&write);
    requests(&write);
    batches(&write);
    segments(&write);
}

type Write<'a> = &'a dyn Fn(&str, &str, &[u8]);

fn frames(write: Write<'_>) {
    let mut stream = BytesMut::from(&[3u8][..]);
    for len in [4i32, 10, 300] {
        stream.put_i32(len);
        stream.put_bytes(7, usize::try_from(len).unwrap_or(0));
    }
    write("frame_decode", "three", &stream);
    write("frame_decode", "cut", &stream[..stream.len() - 1]);
    write("frame_decode", "negative", &[0, 0xff, 0xff, 0xff, 0xff, 1]);
    write("frame_decode", "huge", &[9, 0x7f, 0xff, 0xff, 0xff, 1]);
}

fn requests(write: Write<'_>) {
    request::<ApiVersionsRequest>(write, "api-versions");
    request::<MetadataRequest>(write, "metadata");
    request::<CreateTopicsRequest>(write, "create-topics");
    request::<DeleteTopicsRequest>(write, "delete-topics");
    request::<DescribeClusterRequest>(write, "describe-cluster");
    request::<DescribeConfigsRequest>(write, "describe-configs");
    request::<FetchRequest>(write, "fetch");
    request::<InitProducerIdRequest>(write, "init-producer-id");
    request::<ListOffsetsRequest>(write, "list-offsets");
    request::<OffsetForLeaderEpochRequest>(write, "offset-for-leader-epoch");
    request::<ProduceRequest>(write, "produce");
    request::<OffsetCommitRequest>(write, "offset-commit");
    request::<OffsetFetchRequest>(write, "offset-fetch");
    request::<FindCoordinatorRequest>(write, "find-coordinator");
    request::<JoinGroupRequest>(write, "join-group");
    request::<HeartbeatRequest>(write, "heartbeat");
    request::<LeaveGroupRequest>(write, "leave-group");
    request::<SyncGroupRequest>(write, "sync-group");
    request::<DescribeGroupsRequest>(write, "describe-groups");
    request::<ListGroupsRequest>(write, "list-groups");
    request::<DeleteRecordsRequest>(write, "delete-records");
    request::<AlterConfigsRequest>(write, "alter-configs");
    request::<DescribeLogDirsRequest>(write, "describe-log-dirs");
    request::<CreatePartitionsRequest>(write, "create-partitions");
    request::<DeleteGroupsRequest>(write, "delete-groups");
    request::<ElectLeadersRequest>(write, "elect-leaders");
    request::<IncrementalAlterConfigsRequest>(write, "incremental-alter-configs");
    request::<AlterPartitionReassignmentsRequest>(write, "alter-partition-reassignments");
    request::<ListPartitionReassignmentsRequest>(write, "list-partition-reassignments");
    request::<OffsetDeleteRequest>(write, "offset-delete");
    request::<DescribeQuorumRequest>(write, "describe-quorum");
    request::<UpdateFeaturesRequest>(write, "update-features");
    request::<DescribeProducersRequest>(write, "describe-producers");
    request::<UnregisterBrokerRequest>(write, "unregister-broker");
    request::<ConsumerGroupHeartbeatRequest>(write, "consumer-group-heartbeat");
    request::<ConsumerGroupDescribeRequest>(write, "consumer-group-describe");
    request::<ListConfigResourcesRequest>(write, "list-config-resources");
    request::<DescribeTopicPartitionsRequest>(write, "describe-topic-partitions");
}

/// The request in its oldest and newest version, as a frame without its length prefix.
fn request<T: Request + Default>(write: Write<'_>, name: &str) {
    for version in [T::VERSIONS.min, T::VERSIONS.max] {
        if let Ok(frame) = encode_request(
            version,
            1,
            Some(&StrBytes::from_static_str("fuzz")),
            &T::default(),
        ) {
            write("request_decode", &format!("{name}-{version}"), &frame[4..]);
        }
    }
}

fn batches(write: Write<'_>) {
    let codecs = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];
    for codec in codecs {
        let mut builder = BatchBuilder::new(codec).producer(7, 0, 0);
        for timestamp in [1_000, 3_000, 2_000] {
            let headers = [("h", Some(&b"x"[..]))];
            builder.push(NewRecord {
                timestamp,
                key: Some(b"key"),
                value: Some(b"value"),
                headers: &headers,
            });
        }
        let batch = builder
            .build()
            .map(|batch| batch.to_bytes())
            .unwrap_or_else(|error| panic!("{error}"));
        write("record_batch", codec.name(), &batch);
    }
    write("record_batch", "empty", &Bytes::new());
}

/// Mode, then changes of five bytes: file, position, kind, value.
fn segments(write: Write<'_>) {
    for mode in 0..16u8 {
        write("segment_recovery", &format!("untouched-{mode}"), &[mode]);
        for file in 0..6u8 {
            let changes = [mode, file, 0, 70, 0, 0xff, file.wrapping_add(2), 0, 90, 245, 0];
            write("segment_recovery", &format!("damage-{mode}-{file}"), &changes);
            write(
                "segment_recovery",
                &format!("remove-{mode}-{file}"),
                &[mode, file, 0, 0, 255, 0],
            );
        }
    }
}
