use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;

use super::*;

fn round_trip(record: &ConsumerRecord) -> ConsumerRecord {
    let (key, value) = record.encode().unwrap();
    let (kind, rest) = key.split_first_chunk::<2>().unwrap();
    ConsumerRecord::decode(i16::from_be_bytes(*kind), rest, value.as_deref()).unwrap()
}

/// The bytes are put together by hand from the schemas, as Kafka's generated classes lay them out.
fn golden(record: &ConsumerRecord, key: &[u8], value: Option<&[u8]>) {
    let (our_key, our_value) = record.encode().unwrap();
    assert_eq!(our_key, key, "key of {record:?}");
    assert_eq!(our_value.as_deref(), value, "value of {record:?}");
    assert_eq!(&round_trip(record), record);
}

fn one_partition() -> Partitions {
    Partitions::from([(Uuid::from_u128(0x0102), BTreeSet::from([7]))])
}

const ONE_PARTITION: &[u8] = &[
    2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 2, 0, 0, 0, 7, 0,
];

#[test]
fn group_records_have_kafkas_bytes() {
    let group_id = || "g".to_owned();
    golden(
        &ConsumerRecord::Group {
            group_id: group_id(),
            value: Some(GroupEpoch {
                epoch: 5,
                metadata_hash: 0,
            }),
        },
        b"\0\x03\0\x01g",
        Some(&[0, 0, 0, 0, 0, 5, 0]),
    );
    golden(
        &ConsumerRecord::Group {
            group_id: group_id(),
            value: Some(GroupEpoch {
                epoch: 5,
                metadata_hash: 9,
            }),
        },
        b"\0\x03\0\x01g",
        Some(&[0, 0, 0, 0, 0, 5, 1, 0, 8, 0, 0, 0, 0, 0, 0, 0, 9]),
    );
    golden(
        &ConsumerRecord::PartitionMetadata {
            group_id: group_id(),
            value: None,
        },
        b"\0\x04\0\x01g",
        None,
    );
    golden(
        &ConsumerRecord::TargetEpoch {
            group_id: group_id(),
            value: Some(6),
        },
        b"\0\x06\0\x01g",
        Some(&[0, 0, 0, 0, 0, 6, 0]),
    );
    golden(
        &ConsumerRecord::Regex {
            group_id: group_id(),
            regex: "a.*".to_owned(),
            value: Some(ResolvedRegex {
                topics: BTreeSet::from(["ab".to_owned()]),
                version: 3,
                timestamp: 4,
            }),
        },
        b"\0\x10\0\x01g\0\x03a.*",
        Some(b"\0\0\x02\x03ab\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x04\0"),
    );
}

#[test]
fn assignment_records_have_kafkas_bytes() {
    let (group_id, member_id) = ("g".to_owned(), "m".to_owned());
    golden(
        &ConsumerRecord::Target {
            group_id: group_id.clone(),
            member_id: member_id.clone(),
            value: Some(one_partition()),
        },
        b"\0\x07\0\x01g\0\x01m",
        Some(&[&[0, 0], ONE_PARTITION, &[0]].concat()),
    );
    golden(
        &ConsumerRecord::Current {
            group_id,
            member_id,
            value: Some(CurrentAssignment {
                epoch: 4,
                previous_epoch: 3,
                state: MemberState::UnrevokedPartitions,
                assigned: Partitions::new(),
                revoking: one_partition(),
            }),
        },
        b"\0\x08\0\x01g\0\x01m",
        Some(&[&[0, 0, 0, 0, 0, 4, 0, 0, 0, 3, 1, 1], ONE_PARTITION, &[0]].concat()),
    );
}

