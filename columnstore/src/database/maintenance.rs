//! What is done in the background: rows in memory go to segments, small segments become large ones, a manifest takes the place of
//! the log.
//!
//! One thread a data directory, begun by the first commit that leaves something to do. It never makes a reader wait; a writer waits
//! only if it fills memory faster than the thread empties it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::Thread;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};

use super::Database;
use crate::Result;
use crate::definition::Durability;
use crate::table::{Partition, Stored, Table};

/// Segments of one size class that are merged into one.
const FAN_IN: usize = 8;
/// Rows of the smallest size class; each next one is [`FAN_IN`] times as large.
const LEAST_ROWS: u64 = 1 << 13;
/// Rows in memory wait at most so long for others.
const FLUSH_AGE: Duration = Duration::from_secs(30);
/// Commits that did not wait for the disk wait so long for others.
const SYNC_EVERY: Duration = Duration::from_millis(100);
/// Writers wait when a partition has so many times the rows in memory that make the flusher seal them.
const FULL: usize = 8;

/// The thread, and how it is told that there is something to do.
#[derive(Default)]
pub(crate) struct Maintenance {
    /// Held by whoever flushes, merges or writes a manifest.
    alone: Mutex<()>,
    thread: Mutex<Option<Thread>>,
    /// A commit came since the thread last looked.
    due: AtomicBool,
    /// The last error of the thread, for people.
    failed: Mutex<Option<String>>,
}

impl Maintenance {
    pub(crate) fn alone(&self) -> MutexGuard<'_, ()> {
        self.alone.lock()
    }
}

/// How a table stands, for `SHOW COLUMNAR MERGE STATUS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergeStatus {
    /// The table.
    pub table: String,
    /// The partition.
    pub partition: u32,
    /// Its segments.
    pub segments: u64,
    /// Those that the next merge will take.
    pub to_merge: u64,
    /// Rows that are in memory only.
    pub rows_in_memory: u64,
    /// Rows that are deleted and still take room.
    pub deleted_rows: u64,
}

/// What is to be done with a partition.
#[derive(Debug, PartialEq, Eq)]
struct Work {
    segments: Vec<u64>,
    /// Rows in memory before this number.
    through: u64,
}

impl Database {
    /// How each partition of each table stands.
    #[must_use]
    pub fn merge_status(&self) -> Vec<MergeStatus> {
        let mut all = Vec::new();
        for table in self.tables() {
            for (number, part) in table.partitions.iter().enumerate() {
                all.push(MergeStatus {
                    table: table.name().to_owned(),
                    partition: table.ordinal(number),
                    segments: part.segments.len() as u64,
                    to_merge: merge_of(part, self.options.segment_rows as u64).len() as u64,
                    rows_in_memory: part.memory.rows(),
                    deleted_rows: part.segments.iter().map(Stored::deleted_rows).sum::<u64>() + part.memory.deleted().len(),
                });
            }
        }
        all
    }

    /// Why the background thread could not do what it last tried, if it could not.
    #[must_use]
    pub fn maintenance_error(&self) -> Option<String> {
        self.maintenance.failed.lock().clone()
    }

    /// Seals the rows in memory of a table into segments.
    ///
    /// # Errors
    /// [`crate::Error::NoSuchTable`], [`crate::Error::Io`].
    pub fn flush_table(self: &Arc<Self>, name: &str) -> Result<()> {
        let _alone = self.maintenance.alone();
        for partition in 0..self.existing(name)?.partitions.len() {
            self.do_work(&self.existing(name)?, partition, |part| Work { segments: vec![], through: part.memory.next() })?;
        }
        Ok(())
    }

    /// Merges what the background thread would merge by and by; with `full`, all segments of each partition into one run in the order of
    /// the sort key, without deleted rows.
    ///
    /// # Errors
    /// As [`Database::flush_table`].
    pub fn optimize_table(self: &Arc<Self>, name: &str, full: bool) -> Result<()> {
        let _alone = self.maintenance.alone();
        let most = self.options.segment_rows as u64;
        for partition in 0..self.existing(name)?.partitions.len() {
            if full {
                let all = |part: &Partition| Work {
                    segments: part.segments.iter().map(|s| s.segment.id()).collect(),
                    through: part.memory.next(),
                };
                self.do_work(&self.existing(name)?, partition, all)?;
            }
            while !full
                && self.do_work(&self.existing(name)?, partition, |part| Work { segments: merge_of(part, most), through: 0 })?
            {
            }
        }
        Ok(())
    }

