//! A transaction on a leaf: one of each partition that it may change, and one of the REFERENCE tables.
//!
//! To the storage every partition is a data directory of its own, whose rows have addresses in partition 0. To the rest of the cluster
//! an address carries the ordinal of its partition; those of REFERENCE tables stay as they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use parking_lot::Mutex;
use stoa_columnstore::{Database, MAX_PARTITIONS, Savepoint, Table, TableWriter, address_in_partition, partition_of_address};
use stoa_exec::Reservation;
use stoa_rpc::ipc::{one_chunk, read_chunk};
use stoa_rpc::leaf::{LeafQuery, LeafTransaction, Load, NumberedRows, QuerySetup, REFERENCE, TransactionSetup};
use stoa_rpc::{Failure, FailureKind, Result};

use crate::databases::{Parts, SETTLE, Tables};
use crate::load::PartitionLoad;
use crate::runner::{Entered, Runner};
use crate::{failure, storage_failure};

/// The transaction of one data directory.
pub(crate) struct Part {
    database: Arc<Database>,
    stage: Mutex<Stage>,
}

enum Stage {
    /// It begins when it is first asked for something.
    Waits,
    Open(State),
    /// It is prepared or committed.
    Over,
}

struct State {
    transaction: stoa_columnstore::Transaction,
    /// Of the statement that runs.
    savepoint: Savepoint,
    /// Rows that it added, also those that were undone.
    rows: usize,
    /// So many rows become segments.
    few: usize,
}

impl State {
    fn begin(database: &Arc<Database>, moment: u64) -> Result<State> {
        let transaction = database.begin_at(moment, SETTLE).map_err(|e| storage_failure(&e))?;
        let savepoint = transaction.savepoint();
        Ok(State { transaction, savepoint, rows: 0, few: database.options().flush_rows })
    }

    /// Commits in some way. What few rows cost is the waiting for disks and for other copies, which keeps no worker from its queries.
    fn commit<T: Send>(
        self,
        pool: &rayon::ThreadPool,
        commit: impl FnOnce(stoa_columnstore::Transaction) -> stoa_columnstore::Result<T> + Send,
    ) -> Result<T> {
        let State { transaction, rows, few, .. } = self;
        let done = if rows < few { commit(transaction) } else { pool.install(|| commit(transaction)) };
        done.map_err(|e| storage_failure(&e))
    }

    /// Refuses rows of another definition than the one that the transaction sees.
    fn check_rows(&self, table: &str, rows: &RecordBatch) -> Result<()> {
        let seen = self.transaction.table(table);
        seen.map_or(Ok(()), |seen| seen.def.check_rows(rows)).map_err(|e| storage_failure(&e))
    }
}

impl Part {
    /// `blind`: it begins later, on what there is then.
    fn begin(database: &Arc<Database>, moment: u64, blind: bool) -> Result<Arc<Part>> {
        let stage = if blind { Stage::Waits } else { Stage::Open(State::begin(database, moment)?) };
        Ok(Arc::new(Part { database: database.clone(), stage: Mutex::new(stage) }))
    }

    /// A table as the transaction sees it.
    pub fn table(&self, name: &str) -> Option<Arc<Table>> {
        self.with(|state| Ok(state.transaction.table(name))).ok()?
    }

    fn with<T>(&self, run: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let mut stage = self.stage.lock();
        if let Stage::Waits = *stage {
            *stage = Stage::Open(State::begin(&self.database, 0)?);
        }
        if let Stage::Open(state) = &mut *stage { run(state) } else { Err(over()) }
    }

    fn take(&self) -> Result<State> {
        match std::mem::replace(&mut *self.stage.lock(), Stage::Over) {
            Stage::Waits => State::begin(&self.database, 0),
            Stage::Open(state) => Ok(state),
            Stage::Over => Err(over()),
        }
    }

    /// Adds the rows of a load, which are durable then.
    pub fn attach(&self, mut writer: TableWriter) -> Result<()> {
        // What takes long comes before a blind transaction begins.
        writer.prepare().map_err(|e| storage_failure(&e))?;
        self.with(|state| state.transaction.attach(writer).map_err(|e| storage_failure(&e)))
    }
}

fn over() -> Failure {
    Failure::new(FailureKind::Fatal, "this transaction has ended")
}

