//! Rows on their way into a table of a cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use parking_lot::Mutex;
use stoa_columnstore::{RowNames, TableDef, conform, rows_by_partition};
use stoa_exec::CancelToken;
use stoa_rpc::ipc::write_chunks;
use stoa_rpc::leaf::Load;
use stoa_rpc::{Failure, FailureKind, RowOrigin};

use super::fragments::in_parallel;
use super::transaction::{ClusterTransaction, Place};
use super::{Database, Shared, Summaries, Witness};
use crate::catalog::{Command, Definition};
use crate::control::Claim;
use crate::{Control, Error, Result, Rows, Transaction};

/// Rows of a batch that go to one partition when there is no shard key.
const ROUND_ROBIN_ROWS: usize = 1 << 16;

/// A load into all partitions of a table, which commits as any other transaction does.
pub(super) struct ClusterRows {
    database: String,
    def: Arc<TableDef>,
    summaries: Arc<Summaries>,
    transaction: ClusterTransaction,
    /// By ordinal; of a REFERENCE table, by leaf.
    loads: Vec<PlaceLoad>,
    next: usize,
    rows: u64,
    /// How messages name the next row, and the file that it is of.
    names: RowNames,
    file: String,
    /// The table gets into the catalog together with these rows.
    creates: Option<(Arc<Control>, Claim)>,
}

/// A load into one place.
struct PlaceLoad {
    place: Place,
    load: Mutex<Box<dyn Load>>,
    /// It got rows.
    used: AtomicBool,
}

impl ClusterRows {
    pub fn begin(database: Arc<Database>, def: Arc<TableDef>, shared: &Shared, witness: &Arc<Witness>) -> Result<ClusterRows> {
        let (name, transaction) = (database.name.clone(), ClusterTransaction::blind(database, shared, witness));
        let begin = |place: &Place| {
            let load = Mutex::new(transaction.load(&def, place)?);
            Ok(PlaceLoad { place: place.clone(), load, used: AtomicBool::new(false) })
        };
        let loads = in_parallel(&transaction.homes(&def)?, begin)?;
        Ok(ClusterRows {
            database: name,
            summaries: shared.summaries.clone(),
            loads,
            transaction,
            def,
            next: 0,
            rows: 0,
            names: RowNames::default(),
            file: String::new(),
            creates: None,
        })
    }

    /// The same for a table that the leaves have and the catalog does not: it is added when the rows are there.
    pub fn creating(mut self, control: Arc<Control>, claim: Claim) -> ClusterRows {
        self.creates = Some((control, claim));
        self
    }

    /// The rows of a batch for each partition.
    fn split(&mut self, batch: &RecordBatch) -> Result<Vec<PlacedRows>> {
        let partitions = self.loads.len();
        let all = |at| PlacedRows { at, rows: batch.clone(), first: 0, numbers: vec![] };
        if self.def.reference {
            return Ok((0..partitions).map(all).collect());
        }
        if partitions == 1 {
            return Ok(vec![all(0)]);
        }
        let mut parts = Vec::new();
        if self.def.shard_key.is_empty() {
            for first in (0..batch.num_rows()).step_by(ROUND_ROBIN_ROWS) {
                let rows = batch.slice(first, ROUND_ROBIN_ROWS.min(batch.num_rows() - first));
                parts.push(PlacedRows { at: self.next, rows, first, numbers: vec![] });
                self.next = (self.next + 1) % partitions;
            }
            return Ok(parts);
        }
        for (at, numbers) in placed(&self.def, batch, partitions) {
            let numbers = UInt32Array::from(numbers);
            let rows = take_record_batch(batch, &numbers).map_err(stoa_exec::Error::from)?;
            parts.push(PlacedRows { at, rows, first: 0, numbers: numbers.values().to_vec() });
        }
        Ok(parts)
    }

    /// Sends rows of a batch to their place; the first of the batch is called as `names` says.
    fn send(&self, part: &PlacedRows, names: RowNames) -> stoa_rpc::Result<()> {
        let PlaceLoad { load, used, .. } = &self.loads[part.at];
        used.store(true, Ordering::Relaxed);
        let first = names.first.saturating_add(part.first as u64);
        let origin =
            RowOrigin { file: self.file.clone(), lines: names.unit == RowNames::LINES, first, numbers: part.numbers.clone() };
        // Only of unique keys it is found by a leaf that a row cannot be there. The rows of further chunks follow those of the first.
        let mut origin = Some(origin).filter(|_| !self.def.unique_keys.is_empty());
        let mut load = load.lock();
        write_chunks(std::slice::from_ref(&part.rows), &mut |chunk| load.write(chunk, origin.take()))
    }
}

/// Rows of a batch that go to one place.
struct PlacedRows {
    at: usize,
    rows: RecordBatch,
    /// Which of the batch they are: those from this one on, or if they do not follow each other, these.
    first: usize,
    numbers: Vec<u32>,
}

/// A load whose rows are visible nowhere.
fn given_up(failure: Failure) -> Failure {
    match failure.kind {
        FailureKind::Retryable | FailureKind::Cancelled => {
            let what = format!("the load was given up, and none of its rows is visible: load them again ({failure})");
            Failure::new(FailureKind::Retryable, what)
        }
        _ => failure,
    }
}

/// The partitions that have rows of a batch by the hash of their shard key, with these rows.
pub(super) fn placed(def: &TableDef, batch: &RecordBatch, partitions: usize) -> Vec<(usize, Vec<u32>)> {
    let rows_of = rows_by_partition(&def.shard_key, batch.columns(), partitions);
    rows_of.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty()).collect()
}

impl Rows for ClusterRows {
    fn table(&self) -> &TableDef {
        &self.def
    }

    fn number_rows(&mut self, file: &str, unit: &'static str, first: u64) {
        (self.file, self.names) = (file.to_owned(), RowNames { unit, first });
    }

    fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        let names = self.names;
        let batch = &self.def.marked(&conform(&self.def, batch, names)?)?;
        let parts = self.split(batch)?;
        in_parallel(&parts, |part| self.send(part, names)).map_err(given_up)?;
        self.names.first = names.first.saturating_add(batch.num_rows() as u64);
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<u64> {
        let ClusterRows { database, def, summaries, mut transaction, loads, rows, creates, .. } = *self;
        let used: Vec<PlaceLoad> = loads.into_iter().filter(|load| load.used.load(Ordering::Relaxed)).collect();
        in_parallel(&used, |load| load.load.lock().prepare()).map_err(given_up)?;
        transaction.touch(used.into_iter().map(|load| load.place));
        Box::new(transaction).commit(&CancelToken::default()).map_err(|error| match error {
            Error::Node(failure) => given_up(failure).into(),
            other => other,
        })?;
        if let Some((control, _claim)) = creates {
            let definition = Definition::new(TableDef::clone(&def));
            control.change(&Command::CreateTable { database: database.clone(), definition })?;
        }
        summaries.forget(&database);
        Ok(rows)
    }
}
