//! The coordinator that leads looks after the leaves: it tells them what the catalog wants of them, hears how their copies stand, and
//! changes the catalog when one is gone, back, behind or has caught up.
//!
//! A thread a leaf sends heartbeats. What follows from a report is decided ([`decide`]) and changed in the catalog before the next one
//! is dealt with, one report at a time over all leaves: a master may rely on it that a report was dealt with when orders say so. Data
//! moves only to copies that the catalog names: a leaf that is gone loses its roles to replicas that have everything, and a leaf that
//! is back brings its own copies up to date.

mod decide;
mod moves;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use stoa_rpc::LeafPool;
use stoa_rpc::replication::{CopyRole, FedState, Orders, Report};

use crate::catalog::{Catalog, Command, LeafState, NodeId, Partition};
use crate::cluster::Shared;
use crate::control::Control;
use crate::{Error, Result};

use decide::{Contact, is_gone};
pub use decide::{Patience, commands, orders};
pub use moves::{Moves, moves, steps};
pub(crate) use moves::{Progress, progress};

/// How often a leaf is asked.
const BEAT: Duration = Duration::from_millis(200);
/// How often somebody looks who is gone.
const LOOK: Duration = Duration::from_millis(50);
/// A call that fails within this time was refused; after it, it was not answered.
const AT_ONCE: Duration = Duration::from_millis(500);
/// A leaf that is back and cannot take part yet is tried again so often.
const RETURN: Duration = Duration::from_millis(500);
/// A leaf whose log fails again and again begins a new term so often.
const NEW_TERM: Duration = Duration::from_secs(2);

/// What is known of the leaves. Without anybody who asks them it is empty.
#[derive(Default)]
pub struct Supervision {
    /// Held while it is decided what follows from a report or from silence.
    deciding: Mutex<()>,
    known: Mutex<BTreeMap<NodeId, Known>>,
    /// Copies that jobs bring up to date, and since when.
    copying: Mutex<BTreeMap<Place, Instant>>,
}

/// Database, partition and leaf of a copy.
type Place = (String, u32, NodeId);

/// What is known of a leaf.
struct Known {
    heard: Instant,
    refused: Option<Instant>,
    report: Report,
    /// The incarnation and the number of the last report that was dealt with.
    processed: (u64, u64),
    /// When a partition of it began a new term because its log had failed.
    new_term: Option<Instant>,
    /// The incarnation that was found to have every database.
    whole: u64,
    /// When it could last not take part again, and why.
    kept_out: Option<(Instant, String)>,
}

impl Known {
    fn new() -> Known {
        Known {
            heard: Instant::now(),
            refused: None,
            report: Report::default(),
            processed: (0, 0),
            new_term: None,
            whole: 0,
            kept_out: None,
        }
    }
}

impl Supervision {
    /// What a leaf is to have.
    pub(crate) fn orders(&self, control: &Control, leaf: NodeId) -> Arc<Orders> {
        // Before the catalog is looked at: it has what came of this report.
        let (processed, kept) = self.known.lock().get(&leaf).map_or(((0, 0), None), |k| (k.processed, Some(k.report.kept)));
        let catalog = control.catalog();
        let copies = decide::orders(&catalog, leaf);
        // A leaf that has said what it keeps gets what it lacks.
        let keep = kept.filter(|kept| *kept != catalog.version).and_then(|_| serde_json::to_vec(&*catalog).ok());
        Arc::new(Orders { version: catalog.version, processed, copies, supersedes: 0, catalog: keep.unwrap_or_default() })
    }

    /// A leaf has just answered somebody, while nobody listened to its heartbeats.
    pub(crate) fn heard(&self, leaf: NodeId) {
        let mut known = self.known.lock();
        let known = known.entry(leaf).or_insert_with(Known::new);
        (known.heard, known.refused) = (Instant::now(), None);
    }

    /// Notes which copies jobs bring up to date now. Every coordinator does.
    fn note_copies(&self, catalog: &Catalog) {
        let jobs = catalog.databases.iter().filter(|(_, database)| database.job.is_some());
        let copies = jobs.flat_map(|(name, database)| {
            let of = move |(ordinal, partition): (u32, &Partition)| {
                partition.copies.spares.iter().map(move |leaf| (name.clone(), ordinal, *leaf)).collect::<Vec<Place>>()
            };
            (0u32..).zip(&database.partitions).flat_map(of)
        });
        let mut known = self.copying.lock();
        *known = copies
            .map(|copy| (known.get(&copy).copied().unwrap_or_else(Instant::now), copy))
            .map(|(at, copy)| (copy, at))
            .collect();
    }

