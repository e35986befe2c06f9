//! Nothing is changed on the word of a Lease that is old.
//!
//! A process that hung for long wakes in the middle of what it did, and others lead by then. Whoever wants to change
//! something, at the API server or at brokers, asks here directly before. What was on its way already when the process
//! was stopped cannot be called back: it is as old as the last renewal at most, and whoever leads next corrects it.

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
                if *request.method() != Method::GET {
                    fence.pass().await;
                }
                let call = api_calls::name(request.method(), request.uri());
                let answer = fence.clock.timeout(ANSWER, client.send(request)).await;
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
            let renewal = Arc::new(renewal);
            let second = Duration::from_secs(1);
            renewal.until(env.clock.instant() + second);
            let tried: Arc<Mutex<u32>> = Arc::default();
            let (count, lost, clock) = (Arc::clone(&tried), Arc::clone(&renewal), env.clock.clone());
            let server = tower::service_fn(move |_: Request<Body>| {
                *count.lock() += 1;
                // The Lease goes while the server has no time.
                lost.until(clock.instant());
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
