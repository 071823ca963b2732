//! Rows that change their place: flushes of memory and merges of segments.
//!
//! Both take the live rows of some sources (segments, rows in memory), in the order of the sort key, to new segments. Meanwhile
//! others may delete rows of the sources: at the commit those deletes are carried over. Transactions that saw a row at its old place
//! find it by the [`Forward`] that stays as long as one of them lives.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::concat;
use rayon::prelude::*;
use roaring::RoaringBitmap;

use super::Database;
use super::commit::Head;
use crate::address::Place;
use crate::definition::TableDef;
use crate::disk::DiskFile;
use crate::log::{Change, Entry};
use crate::segment::{Segment, build_segment, io_error};
use crate::table::{Partition, Table};
use crate::writer::sorted;
use crate::{Error, MAX_SEGMENT_ROWS, Result};

/// Where the rows of some sources went.
pub(crate) struct Forward {
    table: u64,
    partition: usize,
    sources: Sources,
    /// By the place among the sources' live rows, the row's place among the new ones; none: the same.
    destination: Option<Vec<u32>>,
    /// The new segments, each of `cut` rows but the last.
    segments: Vec<u64>,
    cut: usize,
}

/// The live rows of the sources, one after the other.
struct Sources {
    segments: Vec<SourceSegment>,
    /// The number of the first row in memory, and of the first that stays there.
    memory: (u64, u64),
    /// Numbers of the live rows in memory.
    numbers: Vec<u64>,
    rows: usize,
}

struct SourceSegment {
    id: u64,
    /// How many live rows come before.
    first: usize,
    /// Its live rows, unless all are.
    live: Option<Vec<u32>>,
}

impl Forward {
    /// Where a row is now: `None` if it was not in the sources, `Some(None)` if it was deleted before it could move.
    pub(crate) fn find(&self, table: u64, partition: usize, place: Place) -> Option<Option<Place>> {
        if (table, partition) != (self.table, self.partition) {
            return None;
        }
        let at = match place {
            Place::Memory(number) if (self.sources.memory.0..self.sources.memory.1).contains(&number) => {
                let before = self.sources.rows - self.sources.numbers.len();
                self.sources.numbers.binary_search(&number).ok().map(|at| before + at)
            }
            Place::Memory(_) => return None,
            Place::Segment { id, row } => {
                let source = self.sources.segments.iter().find(|source| source.id == id)?;
                let at = match &source.live {
                    None => Some(row as usize),
                    Some(live) => live.binary_search(&row).ok(),
                };
                at.map(|at| source.first + at)
            }
        };
        Some(at.map(|at| self.place(at)))
    }

    fn place(&self, at: usize) -> Place {
        let row = self.destination.as_ref().map_or(at, |destination| destination[at] as usize);
        Place::Segment { id: self.segments[row / self.cut], row: (row % self.cut) as u32 }
    }
}

impl Database {
    /// Moves the live rows of some segments of a partition, and of its memory before `through`, to new segments. Nothing happens if
    /// the table was altered meanwhile, its sources are gone, or a prepared transaction may change the partition. One flush and one merge
    /// run at a time. Whether the rows were moved.
    pub(super) fn rewrite(self: &Arc<Self>, table: &Arc<Table>, partition: usize, ids: &[u64], through: u64) -> Result<bool> {
        if self.catalog().is_prepared(table.id, partition) {
            return Ok(false);
        }
        let part = &table.partitions[partition];
        let (columns, sources) = gather_sources(table, part, ids, through)?;
        let (columns, order) = sorted(columns, &table.def)?;
        let (written, cut) = self.write_segments(table, partition, &columns)?;
        let destination = order.map(|order| inverse(&order));
        let segments = written.iter().map(|segment| segment.id()).collect();
        let forward = Forward { table: table.id, partition, sources, destination, segments, cut };
        self.commit_rewrite(table, &written, &Arc::new(forward))
    }

