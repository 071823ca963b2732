//! The state of a data directory at one moment, and what each change makes of it.
//!
//! [`Catalog::apply`] is all that a change means: commits, recovery and replicas go through it, so that the same records give the same
//! state everywhere.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use roaring::RoaringTreemap;

use super::commit::added_segments;
use super::prepared::Prepared;
use crate::address::Place;
use crate::definition::TableDef;
use crate::disk::Disk;
use crate::log::{Change, Entry, InsertedRows};
use crate::segment::Segment;
use crate::table::{Partition, Stored, Table};
use crate::{Error, Result};

/// Where the files of a data directory are.
pub(crate) struct Files {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) root: PathBuf,
}

impl Files {
    /// The folder of the tables.
    pub(crate) fn tables(&self) -> PathBuf {
        self.root.join("tables")
    }

    /// The folder of a partition.
    pub(crate) fn partition_folder(&self, table: u64, partition: usize) -> PathBuf {
        self.tables().join(table.to_string()).join(partition.to_string())
    }

    /// The file of a segment.
    pub(crate) fn segment_path(&self, table: u64, partition: usize, segment: u64) -> PathBuf {
        self.partition_folder(table, partition).join(format!("{segment}.segment"))
    }

    /// The segment of an entry.
    pub(crate) fn stored(&self, def: &Arc<TableDef>, table: u64, partition: usize, entry: &Entry) -> Stored {
        let segment = entry.segment.clone().unwrap_or_else(|| {
            let path = self.segment_path(table, partition, entry.id);
            let foreign = entry.columns.as_ref();
            Arc::new(Segment::new(&self.disk, entry.id, entry.rows, path, entry.written, def, foreign))
        });
        Stored::new(segment, entry.deleted.clone())
    }
}

/// What exists at one moment: immutable once it is shown. Keys are names in lower case.
#[derive(Clone)]
pub(crate) struct Catalog {
    pub(crate) files: Arc<Files>,
    /// The LSN of the last record.
    pub(crate) sequence: u64,
    pub(crate) term: u64,
    /// Of the body of the last record.
    pub(crate) checksum: u64,
    /// Counts changes of definitions.
    pub(crate) definitions: u64,
    /// Counts changes of which segments there are.
    pub(crate) stored: u64,
    pub(crate) next_table_id: u64,
    pub(crate) next_segment_id: u64,
    pub(crate) tables: BTreeMap<String, Arc<Table>>,
    /// Name as written, and text.
    pub(crate) views: BTreeMap<String, (String, String)>,
    /// Transactions that may commit yet, by number.
    pub(crate) prepared: BTreeMap<u64, Arc<Prepared>>,
    /// Whether transactions commit that this directory decides on.
    pub(crate) decided: BTreeMap<u64, bool>,
}

impl Catalog {
    /// Nothing.
    pub(crate) fn new(files: Arc<Files>) -> Catalog {
        Catalog {
            files,
            sequence: 0,
            term: 1,
            checksum: 0,
            definitions: 0,
            stored: 0,
            next_table_id: 0,
            next_segment_id: 0,
            tables: BTreeMap::new(),
            views: BTreeMap::new(),
            prepared: BTreeMap::new(),
            decided: BTreeMap::new(),
        }
    }

    /// A table, by its name without regard to case.
    pub(crate) fn table(&self, name: &str) -> Option<&Arc<Table>> {
        self.tables.get(&name.to_lowercase())
    }

    /// A table that must be there, by its name.
    pub(crate) fn named(&self, name: &str) -> Result<&Arc<Table>> {
        self.table(name).ok_or_else(|| Error::NoSuchTable(name.into()))
    }

    /// A table, by its number.
    pub(crate) fn table_of(&self, id: u64) -> Option<&Arc<Table>> {
        self.tables.values().find(|table| table.id == id)
    }

    /// [`Error::AlreadyExists`] if a table or view has this name.
    pub(crate) fn check_free(&self, name: &str) -> Result<()> {
        let key = name.to_lowercase();
        if self.tables.contains_key(&key) || self.views.contains_key(&key) {
            return Err(Error::AlreadyExists(name.into()));
        }
        Ok(())
    }

    /// Every segment, those of prepared transactions included.
    pub(crate) fn segments(&self) -> impl Iterator<Item = &Arc<Segment>> {
        let prepared = self.prepared.values().flat_map(|prepared| added_segments(&prepared.changes));
        self.tables.values().flat_map(|t| t.segments()).chain(prepared)
    }