/// A transaction.
pub(crate) struct Transaction {
    setup: TransactionSetup,
    reference: Arc<Part>,
    partitions: BTreeMap<u32, Arc<Part>>,
    runner: Arc<Runner>,
    /// Of the rows that it added.
    memory: Mutex<Reservation>,
    _entered: Entered,
}

impl Transaction {
    pub fn begin(setup: TransactionSetup, parts: &Parts, runner: &Arc<Runner>) -> Result<Transaction> {
        let mut partitions = BTreeMap::new();
        for ordinal in &setup.ordinals {
            partitions.insert(*ordinal, Part::begin(&parts.get(&setup.database, *ordinal)?, setup.moment, setup.blind)?);
        }
        let reference = Part::begin(&parts.reference, setup.moment, setup.blind)?;
        let memory = Mutex::new(runner.memory().reserve("rows of a transaction"));
        Ok(Transaction { setup, reference, partitions, runner: runner.clone(), memory, _entered: runner.enter_transaction()? })
    }

    fn part(&self, ordinal: u32) -> Result<&Arc<Part>> {
        let found = if ordinal == REFERENCE { Some(&self.reference) } else { self.partitions.get(&ordinal) };
        let what = || format!("partition {ordinal} of '{}' is not in this transaction", self.setup.database);
        found.ok_or_else(|| Failure::new(FailureKind::Fatal, what()))
    }

    fn parts(&self) -> impl Iterator<Item = &Arc<Part>> {
        self.partitions.values().chain([&self.reference])
    }

    /// The one batch of a chunk, with as many numbers as rows.
    fn batch(&self, chunk: Vec<u8>, numbers: &[u32]) -> Result<RecordBatch> {
        let batch = one_batch(chunk)?;
        if batch.num_rows() != numbers.len() {
            let what = format!("{} rows came with {} numbers", batch.num_rows(), numbers.len());
            return Err(Failure::new(FailureKind::User, what));
        }
        Ok(batch)
    }
}

fn one_batch(chunk: Vec<u8>) -> Result<RecordBatch> {
    let (_, mut batches) = read_chunk(chunk)?;
    match (batches.pop(), batches.is_empty()) {
        (Some(batch), true) => Ok(batch),
        _ => Err(Failure::new(FailureKind::User, "rows of a transaction come one batch at a time")),
    }
}

/// Addresses in a partition as its data directory has them.
fn own_addresses(ordinal: u32, addresses: &[u64]) -> Result<Vec<u64>> {
    let expected = if ordinal == REFERENCE { 0 } else { ordinal };
    match addresses.iter().find(|address| partition_of_address(**address) != expected) {
        Some(address) => {
            Err(Failure::new(FailureKind::User, format!("row {address:#x} is not in the partition that was named with it")))
        }
        None => Ok(addresses.iter().map(|address| address_in_partition(*address, 0)).collect()),
    }
}

impl LeafTransaction for Transaction {
    fn query(&self, query: u64) -> Result<Arc<dyn LeafQuery>> {
        let TransactionSetup { database, address, ordinals, moment, .. } = self.setup.clone();
        let tables = Tables::seen_by(&self.reference, &self.partitions, &ordinals)?;
        self.runner.begin(QuerySetup { query, database, address, ordinals, moment }, tables)
    }

    fn insert(&self, table: &str, ordinal: u32, rows: NumberedRows) -> Result<()> {
        let NumberedRows { chunk, numbers } = rows;
        let batch = self.batch(chunk, &numbers)?;
        self.memory.lock().grow(batch.get_array_memory_size()).map_err(failure)?;
        let insert = |state: &mut State| {
            state.check_rows(table, &batch)?;
            state.rows += batch.num_rows();
            let inserted = self.runner.pool.install(|| state.transaction.insert(table, &batch, &numbers[..]));
            inserted.map_err(|e| storage_failure(&e))
        };
        self.part(ordinal)?.with(insert).map(drop)
    }

    fn delete(&self, table: &str, ordinal: u32, addresses: &[u64]) -> Result<()> {
        let addresses = own_addresses(ordinal, addresses)?;
        let delete = |state: &mut State| state.transaction.delete(table, &addresses).map_err(|e| storage_failure(&e));
        self.part(ordinal)?.with(delete).map(drop)
    }

