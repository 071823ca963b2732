//! Transactions on a cluster.
//!
//! What it sees is of one moment on all leaves, that of its first question. A commit counts from one moment too: the decision brings it,
//! and others at that moment or later wait until a partition that prepared knows the decision ([`stoa_columnstore::Clock`]).
//! A commit is decided by the first of the partitions that are changed: the others prepare, then that one commits together with the
//! decision, then the others are told. From the decision on the transaction is committed, whoever fails; before it, it never happened.
//! Who was not told asks ([`super::in_doubt`]). So does the coordinator when the answer to a commit is lost ([`super::outcome`]): what the
//! deciding partition does not know never commits, so that a transaction of one partition carries its number too. And so does the client
//! when its coordinator is lost ([`super::witness`]).
//!
//! Loads ([`super::load`]) and TRUNCATE are such transactions too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use parking_lot::Mutex;
use stoa_columnstore::{Clock, RowNames, TableDef, conform, partition_of_address};
use stoa_exec::{CancelToken, Profile, Progress, QueryResult, TakeResult};
use stoa_plan::Query;
use stoa_rpc::ipc::one_chunk;
use stoa_rpc::leaf::{LeafTransaction, Load, NumberedRows, REFERENCE, TransactionSetup};
use stoa_rpc::{Failure, FailureKind, LeafPool};

use super::fragments::{at, in_parallel};
use super::load::placed;
use super::outcome::ASK;
use super::reader::rows_of;
use super::{Database, Shared, Witness};
use crate::retry::wait;
use crate::{Error, Result, Transaction};

/// Rows that one call carries.
const ROWS_AT_ONCE: usize = 1 << 13;
/// Addresses that one call carries.
const ADDRESSES_AT_ONCE: usize = 1 << 20;

/// The leaves that take part in a transaction.
pub(super) struct Participants {
    database: Arc<Database>,
    pool: Arc<LeafPool>,
    number: u64,
    clock: Arc<Clock>,
    /// What it sees is as it was then.
    moment: OnceLock<u64>,
    /// What they see matters only when they prepare or commit.
    blind: bool,
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
            moment: if self.blind { 0 } else { *self.moment.get_or_init(|| self.clock.tick()) },
            blind: self.blind,
        };
        let begun = self.pool.leaf(address)?.begin_transaction(setup);
        let begun = begun.inspect_err(|e| self.clock.hear(e.moment)).map_err(|e| at(address, e))?;
        // Whoever was first has it; nothing was done on the other one.
        Ok(self.open.lock().entry(address.to_owned()).or_insert(begun).clone())
    }

    /// Where the transaction is open.
    fn all(&self) -> Vec<(String, Arc<dyn LeafTransaction>)> {
        self.open.lock().iter().map(|(address, leaf)| (address.clone(), leaf.clone())).collect()
    }
}

/// A partition of a leaf, or its copy of the REFERENCE tables.
pub(super) type Place = (String, u32);

/// A transaction.
pub(super) struct ClusterTransaction {
    shared: Shared,
    participants: Participants,
    witness: Arc<Witness>,
    /// What was changed.
    touched: BTreeSet<Place>,
    /// A leaf did not go back to where a statement began: all that is left is to roll back.
    broken: Option<Failure>,
}

impl ClusterTransaction {
    pub fn new(database: Arc<Database>, shared: &Shared, witness: &Arc<Witness>) -> ClusterTransaction {
        ClusterTransaction::begin(database, shared, witness, false)
    }

    /// One that reads nothing: it loads rows, or empties tables.
    pub fn blind(database: Arc<Database>, shared: &Shared, witness: &Arc<Witness>) -> ClusterTransaction {
        ClusterTransaction::begin(database, shared, witness, true)
    }

    fn begin(database: Arc<Database>, shared: &Shared, witness: &Arc<Witness>, blind: bool) -> ClusterTransaction {
        let number = witness.number().unwrap_or_else(|| shared.numbers.next(shared.control.node()));
        let (pool, clock, moment) = (shared.leaves.clone(), shared.clock.clone(), OnceLock::new());
        let participants = Participants { database, pool, number, clock, moment, blind, open: Mutex::default() };
        let (shared, witness) = (shared.clone(), witness.clone());
        ClusterTransaction { shared, participants, witness, touched: BTreeSet::new(), broken: None }
    }

    /// Where the rows of a table are: its partitions, by ordinal, or its copies.
    pub fn homes(&self, def: &TableDef) -> Result<Vec<Place>> {
        if def.reference {
            return self.copies();
        }
        (0..self.database().masters.len() as u32).map(|ordinal| self.master(ordinal)).collect()
    }