    /// For how long a job has brought a copy up to date, as far as this coordinator knows.
    pub(crate) fn copied_for(&self, name: &str, partition: u32, leaf: NodeId) -> Option<Duration> {
        self.copying.lock().get(&(name.to_owned(), partition, leaf)).map(Instant::elapsed)
    }

    /// The last reports of the leaves.
    pub(crate) fn reports(&self) -> BTreeMap<NodeId, Report> {
        self.known.lock().iter().map(|(id, known)| (*id, known.report.clone())).collect()
    }
}

/// Whether the copy of a partition on a leaf has everything that its master acknowledged, by the last reports.
#[must_use]
pub fn in_sync(catalog: &Catalog, reports: &BTreeMap<NodeId, Report>, name: &str, ordinal: u32, leaf: NodeId) -> bool {
    let partition = catalog.databases.get(name).and_then(|d| d.partitions.get(ordinal as usize));
    let (Some(partition), Some(leaf)) = (partition, catalog.leaves.get(&leaf)) else { return false };
    let report = partition.copies.master.and_then(|master| reports.get(&master));
    let copy = report.and_then(|report| report.copies.iter().find(|c| (c.database.as_str(), c.ordinal) == (name, ordinal)));
    let fed = copy.filter(|copy| copy.role == CopyRole::Master && copy.term == partition.term).map(|copy| &copy.fed);
    fed.is_some_and(|fed| fed.iter().any(|fed| fed.address == leaf.address && fed.state == FedState::InSync))
}

/// Looks after the leaves as long as it lives, whenever this coordinator leads.
pub struct Supervisor(Arc<AtomicBool>);

