//! Health and metrics as a prober sees them, over the simulated network, where a minute takes no time.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use takhin_runtime::sim::Sim;
use takhin_runtime::telemetry::health::{Health, Probe};
use takhin_runtime::telemetry::http::{Answer, BODY_TIMEOUT, BodyError, Call, Endpoints, MAX_BODY};
use takhin_runtime::telemetry::{http, metrics};
use takhin_runtime::{Env, JoinHandle, Shutdown, Stream};

struct Server {
    health: Health,
    shutdown: Shutdown,
    task: JoinHandle<std::io::Result<()>>,
}

async fn start(env: &Env) -> Server {
    let shutdown = Shutdown::new();
    let health = Health::start(env, &shutdown);
    let listener = env.net.listen("127.0.0.1:9644", "admin.bind").await.unwrap();
    let (env2, health2, shutdown2) = (env.clone(), health.clone(), shutdown.clone());
    let task = env.tasks.spawn("admin", async move {
        http::serve(&env2, listener, health2, Some(Arc::new(Echo)), shutdown2).await
    });
    Server {
        health,
        shutdown,
        task,
    }
}

/// Answers what it was asked.
struct Echo;

impl Endpoints for Echo {
    fn answer(&self, call: Call) -> Pin<Box<dyn Future<Output = Answer> + Send + '_>> {
        let status = match &call.body {
            Ok(_) => 200,
            Err(BodyError::TooLarge) => 413,
            Err(BodyError::TooSlow) => 408,
            Err(BodyError::Broken) => 400,
        };
        let length = call.body.as_ref().map_or(0, |body| body.len());
        let said = call.header("x-said").map(String::from_utf8_lossy);
        let body = format!(
            "{} {} {length} {}",
            call.method,
            call.path,
            said.unwrap_or_default()
        );
        Box::pin(async move {
            Answer {
                status,
                content_type: "text/plain",
                headers: Vec::new(),
                body,
            }
        })
    }
}

/// The same over real TCP.
#[tokio::test]
async fn a_real_socket_is_served_alike() {
    let env = Env::real();
    let shutdown = Shutdown::new();
    let health = Health::start(&env, &shutdown);
    let listener = env.net.listen("127.0.0.1:0", "admin.bind").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = http::serve(&env, listener, health, None, shutdown.clone());
    let asking = async {
        let stream = env.net.connect(&address).await.unwrap();
        let answer = ask(
            stream,
            "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned(),
        )
        .await;
        shutdown.trigger();
        answer
    };
    let (served, answer) = tokio::join!(serving, asking);
    served.unwrap();
    assert_eq!(answer, (200, "ok\n".to_owned()));
}

async fn connect(env: &Env) -> Stream {
    env.net.connect("127.0.0.1:9644").await.unwrap()
}

/// Sends `head` and returns status and body of the answer; the server closes afterwards.
async fn exchange(env: &Env, head: String) -> (u16, String) {
    ask(connect(env).await, head).await
}