    fn delete_rows(&self, table: &str, ordinal: u32, chunk: Vec<u8>) -> Result<()> {
        let batch = one_batch(chunk)?;
        let delete = |state: &mut State| {
            state.check_rows(table, &batch)?;
            let found = self.runner.pool.install(|| state.transaction.locate(table, &batch));
            found.and_then(|addresses| state.transaction.delete(table, &addresses)).map_err(|e| storage_failure(&e))
        };
        self.part(ordinal)?.with(delete).map(drop)
    }

    fn load(&self, table: &str, ordinal: u32) -> Result<Box<dyn Load>> {
        let part = self.part(ordinal)?;
        let writer = part.database.writer(table).map_err(|e| storage_failure(&e))?;
        Ok(Box::new(PartitionLoad::new(writer, Some(part.clone()), self.runner.pool.clone())))
    }

    fn truncate(&self, table: &str, ordinal: u32) -> Result<()> {
        self.part(ordinal)?.with(|state| state.transaction.truncate(table).map_err(|e| storage_failure(&e)))
    }

    fn duplicates(&self, table: &str, ordinal: u32, rows: NumberedRows) -> Result<Vec<(u32, u64)>> {
        let NumberedRows { chunk, numbers } = rows;
        let batch = self.batch(chunk, &numbers)?;
        let find = |state: &mut State| {
            state.check_rows(table, &batch)?;
            let found = self.runner.pool.install(|| state.transaction.duplicates(table, &batch, &numbers[..]));
            found.map_err(|e| storage_failure(&e))
        };
        let whole = if ordinal == REFERENCE { 0 } else { ordinal };
        let found = self.part(ordinal)?.with(find)?;
        Ok(found.into_iter().map(|(row, address)| (row as u32, address_in_partition(address, whole))).collect())
    }

    fn read(&self, table: &str, ordinal: u32, addresses: &[u64]) -> Result<Vec<u8>> {
        let addresses = own_addresses(ordinal, addresses)?;
        let read = |state: &mut State| {
            let columns = self.runner.pool.install(|| state.transaction.read(table, &addresses));
            let columns = columns.map_err(|e| storage_failure(&e))?;
            let seen = state.transaction.table(table).ok_or_else(over)?;
            let rows = RecordBatch::try_new(seen.def.schema(), columns);
            let rows = rows.map_err(|e| Failure::new(FailureKind::Fatal, e.to_string()))?;
            seen.def.marked(&rows).map_err(|e| storage_failure(&e))
        };
        one_chunk(&self.part(ordinal)?.with(read)?)
    }

    fn savepoint(&self) -> Result<()> {
        let mark = |state: &mut State| {
            state.savepoint = state.transaction.savepoint();
            Ok(())
        };
        self.parts().try_for_each(|part| part.with(mark))
    }

    fn undo(&self) -> Result<()> {
        let undo = |state: &mut State| {
            let State { transaction, savepoint, .. } = state;
            transaction.undo(savepoint.clone());
            Ok(())
        };
        self.parts().try_for_each(|part| part.with(undo))
    }

    fn prepare(&self, ordinals: &[u32], decider: u32) -> Result<u64> {
        if decider >= MAX_PARTITIONS {
            return Err(Failure::new(FailureKind::Fatal, format!("partition {decider} cannot decide")));
        }
        let parts: Vec<_> = ordinals.iter().map(|ordinal| self.part(*ordinal)?.take()).collect::<Result<_>>()?;
        let prepare = |part: State| part.commit(&self.runner.pool, |part| part.prepare(self.setup.transaction, decider));
        let prepare = &prepare;
        // Each waits for its own disk writes.
        std::thread::scope(|scope| {
            let threads: Vec<_> = parts.into_iter().map(|part| scope.spawn(move || prepare(part))).collect();
            let defect = |_| Err(Failure::new(FailureKind::Fatal, "a defect stopped a commit"));
            let results: Vec<Result<u64>> = threads.into_iter().map(|t| t.join().unwrap_or_else(defect)).collect();
            Ok(results.into_iter().collect::<Result<Vec<u64>>>()?.into_iter().max().unwrap_or(0))
        })
    }

    fn commit(&self, ordinal: u32, deciding: bool, prepared: u64) -> Result<u64> {
        let part = self.part(ordinal)?.take()?;
        let number = self.setup.transaction;
        part.commit(
            &self.runner.pool,
            |part| if deciding { part.commit_deciding(number, prepared) } else { part.commit().map(|()| 0) },
        )
    }
}
