//! A data directory: a locked folder with tables and views, which commits change and readers see as it was when they came.
//!
//! Its state at one moment is a [`Catalog`]. A commit makes the next one, appends the record of its changes to the log and waits until
//! the log is on disk; then the new state is shown. Many commits that come together wait for one sync. Readers take the state that is
//! shown and keep it as long as they like; nothing that they do waits for a writer, or makes one wait.
//!
//! In the background rows in memory go to segments, small segments are merged, and a manifest takes the place of the log so far
//! ([`maintenance`]).

mod backup;
mod bulk;
mod catalog;
mod check;
mod commit;
mod copy;
mod folder;
mod hold;
mod locate;
mod maintenance;
mod manifest;
mod merge_status;
mod merging;
mod pace;
mod prepared;
mod replica;
mod replication;
mod rewrite;
mod settling;
mod shown;
mod syncing;
mod tasks;
mod transaction;
mod waiters;

use std::any::Any;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

pub use backup::{BackupFile, BackupSource};
pub(crate) use catalog::{Catalog, Files};
pub use check::{CheckReport, Damage};
use commit::Head;
pub use copy::{CopyReceiver, CopySource, FileReceiver, SegmentFile};
pub use folder::{FORMAT_VERSION, lock_file};
pub use hold::Hold;
use maintenance::Maintenance;
pub use manifest::{decode_definition, encode_definition};
pub(crate) use manifest::{read_definition, write_definition};
pub use merge_status::{MergeState, MergeStatus};
pub use pace::MergePace;
use replication::Tail;
pub use replication::{LogRecord, Position, Replication};
use settling::Settling;
use shown::Shown;
use syncing::Syncing;
pub use transaction::{Savepoint, Transaction};

use crate::alter::AlterTable;
use crate::definition::{Durability, Options, TableDef};
use crate::disk::{Disk, LocalDisk};
use crate::log::{self, Change, LogWriter};
use crate::segment::{corrupt, io_error};
use crate::table::{Partition, Table};
use crate::writer::TableWriter;
use crate::{Error, Result};

/// An open data directory. Only one process has it open at a time.
pub struct Database {
    files: Arc<Files>,
    options: Options,
    /// What readers see: all of it is on disk.
    shown: Shown,
    head: Mutex<Head>,
    syncing: Mutex<Syncing>,
    tail: Mutex<Tail>,
    synced: Condvar,
    /// A hold has ended.
    released: Condvar,
    next_table_id: AtomicU64,
    next_segment_id: AtomicU64,
    /// Transactions that may write, by number: the LSN of what they see.
    writers: Mutex<BTreeMap<u64, u64>>,
    next_writer: AtomicU64,
    /// Whether there are [`Head::forwards`], which the end of a transaction may make superfluous.
    forwards: AtomicBool,
    /// Held by whoever writes a manifest.
    storing: Mutex<()>,
    maintenance: Maintenance,
    /// Whether commits of rows count before they are on disk.
    lasts_later: AtomicBool,
    settling: Settling,
    /// Locked as long as it is open.
    _lock: Box<dyn Any + Send + Sync>,
}

impl Database {
    /// Opens a data directory, or creates it.
    ///
    /// # Errors
    /// [`Error::Version`], [`Error::Locked`], [`Error::Corrupt`] naming the manifest or a file of the log, [`Error::Io`], and
    /// [`Error::Invalid`] if the folder holds something else.
    pub fn open(root: impl AsRef<Path>, options: Options) -> Result<Arc<Database>> {
        let root = root.as_ref();
        std::fs::create_dir_all(root).map_err(io_error(root))?;
        folder::check_before_lock(&LocalDisk, root)?;
        let lock = folder::take_lock(root)?;
        Database::open_on(Arc::new(LocalDisk), root, options, Box::new(lock))
    }

