//! A data directory: a locked folder with a catalog of tables and views.
//!
//! Readers take the catalog as it is and keep it as long as they like; a commit makes a new catalog, stores it as the manifest, and
//! only then shows it. Commits are one at a time; nothing else is locked.

mod folder;
mod manifest;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

pub use folder::{FORMAT_VERSION, lock_file};
use manifest::Catalog;
pub use manifest::{decode_definition, encode_definition};
pub(crate) use manifest::{partition_folder, segment_path, sync_folder};

use crate::definition::{Options, TableDef};
use crate::segment::Segment;
use crate::table::{Partition, Table};
use crate::writer::TableWriter;
use crate::{Error, Result};

/// An open data directory. Only one process has it open at a time.
pub struct Database {
    root: PathBuf,
    options: Options,
    catalog: RwLock<Arc<Catalog>>,
    /// Held during a commit.
    committing: Mutex<()>,
    next_table_id: AtomicU64,
    next_segment_id: AtomicU64,
    /// Locked as long as it is open.
    _lock: File,
}

impl Database {
    /// Opens a data directory, or creates it.
    ///
    /// # Errors
    /// [`Error::Version`], [`Error::Locked`], [`Error::Corrupt`] naming the manifest, [`Error::Io`], and [`Error::Invalid`] if the
    /// folder holds something else.
    pub fn open(root: impl AsRef<Path>, options: Options) -> Result<Arc<Database>> {
        let root = root.as_ref().to_path_buf();
        let lock = folder::open_folder(&root, options.fsync)?;
        let catalog = Catalog::load(&root)?;
        folder::remove_leftovers(&root, &catalog)?;
        Ok(Arc::new(Database {
            next_table_id: AtomicU64::new(catalog.next_table_id),
            next_segment_id: AtomicU64::new(catalog.next_segment_id),
            root,
            options,
            catalog: RwLock::new(Arc::new(catalog)),
            committing: Mutex::new(()),
            _lock: lock,
        }))
    }

