//! How fast background merges go: one at a time, and after each a rest in proportion to how long it took.
//!
//! A merge has the disk and the cores that it can get; the rest gives them back to queries and writers. The proportion is the same
//! whatever the machine can do, which a limit in bytes would not be. It is what vacuum does in PostgreSQL (`vacuum_cost_delay`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Somebody who finds another one merging looks again after this.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// The longest rest, in times of the merge.
const LONGEST: f64 = 1000.0;

/// The pace of background merges. Data directories that are opened with clones of one share it: those of a leaf do.
#[derive(Clone, Debug)]
pub struct MergePace {
    rest: f64,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    merging: bool,
    rests_until: Option<Instant>,
}

/// Its owner merges until it is dropped.
pub(super) struct Turn {
    pace: MergePace,
    began: Instant,
}

impl MergePace {
    /// After a merge all rest `rest` times as long as it took: with 1, merges take half of the time at most, with 0 all of it.
    #[must_use]
    pub fn resting(rest: f64) -> MergePace {
        let rest = if rest.is_finite() { rest.clamp(0.0, LONGEST) } else { 0.0 };
        MergePace { rest, state: Arc::default() }
    }

    /// A turn to merge, unless somebody else has it or all rest: when to look again.
    pub(super) fn turn(&self, now: Instant) -> Result<Turn, Instant> {
        let mut state = self.state.lock();
        if state.merging {
            return Err(now + LOOK_AGAIN);
        }
        if let Some(until) = state.rests_until.filter(|until| now < *until) {
            return Err(until);
        }
        state.merging = true;
        Ok(Turn { pace: self.clone(), began: now })
    }

    fn done(&self, began: Instant, now: Instant) {
        let mut state = self.state.lock();
        state.merging = false;
        state.rests_until = now.checked_add((now - began).mul_f64(self.rest));
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.pace.done(self.began, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_merges_at_a_time_and_all_rest_afterwards() {
        let (pace, began) = (MergePace::resting(3.0), Instant::now());
        let after = |seconds: f64| began + Duration::from_secs_f64(seconds);
        // What it was dropped at is the clock's; here the clock is ours.
        std::mem::forget(pace.turn(began).expect("the first"));
        let shared = pace.clone();
        assert_eq!(shared.turn(after(1.0)).err(), Some(after(1.0) + LOOK_AGAIN));
        pace.done(began, after(2.0));
        assert_eq!(shared.turn(after(7.9)).err(), Some(after(8.0)));
        std::mem::forget(shared.turn(after(8.0)).expect("rested"));
        shared.done(after(8.0), after(8.5));
        assert_eq!(pace.turn(after(9.0)).err(), Some(after(10.0)));
        drop(pace.turn(after(10.0)));
    }

    #[test]
    fn nobody_rests_who_need_not() {
        for rest in [0.0, -1.0, f64::NAN] {
            let (pace, began) = (MergePace::resting(rest), Instant::now());
            drop(pace.turn(began));
            assert!(pace.turn(Instant::now()).is_ok());
        }
    }
}
