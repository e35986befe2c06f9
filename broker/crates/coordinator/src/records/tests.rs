//! Golden bytes are written out by hand from the schemas.

use super::*;

use proptest::prelude::*;
use takhin_protocol::messages::StrBytes;
use uuid::Uuid;

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn offset() -> OffsetRecord {
    OffsetRecord {
        group: text("g"),
        topic: text("tt"),
        partition: 7,
        value: Some(CommittedOffset {
            offset: 258,
            leader_epoch: 5,
            metadata: text("m"),
            commit_timestamp: 1_000,
            expire_timestamp: None,
            topic_id: None,
        }),
    }
}

const OFFSET_KEY: &[u8] = b"\0\x01\0\x01g\0\x02tt\0\0\0\x07";

#[test]
fn an_offset_is_written_as_value_version_4_with_its_topic_id() {
    let mut record = offset();
    record.value.as_mut().unwrap().topic_id = Some(Uuid::from_bytes(*b"0123456789abcdef"));
    let (key, value) = Record::Offset(record.clone()).encode().unwrap();
    assert_eq!(key, OFFSET_KEY);
    // A compact string, and at the end one tagged field: tag 0, 16 bytes.
    let golden = b"\0\x04\0\0\0\0\0\0\x01\x02\0\0\0\x05\x02m\0\0\0\0\0\0\x03\xe8\x01\0\x100123456789abcdef";
    assert_eq!(value.unwrap().as_ref(), golden);
    assert_eq!(
        Record::decode(&key, Some(golden)),
        Ok(Some(Record::Offset(record)))
    );
    let (_, without) = Record::Offset(offset()).encode().unwrap();
    let golden = b"\0\x04\0\0\0\0\0\0\x01\x02\0\0\0\x05\x02m\0\0\0\0\0\0\x03\xe8\0";
    assert_eq!(without.unwrap().as_ref(), golden);
}

#[test]
fn an_offset_that_expires_is_written_as_value_version_1() {
    let mut record = offset();
    let committed = record.value.as_mut().unwrap();
    (committed.leader_epoch, committed.expire_timestamp) = (-1, Some(2_000));
    let (key, value) = Record::Offset(record.clone()).encode().unwrap();
    let golden = b"\0\x01\0\0\0\0\0\0\x01\x02\0\x01m\0\0\0\0\0\0\x03\xe8\0\0\0\0\0\0\x07\xd0";
    assert_eq!(value.unwrap().as_ref(), golden);
    assert_eq!(
        Record::decode(&key, Some(golden)),
        Ok(Some(Record::Offset(record)))
    );
}

#[test]
fn older_and_newer_offsets_are_read() {
    let mut without_epoch = offset();
    without_epoch.value.as_mut().unwrap().leader_epoch = -1;
    let without_epoch = Record::Offset(without_epoch);
    let body = b"\0\0\0\0\0\0\x01\x02\0\x01m\0\0\0\0\0\0\x03\xe8";
    for version in [0u8, 2] {
        let value = [&[0, version], body.as_slice()].concat();
        let key = [&[0, 0], &OFFSET_KEY[2..]].concat();
        assert_eq!(
            Record::decode(&key, Some(&value)),
            Ok(Some(without_epoch.clone()))
        );
    }
    let never_expires = [b"\0\x01", body.as_slice(), &[0xff; 8]].concat();
    assert_eq!(
        Record::decode(OFFSET_KEY, Some(&never_expires)),
        Ok(Some(without_epoch))
    );
    let version_3 = b"\0\x03\0\0\0\0\0\0\x01\x02\0\0\0\x05\0\x01m\0\0\0\0\0\0\x03\xe8";
    assert_eq!(
        Record::decode(OFFSET_KEY, Some(version_3)),
        Ok(Some(Record::Offset(offset())))
    );
    // A newer version 4 has another tagged field (tag 3, two bytes) to skip.
    let flexible = b"\0\x04\0\0\0\0\0\0\x01\x02\0\0\0\x05\x02m\0\0\0\0\0\0\x03\xe8\x01\x03\x02zz";
    assert_eq!(
        Record::decode(OFFSET_KEY, Some(flexible)),
        Ok(Some(Record::Offset(offset())))
    );
    let cut = RecordError::Malformed {
        field: "tagged fields",
    };
    assert_eq!(
        Record::decode(OFFSET_KEY, flexible.split_last().map(|(_, cut)| cut)),
        Err(cut)
    );
    let unknown = RecordError::Version {
        schema: "OffsetCommitValue",
        version: 5,
    };
    assert_eq!(Record::decode(OFFSET_KEY, Some(b"\0\x05")), Err(unknown));
}