#[test]
fn member_records_have_kafkas_bytes() {
    let member = |classic| ConsumerRecord::Member {
        group_id: "g".to_owned(),
        member_id: "m".to_owned(),
        value: Some(ConsumerMember {
            instance_id: Some("i".to_owned()),
            rack_id: None,
            client_id: "c".to_owned(),
            client_host: "/h".to_owned(),
            topics: BTreeSet::from(["t".to_owned()]),
            regex: None,
            rebalance_timeout_ms: 256,
            assignor: Some("range".to_owned()),
            classic,
        }),
    };
    let fields = b"\0\0\x02i\0\x02c\x03/h\x02\x02t\0\0\0\x01\0\x06range";
    golden(
        &member(None),
        b"\0\x05\0\x01g\0\x01m",
        Some(&[&fields[..], b"\0"].concat()),
    );
    let classic = ClassicMetadata {
        session_timeout_ms: 1,
        protocols: vec![("p".to_owned(), vec![0xff])],
    };
    golden(
        &member(Some(classic)),
        b"\0\x05\0\x01g\0\x01m",
        Some(&[&fields[..], b"\x01\0\x0c\x01\0\0\0\x01\x02\x02p\x02\xff\0\0"].concat()),
    );
}

#[test]
fn what_later_versions_add_is_passed_over() {
    // Racks of 4.0, and the epochs and creation time that came after 4.1.
    let racks = b"\0\0\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x02t\0\0\0\x01\x02\0\0\0\0\x02\x02r\0\0\0";
    let record = ConsumerRecord::decode(4, b"\0\x01g", Some(racks)).unwrap();
    let ConsumerRecord::PartitionMetadata {
        value: Some(topics), ..
    } = record
    else {
        panic!("{record:?}");
    };
    assert_eq!((topics[0].name.as_str(), topics[0].partitions), ("t", 1));

    let epochs = [&[0, 0], &ONE_PARTITION[..22], &[1, 0, 5, 2, 0, 0, 0, 9, 0]].concat();
    let record = ConsumerRecord::decode(7, b"\0\x01g\0\x01m", Some(&epochs)).unwrap();
    assert!(matches!(record, ConsumerRecord::Target { value: Some(value), .. } if value == one_partition()));

    let created = b"\0\0\0\0\0\x05\x01\x01\x08\0\0\0\0\0\0\0\x09";
    let record = ConsumerRecord::decode(3, b"\0\x01g", Some(created)).unwrap();
    assert!(matches!(
        record,
        ConsumerRecord::Group {
            value: Some(GroupEpoch {
                epoch: 5,
                metadata_hash: 0
            }),
            ..
        }
    ));
}

#[test]
fn a_fault_names_its_field() {
    let fault =
        |kind, key: &[u8], value: &[u8]| ConsumerRecord::decode(kind, key, Some(value)).unwrap_err().0;
    assert_eq!(fault(3, b"\0\x09g", b"\0\0\0\0\0\x05\0"), "GroupId");
    assert_eq!(fault(3, b"\0\x01g", b"\0\x01\0\0\0\x05\0"), "version");
    assert_eq!(fault(3, b"\0\x01g", b"\0\0\0\0"), "Epoch");
    assert_eq!(fault(7, b"\0\x01g", b"\0\0\x01\0"), "MemberId");
    // A count that the bytes cannot hold, and one of six bytes.
    assert_eq!(
        fault(7, b"\0\x01g\0\x01m", b"\0\0\xff\xff\xff\x7f"),
        "TopicPartitions"
    );
    assert_eq!(
        fault(7, b"\0\x01g\0\x01m", b"\0\0\xff\xff\xff\xff\xff\x01"),
        "TopicPartitions"
    );
    assert_eq!(fault(16, b"\0\x01g\0\x01r", b"\0\0\x02\x02\xff"), "Topics");
    assert_eq!(fault(2, b"\0\x01g", b"\0\0"), "key type");
}

fn name() -> impl Strategy<Value = String> {
    "[a-zéß.*]{0,200}"
}

fn partitions() -> impl Strategy<Value = Partitions> {
    btree_map(
        any::<u128>().prop_map(Uuid::from_u128),
        btree_set(any::<i32>(), 1..200),
        0..4,
    )
}

