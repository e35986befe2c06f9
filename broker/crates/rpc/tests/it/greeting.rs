//! Who may have a link, and what those who may not are told.

use takhin_rpc::{CallError, Class, LinkError, Refusal, Settings};
use takhin_runtime::sim::Sim;

use crate::support::{MINUTE, numbered, start};

#[test]
fn a_refused_node_is_told_why_and_may_come_later() {
    let mut sim = Sim::new(1);
    let peer = sim.add_machine("peer");
    sim.run(|env| async move {
        let here = start(&env, 1, Settings::default()).await;
        let there = start(&peer.env(), 2, Settings::default()).await;
        let foreign = Refusal::ForeignCluster {
            theirs: "test".to_owned(),
            ours: "other".to_owned(),
        };
        *there.echo.refusal.lock() = Some(foreign.clone());
        assert_eq!(
            here.rpc.hello("peer:33145").await.unwrap(),
            there.identity,
            "asking is free"
        );

        let link = here.rpc.connect(2, "peer:33145");
        env.clock.sleep(MINUTE).await;
        let e = link
            .call(Class::Control, 0, numbered(0, 4), MINUTE)
            .await
            .unwrap_err();
        let CallError::Unreachable(LinkError::Refused { reason, address }) = &e else {
            panic!("{e:?}")
        };
        assert_eq!((reason, address.as_str()), (&foreign, "peer:33145"));
        assert!(there.echo.seen.lock().is_empty());

        *there.echo.refusal.lock() = None;
        *here.echo.refusal.lock() = Some(Refusal::UnknownNode { node: 2 });
        env.clock.sleep(MINUTE).await;
        let own = link.state().error;
        assert!(
            matches!(own, Some(LinkError::NotAcceptable { .. })),
            "both sides are asked: {own:?}"
        );

        *here.echo.refusal.lock() = None;
        assert_eq!(link.connected().await, there.identity.incarnation);
        link.call(Class::Control, 0, numbered(0, 4), MINUTE)
            .await
            .unwrap();
    });
}

#[test]
fn peers_are_found_where_they_are_said_to_be() {
    let mut sim = Sim::new(1);
    let (second, third) = (sim.add_machine("second"), sim.add_machine("third"));
    sim.run(|env| async move {
        let here = start(&env, 1, Settings::default()).await;
        let two = start(&second.env(), 2, Settings::default()).await;
        let three = start(&third.env(), 3, Settings::default()).await;
        let a = here.rpc.connect(2, "third:33145");
        let b = here.rpc.connect(3, "third:33145");
        assert_eq!(b.connected().await, three.identity.incarnation);
        env.clock.sleep(MINUTE).await;
        let error = a.state().error;
        assert!(
            matches!(
                error,
                Some(LinkError::OtherNode {
                    wanted: 2,
                    found: 3,
                    ..
                })
            ),
            "{error:?}"
        );

        here.rpc.connect(2, "second:33145");
        here.rpc.disconnect(3);
        assert_eq!(a.connected().await, two.identity.incarnation);
        b.disconnected(three.identity.incarnation).await;
        assert!(here.rpc.peer(3).is_none());
        let e = b.call(Class::Bulk, 0, numbered(0, 4), MINUTE).await.unwrap_err();
        assert!(matches!(e, CallError::Unreachable(LinkError::Stopped)), "{e:?}");

        two.rpc.stop().await;
        a.disconnected(two.identity.incarnation).await;
        env.clock.sleep(MINUTE).await;
        let error = a.state().error;
        assert!(
            matches!(error, Some(LinkError::Connect { .. })),
            "nobody listens: {error:?}"
        );
    });
}