    /// As [`Database::open`], on any disk; `lock` is held as long as the directory is open.
    ///
    /// # Errors
    /// As [`Database::open`].
    pub fn open_on(
        disk: Arc<dyn Disk>,
        root: &Path,
        options: Options,
        lock: Box<dyn Any + Send + Sync>,
    ) -> Result<Arc<Database>> {
        let files = Arc::new(Files { disk, root: root.to_path_buf() });
        folder::prepare(&files, options.fsync)?;
        let (mut catalog, first_log) = Catalog::load(&files)?;
        if options.fsync {
            sync_found(&files, first_log)?;
        }
        let cut = &mut |path: &Path, length| cut_file(&*files.disk, path, length, options.fsync);
        let last_log = recover(&mut catalog, first_log, cut)?;
        folder::remove_logs(&files, |number| number < first_log || number > last_log)?;
        folder::remove_leftovers(&catalog)?;
        let log = LogWriter::create(&*files.disk, root, last_log + 1, options.fsync)?;
        let catalog = Arc::new(catalog);
        Ok(Arc::new(Database {
            next_table_id: AtomicU64::new(catalog.next_table_id),
            next_segment_id: AtomicU64::new(catalog.next_segment_id),
            files,
            syncing: Mutex::new(Syncing::at(catalog.sequence)),
            tail: Mutex::new(Tail::after(&catalog)),
            synced: Condvar::new(),
            released: Condvar::new(),
            shown: Shown::new(Arc::clone(&catalog), options.keep_shown),
            head: Mutex::new(Head::new(catalog, log, last_log + 1)),
            writers: Mutex::default(),
            next_writer: AtomicU64::new(0),
            forwards: AtomicBool::new(false),
            storing: Mutex::default(),
            maintenance: Maintenance::default(),
            settling: Settling::default(),
            lasts_later: AtomicBool::new(options.durability == Durability::Async),
            options,
            _lock: lock,
        }))
    }

