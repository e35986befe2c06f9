//! Calls come in order and answers go to who asked.

use bytes::Bytes;
use futures_util::future::join_all;
use takhin_rpc::{CallError, Class, Settings};
use takhin_runtime::sim::Sim;

use crate::support::{DROPPED, LANE, MINUTE, SIZED, number, numbered, start};

const CALLS: u32 = 200;

#[test]
fn every_class_and_lane_keeps_its_order_under_load() {
    let mut sim = Sim::new(7);
    let peer = sim.add_machine("peer");
    sim.run(|env| async move {
        let (here, there) = (
            start(&env, 1, Settings::default()).await,
            start(&peer.env(), 2, Settings::default()).await,
        );
        let link = here.rpc.connect(2, "peer:33145");
        assert_eq!(link.connected().await, there.identity.incarnation);
        let mut classes = vec![Class::Control, Class::Bulk];
        classes.extend((0..6).map(|lane| Class::Data { lane }));
        let callers = (0_u16..).zip(classes).map(|(kind, class)| {
            let (link, rng) = (&link, &env.rng);
            async move {
                let calls = (0..CALLS).map(|n| async move {
                    let len = usize::try_from(rng.range(0..60_000)).unwrap();
                    // In two parts, as a header and a batch are.
                    let parts = vec![Bytes::from(numbered(n, 4)), Bytes::from(vec![1; len])];
                    let answer = link.call(class, kind, parts.clone(), MINUTE).await.unwrap();
                    assert!(answer == parts.concat());
                });
                join_all(calls).await;
                link.tell(class, kind, numbered(CALLS, 4), MINUTE).await.unwrap();
                kind
            }
        });
        let kinds = join_all(callers).await;
        // An answer on each stream, so that what was told before it has come.
        for (kind, class) in [
            (50, Class::Control),
            (50, Class::Bulk),
            (50, LANE),
            (50, Class::Data { lane: 0 }),
        ] {
            link.call(class, kind, numbered(0, 4), MINUTE).await.unwrap();
        }
        let seen = there.echo.seen.lock();
        for kind in kinds {
            let of_kind = seen.iter().filter(|(k, _)| *k == kind);
            let numbers: Vec<_> = of_kind.map(|(_, body)| number(body)).collect();
            assert_eq!(numbers, (0..=CALLS).collect::<Vec<_>>(), "kind {kind}");
        }
    });
}

#[test]
fn what_has_no_answer_says_why() {
    let mut sim = Sim::new(1);
    let peer = sim.add_machine("peer");
    sim.run(|env| async move {
        let settings = Settings {
            max_body: 100_000,
            ..Settings::default()
        };
        let here = start(&env, 1, settings.clone()).await;
        let _there = start(&peer.env(), 2, settings).await;
        let link = here.rpc.connect(2, "peer:33145");
        link.connected().await;
        let sized = |len| link.call(Class::Bulk, SIZED, numbered(len, 4), MINUTE);
        assert_eq!(sized(100_000).await.unwrap().len(), 100_000);
        assert!(matches!(sized(100_001).await, Err(CallError::AnswerTooLarge)));
        let full = link.call(Class::Bulk, 0, vec![1; 100_000], MINUTE).await;
        assert_eq!(full.unwrap().len(), 100_000);
        let e = link
            .call(Class::Bulk, 0, vec![1; 100_001], MINUTE)
            .await
            .unwrap_err();
        assert_eq!(
            e.to_string(),
            "a call of 100001 bytes is larger than the 100000 that may be sent"
        );
        let dropped = link.call(LANE, DROPPED, Bytes::new(), MINUTE).await;
        assert!(matches!(dropped, Err(CallError::Dropped)));
        assert!(link.state().connected, "none of this is the link's fault");
    });
}