    /// Makes a change.
    ///
    /// # Errors
    /// If it does not fit what is there; part of it may have been made then.
    pub(crate) fn apply(&mut self, change: &Change) -> Result<()> {
        match change {
            Change::CreateTable { id, def } => self.create_table(*id, def),
            Change::DropTable(id) => {
                let name = self.existing(*id)?.name().to_lowercase();
                self.tables.remove(&name);
                self.definitions += 1;
                Ok(())
            }
            Change::CreateView { name, sql } => {
                let key = name.to_lowercase();
                if self.tables.contains_key(&key) {
                    return Err(Error::AlreadyExists(name.clone()));
                }
                self.views.insert(key, (name.clone(), sql.clone()));
                self.definitions += 1;
                Ok(())
            }
            Change::DropView(name) => {
                self.definitions += 1;
                self.views.remove(&name.to_lowercase()).map(drop).ok_or_else(|| Error::NoSuchTable(name.clone()))
            }
            Change::Insert { table, partition, rows } => self.insert(*table, *partition, rows),
            Change::Attach { table, partition, segments } => self.attach(*table, *partition, segments),
            Change::Delete { table, partition, rows } => self.delete(*table, *partition, rows),
            Change::Rewrite { table, partition, through, removed, segments } => {
                self.attach(*table, *partition, segments)?;
                self.change(*table, *partition, |part| {
                    part.segments.retain(|stored| !removed.contains(&stored.segment.id()));
                    part.memory.seal(*through);
                    Ok(())
                })
            }
            Change::AlterTable { id, def } => self.alter_table(*id, def),
            Change::TruncateTable(id) => self.truncate(*id),
            Change::Prepare { transaction, decider, changes } => self.prepare(*transaction, *decider, changes),
            Change::Resolve { transaction, commit } => self.resolve(*transaction, *commit),
            Change::Decide { transaction, commit } => {
                self.decided.insert(*transaction, *commit);
                Ok(())
            }
            Change::Forget(transactions) => {
                for transaction in transactions {
                    self.decided.remove(transaction);
                }
                Ok(())
            }
        }
    }

    fn create_table(&mut self, id: u64, def: &Arc<TableDef>) -> Result<()> {
        self.check_free(&def.name)?;
        let partitions = (0..def.partitions).map(|_| Arc::new(Partition::default())).collect();
        self.tables.insert(def.name.to_lowercase(), Arc::new(Table::new(id, Arc::clone(def), partitions)));
        self.next_table_id = self.next_table_id.max(id + 1);
        self.definitions += 1;
        Ok(())
    }

    fn alter_table(&mut self, id: u64, def: &Arc<TableDef>) -> Result<()> {
        let table = Arc::clone(self.existing(id)?);
        let (before, after) = (table.name().to_lowercase(), def.name.to_lowercase());
        if before != after {
            self.check_free(&def.name)?;
        }
        self.tables.remove(&before);
        self.tables.insert(after, Arc::new(table.with_definition(def)?));
        self.definitions += 1;
        Ok(())
    }

    fn insert(&mut self, table: u64, partition: usize, rows: &InsertedRows) -> Result<()> {
        let columns = rows.columns(&self.existing(table)?.def).map_err(Error::Invalid)?;
        self.change(table, partition, |part| part.memory.push(columns))
    }

    fn attach(&mut self, table: u64, partition: usize, segments: &[Entry]) -> Result<()> {
        let files = Arc::clone(&self.files);
        let def = Arc::clone(&self.existing(table)?.def);
        self.change(table, partition, |part| {
            part.segments.extend(segments.iter().map(|entry| files.stored(&def, table, partition, entry)));
            Ok(())
        })?;
        let next = segments.iter().map(|entry| entry.id + 1).max().unwrap_or(0);
        self.next_segment_id = self.next_segment_id.max(next);
        self.stored += 1;
        Ok(())
    }

    fn delete(&mut self, table: u64, partition: usize, rows: &RoaringTreemap) -> Result<()> {
        let places: Vec<Place> = rows.iter().map(|address| Place::of(address).1).collect();
        self.change(table, partition, |part| match places.iter().find(|place| !part.is_live(**place)) {
            Some(gone) => Err(Error::Invalid(format!("row {gone:?} cannot be deleted: it is not there"))),
            None => part.delete(&places),
        })
    }

    fn truncate(&mut self, id: u64) -> Result<()> {
        let emptied = self.existing(id)?.emptied();
        self.tables.insert(emptied.name().to_lowercase(), Arc::new(emptied));
        self.stored += 1;
        Ok(())
    }

    fn change(&mut self, table: u64, partition: usize, change: impl FnOnce(&mut Partition) -> Result<()>) -> Result<()> {
        let found = self.tables.values_mut().find(|t| t.id == table);
        let found = found.ok_or_else(|| Error::NoSuchTable(format!("number {table}")))?;
        *found = Arc::new(found.with_partition(partition, change)?);
        Ok(())
    }

    pub(super) fn existing(&self, id: u64) -> Result<&Arc<Table>> {
        self.table_of(id).ok_or_else(|| Error::NoSuchTable(format!("number {id}")))
    }
}
