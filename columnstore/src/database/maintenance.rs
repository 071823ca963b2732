//! What is done in the background: rows in memory go to segments, small segments become large ones, a manifest takes the place of
//! the log.
//!
//! One thread a data directory, begun by the first commit that leaves something to do. It never makes a reader wait; a writer waits
//! only if it fills memory faster than the thread empties it. What fails in one partition does not keep it from the others, nor from
//! writing the manifest. Merges rest, so that queries and writers have most of the machine ([`super::pace`]); flushes do not, and do not
//! wait for merges: memory needs them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::Thread;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use super::Database;
use super::merging::due_merge;
use super::tasks::{Task, Tasks};
use crate::definition::{Durability, Options};
use crate::table::{Partition, Table};
use crate::{Error, Result};

/// Rows in memory wait at most so long for others.
const FLUSH_AGE: Duration = Duration::from_secs(30);
/// Commits that did not wait for the disk wait so long for others.
const SYNC_EVERY: Duration = Duration::from_millis(100);
/// Writers wait when a partition has so many times the rows in memory that make the flusher seal them.
const FULL: usize = 8;
/// With more segments to merge in a partition, queries suffer more from them than from a merge: it does not rest.
const URGENT: usize = 64;

/// The thread, and how it is told that there is something to do.
#[derive(Default)]
pub(crate) struct Maintenance {
    /// Held by whoever flushes.
    flushing: Mutex<()>,
    /// Held by whoever merges.
    merging: Mutex<()>,
    /// Held by whoever makes a checkpoint.
    checkpointing: Mutex<()>,
    thread: Mutex<Option<Thread>>,
    /// A commit came since the thread last looked.
    due: AtomicBool,
    pub(super) tasks: Mutex<Tasks>,
}

impl Maintenance {
    pub(super) fn checkpointing(&self) -> MutexGuard<'_, ()> {
        self.checkpointing.lock()
    }
}

/// What is to be done with a partition.
struct Work {
    segments: Vec<u64>,
    /// Rows in memory before this number.
    through: u64,
}

impl Work {
    fn merge(segments: Vec<u64>) -> Work {
        Work { segments, through: 0 }
    }

    /// Of all segments.
    fn merge_all(part: &Partition) -> Work {
        Work::merge(part.segments.iter().map(|s| s.segment.id()).collect())
    }

    fn flush_all(part: &Partition) -> Work {
        Work { segments: vec![], through: part.memory.next() }
    }
}

/// Whether so many rows are in memory that they go to a segment.
pub(super) fn is_flush_due(part: &Partition, options: &Options) -> bool {
    part.memory.rows() as usize >= options.flush_rows || part.memory.bytes() >= options.flush_bytes
}

impl Database {
    /// Why the background thread could not do what it last tried, if it could not.
    #[must_use]
    pub fn maintenance_error(&self) -> Option<String> {
        self.maintenance.tasks.lock().any_error().map(str::to_owned)
    }

    /// Seals the rows in memory of a table into segments.
    ///
    /// # Errors
    /// [`Error::NoSuchTable`]; [`Error::Io`], after all partitions were tried.
    pub fn flush_table(self: &Arc<Self>, name: &str) -> Result<()> {
        let table = self.existing(name)?;
        each_partition(&table, |partition| {
            self.do_work(Task::Flush(table.id, partition), |part| Ok(Work::flush_all(part))).map(drop)
        })
    }

    /// Merges what the background thread would merge by and by; with `full`, all segments of each partition into one run in the order of
    /// the sort key, without deleted rows, for which the partition must fit into memory.
    ///
    /// # Errors
    /// As [`Database::flush_table`].
    pub fn optimize_table(self: &Arc<Self>, name: &str, full: bool) -> Result<()> {
        let table = self.existing(name)?;
        if full {
            self.flush_table(name)?;
        }
        each_partition(&table, |partition| {
            let task = Task::Merge(table.id, partition);
            if full {
                return self.do_work(task, |part| Ok(Work::merge_all(part))).map(drop);
            }
            while self.merge_once(task)? {}
            Ok(())
        })
    }

    fn existing(&self, name: &str) -> Result<Arc<Table>> {
        Ok(Arc::clone(self.catalog().named(name)?))
    }

    /// Whether a merge was due and done.
    fn merge_once(self: &Arc<Self>, task: Task) -> Result<bool> {
        self.do_work(task, |part| Ok(Work::merge(due_merge(part, &self.options)?.segments)))
    }