prop_compose! {
    fn member()(
        instance_id in option::of(name()), rack_id in option::of(name()), client_id in name(), client_host in name(),
        topics in btree_set(name(), 0..3), regex in option::of(name()), rebalance_timeout_ms in any::<i32>(),
        assignor in option::of(name()),
        classic in option::of((any::<i32>(), vec((name(), vec(any::<u8>(), 0..200)), 0..3))),
    ) -> ConsumerMember {
        let classic = classic
            .map(|(session_timeout_ms, protocols)| ClassicMetadata { session_timeout_ms, protocols });
        ConsumerMember {
            instance_id, rack_id, client_id, client_host, topics, regex, rebalance_timeout_ms, assignor, classic,
        }
    }
}

prop_compose! {
    fn current()(
        epoch in any::<i32>(), previous_epoch in any::<i32>(), code in 0_i8..4, assigned in partitions(),
        revoking in partitions(),
    ) -> CurrentAssignment {
        CurrentAssignment { epoch, previous_epoch, state: MemberState::from_code(code), assigned, revoking }
    }
}

prop_compose! {
    fn resolved()(
        topics in btree_set(name(), 0..3), version in any::<i64>(), timestamp in any::<i64>(),
    ) -> ResolvedRegex {
        ResolvedRegex { topics, version, timestamp }
    }
}

prop_compose! {
    fn topic()(id in any::<u128>(), name in name(), partitions in any::<i32>()) -> TopicMetadata {
        TopicMetadata { id: Uuid::from_u128(id), name, partitions }
    }
}

fn record() -> impl Strategy<Value = ConsumerRecord> {
    use ConsumerRecord::{Current, Group, Member, PartitionMetadata, Regex, Target, TargetEpoch};
    let group = option::of((any::<i32>(), any::<i64>()));
    prop_oneof![
        (name(), group).prop_map(|(group_id, value)| {
            let value = value.map(|(epoch, metadata_hash)| GroupEpoch { epoch, metadata_hash });
            Group { group_id, value }
        }),
        (name(), option::of(vec(topic(), 0..3)))
            .prop_map(|(group_id, value)| PartitionMetadata { group_id, value }),
        (name(), option::of(any::<i32>())).prop_map(|(group_id, value)| TargetEpoch { group_id, value }),
        (name(), name(), option::of(partitions())).prop_map(|(group_id, member_id, value)| Target {
            group_id,
            member_id,
            value
        }),
        (name(), name(), option::of(current())).prop_map(|(group_id, member_id, value)| Current {
            group_id,
            member_id,
            value
        }),
        (name(), name(), option::of(member())).prop_map(|(group_id, member_id, value)| Member {
            group_id,
            member_id,
            value
        }),
        (name(), name(), option::of(resolved())).prop_map(|(group_id, regex, value)| Regex {
            group_id,
            regex,
            value
        }),
    ]
}

proptest! {
    #[test]
    fn records_come_back_as_they_went(record in record()) {
        let (key, value) = record.encode().unwrap();
        prop_assert!(key.len() + value.map_or(0, |value| value.len()) <= record.size());
        prop_assert_eq!(round_trip(&record), record);
    }

    #[test]
    fn no_bytes_make_it_panic(kind in prop::sample::select(vec![3_i16, 4, 5, 6, 7, 8, 16]),
                              value in vec(any::<u8>(), 0..80)) {
        let _ = ConsumerRecord::decode(kind, b"\0\x01g\0\x01m", Some(&[b"\0\0", &value[..]].concat()));
    }

    #[test]
    fn a_record_cut_short_is_refused_or_the_same(record in record(), cut in 1_usize..40) {
        let (key, value) = record.encode().unwrap();
        if let Some(value) = value {
            let cut = value.len().saturating_sub(cut);
            let kind = i16::from_be_bytes([key[0], key[1]]);
            if let Ok(got) = ConsumerRecord::decode(kind, &key[2..], Some(&value[..cut])) {
                // What follows the last field may be missing: the count of its tagged fields.
                prop_assert_eq!(got, record);
            }
        }
    }
}
