//! How fast this node sends and takes what replicas lack that are not in sync (KIP-73): one bucket of bytes for each
//! direction, which all partitions share.
//!
//! Invariants
//! - Of two who wait for the same bucket the first is served first, and who gives up takes nothing.
//! - In any time `t` at most `rate * t` bytes, a second's worth more, and the last request pass: what passes may be larger
//!   than what is there, and those after it wait until that is made up for.
//! - A new rate counts from now on, also for who waits already.

use std::time::Duration;

use parking_lot::Mutex;
use takhin_config::{ByteSize, Limit};
use takhin_runtime::clock::{Clock, Instant};
use tokio::sync::{Notify, Semaphore};

use crate::metrics::{THROTTLES, ThrottleMetrics};

/// Questions for room that wait for an answer of other nodes, at a time; further ones wait for their turn here. Far fewer
/// than a link holds calls, so that they never stand in the way of anything else.
const ASKING: usize = 64;

/// The buckets of one node.
#[derive(Debug)]
pub(crate) struct Throttles {
    /// For what this node sends as a leader.
    pub(crate) leader: Bucket,
    /// For what this node is sent.
    pub(crate) follower: Bucket,
    /// Turns to ask other nodes for room.
    pub(crate) asking: Semaphore,
}

impl Throttles {
    pub(crate) fn new(clock: &Clock) -> Self {
        Self {
            leader: Bucket::new(clock.clone(), &THROTTLES.leader),
            follower: Bucket::new(clock.clone(), &THROTTLES.follower),
            asking: Semaphore::new(ASKING),
        }
    }

    /// Puts the rates of these settings into force.
    pub(crate) fn configure(&self, settings: &takhin_config::node::Rpc) {
        self.leader.set_rate(settings.leader_throttled_rate);
        self.follower.set_rate(settings.follower_throttled_rate);
    }
}

/// Bytes that may pass, filled at a rate.
#[derive(Debug)]
pub(crate) struct Bucket {
    clock: Clock,
    shown: &'static ThrottleMetrics,
    level: Mutex<Level>,
    /// Who waits, in order: the first of them looks at the level.
    turn: tokio::sync::Mutex<()>,
    /// Rung when the rate changes.
    changed: Notify,
}

impl Bucket {
    fn new(clock: Clock, shown: &'static ThrottleMetrics) -> Self {
        Self {
            shown,
            level: Mutex::new(Level::unlimited(clock.instant())),
            clock,
            turn: tokio::sync::Mutex::default(),
            changed: Notify::new(),
        }
    }

    fn set_rate(&self, rate: Limit<ByteSize>) {
        let rate = match rate {
            Limit::At(bytes) => Some(bytes.as_u64()),
            Limit::Unlimited => None,
        };
        self.shown
            .rate
            .set(rate.map_or(-1, |rate| i64::try_from(rate).unwrap_or(i64::MAX)));
        if self.level.lock().set_rate(rate, self.clock.instant()) {
            self.changed.notify_one();
        }
    }

    /// Takes `bytes` once there is room.
    ///
    /// # Cancel safety
    /// Safe: a dropped call has taken nothing, and its place goes to the next.
    pub(crate) async fn take(&self, bytes: u64) {
        let begun = self.clock.instant();
        let _turn = self.turn.lock().await;
        loop {
            let wait = {
                let mut level = self.level.lock();
                let wait = level.wait(self.clock.instant());
                if wait == Wait::Not {
                    if level.charge(bytes) {
                        self.shown.bytes.add(bytes);
                        self.shown.waited.observe(begun.elapsed());
                    }
                    return;
                }
                wait
            };
            tokio::select! {
                biased;
                () = self.changed.notified() => {}
                () = self.clock.sleep(wait.at_most()) => {}
            }
        }
    }
}

/// How long nothing may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    Not,
    /// This long.
    For(Duration),
    /// As long as the rate is 0.
    Forever,
}

impl Wait {
    /// Longer waits are looked at again.
    fn at_most(self) -> Duration {
        const LOOK_AGAIN: Duration = Duration::from_secs(60);
        match self {
            Self::Not => Duration::ZERO,
            Self::For(time) => time.min(LOOK_AGAIN),
            Self::Forever => LOOK_AGAIN,
        }
    }
}

/// Nanoseconds of a second; the level counts bytes in as many parts, so that nothing is lost to rounding.
const PARTS: i128 = 1_000_000_000;

/// How full a bucket is at one moment.
#[derive(Debug)]
struct Level {
    /// Bytes a second; `None` for no limit.
    rate: Option<u64>,
    /// In parts of a byte; below 0 as long as what has passed is not made up for. At most a second's worth.
    parts: i128,
    at: Instant,
}

impl Level {
    fn unlimited(now: Instant) -> Self {
        Self {
            rate: None,
            parts: 0,
            at: now,
        }
    }