fn group() -> ClassicRecord {
    ClassicRecord {
        group: text("g"),
        value: Some(GroupMetadata {
            protocol_type: text("c"),
            generation: 3,
            protocol: Some(text("r")),
            leader: Some(text("m1")),
            current_state_timestamp: 1_000,
            members: vec![MemberMetadata {
                member_id: text("m1"),
                group_instance_id: Some(text("i")),
                client_id: text("k"),
                client_host: text("/h"),
                rebalance_timeout: 300,
                session_timeout: 10,
                subscription: Bytes::from_static(b"sub"),
                assignment: Bytes::from_static(b"as"),
            }],
        }),
    }
}

const GROUP_KEY: &[u8] = b"\0\x02\0\x01g";

#[test]
fn a_group_is_written_as_value_version_3() {
    let (key, value) = Record::Classic(group()).encode().unwrap();
    assert_eq!(key, GROUP_KEY);
    let golden: &[u8] = b"\0\x03\0\x01c\0\0\0\x03\0\x01r\0\x02m1\0\0\0\0\0\0\x03\xe8\0\0\0\x01\
        \0\x02m1\0\x01i\0\x01k\0\x02/h\0\0\x01\x2c\0\0\0\x0a\0\0\0\x03sub\0\0\0\x02as";
    assert_eq!(value.unwrap().as_ref(), golden);
    assert_eq!(
        Record::decode(GROUP_KEY, Some(golden)),
        Ok(Some(Record::Classic(group())))
    );
}

#[test]
fn an_empty_group_has_null_protocol_and_leader() {
    let value = GroupMetadata {
        current_state_timestamp: -1,
        ..GroupMetadata::default()
    };
    let (_, value) = Record::Classic(ClassicRecord {
        group: text("g"),
        value: Some(value),
    })
    .encode()
    .unwrap();
    let golden: &[u8] = b"\0\x03\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0";
    assert_eq!(value.unwrap().as_ref(), golden);
}

#[test]
fn older_and_newer_groups_are_read() {
    let expected = |timeout: i32, timestamp: i64, instance: Option<&'static str>| {
        let mut group = group();
        let value = group.value.as_mut().unwrap();
        value.current_state_timestamp = timestamp;
        value.members[0].rebalance_timeout = timeout;
        value.members[0].group_instance_id = instance.map(text);
        Ok(Some(Record::Classic(group)))
    };
    let v0 = b"\0\0\0\x01c\0\0\0\x03\0\x01r\0\x02m1\0\0\0\x01\
        \0\x02m1\0\x01k\0\x02/h\0\0\0\x0a\0\0\0\x03sub\0\0\0\x02as";
    assert_eq!(Record::decode(GROUP_KEY, Some(v0)), expected(10, -1, None));
    let v1 = b"\0\x01\0\x01c\0\0\0\x03\0\x01r\0\x02m1\0\0\0\x01\
        \0\x02m1\0\x01k\0\x02/h\0\0\x01\x2c\0\0\0\x0a\0\0\0\x03sub\0\0\0\x02as";
    assert_eq!(Record::decode(GROUP_KEY, Some(v1)), expected(300, -1, None));
    let v2 = b"\0\x02\0\x01c\0\0\0\x03\0\x01r\0\x02m1\0\0\0\0\0\0\x03\xe8\0\0\0\x01\
        \0\x02m1\0\x01k\0\x02/h\0\0\x01\x2c\0\0\0\x0a\0\0\0\x03sub\0\0\0\x02as";
    assert_eq!(Record::decode(GROUP_KEY, Some(v2)), expected(300, 1_000, None));
    let v4 = b"\0\x04\x02c\0\0\0\x03\x02r\x03m1\0\0\0\0\0\0\x03\xe8\x02\
        \x03m1\x02i\x02k\x03/h\0\0\x01\x2c\0\0\0\x0a\x04sub\x03as\0\0";
    assert_eq!(
        Record::decode(GROUP_KEY, Some(v4)),
        expected(300, 1_000, Some("i"))
    );
}

#[test]
fn tombstones_have_no_value() {
    let offset = Record::Offset(OffsetRecord {
        value: None,
        ..offset()
    });
    let group = Record::Classic(ClassicRecord {
        value: None,
        ..group()
    });
    for (record, key) in [(offset, OFFSET_KEY), (group, GROUP_KEY)] {
        assert_eq!(record.encode(), Ok((Bytes::from_static(key), None)));
        assert_eq!(Record::decode(key, None), Ok(Some(record)));
    }
}

