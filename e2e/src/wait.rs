//! Waiting for a condition instead of for time.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long to leave a busy machine alone between two looks at a condition.
pub const POLL: Duration = Duration::from_millis(10);

/// Polls `condition` until it holds.
///
/// # Errors
/// When `limit` has passed, naming `what`; or the condition's own error, at once.
pub fn until(what: impl Display, limit: Duration, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    value(what, limit, || Ok(condition()?.then_some(())))
}

/// Polls `probe` until it has a value.
///
/// # Errors
/// When `limit` has passed, naming `what`; or the probe's own error, at once.
pub fn value<T>(
    what: impl Display,
    limit: Duration,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = probe()? {
            return Ok(found);
        }
        if start.elapsed() > limit {
            bail!("waited {limit:?} for {what}");
        }
        std::thread::sleep(POLL);
    }
}