    /// Whether the rate is another one now. What has passed before still counts.
    fn set_rate(&mut self, rate: Option<u64>, now: Instant) -> bool {
        self.fill(now);
        if self.rate == rate {
            return false;
        }
        if self.rate.is_none() {
            // Nothing was counted without a limit.
            self.parts = 0;
        }
        self.rate = rate;
        self.parts = self.parts.min(self.full());
        true
    }

    fn full(&self) -> i128 {
        i128::from(self.rate.unwrap_or(0)) * PARTS
    }

    fn fill(&mut self, now: Instant) {
        // At most 136 years, which even the highest rate cannot overflow.
        let elapsed = now.saturating_duration_since(self.at).as_nanos();
        let elapsed = i128::try_from(elapsed).unwrap_or(i128::MAX).min(PARTS << 32);
        let more = i128::from(self.rate.unwrap_or(0)) * elapsed;
        self.parts = (self.parts + more).min(self.full());
        self.at = now;
    }

    fn wait(&mut self, now: Instant) -> Wait {
        self.fill(now);
        match self.rate {
            None => Wait::Not,
            Some(0) => Wait::Forever,
            Some(_) if self.parts >= 0 => Wait::Not,
            Some(rate) => {
                let rate = i128::from(rate);
                let nanos = (rate - 1 - self.parts) / rate;
                Wait::For(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
            }
        }
    }

    /// Counts what passes; whether there is a limit.
    fn charge(&mut self, bytes: u64) -> bool {
        let is_limited = self.rate.is_some();
        if is_limited {
            self.parts -= i128::from(bytes) * PARTS;
        }
        is_limited
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_passes_is_made_up_for_at_the_rate_of_the_moment() {
        let mut now = Instant::now();
        let mut level = Level::unlimited(now);
        level.charge(1 << 40);
        assert_eq!(level.wait(now), Wait::Not);
        assert!(level.set_rate(Some(1000), now) && !level.set_rate(Some(1000), now));
        // Larger than all there ever is.
        assert_eq!(level.wait(now), Wait::Not);
        level.charge(5000);
        assert_eq!(level.wait(now), Wait::For(5 * SECOND));
        now += 2 * SECOND;
        assert_eq!(level.wait(now), Wait::For(3 * SECOND));
        level.set_rate(Some(9000), now);
        assert_eq!(level.wait(now), Wait::For(Duration::from_nanos(333_333_334)));
        level.set_rate(Some(0), now);
        now += 3600 * SECOND;
        assert_eq!(level.wait(now), Wait::Forever);
        level.set_rate(None, now);
        assert_eq!(level.wait(now), Wait::Not);
        level.set_rate(Some(1), now);
        assert_eq!(level.wait(now), Wait::Not, "without a limit nothing is owed");
    }

    #[test]
    fn no_more_than_a_second_is_saved_up() {
        let mut now = Instant::now();
        let mut level = Level::unlimited(now);
        level.set_rate(Some(1000), now);
        now += 100_000 * SECOND;
        assert_eq!(level.wait(now), Wait::Not);
        level.charge(3000);
        assert_eq!(level.wait(now), Wait::For(2 * SECOND));
        level.set_rate(Some(u64::MAX), now);
        now += 1_000_000_000 * SECOND;
        assert_eq!(level.wait(now), Wait::Not);
        level.charge(u64::MAX);
        level.charge(u64::MAX);
        assert_eq!(level.wait(now), Wait::For(SECOND));
    }

    fn bucket(rate: u64) -> Bucket {
        let bucket = Bucket::new(Clock::simulated(0), &THROTTLES.leader);
        bucket.set_rate(Limit::At(ByteSize::bytes(rate)));
        bucket
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_who_waits_is_served_first_and_who_gives_up_takes_nothing() {
        let bucket = bucket(100);
        let begun = Instant::now();
        bucket.take(300).await;
        let served = Mutex::new(Vec::new());
        let one = async |name: u8, bytes| {
            bucket.take(bytes).await;
            served.lock().push((name, begun.elapsed().as_secs()));
        };
        let gives_up = async {
            let patience = bucket.clock.timeout(SECOND, bucket.take(1_000_000));
            assert!(patience.await.is_err());
        };
        tokio::join!(gives_up, one(1, 200), one(2, 1), one(3, 1));
        assert_eq!(served.into_inner(), [(1, 3), (2, 5), (3, 5)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_rate_acts_on_who_waits() {
        let bucket = bucket(0);
        let begun = Instant::now();
        let lift = async {
            bucket.clock.sleep(7 * SECOND).await;
            bucket.set_rate(Limit::Unlimited);
        };
        tokio::join!(bucket.take(10), bucket.take(10), lift);
        assert_eq!(begun.elapsed(), 7 * SECOND);
    }
}
