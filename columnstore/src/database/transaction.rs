//! Transactions: what they read is one state and their own changes; what they change, others see when they commit, all or none.
//!
//! Snapshot isolation, first committer wins: a commit fails if a row that it deletes was deleted since its snapshot, or a unique key
//! that it adds was added (Berenson et al., "A Critique of ANSI SQL Isolation Levels", 1995).

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{concat, take};
use roaring::RoaringTreemap;

use super::bulk::Ending;
use super::commit::Head;
use super::{Catalog, Database};
use crate::address::Place;
use crate::definition::TableDef;
use crate::keys::{SoughtKeys, read_rows};
use crate::log::{Change, Entry, InsertedRows};
use crate::sharding::rows_by_partition;
use crate::table::{OWN_ROWS, Partition, Table};
use crate::writer::{Load, RowNumbers, canonical_columns, sorted};
use crate::{Error, Result};

/// Reads and changes tables. Dropped without [`Transaction::commit`], it changed nothing.
pub struct Transaction {
    pub(super) database: Arc<Database>,
    number: u64,
    snapshot: Arc<Catalog>,
    /// The tables that it changed, by number.
    pub(super) changed: BTreeMap<u64, Changed>,
    /// Rows that were loaded into other tables.
    pub(super) loads: Vec<Load>,
}

/// What a transaction had changed at some point of it.
#[derive(Clone)]
pub struct Savepoint {
    changed: BTreeMap<u64, Changed>,
    loads: usize,
}

/// Rows that a transaction added to a partition, and the change that adds them.
pub(super) type Inserted = (usize, Vec<ArrayRef>, Change);

/// A table as the transaction changed it.
#[derive(Clone)]
pub(super) struct Changed {
    table: Arc<Table>,
    /// It removes all rows that others added.
    pub(super) truncated: bool,
    /// By partition, the addresses of rows of others that it deleted.
    pub(super) deleted: Vec<RoaringTreemap>,
}

impl Database {
    /// Begins a transaction on the state that is shown now.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> Transaction {
        self.begin_on(|| self.catalog())
    }

    /// Begins a transaction on the state of a moment, as [`Database::snapshot_at`] gives it.
    ///
    /// # Errors
    /// As [`Database::snapshot_at`].
    pub fn begin_at(self: &Arc<Self>, moment: u64, most: Duration) -> Result<Transaction> {
        let state = self.catalog_at(moment, most)?;
        Ok(self.begin_on(|| state))
    }

    fn begin_on(self: &Arc<Self>, state: impl FnOnce() -> Arc<Catalog>) -> Transaction {
        let number = self.next_writer.fetch_add(1, Ordering::Relaxed);
        let mut writers = self.writers.lock();
        let snapshot = state();
        writers.insert(number, snapshot.sequence);
        Transaction { database: Arc::clone(self), number, snapshot, changed: BTreeMap::new(), loads: vec![] }
    }
}

impl Transaction {
    /// A table as the transaction sees it; its name is compared without regard to case.
    #[must_use]
    pub fn table(&self, name: &str) -> Option<Arc<Table>> {
        let table = self.snapshot.table(name)?;
        Some(Arc::clone(self.changed.get(&table.id).map_or(table, |changed| &changed.table)))
    }

    /// What it has changed so far, to come back to.
    #[must_use]
    pub fn savepoint(&self) -> Savepoint {
        Savepoint { changed: self.changed.clone(), loads: self.loads.len() }
    }

    /// Undoes what came after a savepoint of this transaction.
    pub fn undo(&mut self, savepoint: Savepoint) {
        self.changed = savepoint.changed;
        self.loads.truncate(savepoint.loads);
    }

    pub(super) fn existing(&self, name: &str) -> Result<Arc<Table>> {
        let table = self.table(name).ok_or_else(|| Error::NoSuchTable(name.into()))?;
        if self.loads.iter().any(|load| load.table() == table.id) {
            return Err(Error::Invalid(format!("the transaction loads table '{name}' and does nothing else with it")));
        }
        Ok(table)
    }

