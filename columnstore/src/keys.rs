//! Unique keys: which row has a key.
//!
//! A [`KeyIndex`] is the hashes of a unit's keys in order, each with its row. A unit is a run in memory or a segment; the zone maps of
//! a segment are asked first, so that keys that only grow never make an index of old segments.

use std::cell::OnceCell;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::{concat, take};
use arrow::row::{RowConverter, Rows, SortField};

use crate::address::Place;
use crate::definition::{TableDef, UniqueKey};
use crate::predicate::Predicate;
use crate::segment::Segment;
use crate::sharding::shard_hashes;
use crate::summary::summarize;
use crate::table::{Partition, Stored};
use crate::zone::{Verdict, Zone};
use crate::{BLOCK_ROWS, Datum, Result};

/// The keys of a unit by their hashes. A key with a NULL is none.
pub(crate) struct KeyIndex {
    hashes: Vec<u64>,
    rows: Vec<u32>,
}

impl KeyIndex {
    /// The index of some columns.
    pub(crate) fn of(columns: &[ArrayRef]) -> KeyIndex {
        let mut pairs: Vec<(u64, u32)> = Vec::new();
        let hashes = shard_hashes(columns);
        pairs.extend(hashes.into_iter().zip(0u32..).filter(|(_, row)| has_key(columns, *row as usize)));
        pairs.sort_unstable();
        let (hashes, rows) = pairs.into_iter().unzip();
        KeyIndex { hashes, rows }
    }

    /// The index of indexed units that follow each other, each given with its first row.
    pub(crate) fn joined(units: &[(u32, &KeyIndex)]) -> KeyIndex {
        let mut all: Vec<(u64, u32)> = Vec::with_capacity(units.iter().map(|(_, index)| index.hashes.len()).sum());
        for (first, index) in units {
            all.extend(index.hashes.iter().copied().zip(index.rows.iter().map(|row| first + row)));
        }
        // Sorted runs are merged.
        all.sort();
        let (hashes, rows) = all.into_iter().unzip();
        KeyIndex { hashes, rows }
    }

    /// The rows whose key has this hash.
    fn rows(&self, hash: u64) -> &[u32] {
        let start = first_not_below(&self.hashes, hash);
        let length = self.hashes[start..].iter().take_while(|h| **h == hash).count();
        &self.rows[start..start + length]
    }
}

/// How many of ascending hashes are below one. Hashes are spread evenly, so that one's place is about known (Peterson's interpolation
/// search): what is around it is bisected, which touches less memory than to bisect all.
fn first_not_below(hashes: &[u64], hash: u64) -> usize {
    let guess = ((hash as u128 * hashes.len() as u128) >> 64) as usize;
    let mut around = hashes.len().isqrt() / 2 + 1;
    loop {
        let (low, high) = (guess.saturating_sub(around), hashes.len().min(guess + around));
        let starts = low == 0 || hashes[low - 1] < hash;
        if starts && (high == hashes.len() || hashes[high] >= hash) {
            return low + hashes[low..high].partition_point(|h| *h < hash);
        }
        around *= 4;
    }
}

/// As in SQL, NULL equals nothing.
fn has_key(columns: &[ArrayRef], row: usize) -> bool {
    columns.iter().all(|c| c.is_valid(row))
}

/// Keys of rows that are looked for: hashes to find them, bytes to compare those of the same hash, bounds to leave segments out. Few
/// need more than the hashes.
pub(crate) struct SoughtKeys {
    columns: Vec<ArrayRef>,
    hashes: Vec<u64>,
    encoded: OnceCell<(RowConverter, Rows)>,
    /// The least and the greatest value of each column.
    zones: OnceCell<Vec<Zone>>,
}

impl SoughtKeys {
    /// The keys that rows of a table have for one of its unique keys.
    pub(crate) fn new(key: &UniqueKey, rows: &[ArrayRef]) -> SoughtKeys {
        SoughtKeys::of_key(key.columns.iter().map(|c| Arc::clone(&rows[*c as usize])).collect())
    }

    /// The keys that these columns are.
    pub(crate) fn of_key(columns: Vec<ArrayRef>) -> SoughtKeys {
        SoughtKeys { hashes: shard_hashes(&columns), columns, encoded: OnceCell::new(), zones: OnceCell::new() }
    }

    fn encoded(&self) -> Result<&(RowConverter, Rows)> {
        if let Some(encoded) = self.encoded.get() {
            return Ok(encoded);
        }
        let fields = self.columns.iter().map(|c| SortField::new(c.data_type().clone())).collect();
        let converter = RowConverter::new(fields)?;
        let rows = converter.convert_columns(&self.columns)?;
        Ok(self.encoded.get_or_init(|| (converter, rows)))
    }

    /// A key for people.
    pub(crate) fn text(&self, row: usize) -> String {
        let value = |c: &ArrayRef| arrow::util::display::array_value_to_string(c, row).unwrap_or_default();
        format!("({})", self.columns.iter().map(value).collect::<Vec<_>>().join(", "))
    }

    /// A row whose key another row before it has, and that one.
    pub(crate) fn repeated(&self) -> Result<Option<(usize, usize)>> {
        if self.hashes.len() < 2 {
            return Ok(None);
        }
        let mut order: Vec<usize> = (0..self.hashes.len()).filter(|row| has_key(&self.columns, *row)).collect();
        order.sort_unstable_by_key(|row| (self.hashes[*row], *row));
        let mut found: Option<(usize, usize)> = None;
        for same in order.chunk_by(|a, b| self.hashes[*a] == self.hashes[*b]).filter(|same| same.len() > 1) {
            let (_, keys) = self.encoded()?;
            for (i, later) in same.iter().enumerate() {
                let earlier = same[..i].iter().find(|earlier| keys.row(**earlier) == keys.row(*later));
                if let Some(earlier) = earlier
                    && found.is_none_or(|(row, _)| *later < row)
                {
                    found = Some((*later, *earlier));
                }
            }
        }
        Ok(found)
    }

