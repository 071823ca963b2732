//! A bitmap index: for each distinct value of a segment's column, the Roaring bitmap of the rows that have it.
//!
//! ```text
//! 0   u32  distinct values
//! 4   u8   encoding of the values
//! 5        zeros to 8
//! 8   u32  bytes of the encoded values
//! 12  u32  zero
//! 16       per value: u32 rows, u32 bytes of its bitmap
//!          zeros to a multiple of 64
//!          the values, encoded as a column
//!          the bitmaps one after the other (portable Roaring format)
//! ```
//! All numbers are little-endian. NULLs are in no bitmap.

use std::sync::OnceLock;

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::buffer::Buffer;
use arrow::datatypes::DataType;
use roaring::RoaringBitmap;

use crate::encoding::{Encoded, EncodedColumn, Encoding, encode};
use crate::summary::{Codes, NULL_CODE};
use crate::{Error, Predicate, Result};

/// Distinct values up to which the writer considers an index of its own accord.
pub(crate) const AUTO_VALUES: usize = 64;
/// Distinct values up to which a declared index is built.
pub(crate) const DECLARED_VALUES: usize = 4096;
/// Rows below which a segment gets no index of the writer's own accord.
pub(crate) const AUTO_ROWS: usize = 16 * 1024;
/// An index answers a filter if at most one row in so many passes; otherwise comparing packed values is faster.
const SELECTIVITY: u64 = 32;

const HEADER: usize = 16;
const ENTRY: usize = 8;

/// The size that the bitmaps of these codes will have, without building them. A Roaring container of 2^16 rows holds a value's rows
/// as an array (2 bytes a row), as runs (4 bytes a run) or as bits (8 KiB).
pub(crate) fn estimate_bytes(codes: &Codes) -> usize {
    let values = codes.representatives.len();
    let mut total = HEADER + values * ENTRY;
    let (mut rows, mut runs) = (vec![0usize; values], vec![0usize; values]);
    for chunk in codes.codes.chunks(1 << 16) {
        rows.fill(0);
        runs.fill(0);
        let mut last = NULL_CODE;
        for &code in chunk {
            if let Some(count) = rows.get_mut(usize::from(code)) {
                *count += 1;
                runs[usize::from(code)] += usize::from(code != last);
            }
            last = code;
        }
        total += rows.iter().zip(&runs).map(|(n, r)| if *n == 0 { 0 } else { 12 + (2 * n).min(4 * r).min(8192) }).sum::<usize>();
    }
    total
}

/// Builds the index of a column from its codes; `None` if two values share a code (their hashes met), or there is nothing to index.
pub(crate) fn build(array: &ArrayRef, codes: &Codes) -> Result<Option<Vec<u8>>> {
    let representatives = UInt32Array::from(codes.representatives.clone());
    let values = arrow::compute::take(array, &representatives, None)?;
    if values.is_empty() || !codes_are_true(array, &values, codes)? {
        return Ok(None);
    }
    let mut rows_of: Vec<Vec<u32>> = vec![Vec::new(); values.len()];
    for (row, &code) in codes.codes.iter().enumerate() {
        if let Some(rows) = rows_of.get_mut(usize::from(code)) {
            rows.push(row as u32);
        }
    }
    let Encoded { encoding, bytes: encoded } = encode(&values)?;
    let (mut entries, mut bitmaps) = (Vec::new(), Vec::new());
    for rows in rows_of {
        let mut bitmap = RoaringBitmap::new();
        let count = bitmap.append(rows.iter().copied()).unwrap_or(0);
        bitmap.optimize();
        let before = bitmaps.len();
        // Writing to a Vec does not fail.
        let _ = bitmap.serialize_into(&mut bitmaps);
        entries.extend((count as u32).to_le_bytes());
        entries.extend(((bitmaps.len() - before) as u32).to_le_bytes());
    }
    let mut out = (values.len() as u32).to_le_bytes().to_vec();
    out.extend([encoding as u8, 0, 0, 0]);
    out.extend((encoded.len() as u32).to_le_bytes());
    out.extend([0; 4]);
    out.extend(entries);
    out.resize(out.len().next_multiple_of(64), 0);
    out.extend(encoded);
    out.extend(bitmaps);
    Ok(Some(out))
}

/// Codes were given by hash; an index must be right even if hashes met.
fn codes_are_true(array: &ArrayRef, values: &ArrayRef, codes: &Codes) -> Result<bool> {
    let decoded: UInt32Array = codes.codes.iter().map(|c| (*c != NULL_CODE).then_some(u32::from(*c))).collect();
    let decoded = arrow::compute::take(values, &decoded, None)?;
    let differs = arrow::compute::kernels::cmp::distinct(&decoded, array)?;
    Ok(differs.true_count() == 0)
}

/// An index, read in place; bitmaps are decoded on first use.
pub struct ValueIndex {
    values: EncodedColumn,
    rows: Vec<u32>,
    bytes: Buffer,
    /// Where each bitmap starts and ends.
    places: Vec<(usize, usize)>,
    bitmaps: OnceLock<Option<Vec<RoaringBitmap>>>,
}

/// The values that pass a predicate.
#[derive(Clone, Debug)]
pub(crate) struct PassingValues(Vec<usize>);

