//! Rows on their way into a table of a cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use parking_lot::Mutex;
use stoa_columnstore::{RowNames, TableDef, conform, rows_by_partition};
use stoa_exec::CancelToken;
use stoa_rpc::ipc::write_chunks;
use stoa_rpc::leaf::Load;
use stoa_rpc::{Failure, FailureKind, RowOrigin};

use super::fragments::{all_or_worst, at, in_parallel};
use super::transaction::{ClusterTransaction, Place};
use super::{Database, Shared, Summaries, Witness};
use crate::catalog::{Command, Definition};
use crate::control::Claim;
use crate::{Control, Error, Result, Rows, Transaction};

/// Rows of a batch that go to one partition when there is no shard key.
const ROUND_ROBIN_ROWS: usize = 1 << 16;
/// Parts of batches that wait for a place beside the one on its way.
const QUEUED: usize = 1;

/// A load into all partitions of a table, which commits as any other transaction does. Rows are on their way to their places while the
/// next ones are made ready: what a place refuses is the error of a later call.
pub(super) struct ClusterRows {
    database: String,
    def: Arc<TableDef>,
    summaries: Arc<Summaries>,
    transaction: Arc<ClusterTransaction>,
    /// By ordinal; of a REFERENCE table, by leaf. None once it has failed.
    loads: Vec<PlaceLoad>,
    /// A place does not take its rows.
    failed: Arc<AtomicBool>,
    next: usize,
    rows: u64,
    /// How messages name the next row, and the file that it is of.
    names: RowNames,
    file: String,
    /// The table gets into the catalog together with these rows.
    creates: Option<(Arc<Control>, Claim)>,
}

/// A load into one place, by a thread of its own: a slow place holds up the others only once rows wait for it.
struct PlaceLoad {
    place: Place,
    parts: SyncSender<Part>,
    thread: JoinHandle<(Box<dyn Load>, stoa_rpc::Result<()>)>,
    /// It got rows.
    used: bool,
}

/// Rows for a place, and where they come from.
type Part = (RecordBatch, Option<RowOrigin>);

impl PlaceLoad {
    /// The transaction is not rolled back while rows are on their way.
    fn start(
        place: Place,
        load: Box<dyn Load>,
        transaction: Arc<ClusterTransaction>,
        failed: Arc<AtomicBool>,
    ) -> Result<PlaceLoad> {
        let (parts, queue) = sync_channel(QUEUED);
        let address = place.0.clone();
        let run = move || {
            let (load, sent) = send(load, &queue);
            failed.fetch_or(sent.is_err(), Ordering::Relaxed);
            drop(transaction);
            (load, sent.map_err(|failure| at(&address, failure)))
        };
        let fail = |e| Failure::new(FailureKind::Retryable, format!("no thread for a load: {e}"));
        let thread = Builder::new().name("stoa-load".to_owned()).spawn(run).map_err(fail)?;
        Ok(PlaceLoad { place, parts, thread, used: false })
    }
}

/// Sends parts until there are no more.
fn send(mut load: Box<dyn Load>, parts: &Receiver<Part>) -> (Box<dyn Load>, stoa_rpc::Result<()>) {
    // The rows of further chunks follow those of the first.
    let mut write =
        |(rows, mut origin): Part| write_chunks(std::slice::from_ref(&rows), &mut |chunk| load.write(chunk, origin.take()));
    let sent = parts.iter().try_for_each(&mut write);
    (load, sent)
}

impl ClusterRows {
    pub fn begin(database: Arc<Database>, def: Arc<TableDef>, shared: &Shared, witness: &Arc<Witness>) -> Result<ClusterRows> {
        let (name, transaction) = (database.name.clone(), Arc::new(ClusterTransaction::blind(database, shared, witness)));
        let (places, failed) = (transaction.homes(&def)?, Arc::<AtomicBool>::default());
        let loads = in_parallel(&places, |place| transaction.load(&def, place))?;
        let start = |(place, load)| PlaceLoad::start(place, load, transaction.clone(), failed.clone());
        let loads = places.into_iter().zip(loads).map(start).collect::<Result<_>>()?;
        Ok(ClusterRows {
            database: name,
            summaries: shared.summaries.clone(),
            loads,
            failed,
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

    /// Hands rows of a batch to their place; the first of the batch is called as `names` says.
    fn hand_over(&mut self, part: PlacedRows, names: RowNames) -> Result<()> {
        let first = names.first.saturating_add(part.first as u64);
        let lines = names.unit == RowNames::LINES;
        // Only of unique keys it is found by a leaf that a row cannot be there.
        let named = !self.def.unique_keys.is_empty();
        let origin = named.then(|| RowOrigin { file: self.file.clone(), lines, first, numbers: part.numbers });
        let load = &mut self.loads[part.at];
        load.used = true;
        if self.failed.load(Ordering::Relaxed) || load.parts.send((part.rows, origin)).is_err() {
            self.end()?;
            // Whose thread took no more has told why.
            return Err(Failure::new(FailureKind::Fatal, "a load ended without a reason").into());
        }
        Ok(())
    }

    /// Waits until all rows are where they belong: the loads of the places that got some.
    fn end(&mut self) -> Result<Vec<(Place, Box<dyn Load>)>> {
        let wait = |PlaceLoad { place, parts, thread, used }| {
            drop(parts);
            let defect = |_| Err(Failure::new(FailureKind::Fatal, "a defect stopped a load"));
            let ended = thread.join().map_or_else(defect, |(load, sent)| sent.map(|()| load));
            ended.map(|load| (place, load, used))
        };
        if self.loads.is_empty() {
            return Err(over());
        }
        let ended = all_or_worst(std::mem::take(&mut self.loads).into_iter().map(wait)).map_err(given_up)?;
        Ok(ended.into_iter().filter(|(_, _, used)| *used).map(|(place, load, _)| (place, load)).collect())
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

fn over() -> Error {
    Failure::new(FailureKind::User, "this load has ended").into()
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
        if self.loads.is_empty() {
            return Err(over());
        }
        for part in self.split(batch)? {
            self.hand_over(part, names)?;
        }
        self.names.first = names.first.saturating_add(batch.num_rows() as u64);
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<u64> {
        let (places, loads): (Vec<Place>, Vec<_>) =
            self.end()?.into_iter().map(|(place, load)| (place, Mutex::new(load))).unzip();
        in_parallel(&loads, |load| load.lock().prepare()).map_err(given_up)?;
        let ClusterRows { database, def, summaries, transaction, rows, creates, .. } = *self;
        // The threads that had it too have ended.
        let lasts = || Error::Node(Failure::new(FailureKind::Fatal, "a load goes on after its end"));
        let mut transaction = Arc::into_inner(transaction).ok_or_else(lasts)?;
        transaction.touch(places);
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
