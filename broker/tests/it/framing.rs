//! What is no request, or one that we do not serve (reference N1, N3 to N5, I-1 to I-3).

use bytes::{BufMut as _, BytesMut};
use takhin_protocol::ErrorCode;
use takhin_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, Decodable as _, MetadataRequest,
};

use crate::support::{Broker, code, text};

/// A frame of a request header v1 without client id, and this body.
fn request(api_key: i16, version: i16, body: &[u8]) -> BytesMut {
    let mut frame = BytesMut::new();
    frame.put_i32(i32::try_from(body.len()).unwrap() + 10);
    frame.put_i16(api_key);
    frame.put_i16(version);
    frame.put_i32(77);
    frame.put_i16(-1);
    frame.put_slice(body);
    frame
}

fn software() -> ApiVersionsRequest {
    ApiVersionsRequest::default()
        .with_client_software_name(text("it"))
        .with_client_software_version(text("1.0"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn api_versions_comes_down_to_version_0() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    // Version 99 would have flexible headers; the tagged fields and the body are unknown to us.
    client.send_bytes(request(18, 99, &[0, 1, 2, 3]).freeze()).await;
    let mut frame = client.receive().await.unwrap();
    assert_eq!(frame.split_to(4)[..], 77i32.to_be_bytes());
    let response = ApiVersionsResponse::decode(&mut frame, 0).unwrap();
    assert!(frame.is_empty(), "version 0 has no throttle time");
    assert_eq!(code(response.error_code), ErrorCode::UnsupportedVersion);
    let [own] = &response.api_keys[..] else {
        panic!("{response:?}")
    };
    assert_eq!((own.api_key, own.min_version, own.max_version), (18, 0, 4));

    // The connection lives, and every version lists the same.
    for version in 0..=4 {
        let response = client.call(version, &software()).await;
        assert_eq!(response.error_code, 0);
        let produce = &response.api_keys[0];
        assert_eq!(
            (produce.api_key, produce.min_version, produce.max_version),
            (0, 0, 13)
        );
        assert!(
            response
                .api_keys
                .iter()
                .all(|api| api.min_version <= api.max_version)
        );
        assert!(
            response
                .api_keys
                .windows(2)
                .all(|pair| pair[0].api_key < pair[1].api_key)
        );
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_librdkafka_can_read_api_versions_3() {
    // librdkafka before 2.2 skips one byte too few of each tagged field: there must be none.
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    client.send(3, &software()).await;
    let frame = client.receive().await.unwrap();
    let apis = usize::from(frame[6]) - 1;
    // correlation, error, count; 7 bytes for each API; throttle time, number of tagged fields.
    assert_eq!(frame.len(), 4 + 2 + 1 + 7 * apis + 4 + 1);
    assert_eq!(frame.last(), Some(&0));
    // Newer clients are told of KIP-848 groups.
    let response = client.call(4, &software()).await;
    let finalized = &response.finalized_features[0];
    assert_eq!(
        (&*finalized.name, finalized.max_version_level),
        ("group.version", 1)
    );
    assert!(response.finalized_features_epoch >= 0);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ill_named_client_is_told() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    let response = client
        .call(3, &software().with_client_software_name(text("-it")))
        .await;
    assert_eq!(code(response.error_code), ErrorCode::InvalidRequest);
    client.ping().await;
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_request_of_ours_closes_the_connection_only() {
    let mut broker = Broker::with(&[
        "kafka.limits.max_request_size=1MiB",
        "kafka.message_max_bytes=512KiB",
    ])
    .await;
    let mut bystander = broker.client().await;
    let lengths = [0, 1, 3, -1, i32::MIN, i32::MAX, (1 << 20) + 1];
    let mut strangers: Vec<BytesMut> = lengths
        .iter()
        .map(|n| BytesMut::from(&n.to_be_bytes()[..]))
        .collect();
    strangers.extend([
        BytesMut::from(&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..]),
        BytesMut::from(&b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"[..]),
        request(9999, 0, &[0; 16]),
        request(-1, 0, &[0; 16]),
        // Known to Kafka, not served here: SaslHandshake, AlterPartition.
        request(17, 0, b"\0\x05PLAIN"),
        request(56, 0, &[0; 16]),
        // Versions beyond both ends.
        request(ApiKey::Fetch as i16, 3, &[0; 64]),
        request(ApiKey::Metadata as i16, 14, &[0; 64]),
        request(ApiKey::Metadata as i16, -1, &[0; 64]),
        // Truncated, and 2³¹-1 topics in a few bytes.
        request(ApiKey::Metadata as i16, 4, &[0, 0]),
        request(ApiKey::Metadata as i16, 1, &i32::MAX.to_be_bytes()),
        request(
            ApiKey::Produce as i16,
            3,
            b"\xff\xff\0\x01\0\0\0\x01\x7f\xff\xff\xff",
        ),
    ]);
    for bytes in strangers {
        let mut stranger = broker.client().await;
        stranger.send_bytes(bytes.clone().freeze()).await;
        assert_eq!(stranger.receive().await, None, "{bytes:?}");
    }
    bystander.ping().await;
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_may_arrive_byte_by_byte_and_have_more_behind_it() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    let frame = request(18, 0, b"and more");
    for byte in frame {
        client.send_bytes(vec![byte]).await;
    }
    assert_eq!(client.receive().await.unwrap()[..6], [0, 0, 0, 77, 0, 0]);
    let all = MetadataRequest::default().with_topics(None);
    assert_eq!(client.call(13, &all).await.brokers.len(), 1);
    broker.stop().await;
}
