//! Waiting for a condition instead of for time.

use std::fmt::Display;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long to leave a busy machine alone between two looks at a condition.
pub const POLL: Duration = Duration::from_millis(10);

/// Makes all limits longer, for machines that are slower than those they were chosen on.
const SCALE: &str = "E2E_TIMEOUT_SCALE";

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
    let limit = scaled(limit)?;
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

/// A limit on this machine: `E2E_TIMEOUT_SCALE` times as long. [`until`] and [`value`] do this by themselves.
///
/// # Errors
/// The variable is not a number from 1 to 100.
pub fn scaled(limit: Duration) -> Result<Duration> {
    static FACTOR: OnceLock<f64> = OnceLock::new();
    if let Some(factor) = FACTOR.get() {
        return Ok(limit.mul_f64(*factor));
    }
    let factor = factor(std::env::var(SCALE).ok().as_deref())?;
    Ok(limit.mul_f64(*FACTOR.get_or_init(|| factor)))
}

/// What the variable says; 1 where it is not there or empty.
fn factor(said: Option<&str>) -> Result<f64> {
    let said = said.unwrap_or_default();
    if said.is_empty() {
        return Ok(1.0);
    }
    match said.parse() {
        Ok(factor) if (1.0..=100.0).contains(&factor) => Ok(factor),
        _ => bail!("{SCALE}={said} is not a number from 1 to 100: how many times longer waits may be"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_can_be_made_longer_and_nothing_else() {
        assert!((factor(None).unwrap() - 1.0).abs() < f64::EPSILON);
        assert!((factor(Some("")).unwrap() - 1.0).abs() < f64::EPSILON);
        assert!((factor(Some("2.5")).unwrap() - 2.5).abs() < f64::EPSILON);
        for wrong in ["0", "-1", "0.5", "101", "NaN", "inf", "twice"] {
            let said = factor(Some(wrong)).unwrap_err().to_string();
            assert!(said.contains(&format!("E2E_TIMEOUT_SCALE={wrong}")), "{said}");
        }
    }
}
