//! Rows that are in no segment yet: readable as soon as they are committed, in columns.
//!
//! Every commit adds a run. As soon as four runs are of like size they are joined, unless that makes too many rows: there are three at
//! most for every base-four digit of the number of rows, but for large ones, and a row is copied as often as that has digits. This is
//! the logarithmic method of Bentley and Saxe, with the tiers of log-structured merge trees. A run becomes a segment in memory when
//! the first query reads it. Rows have numbers, which their run's place gives: a deleted row stays until the flusher takes its
//! neighbours.

use std::sync::{Arc, OnceLock};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{concat, filter};
use arrow::datatypes::DataType;
use roaring::{RoaringBitmap, RoaringTreemap};

use crate::definition::TableDef;
use crate::keys::KeyIndex;
use crate::segment::Segment;
use crate::{Error, Result};

/// Runs are not joined beyond this many rows.
const JOINED_ROWS: usize = 1 << 17;
/// So many runs of a tier are joined.
const FANOUT: usize = 4;

/// The rows of a partition that are in memory: immutable; a commit makes new ones that share the runs.
#[derive(Clone, Default)]
pub(crate) struct MemoryRows {
    /// The number of the first row; what came before is in segments.
    first: u64,
    runs: Vec<Arc<Run>>,
    deleted: Arc<RoaringTreemap>,
}

/// Consecutive rows.
pub(crate) struct Run {
    /// The number of its first row.
    pub(crate) first: u64,
    pub(crate) rows: usize,
    pub(crate) columns: Arc<[ArrayRef]>,
    bytes: usize,
    segment: OnceLock<Arc<Segment>>,
    /// By unique key, in the order of the definition: ordinals of its columns, and their index.
    keys: OnceLock<Vec<(Vec<u32>, KeyIndex)>>,
}

impl Run {
    fn new(first: u64, columns: Arc<[ArrayRef]>) -> Run {
        let rows = columns.first().map_or(0, Array::len);
        let bytes = columns.iter().map(arrow::array::Array::get_array_memory_size).sum();
        Run { first, rows, columns, bytes, segment: OnceLock::new(), keys: OnceLock::new() }
    }

    /// The run as a segment.
    pub(crate) fn segment(&self, def: &Arc<TableDef>) -> Result<&Arc<Segment>> {
        if let Some(segment) = self.segment.get() {
            return Ok(segment);
        }
        let made = Arc::new(Segment::in_memory(def, &self.columns)?);
        Ok(self.segment.get_or_init(|| made))
    }

    /// The index of a unique key, by its number.
    pub(crate) fn key(&self, def: &TableDef, number: usize) -> &KeyIndex {
        let of = |key: &crate::UniqueKey| (key.columns.clone(), self.index(&key.columns));
        &self.keys.get_or_init(|| def.unique_keys.iter().map(of).collect())[number].1
    }

    fn index(&self, key: &[u32]) -> KeyIndex {
        let columns: Vec<ArrayRef> = key.iter().map(|c| Arc::clone(&self.columns[*c as usize])).collect();
        KeyIndex::of(&columns)
    }

    /// Runs that follow each other as one, with the indexes that the first one has.
    fn joined(runs: &[Arc<Run>]) -> Result<Run> {
        let Some(oldest) = runs.first() else { return Ok(Run::new(0, Arc::new([]))) };
        let column = |i: usize| join(&runs.iter().map(|run| run.columns[i].as_ref()).collect::<Vec<_>>());
        let columns = (0..oldest.columns.len()).map(column).collect::<Result<Vec<_>>>()?;
        let joined = Run::new(oldest.first, columns.into());
        if let Some(keys) = oldest.keys.get() {
            let units =
                |number: usize| runs.iter().map(move |run| ((run.first - oldest.first) as u32, &run.indexed_as(keys)[number].1));
            let index = |number| KeyIndex::joined(&units(number).collect::<Vec<_>>());
            let all = keys.iter().enumerate().map(|(number, (key, _))| (key.clone(), index(number)));
            let _ = joined.keys.set(all.collect());
        }
        Ok(joined)
    }

    /// The indexes of the unique keys of which another run has some.
    fn indexed_as(&self, keys: &[(Vec<u32>, KeyIndex)]) -> &[(Vec<u32>, KeyIndex)] {
        self.keys.get_or_init(|| keys.iter().map(|(key, _)| (key.clone(), self.index(key))).collect())
    }

