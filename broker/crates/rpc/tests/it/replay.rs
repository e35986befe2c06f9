//! A seed replays byte for byte, although HTTP/2 and gRPC are in between.

use std::time::Duration;

use futures_util::future::join_all;
use takhin_rpc::{CallError, Class, Settings};
use takhin_runtime::sim::{CrashMode, Machine, Sim, Trace};
use takhin_runtime::{Env, Rng};

use crate::support::{Node, numbered, start};

const NAMES: [&str; 3] = ["main", "second", "third"];

/// Three nodes that call each other while links are delayed, held back, killed and one node restarts.
fn run(seed: u64) -> Trace {
    let mut sim = Sim::new(seed);
    let machines = [sim.add_machine("second"), sim.add_machine("third")];
    let (net, trace) = (sim.net().clone(), sim.trace().clone());
    trace.keep_lines();
    let told = trace.clone();
    sim.run(|env| async move {
        let mut nodes = vec![node(&env, 1).await];
        for (id, machine) in (2..).zip(&machines) {
            nodes.push(node(&machine.env(), id).await);
        }
        let rng = env.rng.fork();
        let disturb = async {
            for _ in 0..30 {
                env.clock.sleep(Duration::from_millis(rng.range(0..400))).await;
                let (a, b) = (one(&rng), one(&rng));
                match rng.range(0..5) {
                    0 if a != b => net.block(a, b),
                    1 if a != b => net.kill_connections(a, b),
                    2 => net.set_delay(a, b, Duration::ZERO..=Duration::from_millis(rng.range(1..200))),
                    _ => net.heal_all(),
                }
            }
            net.heal_all();
        };
        let ((), ()) = tokio::join!(disturb, traffic(&env, &nodes, &told));
        restart(&env, &machines[1], &nodes, &told).await;
        for node in &nodes[..2] {
            node.rpc.stop().await;
        }
    });
    trace
}

async fn node(env: &Env, id: u32) -> Node {
    let node = start(env, id, Settings::default()).await;
    for (other, name) in (1..).zip(NAMES).filter(|(other, _)| *other != id) {
        node.rpc.connect(other, &format!("{name}:33145"));
    }
    node
}

fn one(rng: &Rng) -> &'static str {
    NAMES[usize::try_from(rng.range(0..3)).unwrap()]
}

/// Everybody calls everybody on all classes, and the outcomes are part of the record.
async fn traffic(env: &Env, nodes: &[Node], trace: &Trace) {
    let callers = nodes.iter().flat_map(|node| (1..=3).map(move |to| (node, to)));
    let calls = callers
        .filter_map(|(node, to)| Some((node, node.rpc.peer(to)?)))
        .map(|(node, peer)| {
            let rng = env.rng.fork();
            async move {
                for n in 0..120 {
                    let class = match rng.range(0..4) {
                        0 => Class::Control,
                        1 => Class::Bulk,
                        _ => Class::Data {
                            lane: rng.range(0..10),
                        },
                    };
                    let body = numbered(n, usize::try_from(rng.range(0..40_000)).unwrap());
                    let timeout = Duration::from_millis(rng.range(1..300));
                    let outcome = peer.call(class, 0, body, timeout).await;
                    let name = match &outcome {
                        Ok(_) => "answered",
                        Err(CallError::Timeout) => "timeout",
                        Err(CallError::Unreachable(_)) => "unreachable",
                        Err(e) => panic!("{e:?}"),
                    };
                    trace.event(
                        "call",
                        name,
                        &[node.identity.node.into(), peer.node().into(), n.into()],
                    );
                    env.clock.sleep(Duration::from_millis(rng.range(0..60))).await;
                }
            }
        });
    join_all(calls).await;
}

/// The third node loses power and comes back as another process.
async fn restart(env: &Env, machine: &Machine, nodes: &[Node], trace: &Trace) {
    let peer = nodes[0].rpc.peer(3).unwrap();
    let before = peer.connected().await;
    machine.crash(CrashMode::Power);
    peer.disconnected(before).await;
    env.clock.sleep(Duration::from_secs(5)).await;
    let again = node(&machine.env(), 3).await;
    assert_eq!(peer.connected().await, again.identity.incarnation);
    let back = again.rpc.peer(2).unwrap();
    back.connected().await;
    back.call(Class::Bulk, 0, numbered(0, 300_000), Duration::from_secs(60))
        .await
        .unwrap();
    trace.event("restarted", "third", &[]);
}

#[test]
fn a_seed_replays() {
    for seed in 0..5 {
        let (first, second) = (run(seed), run(seed));
        let (a, b) = (first.lines(), second.lines());
        let parted = a.iter().zip(&b).position(|(a, b)| a != b);
        if let Some(at) = parted {
            panic!(
                "seed {seed} parts at event {at} of {}: {} / {}",
                a.len(),
                a[at],
                b[at]
            );
        }
        assert_eq!(
            (first.hash(), first.events()),
            (second.hash(), second.events()),
            "seed {seed}"
        );
        let outcomes = |name: &str| a.iter().filter(|line| line.starts_with(name)).count();
        for outcome in ["call answered", "call timeout", "call unreachable", "restarted"] {
            assert!(outcomes(outcome) > 0, "seed {seed} has no {outcome}");
        }
    }
    assert_ne!(run(1).hash(), run(2).hash());
}
