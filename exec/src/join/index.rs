//! From a key to the build rows that have it.
//!
//! Forms, chosen once when all keys are known:
//! - **members**: a bit for each code, where no row is asked for (semi, anti and mark joins);
//! - **extremes**: two values for each code, where a row is asked for that compares so with the probe row ([`Extremes`]);
//! - **dense, unique**: an array over the codes with one row number each (Leis' and DuckDB's perfect hash join);
//! - **dense**: an array of offsets over the codes into row numbers sorted by code;
//! - either of them **by rank**, where codes are too sparse for an array: a bitmap first turns a code into its position among those
//!   that are there, which for probe rows in the order of the key walks through memory once;
//! - **hash of codes**: a directory over the high bits of the hash into codes and rows sorted by them, with 16 tag bits a bucket that
//!   answer most misses without a look at the codes (Birler et al., "Simple, Efficient, and Robust Hash Tables for Join Processing");
//! - **hash of rows**: the same with the hash of a byte string as the code and the bytes compared;
//! - **all**: every row, where there is no equality.

use arrow::buffer::NullBuffer;
use arrow::row::Rows;
use stoa_kernels::hash::hash_bytes;

use super::extremes::{Comparison, Extremes};
use super::keys::{BatchKeys, Integers, NO_CODE};
use super::members::{Members, mark};
use crate::{CancelToken, Error, Result, Settings};

/// A dense array may have this many slots for each build row,
const DENSE_SLOTS_PER_ROW: u64 = 4;
/// or this many in any case: they fit a second-level cache.
const DENSE_SLOTS_ANYWAY: u64 = 1 << 17;
/// The same where a slot is a bit, or one and a half with ranks: 32 to 48 bytes for each row as a hash table has, or a megabyte.
const MEMBER_SLOTS_PER_ROW: u64 = 256;
const MEMBER_SLOTS_ANYWAY: u64 = 1 << 23;
/// Spreads the bits of a code (the odd number next to 2^64 divided by the golden ratio).
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// From keys to build rows.
pub(crate) enum Index {
    /// Every row matches: their number.
    All(u32),
    /// The codes that are there.
    Members(Members),
    /// The codes that are there, with the extremes of a value.
    Extremes(Extremes),
    /// Row number plus one for each code, 0 where there is none.
    DenseUnique(Vec<u32>),
    /// Rows of code `c` are `rows[offsets[c]..offsets[c + 1]]`.
    Dense { offsets: Vec<u32>, rows: Vec<u32> },
    /// Codes in a hash table.
    Hash(HashIndex),
    /// Byte strings in a hash table.
    Bytes { index: HashIndex, keys: Rows },
}

/// A bucket's end in the sorted entries and its tag bits; entries are a code and a row.
pub(crate) struct HashIndex {
    directory: Vec<u64>,
    codes: Vec<u64>,
    rows: Vec<u32>,
    shift: u32,
    zero: bool,
    unique: bool,
}

/// What a join asks of its index.
#[derive(Clone, Copy)]
pub(crate) enum Question<'a> {
    /// The rows of a key.
    Rows,
    /// Whether there is one.
    Any,
    /// Whether there is one whose value compares so with the probe row's.
    Compares(Comparison, &'a Integers<'a>),
}

/// Where a probe of a batch has stopped.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor {
    row: usize,
    offset: usize,
}

/// How many candidate pairs are wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// About so many at most.
    pub limit: usize,
    /// One a probe row is enough.
    pub first_only: bool,
}

/// Candidate pairs: probe rows and build rows.
#[derive(Debug, Default)]
pub(crate) struct Pairs {
    pub probe: Vec<u32>,
    pub build: Vec<u32>,
}