    /// Adds rows; how many. Columns are matched by position and cast to the table's types if they have others.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming table, column and row if a value does not fit; [`Error::DuplicateKey`] naming the row and the key.
    /// Nothing was added then.
    pub fn insert<'a>(&mut self, name: &str, batch: &RecordBatch, numbers: impl Into<RowNumbers<'a>>) -> Result<u64> {
        let (table, numbers) = (self.existing(name)?, numbers.into());
        let columns = canonical_columns(&table.def, batch, numbers.names())?;
        let found = self.duplicates_of(&table, &columns)?;
        if let Some((row, key)) = found.repeated.or_else(|| found.there.first().map(|(row, _, key)| (*row, *key))) {
            return Err(duplicate(&table.def, key, &columns, row, &numbers));
        }
        self.add(&table, &columns)?;
        Ok(batch.num_rows() as u64)
    }

    /// The rows of a batch of the table's types that have a unique key of a row that is there: pairs of the row and that one's address.
    ///
    /// # Errors
    /// [`Error::DuplicateKey`] if two of the rows have the same key, naming the later one; storage errors.
    pub fn duplicates<'a>(
        &self,
        name: &str,
        batch: &RecordBatch,
        numbers: impl Into<RowNumbers<'a>>,
    ) -> Result<Vec<(usize, u64)>> {
        let (table, numbers) = (self.existing(name)?, numbers.into());
        let columns = canonical_columns(&table.def, batch, numbers.names())?;
        let found = self.duplicates_of(&table, &columns)?;
        match found.repeated {
            Some((row, key)) => Err(duplicate(&table.def, key, &columns, row, &numbers)),
            None => Ok(found.there.into_iter().map(|(row, address, _)| (row, address)).collect()),
        }
    }

    fn duplicates_of(&self, table: &Arc<Table>, columns: &[ArrayRef]) -> Result<Duplicates> {
        let mut found = Duplicates::default();
        if table.def.unique_keys.is_empty() {
            return Ok(found);
        }
        for (number, key) in table.def.unique_keys.iter().enumerate() {
            let repeated = SoughtKeys::new(key, columns).repeated()?;
            found.repeated = found.repeated.or_else(|| repeated.map(|(row, _)| (row, number)));
        }
        for (partition, rows) in split(table, columns) {
            let part = taken(columns, rows.as_deref())?;
            for (number, key) in table.def.unique_keys.iter().enumerate() {
                let places = SoughtKeys::new(key, &part).find(&table.def, number, &table.partitions[partition])?;
                let ordinal = table.ordinal(partition);
                found.there.extend(places.into_iter().map(|(row, place)| {
                    let row = rows.as_ref().map_or(row, |rows| rows[row] as usize);
                    (row, place.address(ordinal), number)
                }));
            }
        }
        found.there.sort_unstable();
        Ok(found)
    }

    /// Adds rows of canonical columns whose keys are free.
    fn add(&mut self, table: &Arc<Table>, columns: &[ArrayRef]) -> Result<()> {
        let mut changed = Table::clone_of(table);
        for (partition, rows) in split(table, columns) {
            let rows = taken(columns, rows.as_deref())?;
            changed = changed.with_partition(partition, |part| part.own.push(rows.into()))?;
        }
        self.change(table, changed);
        Ok(())
    }

    /// Deletes rows by the addresses that a query in this transaction gave; how many. An address that comes twice counts once.
    ///
    /// # Errors
    /// [`Error::Invalid`] if a row is not there.
    pub fn delete(&mut self, name: &str, addresses: &[u64]) -> Result<u64> {
        let table = self.existing(name)?;
        let mut of_partition: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        let addresses: HashSet<u64> = addresses.iter().copied().collect();
        for address in &addresses {
            of_partition.entry(Place::of(*address).0).or_default().push(*address);
        }
        let mut changed = Table::clone_of(&table);
        let mut of_others = Vec::new();
        for (ordinal, addresses) in &of_partition {
            let not_there = || Error::Invalid(format!("table '{name}' has no such row to delete"));
            let partition = table.partition_of(*ordinal).ok_or_else(not_there)?;
            let places: Vec<Place> = addresses.iter().map(|address| Place::of(*address).1).collect();
            if !places.iter().all(|place| table.partitions[partition].is_live(*place)) {
                return Err(not_there());
            }
            changed = changed.with_partition(partition, |part| part.delete(&places))?;
            let own = |place: &Place| matches!(place, Place::Memory(number) if *number >= OWN_ROWS);
            let others = addresses.iter().zip(&places).filter(|(_, place)| !own(place));
            of_others.extend(others.map(|(address, _)| (partition, *address)));
        }
        let changed = self.change(&table, changed);
        for (partition, address) in of_others {
            changed.deleted[partition].insert(address);
        }
        Ok(addresses.len() as u64)
    }

    /// Rows by their addresses, in that order: all columns.
    ///
    /// # Errors
    /// [`Error::Invalid`] if a row is not there; storage errors.
    pub fn read(&self, name: &str, addresses: &[u64]) -> Result<Vec<ArrayRef>> {
        let table = self.existing(name)?;
        let mut order: Vec<(u64, usize)> = addresses.iter().copied().zip(0..).collect();
        order.sort_unstable();
        let every: Vec<u32> = (0..table.def.columns.len() as u32).collect();
        let mut parts: Vec<Vec<ArrayRef>> = vec![vec![]; every.len()];
        let mut places = vec![0u32; addresses.len()];
        for (at, (_, asked)) in order.iter().enumerate() {
            places[*asked] = at as u32;
        }
        let sorted: Vec<u64> = order.iter().map(|(address, _)| *address).collect();
        let scanned: Vec<_> = (0..table.partitions.len()).map(|p| table.scanned(p)).collect::<Result<_>>()?;
        for unit in sorted.chunk_by(|a, b| unit_of(&scanned, *a) == unit_of(&scanned, *b)) {
            let found = unit_of(&scanned, unit[0]).map(|(partition, unit)| &scanned[partition][unit]);
            let found = found.ok_or_else(|| Error::Invalid(format!("table '{name}' has no such row")))?;
            let rows: Vec<u32> = unit.iter().map(|address| (address - found.address) as u32).collect();
            parts.iter_mut().zip(read_rows(&found.segment, &every, &rows)?).for_each(|(part, values)| part.push(values));
        }
        let places = UInt32Array::from(places);
        let column = |parts: Vec<ArrayRef>| {
            let arrays: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
            Ok(take(&concat(&arrays)?, &places, None)?)
        };
        parts.into_iter().map(column).collect()
    }

    pub(super) fn change(&mut self, before: &Arc<Table>, table: Table) -> &mut Changed {
        let deleted = || vec![RoaringTreemap::new(); before.partitions.len()];
        let new = || Changed { table: Arc::clone(before), truncated: false, deleted: deleted() };
        let changed = self.changed.entry(before.id).or_insert_with(new);
        changed.table = Arc::new(table);
        changed
    }

    /// Makes the changes last and shows them to everyone.
    ///
    /// # Errors
    /// [`Error::Conflict`] if another transaction changed the same rows first, and [`Error::NoSuchTable`] if the table is gone;
    /// [`Error::Io`]. Nothing was changed then.
    pub fn commit(self) -> Result<()> {
        self.end(&Ending::Commit).map(drop)
    }

    /// The rows that it added, as changes; large ones are written as segments.
    pub(super) fn inserted(&self) -> Result<Vec<Inserted>> {
        let mut inserted = Vec::new();
        for (id, changed) in &self.changed {
            for (partition, part) in changed.table.partitions.iter().enumerate().filter(|(_, part)| part.own.rows() > 0) {
                let (columns, _) = part.own.live(u64::MAX)?;
                let change = if part.own.rows() as usize >= self.database.options().flush_rows.max(1) {
                    let (rows, _) = sorted(columns.clone(), &changed.table.def)?;
                    let (segments, _) = self.database.write_segments(&changed.table, partition, &rows)?;
                    Change::Attach {
                        table: *id,
                        partition,
                        segments: segments.iter().map(|s| Entry::of(s, Default::default())).collect(),
                    }
                } else {
                    Change::Insert { table: *id, partition, rows: InsertedRows::new(columns.clone().into())? }
                };
                inserted.push((partition, columns, change));
            }
        }
        self.database.make_room(&self.changed.keys().copied().collect::<Vec<_>>())?;
        Ok(inserted)
    }

    /// The changes as they are on the newest state.
    pub(super) fn changes(&self, head: &Head, inserted: Vec<Inserted>) -> Result<Vec<Change>> {
        let mut changes = Vec::new();
        for load in &self.loads {
            changes.extend(load.changes(&head.catalog)?);
        }
        for (id, changed) in &self.changed {
            let name = changed.table.name();
            let now = head.catalog.table_of(*id).ok_or_else(|| Error::NoSuchTable(name.into()))?;
            if now.def != changed.table.def {
                return Err(Error::Conflict(format!("table '{name}' was altered")));
            }
            if changed.truncated {
                changes.push(Change::TruncateTable(*id));
            }
            for (partition, rows) in changed.deleted.iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
                let rows = moved(head, now, partition, rows)?;
                changes.push(Change::Delete { table: *id, partition, rows });
            }
        }
        for (partition, columns, change) in inserted {
            let (Change::Insert { table: id, .. } | Change::Attach { table: id, .. }) = &change else { continue };
            let now = head.catalog.existing(*id)?;
            self.check_keys(now, partition, &columns, &changes)?;
            changes.push(change);
        }
        Ok(changes)
    }

    /// No live row that this transaction does not delete has a key of the new rows. What was there at its snapshot has been looked at by
    /// the statement.
    fn check_keys(&self, now: &Arc<Table>, partition: usize, columns: &[ArrayRef], changes: &[Change]) -> Result<()> {
        let seen = self.snapshot.table_of(now.id).map(|table| &table.partitions[partition]);
        if seen.is_some_and(|seen| Arc::ptr_eq(seen, &now.partitions[partition])) {
            return Ok(());
        }
        let (ordinal, seen) = (now.ordinal(partition), seen.map(|seen| &**seen));
        let deletes = |place: Place| {
            changes.iter().any(|change| match change {
                Change::TruncateTable(table) => *table == now.id,
                Change::Delete { table, rows, .. } => *table == now.id && rows.contains(place.address(ordinal)),
                _ => false,
            })
        };
        for (number, key) in now.def.unique_keys.iter().enumerate() {
            let there = SoughtKeys::new(key, columns).find_since(seen, &now.def, number, &now.partitions[partition])?;
            if there.iter().any(|(_, place)| !deletes(*place)) {
                return Err(Error::Conflict(format!("a row with the same {} was added to table '{}'", key.name, now.name())));
            }
        }
        Ok(())
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        self.database.writers.lock().remove(&self.number);
        if self.database.forwards.load(Ordering::Acquire) {
            self.database.prune_forwards(&mut self.database.head.lock());
        }
    }
}

