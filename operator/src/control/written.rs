//! When statuses were written: what is new in its numbers alone waits for the usual look.
//!
//! A status that was written is a change of the resource, which begins the next pass. Were numbers that change all the time, such
//! as positions, written by each pass, there would be as many as the API server bears.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use parking_lot::Mutex;
use takhin_runtime::clock::Instant;

/// When the status of which resource was written last; no more resources than there are.
#[derive(Debug, Default)]
pub struct Written(Mutex<HashMap<String, Instant>>);

impl Written {
    /// Whether less than `pause` has gone by since the status of this resource was written.
    pub(super) fn within(&self, key: &str, now: Instant, pause: Duration) -> bool {
        let at = self.0.lock().get(key).copied();
        at.is_some_and(|at| now.saturating_duration_since(at) < pause)
    }

    pub(super) fn note(&self, key: String, now: Instant) {
        self.0.lock().insert(key, now);
    }

    pub(super) fn forget(&self, key: &str) {
        self.0.lock().remove(key);
    }
}

/// Conditions without their words for people, which may have numbers in them.
pub(super) fn wordless(conditions: &mut [Condition]) {
    for condition in conditions {
        condition.message.clear();
    }
}