    /// Runs of one tier are of like size.
    fn tier(&self) -> u32 {
        self.rows.checked_ilog(FANOUT).unwrap_or(0)
    }

    /// The number of the row behind it.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.rows as u64
    }
}

impl MemoryRows {
    /// No rows; the first one to come has this number.
    pub(crate) fn starting_at(first: u64) -> MemoryRows {
        MemoryRows { first, ..MemoryRows::default() }
    }

    /// The number of the first row.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// The number of the row that comes next.
    pub(crate) fn next(&self) -> u64 {
        self.runs.last().map_or(self.first, |run| run.end())
    }

    /// Rows that are not deleted.
    pub(crate) fn rows(&self) -> u64 {
        self.next() - self.first - self.deleted.len()
    }

    /// Bytes of the columns.
    pub(crate) fn bytes(&self) -> usize {
        self.runs.iter().map(|run| run.bytes).sum()
    }

    pub(crate) fn runs(&self) -> &[Arc<Run>] {
        &self.runs
    }

    pub(crate) fn deleted(&self) -> &RoaringTreemap {
        &self.deleted
    }

    /// Whether a row is here and not deleted.
    pub(crate) fn is_live(&self, number: u64) -> bool {
        (self.first..self.next()).contains(&number) && !self.deleted.contains(number)
    }

    /// The deleted rows of a run, by their place in it.
    pub(crate) fn deleted_of(&self, run: &Run) -> Option<Arc<RoaringBitmap>> {
        if self.deleted.is_empty() {
            return None;
        }
        let from = self.deleted.rank(run.first).saturating_sub(u64::from(self.deleted.contains(run.first)));
        let numbers = (from..).map_while(|n| self.deleted.select(n)).take_while(|number| *number < run.end());
        let places: RoaringBitmap = numbers.map(|number| (number - run.first) as u32).collect();
        (!places.is_empty()).then(|| Arc::new(places))
    }

    /// Adds rows at the end.
    pub(crate) fn push(&mut self, columns: Arc<[ArrayRef]>) -> Result<()> {
        let run = Run::new(self.next(), columns);
        if run.rows == 0 {
            return Ok(());
        }
        self.runs.push(Arc::new(run));
        while let Some(from) = self.joinable() {
            let joined = Run::joined(&self.runs[from..])?;
            self.runs.truncate(from);
            self.runs.push(Arc::new(joined));
        }
        Ok(())
    }

    /// The runs from this one on are to be joined: they are of the last one's tier, or of lower ones, and enough.
    fn joinable(&self) -> Option<usize> {
        let tier = self.runs.last()?.tier();
        let mut rows = 0;
        let fits = |run: &&Arc<Run>| {
            rows += run.rows;
            run.tier() <= tier && rows <= JOINED_ROWS
        };
        let count = self.runs.iter().rev().take_while(fits).count();
        let from = self.runs.len() - count;
        let lower = self.runs[from..].iter().any(|run| run.tier() < tier);
        (count > 1 && (lower || count >= FANOUT)).then_some(from)
    }

    /// The same rows with other columns, which `columns` gives.
    pub(crate) fn altered(&self, columns: impl Fn(&[ArrayRef]) -> Result<Vec<ArrayRef>>) -> Result<MemoryRows> {
        let altered = |run: &Arc<Run>| Ok(Arc::new(Run::new(run.first, columns(&run.columns)?.into())));
        let runs = self.runs.iter().map(altered).collect::<Result<_>>()?;
        Ok(MemoryRows { first: self.first, runs, deleted: Arc::clone(&self.deleted) })
    }

    /// Deletes rows that are here.
    pub(crate) fn delete(&mut self, numbers: impl IntoIterator<Item = u64>) {
        Arc::make_mut(&mut self.deleted).extend(numbers);
    }

    /// Takes the rows before `through` away: they are in segments now.
    pub(crate) fn seal(&mut self, through: u64) {
        let through = through.clamp(self.first, self.next());
        let mut kept = Vec::new();
        for run in self.runs.drain(..) {
            if run.first >= through {
                kept.push(run);
            } else if run.end() > through {
                let skip = (through - run.first) as usize;
                let columns: Arc<[ArrayRef]> = run.columns.iter().map(|c| c.slice(skip, run.rows - skip)).collect();
                kept.push(Arc::new(Run::new(through, columns)));
            }
        }
        (self.runs, self.first) = (kept, through);
        if self.deleted.min().is_some_and(|least| least < through) {
            let rest = self.deleted.iter().skip_while(|number| *number < through).collect();
            self.deleted = Arc::new(rest);
        }
    }

