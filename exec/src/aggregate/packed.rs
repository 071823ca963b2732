//! Groups whose keys pack into 64 bits: found through a direct array where the bits are few, else through an open-addressing table.

use std::sync::Arc;

use arrow::array::{ArrayRef, DictionaryArray, UInt32Array};
use arrow::buffer::NullBuffer;
use stoa_plan::DataType;

use super::MOST_DENSE_BITS;
use super::entries::EntryGroups;
use super::groups::Choice;
use super::intern::Interner;
use super::table::{FREE, Table};
use crate::expression::{Evaluated, Ints, bounds, from_i64};
use crate::{CancelToken, Error, Result};

/// How one key takes part in the code: `(value - base + 1) << shift`, 0 for NULL.
#[derive(Debug)]
struct Part {
    ty: DataType,
    shift: u32,
    bits: u32,
    base: i64,
    /// Of a string key.
    strings: Option<Interner>,
}

/// The groups so far.
#[derive(Debug)]
pub(crate) struct PackedGroups {
    parts: Vec<Part>,
    /// One per group.
    codes: Vec<u64>,
    index: Index,
    hash_zero: bool,
    scratch: Vec<u64>,
    text: Vec<u32>,
    /// Largest number of bits for which the index is a direct array.
    dense_bits: u32,
    /// Groups by dictionary entries, where all keys are such.
    entries: EntryGroups,
    cancel: CancelToken,
}

#[derive(Debug)]
enum Index {
    /// Group by code, plus one; 0 for none.
    Dense(Vec<u32>),
    Hash(Table),
}

/// Bits of a string key at first.
const TEXT_BITS: u32 = 6;

impl PackedGroups {
    /// `None` if the keys do not fit. A string key starts with few bits and widens.
    pub(crate) fn new(keys: &[(DataType, crate::Bounds)], choice: &Choice) -> Option<PackedGroups> {
        let mut parts = Vec::new();
        let mut shift = 0;
        for (ty, known) in keys {
            let (bits, base, strings) = if *ty == DataType::Utf8 {
                (TEXT_BITS, 0, Some(Interner::default()))
            } else {
                let (low, high) = bounds::effective(*known, *ty)?;
                if !bounds::fits_i64((low, high)) || high < low {
                    return None;
                }
                (128 - (high - low + 1).leading_zeros(), low as i64, None)
            };
            parts.push(Part { ty: *ty, shift, bits, base, strings });
            shift += bits;
        }
        let widest: u32 = parts.iter().map(|p| if p.strings.is_some() { p.bits + 10 } else { p.bits }).sum();
        if widest > 64 {
            return None;
        }
        let mut groups = PackedGroups {
            parts,
            codes: vec![],
            index: Index::Dense(vec![]),
            hash_zero: choice.hash_zero,
            scratch: vec![],
            text: vec![],
            dense_bits: choice.dense_bits,
            entries: EntryGroups::default(),
            cancel: choice.cancel.clone(),
        };
        groups.reindex().ok()?;
        Some(groups)
    }

    pub(crate) fn len(&self) -> usize {
        self.codes.len()
    }

    fn total_bits(&self) -> u32 {
        self.parts.iter().map(|p| p.bits).sum()
    }

    pub(crate) fn describe(&self) -> String {
        let entries = if !self.parts.is_empty() && self.parts.iter().all(|p| p.strings.is_some()) {
            "groups by dictionary codes, else "
        } else {
            ""
        };
        match &self.index {
            Index::Dense(_) => format!("{entries}direct array over {} bits of keys", self.total_bits()),
            Index::Hash(_) => format!("{entries}hash table over {} bits of packed keys", self.total_bits()),
        }
    }

    pub(crate) fn memory(&self) -> usize {
        let index = match &self.index {
            Index::Dense(map) => map.capacity() * 4,
            Index::Hash(table) => table.memory(),
        };
        let strings: usize = self.parts.iter().filter_map(|p| p.strings.as_ref()).map(Interner::memory).sum();
        index + self.codes.capacity() * 8 + strings + self.scratch.capacity() * 8
    }