    /// The folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Its settings.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Counts commits: as long as it stays, so does everything that is stored.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.catalog().sequence
    }

    /// Every table, by name.
    #[must_use]
    pub fn tables(&self) -> Vec<Arc<Table>> {
        self.catalog().tables.values().cloned().collect()
    }

    /// A table as it is now; its name is compared without regard to case.
    #[must_use]
    pub fn table(&self, name: &str) -> Option<Arc<Table>> {
        self.catalog().tables.get(&name.to_lowercase()).cloned()
    }

    /// Every view: its name as written, and its text.
    #[must_use]
    pub fn views(&self) -> Vec<(String, String)> {
        self.catalog().views.values().cloned().collect()
    }

    /// The text of a view.
    #[must_use]
    pub fn view(&self, name: &str) -> Option<String> {
        self.catalog().views.get(&name.to_lowercase()).map(|(_, sql)| sql.clone())
    }

    /// Creates a table.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::Invalid`] if it cannot be stored, [`Error::Io`].
    pub fn create_table(&self, def: TableDef) -> Result<Arc<Table>> {
        let table = self.new_table(def)?;
        self.commit(|catalog| catalog.add(Arc::clone(&table)))?;
        Ok(table)
    }

    /// A writer of the first rows of a new table, which is there once they are committed, and not before.
    ///
    /// # Errors
    /// As [`Database::create_table`].
    pub fn create_table_writer(self: &Arc<Self>, def: TableDef) -> Result<TableWriter> {
        Ok(TableWriter::new(Arc::clone(self), self.new_table(def)?, true))
    }

    /// An empty table that is not in the catalog yet.
    fn new_table(&self, mut def: TableDef) -> Result<Arc<Table>> {
        def.check()?;
        self.catalog().check_free(&def.name)?;
        def.partitions = match (def.reference, def.partitions) {
            (true, _) => 1,
            (false, 0) => self.options.default_partitions.max(1),
            (false, n) => n,
        };
        let partitions = (0..def.partitions).map(|_| Arc::new(Partition::default())).collect();
        let id = self.next_table_id.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::new(Table::new(id, Arc::new(def), partitions)))
    }

    /// Drops a table; whether it was there. Queries that use it finish in peace, then its files go.
    ///
    /// # Errors
    /// [`Error::NoSuchTable`] unless `if_exists`, [`Error::Io`].
    pub fn drop_table(&self, name: &str, if_exists: bool) -> Result<bool> {
        let Some(table) = self.change_if(if_exists, |catalog| {
            catalog.tables.remove(&name.to_lowercase()).ok_or_else(|| Error::NoSuchTable(name.into()))
        })?
        else {
            return Ok(false);
        };
        table.segments().for_each(|segment| segment.set_doomed(true));
        Ok(true)
    }

    /// Creates a view, or replaces one.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::Io`].
    pub fn create_view(&self, name: &str, sql: &str, or_replace: bool) -> Result<()> {
        let key = name.to_lowercase();
        self.commit(|catalog| {
            if catalog.tables.contains_key(&key) || (catalog.views.contains_key(&key) && !or_replace) {
                return Err(Error::AlreadyExists(name.into()));
            }
            catalog.views.insert(key.clone(), (name.into(), sql.into()));
            Ok(())
        })
    }

    /// Drops a view; whether it was there.
    ///
    /// # Errors
    /// [`Error::NoSuchTable`] unless `if_exists`, [`Error::Io`].
    pub fn drop_view(&self, name: &str, if_exists: bool) -> Result<bool> {
        let dropped = self.change_if(if_exists, |catalog| {
            catalog.views.remove(&name.to_lowercase()).ok_or_else(|| Error::NoSuchTable(name.into()))
        })?;
        Ok(dropped.is_some())
    }

    /// A writer that adds rows to a table.
    ///
    /// # Errors
    /// [`Error::NoSuchTable`].
    pub fn writer(self: &Arc<Self>, table: &str) -> Result<TableWriter> {
        let table = self.table(table).ok_or_else(|| Error::NoSuchTable(table.into()))?;
        Ok(TableWriter::new(Arc::clone(self), table, false))
    }

    fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog.read())
    }

    pub(crate) fn new_segment_id(&self) -> u64 {
        self.next_segment_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Adds segments, each to its partition, to the table that was `table` when they were written.
    pub(crate) fn append(&self, table: &Table, segments: &[(usize, Arc<Segment>)]) -> Result<()> {
        self.commit(|catalog| {
            let current = catalog.tables.get_mut(&table.name().to_lowercase()).filter(|t| t.id == table.id);
            let current = current.ok_or_else(|| Error::NoSuchTable(table.name().into()))?;
            *current = Arc::new(current.with_segments(segments));
            Ok(())
        })
    }

    /// Adds a new table with its first segments, each in its partition.
    pub(crate) fn add(&self, table: &Table, segments: &[(usize, Arc<Segment>)]) -> Result<()> {
        self.commit(|catalog| catalog.add(Arc::new(table.with_segments(segments))))
    }

    fn change_if<T>(&self, if_exists: bool, change: impl FnOnce(&mut Catalog) -> Result<T>) -> Result<Option<T>> {
        match self.commit(change) {
            Ok(changed) => Ok(Some(changed)),
            Err(Error::NoSuchTable(_)) if if_exists => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Changes the catalog: on disk first, then in memory. An error changes nothing.
    fn commit<T>(&self, change: impl FnOnce(&mut Catalog) -> Result<T>) -> Result<T> {
        let _committing = self.committing.lock();
        let before = self.catalog();
        let mut catalog = Catalog::clone(&before);
        let changed = change(&mut catalog)?;
        catalog.sequence += 1;
        catalog.next_table_id = self.next_table_id.load(Ordering::Relaxed);
        catalog.next_segment_id = self.next_segment_id.load(Ordering::Relaxed);
        let stored = catalog.store(&self.root, self.options.fsync);
        if stored.as_ref().is_ok_and(|()| true) || stored.as_ref().is_err_and(|e| e.replaced) {
            // What the manifest names must stay from now on.
            catalog.tables.values().flat_map(|t| t.segments()).for_each(|s| s.set_doomed(false));
            *self.catalog.write() = Arc::new(catalog);
        }
        stored.map_err(|e| e.error)?;
        Ok(changed)
    }
}