    fn commit_rewrite(self: &Arc<Self>, table: &Table, written: &[Arc<Segment>], forward: &Arc<Forward>) -> Result<bool> {
        let removed: Vec<u64> = forward.sources.segments.iter().map(|source| source.id).collect();
        let before: &Partition = &table.partitions[forward.partition];
        let mut gone: Vec<Arc<Segment>> = Vec::new();
        let plan = |head: &Head| {
            // Its deletes name rows by their places.
            if head.catalog.is_prepared(forward.table, forward.partition) {
                return Ok((vec![], false));
            }
            let now = head.catalog.table_of(forward.table).filter(|now| now.def == table.def);
            let now = now.and_then(|now| now.partitions.get(forward.partition));
            let Some(now) = now.filter(|now| still_there(now, &removed, forward.sources.memory)) else {
                return Ok((vec![], false));
            };
            let mut deleted = vec![RoaringBitmap::new(); written.len()];
            for place in deleted_meanwhile(before, now, &removed, forward.sources.memory) {
                if let Some(Some(Place::Segment { id, row })) = forward.find(forward.table, forward.partition, place)
                    && let Some(at) = forward.segments.iter().position(|segment| *segment == id)
                {
                    deleted[at].insert(row);
                }
            }
            let segments = written.iter().zip(deleted).map(|(segment, deleted)| Entry::of(segment, deleted)).collect();
            gone = now.segments.iter().map(|s| Arc::clone(&s.segment)).filter(|s| removed.contains(&s.id())).collect();
            let (table, partition, through) = (forward.table, forward.partition, forward.sources.memory.1);
            let change = Change::Rewrite { table, partition, through, removed: removed.clone(), segments };
            Ok((vec![change], true))
        };
        let moved = self.commit_then(plan, |head| {
            head.forwards.push((head.catalog.sequence, Arc::clone(forward)));
            self.forwards.store(true, Ordering::Release);
            self.prune_forwards(head);
        })?;
        if moved {
            gone.iter().for_each(|segment| segment.set_doomed(true));
        }
        Ok(moved)
    }

    /// Writes rows as segments, which last when this returns, and go with their last user unless they are committed; and how many rows
    /// each but the last has.
    pub(super) fn write_segments(
        &self,
        table: &Table,
        partition: usize,
        columns: &[ArrayRef],
    ) -> Result<(Vec<Arc<Segment>>, usize)> {
        let rows = columns.first().map_or(0, Array::len);
        let cut = self.options.segment_rows.clamp(1, MAX_SEGMENT_ROWS);
        let mut segments = Vec::with_capacity(rows.div_ceil(cut));
        for first in (0..rows).step_by(cut) {
            let part: Vec<ArrayRef> = columns.iter().map(|c| c.slice(first, cut.min(rows - first))).collect();
            let (segment, file) = self.build_segment(&table.def, self.new_segment(table.id, partition)?, &part)?;
            if self.options.fsync {
                file.sync().map_err(io_error(segment.path()))?;
            }
            segments.push(segment);
        }
        if self.options.fsync && !segments.is_empty() {
            self.sync_partition(table.id, partition)?;
        }
        Ok((segments, cut))
    }

    /// The number and the file of a new segment, whose folder is there.
    pub(crate) fn new_segment(&self, table: u64, partition: usize) -> Result<(u64, PathBuf)> {
        let id = self.next_segment_id.fetch_add(1, Ordering::Relaxed);
        let folder = self.files.partition_folder(table, partition);
        self.files.disk.create_folder(&folder).map_err(io_error(&folder))?;
        Ok((id, self.files.segment_path(table, partition, id)))
    }

    /// Writes a segment, which goes with its last user unless it is committed; its file is yet to be synced.
    pub(crate) fn build_segment(
        &self,
        def: &Arc<TableDef>,
        (id, path): (u64, PathBuf),
        columns: &[ArrayRef],
    ) -> Result<(Arc<Segment>, Box<dyn DiskFile>)> {
        let disk = &self.files.disk;
        let built = build_segment(&**disk, &path, &def.columns, columns).inspect_err(|_| {
            let _ = disk.remove(&path);
        })?;
        let rows = columns.first().map_or(0, Array::len);
        let segment = Arc::new(Segment::new(disk, id, rows, path, built.written, def, None));
        // Only the commit makes it stay.
        segment.set_doomed(true);
        Ok((segment, built.file))
    }

