//! The simulation about itself: one seed, one history.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use takhin_runtime::sim::{CrashMode, Fault, FaultRule, Op, Sim, Trace, When};
use takhin_runtime::{Env, Listener, OpenMode, WriteHalf};

/// Stores what arrives and answers each piece with its length.
async fn store_and_answer(env: Env, listener: Listener) {
    let (mut read, mut write) = listener.accept().await.unwrap().into_split();
    let mut buf = BytesMut::new();
    let mut pos = 0;
    while read.read_buf(&mut buf).await.unwrap() > 0 {
        let piece = buf.split().freeze();
        let (disk, bytes) = (env.disk.clone(), piece.clone());
        let stored = env
            .tasks
            .blocking(move || {
                let file = disk.open(Path::new("log"), OpenMode::CreateOrWrite)?;
                file.write_at(&mut [IoSlice::new(&bytes)], pos)?;
                file.sync_data()
            })
            .await;
        // Only lines of Takhin's crates are recorded.
        tracing::info!(target: "takhin_test", now_ms = env.clock.now_ms(), len = piece.len(), ?stored, "stored");
        pos += piece.len() as u64;
        if reply(&mut write, piece.len()).await.is_err() {
            return; // the client has heard enough
        }
    }
}

async fn reply(write: &mut WriteHalf, len: usize) -> io::Result<()> {
    write
        .write_all(&mut VecDeque::from([Bytes::from(len.to_string())]))
        .await
}

/// Two machines, three clients, a slow and failing disk, a process crash and a power cut.
fn history(seed: u64) -> Trace {
    let mut sim = Sim::new(seed);
    let server = sim.add_machine("server");
    let trace = sim.trace().clone();
    trace.keep_lines();
    sim.record_logs();
    server
        .disk()
        .set_latency(Op::SyncData, Duration::from_millis(1)..=Duration::from_millis(40));
    server.disk().arm(FaultRule {
        op: Op::SyncData,
        path: "log".to_owned(),
        when: When::Probability(0.2),
        fault: Fault::Eio,
    });
    for mode in [CrashMode::Process, CrashMode::Power] {
        let server = server.clone();
        sim.run(|env| async move {
            let mut clients = Vec::new();
            for port in [1, 2, 3] {
                let host = server.env();
                let listener = host.net.listen(&format!("0.0.0.0:{port}"), "test").await.unwrap();
                let served = store_and_answer(host.clone(), listener);
                host.tasks.spawn("server", served);
                clients.push(env.tasks.spawn("client", client(env.clone(), port)));
            }
            for client in clients {
                client.await.unwrap();
            }
        });
        sim.crash(mode);
    }
    trace
}

async fn client(env: Env, port: u16) {
    let (mut read, mut write) = env
        .net
        .connect(&format!("server:{port}"))
        .await
        .unwrap()
        .into_split();
    for _ in 0..10 {
        let mut bytes = vec![0; usize::try_from(env.rng.range(1..5000)).unwrap()];
        env.rng.fill(&mut bytes);
        write
            .write_all(&mut VecDeque::from([Bytes::from(bytes)]))
            .await
            .unwrap();
        env.clock.sleep(Duration::from_millis(env.rng.range(0..20))).await;
        assert!(read.read_buf(&mut BytesMut::new()).await.unwrap() > 0);
    }
}

#[test]
fn one_seed_has_one_history() {
    let (first, second) = (history(7), history(7));
    assert_eq!(first.lines(), second.lines());
    assert_eq!((first.hash(), first.events()), (second.hash(), second.events()));
    assert!(
        first
            .lines()
            .iter()
            .any(|line| line.contains("message=stored") && line.contains("Err")),
        "faults fired"
    );
    assert_ne!(first.hash(), history(8).hash(), "another seed, another history");
}

#[test]
fn virtual_time_goes_on_after_a_crash() {
    let mut sim = Sim::new(1);
    let before = sim.run(|env| async move {
        env.clock.sleep(Duration::from_secs(3600)).await;
        env.clock.now_ms()
    });
    sim.crash(CrashMode::Power);
    sim.machine().jump_clock(500);
    assert_eq!(sim.run(|env| async move { env.clock.now_ms() }), before + 500);
}

#[test]
fn a_slow_disk_takes_virtual_time() {
    let mut sim = Sim::new(1);
    sim.disk()
        .set_latency(Op::SyncData, Duration::from_secs(2)..=Duration::from_secs(2));
    sim.run(|env| async move {
        let started = env.clock.instant();
        let file = env.disk.open(Path::new("a"), OpenMode::CreateNew).unwrap();
        env.tasks.blocking(move || file.sync_data()).await.unwrap();
        assert!(started.elapsed() >= Duration::from_secs(2));
        assert!(started.elapsed() <= Duration::from_secs(5));
    });
}

#[test]
fn a_crash_ends_the_tasks_of_its_machine_only() {
    let mut sim = Sim::new(1);
    let peer = sim.add_machine("peer");
    sim.run(|env| async move {
        let theirs = peer.env().tasks.spawn("theirs", std::future::pending::<()>());
        let ours = env.tasks.spawn("ours", std::future::pending::<()>());
        let old = peer.env();
        peer.crash(CrashMode::Process);
        assert!(theirs.await.is_err());
        assert!(!ours.is_finished());
        assert!(
            old.tasks
                .spawn("late", std::future::pending::<()>())
                .await
                .is_err(),
            "a dead machine starts nothing"
        );
    });
}

#[test]
#[should_panic(expected = "tasks panicked: [\"falls over\"]")]
fn a_panic_in_a_task_fails_the_run() {
    Sim::new(1).run(|env| async move {
        let ended: Result<(), _> = env
            .tasks
            .spawn("falls over", async { panic!("on purpose") })
            .await;
        ended.unwrap_err();
    });
}
