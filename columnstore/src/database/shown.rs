//! The states that readers see, each with the moment from which it counts, so that readers of several data directories see one moment.
//!
//! - A reader at a moment sees the newest state that counts from then or before. What is shown after it looked counts from later.
//! - A transaction over several directories counts from one moment in all of them: one that is later than everything that anybody
//!   has read in any of them without it. Each directory that prepares it gives such a moment; the one that decides takes the largest.
//! - From when a transaction was prepared until it is shown, or given up, readers at that moment or later wait: it may count for them.
//! - States count from later and later moments. So what else is shown meanwhile counts from when the oldest of those transactions was
//!   prepared, at the latest, and they are put into the log in the order of their moments ([`Shown::order`]).
//!
//! Moments are in memory only. After a start, or with a new role, all that is there counts from now; readers of before begin anew.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::Catalog;
use crate::clock::{Clock, MAX_MOMENT};
use crate::{Error, Result};

/// States at most, whatever their age.
const MOST: usize = 4096;

/// The states that are shown.
pub(super) struct Shown {
    states: Mutex<States>,
    changed: Condvar,
    clock: Clock,
    /// How long a state stays that is not the newest any more.
    keep: Duration,
}

struct States {
    /// With the moments from which they count; the newest is last. There is always one.
    all: VecDeque<(u64, Arc<Catalog>)>,
    /// Transactions over several directories that may count yet, by number.
    pending: BTreeMap<u64, Pending>,
    /// Those that are in the log and not shown, in its order.
    ordered: VecDeque<Ordered>,
    /// The moments of transactions that this directory decided on.
    decided: BTreeMap<u64, u64>,
}

struct Pending {
    /// It counts from no earlier moment.
    since: u64,
    /// Its place in the log is certain.
    ordered: bool,
}

/// A transaction in the log, with the state that it makes.
struct Ordered {
    transaction: u64,
    moment: u64,
    catalog: Arc<Catalog>,
}

impl States {
    fn newest(&self) -> &(u64, Arc<Catalog>) {
        &self.all[self.all.len() - 1]
    }

    fn push(&mut self, moment: u64, catalog: Arc<Catalog>) {
        let moment = moment.max(self.newest().0);
        // Nobody sees one of two that count from the same moment but the newest.
        if moment == self.newest().0 {
            self.all.pop_back();
        }
        self.all.push_back((moment, catalog));
    }

    /// Drops states that were not the newest any more before a moment.
    fn prune(&mut self, before: u64) {
        while self.all.len() > 1 && (self.all[1].0 < before || self.all.len() > MOST) {
            self.all.pop_front();
        }
    }
}

impl Shown {
    pub fn new(catalog: Arc<Catalog>, keep: Duration) -> Shown {
        let clock = Clock::default();
        let states = States {
            all: VecDeque::from([(clock.tick(), catalog)]),
            pending: BTreeMap::new(),
            ordered: VecDeque::new(),
            decided: BTreeMap::new(),
        };
        let shown = Shown { states: Mutex::new(states), changed: Condvar::new(), clock, keep };
        shown.begin_anew();
        shown
    }

    /// The newest state.
    pub fn newest(&self) -> Arc<Catalog> {
        Arc::clone(&self.states.lock().newest().1)
    }

    /// The LSN of the oldest state that readers can still get.
    pub fn oldest_lsn(&self) -> u64 {
        self.states.lock().all.front().map_or(0, |(_, catalog)| catalog.sequence)
    }

    /// The moment from which the newest state counts.
    pub fn moment(&self) -> u64 {
        self.states.lock().newest().0
    }

    /// The state at a moment; waits, for so long at most, for transactions that may count by then.
    pub fn at(&self, moment: u64, most: Duration) -> Result<Arc<Catalog>> {
        if moment > MAX_MOMENT {
            return Err(Error::Invalid(format!("{moment} is no moment")));
        }
        let until = Instant::now() + most;
        let mut states = self.states.lock();
        self.clock.hear(moment);
        while let Some((transaction, _)) = states.pending.iter().find(|(_, pending)| pending.since <= moment) {
            let transaction = *transaction;
            if self.changed.wait_until(&mut states, until).timed_out() {
                return Err(Error::Unsettled(format!("whether transaction {transaction} commits is not known yet")));
            }
        }
        let found = states.all.iter().rev().find(|(from, _)| *from <= moment);
        found.map(|(_, catalog)| Arc::clone(catalog)).ok_or(Error::Passed { first: states.all[0].0 })
    }

    /// Shows a state that is on disk, and those before it that transactions made which count from one moment everywhere.
    pub fn show(&self, catalog: &Arc<Catalog>) {
        let mut states = self.states.lock();
        if states.newest().1.sequence >= catalog.sequence {
            return;
        }
        while let Some(next) = states.ordered.front().filter(|next| next.catalog.sequence <= catalog.sequence) {
            let (transaction, moment, made) = (next.transaction, next.moment, Arc::clone(&next.catalog));
            states.ordered.pop_front();
            states.pending.remove(&transaction);
            states.push(moment, made);
        }
        let (last, newest) = (states.newest().0, &states.newest().1);
        if newest.sequence < catalog.sequence {
            let earliest = states.pending.values().map(|pending| pending.since).min().unwrap_or(u64::MAX);
            // A table that is there for those who plan must be there for readers of moments that are just over.
            let moment = if newest.definitions == catalog.definitions { self.clock.tick().min(earliest) } else { last };
            states.push(moment, Arc::clone(catalog));
        }
        self.prune_states(&mut states);
        self.changed.notify_all();
    }

