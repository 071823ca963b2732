//! Transactions on a cluster.
//!
//! A leaf takes part from the moment that the transaction first asks it for something; what it sees there is what was committed then.
//! A commit that changes one partition is that partition's. One that changes several is decided by the first of them: the others
//! prepare, then that one commits together with the decision, then the others are told. From the decision on the transaction is
//! committed, whoever fails; before it, it never happened. Who was not told asks ([`super::in_doubt`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use parking_lot::Mutex;
use stoa_columnstore::{RowNames, TableDef, conform, partition_of_address};
use stoa_exec::{CancelToken, Progress, QueryResult};
use stoa_plan::Query;
use stoa_rpc::ipc::{one_chunk, read_chunk};
use stoa_rpc::leaf::{LeafTransaction, NumberedRows, REFERENCE, TransactionSetup};
use stoa_rpc::{Failure, FailureKind, LeafPool};

use super::fragments::{at, in_parallel};
use super::load::placed;
use super::{Database, Shared};
use crate::{Error, Result, Transaction};

/// Rows that one call carries.
const ROWS_AT_ONCE: usize = 1 << 13;
/// Addresses that one call carries.
const ADDRESSES_AT_ONCE: usize = 1 << 20;
/// How long the outcome is asked for when the answer to the decision was lost.
const ASK: Duration = Duration::from_secs(8);

/// The leaves that take part in a transaction.
pub(super) struct Participants {
    database: Arc<Database>,
    pool: Arc<LeafPool>,
    number: u64,
    open: Mutex<BTreeMap<String, Arc<dyn LeafTransaction>>>,
}

impl Participants {
    /// The transaction on a leaf; begins there if it has not.
    pub fn leaf(&self, address: &str) -> std::result::Result<Arc<dyn LeafTransaction>, Failure> {
        if let Some(open) = self.open.lock().get(address) {
            return Ok(open.clone());
        }
        let masters = (0u32..).zip(&self.database.masters);
        let setup = TransactionSetup {
            transaction: self.number,
            database: self.database.name.clone(),
            address: address.to_owned(),
            ordinals: masters.filter(|(_, master)| master.as_deref() == Some(address)).map(|(ordinal, _)| ordinal).collect(),
        };
        let begun = self.pool.leaf(address)?.begin_transaction(setup).map_err(|e| at(address, e))?;
        // Whoever was first has it; nothing was done on the other one.
        Ok(self.open.lock().entry(address.to_owned()).or_insert(begun).clone())
    }

    /// Where the transaction is open.
    fn all(&self) -> Vec<(String, Arc<dyn LeafTransaction>)> {
        self.open.lock().iter().map(|(address, leaf)| (address.clone(), leaf.clone())).collect()
    }
}

/// A partition of a leaf, or its copy of the REFERENCE tables.
type Place = (String, u32);

/// A transaction.
pub(super) struct ClusterTransaction {
    shared: Shared,
    participants: Participants,
    /// What was changed.
    touched: BTreeSet<Place>,
    /// A leaf did not go back to where a statement began: all that is left is to roll back.
    broken: Option<Failure>,
}

impl ClusterTransaction {
    pub fn new(database: Arc<Database>, shared: &Shared) -> ClusterTransaction {
        let number = shared.numbers.next(shared.control.node());
        let participants = Participants { database, pool: shared.leaves.clone(), number, open: Mutex::default() };
        ClusterTransaction { shared: shared.clone(), participants, touched: BTreeSet::new(), broken: None }
    }

    fn database(&self) -> &Database {
        &self.participants.database
    }

    fn def(&self, table: &str) -> Result<Arc<TableDef>> {
        let def = self.database().tables.get(&table.to_lowercase()).cloned();
        Ok(def.ok_or_else(|| stoa_columnstore::Error::NoSuchTable(table.to_owned()))?)
    }

    fn master(&self, ordinal: u32) -> Result<Place> {
        let master = self.database().masters.get(ordinal as usize).cloned().flatten();
        let what = || format!("partition {ordinal} of database '{}' is offline: no leaf that has it is", self.database().name);
        Ok((master.ok_or_else(|| Error::Invalid(what()))?, ordinal))
    }

    /// The copy of the REFERENCE tables that queries read: addresses are of that one.
    fn home(&self) -> Result<Place> {
        let first = self.database().placement()?.into_keys().next().or_else(|| self.database().leaves.first().cloned());
        Ok((first.ok_or_else(no_leaf)?, REFERENCE))
    }