impl Index {
    /// An index over packed codes, all below `codes`; rows with [`NO_CODE`] are left out. With members, it is over their ranks, by
    /// which the codes have been replaced.
    pub fn of_codes(
        row_codes: &mut [u64],
        codes: Option<u64>,
        question: Question<'_>,
        settings: &Settings,
        cancel: &CancelToken,
    ) -> Result<(Index, Option<Members>)> {
        let rows = row_count(row_codes.len())?;
        let Some(codes) = codes else { return Ok((Index::All(rows), None)) };
        let fits = |per_row: u64, anyway: u64| codes <= (u64::from(rows) * per_row).max(anyway);
        let decline = settings.no_fast_paths || settings.hash_zero;
        cancel.check()?;
        if decline || !fits(MEMBER_SLOTS_PER_ROW, MEMBER_SLOTS_ANYWAY) {
            return Ok((Index::Hash(HashIndex::new(row_codes, settings.hash_zero, |_| true, cancel)?), None));
        }
        let slots = usize::try_from(codes).map_err(|_| Error::Internal("a dense join array is too large".into()))?;
        let index = match question {
            Question::Any => Index::Members(Members::new(row_codes, slots, |_| true)),
            Question::Compares(comparison, values) => Index::Extremes(Extremes::new(row_codes, slots, values, comparison)),
            Question::Rows if fits(DENSE_SLOTS_PER_ROW, DENSE_SLOTS_ANYWAY) => dense(row_codes, slots, cancel)?,
            Question::Rows => {
                let mut members = Members::new(row_codes, slots, |_| true);
                let count = members.count();
                members.replace(row_codes);
                return Ok((dense(row_codes, count, cancel)?, Some(members)));
            }
        };
        Ok((index, None))
    }

    /// An index over byte strings; rows that are not valid are left out.
    pub fn of_bytes(keys: Rows, valid: Option<&NullBuffer>, settings: &Settings, cancel: &CancelToken) -> Result<Index> {
        row_count(keys.num_rows())?;
        let mut hashes = Vec::with_capacity(keys.num_rows());
        for piece in cancel.pieces(keys.num_rows()) {
            hashes.extend(piece?.map(|row| hash_bytes(keys.row(row).as_ref()) >> 1));
        }
        let index = HashIndex::new(&hashes, settings.hash_zero, |row| valid.is_none_or(|v| v.is_valid(row)), cancel)?;
        Ok(Index::Bytes { index: HashIndex { unique: false, ..index }, keys })
    }

    /// Whether a probe row has at most one match.
    pub fn is_unique(&self) -> bool {
        match self {
            Index::All(rows) => *rows <= 1,
            Index::DenseUnique(_) | Index::Members(_) | Index::Extremes(_) => true,
            Index::Dense { .. } | Index::Bytes { .. } => false,
            Index::Hash(index) => index.unique,
        }
    }

    /// Bytes that it holds.
    pub fn memory(&self) -> usize {
        match self {
            Index::All(_) => 0,
            Index::Members(members) => members.memory(),
            Index::Extremes(extremes) => extremes.memory(),
            Index::DenseUnique(slots) => slots.len() * 4,
            Index::Dense { offsets, rows } => (offsets.len() + rows.len()) * 4,
            Index::Hash(index) => index.memory(),
            Index::Bytes { index, keys, .. } => index.memory() + keys.size(),
        }
    }

    /// For people.
    pub fn description(&self) -> String {
        match self {
            Index::All(rows) => format!("every pair with {rows} rows"),
            Index::Members(members) => format!("members by dense array, {} slots", members.slots()),
            Index::Extremes(extremes) => extremes.description(),
            Index::DenseUnique(slots) => format!("dense array join, unique keys, {} slots", slots.len()),
            Index::Dense { offsets, .. } => format!("dense array join, {} slots", offsets.len() - 1),
            Index::Hash(index) if index.unique => format!("packed hash join, unique keys, {} buckets", index.directory.len() - 1),
            Index::Hash(index) => format!("packed hash join, {} buckets", index.directory.len() - 1),
            Index::Bytes { index, .. } => format!("row hash join, {} buckets", index.directory.len() - 1),
        }
    }

    /// Sets the bits of the probe rows whose key is there, where that needs no pairs. False if it does.
    pub fn mark(&self, keys: &BatchKeys, matched: &mut [u64]) -> bool {
        match (self, keys) {
            (Index::Members(members), BatchKeys::Codes(codes)) => mark(codes, matched, |_, code| members.contains(code)),
            (Index::Hash(index), BatchKeys::Codes(codes)) => mark(codes, matched, |_, code| u64::from(index.contains(code))),
            _ => return false,
        }
        true
    }

