//! Transactions over several data directories: two-phase commit with presumed abort (Mohan, Lindsay and Obermarck, "Transaction
//! Management in the R* Distributed Database Management System", 1986).
//!
//! Each directory but one makes its changes last without making them ([`Transaction::prepare`]); then the one that decides commits its
//! own together with the decision ([`Transaction::commit_deciding`]); then the others make theirs ([`Database::resolve`]). Whoever does
//! not know what came of it asks the one that decides ([`Database::outcome`]), and what that one does not know never commits.
//!
//! What a prepared transaction will do cannot fail: until it is resolved nobody else may change the rows that it deletes, add the keys
//! that it adds, change the tables that it empties, or move the rows of its partitions.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::ArrayRef;

use super::bulk::Ending;
use super::commit::Head;
use super::replica::gone;
use super::{Catalog, Database, Transaction};
use crate::keys::SoughtKeys;
use crate::log::{Change, encode_changes};
use crate::table::{Partition, Table};
use crate::{Error, Result};

/// How long a transaction that was decided waits for those that come before it; who told of it tells it again.
const SETTLES_WITHIN: Duration = Duration::from_secs(1);

/// What a transaction may do yet.
pub(crate) struct Prepared {
    /// The ordinal of the partition that decides.
    pub(crate) decider: u32,
    /// Inserts, attached segments, deletes and emptied tables.
    pub(crate) changes: Vec<Change>,
    /// The rows that it adds to each partition of a table.
    added: Vec<(u64, usize, Partition)>,
}

impl Prepared {
    /// Whether it changes a partition of a table; `None`: any.
    fn touches(&self, table: u64, partition: Option<usize>) -> bool {
        let mut places = self.changes.iter().filter_map(place_of);
        places.any(|(t, p)| t == table && partition.is_none_or(|partition| p.is_none_or(|p| p == partition)))
    }

    /// Whether it removes all rows of a table.
    fn empties(&self, table: u64) -> bool {
        self.changes.iter().any(|change| matches!(change, Change::TruncateTable(id) if *id == table))
    }
}

/// The table and the partition whose rows a change concerns; `None`: all partitions.
fn place_of(change: &Change) -> Option<(u64, Option<usize>)> {
    match change {
        Change::Insert { table, partition, .. }
        | Change::Attach { table, partition, .. }
        | Change::Delete { table, partition, .. } => Some((*table, Some(*partition))),
        Change::TruncateTable(table) => Some((*table, None)),
        _ => None,
    }
}

impl Catalog {
    /// Whether a prepared transaction changes a partition of a table.
    pub(super) fn is_prepared(&self, table: u64, partition: usize) -> bool {
        self.prepared.values().any(|prepared| prepared.touches(table, Some(partition)))
    }