    /// Makes the names of a partition's segments last.
    pub(crate) fn sync_partition(&self, table: u64, partition: usize) -> Result<()> {
        let folder = self.files.partition_folder(table, partition);
        for folder in [folder.as_path(), &self.files.tables().join(table.to_string()), &self.files.tables()] {
            self.files.disk.sync_folder(folder).map_err(io_error(folder))?;
        }
        Ok(())
    }
}

/// Whether the sources are as they were, but for deleted rows.
fn still_there(now: &Partition, segments: &[u64], memory: (u64, u64)) -> bool {
    let there = |id: &u64| now.segments.iter().any(|stored| stored.segment.id() == *id);
    segments.iter().all(there) && (memory.0 == memory.1 || now.memory.first() == memory.0 && now.memory.next() >= memory.1)
}

/// Rows of the sources that were deleted since `before`.
fn deleted_meanwhile(before: &Partition, now: &Partition, segments: &[u64], memory: (u64, u64)) -> Vec<Place> {
    let numbers = now.memory.deleted() - before.memory.deleted();
    let mut places: Vec<Place> = numbers.iter().filter(|n| *n < memory.1).map(Place::Memory).collect();
    for stored in now.segments.iter().filter(|stored| segments.contains(&stored.segment.id())) {
        let Some(deleted) = &stored.deleted else { continue };
        let id = stored.segment.id();
        let old = before.segments.iter().find(|s| s.segment.id() == id).and_then(|s| s.deleted.as_deref());
        let new = old.map_or_else(|| RoaringBitmap::clone(deleted), |old| &**deleted - old);
        places.extend(new.iter().map(|row| Place::Segment { id, row }));
    }
    places
}

fn gather_sources(table: &Table, part: &Partition, ids: &[u64], through: u64) -> Result<(Vec<ArrayRef>, Sources)> {
    let mut parts: Vec<Vec<ArrayRef>> = Vec::new();
    let mut sources = Sources { segments: vec![], memory: (part.memory.first(), part.memory.first()), numbers: vec![], rows: 0 };
    let columns = table.def.columns.len();
    for stored in part.segments.iter().filter(|stored| ids.contains(&stored.segment.id())) {
        let (segment, rows) = (&stored.segment, stored.segment.rows());
        let live: Option<Vec<u32>> =
            stored.deleted.as_ref().map(|deleted| (0..rows as u32).filter(|row| !deleted.contains(*row)).collect());
        let read = |ordinal: usize| segment.values(ordinal, 0, rows, live.as_deref());
        parts.push((0..columns).into_par_iter().map(read).collect::<Result<_>>()?);
        let first = sources.rows;
        sources.rows += live.as_ref().map_or(rows, Vec::len);
        sources.segments.push(SourceSegment { id: segment.id(), first, live });
    }
    if through > part.memory.first() {
        let (memory, numbers) = part.memory.live(through)?;
        sources.memory.1 = through.min(part.memory.next());
        sources.rows += numbers.len();
        sources.numbers = numbers;
        parts.push(memory);
    }
    if sources.rows > u32::MAX as usize {
        return Err(Error::Invalid(format!("{} rows are too many for one merge", sources.rows)));
    }
    let parts: Vec<Vec<ArrayRef>> = parts.into_iter().filter(|part| part.first().is_some_and(|c| !c.is_empty())).collect();
    if parts.is_empty() {
        return Ok((vec![], sources));
    }
    let joined = (0..columns).into_par_iter().map(|i| {
        let arrays: Vec<&dyn Array> = parts.iter().map(|part| part[i].as_ref()).collect();
        Ok(concat(&arrays)?)
    });
    Ok((joined.collect::<Result<_>>()?, sources))
}

/// By row, its place in an order.
fn inverse(order: &UInt32Array) -> Vec<u32> {
    let mut places = vec![0; order.len()];
    for (place, row) in (0u32..).zip(order.values()) {
        places[*row as usize] = place;
    }
    places
}
