//! Moments: what orders the commits of several data directories.
//!
//! A hybrid logical clock (Kulkarni et al., "Logical Physical Clocks and Consistent Snapshots in Globally Distributed Databases",
//! 2014): microseconds of the machine's clock, but later than every moment that it gave or heard of before.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// The largest moment that is believed: beyond it a clock could not go on.
pub const MAX_MOMENT: u64 = 1 << 62;

/// A clock.
#[derive(Debug, Default)]
pub struct Clock(AtomicU64);

impl Clock {
    /// A moment later than all before it.
    pub fn tick(&self) -> u64 {
        let machine = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
        let next = |last: u64| machine.max(last + 1);
        let last = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| Some(next(last))).unwrap_or_else(|last| last);
        next(last)
    }

    /// Hears of a moment: those that it gives from now on are later. One beyond [`MAX_MOMENT`] is not believed.
    pub fn hear(&self, moment: u64) {
        if moment <= MAX_MOMENT {
            self.0.fetch_max(moment, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_later_than_all_before_them() {
        let clock = Clock::default();
        let first = clock.tick();
        assert!(clock.tick() > first);
        clock.hear(first + 1_000_000_000);
        assert_eq!(clock.tick(), first + 1_000_000_001);
        clock.hear(u64::MAX);
        assert_eq!(clock.tick(), first + 1_000_000_002);
    }
}