    /// All copies of the REFERENCE tables.
    fn copies(&self) -> Result<Vec<Place>> {
        if self.database().leaves.is_empty() {
            return Err(no_leaf());
        }
        Ok(self.database().leaves.iter().map(|address| (address.clone(), REFERENCE)).collect())
    }

    /// Which rows of a batch go where.
    fn split(&self, def: &TableDef, batch: &RecordBatch) -> Result<Vec<(Place, Vec<u32>)>> {
        let all = || (0..batch.num_rows() as u32).collect::<Vec<u32>>();
        let partitions = self.database().masters.len().max(1);
        if def.shard_key.is_empty() {
            // All rows of a transaction in one partition: it commits without the others.
            let ordinal = (self.participants.number % partitions as u64) as u32;
            return Ok(vec![(self.master(ordinal)?, all())]);
        }
        let parts = placed(def, batch, partitions);
        parts.into_iter().map(|(ordinal, rows)| Ok((self.master(ordinal as u32)?, rows))).collect()
    }

    /// Rows by their addresses, which are all of one place.
    fn read_from(&self, def: &TableDef, place: &Place, addresses: &[u64]) -> std::result::Result<RecordBatch, Failure> {
        let leaf = self.participants.leaf(&place.0)?;
        let mut batches = Vec::new();
        for part in addresses.chunks(ROWS_AT_ONCE) {
            let chunk = leaf.read(&def.name, place.1, part).map_err(|e| at(&place.0, e))?;
            batches.extend(read_chunk(&chunk)?.1);
        }
        let broken = |why: String| Failure::new(FailureKind::Fatal, format!("leaf {}: {why}", place.0));
        let rows = concat_batches(&def.schema(), &batches).map_err(|e| broken(e.to_string()))?;
        if rows.num_rows() != addresses.len() {
            return Err(broken(format!("{} rows came for {} addresses", rows.num_rows(), addresses.len())));
        }
        Ok(rows)
    }

    /// Addresses by the place that they are of, each with its number among all.
    fn by_place(&self, def: &TableDef, addresses: &[u64]) -> Result<BTreeMap<Place, Vec<(usize, u64)>>> {
        let mut places: BTreeMap<u32, Vec<(usize, u64)>> = BTreeMap::new();
        for (i, address) in addresses.iter().enumerate() {
            places.entry(partition_of_address(*address)).or_default().push((i, *address));
        }
        let place = |ordinal| if def.reference { self.home() } else { self.master(ordinal) };
        places.into_iter().map(|(ordinal, addresses)| Ok((place(ordinal)?, addresses))).collect()
    }

    /// Deletes rows of a REFERENCE table: in the copies whose addresses these are not by their values.
    fn delete_copies(&self, def: &TableDef, home: &Place, addresses: &[u64]) -> Result<()> {
        let others: Vec<Place> = self.copies()?.into_iter().filter(|copy| copy != home).collect();
        for addresses in addresses.chunks(ROWS_AT_ONCE).filter(|_| !others.is_empty()) {
            let chunk = one_chunk(&self.read_from(def, home, addresses)?)?;
            in_parallel(&others, |(address, ordinal)| {
                let leaf = self.participants.leaf(address)?;
                leaf.delete_rows(&def.name, *ordinal, chunk.clone()).map_err(|e| at(address, e))
            })?;
        }
        Ok(())
    }

    fn usable(&self) -> Result<()> {
        self.broken.clone().map_or(Ok(()), |failure| Err(Error::Node(failure)))
    }

    /// Does the same on every leaf that takes part.
    fn everywhere(&mut self, each: impl Fn(&dyn LeafTransaction) -> std::result::Result<(), Failure> + Sync) {
        let done = in_parallel(&self.participants.all(), |(address, leaf)| each(&**leaf).map_err(|e| at(address, e)));
        if let Err(failure) = done {
            self.broken.get_or_insert(failure);
        }
    }
}

fn no_leaf() -> Error {
    Error::Invalid("there is no leaf to store rows on: ADD LEAF first".into())
}

fn numbered(batch: &RecordBatch, rows: &[u32], first: usize) -> std::result::Result<NumberedRows, Failure> {
    let broken = |e: arrow::error::ArrowError| Failure::new(FailureKind::Fatal, e.to_string());
    let part = take_record_batch(batch, &UInt32Array::from(rows.to_vec())).map_err(broken)?;
    Ok(NumberedRows { chunk: one_chunk(&part)?, numbers: rows.iter().map(|row| row + first as u32).collect() })
}

