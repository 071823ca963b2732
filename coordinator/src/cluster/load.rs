//! Rows on their way into a table of a cluster.

use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use stoa_columnstore::{RowNames, TableDef, conform, rows_by_partition};
use stoa_rpc::ipc::write_chunks;
use stoa_rpc::leaf::{Load, REFERENCE};
use stoa_rpc::{Failure, FailureKind, LeafPool};

use super::fragments::in_parallel;
use super::{Database, Summaries};
use crate::catalog::{Command, Definition};
use crate::control::Claim;
use crate::{Control, Error, Result, Rows};

/// Rows of a batch that go to one partition when there is no shard key.
const ROUND_ROBIN_ROWS: usize = 1 << 16;

/// A load into all partitions of a table. Rows are durable on every leaf before they are visible on any.
pub(super) struct ClusterRows {
    database: String,
    def: Arc<TableDef>,
    summaries: Arc<Summaries>,
    /// By ordinal; of a REFERENCE table, by leaf.
    loads: Vec<parking_lot::Mutex<Box<dyn Load>>>,
    next: usize,
    rows: u64,
    names: RowNames,
    /// The table gets into the catalog together with these rows.
    creates: Option<(Arc<Control>, Claim)>,
}

impl ClusterRows {
    pub fn begin(database: &Database, def: Arc<TableDef>, pool: &LeafPool, summaries: Arc<Summaries>) -> Result<ClusterRows> {
        let homes: Vec<(String, u32)> = if def.reference {
            database.reference.iter().map(|address| (address.clone(), REFERENCE)).collect()
        } else {
            let mut homes = Vec::new();
            for (address, ordinals) in database.placement()? {
                homes.extend(ordinals.into_iter().map(|ordinal| (address.clone(), ordinal)));
            }
            homes.sort_by_key(|(_, ordinal)| *ordinal);
            homes
        };
        if homes.is_empty() {
            return Err(Error::Invalid("there is no leaf to store rows on: ADD LEAF first".into()));
        }
        let begin = |(address, ordinal): &(String, u32)| pool.leaf(address)?.load(&database.name, &def.name, *ordinal);
        let loads = in_parallel(&homes, begin)?.into_iter().map(parking_lot::Mutex::new).collect();
        Ok(ClusterRows {
            database: database.name.clone(),
            def,
            summaries,
            loads,
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

    /// A leaf did not say that its part of the rows is visible, and others may have.
    fn unknown(&self, failure: &Failure) -> Error {
        Error::Unknown(format!(
            "whether all rows of the load into table '{0}' are there is not known ({failure}): those of some partitions may be \
             missing. When SHOW LEAVES says that all leaves are online, compare SELECT count(*) FROM {0} before the load is repeated",
            self.def.name
        ))
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

    fn number_rows(&mut self, unit: &'static str, first: u64) {
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
            let mut load = self.loads[*partition].lock();
            write_chunks(std::slice::from_ref(rows), &mut |chunk| load.write(chunk))
        };
        in_parallel(&parts, send).map_err(given_up)?;
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<u64> {
        in_parallel(&self.loads, |load| load.lock().prepare()).map_err(given_up)?;
        in_parallel(&self.loads, |load| load.lock().commit()).map_err(|failure| self.unknown(&failure))?;
        if let Some((control, _)) = &self.creates {
            let definition = Definition::new(TableDef::clone(&self.def));
            control.change(&Command::CreateTable { database: self.database.clone(), definition })?;
        }
        self.summaries.forget(&self.database);
        Ok(self.rows)
    }
}
