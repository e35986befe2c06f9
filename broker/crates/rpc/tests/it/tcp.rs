//! The same over the machine's own network.

use futures_util::future::join_all;
use takhin_rpc::{CallError, Class, LinkError, Settings};
use takhin_runtime::Env;

use crate::support::{MINUTE, numbered, start_on};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_go_over_tcp() {
    let env = Env::real();
    let here = start_on(&env, "127.0.0.1:0", 1, Settings::default()).await;
    let there = start_on(&env, "127.0.0.1:0", 2, Settings::default()).await;
    let address = there.rpc.local_addr().to_string();
    assert_eq!(here.rpc.hello(&address).await.unwrap(), there.identity);
    let link = here.rpc.connect(2, &address);
    link.connected().await;
    let calls = (0..500).map(|n| {
        let link = &link;
        async move {
            let body = numbered(n, 1000 * usize::try_from(n % 100).unwrap());
            let class = if n % 3 == 0 {
                Class::Bulk
            } else {
                Class::Data { lane: n.into() }
            };
            assert!(link.call(class, 0, body.clone(), MINUTE).await.unwrap() == body);
        }
    });
    join_all(calls).await;
    there.rpc.stop().await;
    link.disconnected(there.identity.incarnation).await;
    let e = link
        .call(Class::Control, 0, numbered(0, 4), MINUTE)
        .await
        .unwrap_err();
    assert!(
        matches!(
            e,
            CallError::Unreachable(LinkError::Broken(_) | LinkError::Connect { .. })
        ),
        "{e:?}"
    );
}