async fn ask(stream: Stream, head: String) -> (u16, String) {
    let (mut read, mut write) = stream.into_split();
    write
        .write_all(&mut VecDeque::from([Bytes::from(head)]))
        .await
        .unwrap();
    let mut answer = BytesMut::new();
    while read.read_buf(&mut answer).await.unwrap() > 0 {}
    let answer = String::from_utf8(answer.to_vec()).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

async fn get(env: &Env, path: &str) -> (u16, String) {
    exchange(
        env,
        format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"),
    )
    .await
}

#[test]
fn probes_follow_their_checks() {
    Sim::new(1).run(|env| async move {
        let server = start(&env).await;
        let ok = || (200, "ok\n".to_owned());
        assert_eq!(get(&env, "/livez").await, ok());
        assert_eq!(get(&env, "/readyz").await, ok(), "no checks, nothing to wait for");

        let recovered = server.health.flag(Probe::Startup, "recovery", "3 of 7 logs");
        let joined = server.health.flag(Probe::Ready, "cluster", "no leader");
        assert_eq!(get(&env, "/startupz").await, (503, "recovery: 3 of 7 logs\n".to_owned()));
        assert_eq!(get(&env, "/readyz").await, (503, "cluster: no leader\nrecovery: 3 of 7 logs\n".to_owned()));
        recovered.pass();
        assert_eq!(get(&env, "/startupz").await, ok());
        assert_eq!(get(&env, "/readyz").await.0, 503);
        assert_eq!(
            get(&env, "/readyz?verbose").await,
            (503, "{\"ok\":false,\"checks\":{\"cluster\":{\"ok\":false,\"reason\":\"no leader\"},\"recovery\":{\"ok\":true}}}\n".to_owned())
        );
        joined.pass();
        assert_eq!(get(&env, "/readyz").await, ok());
        joined.fail("draining");
        assert_eq!(get(&env, "/readyz").await, (503, "cluster: draining\n".to_owned()));
        assert_eq!(get(&env, "/livez").await, ok(), "whatever the checks say");
    });
}

#[test]
fn a_process_whose_timers_stand_still_is_not_alive() {
    Sim::new(1).run(|env| async move {
        let shutdown = Shutdown::new();
        let health = Health::start(&env, &shutdown);
        env.clock.sleep(Duration::from_secs(60)).await;
        assert!(health.live().ok);
        shutdown.trigger(); // stops the tick, as a stuck runtime would
        env.clock.sleep(Duration::from_secs(6)).await;
        let report = health.live();
        assert!(
            !report.ok
                && report.checks["timer"]
                    .reason
                    .as_ref()
                    .unwrap()
                    .contains("no timer"),
            "{report:?}"
        );
    });
}

#[test]
fn metrics_and_refusals() {
    Sim::new(1).run(|env| async move {
        let _server = start(&env).await;
        let requests = metrics::counters("takhin_test_requests_total", "Requests", ["api"]);
        requests.with(["Produce"]).add(3);
        metrics::histogram("takhin_test_wait_seconds", "Waits").observe(Duration::from_millis(2));
        let (status, body) = get(&env, "/metrics").await;
        assert_eq!(status, 200);
        for line in [
            "# TYPE takhin_test_requests counter",
            "takhin_test_requests_total{api=\"Produce\"} 3",
            "takhin_test_wait_seconds_bucket{le=\"0.001\"} 0",
            "takhin_test_wait_seconds_bucket{le=\"0.0025\"} 1",
            "takhin_test_wait_seconds_bucket{le=\"+Inf\"} 1",
            "takhin_test_wait_seconds_count 1",
            "# EOF",
        ] {
            assert!(
                body.lines().any(|found| found == line),
                "{line} is missing in {body}"
            );
        }
        assert_eq!(get(&env, "/").await.0, 404);
        let post = "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        assert_eq!(exchange(&env, post.to_owned()).await.0, 405);
        let long = format!("GET /livez HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(17 * 1024));
        assert_eq!(exchange(&env, long).await.0, 431);
    });
}

#[test]
fn what_the_program_serves_is_asked_within_bounds() {
    Sim::new(1).run(|env| async move {
        let _server = start(&env).await;
        let post = |length: usize, sent: usize| {
            let head = "POST /v1/x HTTP/1.1\r\nHost: x\r\nX-Said: hello\r\nConnection: close\r\n";
            format!("{head}Content-Length: {length}\r\n\r\n{}", "x".repeat(sent))
        };
        let (none, all) = (post(0, 0), post(MAX_BODY, MAX_BODY));
        assert_eq!(exchange(&env, none).await, (200, "POST /v1/x 0 hello".to_owned()));
        let whole = format!("POST /v1/x {MAX_BODY} hello");
        assert_eq!(exchange(&env, all).await, (200, whole));
        assert_eq!(exchange(&env, post(MAX_BODY + 1, MAX_BODY + 1)).await.0, 413);
        let head = "POST /v1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(exchange(&env, format!("{head}zz\r\n")).await.0, 400);
        let begun = env.clock.instant();
        assert_eq!(exchange(&env, post(10, 9)).await.0, 408);
        assert_eq!(begun.elapsed().as_secs(), BODY_TIMEOUT.as_secs());
        assert_eq!(get(&env, "/v10").await.0, 404, "another path");
    });
}

#[test]
fn silent_clients_lose_their_place() {
    Sim::new(1).run(|env| async move {
        let _server = start(&env).await;
        let mut silent = Vec::new();
        for _ in 0..64 {
            silent.push(connect(&env).await);
        }
        let second = Duration::from_secs(1);
        assert!(
            env.clock.timeout(second, get(&env, "/livez")).await.is_err(),
            "all 64 places are taken"
        );
        let rest = Duration::from_secs(10);
        let answer = env
            .clock
            .timeout(rest, get(&env, "/livez"))
            .await
            .expect("they had 10 s");
        assert_eq!(answer.0, 200);
    });
}

#[test]
fn a_stop_finishes_connections_and_ends() {
    Sim::new(1).run(|env| async move {
        let server = start(&env).await;
        let idle = connect(&env).await;
        assert_eq!(get(&env, "/livez").await.0, 200);
        server.shutdown.trigger();
        let ended = env
            .clock
            .timeout(Duration::from_secs(6), server.task)
            .await
            .expect("an idle client holds nobody");
        ended.unwrap().unwrap();
        assert!(env.net.connect("127.0.0.1:9644").await.is_err());
        drop(idle);
    });
}
