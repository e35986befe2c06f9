//! Pauses between repetitions, and when to stop repeating.

use std::time::Duration;

use takhin_runtime::Env;
use takhin_runtime::clock::Instant;

use crate::config::ClientConfig;

/// Growing pauses, until a deadline if there is one.
#[derive(Debug)]
pub(crate) struct Backoff {
    env: Env,
    first: Duration,
    next: Duration,
    max: Duration,
    deadline: Option<Instant>,
}

impl Backoff {
    /// Repetitions without end, or for `retry_for` from now.
    pub(crate) fn new(env: &Env, config: &ClientConfig, retry_for: Option<Duration>) -> Self {
        Self {
            env: env.clone(),
            first: config.backoff,
            next: config.backoff,
            max: config.max_backoff,
            deadline: retry_for.map(|retry_for| env.clock.instant() + retry_for),
        }
    }

    /// Waits, and returns whether another attempt is due; false without waiting if it would begin too late.
    pub(crate) async fn pause(&mut self) -> bool {
        let pause = self.next.mul_f64(0.8 + 0.4 * self.env.rng.unit());
        self.next = (self.next * 2).min(self.max);
        let end = self.env.clock.instant() + pause;
        if self.deadline.is_some_and(|deadline| end >= deadline) {
            return false;
        }
        self.env.clock.sleep_until(end).await;
        true
    }

    /// The next pause is the shortest again.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}
