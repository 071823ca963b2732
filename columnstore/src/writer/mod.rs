//! Adding rows to a table: rows go to their partition's buffer, full buffers become segment files in the background, and one
//! record of the log commits them all.

mod buffer;
mod flush;
mod load;
mod origin;
mod prepare;
mod unique;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};

use crate::database::Database;
use crate::segment::Segment;
use crate::sharding::rows_by_partition;
use crate::table::Table;
use crate::{Error, MAX_SEGMENT_ROWS, Result};
use buffer::{RowBuffer, Rows};
pub(crate) use flush::sorted;
use flush::{Flush, Flushes};
pub(crate) use load::Load;
pub use origin::Origin;
pub use prepare::{RowNames, RowNumbers, conform};
pub(crate) use prepare::{canonical_column, canonical_columns};

/// Rows of a batch that go to one partition when there is no shard key.
const ROUND_ROBIN_ROWS: usize = 1 << 16;

/// Adds rows to a table, all of them or none: nothing is visible before [`TableWriter::finish`], and a writer that is dropped
/// without it leaves nothing behind.
pub struct TableWriter {
    table: Arc<Table>,
    /// The table is created together with its first rows.
    creates: bool,
    buffers: Vec<RowBuffer>,
    /// Where the next rows go when there is no shard key.
    next_partition: usize,
    rows: u64,
    /// How messages name the next row.
    names: RowNames,
    /// The file that it is of, empty if it is of none.
    file: Arc<str>,
    flushes: Flushes,
    /// Segments that are durable and wait for the commit.
    prepared: Vec<(usize, Arc<Segment>)>,
    /// A push failed half way: what is buffered is not what was pushed.
    failed: bool,
    /// The last to go: the directory is open until the files of segments that were not committed are gone.
    database: Arc<Database>,
}

impl TableWriter {
    pub(crate) fn new(database: Arc<Database>, table: Arc<Table>, creates: bool) -> TableWriter {
        let buffers = table.partitions.iter().map(|_| RowBuffer::default()).collect();
        // Small inserts fill up the smallest partition.
        let next_partition = table.smallest_partition();
        let flushes = Flushes::new(database.options().fsync);
        TableWriter {
            database,
            table,
            creates,
            buffers,
            next_partition,
            rows: 0,
            names: RowNames::default(),
            file: "".into(),
            flushes,
            prepared: vec![],
            failed: false,
        }
    }

    /// The table that is written to.
    #[must_use]
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// Rows pushed so far.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Errors number the rows pushed from now on anew: the next one is `first`, and rows are called `unit`, `line` for example. `file`:
    /// where they come from, for errors that are found later than the push; it may be empty.
    pub fn number_rows(&mut self, file: &str, unit: &'static str, first: u64) {
        (self.file, self.names) = (file.into(), RowNames { unit, first });
    }

