//! Nothing is changed on the word of a Lease that is old.
//!
//! A process that hung for long wakes in the middle of what it did, and others lead by then. Whoever wants to change
//! something, at the API server or at brokers, does it within the fence: that is asked before it begins and each time it
//! goes on, such as when a connection has come about, and drops it when the Lease has run out.
//!
//! What stays open: a request that was handed to its connection cannot be called back. The machine sends it for as long as
//! the connection lives, also after the process has ended, and a server that hangs reads it when it wakes. So what must
//! not happen late names what it means by an id that nothing else ever has: pods are deleted by UID, resources are
//! replaced in the version that was read, topics are deleted by topic id. A creation has no such id: one that comes late
//! may make again what was deleted meanwhile.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use http::{Method, Request};
use kube::client::Body;
use kube::client::retry::RetryPolicy;
use kube::{Client, Config};
use takhin_runtime::clock::Instant;
use takhin_runtime::{Clock, watch};
use tower::ServiceBuilder;
use tower::retry::RetryLayer;

use crate::api_calls;

/// How long the API server may take to begin its answer. Without a bound a connection that is dead on its other side would hold
/// up a pass, and with it the resource, until the operator is restarted.
const ANSWER: Duration = Duration::from_secs(60);

/// Whether changes are allowed; clones share it.
#[derive(Debug, Clone)]
pub struct Fence {
    clock: Clock,
    good_until: watch::Receiver<Option<Instant>>,
}

/// The Lease ran out while something was being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the Lease of this operator has run out: whoever leads now decides anew")]
pub struct Lapsed;

/// Moves the end of what is allowed.
#[derive(Debug)]
pub struct Renewal(watch::Sender<Option<Instant>>);

impl Renewal {
    /// Changes are allowed before `end`.
    pub fn until(&self, end: Instant) {
        self.0.send_replace(Some(end));
    }
}

impl Fence {
    /// One that allows nothing yet.
    pub fn new(clock: Clock) -> (Renewal, Self) {
        let now = clock.instant();
        let (sender, good_until) = watch::channel(Some(now));
        (Renewal(sender), Self { clock, good_until })
    }

    /// One that allows everything: there is no other operator.
    pub fn open(clock: Clock) -> Self {
        let (_, good_until) = watch::channel(None);
        Self { clock, good_until }
    }

    /// Returns at once while the Lease is good. Otherwise when it is renewed, or never: the process ends then, and what
    /// it wanted to change is the next leader's to decide. Cancel safe.
    pub async fn pass(&self) {
        let mut good_until = self.good_until.clone();
        let is_good = |end: &Option<Instant>| end.is_none_or(|end| self.clock.instant() < end);
        if good_until.wait_for(is_good).await.is_err() {
            std::future::pending().await
        }
    }

    /// Does `work` while the Lease is good. It begins when [`Fence::pass`] lets it, and does not go on on an old word.
    ///
    /// # Errors
    /// [`Lapsed`] when the Lease has run out before the end; `work` is dropped then.
    ///
    /// # Cancel safety
    /// As that of `work`.
    pub async fn within<F: Future>(&self, work: F) -> Result<F::Output, Lapsed> {
        self.pass().await;
        let mut good_until = self.good_until.clone();
        let mut work = pin!(work);
        let mut guarded = pin!(poll_fn(|context| match self.is_good() {
            // The time is looked at, and not the timer: in a process that was stopped both are due at once.
            true => work.as_mut().poll(context).map(Ok),
            false => Poll::Ready(Err(Lapsed)),
        }));
        loop {
            let end = *good_until.borrow_and_update();
            let old = async {
                match end {
                    Some(end) => self.clock.sleep_until(end).await,
                    None => std::future::pending().await,
                }
            };
            let moved = async {
                if good_until.changed().await.is_err() {
                    std::future::pending().await
                }
            };
            tokio::select! {
                biased;
                done = &mut guarded => return done,
                () = old => {}
                () = moved => {}
            }
        }
    }

    fn is_good(&self) -> bool {
        let end = *self.good_until.borrow();
        end.is_none_or(|end| self.clock.instant() < end)
    }

    /// A client that asks here before whatever is no question, and does not wait for ever. What the API server has no time for is
    /// tried three times more, and asks again each time.
    ///
    /// # Errors
    /// What there is to reach the API server with makes no client.
    pub fn client(&self, mut config: Config) -> Result<Client, kube::Error> {
        let namespace = config.default_namespace.clone();
        // Its own attempts would pass by the fence, for minutes.
        config.default_retry = false;
        let client = api_calls::counted(Client::try_from(config)?, namespace.clone());
        Ok(self.guarded(client, namespace))
    }