    /// Drops states that are old.
    pub fn prune(&self) {
        self.prune_states(&mut self.states.lock());
    }

    fn prune_states(&self, states: &mut States) {
        let before = if self.keep.is_zero() { u64::MAX } else { self.clock.tick().saturating_sub(self.keep.as_micros() as u64) };
        states.prune(before);
    }

    /// A transaction will be prepared: the moment from which it counts at the earliest.
    pub fn prepare(&self, transaction: u64) -> u64 {
        let mut states = self.states.lock();
        let since = self.clock.tick();
        states.pending.insert(transaction, Pending { since, ordered: false });
        since
    }

    /// A transaction is to be decided on here, which others have prepared, at the latest at this moment: the moment from which it
    /// counts, once no other one can count from an earlier moment. Waits for that, for so long at most.
    pub fn decide(&self, transaction: u64, prepared: u64, most: Duration) -> Result<u64> {
        let mut states = self.states.lock();
        self.clock.hear(prepared);
        let moment = self.clock.tick();
        // From here on readers wait for it; what is prepared from here on counts from later.
        states.pending.insert(transaction, Pending { since: moment, ordered: false });
        let turn = self.wait_for_turn(&mut states, transaction, moment, most);
        if turn.is_ok() {
            states.decided.insert(transaction, moment);
        } else {
            states.pending.remove(&transaction);
            self.changed.notify_all();
        }
        turn.map(|()| moment)
    }

    /// A transaction that is prepared here is about to be put into the log as committed from a moment on: waits, for so long at most,
    /// until no other one can count from an earlier moment.
    pub fn wait_to_order(&self, transaction: u64, moment: u64, most: Duration) -> Result<()> {
        let mut states = self.states.lock();
        self.clock.hear(moment);
        if let Some(pending) = states.pending.get_mut(&transaction).filter(|pending| !pending.ordered) {
            // It is known now from when it counts: nobody before that waits for it any more.
            pending.since = pending.since.max(moment);
            self.changed.notify_all();
        }
        self.wait_for_turn(&mut states, transaction, moment, most)
    }

    /// Waits for the other transactions that may count from an earlier moment. Nobody waits in a circle: a transaction that is about to
    /// be decided on waits for those that are prepared there, which partitions of lower ordinals decide on.
    fn wait_for_turn(&self, states: &mut MutexGuard<'_, States>, own: u64, moment: u64, most: Duration) -> Result<()> {
        let until = Instant::now() + most;
        let before = |(transaction, pending): (&u64, &Pending)| {
            let waits = *transaction != own && !pending.ordered && pending.since < moment;
            waits.then_some(*transaction)
        };
        while let Some(other) = states.pending.iter().find_map(before) {
            if self.changed.wait_until(states, until).timed_out() && states.pending.iter().any(|one| before(one).is_some()) {
                return Err(Error::Unsettled(format!("transaction {other}, which comes before {own}, is not settled yet")));
            }
        }
        Ok(())
    }

    /// A transaction is in the log as committed, and made this state.
    pub fn order(&self, transaction: u64, moment: u64, catalog: &Arc<Catalog>) {
        let mut states = self.states.lock();
        let pending = states.pending.entry(transaction).or_insert(Pending { since: moment, ordered: true });
        pending.ordered = true;
        states.ordered.push_back(Ordered { transaction, moment, catalog: Arc::clone(catalog) });
        self.changed.notify_all();
    }

    /// A transaction does not count.
    pub fn give_up(&self, transaction: u64) {
        let mut states = self.states.lock();
        states.pending.remove(&transaction);
        states.decided.remove(&transaction);
        states.ordered.retain(|ordered| ordered.transaction != transaction);
        self.changed.notify_all();
    }

    /// The moment from which a transaction counts that this directory decided on; if that is not known any more, one that is no earlier.
    /// It stays the same: of two transactions that somebody asks for in turns, one would always come before the other otherwise.
    pub fn moment_of(&self, transaction: u64) -> u64 {
        *self.states.lock().decided.entry(transaction).or_insert_with(|| self.clock.tick())
    }

    /// Forgets the moments of decisions.
    pub fn forget(&self, transactions: &[u64]) {
        let mut states = self.states.lock();
        for transaction in transactions {
            states.decided.remove(transaction);
        }
    }

    /// What is in the log behind a number does not count.
    pub fn cut(&self, lsn: u64) {
        let mut states = self.states.lock();
        while states.ordered.back().is_some_and(|last| last.catalog.sequence > lsn) {
            let lost = states.ordered.pop_back().map(|last| last.transaction);
            if let Some(pending) = lost.and_then(|transaction| states.pending.get_mut(&transaction)) {
                pending.ordered = false;
            }
        }
        self.changed.notify_all();
    }

    /// What is shown counts from now on, and what is prepared may count from now on.
    pub fn begin_anew(&self) {
        let mut states = self.states.lock();
        let now = self.clock.tick();
        let newest = Arc::clone(&states.newest().1);
        states.pending =
            newest.prepared.keys().map(|transaction| (*transaction, Pending { since: now, ordered: false })).collect();
        states.ordered.clear();
        states.decided.clear();
        states.all = VecDeque::from([(now, newest)]);
        self.changed.notify_all();
    }
}