    /// The rows before `through` that are not deleted, as columns, and their numbers.
    pub(crate) fn live(&self, through: u64) -> Result<(Vec<ArrayRef>, Vec<u64>)> {
        let mut parts: Vec<Vec<ArrayRef>> = Vec::new();
        let mut numbers = Vec::new();
        for run in self.runs.iter().filter(|run| run.first < through) {
            let rows = run.rows.min((through - run.first) as usize);
            let mut columns: Vec<ArrayRef> = run.columns.iter().map(|c| c.slice(0, rows)).collect();
            if let Some(deleted) = self.deleted_of(run) {
                let live = BooleanArray::from(BooleanBuffer::collect_bool(rows, |row| !deleted.contains(row as u32)));
                columns = columns.iter().map(|c| filter(c, &live)).collect::<std::result::Result<_, _>>()?;
                numbers.extend(live.values().set_indices().map(|row| run.first + row as u64));
            } else {
                numbers.extend((0..rows as u64).map(|row| run.first + row));
            }
            parts.push(columns);
        }
        let count = parts.first().map_or(0, Vec::len);
        let column = |i: usize| Ok(concat(&parts.iter().map(|part| part[i].as_ref()).collect::<Vec<&dyn Array>>())?);
        Ok(((0..count).map(column).collect::<Result<_>>()?, numbers))
    }
}

/// Columns as one that shares nothing with them.
fn join(parts: &[&dyn Array]) -> Result<ArrayRef> {
    let joined = concat(parts).map_err(Error::from)?;
    Ok(if let DataType::Utf8View = joined.data_type() { Arc::new(joined.as_string_view().gc()) } else { joined })
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;
    use arrow::datatypes::Int64Type;

    use super::*;

    fn rows(range: std::ops::Range<i64>) -> Arc<[ArrayRef]> {
        Arc::new([Arc::new(Int64Array::from_iter_values(range)) as ArrayRef])
    }

    #[test]
    fn runs_stay_few_and_rows_keep_their_numbers() {
        let mut memory = MemoryRows::starting_at(100);
        for i in 0..1000 {
            memory.push(rows(i..i + 1)).expect("pushed");
            assert!(memory.runs().len() <= 15, "{} runs of {} rows", memory.runs().len(), i + 1);
        }
        for number in [100, 611, 1099] {
            let run = memory.runs().iter().find(|run| (run.first..run.end()).contains(&number)).expect("is here");
            let row = (number - run.first) as usize;
            assert_eq!(run.columns[0].as_primitive::<Int64Type>().value(row), number as i64 - 100);
        }
        assert!(!memory.is_live(99) && memory.is_live(1099) && !memory.is_live(1100));
    }

    #[test]
    fn deleted_rows_are_not_live_and_sealed_ones_are_gone() {
        let mut memory = MemoryRows::default();
        memory.push(rows(0..64)).expect("pushed");
        memory.push(rows(64..70)).expect("pushed");
        memory.delete([3, 63, 64, 69]);
        assert_eq!((memory.rows(), memory.is_live(63), memory.is_live(62)), (66, false, true));
        let of_runs: Vec<Vec<u32>> =
            memory.runs().iter().map(|run| memory.deleted_of(run).map_or(vec![], |d| d.iter().collect())).collect();
        assert_eq!(of_runs, [vec![3, 63], vec![0, 5]]);
        let (columns, numbers) = memory.live(65).expect("live");
        assert_eq!((columns[0].len(), numbers.len(), numbers[3]), (62, 62, 4));
        memory.seal(65);
        assert_eq!((memory.first(), memory.next(), memory.rows()), (65, 70, 4));
        assert!(memory.is_live(65) && !memory.is_live(69) && !memory.is_live(64));
        memory.push(rows(70..71)).expect("pushed");
        let (columns, numbers) = memory.live(u64::MAX).expect("live");
        assert_eq!(columns[0].as_primitive::<Int64Type>().values(), &[65, 66, 67, 68, 70]);
        assert_eq!(numbers, [65, 66, 67, 68, 70]);
    }
}
