//! One pass over a column that is about to be encoded: its zone maps, distinct-count sketch, size, and codes if values are few.

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{ArrowPrimitiveType, DataType};

use crate::native::{Native, float_of_order, with_primitive};
use crate::sketch::Sketch;
use crate::types::{Domain, domain};
use crate::zone::{KeySpace, Span, Zone, string_key};
use crate::{BLOCK_ROWS, Datum};
use stoa_kernels::hash::shard_hash_bytes;

/// The code of a NULL.
pub(crate) const NULL_CODE: u16 = u16::MAX;

/// Bytes of a string bound that are kept.
const BOUND_BYTES: usize = 256;

/// What a segment's column holds.
pub(crate) struct Summary {
    pub(crate) zone: Zone,
    pub(crate) space: KeySpace,
    pub(crate) blocks: Vec<Span>,
    pub(crate) sketch: Sketch,
    pub(crate) raw_bytes: u64,
    /// If the values are few.
    pub(crate) codes: Option<Codes>,
}

/// The rows of a column with few distinct values, as codes.
pub(crate) struct Codes {
    /// A row of each value, by code.
    pub(crate) representatives: Vec<u32>,
    /// By row; [`NULL_CODE`] for NULL.
    pub(crate) codes: Vec<u16>,
}

/// Numbers values by their hashes while there are few.
struct Numbering {
    limit: usize,
    slots: Vec<(u64, u16)>,
    found: Codes,
}

impl Numbering {
    fn new(limit: usize, rows: usize) -> Option<Numbering> {
        let limit = limit.min(usize::from(NULL_CODE) - 1);
        let found = Codes { representatives: Vec::new(), codes: Vec::with_capacity(rows) };
        (limit > 0).then(|| Numbering { limit, slots: vec![(0, NULL_CODE); (4 * limit).next_power_of_two()], found })
    }

    /// False if there are too many values.
    #[inline]
    fn push(&mut self, hash: u64) -> bool {
        let mask = self.slots.len() - 1;
        let mut slot = hash as usize & mask;
        loop {
            let (known, code) = self.slots[slot];
            if code == NULL_CODE {
                break;
            }
            if known == hash {
                self.found.codes.push(code);
                return true;
            }
            slot = (slot + 1) & mask;
        }
        let code = self.found.representatives.len();
        if code >= self.limit {
            return false;
        }
        self.slots[slot] = (hash, code as u16);
        self.found.representatives.push(self.found.codes.len() as u32);
        self.found.codes.push(code as u16);
        true
    }
}

/// Counts distinct values, in a sketch and as long as there are few by codes.
struct Distinct {
    sketch: Sketch,
    numbering: Option<Numbering>,
    last: u64,
    any: bool,
}

impl Distinct {
    #[inline]
    fn push(&mut self, hash: u64) {
        // Runs are common and need the sketch once.
        if hash != self.last || !self.any {
            self.sketch.insert(hash);
            (self.last, self.any) = (hash, true);
        }
        if let Some(numbering) = &mut self.numbering
            && !numbering.push(hash)
        {
            self.numbering = None;
        }
    }

    #[inline]
    fn push_null(&mut self) {
        if let Some(numbering) = &mut self.numbering {
            numbering.found.codes.push(NULL_CODE);
        }
    }
}

/// Looks at a column of a canonical type once. Codes are made if it has no more than `most_codes` distinct values.
pub(crate) fn summarize(array: &ArrayRef, most_codes: usize) -> Summary {
    let numbering = Numbering::new(most_codes, array.len());
    let mut distinct = Distinct { sketch: Sketch::default(), numbering, last: 0, any: false };
    let (zone, space, blocks, raw_bytes) = match array.data_type() {
        DataType::Utf8View => {
            let strings = array.as_string_view();
            strings_summary(array, |i| strings.value(i).as_bytes(), &mut distinct)
        }
        DataType::Binary => {
            let bytes = array.as_binary::<i32>();
            strings_summary(array, |i| bytes.value(i), &mut distinct)
        }
        DataType::Boolean => {
            let bits = array.as_boolean();
            let values = (0..bits.len()).map(|i| u8::from(bits.value(i))).collect::<Vec<u8>>();
            let blocks = block_spans(array, &values, &mut distinct);
            (zone_of(array.data_type(), &blocks), KeySpace::Integer, blocks, values.len().div_ceil(8) as u64)
        }
        ty => with_primitive!(array, values => primitive_summary(ty, values, array, &mut distinct), _ => {
            (Zone { min: None, max: None, exact: false, nulls: 0, rows: array.len() as u64 }, KeySpace::Integer, Vec::new(), 0)
        }),
    };
    Summary { zone, space, blocks, sketch: distinct.sketch, raw_bytes, codes: distinct.numbering.map(|n| n.found) }
}

type Parts = (Zone, KeySpace, Vec<Span>, u64);

fn primitive_summary<T>(ty: &DataType, values: &PrimitiveArray<T>, array: &ArrayRef, distinct: &mut Distinct) -> Parts
where
    T: ArrowPrimitiveType,
    T::Native: Native,
{
    let blocks = block_spans(array, values.values(), distinct);
    let space = if domain(ty) == Domain::Float { KeySpace::Float } else { KeySpace::Integer };
    (zone_of(ty, &blocks), space, blocks, size_of_val(&values.values()[..]) as u64)
}

