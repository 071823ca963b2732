//! Turning buffered rows into segment files, in the background.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::{SortColumn, lexsort_to_indices, take};
use rayon::prelude::*;

use crate::database::Database;
use crate::definition::TableDef;
use crate::segment::{Segment, io_error};
use crate::table::Table;
use crate::writer::buffer::{Rows, gather};
use crate::writer::origin::Origins;
use crate::{Error, Result};

/// Numbers of rows that are in another order than they came: so many are kept for errors (256 MB), the rows of later segments have none.
const MOST_NUMBERS: usize = 1 << 26;

/// Rows that become one segment.
pub(crate) struct Flush {
    /// Stays open, and locked, until nothing is done with the file any more.
    database: Arc<Database>,
    def: Arc<TableDef>,
    partition: usize,
    place: (u64, PathBuf),
    rows: Vec<Rows>,
}

/// A segment whose file is written, and the thread that syncs it to disk.
struct Flushed {
    partition: usize,
    segment: Arc<Segment>,
    origins: Option<Origins>,
    sync: Option<JoinHandle<std::io::Result<()>>>,
}

impl Flush {
    pub(crate) fn new(database: &Arc<Database>, table: &Table, partition: usize, rows: Vec<Rows>) -> Result<Flush> {
        let place = database.new_segment(table.id, partition)?;
        Ok(Flush { database: Arc::clone(database), def: Arc::clone(&table.def), partition, place, rows })
    }

    fn run(self, fsync: bool) -> Result<Flushed> {
        let gathered = (0..self.def.columns.len()).into_par_iter().map(|ordinal| gather(&self.rows, ordinal));
        let (columns, order) = sorted(gathered.collect::<Result<Vec<ArrayRef>>>()?, &self.def)?;
        let origins = Origins::new(self.rows.iter().map(Rows::origin).collect(), order);
        drop(self.rows);
        let (segment, file) = self.database.build_segment(&self.def, self.place, &columns)?;
        drop(columns);
        let sync = fsync.then(|| std::thread::spawn(move || file.sync()));
        Ok(Flushed { partition: self.partition, segment, origins, sync })
    }
}

/// Rows in the order of the sort key, and the order itself if they were not in it.
pub(crate) fn sorted(columns: Vec<ArrayRef>, def: &TableDef) -> Result<(Vec<ArrayRef>, Option<UInt32Array>)> {
    let order = sort_order(&columns, def)?;
    let columns = match &order {
        None => columns,
        Some(order) => columns.par_iter().map(|c| take(c, order, None)).collect::<std::result::Result<_, _>>()?,
    };
    Ok((columns, order))
}

/// The order of the sort key, if rows are not in it; rows with equal keys keep theirs.
fn sort_order(columns: &[ArrayRef], def: &TableDef) -> Result<Option<UInt32Array>> {
    let rows = columns.first().map_or(0, arrow::array::Array::len);
    if def.sort_key.is_empty() || rows == 0 {
        return Ok(None);
    }
    let column = |values: ArrayRef| SortColumn { values, options: None };
    let mut keys: Vec<SortColumn> = def.sort_key.iter().map(|k| column(Arc::clone(&columns[*k as usize]))).collect();
    keys.push(column(Arc::new(UInt32Array::from_iter_values(0..rows as u32))));
    let order = lexsort_to_indices(&keys, None)?;
    let in_order = order.values().iter().enumerate().all(|(i, row)| i == *row as usize);
    Ok((!in_order).then_some(order))
}

/// The flushes of one writer. A few run at a time, so that memory stays bounded.
pub(crate) struct Flushes {
    fsync: bool,
    running: usize,
    most: usize,
    done: Vec<Flushed>,
    /// By the segment's number.
    origins: BTreeMap<u64, Origins>,
    /// How many numbers of rows those keep.
    numbers: usize,
    sender: Sender<Result<Flushed>>,
    receiver: Receiver<Result<Flushed>>,
}

impl Flushes {
    pub(crate) fn new(fsync: bool) -> Flushes {
        let (sender, receiver) = channel();
        let most = rayon::current_num_threads().max(1);
        let (done, origins) = (Vec::new(), BTreeMap::new());
        Flushes { fsync, running: 0, most, done, origins, numbers: 0, sender, receiver }
    }

    /// Starts one; waits for another if too many run.
    pub(crate) fn start(&mut self, flush: Flush) -> Result<()> {
        while self.running >= self.most {
            self.wait()?;
        }
        let (sender, fsync, database) = (self.sender.clone(), self.fsync, Arc::clone(&flush.database));
        rayon::spawn(move || {
            let result = catch_unwind(AssertUnwindSafe(|| flush.run(fsync)));
            let result = result.unwrap_or_else(|_| Err(Error::Invalid("internal error: a segment could not be encoded".into())));
            // If the writer is gone, so is the segment and with it its file.
            let _ = sender.send(result);
            drop(database);
        });
        self.running += 1;
        Ok(())
    }

    /// Waits for one. A thread of the pool helps meanwhile, lest all of them wait for each other.
    fn wait(&mut self) -> Result<()> {
        let lost = || Error::Invalid("internal error: a segment was lost".into());
        let result = loop {
            match self.receiver.try_recv() {
                Ok(result) => break result,
                Err(TryRecvError::Disconnected) => return Err(lost()),
                Err(TryRecvError::Empty) => match rayon::yield_now() {
                    None => break self.receiver.recv().map_err(|_| lost())?,
                    Some(rayon::Yield::Executed) => {}
                    Some(rayon::Yield::Idle) => std::thread::sleep(std::time::Duration::from_micros(100)),
                },
            }
        };
        self.running -= 1;
        let mut flushed = result?;
        if let Some(origins) = flushed.origins.take().filter(|origins| self.numbers + origins.numbers() <= MOST_NUMBERS) {
            self.numbers += origins.numbers();
            self.origins.insert(flushed.segment.id(), origins);
        }
        self.done.push(flushed);
        Ok(())
    }

    /// Where the rows of the segments came from, by the segment's number.
    pub(crate) fn take_origins(&mut self) -> BTreeMap<u64, Origins> {
        std::mem::take(&mut self.origins)
    }

    /// Waits for all to be on disk. Segments come back in the order in which they were started.
    pub(crate) fn finish(&mut self) -> Result<Vec<(usize, Arc<Segment>)>> {
        while self.running > 0 {
            self.wait()?;
        }
        let mut segments = Vec::new();
        for flushed in self.done.drain(..) {
            if let Some(sync) = flushed.sync {
                let synced = sync.join().unwrap_or_else(|_| Err(std::io::Error::other("the file could not be synced")));
                synced.map_err(io_error(flushed.segment.path()))?;
            }
            segments.push((flushed.partition, flushed.segment));
        }
        segments.sort_by_key(|(_, segment)| segment.id());
        Ok(segments)
    }
}
