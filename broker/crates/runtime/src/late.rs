//! Whether this process gets the time that it needs.

use std::time::Duration;

use crate::clock::Instant;

/// How late timers went off lately. Who hears nothing of others may himself have had no time to listen: what this says is
/// to be added to his patience.
#[derive(Debug, Clone, Copy)]
pub struct Late {
    by: Duration,
    until: Option<Instant>,
    window: Duration,
    max: Duration,
}

impl Late {
    /// In time so far. Being late counts until timers have gone off in time for `window`, and for `max` at most.
    pub fn new(window: Duration, max: Duration) -> Self {
        Self {
            by: Duration::ZERO,
            until: None,
            window,
            max,
        }
    }

    /// A timer that was to go off at `due` did so `now`.
    pub fn note(&mut self, due: Instant, now: Instant) {
        let by = now.saturating_duration_since(due).min(self.max);
        if by >= self.by || self.until.is_none_or(|until| now >= until) {
            self.by = by;
            self.until = Some(now + self.window);
        }
    }

    /// By how much the latest timer of the window was late.
    pub fn by(&self) -> Duration {
        self.by
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Clock;

    #[test]
    fn slowness_counts_until_timers_have_been_in_time_for_a_while() {
        let ms = Duration::from_millis;
        let mut late = Late::new(ms(600), ms(2_000));
        let begin = Clock::real().instant();
        let mut at = |due: u64, now: u64| {
            late.note(begin + ms(due), begin + ms(now));
            late.by()
        };
        assert_eq!(at(100, 101), ms(1));
        assert_eq!(at(200, 1_100), ms(900));
        assert_eq!(
            at(1_200, 1_201),
            ms(900),
            "what was said meanwhile is still to be read"
        );
        assert_eq!(at(1_600, 1_699), ms(900));
        assert_eq!(at(1_700, 1_701), ms(1));
        assert_eq!(at(1_800, 60_000), ms(2_000));
    }
}