    /// Which of the keys are in a partition: pairs of a sought row and the place of the live row that has its key.
    pub(crate) fn find(&self, def: &Arc<TableDef>, number: usize, partition: &Partition) -> Result<Vec<(usize, Place)>> {
        self.find_since(None, def, number, partition)
    }

    /// The same, without what is where it was in an earlier state of the partition.
    pub(crate) fn find_since(
        &self,
        earlier: Option<&Partition>,
        def: &Arc<TableDef>,
        number: usize,
        partition: &Partition,
    ) -> Result<Vec<(usize, Place)>> {
        let key = &def.unique_keys[number];
        let mut found = Vec::new();
        let seen = earlier.map_or(0, |earlier| earlier.memory.next());
        for (memory, seen) in [(&partition.memory, seen), (&partition.own, 0)] {
            for run in memory.runs().iter().filter(|run| run.end() > seen) {
                let columns: Vec<&ArrayRef> = key.columns.iter().map(|c| &run.columns[*c as usize]).collect();
                let read = |rows: &[u32]| {
                    let rows = UInt32Array::from(rows.to_vec());
                    Ok(columns.iter().map(|c| take(c, &rows, None)).collect::<std::result::Result<_, _>>()?)
                };
                for (sought, row) in self.matches(run.key(def, number), &read)? {
                    let place = run.first + u64::from(row);
                    if memory.is_live(place) {
                        found.push((sought, Place::Memory(place)));
                    }
                }
            }
        }
        let known = earlier.map_or(&[][..], |earlier| &earlier.segments);
        for (at, stored) in partition.segments.iter().enumerate() {
            // Few move while a transaction runs; those that did are only looked at for nothing.
            if known.get(at).is_none_or(|known| known.segment.id() != stored.segment.id()) {
                self.find_in_segment(key, number, stored, &mut found)?;
            }
        }
        found.sort_unstable_by_key(|(row, _)| *row);
        Ok(found)
    }

    fn find_in_segment(&self, key: &UniqueKey, number: usize, stored: &Stored, found: &mut Vec<(usize, Place)>) -> Result<()> {
        let segment = &stored.segment;
        if !self.may_be_in(key, segment)? {
            return Ok(());
        }
        let index = segment.key_index(number, key)?;
        let read = |rows: &[u32]| read_rows(segment, &key.columns, rows);
        for (sought, row) in self.matches(&index, &read)? {
            if !stored.is_deleted(row) {
                found.push((sought, Place::Segment { id: segment.id(), row }));
            }
        }
        Ok(())
    }

    /// Whether the segment's zone maps let any of the keys be in it.
    fn may_be_in(&self, key: &UniqueKey, segment: &Segment) -> Result<bool> {
        let zones = self.zones.get_or_init(|| self.columns.iter().map(|c| summarize(c, 0).zone).collect());
        for (column, zone) in key.columns.iter().zip(zones) {
            let bound = |bound: &Option<Datum>| bound.clone().map(|value| (value, true));
            let range = Predicate::Range { low: bound(&zone.min), high: bound(&zone.max) };
            if segment.verdict(*column as usize, &range)? == Verdict::None {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Pairs of a sought row and a row of the index with the same key. `read` gives the key columns of rows of the index.
    fn matches(&self, index: &KeyIndex, read: &dyn Fn(&[u32]) -> Result<Vec<ArrayRef>>) -> Result<Vec<(usize, u32)>> {
        let mut candidates: Vec<(usize, u32)> = Vec::new();
        for (sought, hash) in self.hashes.iter().enumerate() {
            candidates.extend(index.rows(*hash).iter().map(|row| (sought, *row)));
        }
        candidates.retain(|(sought, _)| has_key(&self.columns, *sought));
        if candidates.is_empty() {
            return Ok(candidates);
        }
        let rows: Vec<u32> = candidates.iter().map(|(_, row)| *row).collect();
        let (converter, keys) = self.encoded()?;
        let there = converter.convert_columns(&read(&rows)?)?;
        let mut candidate = 0..;
        candidates.retain(|(sought, _)| candidate.next().is_some_and(|i| there.row(i) == keys.row(*sought)));
        Ok(candidates)
    }
}

/// Rows of some columns of a segment, in any order: block by block, as blocks are what can be decoded alone.
pub(crate) fn read_rows(segment: &Segment, columns: &[u32], rows: &[u32]) -> Result<Vec<ArrayRef>> {
    // They are read in ascending order, then put in theirs.
    let mut ascending: Vec<u32> = rows.to_vec();
    ascending.sort_unstable();
    ascending.dedup();
    let places: UInt32Array = rows.iter().map(|row| ascending.partition_point(|r| r < row) as u32).collect::<Vec<_>>().into();
    let block = |row: &u32| *row as usize / BLOCK_ROWS;
    let read = |column: &u32| {
        let mut parts: Vec<ArrayRef> = Vec::new();
        for rows in ascending.chunk_by(|a, b| block(a) == block(b)) {
            let first = block(&rows[0]) * BLOCK_ROWS;
            let count = BLOCK_ROWS.min(segment.rows() - first);
            let selection: Vec<u32> = rows.iter().map(|row| row - first as u32).collect();
            parts.push(segment.values(*column as usize, first, count, Some(&selection))?);
        }
        let values = concat(&parts.iter().map(AsRef::as_ref).collect::<Vec<&dyn Array>>())?;
        Ok(take(&values, &places, None)?)
    };
    columns.iter().map(read).collect()
}
