//! Leader election by a Lease: one of several operators works, the others wait.
//!
//! Another's clock is never believed: a Lease has expired when this process has seen no renewal of it for the Lease's
//! whole duration. Who has not renewed for `GIVE_UP` changes nothing more (`Renewal`) and stops, which is well before
//! anybody else may begin.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use takhin_runtime::clock::Instant;
use takhin_runtime::{Env, Shutdown};
use tracing::{debug, info, warn};

use crate::fence::Renewal;

/// How long a Lease is good after a renewal.
const DURATION: Duration = Duration::from_secs(15);

/// Pause between two attempts to get or renew it.
const RETRY: Duration = Duration::from_secs(2);

/// Time of one attempt: one that hangs, as on a connection whose other side is gone, leaves time for another one.
const ATTEMPT: Duration = Duration::from_secs(4);

/// Time without a successful renewal after which the leader stops.
const GIVE_UP: Duration = Duration::from_secs(10);

/// A candidate for leadership.
#[derive(Debug)]
pub struct Candidate {
    api: Api<Lease>,
    env: Env,
    name: String,
    identity: String,
    renewal: Renewal,
}

/// What was seen of somebody else's Lease.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    holder: String,
    renewed: Option<MicroTime>,
    at: Instant,
}

/// What came of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Held,
    Other,
}

