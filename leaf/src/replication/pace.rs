//! How fast this leaf sends copies that are made anew: the limit of all of them together, and what they came to.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::CHUNK;

/// Bytes that are sent at once at least, whatever the limit.
const LEAST: u64 = 64 << 10;

/// How much of what is known of earlier copies stays when another one is done.
const MEMORY: f64 = 0.5;

/// The pace of copies.
pub(crate) struct Pace {
    /// Bytes a second.
    limit: Option<u64>,
    state: Mutex<State>,
}

struct State {
    /// When what was let through so far has had its time.
    free: Instant,
    /// Of the copies that are done, the last ones counting most.
    bytes: f64,
    seconds: f64,
}

impl Pace {
    /// At most so many bytes a second.
    pub fn new(limit: Option<u64>) -> Pace {
        Pace {
            limit: limit.filter(|limit| *limit > 0),
            state: Mutex::new(State { free: Instant::now(), bytes: 0.0, seconds: 0.0 }),
        }
    }

    /// Bytes to send at once: what a quarter of a second may bring, within bounds.
    pub fn piece(&self) -> usize {
        self.limit.map_or(CHUNK, |limit| (limit / 4).clamp(LEAST, CHUNK as u64) as usize)
    }

    /// So many bytes were sent: waits until they have had their time.
    pub fn wait(&self, bytes: u64) {
        let Some(limit) = self.limit else { return };
        let now = Instant::now();
        let free = {
            let mut state = self.state.lock();
            state.free = state.free.max(now) + Duration::from_secs_f64(bytes as f64 / limit as f64);
            state.free
        };
        std::thread::sleep(free - now);
    }

    /// A copy of so many bytes is done.
    pub fn done(&self, bytes: u64, took: Duration) {
        let mut state = self.state.lock();
        state.bytes = state.bytes * MEMORY + bytes as f64;
        state.seconds = state.seconds * MEMORY + took.as_secs_f64();
    }

    /// Bytes a second that a copy can be expected to make; 0: not known.
    pub fn rate(&self) -> u64 {
        let state = self.state.lock();
        let measured = if state.bytes > 0.0 && state.seconds > 0.0 { Some((state.bytes / state.seconds) as u64) } else { None };
        measured.or(self.limit).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_kept_by_all_together() {
        let pace = Pace::new(Some(1 << 20));
        let began = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..4).for_each(|_| pace.wait(16 << 10)));
            }
        });
        // 256 kB at 1 MB/s.
        assert!(began.elapsed() >= Duration::from_millis(250), "{:?}", began.elapsed());
    }

    #[test]
    fn slow_copies_go_in_small_pieces() {
        let pieces = [None, Some(1), Some(1 << 20), Some(1 << 30)].map(|limit| Pace::new(limit).piece());
        assert_eq!(pieces, [CHUNK, 64 << 10, 256 << 10, CHUNK]);
    }

    #[test]
    fn the_rate_is_what_was_measured_or_else_the_limit() {
        assert_eq!(Pace::new(None).rate(), 0);
        assert_eq!(Pace::new(Some(0)).limit, None);
        let pace = Pace::new(Some(1000));
        assert_eq!(pace.rate(), 1000);
        pace.done(8000, Duration::from_secs(10));
        assert_eq!(pace.rate(), 800);
        pace.done(6000, Duration::from_secs(5));
        assert_eq!(pace.rate(), 1000);
    }
}