#[derive(Default)]
struct Duplicates {
    /// A row whose key another one of the same batch has, and the key's number.
    repeated: Option<(usize, usize)>,
    /// Rows whose key is there: the row, the address of the one that is there, the key's number.
    there: Vec<(usize, u64, usize)>,
}

fn duplicate(def: &TableDef, key: usize, columns: &[ArrayRef], row: usize, numbers: &RowNumbers<'_>) -> Error {
    let (unit, number) = (numbers.names().unit, numbers.of(row));
    let key = &def.unique_keys[key];
    let text = SoughtKeys::new(key, columns).text(row);
    Error::DuplicateKey(format!("table '{}', {unit} {number}: there is a row with {} {text} already", def.name, key.name))
}

/// Which rows go to which partition; `None`: all. Without a shard key they fill up the smallest one.
fn split(table: &Table, columns: &[ArrayRef]) -> Vec<(usize, Option<Vec<u32>>)> {
    if table.def.shard_key.is_empty() || table.partitions.len() == 1 {
        return vec![(table.smallest_partition(), None)];
    }
    let rows_of = rows_by_partition(&table.def.shard_key, columns, table.partitions.len());
    let all = columns.first().map_or(0, Array::len);
    if let Some(partition) = rows_of.iter().position(|rows| rows.len() == all) {
        return vec![(partition, None)];
    }
    rows_of.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty()).map(|(p, rows)| (p, Some(rows))).collect()
}