impl ValueIndex {
    /// Checks the bytes of an index over `column_rows` rows of type `ty`.
    pub(crate) fn open(bytes: Buffer, ty: &DataType, column_rows: usize) -> std::result::Result<ValueIndex, String> {
        let damaged = || "bitmap index is cut short".to_string();
        let number = |at: usize| -> Option<usize> {
            let bytes = bytes.get(at..at.checked_add(4)?)?;
            Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize)
        };
        let count = number(0).ok_or_else(damaged)?;
        let encoded_bytes = number(8).ok_or_else(damaged)?;
        if count == 0 || count > column_rows || bytes.len() < HEADER + count * ENTRY {
            return Err("bitmap index has a wrong number of values".into());
        }
        let encoding = bytes.get(4).and_then(|tag| Encoding::from_tag(*tag)).ok_or("bitmap index has an unknown encoding")?;
        let values_at = (HEADER + count * ENTRY).next_multiple_of(64);
        let mut at = values_at + encoded_bytes;
        let (mut rows, mut places) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let mut total = 0u64;
        for i in 0..count {
            let entry = HEADER + i * ENTRY;
            let (n, length) = (number(entry).ok_or_else(damaged)?, number(entry + 4).ok_or_else(damaged)?);
            rows.push(n as u32);
            places.push((at, at + length));
            at += length;
            total += n as u64;
        }
        if at != bytes.len() || total > column_rows as u64 {
            return Err("bitmap index has a wrong length".into());
        }
        let values = EncodedColumn::open(encoding, ty, count, bytes.slice_with_length(values_at, encoded_bytes))?;
        Ok(ValueIndex { values, rows, bytes, places, bitmaps: OnceLock::new() })
    }

    /// Number of distinct values.
    #[must_use]
    pub fn values(&self) -> usize {
        self.rows.len()
    }

    /// Size in the file.
    #[must_use]
    pub fn stored_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// How many rows pass a predicate on values. NULLs are not counted: of no use for [`Predicate::IsNull`], nor for a
    /// [`Predicate::Function`] that accepts NULL.
    ///
    /// # Errors
    /// As [`EncodedColumn::filter`].
    pub fn count(&self, predicate: &Predicate) -> Result<u64> {
        Ok(self.passing_values(predicate)?.map(|i| u64::from(self.rows[i])).sum())
    }

    fn passing_values(&self, predicate: &Predicate) -> Result<impl Iterator<Item = usize> + use<>> {
        let mut mask = vec![u64::MAX; self.rows.len().div_ceil(64)];
        if !self.rows.len().is_multiple_of(64) {
            mask[self.rows.len() / 64] = (1 << (self.rows.len() % 64)) - 1;
        }
        self.values.filter(predicate, 0, self.rows.len(), &mut mask)?;
        let rows = self.rows.len();
        Ok((0..rows).filter(move |i| mask[i / 64] >> (i % 64) & 1 == 1))
    }

    /// The values that pass, if their rows are so few among `column_rows` that the index is the fastest way to them.
    pub(crate) fn passing(&self, predicate: &Predicate, column_rows: usize) -> Result<Option<PassingValues>> {
        let passing: Vec<usize> = self.passing_values(predicate)?.collect();
        let count: u64 = passing.iter().map(|i| u64::from(self.rows[*i])).sum();
        let few = count * SELECTIVITY <= column_rows as u64;
        Ok((few && self.bitmaps().is_some()).then_some(PassingValues(passing)))
    }

    fn bitmaps(&self) -> Option<&Vec<RoaringBitmap>> {
        self.bitmaps.get_or_init(|| self.decode()).as_ref()
    }

    /// `mask` keeps the rows of `first_row..first_row + rows` that have one of the values.
    pub(crate) fn filter(&self, values: &PassingValues, first_row: usize, rows: usize, mask: &mut [u64]) {
        let mut passing = vec![0u64; mask.len()];
        for bitmap in self.bitmaps().into_iter().flat_map(|all| values.0.iter().filter_map(|i| all.get(*i))) {
            for row in bitmap.range(first_row as u32..(first_row + rows) as u32) {
                let i = row as usize - first_row;
                passing[i / 64] |= 1 << (i % 64);
            }
        }
        mask.iter_mut().zip(passing).for_each(|(word, passing)| *word &= passing);
    }

    /// Refuses an index that is not that of the column's values.
    pub(crate) fn check(&self, column: &ArrayRef) -> Result<()> {
        let differs = || Error::Invalid("the bitmap index differs from the values".into());
        let bitmaps = self.bitmaps().ok_or_else(differs)?;
        let mut codes: Vec<Option<u32>> = vec![None; column.len()];
        for (code, bitmap) in (0u32..).zip(bitmaps) {
            for row in bitmap {
                if codes.get_mut(row as usize).ok_or_else(differs)?.replace(code).is_some() {
                    return Err(differs());
                }
            }
        }
        let values = self.values.read(0, self.rows.len(), None)?;
        let indexed = arrow::compute::take(&values, &UInt32Array::from(codes), None)?;
        let different = arrow::compute::kernels::cmp::distinct(&indexed, column)?;
        if different.true_count() == 0 { Ok(()) } else { Err(differs()) }
    }

    /// `None` if a bitmap cannot be read: the index then declines and the column itself answers.
    fn decode(&self) -> Option<Vec<RoaringBitmap>> {
        self.places
            .iter()
            .zip(&self.rows)
            .map(|(place, rows)| {
                let bitmap = RoaringBitmap::deserialize_from(self.bytes.get(place.0..place.1)?).ok()?;
                (bitmap.len() == u64::from(*rows)).then_some(bitmap)
            })
            .collect()
    }
}