    /// Does to a partition as it is now what `of` says; whether there was anything to do that could be done.
    fn do_work(self: &Arc<Self>, task: Task, of: impl FnOnce(&Partition) -> Result<Work>) -> Result<bool> {
        let (alone, id, partition) = match task {
            Task::Flush(table, partition) => (&self.maintenance.flushing, table, partition),
            Task::Merge(table, partition) => (&self.maintenance.merging, table, partition),
            Task::Checkpoint => return Ok(false),
        };
        let _alone = alone.lock();
        self.attempt(task, || {
            let catalog = self.catalog();
            let Some(table) = catalog.table_of(id) else { return Ok(false) };
            let Some(part) = table.partitions.get(partition) else { return Ok(false) };
            let Work { segments, through } = of(part)?;
            if segments.is_empty() && through <= part.memory.first() {
                return Ok(false);
            }
            self.maintenance.tasks.lock().begin(task);
            self.rewrite(table, partition, &segments, through)
        })
    }

    /// Does a task, and notes how it went.
    pub(super) fn attempt<T>(&self, task: Task, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let result = work();
        // That another copy is the master now is no failure.
        let error = result.as_ref().err().filter(|error| !matches!(error, Error::NotMaster(_)));
        if self.maintenance.tasks.lock().end(task, error, Instant::now()) {
            let directory = self.root().display();
            match error {
                Some(error) => tracing::warn!(%directory, ?task, %error, "maintenance fails: it is tried again"),
                None => tracing::info!(%directory, ?task, "maintenance works again"),
            }
        }
        result
    }

    /// Waits, by flushing, while tables have too many rows in memory.
    pub(crate) fn make_room(self: &Arc<Self>, tables: &[u64]) -> Result<()> {
        let full = |table: &Table| {
            let over = |part: &Arc<Partition>| {
                part.memory.rows() as usize >= self.options.flush_rows.saturating_mul(FULL)
                    || part.memory.bytes() >= self.options.flush_bytes.saturating_mul(FULL)
            };
            table.partitions.iter().any(over)
        };
        let catalog = self.catalog();
        for table in tables.iter().filter_map(|id| catalog.table_of(*id)).filter(|table| full(table)) {
            self.flush_table(table.name())?;
        }
        Ok(())
    }

    /// Has the background thread look whether there is something to do.
    pub(crate) fn maintain_soon(self: &Arc<Self>) {
        if self.options.eager_maintenance {
            return self.maintain_now();
        }
        if self.maintenance.due.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut thread = self.maintenance.thread.lock();
        match &*thread {
            Some(thread) => thread.unpark(),
            None => {
                let weak = Arc::downgrade(self);
                let spawned = std::thread::Builder::new().name("stoa-maintenance".into()).spawn(move || run(&weak));
                // Without a thread, the next commit tries again.
                *thread = spawned.ok().map(|handle| handle.thread().clone());
            }
        }
    }

    /// Flushes and merges all that there is, and writes a manifest; unless somebody does such a thing, whose commit this may be.
    fn maintain_now(self: &Arc<Self>) {
        let Maintenance { flushing, merging, checkpointing, .. } = &self.maintenance;
        if flushing.try_lock().is_none() || merging.try_lock().is_none() || checkpointing.try_lock().is_none() {
            return;
        }
        // What fails here fails again when somebody asks for it.
        for (table, partition) in self.own_partitions() {
            let _ = self.do_work(Task::Flush(table.id, partition), |part| Ok(Work::flush_all(part)));
            let merge = |part: &Partition| match part.segments.len() {
                0 | 1 => Ok(Work::merge(due_merge(part, &self.options)?.segments)),
                _ => Ok(Work::merge_all(part)),
            };
            let _ = self.do_work(Task::Merge(table.id, partition), merge);
        }
        let _ = self.checkpoint();
    }

    /// Every partition whose segments this copy decides on: what a replica has in segments, its master decides.
    fn own_partitions(&self) -> Vec<(Arc<Table>, usize)> {
        let mut tables = if self.is_master() { self.tables() } else { vec![] };
        tables.sort_unstable_by_key(|table| table.id);
        let of = |table: Arc<Table>| (0..table.partitions.len()).map(move |partition| (Arc::clone(&table), partition));
        tables.into_iter().flat_map(of).collect()
    }

    fn has_failed(&self, task: Task) -> bool {
        self.maintenance.tasks.lock().error(task).is_some()
    }

    fn may_begin(&self, task: Task) -> bool {
        self.maintenance.tasks.lock().may_begin(task, Instant::now())
    }
}

