//! Which queries run now, which wait, and which are sent away.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::{CancelToken, Error, MemoryBudget, Result};

/// How often one who waits looks whether its query was cancelled, or memory has become free.
const LOOK: Duration = Duration::from_millis(20);

/// How many queries there may be.
#[derive(Clone, Copy, Debug)]
pub struct AdmissionLimits {
    /// Queries that run at once.
    pub running: usize,
    /// Queries that wait; one more is sent away.
    pub waiting: usize,
    /// How long one waits before it is sent away.
    pub patience: Duration,
}

/// Lets queries in, in the order in which they come: as many as may run at once, and the next one only while the node has memory left.
#[derive(Debug)]
pub struct Admission {
    limits: AdmissionLimits,
    memory: Arc<MemoryBudget>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    running: usize,
    waiting: VecDeque<u64>,
    last: u64,
    closed: bool,
}

/// A query that was let in; dropped, its place is free.
#[derive(Debug)]
pub struct Pass(Arc<Admission>);

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.state.lock().running -= 1;
        self.0.changed.notify_all();
    }
}

impl Pass {
    /// Does what waits for others, and counts as not running meanwhile: another may be let in. Afterwards there may be one more than
    /// there should be, until one ends.
    pub fn lend<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.0.state.lock().running -= 1;
        self.0.changed.notify_all();
        let _back = Returned(&self.0);
        wait()
    }
}

/// Dropped, a query counts as running again.
struct Returned<'a>(&'a Admission);

impl Drop for Returned<'_> {
    fn drop(&mut self) {
        self.0.state.lock().running += 1;
    }
}

impl Admission {
    /// Admission to a node whose queries share `memory`.
    #[must_use]
    pub fn new(limits: AdmissionLimits, memory: Arc<MemoryBudget>) -> Arc<Admission> {
        Arc::new(Admission { limits, memory, state: Mutex::default(), changed: Condvar::new() })
    }

    /// What all queries share.
    #[must_use]
    pub fn memory(&self) -> &Arc<MemoryBudget> {
        &self.memory
    }

    /// Queries that run, and that wait.
    #[must_use]
    pub fn load(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.running, state.waiting.len())
    }

    /// Lets nobody in any more.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }

    /// Lets a query in, at once or when its turn comes.
    ///
    /// # Errors
    /// [`Error::Overloaded`] if too many wait, it waited too long, or the node ends; [`Error::Cancelled`].
    pub fn enter(self: &Arc<Self>, cancel: &CancelToken) -> Result<Pass> {
        let mut state = self.state.lock();
        if state.waiting.is_empty() && !state.closed && self.has_room(&state) {
            state.running += 1;
            return Ok(Pass(self.clone()));
        }
        if state.waiting.len() >= self.limits.waiting && !state.closed {
            let (running, waiting) = (state.running, state.waiting.len());
            return Err(Error::Overloaded(format!(
                "{running} queries run and {waiting} wait, which is the limit (--queries, --queue)"
            )));
        }
        state.last += 1;
        let (ticket, began) = (state.last, Instant::now());
        state.waiting.push_back(ticket);
        let outcome = loop {
            if state.closed {
                break Err(Error::Overloaded("the node is shutting down".into()));
            }
            if state.waiting.front() == Some(&ticket) && self.has_room(&state) {
                state.running += 1;
                break Ok(Pass(self.clone()));
            }
            if began.elapsed() > self.limits.patience {
                let waited = self.limits.patience;
                break Err(Error::Overloaded(format!("the query waited {waited:?} for others to end (--queue-timeout)")));
            }
            if cancel.check().is_err() {
                break Err(Error::Cancelled);
            }
            self.changed.wait_for(&mut state, LOOK);
        };
        state.waiting.retain(|other| *other != ticket);
        drop(state);
        self.changed.notify_all();
        outcome
    }

    /// A query that is alone may always try.
    fn has_room(&self, state: &State) -> bool {
        let memory_left = self.memory.used() < self.memory.limit() / 10 * 9;
        state.running < self.limits.running.max(1) && (state.running == 0 || memory_left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(running: usize, waiting: usize, patience: u64) -> Arc<Admission> {
        let limits = AdmissionLimits { running, waiting, patience: Duration::from_millis(patience) };
        Admission::new(limits, MemoryBudget::new(1000))
    }

    #[test]
    fn one_waits_until_another_ends_and_one_more_is_sent_away() {
        let admission = admission(1, 1, 10_000);
        let first = admission.enter(&CancelToken::default()).unwrap();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| admission.enter(&CancelToken::default()).map(drop));
            while admission.load() != (1, 1) {
                std::thread::yield_now();
            }
            let error = admission.enter(&CancelToken::default()).unwrap_err();
            assert!(matches!(&error, Error::Overloaded(why) if why.contains("1 queries run and 1 wait")), "{error}");
            drop(first);
            waits.join().unwrap().unwrap();
        });
        assert_eq!(admission.load(), (0, 0));
    }

    #[test]
    fn waiting_ends_by_time_by_cancelling_and_by_the_end_of_the_node() {
        let admission = admission(1, 9, 30);
        let _first = admission.enter(&CancelToken::default()).unwrap();
        assert!(admission.enter(&CancelToken::default()).unwrap_err().to_string().contains("waited 30ms"));
        let cancel = CancelToken::default();
        cancel.cancel();
        assert!(matches!(admission.enter(&cancel), Err(Error::Cancelled)));
        admission.close();
        assert!(admission.enter(&CancelToken::default()).unwrap_err().to_string().contains("shutting down"));
        assert_eq!(admission.load(), (1, 0));
    }

    #[test]
    fn memory_holds_back_all_but_the_first() {
        let admission = admission(9, 9, 20);
        let mut held = admission.memory().part(2000).reserve("test");
        held.resize(950).unwrap();
        let first = admission.enter(&CancelToken::default()).unwrap();
        assert!(admission.enter(&CancelToken::default()).is_err());
        // A part is within the whole, whatever its own limit says.
        assert!(held.grow(100).is_err());
        assert_eq!(admission.memory().used(), 950);
        drop(held);
        admission.enter(&CancelToken::default()).unwrap();
        drop(first);
    }
}
