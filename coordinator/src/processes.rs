//! The statements that run on a coordinator.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use stoa_rpc::session::Cancelled;

/// What runs, by number.
#[derive(Default)]
pub struct Processes {
    running: Mutex<BTreeMap<u64, Process>>,
    last: AtomicU64,
}

/// A statement, or several of one call.
#[derive(Clone)]
pub(crate) struct Process {
    pub user: String,
    pub database: String,
    pub text: String,
    since: Instant,
    cancelled: Cancelled,
}

impl Process {
    /// How long it has run.
    pub fn time(&self) -> Duration {
        self.since.elapsed()
    }
}

/// An entry of the list, there until this is dropped.
pub(crate) struct Entry {
    processes: Arc<Processes>,
    pub number: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.processes.running.lock().remove(&self.number);
    }
}

impl Processes {
    /// Adds what begins now; setting `cancelled` ends it.
    pub(crate) fn begin(self: &Arc<Self>, user: &str, database: &str, text: &str, cancelled: &Cancelled) -> Entry {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let process = Process {
            user: user.to_owned(),
            database: database.to_owned(),
            text: shown(text),
            since: Instant::now(),
            cancelled: cancelled.clone(),
        };
        self.running.lock().insert(number, process);
        Entry { processes: self.clone(), number }
    }

    /// What runs, in the order in which it began.
    pub(crate) fn list(&self) -> Vec<(u64, Process)> {
        self.running.lock().iter().map(|(number, process)| (*number, process.clone())).collect()
    }

    /// How many statements run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.lock().len()
    }

    /// Ends everything.
    pub fn kill_all(&self) {
        self.running.lock().values().for_each(|process| process.cancelled.store(true, Ordering::Relaxed));
    }

    /// Ends what has this number, if `allowed` says so; false if nothing has.
    pub(crate) fn kill(&self, number: u64, allowed: impl Fn(&Process) -> bool) -> bool {
        let running = self.running.lock();
        let found = running.get(&number).filter(|process| allowed(process));
        if let Some(process) = found {
            process.cancelled.store(true, Ordering::Relaxed);
        }
        found.is_some()
    }
}

/// A text as others may see it: passwords are not for them.
pub(crate) fn shown(text: &str) -> String {
    let upper = text.to_ascii_uppercase();
    if upper.contains("IDENTIFIED") || upper.contains("PASSWORD") {
        "(a statement with a password)".to_owned()
    } else {
        text.to_owned()
    }
}