fn taken(columns: &[ArrayRef], rows: Option<&[u32]>) -> Result<Vec<ArrayRef>> {
    let Some(rows) = rows else { return Ok(columns.to_vec()) };
    let rows = UInt32Array::from(rows.to_vec());
    Ok(columns.iter().map(|c| take(c, &rows, None)).collect::<std::result::Result<_, _>>()?)
}

/// The unit that an address is in: the partition's place, and the unit's there.
fn unit_of(scanned: &[Vec<crate::table::Scanned>], address: u64) -> Option<(usize, usize)> {
    scanned.iter().enumerate().find_map(|(partition, units)| {
        let within = |unit: &crate::table::Scanned| (unit.address..unit.address + unit.segment.rows() as u64).contains(&address);
        units.iter().position(within).map(|unit| (partition, unit))
    })
}

/// Where rows are now that a transaction deletes.
fn moved(head: &Head, now: &Table, partition: usize, rows: &RoaringTreemap) -> Result<RoaringTreemap> {
    let part: &Partition = &now.partitions[partition];
    let conflict = || Error::Conflict(format!("rows of table '{}' were changed", now.name()));
    let mut moved = RoaringTreemap::new();
    for address in rows {
        let mut place = Place::of(address).1;
        for (_, forward) in &head.forwards {
            match forward.find(now.id, partition, place) {
                None => {}
                Some(Some(there)) => place = there,
                Some(None) => return Err(conflict()),
            }
        }
        if !part.is_live(place) {
            return Err(conflict());
        }
        moved.insert(place.address(now.ordinal(partition)));
    }
    Ok(moved)
}
