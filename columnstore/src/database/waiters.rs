//! Threads that wait for the same sync of the log: all of them are woken at once, by one call of the system, and need no lock to go on.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Those who wait for a sync.
#[derive(Default)]
pub(super) struct Waiters {
    state: Mutex<State>,
    woken: Condvar,
}

#[derive(Clone, Copy, Default)]
struct State {
    /// So often somebody was told to look again.
    calls: u64,
    /// What they wait for has happened.
    done: bool,
}

/// How often those who wait have been told to look: what came since then is not missed.
#[derive(Clone, Copy)]
pub(super) struct Seen(u64);

impl Waiters {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on calls are not missed.
    pub fn seen(&self) -> Seen {
        Seen(self.state().calls)
    }

    /// Waits, at most so long if there is a limit: whether what it is about has happened. Otherwise the thread is to look again.
    pub fn wait(&self, Seen(seen): Seen, most: Option<Duration>) -> bool {
        let waits = |state: &mut State| !state.done && state.calls == seen;
        match most {
            None => self.woken.wait_while(self.state(), waits).unwrap_or_else(PoisonError::into_inner).done,
            Some(most) => self.woken.wait_timeout_while(self.state(), most, waits).unwrap_or_else(PoisonError::into_inner).0.done,
        }
    }

    /// What they wait for has happened.
    pub fn finish(&self) {
        self.state().done = true;
        self.woken.notify_all();
    }

    /// All are to look again.
    pub fn call_all(&self) {
        self.state().calls += 1;
        self.woken.notify_all();
    }

    /// One is to look again, who has waited for long, or all who are about to wait.
    pub fn call_one(&self) {
        self.state().calls += 1;
        self.woken.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn all_go_on_when_it_is_done_and_no_call_is_missed() {
        let all = Arc::new(Waiters::default());
        let before = all.seen();
        let wait = |seen| {
            let all = Arc::clone(&all);
            std::thread::spawn(move || all.wait(seen, None))
        };
        let waiting: Vec<_> = (0..4).map(|_| wait(before)).collect();
        all.call_all();
        assert!(waiting.into_iter().all(|thread| thread.join().is_ok_and(|done| !done)));
        assert!(!all.wait(before, None), "who comes late");
        assert!(!all.wait(all.seen(), Some(Duration::from_millis(1))), "a limit");
        let waiting: Vec<_> = (0..4).map(|_| wait(all.seen())).collect();
        all.finish();
        assert!(waiting.into_iter().all(|thread| thread.join().is_ok_and(|done| done)));
        assert!(all.wait(before, None));
    }
}