impl Transaction for ClusterTransaction {
    fn execute(&self, query: &Query, cancel: &CancelToken, progress: &Progress) -> Result<QueryResult> {
        self.usable()?;
        self.shared.run(self.participants.database.clone(), query, Some(&self.participants), cancel, progress)
    }

    fn insert(&mut self, table: &str, batch: &RecordBatch) -> Result<u64> {
        self.usable()?;
        let def = self.def(table)?;
        let all = conform(&def, batch, RowNames::default())?;
        for first in (0..all.num_rows()).step_by(ROWS_AT_ONCE) {
            let batch = all.slice(first, ROWS_AT_ONCE.min(all.num_rows() - first));
            let parts: Vec<(Place, Vec<u32>)> = if def.reference {
                self.copies()?.into_iter().map(|copy| (copy, (0..batch.num_rows() as u32).collect())).collect()
            } else {
                self.split(&def, &batch)?
            };
            self.touched.extend(parts.iter().map(|(place, _)| place.clone()));
            in_parallel(&parts, |((address, ordinal), rows)| {
                let rows = numbered(&batch, rows, first + 1)?;
                self.participants.leaf(address)?.insert(&def.name, *ordinal, rows).map_err(|e| at(address, e))
            })?;
        }
        Ok(all.num_rows() as u64)
    }

    fn duplicates(&self, table: &str, batch: &RecordBatch) -> Result<Vec<(usize, u64)>> {
        self.usable()?;
        let def = self.def(table)?;
        let batch = conform(&def, batch, RowNames::default())?;
        if def.unique_keys.is_empty() {
            return Ok(vec![]);
        }
        let parts =
            if def.reference { vec![(self.home()?, (0..batch.num_rows() as u32).collect())] } else { self.split(&def, &batch)? };
        let found = in_parallel(&parts, |((address, ordinal), rows)| {
            let sent = numbered(&batch, rows, 1)?;
            let found = self.participants.leaf(address)?.duplicates(&def.name, *ordinal, sent).map_err(|e| at(address, e))?;
            let strange = || Failure::new(FailureKind::Fatal, format!("leaf {address} found rows that it was not asked for"));
            let whole = |(row, there): (u32, u64)| Ok((*rows.get(row as usize).ok_or_else(strange)? as usize, there));
            found.into_iter().map(whole).collect::<std::result::Result<Vec<_>, Failure>>()
        })?;
        let mut found: Vec<(usize, u64)> = found.into_iter().flatten().collect();
        found.sort_unstable();
        Ok(found)
    }

    fn read(&self, table: &str, addresses: &[u64]) -> Result<Vec<ArrayRef>> {
        self.usable()?;
        let def = self.def(table)?;
        let places: Vec<(Place, Vec<(usize, u64)>)> = self.by_place(&def, addresses)?.into_iter().collect();
        let parts = in_parallel(&places, |(place, asked)| {
            self.read_from(&def, place, &asked.iter().map(|(_, address)| *address).collect::<Vec<_>>())
        })?;
        let rows = concat_batches(&def.schema(), &parts).map_err(stoa_exec::Error::from)?;
        let mut order = vec![0u32; addresses.len()];
        for (at, (asked, _)) in (0u32..).zip(places.iter().flat_map(|(_, asked)| asked)) {
            order[*asked] = at;
        }
        let rows = take_record_batch(&rows, &UInt32Array::from(order)).map_err(stoa_exec::Error::from)?;
        Ok(rows.columns().to_vec())
    }

    fn delete(&mut self, table: &str, addresses: &[u64]) -> Result<u64> {
        self.usable()?;
        let def = self.def(table)?;
        let addresses: Vec<u64> = BTreeSet::from_iter(addresses.iter().copied()).into_iter().collect();
        if addresses.is_empty() {
            return Ok(0);
        }
        let places: Vec<(Place, Vec<(usize, u64)>)> = self.by_place(&def, &addresses)?.into_iter().collect();
        if def.reference {
            self.touched.extend(self.copies()?);
            self.delete_copies(&def, &self.home()?, &addresses)?;
        }
        self.touched.extend(places.iter().map(|(place, _)| place.clone()));
        in_parallel(&places, |((address, ordinal), asked)| {
            let (leaf, of_leaf) = (self.participants.leaf(address)?, asked.iter().map(|(_, a)| *a).collect::<Vec<u64>>());
            let delete = |part| leaf.delete(&def.name, *ordinal, part).map_err(|e| at(address, e));
            of_leaf.chunks(ADDRESSES_AT_ONCE).try_for_each(delete)
        })?;
        Ok(addresses.len() as u64)
    }