impl Supervisor {
    /// Begins; `leaves` leads to the leaves, and is used for heartbeats alone.
    ///
    /// # Errors
    /// If there is no thread for it.
    pub fn start(shared: &Shared, leaves: LeafPool, patience: Patience) -> Result<Supervisor> {
        let ended = Arc::new(AtomicBool::new(false));
        let watch = Watch { shared: shared.clone(), leaves: Arc::new(leaves), patience, ended: ended.clone() };
        thread("stoa-supervisor", move || watch.run())?;
        Ok(Supervisor(ended))
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Starts a thread that nobody waits for.
pub(crate) fn thread(name: &str, run: impl FnOnce() + Send + 'static) -> Result<()> {
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    spawned.map(drop).map_err(|e| Error::Invalid(format!("cannot start a thread: {e}")))
}

#[derive(Clone)]
struct Watch {
    shared: Shared,
    leaves: Arc<LeafPool>,
    patience: Patience,
    ended: Arc<AtomicBool>,
}

impl Watch {
    fn over(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    fn supervision(&self) -> &Supervision {
        self.shared.control.supervision()
    }

    /// Has a thread for every leaf, and takes out those that are gone.
    fn run(&self) {
        let mut asked: HashMap<NodeId, Arc<AtomicBool>> = HashMap::new();
        let mut led = false;
        while !self.over() {
            let leads = self.shared.control.leads();
            let catalog = self.shared.control.catalog();
            if leads && !led {
                // Nobody is gone because this coordinator did not listen.
                let mut known = self.supervision().known.lock();
                known.values_mut().for_each(|k| (k.heard, k.refused) = (Instant::now(), None));
            }
            led = leads;
            self.supervision().note_copies(&catalog);
            asked.retain(|id, ended| {
                let stays = catalog.leaves.contains_key(id);
                ended.store(!stays, Ordering::Relaxed);
                stays
            });
            for id in catalog.leaves.keys() {
                if !asked.contains_key(id) {
                    let ended = Arc::new(AtomicBool::new(false));
                    let (watch, leaf, end) = (self.clone(), *id, ended.clone());
                    if thread("stoa-heartbeat", move || watch.ask(leaf, &end)).is_ok() {
                        asked.insert(*id, ended);
                    }
                }
            }
            if leads {
                self.look(&catalog);
                self.finish_jobs(&catalog);
                if let Err(error) = self.shared.control.end_receiving(&catalog) {
                    tracing::warn!(%error, "REFERENCE tables cannot be changed yet");
                }
            }
            std::thread::sleep(LOOK);
        }
        asked.values().for_each(|ended| ended.store(true, Ordering::Relaxed));
    }

    /// Takes out the leaves that are gone.
    fn look(&self, catalog: &Catalog) {
        for (id, leaf) in catalog.leaves.iter().filter(|(_, leaf)| leaf.state == LeafState::Online) {
            let contact = {
                let mut known = self.supervision().known.lock();
                let known = known.entry(*id).or_insert_with(Known::new);
                Contact { silent: known.heard.elapsed(), refused: known.refused.map(|since| since.elapsed()) }
            };
            if is_gone(contact, self.patience) {
                let _deciding = self.supervision().deciding.lock();
                let gone = Command::TakeOut { address: leaf.address.clone(), state: LeafState::Offline };
                match self.shared.control.decide(&gone) {
                    Ok(()) => tracing::warn!(leaf = leaf.address, ?contact, "a leaf is gone"),
                    Err(error) => tracing::warn!(leaf = leaf.address, %error, "a leaf is gone, and cannot be taken out"),
                }
            }
        }
    }

    /// Asks a leaf again and again.
    fn ask(&self, id: NodeId, ended: &AtomicBool) {
        while !self.over() && !ended.load(Ordering::Relaxed) {
            let catalog = self.shared.control.catalog();
            if self.shared.control.leads()
                && let Some(leaf) = catalog.leaves.get(&id)
            {
                let mut orders = self.supervision().orders(&self.shared.control, id);
                if self.is_misled(id) {
                    let report = self.supervision().reports().remove(&id).unwrap_or_default();
                    Arc::make_mut(&mut orders).supersedes = report.version;
                }
                let began = Instant::now();
                match self.leaves.leaf(&leaf.address).and_then(|leaf| leaf.heartbeat(&orders)) {
                    Ok(report) => self.hear(id, &leaf.address, &report),
                    Err(failure) => {
                        tracing::debug!(leaf = leaf.address, %failure, "no answer to a heartbeat");
                        let mut known = self.supervision().known.lock();
                        let known = known.entry(id).or_insert_with(Known::new);
                        if began.elapsed() < AT_ONCE {
                            known.refused.get_or_insert(began);
                        }
                    }
                }
            }
            // A leaf hears at once of a catalog that changed.
            self.shared.control.wait_for_change(catalog.version, BEAT);
        }
    }

    /// Whether a leaf keeps to orders that nobody who leads can have given: something else spoke to it.
    fn is_misled(&self, id: NodeId) -> bool {
        let says = self.supervision().known.lock().get(&id).map_or(0, |known| known.report.version);
        let control = &self.shared.control;
        says > control.catalog().version && control.confirm().is_ok() && says > control.catalog().version
    }

    /// A leaf has reported.
    fn hear(&self, id: NodeId, address: &str, report: &Report) {
        let (renewed, whole) = {
            let mut known = self.supervision().known.lock();
            let known = known.entry(id).or_insert_with(Known::new);
            (known.heard, known.refused) = (Instant::now(), None);
            known.report = report.clone();
            (known.new_term.is_some_and(|at| at.elapsed() < NEW_TERM), known.whole == report.incarnation)
        };
        let state = self.shared.control.catalog().leaves.get(&id).map(|leaf| leaf.state);
        if state == Some(LeafState::Offline) {
            return self.let_return(id, address);
        }
        if !whole
            && state == Some(LeafState::Online)
            && let Err(error) = self.look_through(id, address, report.incarnation)
        {
            tracing::warn!(leaf = address, %error, "it is not known whether a leaf that began anew has its databases");
            return;
        }
        let _deciding = self.supervision().deciding.lock();
        if let Err(error) = self.deal_with(id, report, renewed) {
            tracing::warn!(leaf = address, %error, "what a leaf reports cannot be taken into the catalog");
        }
    }

    /// A leaf that was gone takes part again, if it can.
    fn let_return(&self, id: NodeId, address: &str) {
        let kept_out = self.supervision().known.lock().get(&id).and_then(|known| known.kept_out.clone());
        if kept_out.as_ref().is_some_and(|(at, _)| at.elapsed() < RETURN) {
            return;
        }
        let error = self.shared.control.rejoin(&self.shared, address).err().map(|error| error.to_string());
        // Once, as long as it is the same one.
        if let Some(error) = error.as_ref().filter(|error| kept_out.is_none_or(|(_, before)| before != **error)) {
            tracing::warn!(leaf = address, error, "a leaf is back, and cannot take part yet");
        }
        if let Some(known) = self.supervision().known.lock().get_mut(&id) {
            known.kept_out = error.map(|error| (Instant::now(), error));
        }
    }

    /// A leaf whose process began anew before anybody missed it may have lost its disk: then it is gone, and comes back as one that has
    /// nothing.
    fn look_through(&self, id: NodeId, address: &str, incarnation: u64) -> Result<()> {
        let control = &self.shared.control;
        if control.lacks_a_database(address)? {
            let _deciding = self.supervision().deciding.lock();
            control.decide(&Command::TakeOut { address: address.to_owned(), state: LeafState::Offline })?;
            control.decide(&Command::FallBehind { address: address.to_owned() })?;
            tracing::error!(leaf = address, "a leaf has lost its data");
        } else if let Some(known) = self.supervision().known.lock().get_mut(&id) {
            known.whole = incarnation;
        }
        Ok(())
    }

    /// Changes the catalog as a report wants it.
    fn deal_with(&self, id: NodeId, report: &Report, renewed: bool) -> Result<()> {
        let control = &self.shared.control;
        if !decide::commands(&control.catalog(), id, report).is_empty() {
            control.confirm()?;
            for command in decide::commands(&control.catalog(), id, report) {
                let new_term = matches!(command, Command::BeginTerm { .. });
                if new_term && renewed {
                    continue;
                }
                match control.decide(&command) {
                    Ok(()) => tracing::info!(?command, "decided"),
                    // Whether it was taken is not known: the report counts as not dealt with.
                    Err(error) if error.is_retryable() => return Err(error),
                    Err(error) => tracing::warn!(?command, %error, "not decided"),
                }
                if new_term && let Some(known) = self.supervision().known.lock().get_mut(&id) {
                    known.new_term = Some(Instant::now());
                }
            }
        }
        self.move_copies(id)?;
        if let Some(known) = self.supervision().known.lock().get_mut(&id) {
            known.processed = (report.incarnation, report.sequence);
        }
        Ok(())
    }

    /// Does what is next for jobs, of partitions whose master has just reported.
    fn move_copies(&self, master: NodeId) -> Result<()> {
        let control = &self.shared.control;
        if control.catalog().databases.values().all(|database| database.job.is_none()) {
            return Ok(());
        }
        control.confirm()?;
        let catalog = control.catalog();
        let reports = self.supervision().reports();
        for (name, database) in &catalog.databases {
            let Some(Ok(steps)) = database.job.map(|job| steps(&catalog, database, job)) else { continue };
            let in_sync = |ordinal: u32, leaf: NodeId| in_sync(&catalog, &reports, name, ordinal, leaf);
            let mut moves = moves(&catalog, name, &steps, &in_sync);
            let reported = |ordinal: u32| database.partitions[ordinal as usize].copies.master == Some(master);
            moves.changes.retain(|change| reported(change.partition));
            if moves.changes.is_empty() {
                continue;
            }
            control.decide(&Command::SetPartitions(moves.changes.clone()))?;
            tracing::info!(database = name, changes = ?moves.changes, "copies move");
            for (ordinal, leaf) in moves.dropped.into_iter().filter(|(ordinal, _)| reported(*ordinal)) {
                self.drop_copy(&catalog, name, ordinal, leaf);
            }
        }
        Ok(())
    }

    /// Has a leaf remove a copy that the catalog does not have any more. If it cannot now, the copy is an orphan.
    fn drop_copy(&self, catalog: &Catalog, database: &str, ordinal: u32, leaf: NodeId) {
        let Some(leaf) = catalog.leaves.get(&leaf).map(|leaf| leaf.address.clone()) else { return };
        let (watch, database) = (self.clone(), database.to_owned());
        let drop = move || {
            let dropped = watch
                .shared
                .control
                .order(std::slice::from_ref(&leaf))
                .and_then(|()| Ok(watch.leaves.leaf(&leaf)?.drop_partition(&database, ordinal)?));
            if let Err(error) = dropped {
                tracing::warn!(leaf, database, ordinal, %error, "a copy that is not needed any more stays as an orphan");
            }
        };
        let _ = thread("stoa-drop", drop);
    }

    /// Jobs that have nothing left to do are done.
    fn finish_jobs(&self, catalog: &Catalog) {
        for (name, database) in &catalog.databases {
            let Some(job) = database.job else { continue };
            let left = steps(catalog, database, job);
            if left.as_ref().is_ok_and(|steps| !steps.is_empty()) {
                continue;
            }
            if let Err(error) = left {
                tracing::warn!(database = name, %error, "a rebalance cannot go on");
            }
            let _deciding = self.supervision().deciding.lock();
            let _ = self.shared.control.decide(&Command::SetJob { database: name.clone(), job: None });
        }
    }
}