/// Does something with each partition, whatever comes of the others; the first error.
fn each_partition(table: &Table, mut work: impl FnMut(usize) -> Result<()>) -> Result<()> {
    let mut first = Ok(());
    for partition in 0..table.partitions.len() {
        let done = work(partition);
        first = first.and(done);
    }
    first
}

/// What the thread keeps from one look to the next.
#[derive(Default)]
struct Rounds {
    /// Since when there are rows in memory.
    oldest: Option<Instant>,
    /// When to look again although nothing was committed.
    again: Option<Instant>,
    /// The last partition that was merged: the next turn is another's.
    merged: (u64, usize),
}

impl Rounds {
    /// Does what is due; with `aged`, flushes all rows in memory.
    fn look(&mut self, database: &Arc<Database>, aged: bool) {
        let parts = database.own_partitions();
        let is_there = |task: Task| match task {
            Task::Flush(id, number) | Task::Merge(id, number) => {
                parts.binary_search_by_key(&(id, number), |(table, partition)| (table.id, *partition)).is_ok()
            }
            Task::Checkpoint => true,
        };
        database.maintenance.tasks.lock().retain(is_there);
        // Errors are noted where they happen: the others go on.
        for (table, partition) in parts {
            let (part, task) = (&table.partitions[partition], Task::Flush(table.id, partition));
            let aged = aged && part.memory.next() > part.memory.first();
            if (aged || is_flush_due(part, &database.options) || database.has_failed(task)) && database.may_begin(task) {
                let _ = database.do_work(task, |part| Ok(Work::flush_all(part)));
            }
        }
        let rested = self.merge(database);
        let log_is_long = database.log_bytes() >= database.options.checkpoint_bytes;
        if (log_is_long || aged || database.has_failed(Task::Checkpoint)) && database.may_begin(Task::Checkpoint) {
            let _ = database.checkpoint();
        }
        let retried = database.maintenance.tasks.lock().next(Instant::now());
        self.again = rested.into_iter().chain(retried).min();
    }

    /// Merges what is due, as long as it is our turn. When to look again, if it is not.
    fn merge(&mut self, database: &Arc<Database>) -> Option<Instant> {
        let mut parts = database.own_partitions();
        let next = parts.partition_point(|(table, partition)| (table.id, *partition) <= self.merged);
        parts.rotate_left(next);
        let mut again = None;
        for (table, partition) in parts {
            let task = Task::Merge(table.id, partition);
            let due = due_merge(&table.partitions[partition], &database.options);
            let turn = match due.map(|due| due.waiting) {
                Ok(0) if !database.has_failed(task) => continue,
                // What failed is over.
                Ok(0) => None,
                _ if !database.may_begin(task) => continue,
                Ok(waiting) if (1..=URGENT).contains(&waiting) => match database.options.merge_pace.turn(Instant::now()) {
                    Ok(turn) => Some(turn),
                    Err(at) => {
                        again = Some(at);
                        continue;
                    }
                },
                _ => None,
            };
            if let Ok(true) = database.merge_once(task) {
                self.merged = (table.id, partition);
            }
            drop(turn);
        }
        again
    }

    /// How long the thread sleeps if nothing is committed.
    fn pause(&self, unsynced: bool) -> Duration {
        let pause = match (unsynced, self.oldest.is_some()) {
            (true, _) => SYNC_EVERY,
            (false, true) => Duration::from_secs(1),
            (false, false) => Duration::from_secs(60),
        };
        self.again.map_or(pause, |again| again.saturating_duration_since(Instant::now()).min(pause))
    }
}

/// The thread: until the directory is closed.
fn run(database: &Weak<Database>) {
    let mut rounds = Rounds::default();
    loop {
        let Some(database) = database.upgrade() else { return };
        let due = database.maintenance.due.swap(false, Ordering::AcqRel);
        let aged = rounds.oldest.is_some_and(|since| since.elapsed() >= FLUSH_AGE);
        if due || aged || rounds.again.is_some_and(|again| again <= Instant::now()) {
            rounds.look(&database, aged);
        }
        if database.durability() == Durability::Async {
            // What fails here, the next commit finds and heals.
            let _ = database.sync();
        }
        let unsynced = database.is_unsynced();
        let waiting = database.tables().iter().any(|table| table.rows_in_memory() > 0);
        rounds.oldest = if waiting && !aged { rounds.oldest.or_else(|| Some(Instant::now())) } else { None };
        drop(database);
        // Commits that come one after the other are looked at together.
        std::thread::sleep(Duration::from_millis(5));
        std::thread::park_timeout(rounds.pause(unsynced));
    }
}