    fn existing(&self, name: &str) -> Result<Arc<Table>> {
        Ok(Arc::clone(self.catalog().named(name)?))
    }

    /// Whether there was anything to do that could be done.
    fn do_work(self: &Arc<Self>, table: &Arc<Table>, partition: usize, of: impl FnOnce(&Partition) -> Work) -> Result<bool> {
        let part = &table.partitions[partition];
        let Work { segments, through } = of(part);
        if segments.is_empty() && through <= part.memory.first() {
            return Ok(false);
        }
        self.rewrite(table, partition, &segments, through)
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
            // What fails here fails again when somebody asks for it.
            if let Some(_alone) = self.maintenance.alone.try_lock() {
                let _ = if self.is_master() { self.maintain(true, true) } else { Ok(()) };
                drop(_alone);
                let _ = self.checkpoint();
            }
            return;
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

    /// Flushes and merges once what is due; with `flush` all rows in memory, with `merge` all segments.
    fn maintain(self: &Arc<Self>, flush: bool, merge: bool) -> Result<()> {
        let most = self.options.segment_rows as u64;
        for table in self.tables() {
            for partition in 0..table.partitions.len() {
                let flushed = |part: &Partition| {
                    let due = flush
                        || part.memory.rows() as usize >= self.options.flush_rows
                        || part.memory.bytes() >= self.options.flush_bytes;
                    Work { segments: vec![], through: if due { part.memory.next() } else { 0 } }
                };
                self.do_work(&table, partition, flushed)?;
                let Some(table) = self.table(table.name()) else { break };
                let merged = |part: &Partition| Work {
                    segments: if merge && part.segments.len() > 1 {
                        part.segments.iter().map(|s| s.segment.id()).collect()
                    } else {
                        merge_of(part, most)
                    },
                    through: 0,
                };
                if partition < table.partitions.len() {
                    self.do_work(&table, partition, merged)?;
                }
            }
        }
        Ok(())
    }
}

/// The segments of a partition that should be merged now: those of which a quarter is deleted, and [`FAN_IN`] or more of a size class.
fn merge_of(part: &Partition, segment_rows: u64) -> Vec<u64> {
    let small = |rows: u64| rows < segment_rows / 2;
    let mut classes: std::collections::BTreeMap<u32, Vec<u64>> = std::collections::BTreeMap::new();
    let mut merged: Vec<u64> = Vec::new();
    for stored in &part.segments {
        let rows = stored.rows();
        if stored.deleted_rows() * 4 >= stored.segment.rows() as u64 {
            merged.push(stored.segment.id());
        } else if small(rows) {
            let class = (rows / LEAST_ROWS + 1).ilog(FAN_IN as u64);
            classes.entry(class).or_default().push(stored.segment.id());
        }
    }
    // What is merged for a larger class takes the smaller ones with it.
    if let Some(largest) = classes.iter().rev().find(|(_, ids)| ids.len() >= FAN_IN).map(|(class, _)| *class) {
        classes.range(..=largest).for_each(|(_, ids)| merged.extend(ids));
    }
    merged
}

/// The thread: until the directory is closed.
fn run(database: &Weak<Database>) {
    let mut oldest: Option<Instant> = None;
    loop {
        let Some(database) = database.upgrade() else { return };
        let due = database.maintenance.due.swap(false, Ordering::AcqRel);
        let aged = oldest.is_some_and(|since| since.elapsed() >= FLUSH_AGE);
        if due || aged {
            // What a replica has in segments, its master decides.
            let result = if database.is_master() {
                let _alone = database.maintenance.alone();
                database.maintain(aged, false)
            } else {
                Ok(())
            };
            let log_is_long = database.log_bytes() >= database.options.checkpoint_bytes;
            let result = result.and_then(|()| if log_is_long || aged { database.checkpoint() } else { Ok(()) });
            *database.maintenance.failed.lock() = result.err().map(|e| e.to_string());
        }
        if database.durability() == Durability::Async {
            // What fails here, the next commit finds and heals.
            let _ = database.sync();
        }
        let unsynced = database.is_unsynced();
        let waiting = database.tables().iter().any(|table| table.rows_in_memory() > 0);
        oldest = if waiting && !aged { oldest.or_else(|| Some(Instant::now())) } else { None };
        drop(database);
        // Commits that come one after the other are looked at together.
        std::thread::sleep(Duration::from_millis(5));
        std::thread::park_timeout(match (unsynced, waiting) {
            (true, _) => SYNC_EVERY,
            (false, true) => Duration::from_secs(1),
            (false, false) => Duration::from_secs(60),
        });
    }
}
