//! What waits is bounded, and those who wait are told.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use futures_util::future::join_all;
use takhin_rpc::{CallError, Class, Settings};
use takhin_runtime::sim::Sim;

use crate::support::{LANE, MINUTE, SECOND, URGENT, number, numbered, start};

const BODY: usize = 16 * 1024;

#[test]
fn a_service_that_never_answers_stops_its_callers_and_nobody_else() {
    let mut sim = Sim::new(11);
    let peer = sim.add_machine("peer");
    sim.run(|env| async move {
        let settings = Settings {
            queued_bytes: 4 * BODY,
            unanswered_bytes: 8 * BODY,
            window_bytes: 128 * 1024,
            ..Settings::default()
        };
        let here = start(&env, 1, settings.clone()).await;
        let there = start(&peer.env(), 2, settings).await;
        let link = here.rpc.connect(2, "peer:33145");
        link.connected().await;
        there.echo.holds.store(true, Ordering::Relaxed);

        let others = async {
            env.clock.sleep(10 * SECOND).await;
            // The stream is full; the link stands, and the other streams flow.
            assert!(link.state().connected);
            assert_eq!(there.echo.seen.lock().len(), 8);
            for class in [Class::Control, Class::Bulk] {
                link.call(class, URGENT, numbered(999, 4), SECOND).await.unwrap();
            }
        };
        let calls = (0..200).map(|n| {
            let link = &link;
            async move { (n, link.call(LANE, 0, numbered(n, BODY), 30 * SECOND).await) }
        });
        let (outcomes, ()) = tokio::join!(join_all(calls), others);
        let mut busy = BTreeSet::new();
        for (n, outcome) in outcomes {
            match outcome {
                Err(CallError::Busy) => drop(busy.insert(n)),
                Err(CallError::Timeout) => {}
                other => panic!("{other:?}"),
            }
        }
        // In the window and the buffers on the way are some more than in the two bounds.
        assert!(busy.len() > 160 && busy.len() < 200 - 12, "{}", busy.len());

        there.echo.release();
        let last = link.call(LANE, 0, numbered(200, BODY), MINUTE).await.unwrap();
        assert_eq!(number(&last), 200);
        let seen = there.echo.seen.lock();
        let data: Vec<_> = seen
            .iter()
            .filter(|(kind, _)| *kind == 0)
            .map(|(_, body)| number(body))
            .collect();
        let expected: Vec<_> = (0..=200).filter(|n| !busy.contains(n)).collect();
        assert_eq!(
            data, expected,
            "what was busy was never sent, the rest came in order"
        );
    });
}
