//! What a node keeps on disk: one redb file with the log and a few single values. Every write is one transaction.

use std::ops::{Bound, RangeBounds};
use std::path::Path;

use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{LogId, SnapshotMeta, Types};

pub(super) type Entry = openraft::Entry<Types>;
type Vote = openraft::Vote<u64>;

/// The log: entries as JSON, by index.
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
/// Single values, as JSON.
const VALUES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("values");

const VERSION: &str = "version";
const VOTE: &str = "vote";
const COMMITTED: &str = "committed";
const PURGED: &str = "purged";
const SNAPSHOT_META: &str = "snapshot_meta";
const SNAPSHOT: &str = "snapshot";

/// The version of what is in the file.
const FORMAT: u32 = 1;

/// Why the file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error(transparent)]
    Redb(#[from] redb::Error),
    #[error("an entry or value cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    #[error("the file has format {0}, and this version of Stoa reads format {FORMAT}")]
    Format(u32),
    #[error("{0}: {1}")]
    Io(String, std::io::Error),
}

/// Turns the many errors of redb into the one that holds them all.
fn redb(error: impl Into<redb::Error>) -> StoreError {
    StoreError::Redb(error.into())
}

pub(super) type Result<T> = std::result::Result<T, StoreError>;

/// The file.
pub(super) struct Store {
    db: Database,
}

impl Store {
    /// Opens the file in a folder, or makes both. Only one process can have it open.
    pub fn open(folder: &Path) -> Result<Store> {
        let io = |error| StoreError::Io(folder.display().to_string(), error);
        std::fs::create_dir_all(folder).map_err(io)?;
        let store = Store { db: Database::create(folder.join("raft.redb")).map_err(redb)? };
        match store.try_value::<u32>(VERSION)? {
            Some(FORMAT) => {}
            Some(other) => return Err(StoreError::Format(other)),
            None => {
                store.write(Durability::Immediate, |_, values| put(values, VERSION, &FORMAT))?;
                // The name of a new file is durable when its folder is.
                std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)?;
            }
        }
        Ok(store)
    }

    fn write(
        &self,
        durability: Durability,
        change: impl FnOnce(&mut redb::Table<'_, u64, &[u8]>, &mut Values<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut transaction = self.db.begin_write().map_err(redb)?;
        transaction.set_durability(durability).map_err(redb)?;
        {
            let mut log = transaction.open_table(LOG).map_err(redb)?;
            let mut values = transaction.open_table(VALUES).map_err(redb)?;
            change(&mut log, &mut values)?;
        }
        transaction.commit().map_err(redb)
    }

    /// A value; None if there is none, or the file is new and has no tables.
    fn try_value<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        let transaction = self.db.begin_read().map_err(redb)?;
        let values = match transaction.open_table(VALUES) {
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            other => other.map_err(redb)?,
        };
        let value = values.get(key).map_err(redb)?;
        value.map(|value| serde_json::from_slice(value.value())).transpose().map_err(StoreError::from)
    }

    pub fn vote(&self) -> Result<Option<Vote>> {
        self.try_value(VOTE)
    }

    pub fn set_vote(&self, vote: &Vote) -> Result<()> {
        self.write(Durability::Immediate, |_, values| put(values, VOTE, vote))
    }

    pub fn committed(&self) -> Result<Option<LogId>> {
        self.try_value(COMMITTED).map(Option::flatten)
    }

    /// It need not be durable: what was committed is learnt again from the others, this only makes it sooner.
    pub fn set_committed(&self, committed: Option<LogId>) -> Result<()> {
        self.write(Durability::None, |_, values| put(values, COMMITTED, &committed))
    }

    pub fn purged(&self) -> Result<Option<LogId>> {
        self.try_value(PURGED)
    }

    pub fn last_entry(&self) -> Result<Option<Entry>> {
        let transaction = self.db.begin_read().map_err(redb)?;
        let log = transaction.open_table(LOG).map_err(redb)?;
        let last = log.last().map_err(redb)?;
        last.map(|(_, entry)| serde_json::from_slice(entry.value())).transpose().map_err(StoreError::from)
    }

    pub fn entries(&self, range: impl RangeBounds<u64>) -> Result<Vec<Entry>> {
        let transaction = self.db.begin_read().map_err(redb)?;
        let log = transaction.open_table(LOG).map_err(redb)?;
        let bounds: (Bound<u64>, Bound<u64>) = (range.start_bound().cloned(), range.end_bound().cloned());
        let mut entries = Vec::new();
        for row in log.range::<u64>(bounds).map_err(redb)? {
            let (_, entry) = row.map_err(redb)?;
            entries.push(serde_json::from_slice(entry.value())?);
        }
        Ok(entries)
    }

    pub fn append(&self, entries: &[Entry]) -> Result<()> {
        self.write(Durability::Immediate, |log, _| {
            for entry in entries {
                log.insert(entry.log_id.index, serde_json::to_vec(entry)?.as_slice()).map_err(redb)?;
            }
            Ok(())
        })
    }

    /// Forgets the entries from this one on.
    pub fn truncate(&self, from: u64) -> Result<()> {
        self.write(Durability::Immediate, |log, _| log.retain_in(from.., |_, _| false).map_err(redb))
    }

    /// Forgets the entries up to this one.
    pub fn purge(&self, upto: &LogId) -> Result<()> {
        self.write(Durability::Immediate, |log, values| {
            put(values, PURGED, upto)?;
            log.retain_in(..=upto.index, |_, _| false).map_err(redb)
        })
    }

    pub fn snapshot(&self) -> Result<Option<(SnapshotMeta, Vec<u8>)>> {
        let transaction = self.db.begin_read().map_err(redb)?;
        let values = transaction.open_table(VALUES).map_err(redb)?;
        let (meta, data) = (values.get(SNAPSHOT_META).map_err(redb)?, values.get(SNAPSHOT).map_err(redb)?);
        match (meta, data) {
            (Some(meta), Some(data)) => Ok(Some((serde_json::from_slice(meta.value())?, data.value().to_vec()))),
            _ => Ok(None),
        }
    }

    /// Keeps a snapshot, unless there is a later one.
    pub fn set_snapshot(&self, meta: &SnapshotMeta, data: &[u8]) -> Result<()> {
        self.write(Durability::Immediate, |_, values| {
            let old: Option<SnapshotMeta> = match values.get(SNAPSHOT_META).map_err(redb)? {
                Some(old) => Some(serde_json::from_slice(old.value())?),
                None => None,
            };
            if old.is_some_and(|old| old.last_log_id > meta.last_log_id) {
                return Ok(());
            }
            put(values, SNAPSHOT_META, meta)?;
            values.insert(SNAPSHOT, data).map_err(redb)?;
            Ok(())
        })
    }
}

type Values<'a> = redb::Table<'a, &'static str, &'static [u8]>;

fn put(values: &mut Values<'_>, key: &str, value: &impl Serialize) -> Result<()> {
    values.insert(key, serde_json::to_vec(value)?.as_slice()).map_err(redb)?;
    Ok(())
}
