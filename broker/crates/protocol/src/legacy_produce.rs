//! Produce 0 to 2, which the codec no longer has. We advertise them because old clients look for an overlap
//! with them before they use anything newer, and a request that does arrive is answered with
//! UNSUPPORTED_VERSION for each partition.
//!
//! ```text
//! request    acks i16 | timeout_ms i32 | [ name | [ index i32 | records bytes ] ]
//! response   [ name | [ index i32 | error_code i16 | base_offset i64 | v2: log_append_time i64 ] ] | v1: throttle i32
//! ```

use std::error::Error;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use kafka_protocol::messages::produce_response::{ProduceResponse, TopicProduceResponse};
use kafka_protocol::protocol::StrBytes;

/// First version that the codec has.
pub(crate) const FIRST_MODERN: i16 = 3;

type BoxError = Box<dyn Error + Send + Sync>;

/// Decodes a body that the guard has walked: lengths are known to be in range.
pub(crate) fn decode(body: &mut Bytes) -> Result<ProduceRequest, BoxError> {
    let acks = body.try_get_i16()?;
    let timeout_ms = body.try_get_i32()?;
    let mut topics = Vec::new();
    for _ in 0..body.try_get_i32()? {
        let name_len = usize::try_from(body.try_get_i16()?)?;
        let name = StrBytes::from_utf8(take(body, name_len)?)?;
        let mut partitions = Vec::new();
        for _ in 0..body.try_get_i32()? {
            let index = body.try_get_i32()?;
            let records = match usize::try_from(body.try_get_i32()?) {
                Ok(len) => Some(take(body, len)?),
                Err(_) => None,
            };
            partitions.push(
                PartitionProduceData::default()
                    .with_index(index)
                    .with_records(records),
            );
        }
        topics.push(
            TopicProduceData::default()
                .with_name(name.into())
                .with_partition_data(partitions),
        );
    }
    Ok(ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(timeout_ms)
        .with_topic_data(topics))
}

fn take(body: &mut Bytes, len: usize) -> Result<Bytes, bytes::TryGetError> {
    if len > body.len() {
        return Err(bytes::TryGetError {
            requested: len,
            available: body.len(),
        });
    }
    Ok(body.split_to(len))
}

/// Length in bytes of a response's body.
pub(crate) fn response_len(version: i16, response: &ProduceResponse) -> usize {
    let per_partition = if version >= 2 { 22 } else { 14 };
    let topic_len = |t: &TopicProduceResponse| 6 + t.name.len() + t.partition_responses.len() * per_partition;
    let throttle = if version >= 1 { 4 } else { 0 };
    4 + response.responses.iter().map(topic_len).sum::<usize>() + throttle
}

/// Appends a response's body to `out`.
pub(crate) fn encode_response(
    version: i16,
    response: &ProduceResponse,
    out: &mut BytesMut,
) -> Result<(), BoxError> {
    out.put_i32(i32::try_from(response.responses.len())?);
    for topic in &response.responses {
        out.put_i16(i16::try_from(topic.name.len())?);
        out.put_slice(topic.name.as_bytes());
        out.put_i32(i32::try_from(topic.partition_responses.len())?);
        for partition in &topic.partition_responses {
            out.put_i32(partition.index);
            out.put_i16(partition.error_code);
            out.put_i64(partition.base_offset);
            if version >= 2 {
                out.put_i64(partition.log_append_time_ms);
            }
        }
    }
    if version >= 1 {
        out.put_i32(response.throttle_time_ms);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::produce_response::PartitionProduceResponse;

    use super::*;
    use crate::messages::{decode, encode_response};

    #[test]
    fn a_request_of_every_old_version_is_decoded() {
        let body = b"\xff\xff\0\0\0\x09\0\0\0\x01\0\x02ab\0\0\0\x02\0\0\0\x05\0\0\0\x03xyz\0\0\0\x06\xff\xff\xff\xff";
        for version in 0..=2 {
            let mut bytes = Bytes::from_static(body);
            let request: ProduceRequest = decode(version, &mut bytes).unwrap();
            assert!(bytes.is_empty());
            assert_eq!((request.acks, request.timeout_ms), (-1, 9));
            let topic = &request.topic_data[0];
            assert_eq!(topic.name.as_str(), "ab");
            assert_eq!(topic.partition_data[0].records.as_deref(), Some(&b"xyz"[..]));
            assert_eq!(
                (topic.partition_data[1].index, &topic.partition_data[1].records),
                (6, &None)
            );
        }
    }

    #[test]
    fn a_response_has_the_fields_of_its_version() {
        let partition = PartitionProduceResponse::default()
            .with_index(5)
            .with_error_code(35)
            .with_base_offset(-1);
        let topic = TopicProduceResponse::default()
            .with_name(StrBytes::from_static_str("ab").into())
            .with_partition_responses(vec![partition]);
        let response = ProduceResponse::default()
            .with_responses(vec![topic])
            .with_throttle_time_ms(9);
        let common =
            b"\0\0\0\x07\0\0\0\x01\0\x02ab\0\0\0\x01\0\0\0\x05\0\x23\xff\xff\xff\xff\xff\xff\xff\xff";
        let append_time = [0xff; 8];
        let throttle = [0, 0, 0, 9];
        let tails: [&[&[u8]]; 3] = [&[], &[&throttle], &[&append_time, &throttle]];
        for (version, tail) in (0..).zip(tails) {
            let frame = encode_response(version, 7, &response).unwrap();
            let expected = [&common[..], &tail.concat()].concat();
            assert_eq!(frame[4..], expected, "version {version}");
            assert_eq!(frame[..4], i32::try_from(expected.len()).unwrap().to_be_bytes());
        }
        // The codec's oldest version has the layout of version 2.
        assert_eq!(
            encode_response(2, 7, &response).unwrap(),
            encode_response(3, 7, &response).unwrap()
        );
    }
}