    fn guarded(&self, client: Client, namespace: String) -> Client {
        let fence = self.clone();
        let ask = move |request: Request<Body>| {
            let (client, fence) = (client.clone(), fence.clone());
            async move {
                let is_question = *request.method() == Method::GET;
                let call = api_calls::name(request.method(), request.uri());
                let sent = fence.clock.timeout(ANSWER, client.send(request));
                let answer = match is_question {
                    true => sent.await,
                    false => fence.within(sent).await?,
                };
                answer.map_or_else(
                    |_| Err(format!("the API server has not answered {call} for {ANSWER:?}").into()),
                    |answer| answer.map_err(tower::BoxError::from),
                )
            }
        };
        let again = RetryLayer::new(RetryPolicy::default());
        let service = ServiceBuilder::new().layer(again).service(tower::service_fn(ask));
        Client::new(service, namespace)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::time::Duration;

    use http::Response;
    use parking_lot::Mutex;
    use takhin_runtime::sim::Sim;

    use super::*;

    #[test]
    fn nothing_passes_before_the_first_renewal_and_after_the_last() {
        Sim::new(1).run(|env| async move {
            let second = Duration::from_secs(1);
            let (renewal, fence) = Fence::new(env.clock.clone());
            let passes = async || env.clock.timeout(second, fence.pass()).await.is_ok();
            assert!(!passes().await);
            renewal.until(env.clock.instant() + 2 * second);
            assert!(passes().await);
            env.clock.sleep(2 * second).await;
            assert!(!passes().await);
            let later = async {
                env.clock.sleep(second / 2).await;
                renewal.until(env.clock.instant() + second);
            };
            assert!(tokio::join!(passes(), later).0, "a renewal wakes who waits");
            drop(renewal);
            assert!(passes().await, "what was renewed stays so");
            env.clock.sleep(second).await;
            assert!(!passes().await);
            Fence::open(env.clock.clone()).pass().await;
        });
    }

    /// What a sender does: it has a connection made, and sends when there is one.
    struct Connecting {
        is_made: watch::Receiver<bool>,
        sent: Arc<Mutex<u32>>,
    }

    impl Connecting {
        fn new() -> (watch::Sender<bool>, Self) {
            let (made, is_made) = watch::channel(false);
            let sent = Arc::default();
            (made, Self { is_made, sent })
        }

        async fn send(&self) {
            self.is_made.clone().wait_for(|made| *made).await.unwrap();
            *self.sent.lock() += 1;
        }
    }

    #[test]
    fn what_begins_while_the_lease_is_good_does_not_go_on_when_it_is_not() {
        Sim::new(1).run(|env| async move {
            let second = Duration::from_secs(1);
            let (renewal, fence) = Fence::new(env.clock.clone());
            renewal.until(env.clock.instant() + second);
            // It is dropped at once when the time is over, although nothing else happens.
            let (made, connecting) = Connecting::new();
            let begun = env.clock.instant();
            assert_eq!(fence.within(connecting.send()).await, Err(Lapsed));
            assert_eq!(begun.elapsed().as_millis() / 100, 10);
            // It waits for a renewal, which carries it on.
            let later = async {
                env.clock.sleep(second).await;
                renewal.until(env.clock.instant() + 2 * second);
                env.clock.sleep(second).await;
                renewal.until(env.clock.instant() + 2 * second);
                env.clock.sleep(3 * second / 2).await;
                made.send_replace(true);
            };
            assert_eq!(tokio::join!(fence.within(connecting.send()), later).0, Ok(()));
            // Another leads: nobody waits for the end of what was renewed.
            let (_made, connecting) = Connecting::new();
            let lost = async {
                env.clock.sleep(second / 10).await;
                renewal.until(env.clock.instant());
            };
            let begun = env.clock.instant();
            let done = tokio::join!(fence.within(connecting.send()), lost).0;
            assert_eq!((done, begun.elapsed() < second / 5), (Err(Lapsed), true));
        });
    }

    /// A process that was stopped: when it goes on, the answer that it waited for is there, and its timers have not run yet.
    #[tokio::test(start_paused = true)]
    async fn who_wakes_late_looks_at_the_time_before_anything_is_sent() {
        let clock = takhin_runtime::Env::real().clock;
        let (renewal, fence) = Fence::new(clock.clone());
        renewal.until(clock.instant() + Duration::from_secs(10));
        let (made, connecting) = Connecting::new();
        let mut change = pin!(fence.within(connecting.send()));
        assert!(futures_util::poll!(&mut change).is_pending());
        made.send_replace(true);
        tokio::time::advance(Duration::from_secs(20)).await;
        assert_eq!(change.await, Err(Lapsed));
        assert_eq!(*connecting.sent.lock(), 0);
    }

    #[test]
    fn questions_are_sent_and_changes_wait() {
        Sim::new(1).run(|env| async move {
            let asked: Arc<Mutex<Vec<Method>>> = Arc::default();
            let note = Arc::clone(&asked);
            let server = tower::service_fn(move |request: Request<Body>| {
                note.lock().push(request.method().clone());
                std::future::ready(Ok::<_, Infallible>(Response::new(Body::from(b"{}".to_vec()))))
            });
            let (renewal, fence) = Fence::new(env.clock.clone());
            let client = fence.guarded(Client::new(server, "default"), "default".to_owned());
            let send = async |method: Method| {
                let answer = client.request_text(request(method));
                env.clock.timeout(Duration::from_secs(1), answer).await.is_ok()
            };
            assert!(send(Method::GET).await);
            assert!(!send(Method::PATCH).await);
            renewal.until(env.clock.instant() + Duration::from_secs(1));
            assert!(send(Method::DELETE).await);
            assert_eq!(*asked.lock(), [Method::GET, Method::DELETE]);
        });
    }

    /// A request, as it came in.
    fn request(method: Method) -> Request<Vec<u8>> {
        Request::builder()
            .method(method)
            .uri("/it")
            .body(Vec::new())
            .unwrap()
    }

    #[test]
    fn what_is_tried_again_asks_again() {
        Sim::new(1).run(|env| async move {
            let (renewal, fence) = Fence::new(env.clock.clone());
            let second = Duration::from_secs(1);
            // The Lease goes in the pause after the first attempt.
            renewal.until(env.clock.instant() + second / 100);
            let tried: Arc<Mutex<u32>> = Arc::default();
            let count = Arc::clone(&tried);
            let server = tower::service_fn(move |_: Request<Body>| {
                *count.lock() += 1;
                let busy = *count.lock() == 1;
                let answer = Response::builder().status(if busy { 503 } else { 200 });
                std::future::ready(Ok::<_, Infallible>(
                    answer.body(Body::from(b"{}".to_vec())).unwrap(),
                ))
            });
            let client = fence.guarded(Client::new(server, "default"), "default".to_owned());
            let mut sent = std::pin::pin!(client.request_text(request(Method::PATCH)));
            assert!(env.clock.timeout(60 * second, &mut sent).await.is_err());
            assert_eq!(*tried.lock(), 1, "it was sent again on an old word");
            renewal.until(env.clock.instant() + second);
            assert!(sent.await.is_ok());
            assert_eq!(*tried.lock(), 2);
        });
    }

    #[test]
    fn a_change_is_dropped_with_the_lease_and_a_question_is_not() {
        Sim::new(1).run(|env| async move {
            let server = tower::service_fn(|_: Request<Body>| {
                std::future::pending::<Result<Response<Body>, Infallible>>()
            });
            let (renewal, fence) = Fence::new(env.clock.clone());
            let second = Duration::from_secs(1);
            let client = fence.guarded(Client::new(server, "default"), "default".to_owned());
            for (method, after) in [(Method::GET, ANSWER), (Method::DELETE, second)] {
                renewal.until(env.clock.instant() + second);
                let begun = env.clock.instant();
                let said = client.request_text(request(method)).await.unwrap_err();
                assert_eq!(begun.elapsed().as_secs(), after.as_secs(), "{said}");
                assert_eq!(
                    said.to_string().contains("has run out"),
                    after == second,
                    "{said}"
                );
            }
        });
    }

    #[test]
    fn a_server_that_never_answers_is_told_of() {
        Sim::new(1).run(|env| async move {
            let server = tower::service_fn(|_: Request<Body>| {
                std::future::pending::<Result<Response<Body>, Infallible>>()
            });
            let fence = Fence::open(env.clock.clone());
            let client = fence.guarded(Client::new(server, "default"), "default".to_owned());
            let said = client.request_text(request(Method::GET)).await.unwrap_err();
            assert!(said.to_string().contains("has not answered list /it"), "{said}");
        });
    }
}
