//! The statements that run on a coordinator.
//!
//! The number of a statement tells where it runs, so that it is one of a kind in the cluster, and short to type: it is the count of the
//! statements there, followed by the number of the coordinator and by how many digits that has. 4211 is the 42nd statement of coordinator
//! 1, and 42122 that of coordinator 12.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use stoa_rpc::session::Cancelled;

/// Bytes of a text that the list keeps.
const LISTED: usize = 16 << 10;

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
    /// Adds what begins now on the coordinator of a number; setting `cancelled` ends it.
    pub(crate) fn begin(self: &Arc<Self>, node: u64, user: &str, database: &str, text: &str, cancelled: &Cancelled) -> Entry {
        let number = number(node, self.last.fetch_add(1, Ordering::Relaxed) + 1);
        let process = Process {
            user: user.to_owned(),
            database: database.to_owned(),
            text: cut(shown(text), LISTED),
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

/// The number of a statement of a coordinator.
fn number(node: u64, count: u64) -> u64 {
    let digits = node.checked_ilog10().unwrap_or(0) + 1;
    count.wrapping_mul(10u64.wrapping_pow(digits + 1)).wrapping_add(node.wrapping_mul(10) + u64::from(digits))
}

/// The coordinator whose statement has a number, if one can have it.
pub(crate) fn node_of(number: u64) -> Option<u64> {
    let digits = u32::try_from(number % 10).ok().filter(|digits| *digits > 0)?;
    Some(number / 10 % 10u64.pow(digits))
}

/// A text, or as much of its beginning as may be shown.
pub(crate) fn cut(mut text: String, bytes: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes));
    text
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_tell_the_coordinator() {
        assert_eq!([number(1, 42), number(12, 42), number(0, 1)], [4211, 42122, 101]);
        let nodes = [0, 1, 2, 9, 10, 11, 21, 211, 1000, 123_456_789];
        let numbers: BTreeMap<u64, u64> =
            nodes.into_iter().flat_map(|node| (1..300).map(move |count| (number(node, count), node))).collect();
        assert_eq!(numbers.len(), nodes.len() * 299);
        for (number, node) in numbers {
            assert_eq!(node_of(number), Some(node));
        }
        assert_eq!([node_of(0), node_of(420), node_of(u64::MAX)], [None, None, Some(55_161)]);
    }
}
