//! Random bytes behind sound headers: the broker answers or closes, and nothing panics.

use bytes::{BufMut as _, Bytes, BytesMut};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use takhin_protocol::messages::ApiVersionsRequest;
use takhin_runtime::telemetry::metrics;

use crate::support::Broker;

/// Panics of tasks in this process so far; other tests have none either.
fn panics() -> Vec<String> {
    let all = metrics::encode();
    all.lines()
        .filter(|line| line.starts_with("takhin_runtime_task_panics_total"))
        .map(str::to_owned)
        .collect()
}

/// Correlation id of the random request.
const STRANGE: i32 = 0x7777;

fn frame(api_key: i16, version: i16, body: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_i32(i32::try_from(body.len()).unwrap() + 11);
    frame.put_i16(api_key);
    frame.put_i16(version);
    frame.put_i32(STRANGE);
    frame.put_i16(-1);
    frame.put_u8(0);
    frame.put_slice(body);
    frame.freeze()
}

/// Bytes of which many are small, so that counts and lengths are often in range.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![4 => Just(0u8), 3 => 1u8..8, 1 => any::<u8>(), 1 => Just(0xff)];
    prop::collection::vec(byte, 0..200)
}

#[test]
fn no_request_makes_anything_panic() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let mut broker = runtime.block_on(Broker::with(&["kafka.auto_create_topics=false"]));
    let mut bystander = runtime.block_on(broker.client());
    let keys = prop::sample::select(vec![0i16, 1, 2, 3, 18, 19, 20, 22, 23, 32, 60]);
    let mut runner = TestRunner::new(Config {
        cases: 1500,
        failure_persistence: None,
        ..Config::default()
    });
    runner
        .run(&(keys, 0i16..=18, body()), |(key, version, body)| {
            runtime.block_on(async {
                let mut client = broker.client().await;
                client.send_bytes(frame(key, version, &body)).await;
                // Behind it a request that is answered, unless the first one closed the connection.
                client.send(0, &ApiVersionsRequest::default()).await;
                // Produce with acks=0 has no answer; everything else has one, or ends the connection.
                while client
                    .receive()
                    .await
                    .is_some_and(|answer| answer[..4] == STRANGE.to_be_bytes())
                {}
            });
            prop_assert!(panics().is_empty(), "{:?}", panics());
            Ok(())
        })
        .unwrap();
    runtime.block_on(async {
        bystander.ping().await;
        broker.stop().await;
    });
}
