//! Transactions whose outcome somebody does not know, and outcomes that nobody will ask for any more.
//!
//! Every coordinator tells the deciding partitions now and then what they may forget. The leading one asks the leaves what is in doubt
//! there, asks those that decided, and tells the ones that wait. A transaction that its own coordinator may still be about is left
//! alone; if that one is slow, asking for the outcome makes it fail, and never half.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use stoa_rpc::leaf::InDoubt;

use super::Shared;
use super::departures::give_up;
use super::fragments::in_parallel;
use crate::Result;

/// How often somebody looks.
const PERIOD: Duration = Duration::from_millis(500);
/// How long a transaction may be in doubt before somebody asks.
const PATIENCE: Duration = Duration::from_secs(2);

/// Outcomes that can be forgotten, by database and partition, and after how many rounds. Rounds are counted, not time: a coordinator that
/// stood still meanwhile gave no answers either.
#[derive(Default)]
pub struct Transactions(Mutex<BTreeMap<(String, u32), HashMap<u64, u32>>>);

impl Transactions {
    /// A partition may forget the outcome of a transaction once a time has passed, from now on.
    pub(super) fn forget(&self, database: &str, ordinal: u32, transaction: u64, after: Duration) {
        let rounds = (after.as_millis() / PERIOD.as_millis()) as u32;
        self.0.lock().entry((database.to_owned(), ordinal)).or_default().insert(transaction, rounds);
    }

    /// A round is over: what can be forgotten now.
    pub(super) fn due(&self) -> Vec<((String, u32), Vec<u64>)> {
        let mut all = self.0.lock();
        let due = all.iter_mut().map(|(place, transactions)| {
            let now = transactions.extract_if(|_, rounds| std::mem::replace(rounds, rounds.saturating_sub(1)) == 0);
            (place.clone(), now.map(|(transaction, _)| transaction).collect::<Vec<u64>>())
        });
        let due = due.filter(|(_, transactions)| !transactions.is_empty()).collect();
        all.retain(|_, transactions| !transactions.is_empty());
        due
    }
}

/// Looks after transactions in doubt, and after leaves that go, as long as it lives.
pub struct Watch(Arc<AtomicBool>);

impl Watch {
    /// Begins.
    ///
    /// # Errors
    /// If there is no thread for it.
    pub fn start(shared: &Shared) -> Result<Watch> {
        let watch = Watch(Arc::default());
        for (name, work) in [("stoa-in-doubt", settle as fn(&Shared, &AtomicBool)), ("stoa-departures", give_up)] {
            let (shared, ended) = (shared.clone(), watch.0.clone());
            crate::supervision::thread(name, move || work(&shared, &ended))?;
        }
        Ok(watch)
    }
}

/// Forgets and resolves, until it is told to end.
fn settle(shared: &Shared, ended: &AtomicBool) {
    let mut since: HashMap<(String, InDoubt), Instant> = HashMap::new();
    while !ended.load(Ordering::Relaxed) {
        forget(shared);
        if shared.control.leads() {
            resolve(shared, &mut since);
        }
        std::thread::sleep(PERIOD);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Tells the partitions what they may forget. What cannot be told now stays there: it costs a few bytes.
fn forget(shared: &Shared) {
    let told =
        in_parallel(&shared.transactions.due(), |((database, ordinal), transactions)| match master(shared, database, *ordinal) {
            Some(address) => shared.leaves.leaf(&address)?.forget(database, *ordinal, transactions),
            None => Ok(()),
        });
    if let Err(failure) = told {
        tracing::debug!(%failure, "a partition was not told which transactions it may forget");
    }
}

pub(super) fn master(shared: &Shared, database: &str, ordinal: u32) -> Option<String> {
    shared.control.database(database).ok()?.masters.get(ordinal as usize)?.clone()
}

/// Resolves what has been in doubt for a while.
fn resolve(shared: &Shared, since: &mut HashMap<(String, InDoubt), Instant>) {
    let addresses: Vec<String> = shared.control.catalog().leaves.values().map(|leaf| leaf.address.clone()).collect();
    // A leaf that does not answer is asked again the next time.
    let asked = in_parallel(&addresses, |address| Ok(shared.leaves.leaf(address).and_then(|leaf| leaf.in_doubt()).ok()));
    let Ok(asked) = asked else { return };
    let mut known = HashMap::new();
    for (address, in_doubt) in addresses.iter().zip(asked) {
        for one in in_doubt.into_iter().flatten() {
            let key = (address.clone(), one);
            let began = since.get(&key).copied().unwrap_or_else(Instant::now);
            if began.elapsed() >= PATIENCE {
                resolve_one(shared, address, &key.1);
            }
            known.insert(key, began);
        }
    }
    *since = known;
}

fn resolve_one(shared: &Shared, address: &str, one: &InDoubt) {
    let InDoubt { database, ordinal, transaction, decider } = one;
    let Some(of_decider) = master(shared, database, *decider) else { return };
    let outcome = shared.leaves.leaf(&of_decider).and_then(|leaf| leaf.outcome(database, *decider, *transaction));
    let told = outcome.and_then(|commit| {
        shared.leaves.leaf(address)?.resolve(database, *ordinal, *transaction, commit)?;
        Ok(commit)
    });
    match told {
        Ok(commit) => {
            let commit = commit.is_some();
            tracing::info!(transaction, ordinal, commit, leaf = address, "a transaction was in doubt");
        }
        Err(failure) => tracing::debug!(transaction, %failure, "a transaction stays in doubt"),
    }
}
