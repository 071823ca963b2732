//! Copying a data directory while it is written to, and making one from a copy.
//!
//! A backup is one state: its manifest and the segment files that it names, which stay as long as the backup holds them. A segment never
//! changes, and its name in a backup says what it holds, so that a second backup to the same place copies only what is new.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::{Catalog, Database};
use crate::definition::TableDef;
use crate::log::{Change, Entry, InsertedRows};
use crate::segment::{Segment, io_error};
use crate::{Error, Result};

/// A state that is being copied.
pub struct BackupSource {
    pub(super) catalog: Arc<Catalog>,
}

/// A file of a backup.
pub struct BackupFile<'a> {
    /// Its name in the backup.
    pub name: String,
    /// Its bytes.
    pub length: u64,
    segment: &'a Segment,
}

impl BackupFile<'_> {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.segment.path()
    }
}

impl BackupSource {
    /// The log sequence number of the state.
    #[must_use]
    pub fn lsn(&self) -> u64 {
        self.catalog.sequence
    }

    /// The definition of a table, by its name without regard to case.
    #[must_use]
    pub fn definition(&self, table: &str) -> Option<Arc<TableDef>> {
        self.catalog.table(table).map(|table| Arc::clone(&table.def))
    }

    /// The transactions that are prepared and not resolved, each with the ordinal of the partition that decides.
    #[must_use]
    pub fn in_doubt(&self) -> Vec<(u64, u32)> {
        self.catalog.in_doubt()
    }

    /// Whether it is decided here that a transaction commits. One of which nothing is known never will, as far as this state goes.
    #[must_use]
    pub fn commits(&self, transaction: u64) -> bool {
        self.catalog.decided.get(&transaction) == Some(&true)
    }

    /// What becomes of the state when the transactions in doubt end, these by committing, and only the tables that `keep` names stay.
    ///
    /// # Errors
    /// If what a transaction prepared does not fit.
    pub fn settled(&self, committed: &BTreeSet<u64>, keep: &dyn Fn(&str) -> bool) -> Result<BackupSource> {
        let mut catalog = Catalog::clone(&self.catalog);
        for (transaction, _) in self.in_doubt() {
            catalog.resolve(transaction, committed.contains(&transaction))?;
        }
        catalog.decided.clear();
        catalog.tables.retain(|_, table| keep(table.name()));
        Ok(BackupSource { catalog: Arc::new(catalog) })
    }

    /// The manifest.
    ///
    /// # Errors
    /// If rows in memory cannot be encoded.
    pub fn manifest(&self) -> Result<Vec<u8>> {
        self.catalog.encode(0)
    }

    /// The files that the manifest names.
    pub fn files(&self) -> impl Iterator<Item = BackupFile<'_>> {
        let file = |segment: &'_ Arc<Segment>| (name(segment), segment.written().length);
        self.catalog.segments().map(move |segment| {
            let (name, length) = file(segment);
            BackupFile { name, length, segment }
        })
    }
}

fn name(segment: &Segment) -> String {
    format!("{}-{:016x}-{}.segment", segment.id(), segment.written().footer_checksum, segment.written().length)
}

impl Database {
    /// The state that is shown now, to be copied.
    ///
    /// # Errors
    /// [`Error::Io`] if what is shown cannot be made to last.
    pub fn backup_source(&self) -> Result<BackupSource> {
        self.sync()?;
        Ok(BackupSource { catalog: self.catalog() })
    }

    /// Makes the tables and views of a backup, all or none; how many tables. `fetch` gives the bytes of a file by its name in the backup.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there are tables or views already, or the manifest is none; [`Error::Corrupt`] if a file is not what it was;
    /// those of `fetch`; [`Error::Io`].
    pub fn restore(self: &Arc<Self>, manifest: &[u8], fetch: &mut dyn FnMut(&str) -> Result<Vec<u8>>) -> Result<usize> {
        if !self.is_empty() {
            let way_out = "restore into an empty data directory";
            return Err(Error::Invalid(format!("{} has tables or views already: {way_out}", self.root().display())));
        }
        let decoded = Catalog::decode(manifest, self.files());
        let (catalog, _) = decoded.map_err(|what| Error::Invalid(format!("the backup's manifest cannot be used: {what}")))?;
        for table in catalog.tables.values() {
            for (number, part) in table.partitions.iter().enumerate() {
                for stored in &part.segments {
                    // Until the commit names it.
                    stored.segment.set_doomed(true);
                    self.fetch_segment(&stored.segment, fetch)?;
                }
                if self.options.fsync && !part.segments.is_empty() {
                    self.sync_partition(table.id, number)?;
                }
            }
        }
        let changes = changes_of(&catalog)?;
        self.commit(|head| match head.catalog.tables.is_empty() && head.catalog.views.is_empty() {
            true => Ok((changes, ())),
            false => Err(Error::Conflict("a table was made".into())),
        })?;
        let next = |counter: &std::sync::atomic::AtomicU64, at_least: u64| {
            counter.fetch_max(at_least, std::sync::atomic::Ordering::Relaxed);
        };
        next(&self.next_table_id, catalog.next_table_id);
        next(&self.next_segment_id, catalog.next_segment_id);
        Ok(catalog.tables.len())
    }

    fn is_empty(&self) -> bool {
        let catalog = self.catalog();
        catalog.tables.is_empty() && catalog.views.is_empty()
    }

    fn fetch_segment(&self, segment: &Segment, fetch: &mut dyn FnMut(&str) -> Result<Vec<u8>>) -> Result<()> {
        let bytes = fetch(&name(segment))?;
        let path = segment.path();
        let disk = &self.files().disk;
        if let Some(folder) = path.parent() {
            disk.create_folder(folder).map_err(io_error(folder))?;
        }
        let write = || -> std::io::Result<()> {
            let file = disk.create(path)?;
            file.append(&bytes)?;
            if self.options.fsync { file.sync() } else { Ok(()) }
        };
        write().map_err(io_error(path))?;
        segment.verify()
    }
}

/// The changes that make a state of nothing.
fn changes_of(catalog: &Catalog) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    for table in catalog.tables.values() {
        changes.push(Change::CreateTable { id: table.id, def: Arc::clone(&table.def) });
        for (partition, part) in table.partitions.iter().enumerate() {
            let entry = |stored: &crate::table::Stored| {
                Entry::of(&stored.segment, stored.deleted.as_ref().map(|deleted| (**deleted).clone()).unwrap_or_default())
            };
            if !part.segments.is_empty() {
                let segments = part.segments.iter().map(entry).collect();
                changes.push(Change::Attach { table: table.id, partition, segments });
            }
            if part.memory.rows() > 0 {
                let (columns, _) = part.memory.live(u64::MAX)?;
                let rows = InsertedRows::new(columns.into())?;
                changes.push(Change::Insert { table: table.id, partition, rows });
            }
        }
    }
    let views = catalog.views.values().cloned();
    changes.extend(views.map(|(name, sql)| Change::CreateView { name, sql }));
    Ok(changes)
}
