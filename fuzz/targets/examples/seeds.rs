//! Writes the named seeds of the corpus: `cargo run -p takhin-fuzz-targets --example seeds`.
//!
//! Small valid inputs from which a fuzzer finds its way. Regressions, and keys and values out of the recorded dumps (`real-*`,
//! which need RocksDB to be read), were added to the same folders by hand.

use std::path::Path;

use bytes::{BufMut, Bytes, BytesMut};
use takhin_pika_testing::fixture::{Fixture, MASTER_PORT, SLAVE_PORT, VERSIONS};
use takhin_pika_testing::master::recorded;
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
    if let Err(error) = pika(&write) {
        panic!("{error:#}");
    }
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

/// Most bytes of a recorded stream in a seed.
const STREAM: usize = 4096;

/// What real servers sent: an item of each command, the beginnings of streams, and values of dumps as the layouts have them.
fn pika(write: Write<'_>) -> anyhow::Result<()> {
    let stream = |target: &str, name: &str, bytes: &[u8]| {
        let begin = &bytes[..bytes.len().min(STREAM)];
        write(target, name, &[&[6], begin].concat());
    };
    for version in VERSIONS {
        let mut commands = std::collections::BTreeSet::new();
        for connection in Fixture::of(version).session("01")? {
            let (to_server, to_client) = (&connection.to_server[..], &connection.to_client[..]);
            match connection.server_port {
                MASTER_PORT => {
                    stream("pika_resp", &format!("{version}-said"), to_server);
                    stream("pika_resp", &format!("{version}-answered"), to_client);
                }
                port if port == MASTER_PORT + 2000 && version >= "3.1" => {
                    stream("pika_frame", &format!("{version}-said"), to_server);
                    stream("pika_frame", &format!("{version}-answered"), to_client);
                    for entry in recorded(&connection)?.into_values().flatten() {
                        let item = takhin_pika::binlog::Item::decode(entry.bytes.clone())?;
                        let name = item
                            .commands()?
                            .first()
                            .map(|command| command[0].to_ascii_lowercase());
                        let name = String::from_utf8(name.unwrap_or_default())?;
                        if entry.bytes.len() <= 1024 && commands.insert(name.clone()) {
                            write("pika_binlog_item", &format!("{version}-{name}"), &entry.bytes);
                        }
                    }
                }
                port if port == SLAVE_PORT + 1000 => {
                    stream("pika_legacy", version, to_server);
                    stream(
                        "pika_legacy",
                        &format!("{version}-cut"),
                        &to_server[..to_server.len().min(700)],
                    );
                }
                _ => {}
            }
        }
    }
    dumps(write);
    Ok(())
}

/// Values that begin as those of the layouts do: counts, versions, times, indexes; and keys.
fn dumps(write: Write<'_>) {
    let number = |number: u64| number.to_le_bytes().to_vec();
    for (name, len) in [
        ("meta", 12),
        ("list-meta", 28),
        ("meta-8", 16),
        ("floyd-meta", 45),
    ] {
        let value: Vec<u8> = (0..len).map(|at| if at % 4 == 0 { 3 } else { 0 }).collect();
        write("pika_dump", name, &value);
    }
    write("pika_dump", "string", &[&b"value"[..], &[0; 4]].concat());
    write(
        "pika_dump",
        "floyd-string",
        &[&[0][..], b"value", &[0; 16], &number(0), &number(1 << 63)].concat(),
    );
    write(
        "pika_dump",
        "key",
        &[&[0; 8][..], b"ke\x00\x01y\x00\x00", &[0; 16]].concat(),
    );
    write("pika_dump", "score", &1.5f64.to_bits().to_le_bytes());
    write(
        "pika_dump",
        "stream-id",
        &[1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 1],
    );
    write(
        "pika_dump",
        "stream-fields",
        &[&[1, 0, 0, 0][..], b"f", &[1, 0, 0, 0], b"v"].concat(),
    );
}
