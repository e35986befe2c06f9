//! The admin API: what an operator asks of a broker over HTTP, as JSON, under `/v1`.
//!
//! ```text
//! request ─▶ bounds ─▶ route ─▶ who asks (auth) ─▶ survey of the cluster ─▶ endpoint ─▶ JSON, or a problem (RFC 9457)
//! ```
//!
//! Bounds: those of the listener (`runtime`: 64 connections, a head of 16 KiB in 10 s, a body of 16 KiB in 10 s), [`AT_A_TIME`]
//! requests being answered, [`LIMIT`] for each. Lists in answers are bounded where the cluster's partitions would be
//! listed.
//!
//! Start reading at `routes.rs`; `docs/reference/admin-api.json` is made from it.

mod auth;
mod endpoints;
mod model;
mod openapi;
mod problem;
mod routes;
mod shape;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use takhin_config::node::Admin;
use takhin_runtime::Env;
use takhin_runtime::telemetry::health::Health;
use takhin_runtime::telemetry::http::{Answer, BodyError, Call, Endpoints};
use takhin_runtime::telemetry::metrics::{self, Counter, Family};
use tokio::sync::Semaphore;

use auth::Door;
pub use auth::TokenError;
pub(crate) use openapi::document;
use problem::Problem;
use routes::{Matched, Route};

use crate::context::Broker;

/// Requests answered at a time; one more is told to come again, so that whoever asks too much does not slow the broker.
const AT_A_TIME: usize = 16;

/// How long an answer may take. The longest is a change while the cluster looks for a controller.
const LIMIT: Duration = Duration::from_secs(20);

/// The endpoints under `/v1`.
pub(crate) struct AdminApi {
    env: Env,
    health: Health,
    door: Door,
    /// Set once the broker has come up.
    broker: OnceLock<Weak<Broker>>,
    permits: Semaphore,
    requests: Family<Counter, 2>,
}

/// What an endpoint can reach.
struct Context {
    broker: Arc<Broker>,
    health: Health,
}

impl AdminApi {
    /// The endpoints, before there is a broker to ask.
    ///
    /// # Errors
    /// When there is to be a token and it cannot be read.
    pub(crate) async fn new(env: &Env, config: &Admin, health: &Health) -> Result<Arc<Self>, TokenError> {
        let door = Door::new(config);
        door.check(env).await?;
        let requests = metrics::counters(
            "takhin_admin_requests_total",
            "Requests to the admin API, by the route that they took and the status of the answer",
            ["route", "status"],
        );
        Ok(Arc::new(Self {
            env: env.clone(),
            health: health.clone(),
            door,
            broker: OnceLock::new(),
            permits: Semaphore::new(AT_A_TIME),
            requests,
        }))
    }

    /// From now on requests are answered.
    pub(crate) fn serve(&self, broker: &Arc<Broker>) {
        // Set once, when the node starts.
        let _ = self.broker.set(Arc::downgrade(broker));
    }

    /// The route that was taken, if there is one, and what came of it.
    async fn take(&self, call: &Call) -> (Option<&'static Route>, Result<String, Problem>) {
        let (route, parameters) = match routes::find(&call.method, &call.path) {
            Matched::Route(route, parameters) => (route, parameters),
            Matched::OtherMethods(methods) => return (None, Err(problem::method(&call.method, &methods))),
            Matched::Nothing => return (None, Err(problem::no_such_path(&call.path))),
        };
        let Ok(_permit) = self.permits.try_acquire() else {
            return (Some(route), Err(problem::busy(AT_A_TIME)));
        };
        let answering = async {
            self.door.admit(&self.env, call).await?;
            check_body(call)?;
            let broker = self.broker.get().and_then(Weak::upgrade);
            let broker = broker.ok_or_else(problem::starting)?;
            let health = self.health.clone();
            endpoints::answer(&Context { broker, health }, route.endpoint, &parameters).await
        };
        let answered = self.env.clock.timeout(LIMIT, answering).await;
        (
            Some(route),
            answered.unwrap_or_else(|_| Err(problem::slow(LIMIT))),
        )
    }
}

/// No endpoint takes a body.
fn check_body(call: &Call) -> Result<(), Problem> {
    match &call.body {
        Ok(body) if body.is_empty() => Ok(()),
        Ok(_) => Err(problem::needless_body()),
        Err(BodyError::TooLarge) => Err(problem::large_body()),
        Err(BodyError::TooSlow) => Err(problem::slow_body()),
        Err(BodyError::Broken) => Err(problem::broken_body()),
    }
}

impl Endpoints for AdminApi {
    fn answer(&self, call: Call) -> Pin<Box<dyn Future<Output = Answer> + Send + '_>> {
        Box::pin(async move {
            let (route, outcome) = self.take(&call).await;
            let answer = match outcome {
                Ok(body) => Answer {
                    status: 200,
                    content_type: "application/json",
                    // What is asked changes by itself, and is for whoever asked alone.
                    headers: vec![("cache-control", "no-store".to_owned())],
                    body,
                },
                Err(problem) => problem.into_answer(),
            };
            // By the path as the table has it: what clients make up is one series.
            let route = route.map_or("none", |route| route.path);
            self.requests.with([route, &answer.status.to_string()]).inc();
            answer
        })
    }
}