    /// The folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.files.root
    }

    pub(crate) fn files(&self) -> &Arc<Files> {
        &self.files
    }

    /// Its settings.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// When commits of rows are acknowledged from now on, instead of what [`Options`] say.
    pub fn set_durability(&self, durability: Durability) {
        self.lasts_later.store(durability == Durability::Async, Ordering::Relaxed);
    }

    /// When commits of rows are acknowledged.
    #[must_use]
    pub fn durability(&self) -> Durability {
        if self.lasts_later.load(Ordering::Relaxed) { Durability::Async } else { Durability::Sync }
    }

    /// The log sequence number of the last commit that is shown.
    #[must_use]
    pub fn lsn(&self) -> u64 {
        self.catalog().sequence
    }

    /// Counts changes of definitions, and changes of which segments there are: what plans hang on.
    #[must_use]
    pub fn plan_versions(&self) -> (u64, u64) {
        let catalog = self.catalog();
        (catalog.definitions, catalog.stored)
    }

    /// Every table, by name, all as of one moment.
    #[must_use]
    pub fn tables(&self) -> Vec<Arc<Table>> {
        self.catalog().tables.values().cloned().collect()
    }

    /// A table as it is now; its name is compared without regard to case.
    #[must_use]
    pub fn table(&self, name: &str) -> Option<Arc<Table>> {
        self.catalog().table(name).cloned()
    }

    /// All tables as they are now, for a reader that looks at several.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.catalog())
    }

    /// All tables as they were at a moment ([`crate::Clock`]), for a reader that looks at several directories; 0: as they are now. Waits,
    /// for so long at most, for transactions over several directories that may count by then ([`Database::resolve`]).
    ///
    /// # Errors
    /// [`Error::Unsettled`] if one of them is still in doubt, [`Error::Passed`] if that state is not kept any more
    /// ([`Options::keep_shown`]).
    pub fn snapshot_at(&self, moment: u64, most: Duration) -> Result<Snapshot> {
        Ok(Snapshot(self.catalog_at(moment, most)?))
    }

    fn catalog_at(&self, moment: u64, most: Duration) -> Result<Arc<Catalog>> {
        if moment == 0 { Ok(self.catalog()) } else { self.shown.at(moment, most) }
    }

    /// The moment from which what is shown now counts, for readers of several directories.
    #[must_use]
    pub fn moment(&self) -> u64 {
        self.shown.moment()
    }

    /// Lets go of states that readers of several directories will not ask for any more.
    pub fn prune_states(&self) {
        self.shown.prune();
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
    pub fn create_table(self: &Arc<Self>, def: TableDef) -> Result<Arc<Table>> {
        let table = self.new_table(def)?;
        self.commit(|_| Ok((vec![Change::CreateTable { id: table.id, def: Arc::clone(&table.def) }], ())))?;
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
    pub fn drop_table(self: &Arc<Self>, name: &str, if_exists: bool) -> Result<bool> {
        let drop = |head: &Head| match head.catalog.table(name) {
            Some(table) => Ok((vec![Change::DropTable(table.id)], Some(Arc::clone(table)))),
            None if if_exists => Ok((vec![], None)),
            None => Err(Error::NoSuchTable(name.into())),
        };
        let table = self.when_settled(name, || self.commit(drop))?;
        table.iter().flat_map(|table| table.segments()).for_each(|segment| segment.set_doomed(true));
        Ok(table.is_some())
    }

    /// Removes all rows of a table. Queries that read them finish in peace.
    ///
    /// # Errors
    /// [`Error::NoSuchTable`], [`Error::Io`].
    pub fn truncate_table(self: &Arc<Self>, name: &str) -> Result<()> {
        let table = self.commit(|head| {
            let table = head.catalog.named(name)?;
            Ok((vec![Change::TruncateTable(table.id)], Arc::clone(table)))
        })?;
        table.segments().for_each(|segment| segment.set_doomed(true));
        Ok(())
    }

    /// Changes the definition of a table. No segment is written: rows that are there are read through the new definition. Queries that
    /// read the table finish with the old one; transactions that changed it cannot commit any more.
    ///
    /// # Errors
    /// [`Error::NoSuchTable`], [`Error::AlreadyExists`] if the new name is not free, [`Error::Invalid`] if the change cannot be made,
    /// [`Error::Io`].
    pub fn alter_table(self: &Arc<Self>, name: &str, change: &AlterTable) -> Result<()> {
        self.commit(|head| {
            let table = head.catalog.named(name)?;
            Ok((vec![Change::AlterTable { id: table.id, def: Arc::new(table.def.altered(change)?) }], ()))
        })
    }

    /// Gives a table a later version of its definition, as [`Database::alter_table`] does. Nothing happens if it has that, or a later one.
    ///
    /// # Errors
    /// As [`Database::alter_table`].
    pub fn redefine_table(self: &Arc<Self>, def: &TableDef) -> Result<()> {
        let redefine = |head: &Head| {
            let table = head.catalog.named(&def.name)?;
            if table.def.version() >= def.version() {
                return Ok((vec![], ()));
            }
            Ok((vec![Change::AlterTable { id: table.id, def: Arc::new(table.def.redefined(def)?) }], ()))
        };
        self.when_settled(&def.name, || self.commit(redefine))
    }

    /// Creates a view, or replaces one.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::Io`].
    pub fn create_view(self: &Arc<Self>, name: &str, sql: &str, or_replace: bool) -> Result<()> {
        self.commit(|head| {
            if !or_replace {
                head.catalog.check_free(name)?;
            }
            Ok((vec![Change::CreateView { name: name.into(), sql: sql.into() }], ()))
        })
    }

    /// Drops a view; whether it was there.
    ///
    /// # Errors
    /// [`Error::NoSuchTable`] unless `if_exists`, [`Error::Io`].
    pub fn drop_view(self: &Arc<Self>, name: &str, if_exists: bool) -> Result<bool> {
        self.commit(|head| match head.catalog.views.contains_key(&name.to_lowercase()) {
            true => Ok((vec![Change::DropView(name.into())], true)),
            false if if_exists => Ok((vec![], false)),
            false => Err(Error::NoSuchTable(name.into())),
        })
    }

    /// A writer that adds rows to a table.
    ///
    /// # Errors
    /// [`Error::NoSuchTable`].
    pub fn writer(self: &Arc<Self>, table: &str) -> Result<TableWriter> {
        let table = Arc::clone(self.catalog().named(table)?);
        Ok(TableWriter::new(Arc::clone(self), table, false))
    }

    fn catalog(&self) -> Arc<Catalog> {
        self.shown.newest()
    }
}

/// The tables of a data directory at one moment.
#[derive(Clone)]
pub struct Snapshot(Arc<Catalog>);

impl Snapshot {
    /// A table; its name is compared without regard to case.
    #[must_use]
    pub fn table(&self, name: &str) -> Option<Arc<Table>> {
        self.0.table(name).cloned()
    }

    /// Every table, by name.
    #[must_use]
    pub fn tables(&self) -> Vec<Arc<Table>> {
        self.0.tables.values().cloned().collect()
    }
}

/// Makes last what an earlier process wrote and may have ended before it synced it: this one builds on it.
fn sync_found(files: &Files, first_log: u64) -> Result<()> {
    let disk = &*files.disk;
    disk.sync_folder(&files.root).map_err(io_error(&files.root))?;
    for number in log::files(disk, &files.root)?.into_iter().filter(|number| *number >= first_log) {
        let path = log::file_path(&files.root, number);
        disk.open(&path).and_then(|file| file.sync()).map_err(io_error(&path))?;
    }
    Ok(())
}

/// Makes the changes of the log on the manifest's state; the number of the last log file with a record. A file with a torn tail is
/// given to `cut`, with the length that is whole, once it is sure that nothing comes after it: what is damaged is not touched.
fn recover(catalog: &mut Catalog, first_log: u64, cut: &mut dyn FnMut(&Path, u64) -> Result<()>) -> Result<u64> {
    let files = Arc::clone(&catalog.files);
    let numbers = log::files(&*files.disk, &files.root)?;
    let mut last = first_log.saturating_sub(1);
    let mut torn: Option<(PathBuf, u64, String)> = None;
    for number in numbers.iter().filter(|number| **number >= first_log) {
        let path = log::file_path(&files.root, *number);
        let bytes = files.disk.read(&path).map_err(io_error(&path))?;
        if let Some((path, _, what)) = torn.as_ref().filter(|_| bytes.iter().any(|byte| *byte != 0)) {
            return Err(corrupt(path, what));
        }
        let next = catalog.sequence + 1;
        let read = log::read_file(&path, &bytes, next, &mut |record| {
            let changes = log::decode_changes(record.body).map_err(|what| corrupt(&path, &what))?;
            let lsn = record.lsn;
            for change in &changes {
                catalog.apply(change).map_err(|e| corrupt(&path, &format!("record {lsn} cannot be applied ({e})")))?;
            }
            (catalog.sequence, catalog.term, catalog.checksum) = (lsn, record.term, record.checksum);
            Ok(())
        })?;
        drop(bytes);
        if read.whole > 0 {
            last = *number;
        }
        if let Some(what) = read.torn {
            torn = Some((path, read.whole, what));
        }
    }
    if let Some((path, whole, what)) = torn {
        // Files go when the record by which nobody names them any more is on disk: then that one is damaged, and not torn.
        if let Some(missing) = folder::missing_segment(catalog)? {
            let what = format!("{what}, and {} is missing, so that it was whole once", missing.display());
            return Err(corrupt(&path, &what));
        }
        cut(&path, whole)?;
    }
    Ok(last)
}

fn cut_file(disk: &dyn Disk, path: &Path, length: u64, fsync: bool) -> Result<()> {
    let cut = || {
        let file = disk.open(path)?;
        file.truncate(length)?;
        if fsync { file.sync() } else { Ok(()) }
    };
    cut().map_err(io_error(path))
}