    /// Takes many rows into a place, which are of the transaction once the load is prepared.
    pub fn load(&self, def: &TableDef, (address, ordinal): &Place) -> std::result::Result<Box<dyn Load>, Failure> {
        self.participants.leaf(address)?.load(&def.name, *ordinal).map_err(|e| at(address, e))
    }

    /// Places were changed.
    pub fn touch(&mut self, places: impl IntoIterator<Item = Place>) {
        self.touched.extend(places);
    }

    /// Removes all rows of a table.
    pub fn truncate(&mut self, def: &TableDef) -> Result<()> {
        let homes = self.homes(def)?;
        in_parallel(&homes, |(address, ordinal)| {
            self.participants.leaf(address)?.truncate(&def.name, *ordinal).map_err(|e| at(address, e))
        })?;
        self.touch(homes);
        Ok(())
    }

    fn database(&self) -> &Database {
        &self.participants.database
    }

    fn def(&self, table: &str) -> Result<Arc<TableDef>> {
        Ok(Transaction::table(self, table).ok_or_else(|| stoa_columnstore::Error::NoSuchTable(table.to_owned()))?)
    }

    fn master(&self, ordinal: u32) -> Result<Place> {
        Ok((self.database().master(ordinal)?, ordinal))
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
        self.database().check_held()?;
        Ok(self.database().reference.iter().map(|address| (address.clone(), REFERENCE)).collect())
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
            let read = leaf.read(&def.name, place.1, part).and_then(rows_of);
            batches.extend(read.map_err(|e| at(&place.0, e))?);
        }
        if batches.iter().any(|rows| def.check_rows(rows).is_err()) {
            return Err(Failure::new(FailureKind::Altered, format!("table '{}' was altered meanwhile", def.name)));
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
            let chunk = one_chunk(&def.marked(&self.read_from(def, home, addresses)?)?)?;
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

    fn stream(&self, query: &Query, cancel: &CancelToken, progress: &Progress, take: &mut TakeResult<'_>) -> Result<Profile> {
        self.usable()?;
        self.shared.stream((self.participants.database.clone(), Some(&self.participants)), query, cancel, progress, take)
    }

    fn look(&self) -> Result<()> {
        let places: BTreeSet<String> = self.database().placement()?.into_keys().chain([self.home()?.0]).collect();
        Ok(in_parallel(&places.into_iter().collect::<Vec<_>>(), |address| self.participants.leaf(address).map(drop)).map(drop)?)
    }

    fn table(&self, name: &str) -> Option<Arc<TableDef>> {
        self.database().tables.get(&name.to_lowercase()).cloned()
    }

    fn insert(&mut self, table: &str, batch: &RecordBatch) -> Result<u64> {
        self.usable()?;
        let def = self.def(table)?;
        let all = def.marked(&conform(&def, batch, RowNames::default())?)?;
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
        let batch = def.marked(&conform(&def, batch, RowNames::default())?)?;
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

    fn commit(self: Box<Self>, cancel: &CancelToken) -> Result<()> {
        self.usable()?;
        if self.touched.is_empty() {
            return Ok(());
        }
        let decider = self.decider()?;
        self.witness.note(self.participants.number)?;
        let others: Vec<Place> = self.touched.iter().filter(|place| **place != decider).cloned().collect();
        let decided = self.prepare(&others, &decider).and_then(|(leaf, latest)| self.decide(&*leaf, &decider, latest, cancel));
        let moment = match decided {
            Ok(moment) => moment,
            Err(error) => {
                // Where the outcome is not known, those that prepared wait for it.
                if !matches!(error, Error::Unknown(_)) {
                    self.tell(&others, None);
                }
                return Err(error);
            }
        };
        // Who asks this coordinator from now on sees it.
        self.participants.clock.hear(moment);
        if self.tell_all(others, moment, cancel) {
            self.witness.forget(&self.database().name, decider.1, self.participants.number);
        }
        Ok(())
    }
}

impl ClusterTransaction {
    /// The partition that decides: the first one that is changed, so that those that decide do not wait for each other in a circle, or any
    /// if only REFERENCE tables are.
    fn decider(&self) -> Result<Place> {
        let changed = self.touched.iter().filter(|(_, ordinal)| *ordinal != REFERENCE);
        if let Some(place) = changed.min_by_key(|(_, ordinal)| *ordinal) {
            return Ok(place.clone());
        }
        let masters = (0u32..).zip(&self.database().masters);
        let online = masters.into_iter().find_map(|(ordinal, master)| Some((master.clone()?, ordinal)));
        online.map_or_else(|| self.master(0), Ok)
    }

    /// Makes the changes of these places last; the transaction on the leaf that decides, and the latest of their moments.
    fn prepare(&self, places: &[Place], decider: &Place) -> Result<(Arc<dyn LeafTransaction>, u64)> {
        let mut leaves: BTreeMap<&String, Vec<u32>> = BTreeMap::new();
        for (address, ordinal) in places {
            leaves.entry(address).or_default().push(*ordinal);
        }
        // Where nothing was begun nothing can be prepared: it is known now who is there.
        let decides = self.participants.leaf(&decider.0)?;
        let moments = in_parallel(&leaves.into_iter().collect::<Vec<_>>(), |(address, ordinals)| {
            self.participants.leaf(address)?.prepare(ordinals, decider.1).map_err(|e| at(address, e))
        })?;
        Ok((decides, moments.into_iter().max().unwrap_or(0)))
    }

    /// Has a partition commit its part, and with it everything: the moment from which it counts. If its answer is lost it is asked what it
    /// decided, wherever it is by then.
    fn decide(&self, leaf: &dyn LeafTransaction, decider: &Place, prepared: u64, cancel: &CancelToken) -> Result<u64> {
        let failure = match leaf.commit(decider.1, true, prepared) {
            Ok(moment) => return Ok(moment),
            Err(failure) => at(&decider.0, failure),
        };
        if is_refusal(&failure) {
            return Err(failure.into());
        }
        match self.shared.ask((&self.database().name, decider.1), self.participants.number, cancel, &|| false) {
            Some(Some(moment)) => Ok(moment),
            Some(None) => Err(failure.into()),
            None => Err(Error::Unknown(format!(
                "whether the changes were committed is not known: partition {} of database '{}' decided, and does not answer \
                 ({failure}). They are there as a whole or not at all: when SHOW LEAVES says that all leaves are online, look for \
                 them before they are made again",
                decider.1,
                self.database().name
            ))),
        }
    }

    /// The leaf that has a place now: partitions get other masters.
    fn address_now(&self, (address, ordinal): &Place) -> Option<String> {
        let now = self.shared.control.database(&self.database().name).ok()?;
        if *ordinal == REFERENCE {
            return now.reference.contains(address).then(|| address.clone());
        }
        now.masters.get(*ordinal as usize)?.clone()
    }

    /// Tells those that prepared that the transaction commits, for a while: who was told shows it. Whether all were; who was not asks.
    fn tell_all(&self, mut places: Vec<Place>, moment: u64, cancel: &CancelToken) -> bool {
        let (began, all) = (Instant::now(), places.len());
        loop {
            places = self.tell(&places, Some(moment));
            // A copy of the REFERENCE tables that nobody reads now asks when it is back.
            let waits = places.iter().any(|place| place.1 != REFERENCE || self.address_now(place).is_some());
            if !waits || began.elapsed() > self.shared.retry_limit.0 || wait(ASK, cancel).is_err() {
                break;
            }
        }
        if !places.is_empty() {
            let (transaction, untold) = (self.participants.number, places.len());
            tracing::warn!(transaction, untold, all, "partitions were not told that a transaction was committed: they will be");
        }
        places.is_empty()
    }

    /// Tells those that prepared what came of the transaction, and from which moment it counts: who could not be told.
    fn tell(&self, places: &[Place], commit: Option<u64>) -> Vec<Place> {
        let (mut leaves, mut untold) = (BTreeMap::<String, Vec<&Place>>::new(), Vec::new());
        for place in places {
            match self.address_now(place) {
                Some(address) => leaves.entry(address).or_default().push(place),
                None => untold.push(place.clone()),
            }
        }
        let (database, number) = (&self.database().name, self.participants.number);
        let tell = |(address, places): &(String, Vec<&Place>)| {
            let leaf = self.participants.pool.leaf(address).ok();
            let told =
                |place: &&&Place| leaf.as_ref().is_some_and(|leaf| leaf.resolve(database, place.1, number, commit).is_ok());
            // A leaf that did not answer once is not asked the rest.
            let told = places.iter().take_while(told).count();
            Ok(places[told..].iter().copied().cloned().collect::<Vec<Place>>())
        };
        let leaves: Vec<(String, Vec<&Place>)> = leaves.into_iter().collect();
        // Without an answer nobody was told.
        let of_leaves = in_parallel(&leaves, tell).map_or_else(|_| places.to_vec(), |untold| untold.concat());
        untold.extend(of_leaves);
        untold
    }
}

/// Whether the leaf said no, so that nothing was committed.
fn is_refusal(failure: &Failure) -> bool {
    !matches!(failure.kind, FailureKind::Retryable | FailureKind::Fatal | FailureKind::Cancelled)
}