impl Candidate {
    /// A candidate named `identity` for the Lease `name`, who allows changes as long as the Lease is held.
    pub fn new(
        client: Client,
        env: Env,
        namespace: &str,
        name: &str,
        identity: &str,
        renewal: Renewal,
    ) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            env,
            name: name.to_owned(),
            identity: identity.to_owned(),
            renewal,
        }
    }

    /// Returns once this process leads, or `false` on `shutdown`.
    pub async fn acquire(&self, shutdown: &Shutdown) -> bool {
        let mut seen = None;
        loop {
            let began = self.env.clock.instant();
            let attempt = self.env.clock.timeout(ATTEMPT, self.attempt(&mut seen));
            let attempted = tokio::select! {
                biased;
                () = shutdown.wait() => return false,
                attempted = attempt => attempted,
            };
            match attempted {
                Ok(Ok(Outcome::Held)) => {
                    self.renewal.until(began + GIVE_UP);
                    info!(lease = self.name, identity = self.identity, "leading");
                    return true;
                }
                Ok(Ok(Outcome::Other)) => {}
                Ok(Err(error)) => warn!(%error, lease = self.name, "lease not reached"),
                Err(_) => warn!(lease = self.name, "lease not reached in time"),
            }
            if self.pause(shutdown).await {
                return false;
            }
        }
    }

    /// Renews until `shutdown`. Returns `false` if the Lease was lost; nothing is allowed any more then.
    pub async fn keep(&self, shutdown: &Shutdown) -> bool {
        let keeps = self.renew(shutdown).await;
        if !keeps {
            self.renewal.until(self.env.clock.instant());
        }
        keeps
    }

    async fn renew(&self, shutdown: &Shutdown) -> bool {
        let mut renewed = self.env.clock.instant();
        loop {
            if self.pause(shutdown).await {
                return true;
            }
            // A renewal that hangs must not outlast the time that there is.
            let left = GIVE_UP.saturating_sub(self.env.clock.instant().saturating_duration_since(renewed));
            if left.is_zero() {
                return false;
            }
            // Others count from when they see the renewal, which is later than this.
            let began = self.env.clock.instant();
            match self
                .env
                .clock
                .timeout(left.min(ATTEMPT), self.attempt(&mut None))
                .await
            {
                Ok(Ok(Outcome::Held)) => {
                    renewed = began;
                    self.renewal.until(renewed + GIVE_UP);
                }
                Ok(Ok(Outcome::Other)) => {
                    warn!(lease = self.name, "another operator leads");
                    return false;
                }
                Ok(Err(error)) => warn!(%error, lease = self.name, "lease not renewed"),
                Err(_) => warn!(lease = self.name, "lease not renewed in time"),
            }
            if self.env.clock.instant().saturating_duration_since(renewed) >= GIVE_UP {
                return false;
            }
        }
    }

    async fn pause(&self, shutdown: &Shutdown) -> bool {
        self.env.clock.timeout(RETRY, shutdown.wait()).await.is_ok()
    }

    /// Takes, keeps or leaves the Lease.
    async fn attempt(&self, seen: &mut Option<Seen>) -> Result<Outcome, kube::Error> {
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.spec(None)),
            };
            return conflict(self.api.create(&PostParams::default(), &lease).await.map(drop));
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        if !holder.is_empty() && holder != self.identity && !self.has_expired(&spec, &holder, seen) {
            return Ok(Outcome::Other);
        }
        lease.spec = Some(self.spec(Some(&spec)));
        // With the resourceVersion that was read: of two that try, one fails.
        conflict(
            self.api
                .replace(&self.name, &PostParams::default(), &lease)
                .await
                .map(drop),
        )
    }

    fn has_expired(&self, spec: &LeaseSpec, holder: &str, seen: &mut Option<Seen>) -> bool {
        let now = self.env.clock.instant();
        let unchanged = seen
            .as_ref()
            .filter(|seen| seen.holder == holder && seen.renewed == spec.renew_time);
        match unchanged {
            Some(seen) => {
                let seconds = spec
                    .lease_duration_seconds
                    .and_then(|seconds| u64::try_from(seconds).ok());
                let duration = seconds.map_or(DURATION, Duration::from_secs);
                now.saturating_duration_since(seen.at) >= duration
            }
            None => {
                debug!(holder, "another operator leads");
                *seen = Some(Seen {
                    holder: holder.to_owned(),
                    renewed: spec.renew_time.clone(),
                    at: now,
                });
                false
            }
        }
    }

    fn spec(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(
            k8s_openapi::jiff::Timestamp::from_millisecond(self.env.clock.now_ms())
                .unwrap_or(k8s_openapi::jiff::Timestamp::UNIX_EPOCH),
        );
        let mine = before.is_some_and(|spec| spec.holder_identity.as_deref() == Some(&self.identity));
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: match mine {
                true => before.and_then(|spec| spec.acquire_time.clone()),
                false => Some(now.clone()),
            },
            renew_time: Some(now),
            lease_transitions: Some(if mine {
                transitions
            } else {
                transitions.saturating_add(1)
            }),
            ..LeaseSpec::default()
        }
    }

    /// Gives the Lease back, so that the next one begins at once.
    pub async fn release(&self) {
        let released = async {
            let Some(mut lease) = self.api.get_opt(&self.name).await? else {
                return Ok(());
            };
            match &mut lease.spec {
                Some(spec) if spec.holder_identity.as_deref() == Some(&self.identity) => {
                    spec.holder_identity = None;
                }
                _ => return Ok(()),
            }
            self.api
                .replace(&self.name, &PostParams::default(), &lease)
                .await
                .map(drop)
        };
        match self.env.clock.timeout(RETRY, released).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, "lease not given back"),
            Err(_) => debug!("lease not given back in time"),
        }
    }
}

