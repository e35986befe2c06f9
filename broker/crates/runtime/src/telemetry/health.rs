//! Whether the process is alive, started and ready: named checks for the probes of an orchestrator.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;

use crate::clock::{Clock, Instant};
use crate::env::Env;
use crate::shutdown::Shutdown;

/// Time without a tick after which the process counts as stuck.
const STUCK_AFTER: Duration = Duration::from_secs(5);

/// Time between two ticks.
const TICK: Duration = Duration::from_secs(1);

/// What a check belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// Has the program come up? Checked for `/startupz` and `/readyz`; once true it should stay true.
    Startup,
    /// Can it serve now? Checked for `/readyz`.
    Ready,
}

/// Answers yes, or why not.
type Check = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The checks of this process; clones share them.
#[derive(Clone)]
pub struct Health(Arc<Inner>);

struct Inner {
    clock: Clock,
    last_tick: Mutex<Instant>,
    checks: Mutex<BTreeMap<String, (Probe, Check)>>,
}

/// The result of a probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether every check passed.
    pub ok: bool,
    /// Each check by name.
    pub checks: BTreeMap<String, CheckReport>,
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// Whether it passed.
    pub ok: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A check that the program sets when its state changes.
#[derive(Debug, Clone)]
pub struct Flag(Arc<Mutex<Result<(), String>>>);

impl Flag {
    /// The check passes from now on.
    pub fn pass(&self) {
        *self.0.lock() = Ok(());
    }

    /// The check fails from now on, with this reason.
    pub fn fail(&self, reason: impl Into<String>) {
        *self.0.lock() = Err(reason.into());
    }
}

impl Health {
    /// No checks yet, and a timer task that proves the runtime alive until `shutdown`.
    pub fn start(env: &Env, shutdown: &Shutdown) -> Self {
        let health = Self(Arc::new(Inner {
            clock: env.clock.clone(),
            last_tick: Mutex::new(env.clock.instant()),
            checks: Mutex::default(),
        }));
        let (ticking, shutdown) = (health.clone(), shutdown.clone());
        env.tasks.spawn("liveness tick", async move {
            while ticking.0.clock.timeout(TICK, shutdown.wait()).await.is_err() {
                *ticking.0.last_tick.lock() = ticking.0.clock.instant();
            }
        });
        health
    }

    /// Adds a check; a later one of the same name replaces it. It is called for each probe and must not block.
    pub fn check(
        &self,
        probe: Probe,
        name: &str,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        self.0
            .checks
            .lock()
            .insert(name.to_owned(), (probe, Box::new(check)));
    }

    /// Adds a check that fails with `reason` until [`Flag::pass`].
    pub fn flag(&self, probe: Probe, name: &str, reason: &str) -> Flag {
        let flag = Flag(Arc::new(Mutex::new(Err(reason.to_owned()))));
        let state = flag.clone();
        self.check(probe, name, move || state.0.lock().clone());
        flag
    }

    /// Whether timers still run: `/livez`.
    pub fn live(&self) -> Report {
        let age = self
            .0
            .clock
            .instant()
            .saturating_duration_since(*self.0.last_tick.lock());
        let reason = (age >= STUCK_AFTER).then(|| format!("no timer has fired for {} s", age.as_secs()));
        let check = CheckReport {
            ok: reason.is_none(),
            reason,
        };
        Report {
            ok: check.ok,
            checks: BTreeMap::from([("timer".to_owned(), check)]),
        }
    }

    /// Whether the program has come up: `/startupz`.
    pub fn started(&self) -> Report {
        self.report(|probe| probe == Probe::Startup)
    }

    /// Whether it can serve now: `/readyz`.
    pub fn ready(&self) -> Report {
        self.report(|_| true)
    }

    fn report(&self, included: impl Fn(Probe) -> bool) -> Report {
        let mut checks = BTreeMap::new();
        for (name, (probe, check)) in self.0.checks.lock().iter() {
            if included(*probe) {
                let reason = check().err();
                checks.insert(
                    name.clone(),
                    CheckReport {
                        ok: reason.is_none(),
                        reason,
                    },
                );
            }
        }
        Report {
            ok: checks.values().all(|check| check.ok),
            checks,
        }
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Health({:?})", self.ready())
    }
}