    fn savepoint(&mut self) {
        self.everywhere(|leaf| leaf.savepoint());
    }

    fn undo(&mut self) {
        self.everywhere(|leaf| leaf.undo());
    }

    fn commit(self: Box<Self>) -> Result<()> {
        self.usable()?;
        match self.touched.len() {
            0 => Ok(()),
            1 => self.commit_one(),
            _ => self.commit_several(),
        }
    }
}

impl ClusterTransaction {
    fn commit_one(&self) -> Result<()> {
        let Some((address, ordinal)) = self.touched.first() else { return Ok(()) };
        let committed = self.participants.leaf(address)?.commit(*ordinal, false);
        committed.map_err(|failure| if is_refusal(&failure) { at(address, failure).into() } else { unknown(&failure) })
    }

    /// The partition that decides: one that is changed, or any if only REFERENCE tables are.
    fn decider(&self) -> Result<Place> {
        if let Some(place) = self.touched.iter().find(|(_, ordinal)| *ordinal != REFERENCE) {
            return Ok(place.clone());
        }
        let online = (0u32..).zip(&self.database().masters).find_map(|(ordinal, master)| Some((master.clone()?, ordinal)));
        online.ok_or_else(|| Error::Invalid(format!("no partition of database '{}' is online", self.database().name)))
    }

    fn commit_several(&self) -> Result<()> {
        let decider = self.decider()?;
        let mut others: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for (address, ordinal) in self.touched.iter().filter(|place| **place != decider) {
            others.entry(address.clone()).or_default().push(*ordinal);
        }
        let others: Vec<(String, Vec<u32>)> = others.into_iter().collect();
        // Where nothing was begun nothing can be prepared: it is known now who is there.
        let leaf = self.participants.leaf(&decider.0)?;
        let prepared = in_parallel(&others, |(address, ordinals)| {
            self.participants.leaf(address)?.prepare(ordinals, decider.1).map_err(|e| at(address, e))
        });
        if let Err(failure) = prepared {
            self.resolve(&others, false);
            return Err(failure.into());
        }
        if let Err(failure) = leaf.commit(decider.1, true) {
            let failure = at(&decider.0, failure);
            let committed = if is_refusal(&failure) { Some(false) } else { self.ask(decider.1) };
            match committed {
                Some(true) => {}
                Some(false) => {
                    self.resolve(&others, false);
                    return Err(failure.into());
                }
                None => return Err(unknown(&failure)),
            }
        }
        if self.resolve(&others, true) {
            self.shared.transactions.forget_later(&self.database().name, decider.1, self.participants.number);
        }
        Ok(())
    }

    /// Tells those that prepared; whether all of them know. Who does not is told later.
    fn resolve(&self, others: &[(String, Vec<u32>)], commit: bool) -> bool {
        let (database, number) = (&self.database().name, self.participants.number);
        let resolved = in_parallel(others, |(address, ordinals)| {
            let leaf = self.participants.pool.leaf(address)?;
            ordinals.iter().try_for_each(|ordinal| leaf.resolve(database, *ordinal, number, commit))
        });
        if let Err(failure) = &resolved {
            tracing::warn!(transaction = number, commit, %failure, "a leaf was not told of a transaction's outcome: it will be");
        }
        resolved.is_ok()
    }

    /// Asks for the outcome until it is known, for a while.
    fn ask(&self, decider: u32) -> Option<bool> {
        let began = Instant::now();
        while began.elapsed() < ASK {
            let database = self.shared.control.database(&self.database().name).ok();
            let master = database.and_then(|database| database.masters.get(decider as usize).cloned().flatten());
            let leaf = master.and_then(|address| self.participants.pool.leaf(&address).ok());
            let outcome = leaf.and_then(|leaf| leaf.outcome(&self.database().name, decider, self.participants.number).ok());
            if outcome.is_some() {
                return outcome;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        None
    }
}

/// Whether the leaf said no, so that nothing was committed.
fn is_refusal(failure: &Failure) -> bool {
    !matches!(failure.kind, FailureKind::Retryable | FailureKind::Fatal | FailureKind::Cancelled)
}

fn unknown(failure: &Failure) -> Error {
    Error::retryable(format!("whether the transaction was committed is not known, look before it is repeated: {failure}"))
}