    /// Adds rows. Columns are matched by position and cast to the table's types if they have others.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming table, column and row (counted from 1 over all pushes, or as [`TableWriter::number_rows`] says): a
    /// NULL in a NOT NULL column, a value that does not fit. [`Error::Io`] if a segment could not be written.
    pub fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        let origin = Origin::new(&self.file, self.names);
        let columns = prepare::canonical_columns(&self.table.def, batch, self.names)?;
        self.names.first = self.names.first.saturating_add(batch.num_rows() as u64);
        self.push_columns(columns, Some(origin))
    }

    /// Adds some of the rows of a load, which says where they came from; without that, errors that are found later than the push name
    /// no rows.
    ///
    /// # Errors
    /// As [`TableWriter::push`].
    pub fn push_from(&mut self, batch: &RecordBatch, origin: Option<Origin>) -> Result<()> {
        let columns = prepare::canonical_columns(&self.table.def, batch, RowNames::default())?;
        self.push_columns(columns, origin)
    }

    fn push_columns(&mut self, columns: Vec<ArrayRef>, origin: Option<Origin>) -> Result<()> {
        self.rows += columns.first().map_or(0, Array::len) as u64;
        // Only of unique keys it is found later that a row cannot be there.
        let origin = origin.filter(|_| !self.table.def.unique_keys.is_empty());
        let added = self.add(columns, origin);
        self.failed |= added.is_err();
        added
    }

    fn add(&mut self, columns: Vec<ArrayRef>, origin: Option<Origin>) -> Result<()> {
        let rows = columns.first().map_or(0, Array::len);
        if self.buffers.len() == 1 {
            self.buffers[0].push(Rows::all(columns.into(), origin));
        } else if self.table.def.shard_key.is_empty() {
            self.push_round_robin(&columns, rows, origin.as_ref());
        } else {
            self.push_by_key(&columns.into(), origin.as_ref())?;
        }
        let full = self.database.options().segment_rows.clamp(1, MAX_SEGMENT_ROWS);
        for partition in 0..self.buffers.len() {
            while self.buffers[partition].rows() >= full {
                self.flush(partition, full)?;
            }
        }
        Ok(())
    }

    fn push_round_robin(&mut self, columns: &[ArrayRef], rows: usize, origin: Option<&Origin>) {
        for first in (0..rows).step_by(ROUND_ROBIN_ROWS) {
            let length = ROUND_ROBIN_ROWS.min(rows - first);
            let part = columns.iter().map(|c| c.slice(first, length)).collect();
            self.buffers[self.next_partition].push(Rows::all(part, origin.map(|origin| origin.after(first))));
            self.next_partition = (self.next_partition + 1) % self.buffers.len();
        }
    }

    fn push_by_key(&mut self, columns: &Arc<[ArrayRef]>, origin: Option<&Origin>) -> Result<()> {
        let partitions = self.buffers.len();
        let rows_of = rows_by_partition(&self.table.def.shard_key, columns, partitions);
        for (buffer, picked) in self.buffers.iter_mut().zip(rows_of) {
            if !picked.is_empty() {
                buffer.push(Rows::picked(columns, picked, partitions, origin)?);
            }
        }
        Ok(())
    }

    fn flush(&mut self, partition: usize, rows: usize) -> Result<()> {
        let batches = self.buffers[partition].take(rows);
        self.flushes.start(Flush::new(&self.database, &self.table, partition, batches)?)
    }

    /// Commits all rows; how many they are. All segments are on disk before the log names them.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::NoSuchTable`] if the table was dropped meanwhile, [`Error::AlreadyExists`] if it was to be
    /// created and another one was.
    /// Nothing of this writer's rows is visible then.
    pub fn finish(mut self) -> Result<u64> {
        self.prepare()?;
        self.commit()
    }

    /// Makes all rows durable without making them visible: what can fail for their sake has been done when this returns. A writer
    /// that is dropped, or whose process ends, before [`TableWriter::commit`] leaves nothing. No rows may be pushed after it.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::Invalid`] if a push failed before.
    pub fn prepare(&mut self) -> Result<()> {
        if self.failed {
            return Err(Error::Invalid(format!("rows for table '{}' could not be written before", self.table.name())));
        }
        for partition in 0..self.buffers.len() {
            let rows = self.buffers[partition].rows();
            if rows > 0 {
                self.flush(partition, rows)?;
            }
        }
        let written = self.flushes.finish()?;
        if self.database.options().fsync {
            let partitions: std::collections::BTreeSet<usize> = written.iter().map(|(partition, _)| *partition).collect();
            partitions.into_iter().try_for_each(|partition| self.database.sync_partition(self.table.id, partition))?;
        }
        self.prepared.extend(written);
        self.prepared.sort_by_key(|(partition, segment)| (*partition, segment.id()));
        Ok(())
    }

    /// Makes the rows visible that [`TableWriter::prepare`] made durable; how many they are.
    ///
    /// # Errors
    /// As [`TableWriter::finish`].
    pub fn commit(self) -> Result<u64> {
        let load = Load::of(self)?;
        load.commit()
    }

    /// Makes all rows durable, as [`TableWriter::prepare`] does, for a transaction that commits them.
    pub(crate) fn load(mut self) -> Result<Load> {
        self.prepare()?;
        Load::of(self)
    }
}
