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
use stoa_rpc::{Failure, FailureKind};

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
    names: RowNames,
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
            creates: None,
        })
    }

    /// The same for a table that the leaves have and the catalog does not: it is added when the rows are there.
    pub fn creating(mut self, control: Arc<Control>, claim: Claim) -> ClusterRows {
        self.creates = Some((control, claim));
        self
    }

    /// The rows of a batch for each partition.
    fn split(&mut self, batch: &RecordBatch) -> Result<Vec<(usize, RecordBatch)>> {
        let partitions = self.loads.len();
        if partitions == 1 {
            return Ok(vec![(0, batch.clone())]);
        }
        if self.def.shard_key.is_empty() {
            let mut parts = Vec::new();
            for first in (0..batch.num_rows()).step_by(ROUND_ROBIN_ROWS) {
                parts.push((self.next, batch.slice(first, ROUND_ROBIN_ROWS.min(batch.num_rows() - first))));
                self.next = (self.next + 1) % partitions;
            }
            return Ok(parts);
        }
        let mut parts = Vec::new();
        for (partition, rows) in placed(&self.def, batch, partitions) {
            let part = take_record_batch(batch, &UInt32Array::from(rows)).map_err(stoa_exec::Error::from)?;
            parts.push((partition, part));
        }
        Ok(parts)
    }
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

    fn number_rows(&mut self, _: &str, unit: &'static str, first: u64) {
        self.names = RowNames { unit, first };
    }

    fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        let batch = &self.def.marked(&conform(&self.def, batch, self.names)?)?;
        self.names.first = self.names.first.saturating_add(batch.num_rows() as u64);
        let parts = if self.def.reference {
            (0..self.loads.len()).map(|leaf| (leaf, batch.clone())).collect()
        } else {
            self.split(batch)?
        };
        let send = |(partition, rows): &(usize, RecordBatch)| {
            let PlaceLoad { load, used, .. } = &self.loads[*partition];
            used.store(true, Ordering::Relaxed);
            let mut load = load.lock();
            write_chunks(std::slice::from_ref(rows), &mut |chunk| load.write(chunk))
        };
        in_parallel(&parts, send).map_err(given_up)?;
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