    /// The group of every row. `false` if the keys no longer fit 64 bits: nothing was added then.
    pub(crate) fn assign(&mut self, keys: &[ArrayRef], rows: usize, ids: &mut Vec<u32>) -> Result<bool> {
        let by_entries = self.entries.enter(keys, rows);
        if by_entries && self.entries.assign(keys, ids) {
            return Ok(true);
        }
        if !self.assign_codes(keys, rows, ids)? {
            return Ok(false);
        }
        if by_entries {
            self.entries.learn(keys, ids);
        }
        Ok(true)
    }

    fn assign_codes(&mut self, keys: &[ArrayRef], rows: usize, ids: &mut Vec<u32>) -> Result<bool> {
        self.scratch.clear();
        self.scratch.resize(rows, 0);
        let mut texts: Vec<Vec<u32>> = Vec::new();
        for (part, key) in self.parts.iter_mut().zip(keys) {
            if let Some(strings) = &mut part.strings {
                let mut out = std::mem::take(&mut self.text);
                strings.codes(key, self.hash_zero, &mut out)?;
                texts.push(out);
            }
        }
        if !self.widen()? {
            return Ok(false);
        }
        let mut texts = texts.into_iter();
        for (part, key) in self.parts.iter().zip(keys) {
            if part.strings.is_some() {
                let codes = texts.next().unwrap_or_default();
                for (code, id) in self.scratch.iter_mut().zip(&codes) {
                    *code |= u64::from(*id) << part.shift;
                }
                self.text = codes;
            } else {
                pack(part, key, &mut self.scratch)?;
            }
        }
        ids.clear();
        ids.resize(rows, FREE);
        let bits = self.total_bits();
        match &mut self.index {
            Index::Dense(map) => dense(map, bits, &mut self.codes, &self.scratch, ids),
            Index::Hash(table) => table.assign(&mut self.codes, &self.scratch, ids, &self.cancel)?,
        }
        Ok(true)
    }

    /// Gives string keys the bits that they need now.
    fn widen(&mut self) -> Result<bool> {
        let needed = |p: &Part| p.strings.as_ref().map_or(p.bits, |s| (s.len() as u64).checked_ilog2().map_or(1, |n| n + 1));
        if self.parts.iter().all(|p| needed(p) <= p.bits) {
            return Ok(true);
        }
        let bits: Vec<u32> = self.parts.iter().map(|p| if needed(p) > p.bits { needed(p) + 2 } else { p.bits }).collect();
        if bits.iter().sum::<u32>() > 64 {
            return Ok(false);
        }
        let old: Vec<(u32, u32)> = self.parts.iter().map(|p| (p.shift, p.bits)).collect();
        let mut shift = 0;
        for (part, bits) in self.parts.iter_mut().zip(bits) {
            (part.shift, part.bits) = (shift, bits);
            shift += bits;
        }
        for code in &mut self.codes {
            let was = *code;
            *code =
                old.iter().zip(&self.parts).fold(0, |new, ((shift, bits), part)| new | field(was, *shift, *bits) << part.shift);
        }
        self.reindex()?;
        Ok(true)
    }

    fn reindex(&mut self) -> Result<()> {
        if self.total_bits() <= self.dense_bits {
            let mut map = Vec::new();
            let mut ids = vec![FREE; self.codes.len()];
            let codes = std::mem::take(&mut self.codes);
            dense(&mut map, self.total_bits(), &mut self.codes, &codes, &mut ids);
            self.index = Index::Dense(map);
        } else {
            self.index = Index::Hash(Table::new(&self.codes, self.hash_zero, &self.cancel)?);
        }
        Ok(())
    }

    /// The keys of all groups, one column per key.
    pub(crate) fn keys(&self) -> Result<Vec<ArrayRef>> {
        self.parts.iter().map(|part| self.key(part)).collect()
    }