/// The spans of the blocks; every value that is not NULL goes to `distinct`.
fn block_spans<T: Native>(array: &dyn Array, values: &[T], distinct: &mut Distinct) -> Vec<Span> {
    let mut row = 0;
    let mut spans = Vec::with_capacity(values.len().div_ceil(BLOCK_ROWS));
    for block in values.chunks(BLOCK_ROWS) {
        let (largest, smallest) = (T::EXTREMES.1, T::EXTREMES.0);
        let (mut min, mut max, mut nulls) = (largest, smallest, 0);
        if array.null_count() == 0 {
            for value in block {
                let ordered = value.ordered();
                min = min.min(ordered);
                max = max.max(ordered);
            }
            block.iter().for_each(|v| distinct.push(v.hash()));
        } else {
            for (i, value) in block.iter().enumerate() {
                if array.is_null(row + i) {
                    nulls += 1;
                    distinct.push_null();
                    continue;
                }
                min = min.min(value.ordered());
                max = max.max(value.ordered());
                distinct.push(value.hash());
            }
        }
        let rows = block.len();
        row += rows;
        spans.push(if nulls == rows {
            Span { nulls, rows, ..Span::EMPTY }
        } else {
            Span { min: T::key(min), max: T::key(max), nulls, rows }
        });
    }
    spans
}

/// The exact zone of all blocks of a type whose keys are exact values.
fn zone_of(ty: &DataType, blocks: &[Span]) -> Zone {
    let datum = |key: i128| match domain(ty) {
        Domain::Float => Datum::Float(float_of_order(key as i64)),
        _ => Datum::Int(key),
    };
    let known = || blocks.iter().filter(|b| b.min <= b.max);
    Zone {
        min: known().map(|b| b.min).min().map(datum),
        max: known().map(|b| b.max).max().map(datum),
        exact: true,
        nulls: blocks.iter().map(|b| b.nulls as u64).sum(),
        rows: blocks.iter().map(|b| b.rows as u64).sum(),
    }
}

fn strings_summary<'a>(array: &dyn Array, value: impl Fn(usize) -> &'a [u8], distinct: &mut Distinct) -> Parts {
    let rows = array.len();
    let valid = array.nulls().filter(|n| n.null_count() > 0);
    let (mut extremes, mut nulls) = (Vec::with_capacity(rows.div_ceil(BLOCK_ROWS)), Vec::new());
    let (mut raw_bytes, mut longest) = (0, 0);
    for first in (0..rows).step_by(BLOCK_ROWS) {
        let (mut bounds, mut block_nulls): (Option<Extremes<'_>>, usize) = (None, 0);
        for i in first..(first + BLOCK_ROWS).min(rows) {
            if valid.is_some_and(|v| v.is_null(i)) {
                block_nulls += 1;
                distinct.push_null();
                continue;
            }
            let bytes = value(i);
            raw_bytes += bytes.len() as u64;
            longest = longest.max(bytes.len());
            distinct.push(shard_hash_bytes(bytes));
            let text = KeyedText { key: string_key(bytes), bytes };
            match &mut bounds {
                None => bounds = Some(Extremes { min: text, max: text }),
                Some(b) if text < b.min => b.min = text,
                Some(b) if text > b.max => b.max = text,
                Some(_) => {}
            }
        }
        extremes.push(bounds);
        nulls.push(block_nulls);
    }
    let min = extremes.iter().flatten().map(|e| e.min).min().map_or(&[][..], |t| t.bytes);
    let max = extremes.iter().flatten().map(|e| e.max).max().map_or(&[][..], |t| t.bytes);
    let shared = min.iter().zip(max).take(BOUND_BYTES).take_while(|(a, b)| a == b).count();
    let has_zero = |i: usize| valid.is_none_or(|v| v.is_valid(i)) && memchr::memchr(0, value(i)).is_some();
    let exact = longest <= shared + 8 && !(0..rows).any(has_zero);
    let space = KeySpace::Bytes { prefix: min[..shared].to_vec(), exact };
    let key = |text: KeyedText<'_>| i128::from(string_key(&text.bytes[shared..]));
    let blocks = extremes.iter().zip(&nulls).enumerate().map(|(block, (extremes, &nulls))| {
        let rows = (rows - block * BLOCK_ROWS).min(BLOCK_ROWS);
        let known = extremes.map(|e| Span { min: key(e.min), max: key(e.max), nulls, rows });
        known.unwrap_or(Span { nulls, rows, ..Span::EMPTY })
    });
    let blocks = blocks.collect();
    (string_zone(min, max, nulls.iter().sum(), rows), space, blocks, raw_bytes)
}

/// A string and its first bytes as a number: most comparisons end with the number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct KeyedText<'a> {
    key: u64,
    bytes: &'a [u8],
}

#[derive(Clone, Copy)]
struct Extremes<'a> {
    min: KeyedText<'a>,
    max: KeyedText<'a>,
}

/// Long bounds are cut: the lower one simply, the upper one rounded up, or left out if it cannot be.
fn string_zone(min: &[u8], max: &[u8], nulls: usize, rows: usize) -> Zone {
    let exact = min.len() <= BOUND_BYTES && max.len() <= BOUND_BYTES;
    let (nulls, rows) = (nulls as u64, rows as u64);
    if nulls == rows {
        return Zone { min: None, max: None, exact: true, nulls, rows };
    }
    let mut upper = max[..max.len().min(BOUND_BYTES)].to_vec();
    if max.len() > BOUND_BYTES {
        while let Some(last) = upper.pop() {
            if last < u8::MAX {
                upper.push(last + 1);
                break;
            }
        }
    }
    let max = (max.is_empty() || !upper.is_empty()).then_some(Datum::Bytes(upper));
    Zone { min: Some(Datum::Bytes(min[..min.len().min(BOUND_BYTES)].to_vec())), max, exact, nulls, rows }
}