    /// [`Error::Conflict`] if changes would keep a prepared transaction from what it may do.
    pub(super) fn check_prepared(&self, changes: &[Change]) -> Result<()> {
        if self.prepared.is_empty() {
            return Ok(());
        }
        for change in changes {
            match change {
                Change::Prepare { changes, .. } => self.check_prepared(changes)?,
                Change::DropTable(id) | Change::TruncateTable(id) | Change::AlterTable { id, .. }
                    if self.prepared.values().any(|prepared| prepared.touches(*id, None)) =>
                {
                    return Err(in_use(self.existing(*id)?));
                }
                Change::Insert { table, .. } | Change::Attach { table, .. } | Change::Delete { table, .. }
                    if self.prepared.values().any(|prepared| prepared.empties(*table)) =>
                {
                    return Err(in_use(self.existing(*table)?));
                }
                Change::Delete { table, partition, rows } => {
                    let same = |other: &Change| match other {
                        Change::Delete { table: t, partition: p, rows: others } => {
                            (t, p) == (table, partition) && !others.is_disjoint(rows)
                        }
                        _ => false,
                    };
                    if self.prepared.values().flat_map(|prepared| &prepared.changes).any(same) {
                        return Err(in_use(self.existing(*table)?));
                    }
                }
                Change::Insert { table, partition, .. } | Change::Attach { table, partition, .. } => {
                    self.check_prepared_keys(*table, *partition, change)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// No prepared transaction adds a unique key that a change adds.
    fn check_prepared_keys(&self, id: u64, partition: usize, change: &Change) -> Result<()> {
        // The table of a change may be new.
        let Some(table) = self.table_of(id).filter(|table| !table.def.unique_keys.is_empty()) else { return Ok(()) };
        for (_, _, theirs) in self.prepared.values().flat_map(|p| &p.added).filter(|(t, p, _)| (*t, *p) == (id, partition)) {
            for (number, key) in table.def.unique_keys.iter().enumerate() {
                for columns in key_columns(table, change, &key.columns)? {
                    if !SoughtKeys::of_key(columns).find(&table.def, number, theirs)?.is_empty() {
                        return Err(in_use(table));
                    }
                }
            }
        }
        Ok(())
    }

    /// Keeps what a transaction may do.
    pub(super) fn prepare(&mut self, transaction: u64, decider: u32, changes: &[Change]) -> Result<()> {
        if self.prepared.contains_key(&transaction) {
            return Err(Error::Invalid(format!("transaction {transaction} is prepared already")));
        }
        let mut prepared = Prepared { decider, changes: changes.to_vec(), added: vec![] };
        for change in &mut prepared.changes {
            let Some((id, partition)) = place_of(change) else {
                return Err(Error::Invalid("a transaction cannot prepare a change of this kind".into()));
            };
            let def = Arc::clone(&self.existing(id)?.def);
            let Some(partition) = partition else { continue };
            let mut part = Partition::default();
            match change {
                Change::Insert { rows, .. } => part.memory.push(rows.columns(&def).map_err(Error::Invalid)?)?,
                Change::Attach { segments, .. } => {
                    for entry in &mut *segments {
                        let stored = self.files.stored(&def, id, partition, entry);
                        entry.segment = Some(Arc::clone(&stored.segment));
                        part.segments.push(stored);
                    }
                    let next = segments.iter().map(|entry| entry.id + 1).max().unwrap_or(0);
                    self.next_segment_id = self.next_segment_id.max(next);
                }
                _ => continue,
            }
            prepared.added.push((id, partition, part));
        }
        self.prepared.insert(transaction, Arc::new(prepared));
        Ok(())
    }

    /// Does what a transaction prepared, or forgets it.
    pub(super) fn resolve(&mut self, transaction: u64, commit: bool) -> Result<()> {
        let prepared = self.prepared.remove(&transaction);
        let prepared = prepared.ok_or_else(|| Error::Invalid(format!("transaction {transaction} is not prepared")))?;
        if commit { prepared.changes.iter().try_for_each(|change| self.apply(change)) } else { Ok(()) }
    }

    /// The transactions that are prepared, each with the ordinal of the partition that decides.
    pub(super) fn in_doubt(&self) -> Vec<(u64, u32)> {
        self.prepared.iter().map(|(transaction, prepared)| (*transaction, prepared.decider)).collect()
    }

    /// Prepared transactions and decisions, as bodies of records.
    pub(super) fn pending(&self) -> Vec<Vec<u8>> {
        let prepare = |(transaction, prepared): (&u64, &Arc<Prepared>)| Change::Prepare {
            transaction: *transaction,
            decider: prepared.decider,
            changes: prepared.changes.clone(),
        };
        let mut bodies: Vec<Vec<u8>> = self.prepared.iter().map(|p| encode_changes(&[prepare(p)])).collect();
        let decide = |(transaction, commit): (&u64, &bool)| Change::Decide { transaction: *transaction, commit: *commit };
        let decisions: Vec<Change> = self.decided.iter().map(decide).collect();
        bodies.extend(decisions.chunks(1 << 16).map(encode_changes));
        bodies
    }
}

/// The columns of a key of the rows that a change adds.
fn key_columns(table: &Table, change: &Change, key: &[u32]) -> Result<Vec<Vec<ArrayRef>>> {
    match change {
        Change::Insert { rows, .. } => {
            let columns = rows.columns(&table.def).map_err(Error::Invalid)?;
            Ok(vec![key.iter().map(|column| Arc::clone(&columns[*column as usize])).collect()])
        }
        Change::Attach { segments, .. } => {
            segments.iter().filter_map(|entry| entry.segment.as_ref()).map(|segment| segment.whole(key)).collect()
        }
        _ => Ok(vec![]),
    }
}

fn in_use(table: &Table) -> Error {
    Error::Conflict(format!("rows of table '{}' are being changed", table.name()))
}

impl Transaction {
    /// Makes the changes last without showing them: they are there once [`Database::resolve`] says so, whatever happens in between.
    /// `decider` is the ordinal of the partition that decides, for whoever finds the transaction in doubt. A transaction that changed
    /// nothing need not be resolved. Returns the earliest moment from which it may count, for the one that decides; 0: it changed nothing.
    ///
    /// # Errors
    /// As [`Transaction::commit`].
    pub fn prepare(self, transaction: u64, decider: u32) -> Result<u64> {
        self.end(&Ending::Prepare { transaction, decider })
    }

    /// Commits together with the decision that the transaction commits everywhere. `prepared`: the latest of the moments that
    /// [`Transaction::prepare`] gave, 0 if it changes nothing elsewhere. Returns the moment from which it counts, for those that prepared.
    ///
    /// # Errors
    /// As [`Transaction::commit`]; [`Error::Conflict`] if it was decided before that it does not; [`Error::Unsettled`] if others that
    /// come before it stay in doubt.
    pub fn commit_deciding(self, transaction: u64, prepared: u64) -> Result<u64> {
        self.end(&Ending::Decide { transaction, prepared })
    }
}

impl Database {
    /// Makes the changes of a prepared transaction, which count from a moment on, or drops them. Nothing happens if it is not prepared,
    /// or was resolved before.
    ///
    /// # Errors
    /// [`Error::Unsettled`] if others that come before it are in doubt; [`Error::Io`].
    pub fn resolve(self: &Arc<Self>, transaction: u64, commit: Option<u64>) -> Result<()> {
        if let Some(moment) = commit {
            self.shown.wait_to_order(transaction, moment, SETTLES_WITHIN)?;
        }
        let resolves = Cell::new(false);
        let plan = |head: &Head| {
            if head.catalog.prepared.contains_key(&transaction) {
                resolves.set(true);
                let change = Change::Resolve { transaction, commit: commit.is_some() };
                let removed = gone(&head.catalog, &change);
                return Ok((vec![change], removed));
            }
            // Resolved just now: it is so only when that lasts.
            let just_now = self.catalog().prepared.contains_key(&transaction);
            Ok((if just_now { vec![Change::Forget(vec![])] } else { vec![] }, vec![]))
        };
        let ordered = |head: &mut Head| {
            if let Some(moment) = commit.filter(|_| resolves.get()) {
                self.shown.order(transaction, moment, &head.catalog);
            }
        };
        let removed = self.commit_then(plan, ordered)?;
        removed.iter().for_each(|segment| segment.set_doomed(true));
        if resolves.get() && commit.is_none() {
            self.shown.give_up(transaction);
        }
        Ok(())
    }

    /// Whether a transaction commits that this directory decides on, and from which moment. If that was not decided, it is from now on: it
    /// does not.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn outcome(self: &Arc<Self>, transaction: u64) -> Result<Option<u64>> {
        Ok(if self.commits(transaction)? { Some(self.shown.moment_of(transaction)) } else { None })
    }

    fn commits(self: &Arc<Self>, transaction: u64) -> Result<bool> {
        // What is shown is on disk; what is not shown yet may still fail.
        if let Some(commit) = self.catalog().decided.get(&transaction) {
            return Ok(*commit);
        }
        self.commit(|head| match head.catalog.decided.get(&transaction) {
            // Written again, so that the answer waits until it lasts.
            Some(commit) => Ok((vec![Change::Decide { transaction, commit: *commit }], *commit)),
            None => Ok((vec![Change::Decide { transaction, commit: false }], false)),
        })
    }

    /// The transactions that are prepared and not resolved, each with the ordinal of the partition that decides.
    #[must_use]
    pub fn in_doubt(&self) -> Vec<(u64, u32)> {
        self.catalog().in_doubt()
    }

    /// Forgets decisions that nobody will ask for any more.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn forget(self: &Arc<Self>, transactions: &[u64]) -> Result<()> {
        self.commit(|head| {
            let known: Vec<u64> = transactions.iter().copied().filter(|t| head.catalog.decided.contains_key(t)).collect();
            Ok((if known.is_empty() { vec![] } else { vec![Change::Forget(known)] }, ()))
        })?;
        self.shown.forget(transactions);
        Ok(())
    }
}