    /// Appends candidate pairs from `cursor` on. False once all probe rows are done.
    pub fn pairs(&self, keys: &BatchKeys, cursor: &mut Cursor, wanted: Wanted, pairs: &mut Pairs) -> bool {
        let most = if wanted.first_only { 1 } else { u32::MAX };
        match (self, keys) {
            (Index::All(rows), BatchKeys::Codes(codes)) => all_pairs((*rows).min(most), codes.len(), cursor, wanted.limit, pairs),
            (Index::DenseUnique(slots), BatchKeys::Codes(codes)) => unique_pairs(slots, codes, cursor, wanted.limit, pairs),
            (Index::Dense { offsets, rows }, BatchKeys::Codes(codes)) => {
                let range = |row: usize| dense_range(offsets, codes[row]);
                expand(codes.len(), range, |_, _| true, rows, cursor, wanted, pairs)
            }
            (Index::Hash(index), BatchKeys::Codes(codes)) => {
                let range = |row: usize| if codes[row] == NO_CODE { (0, 0) } else { index.range(codes[row]) };
                expand(codes.len(), range, |row, at| index.codes[at] == codes[row], &index.rows, cursor, wanted, pairs)
            }
            (Index::Bytes { index, keys }, BatchKeys::Rows(probe, valid)) => {
                let hashes: Vec<u64> =
                    (cursor.row..probe.num_rows()).map(|row| hash_bytes(probe.row(row).as_ref()) >> 1).collect();
                let first = cursor.row;
                let range = |row: usize| {
                    if valid.as_ref().is_none_or(|v| v.is_valid(row)) { index.range(hashes[row - first]) } else { (0, 0) }
                };
                let equal = |row: usize, at: usize| {
                    index.codes[at] == hashes[row - first]
                        && keys.row(index.rows[at] as usize).as_ref() == probe.row(row).as_ref()
                };
                expand(probe.num_rows(), range, equal, &index.rows, cursor, wanted, pairs)
            }
            _ => false,
        }
    }
}

fn row_count(rows: usize) -> Result<u32> {
    u32::try_from(rows)
        .ok()
        .filter(|n| *n < u32::MAX)
        .ok_or_else(|| Error::Unsupported("join build sides of more than 4 billion rows".into()))
}

/// An array of one slot a code: of row numbers if each code has but one, else of offsets.
fn dense(row_codes: &[u64], slots: usize, cancel: &CancelToken) -> Result<Index> {
    let mut array = vec![0u32; slots];
    for (row, code) in row_codes.iter().enumerate() {
        if let Some(slot) = array.get_mut(*code as usize)
            && std::mem::replace(slot, row as u32 + 1) != 0
        {
            array.fill(0);
            array.push(0);
            return dense_offsets(row_codes, array, cancel);
        }
    }
    Ok(Index::DenseUnique(array))
}

/// Offsets and rows by code; `offsets` has a zero for each code, and one.
fn dense_offsets(row_codes: &[u64], mut offsets: Vec<u32>, cancel: &CancelToken) -> Result<Index> {
    let slots = offsets.len() - 1;
    for piece in cancel.pieces(row_codes.len()) {
        for code in row_codes[piece?].iter().filter(|code| (**code as usize) < slots) {
            offsets[*code as usize] += 1;
        }
    }
    let mut sum = 0;
    for offset in &mut offsets {
        sum += *offset;
        *offset = sum;
    }
    let mut rows = vec![0u32; sum as usize];
    for piece in cancel.pieces(row_codes.len()).rev() {
        for row in piece?.rev().filter(|row| (row_codes[*row] as usize) < slots) {
            let offset = &mut offsets[row_codes[row] as usize];
            *offset -= 1;
            rows[*offset as usize] = row as u32;
        }
    }
    Ok(Index::Dense { offsets, rows })
}

#[inline]
fn dense_range(offsets: &[u32], code: u64) -> (usize, usize) {
    let at = code as usize;
    if code < (offsets.len() - 1) as u64 { (offsets[at] as usize, offsets[at + 1] as usize) } else { (0, 0) }
}

/// Pairs of an array of unique codes: at most one a row, without a branch.
fn unique_pairs(slots: &[u32], codes: &[u64], cursor: &mut Cursor, limit: usize, pairs: &mut Pairs) -> bool {
    let end = codes.len().min(cursor.row.saturating_add(limit));
    let start = pairs.probe.len();
    pairs.probe.resize(start + end - cursor.row, 0);
    pairs.build.resize(start + end - cursor.row, 0);
    let mut n = start;
    for (row, code) in codes.iter().enumerate().take(end).skip(cursor.row) {
        let found = slots.get(*code as usize).copied().unwrap_or(0);
        pairs.probe[n] = row as u32;
        pairs.build[n] = found.wrapping_sub(1);
        n += usize::from(found != 0);
    }
    pairs.probe.truncate(n);
    pairs.build.truncate(n);
    cursor.row = end;
    end < codes.len()
}

