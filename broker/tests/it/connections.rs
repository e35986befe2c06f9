//! Order, limits of number and time, and stopping (reference N2, N8, I-4, I-5, R-1).

use takhin_protocol::messages::{ApiVersionsRequest, FetchRequest, MetadataRequest};

use crate::fetch::from;
use crate::support::Broker;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fast_request_waits_for_the_slow_one_before_it() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    let id = client.create("t", 1, &[]).await;
    let slow = client
        .send(13, &from(id, 0, 0).with_max_wait_ms(200).with_min_bytes(1))
        .await;
    let fast = client.send(0, &ApiVersionsRequest::default()).await;
    client.response::<FetchRequest>(13, slow).await;
    client.response::<ApiVersionsRequest>(0, fast).await;
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_requests_at_once_are_answered_in_order() {
    const REQUESTS: i32 = 10_000;
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    let mut frames = Vec::new();
    for correlation in 0..REQUESTS {
        let request = MetadataRequest::default().with_topics(None);
        let frame = takhin_protocol::messages::encode_request(1, correlation, None, &request).unwrap();
        frames.extend_from_slice(&frame);
    }
    let answered = client.flood(frames, REQUESTS).await;
    assert!(answered.into_iter().eq(0..REQUESTS));
    client.ping().await;
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_connections_are_closed_and_places_come_free() {
    let mut broker = Broker::with(&["kafka.limits.max_connections=2"]).await;
    let (mut first, mut second) = (broker.client().await, broker.client().await);
    first.ping().await;
    second.ping().await;
    let mut third = broker.client().await;
    assert_eq!(third.receive().await, None);
    drop(first);
    // The place is free as soon as the broker has seen the end of the first.
    loop {
        let mut next = broker.client().await;
        next.send(0, &ApiVersionsRequest::default()).await;
        if next.receive().await.is_some() {
            break;
        }
    }
    second.ping().await;
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_may_have_only_so_many() {
    let mut broker = Broker::with(&["kafka.limits.max_connections_per_ip=1"]).await;
    let mut first = broker.client().await;
    first.ping().await;
    assert_eq!(broker.client().await.receive().await, None);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_frame_and_idle_connections_are_closed() {
    let settings = [
        "kafka.limits.request_receive_timeout=100ms",
        "kafka.limits.connections_max_idle=1s",
    ];
    let mut broker = Broker::with(&settings).await;
    let (mut half, mut idle) = (broker.client().await, broker.client().await);
    half.send_bytes(&b"\0\0\0\x40\0\x12"[..]).await;
    assert_eq!(half.receive().await, None);
    assert_eq!(idle.receive().await, None);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_with_an_unanswered_request_is_not_idle() {
    let mut broker = Broker::with(&["kafka.limits.connections_max_idle=1s"]).await;
    let mut client = broker.client().await;
    let id = client.create("t", 1, &[]).await;
    let fetch = client
        .call(13, &from(id, 0, 0).with_max_wait_ms(2_500).with_min_bytes(1))
        .await;
    assert_eq!(fetch.error_code, 0);
    client.ping().await;
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_for_requests_is_waited_for_in_turn() {
    // Two requests of this size do not fit at once, so the second is read when the first has been answered.
    let settings = [
        "kafka.limits.max_request_memory=1MiB",
        "kafka.limits.max_request_size=1MiB",
        "kafka.message_max_bytes=512KiB",
    ];
    let mut broker = Broker::with(&settings).await;
    let names: Vec<_> = (0..1000).map(|i| format!("{i:0>80}")).collect();
    let topics = names.iter().map(|name| {
        takhin_protocol::messages::metadata_request::MetadataRequestTopic::default()
            .with_name(Some(crate::support::topic(name)))
    });
    let request = MetadataRequest::default()
        .with_topics(Some(topics.collect()))
        .with_allow_auto_topic_creation(false);
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = broker.client().await;
        let correlation = client.send(4, &request).await;
        clients.push((client, correlation));
    }
    for (client, correlation) in &mut clients {
        let response = client.response::<MetadataRequest>(4, *correlation).await;
        assert_eq!(response.topics.len(), 1000);
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_broker_answers_what_it_has_and_closes() {
    let mut broker = Broker::start().await;
    let mut client = broker.client().await;
    let id = client.create("t", 1, &[]).await;
    let waiting = client
        .send(13, &from(id, 0, 0).with_max_wait_ms(600_000).with_min_bytes(1))
        .await;
    // A request behind it shows that the broker has read the fetch.
    let mut idle = broker.client().await;
    idle.ping().await;
    broker.stop().await;
    let answered = client.receive().await;
    assert!(answered.is_none_or(|frame| frame[..4] == waiting.to_be_bytes()));
    assert_eq!(client.receive().await, None);
    assert_eq!(idle.receive().await, None);
}