fn conflict(written: Result<(), kube::Error>) -> Result<Outcome, kube::Error> {
    match written {
        Ok(()) => Ok(Outcome::Held),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(Outcome::Other),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;

    use http::{Method, Request, Response};
    use kube::client::Body;
    use parking_lot::Mutex;
    use serde_json::json;
    use takhin_runtime::sim::Sim;

    use super::*;
    use crate::fence::Fence;

    /// A server that leaves the first requests without an answer, and then has one Lease, which nobody holds.
    fn candidate(env: &Env, silent: u32) -> (Candidate, Fence, Arc<Mutex<u32>>) {
        let asked: Arc<Mutex<u32>> = Arc::default();
        let count = Arc::clone(&asked);
        let server = tower::service_fn(move |request: Request<Body>| {
            *count.lock() += 1;
            let is_silent = *count.lock() <= silent;
            let lease = json!({
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": { "name": "it", "resourceVersion": "1" },
                "spec": {},
            });
            assert!(matches!(*request.method(), Method::GET | Method::PUT));
            async move {
                if is_silent {
                    std::future::pending::<()>().await;
                }
                Ok::<_, Infallible>(Response::new(Body::from(lease.to_string().into_bytes())))
            }
        });
        let (renewal, fence) = Fence::new(env.clock.clone());
        let client = Client::new(server, "default");
        let candidate = Candidate::new(client, env.clone(), "default", "it", "one", renewal);
        (candidate, fence, asked)
    }

    #[test]
    fn a_question_without_an_answer_is_asked_again() {
        Sim::new(1).run(|env| async move {
            let (candidate, fence, asked) = candidate(&env, 2);
            let passes = async || env.clock.timeout(RETRY, fence.pass()).await.is_ok();
            assert!(!passes().await);
            let begun = env.clock.instant();
            assert!(candidate.acquire(&Shutdown::new()).await);
            let took = env.clock.instant().saturating_duration_since(begun);
            assert!(took >= 2 * ATTEMPT && took < DURATION, "{took:?}");
            assert_eq!(*asked.lock(), 4, "two without an answer, then read and written");
            assert!(passes().await);
        });
    }

    /// Its connection is dead, and the API server is well.
    #[test]
    fn a_renewal_that_hangs_leaves_time_for_another_one() {
        Sim::new(1).run(|env| async move {
            let (candidate, fence, asked) = candidate(&env, 1);
            let stop = Shutdown::new();
            let later = async {
                env.clock.sleep(2 * DURATION).await;
                stop.trigger();
            };
            assert!(tokio::join!(candidate.keep(&stop), later).0, "it has given up");
            assert!(*asked.lock() > 3);
            assert!(env.clock.timeout(RETRY, fence.pass()).await.is_ok());
        });
    }

    #[test]
    fn who_waits_for_an_answer_can_be_stopped() {
        Sim::new(1).run(|env| async move {
            let (candidate, _, asked) = candidate(&env, u32::MAX);
            let stop = Shutdown::new();
            let begun = env.clock.instant();
            let later = async {
                env.clock.sleep(Duration::from_secs(1)).await;
                stop.trigger();
            };
            assert!(!tokio::join!(candidate.acquire(&stop), later).0);
            assert!(env.clock.instant().saturating_duration_since(begun) < RETRY);
            assert_eq!(*asked.lock(), 1);
        });
    }

    /// Somebody else has the Lease although it was renewed a moment ago: nobody goes on until its time is over.
    #[test]
    fn who_sees_another_one_lead_changes_nothing_more() {
        Sim::new(1).run(|env| async move {
            let (candidate, fence, _) = candidate(&env, 0);
            assert!(candidate.acquire(&Shutdown::new()).await);
            let server = tower::service_fn(|_: Request<Body>| {
                let lease = json!({
                    "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": "it" },
                    "spec": { "holderIdentity": "two", "leaseDurationSeconds": 15 },
                });
                let answer = Response::new(Body::from(lease.to_string().into_bytes()));
                std::future::ready(Ok::<_, Infallible>(answer))
            });
            let candidate = Candidate {
                api: Api::namespaced(Client::new(server, "default"), "default"),
                ..candidate
            };
            assert!(!candidate.keep(&Shutdown::new()).await);
            assert!(env.clock.timeout(RETRY, fence.pass()).await.is_err());
        });
    }

    #[test]
    fn a_leader_that_hears_nothing_gives_up_before_others_may_begin() {
        Sim::new(1).run(|env| async move {
            let (candidate, fence, asked) = candidate(&env, 0);
            assert!(candidate.acquire(&Shutdown::new()).await);
            let until = env.clock.instant() + GIVE_UP;
            *asked.lock() = 0;
            let (silent, ..) = self::candidate(&env, u32::MAX);
            let silent = Candidate {
                renewal: candidate.renewal,
                ..silent
            };
            assert!(!silent.keep(&Shutdown::new()).await);
            let now = env.clock.instant();
            assert!(now >= until && now < until + (DURATION - GIVE_UP), "{now:?}");
            assert!(env.clock.timeout(RETRY, fence.pass()).await.is_err());
        });
    }
}