/// Every build row with every probe row.
fn all_pairs(rows: u32, probes: usize, cursor: &mut Cursor, limit: usize, pairs: &mut Pairs) -> bool {
    if rows == 0 {
        cursor.row = probes;
    }
    while cursor.row < probes && pairs.probe.len() < limit {
        let end = (cursor.offset + limit - pairs.probe.len()).min(rows as usize);
        for build in cursor.offset..end {
            pairs.probe.push(cursor.row as u32);
            pairs.build.push(build as u32);
        }
        cursor.offset = end;
        if end == rows as usize {
            *cursor = Cursor { row: cursor.row + 1, offset: 0 };
        }
    }
    cursor.row < probes
}

/// The entries of each row's range that are equal.
fn expand(
    probes: usize,
    range: impl Fn(usize) -> (usize, usize),
    equal: impl Fn(usize, usize) -> bool,
    rows: &[u32],
    cursor: &mut Cursor,
    wanted: Wanted,
    pairs: &mut Pairs,
) -> bool {
    while cursor.row < probes && pairs.probe.len() < wanted.limit {
        let (start, end) = range(cursor.row);
        let mut at = start + cursor.offset;
        while at < end && pairs.probe.len() < wanted.limit {
            if equal(cursor.row, at) {
                pairs.probe.push(cursor.row as u32);
                pairs.build.push(rows[at]);
                if wanted.first_only {
                    at = end;
                    break;
                }
            }
            at += 1;
        }
        if at < end {
            cursor.offset = at - start;
        } else {
            *cursor = Cursor { row: cursor.row + 1, offset: 0 };
        }
    }
    cursor.row < probes
}

impl HashIndex {
    fn new(row_codes: &[u64], zero: bool, keep: impl Fn(usize) -> bool, cancel: &CancelToken) -> Result<HashIndex> {
        let buckets = row_codes.len().max(2).next_power_of_two();
        let shift = 64 - buckets.trailing_zeros();
        let hash = |code: u64| if zero { 0 } else { code.wrapping_mul(GOLDEN) };
        let kept = |row: &usize| row_codes[*row] != NO_CODE && keep(*row);
        let mut directory = vec![0u64; buckets + 1];
        for piece in cancel.pieces(row_codes.len()) {
            for row in piece?.filter(kept) {
                let h = hash(row_codes[row]);
                let entry = &mut directory[(h >> shift) as usize];
                *entry = (*entry + (1 << 16)) | tag(h);
            }
        }
        let mut sum = 0;
        for entry in &mut directory {
            sum += *entry >> 16;
            *entry = (sum << 16) | (*entry & 0xFFFF);
        }
        let mut codes = vec![0u64; sum as usize];
        let mut rows = vec![0u32; sum as usize];
        for piece in cancel.pieces(row_codes.len()).rev() {
            for row in piece?.rev().filter(kept) {
                let entry = &mut directory[(hash(row_codes[row]) >> shift) as usize];
                *entry -= 1 << 16;
                let at = (*entry >> 16) as usize;
                codes[at] = row_codes[row];
                rows[at] = row as u32;
            }
        }
        cancel.check()?;
        let mut index = HashIndex { directory, codes, rows, shift, zero, unique: false };
        index.unique = index.has_unique_codes();
        Ok(index)
    }

    /// The entries of a code's bucket; none if the tag says so.
    #[inline]
    fn range(&self, code: u64) -> (usize, usize) {
        let h = if self.zero { 0 } else { code.wrapping_mul(GOLDEN) };
        let bucket = (h >> self.shift) as usize;
        let entry = self.directory[bucket];
        if entry & tag(h) == 0 {
            return (0, 0);
        }
        ((entry >> 16) as usize, (self.directory[bucket + 1] >> 16) as usize)
    }

    /// Whether a code is there.
    #[inline]
    fn contains(&self, code: u64) -> bool {
        let (start, end) = if code == NO_CODE { (0, 0) } else { self.range(code) };
        self.codes[start..end].contains(&code)
    }

    fn has_unique_codes(&self) -> bool {
        if self.zero {
            return false;
        }
        let ends = self.directory.windows(2).map(|w| ((w[0] >> 16) as usize, (w[1] >> 16) as usize));
        ends.into_iter().all(|(start, end)| (start..end).all(|i| !self.codes[start..i].contains(&self.codes[i])))
    }

    fn memory(&self) -> usize {
        self.directory.len() * 8 + self.codes.len() * 12
    }
}

/// The tag bit of a hash.
#[inline]
fn tag(h: u64) -> u64 {
    1 << ((h >> 20) & 15)
}
