//! The simulated network: order, backpressure, cuts and crashes.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use takhin_runtime::sim::{CrashMode, Machine, Sim};
use takhin_runtime::{Env, ReadHalf, Stream, WriteHalf};

async fn pair(from: &Env, to: &Machine) -> (Stream, Stream) {
    let listener = to.env().net.listen("0.0.0.0:9092", "test").await.unwrap();
    let address = format!("{}:9092", to.name());
    let (client, server) = tokio::join!(from.net.connect(&address), listener.accept());
    (client.unwrap(), server.unwrap())
}

async fn send(half: &mut WriteHalf, bytes: &'static [u8]) -> io::Result<()> {
    half.write_all(&mut VecDeque::from([Bytes::from_static(bytes)]))
        .await
}

async fn receive(half: &mut ReadHalf) -> io::Result<BytesMut> {
    let mut buf = BytesMut::new();
    half.read_buf(&mut buf).await?;
    Ok(buf)
}

#[test]
fn bytes_keep_their_order_and_a_full_buffer_waits() {
    let mut sim = Sim::new(1);
    let peer = sim.add_machine("peer");
    sim.run(|env| async move {
        let (client, server) = pair(&env, &peer).await;
        assert_eq!(client.peer_addr(), server.local_addr());
        assert_eq!(client.local_addr(), server.peer_addr());
        let (_read, mut write) = client.into_split();
        let (mut read, _write) = server.into_split();
        let bytes: Vec<u8> = (0..1_000_000_u32)
            .map(|i| i.to_le_bytes()[0] ^ i.to_le_bytes()[1])
            .collect();
        let mut queue: VecDeque<Bytes> = bytes.chunks(3001).map(Bytes::copy_from_slice).collect();
        let stuck = env
            .clock
            .timeout(Duration::from_secs(60), write.write_all(&mut queue))
            .await;
        assert!(stuck.is_err(), "nobody reads");
        let sender = env.tasks.spawn("sender", async move {
            write.write_all(&mut queue).await.unwrap(); // goes on where the first call was cut off
            write.shutdown().await.unwrap();
        });
        let mut received = BytesMut::new();
        while read.read_buf(&mut received).await.unwrap() > 0 {}
        assert!(received == bytes[..]);
        sender.await.unwrap();
    });
}

#[test]
fn a_partition_delays_and_loses_nothing() {
    let mut sim = Sim::new(1);
    let peer = sim.add_machine("peer");
    let net = sim.net().clone();
    sim.run(|env| async move {
        let (client, server) = pair(&env, &peer).await;
        let (mut client_read, mut client_write) = client.into_split();
        let (mut server_read, mut server_write) = server.into_split();
        net.block("main", "peer");
        send(&mut client_write, b"held").await.unwrap();
        let minute = Duration::from_secs(60);
        assert!(
            env.clock
                .timeout(minute, receive(&mut server_read))
                .await
                .is_err()
        );
        send(&mut server_write, b"other way").await.unwrap();
        assert_eq!(
            receive(&mut client_read).await.unwrap(),
            "other way",
            "one direction is open"
        );
        net.heal("main", "peer");
        assert_eq!(receive(&mut server_read).await.unwrap(), "held");

        net.isolate("peer");
        let started = env.clock.instant();
        let e = env.net.connect("peer:9092").await.unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::TimedOut);
        assert!(started.elapsed() > Duration::from_secs(120));
        net.heal_all();
        net.kill_connections("peer", "main");
        assert_eq!(
            receive(&mut client_read).await.unwrap_err().kind(),
            io::ErrorKind::ConnectionReset
        );
        assert!(send(&mut server_write, b"x").await.is_err());
    });
}

#[test]
fn a_killed_process_resets_and_a_dead_machine_is_silent() {
    let mut sim = Sim::new(1);
    let peer = sim.add_machine("peer");
    sim.run(|env| async move {
        let minute = Duration::from_secs(60);
        let (client, _server) = pair(&env, &peer).await;
        let (mut read, _write) = client.into_split();
        let old = peer.env();
        peer.crash(CrashMode::Process);
        assert_eq!(
            receive(&mut read).await.unwrap_err().kind(),
            io::ErrorKind::ConnectionReset
        );
        assert_eq!(
            env.net.connect("peer:9092").await.unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
        assert!(
            old.net.connect("main:1").await.is_err() && old.net.listen("0.0.0.0:1", "test").await.is_err()
        );

        let (client, server) = pair(&env, &peer).await;
        let (mut read, mut write) = client.into_split();
        peer.crash(CrashMode::Power);
        drop(server);
        assert!(
            env.clock.timeout(minute, receive(&mut read)).await.is_err(),
            "no power, no reset"
        );
        send(&mut write, b"into the void").await.unwrap();
        let _restarted = peer.env();
        assert_eq!(
            receive(&mut read).await.unwrap_err().kind(),
            io::ErrorKind::ConnectionReset
        );
    });
}

#[test]
fn loopback_stays_on_its_machine_and_ports_are_exclusive() {
    let mut sim = Sim::new(1);
    let peer = sim.add_machine("peer");
    sim.run(|env| async move {
        let _listener = env.net.listen("127.0.0.1:9644", "admin.bind").await.unwrap();
        let e = env.net.listen("0.0.0.0:9644", "admin.bind").await.unwrap_err();
        assert!(e.to_string().contains("already in use"), "{e}");
        assert!(
            env.net
                .listen("peer:1", "admin.bind")
                .await
                .unwrap_err()
                .to_string()
                .contains("not one of this")
        );
        env.net.connect("localhost:9644").await.unwrap();
        let e = peer.env().net.connect("main:9644").await.unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::ConnectionRefused);
    });
}
