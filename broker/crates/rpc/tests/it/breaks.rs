//! Links that break, and what is known afterwards.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use takhin_rpc::{CallError, LinkError, Settings};
use takhin_runtime::sim::{CrashMode, Sim};

use crate::support::{LANE, MINUTE, SECOND, number, numbered, start};

#[test]
fn a_killed_link_fails_every_call_once_and_comes_back() {
    let mut sim = Sim::new(3);
    let peer = sim.add_machine("peer");
    let net = sim.net().clone();
    sim.run(|env| async move {
        let here = start(&env, 1, Settings::default()).await;
        let there = start(&peer.env(), 2, Settings::default()).await;
        let link = here.rpc.connect(2, "peer:33145");
        let first = link.connected().await;
        there.echo.holds.store(true, Ordering::Relaxed);
        let kill = async {
            env.clock.sleep(SECOND).await;
            assert_eq!(there.echo.seen.lock().len(), 50);
            net.kill_connections("main", "peer");
            env.clock.instant()
        };
        let calls = (0..50).map(|n| {
            let rpc = &here.rpc;
            async move {
                let e = link_call(rpc, n).await.unwrap_err();
                assert!(matches!(e, CallError::Unreachable(LinkError::Broken(_))), "{e:?}");
                rpc.peer(2).unwrap().state().connected
            }
        });
        let (killed, connected) = tokio::join!(kill, join_all(calls));
        assert!(killed.elapsed() < Duration::from_millis(1), "at once");
        assert_eq!(
            connected, [false; 50],
            "nobody finds the link standing after its call has failed"
        );
        assert!(link.state().error.is_some());

        assert_eq!(link.connected().await, first, "the same process");
        there.echo.release();
        assert_eq!(number(&link_call(&here.rpc, 50).await.unwrap()), 50);
        let seen: Vec<_> = there
            .echo
            .seen
            .lock()
            .iter()
            .map(|(_, body)| number(body))
            .collect();
        assert_eq!(
            seen,
            (0..=50).collect::<Vec<_>>(),
            "none twice, late answers to nobody"
        );

        peer.crash(CrashMode::Process);
        link.disconnected(first).await;
        let there = start(&peer.env(), 2, Settings::default()).await;
        assert_eq!(link.connected().await, there.identity.incarnation);
        assert_ne!(there.identity.incarnation, first);
        link_call(&here.rpc, 51).await.unwrap();
    });
}

async fn link_call(rpc: &takhin_rpc::Rpc, n: u32) -> Result<bytes::Bytes, CallError> {
    rpc.peer(2).unwrap().call(LANE, 0, numbered(n, 4), MINUTE).await
}

#[test]
fn silence_is_noticed_in_both_directions() {
    for (from, to) in [("main", "peer"), ("peer", "main")] {
        let mut sim = Sim::new(5);
        let peer = sim.add_machine("peer");
        let net = sim.net().clone();
        sim.run(|env| async move {
            let here = start(&env, 1, Settings::default()).await;
            let _there = start(&peer.env(), 2, Settings::default()).await;
            let link = here.rpc.connect(2, "peer:33145");
            let incarnation = link.connected().await;
            env.clock.sleep(MINUTE).await;
            let heard = link.state().last_heard.unwrap();
            assert!(
                heard.elapsed() < Duration::from_millis(110),
                "an idle link is asked for signs of life"
            );
            link.echo(SECOND).await.expect("it answers");

            net.block(from, to);
            let began = env.clock.instant();
            let soon = Duration::from_millis(50);
            let e = link.echo(soon).await.unwrap_err();
            assert!(matches!(e, CallError::Timeout), "the link stands: {e:?}");
            let e = link.call(LANE, 0, numbered(0, 4), MINUTE).await.unwrap_err();
            assert!(matches!(e, CallError::Unreachable(LinkError::Silent(_))), "{e:?}");
            assert!(
                began.elapsed() <= SECOND,
                "the limit counts from what was heard before"
            );
            assert!(link.state().last_heard.unwrap() <= began + Duration::from_millis(3));
            // A stopped process looks alike: the system takes connections, and nobody answers.
            env.clock.sleep(MINUTE).await;
            assert!(!link.state().connected);
            net.heal_all();
            assert_eq!(link.connected().await, incarnation);
            link.call(LANE, 0, numbered(1, 4), MINUTE).await.unwrap();
        });
    }
}

#[test]
fn a_listener_that_never_answers_is_given_up() {
    let mut sim = Sim::new(5);
    let peer = sim.add_machine("peer");
    sim.run(|env| async move {
        let here = start(&env, 1, Settings::default()).await;
        let mute = peer.env().net.listen("0.0.0.0:33145", "rpc.bind").await.unwrap();
        let link = here.rpc.connect(2, "peer:33145");
        let accepted = mute.accept().await.unwrap();
        env.clock.sleep(MINUTE).await;
        let e = link.call(LANE, 0, numbered(0, 4), MINUTE).await.unwrap_err();
        assert!(
            matches!(e, CallError::Unreachable(LinkError::NoAnswer { .. })),
            "{e:?}"
        );
        drop((accepted, mute));
        let there = start(&peer.env(), 2, Settings::default()).await;
        assert_eq!(link.connected().await, there.identity.incarnation);
    });
}