    fn key(&self, part: &Part) -> Result<ArrayRef> {
        self.cancel.check()?;
        let values = || self.codes.iter().map(|code| field(*code, part.shift, part.bits));
        let valid: Vec<bool> = values().map(|v| v != 0).collect();
        let nulls = if valid.iter().all(|v| *v) { None } else { Some(NullBuffer::from(valid)) };
        if let Some(strings) = &part.strings {
            let keys = UInt32Array::new(values().map(|v| (v as u32).saturating_sub(1)).collect(), nulls);
            if strings.len() == 0 {
                return Ok(arrow::array::new_null_array(&part.ty.to_arrow(), keys.len()));
            }
            return Ok(Arc::new(DictionaryArray::try_new(keys, strings.strings(&self.cancel)?)?));
        }
        from_i64(values().map(|v| (v.wrapping_sub(1) as i64).wrapping_add(part.base)).collect(), nulls, part.ty)
    }
}

fn field(code: u64, shift: u32, bits: u32) -> u64 {
    if bits == 0 {
        return 0;
    }
    code >> shift & (u64::MAX >> (64 - bits))
}

fn pack(part: &Part, key: &ArrayRef, codes: &mut [u64]) -> Result<()> {
    let ints = Ints::<i64>::of(&Evaluated::Array(key.clone()))?;
    let values = ints.slice().unwrap_or_default();
    let limit = u64::MAX >> (64 - part.bits.max(1));
    let mut outside = false;
    match ints.nulls.as_ref().filter(|n| n.null_count() > 0) {
        None => {
            for (code, v) in codes.iter_mut().zip(values) {
                let part_code = (v.wrapping_sub(part.base) as u64).wrapping_add(1);
                outside |= part_code > limit || part_code == 0;
                *code |= part_code << part.shift;
            }
        }
        Some(nulls) => {
            for ((code, v), valid) in codes.iter_mut().zip(values).zip(nulls.iter()) {
                let part_code = if valid { (v.wrapping_sub(part.base) as u64).wrapping_add(1) } else { 0 };
                outside |= part_code > limit || (valid && part_code == 0);
                *code |= part_code << part.shift;
            }
        }
    }
    if outside { Err(Error::Internal("a group key is outside its bounds".into())) } else { Ok(()) }
}

/// Codes up to which a direct array grows with its largest code; then it gets its full size at once, of pages that are zero anyway.
const GROWS_UP_TO: usize = 1 << 16;

/// Makes room for `code` in a direct array over `bits` bits.
fn make_room(map: &mut Vec<u32>, bits: u32, code: usize) {
    let size = (code + 1).next_power_of_two().max(64);
    if size <= GROWS_UP_TO {
        map.resize(size, 0);
        return;
    }
    let mut full = vec![0; size.max(1 << bits.min(MOST_DENSE_BITS))];
    full[..map.len()].copy_from_slice(map);
    *map = full;
}

fn dense(map: &mut Vec<u32>, bits: u32, known: &mut Vec<u64>, codes: &[u64], ids: &mut [u32]) {
    let most = codes.iter().fold(0, |most, code| most.max(*code)) as usize;
    if most >= map.len() && !codes.is_empty() {
        make_room(map, bits, most);
    }
    let map = map.as_mut_slice();
    // First what is known, without branches, so that cache misses overlap; then, if there are new groups, all rows once more.
    let mut missing = 0;
    for (id, code) in ids.iter_mut().zip(codes) {
        *id = map[*code as usize].wrapping_sub(1);
        missing |= u32::from(*id == FREE);
    }
    if missing == 0 {
        return;
    }
    // New groups come at random among the rows: the code of each row is written as that of the next group, which stays if it is new.
    let before = known.len();
    known.resize(before + codes.len(), 0);
    let mut next = before;
    for (id, code) in ids.iter_mut().zip(codes) {
        let slot = &mut map[*code as usize];
        known[next] = *code;
        let new = *slot == 0;
        let number = if new { next as u32 + 1 } else { *slot };
        next += usize::from(new);
        *slot = number;
        *id = number - 1;
    }
    known.truncate(next);
}
