//! Changes of a table as a whole wait for the transactions that are prepared on it. Meanwhile no other one is prepared on it, for a
//! while: writers that follow one another without a gap would keep it from ever changing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::Database;
use crate::{Error, Result};

/// How long a change of a table waits for what is prepared on it.
const SETTLES: Duration = Duration::from_secs(1);
/// How long a transaction waits before it is prepared nevertheless. Two transactions of several directories may each be prepared where
/// the other one waits: this ends it.
const WAITS: Duration = Duration::from_millis(150);
const PAUSE: Duration = Duration::from_millis(1);

/// The tables that changes wait for, by number.
#[derive(Default)]
pub(super) struct Settling {
    tables: Mutex<BTreeMap<u64, usize>>,
    /// How many of them there are.
    count: AtomicUsize,
    ended: Condvar,
}

impl Settling {
    /// Waits until no change waits for these tables, for a while.
    pub(super) fn wait(&self, tables: &(impl Iterator<Item = u64> + Clone)) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let until = Instant::now() + WAITS;
        let mut waiting = self.tables.lock();
        while tables.clone().any(|table| waiting.contains_key(&table)) {
            if self.ended.wait_until(&mut waiting, until).timed_out() {
                return;
            }
        }
    }

    fn begin(&self, table: u64) -> Waiting<'_> {
        let mut tables = self.tables.lock();
        *tables.entry(table).or_default() += 1;
        self.count.store(tables.len(), Ordering::Release);
        Waiting { settling: self, table }
    }
}

/// While a change waits for a table.
struct Waiting<'a> {
    settling: &'a Settling,
    table: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut tables = self.settling.tables.lock();
        if let Some(count) = tables.get_mut(&self.table) {
            *count -= 1;
            if *count == 0 {
                tables.remove(&self.table);
            }
        }
        self.settling.count.store(tables.len(), Ordering::Release);
        self.settling.ended.notify_all();
    }
}

impl Database {
    /// Makes a change of a table, again while transactions are prepared on it.
    pub(super) fn when_settled<T>(&self, table: &str, change: impl Fn() -> Result<T>) -> Result<T> {
        let mut done = change();
        if !matches!(done, Err(Error::Conflict(_))) {
            return done;
        }
        let Some(id) = self.table(table).map(|table| table.id) else { return done };
        let (_waiting, until) = (self.settling.begin(id), Instant::now() + SETTLES);
        while matches!(done, Err(Error::Conflict(_))) && Instant::now() < until {
            std::thread::sleep(PAUSE);
            done = change();
        }
        done
    }
}