#[test]
fn unknown_kinds_are_skipped_and_bad_bytes_name_the_field() {
    assert_eq!(Record::decode(b"\x7f\xffwhatever", None), Ok(None));
    assert_eq!(Record::decode(b"\xff\xff", None), Ok(None));
    let cut = RecordError::Truncated {
        field: "topic",
        needed: 2,
        left: 1,
    };
    assert_eq!(Record::decode(b"\0\x01\0\x01g\0\x02t", None), Err(cut));
    let negative = RecordError::Length {
        field: "group",
        length: -2,
    };
    assert_eq!(Record::decode(b"\0\x02\xff\xfe", None), Err(negative));
    let null = RecordError::Length {
        field: "group",
        length: -1,
    };
    assert_eq!(Record::decode(b"\0\x02\xff\xff", None), Err(null));
    let version = RecordError::Version {
        schema: "GroupMetadataValue",
        version: 5,
    };
    assert_eq!(Record::decode(GROUP_KEY, Some(b"\0\x05")), Err(version));
    let utf8 = RecordError::NotUtf8 { field: "group" };
    assert_eq!(Record::decode(b"\0\x02\0\x01\xff", None), Err(utf8));
    let crowd = b"\0\x03\0\0\0\0\0\0\xff\xff\xff\xff\0\0\0\0\0\0\0\0\x7f\xff\xff\xff";
    let members = RecordError::Truncated {
        field: "memberId",
        needed: 2,
        left: 0,
    };
    assert_eq!(Record::decode(GROUP_KEY, Some(crowd)), Err(members));
    let long = Record::Classic(ClassicRecord {
        group: "g".repeat(32_768).into(),
        value: None,
    });
    assert_eq!(
        long.encode(),
        Err(RecordError::TooLong {
            field: "group",
            length: 32_768
        })
    );
}

fn any_text() -> impl Strategy<Value = StrBytes> {
    "[a-zé]{0,6}".prop_map(StrBytes::from_string)
}

fn any_bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..6).prop_map(Bytes::from)
}

prop_compose! {
    fn any_member()(
        member_id in any_text(), group_instance_id in prop::option::of(any_text()), client_id in any_text(),
        client_host in any_text(), rebalance_timeout in 0..i32::MAX, session_timeout in any::<i32>(),
        subscription in any_bytes(), assignment in any_bytes(),
    ) -> MemberMetadata {
        MemberMetadata {
            member_id, group_instance_id, client_id, client_host, rebalance_timeout, session_timeout, subscription,
            assignment,
        }
    }
}

prop_compose! {
    fn any_group()(
        group in any_text(), protocol_type in any_text(), generation in any::<i32>(),
        protocol in prop::option::of(any_text()), leader in prop::option::of(any_text()),
        current_state_timestamp in any::<i64>(), members in prop::collection::vec(any_member(), 0..4),
        tombstone in any::<bool>(),
    ) -> Record {
        let value = GroupMetadata { protocol_type, generation, protocol, leader, current_state_timestamp, members };
        Record::Classic(ClassicRecord { group, value: Some(value).filter(|_| !tombstone) })
    }
}

prop_compose! {
    fn any_offset()(
        group in any_text(), topic in any_text(), partition in any::<i32>(), offset in any::<i64>(),
        leader_epoch in any::<i32>(), metadata in any_text(), commit_timestamp in any::<i64>(),
        expire_timestamp in prop::option::of(0..i64::MAX), tombstone in any::<bool>(),
        topic_id in prop::option::of(1..u128::MAX),
    ) -> Record {
        let leader_epoch = if expire_timestamp.is_some() { -1 } else { leader_epoch };
        let topic_id = topic_id.filter(|_| expire_timestamp.is_none()).map(Uuid::from_u128);
        let value = CommittedOffset {
            offset, leader_epoch, metadata, commit_timestamp, expire_timestamp, topic_id,
        };
        Record::Offset(OffsetRecord { group, topic, partition, value: Some(value).filter(|_| !tombstone) })
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_and_its_size_is_bounded(record in prop_oneof![any_group(), any_offset()]) {
        let (key, value) = record.encode().unwrap();
        let bytes = key.len() + value.as_ref().map_or(0, Bytes::len);
        prop_assert!(bytes + RECORD_OVERHEAD <= record.size(), "{} for {bytes}", record.size());
        prop_assert_eq!(Record::decode(&key, value.as_deref()), Ok(Some(record)));
    }

    #[test]
    fn no_bytes_make_it_panic(version in 0i16..5, key in any_bytes(), value in prop::collection::vec(any::<u8>(), 0..64)) {
        let key = [&version.to_be_bytes(), key.as_ref()].concat();
        let _ = Record::decode(&key, Some(&value));
        let value = [&version.to_be_bytes(), value.as_slice()].concat();
        let _ = Record::decode(GROUP_KEY, Some(&value));
        let _ = Record::decode(OFFSET_KEY, Some(&value));
    }
}
