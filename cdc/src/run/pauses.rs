//! Pauses between attempts, and what is said of the trouble that ended the last one.

use std::sync::atomic::Ordering;
use std::time::Duration;

use takhin_runtime::clock::Instant;
use takhin_runtime::{Env, Shutdown};
use tracing::{error, warn};

use super::Runner;
use crate::metrics;
use crate::source::SourceError;
use crate::trouble::Trouble;

/// Pause before the next attempt: the first one, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(3));

/// Pause before the next attempt where nothing changes before somebody does something.
pub(super) const LONG_PAUSE: Duration = Duration::from_secs(10);

/// The longest pause before something is written anew that was in vain.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// How long an attempt must have lasted for the next pause to be short again.
pub(super) const LASTED: Duration = Duration::from_secs(30);

/// The pause behind one more of what was in vain, and is written again with all that belongs to it.
pub(super) fn in_vain(times: u32) -> Duration {
    LONG_PAUSE.saturating_mul(1 << times.min(10)).min(LONGEST_PAUSE)
}

/// Pauses before the next attempt.
pub(super) struct Pauses {
    next: Duration,
    /// When the last attempt began.
    begin: Instant,
    /// How many attempts have found out what the next one needs, without a pause.
    agains: u32,
    /// How often in a row something was written in vain.
    in_vain: u32,
    /// Dumps in a row that could not be read.
    dumps: u32,
}

/// How many attempts may follow one another without a pause.
const AGAINS: u32 = 5;

impl Pauses {
    pub(super) fn new(env: &Env) -> Self {
        Self {
            next: PAUSE.0,
            begin: env.clock.instant(),
            agains: 0,
            in_vain: 0,
            dumps: 0,
        }
    }

    /// What is to be waited behind trouble. `is_in_vain`: a data set was being written, or brokers refuse a batch, and that is written
    /// anew with all that belongs to it.
    fn wait(&mut self, needs_somebody: bool, is_in_vain: bool) -> Duration {
        if is_in_vain {
            self.in_vain += 1;
            return in_vain(self.in_vain - 1);
        }
        self.in_vain = 0;
        let wait = if needs_somebody { LONG_PAUSE } else { self.next };
        self.next = (self.next * 2).min(PAUSE.1);
        wait
    }

    /// What is to be waited behind a dump that could not be read. Another one costs the master a copy of all of its data, and has the
    /// same fault if that is in the data: only the first time it may have been the transfer's.
    fn wait_for_dump(&mut self) -> Option<Duration> {
        self.dumps += 1;
        self.dumps.checked_sub(2).map(in_vain)
    }

    /// Two or three attempts find out what is needed; nobody is to be asked without end.
    pub(super) async fn again(&mut self, env: &Env, stop: &Shutdown) {
        self.agains = if self.begin.elapsed() < LASTED {
            self.agains + 1
        } else {
            0
        };
        if self.agains > AGAINS {
            let _ = env.clock.timeout(PAUSE.1, stop.wait()).await;
        }
        self.begin = env.clock.instant();
    }
}

impl Runner<'_> {
    /// Says what was wrong, and waits until it may be tried again.
    pub(super) async fn rest(&self, trouble: &Trouble, pauses: &mut Pauses, stop: &Shutdown) {
        if self.has_written.swap(false, Ordering::Relaxed) || pauses.begin.elapsed() >= LASTED {
            pauses.next = PAUSE.0;
        }
        self.say(trouble);
        if matches!(trouble, Trouble::Sink(error) if error.needs_settings()) {
            self.is_held.store(true, Ordering::Relaxed);
            stop.wait().await;
            return;
        }
        let needs_somebody = match trouble {
            Trouble::Source(error) => error.needs_somebody(),
            Trouble::Sink(error) => error.needs_somebody(),
            Trouble::Wal(_) => true,
            _ => false,
        };
        let is_amid = self.is_amid.swap(false, Ordering::Relaxed);
        let is_in_vain = matches!(trouble, Trouble::Sink(error) if is_amid || error.is_refused());
        let is_dump = matches!(trouble, Trouble::Source(SourceError::Snapshot { .. }));
        if !is_amid {
            pauses.dumps = 0;
        }
        let for_dump = is_dump.then(|| pauses.wait_for_dump()).flatten();
        let wait = for_dump.unwrap_or_else(|| pauses.wait(needs_somebody, is_in_vain));
        let _ = self.env.clock.timeout(wait, stop.wait()).await;
        pauses.begin = self.env.clock.instant();
    }

    /// Says what ended an attempt, where people and probes look.
    pub(super) fn say(&self, trouble: &Trouble) {
        let text = trouble.to_string();
        match trouble {
            Trouble::Source(error) => {
                if matches!(error.reason(), "connect" | "silent") {
                    self.forget_refusals();
                }
                metrics::RECONNECTS.with([error.reason()]).inc();
                self.flags.source.fail(&*text);
                if error.needs_somebody() {
                    error!(reason = error.reason(), "{text}");
                } else {
                    warn!(reason = error.reason(), "{text}");
                }
            }
            Trouble::Sink(_) => {
                self.flags.sink.fail(&*text);
                warn!("{text}");
            }
            Trouble::Checkpoint(_) | Trouble::Wal(_) | Trouble::Output(_) => {
                self.flags.sink.fail(&*text);
                error!("{text}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A broker that refuses an event of a data set, for its size or the right to write, refuses it each time.
    #[test]
    fn data_sets_that_brokers_do_not_take_are_begun_ever_more_rarely() {
        let mut pauses = Pauses::new(&Env::real());
        let seconds = |pauses: &mut Pauses, is_in_vain| pauses.wait(false, is_in_vain).as_secs();
        let waits: Vec<u64> = (0..20).map(|_| seconds(&mut pauses, true)).collect();
        assert_eq!(waits[..7], [10, 20, 40, 80, 160, 320, 600]);
        assert!(waits[7..].iter().all(|wait| *wait == 600));
        assert_eq!(seconds(&mut pauses, false), 0);
        assert_eq!(seconds(&mut pauses, true), 10);
    }

    /// A key that makes no sense is in the next dump too.
    #[test]
    fn dumps_that_cannot_be_read_are_asked_for_ever_more_rarely() {
        let mut pauses = Pauses::new(&Env::real());
        let waits: Vec<_> = (0..9).map(|_| pauses.wait_for_dump()).collect();
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(waits[..4], [None, seconds(10), seconds(20), seconds(40)]);
        assert_eq!(waits[8], seconds(600));
    }
}
