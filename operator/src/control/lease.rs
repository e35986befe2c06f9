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
            match self.attempt(&mut seen).await {
                Ok(Outcome::Held) => {
                    self.renewal.until(began + GIVE_UP);
                    info!(lease = self.name, identity = self.identity, "leading");
                    return true;
                }
                Ok(Outcome::Other) => {}
                Err(error) => warn!(%error, lease = self.name, "lease not reached"),
            }
            if self.pause(shutdown).await {
                return false;
            }
        }
    }

    /// Renews until `shutdown`. Returns `false` if the Lease was lost.
    pub async fn keep(&self, shutdown: &Shutdown) -> bool {
        let mut renewed = self.env.clock.instant();
        loop {
            if self.pause(shutdown).await {
                return true;
            }
            // A renewal that hangs must not outlast the time that there is.
            let left = GIVE_UP.saturating_sub(self.env.clock.instant().saturating_duration_since(renewed));
            // Others count from when they see the renewal, which is later than this.
            let began = self.env.clock.instant();
            match self.env.clock.timeout(left, self.attempt(&mut None)).await {
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
