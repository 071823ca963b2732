//! Slots that fold numbers: counts, sums, minima, maxima, bit operations.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::Float64Type;

use stoa_kernels::grouped;

use super::slot::Ids;
use super::values::{Cursor, put_float, put_int};
use crate::expression::{Evaluated, Ints};
use crate::{Error, Result};

/// Rows per group.
#[derive(Debug, Default)]
pub(crate) struct Counts(pub(crate) Vec<i64>);

impl Counts {
    pub(crate) fn add(&mut self, ids: &Ids<'_>, nulls: Option<&NullBuffer>) {
        let nulls = nulls.filter(|n| n.null_count() > 0);
        match (ids, nulls) {
            (Ids::One(rows), _) => self.0[0] += (rows - nulls.map_or(0, NullBuffer::null_count)) as i64,
            (Ids::Many(ids), None) => grouped::count(ids, None, &mut self.0),
            (Ids::Many(ids), Some(nulls)) => {
                for (id, valid) in ids.iter().zip(nulls.iter()) {
                    self.0[*id as usize] += i64::from(valid);
                }
            }
        }
    }
}

/// What an integer or float slot does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fold {
    Sum,
    Min,
    Max,
    And,
    Or,
    Xor,
}

impl Fold {
    fn start(self) -> i64 {
        match self {
            Fold::Sum | Fold::Or | Fold::Xor => 0,
            Fold::Min => i64::MAX,
            Fold::Max => i64::MIN,
            Fold::And => -1,
        }
    }

    fn start_wide(self) -> i128 {
        match self {
            Fold::Min => i128::MAX,
            Fold::Max => i128::MIN,
            other => other.start().into(),
        }
    }

    fn wide(self, a: i128, b: i128) -> Result<i128> {
        Ok(match self {
            Fold::Sum => a.checked_add(b).ok_or_else(|| Error::User("overflow in SUM".into()))?,
            Fold::Min => a.min(b),
            Fold::Max => a.max(b),
            Fold::And => a & b,
            Fold::Or => a | b,
            Fold::Xor => a ^ b,
        })
    }

    fn float(self, a: f64, b: f64) -> f64 {
        match self {
            Fold::Min if b.total_cmp(&a).is_lt() => b,
            Fold::Max if b.total_cmp(&a).is_gt() => b,
            Fold::Min | Fold::Max => a,
            _ => a + b,
        }
    }
}

/// Integers in 64 bits while that is proven to do, then in 128.
#[derive(Debug)]
pub(crate) struct IntFold {
    fold: Fold,
    small: Vec<i64>,
    wide: Option<Vec<i128>>,
    /// Largest absolute value of an input.
    most: i128,
    /// Inputs so far.
    rows: i128,
}

impl IntFold {
    pub(crate) fn new(fold: Fold, range: (i128, i128)) -> IntFold {
        let most = range.0.unsigned_abs().max(range.1.unsigned_abs()).min(i128::MAX as u128) as i128;
        let wide = (!crate::expression::bounds::fits_i64(range)).then(Vec::new);
        IntFold { fold, small: vec![], wide, most, rows: 0 }
    }

    pub(crate) fn resize(&mut self, groups: usize) {
        match &mut self.wide {
            Some(wide) => wide.resize(groups, self.fold.start_wide()),
            None => self.small.resize(groups, self.fold.start()),
        }
    }

    pub(crate) fn memory(&self) -> usize {
        self.small.capacity() * 8 + self.wide.as_ref().map_or(0, |w| w.capacity() * 16)
    }

    pub(crate) fn get(&self, group: usize) -> i128 {
        match &self.wide {
            Some(wide) => wide[group],
            None => self.small[group].into(),
        }
    }

    fn promote(&mut self) {
        if self.wide.is_none() {
            let wide = |v: &i64| if *v == self.fold.start() { self.fold.start_wide() } else { i128::from(*v) };
            self.wide = Some(self.small.iter().map(wide).collect());
            self.small = vec![];
        }
    }

    /// Takes note of `rows` more inputs; widens if their sum might not fit.
    fn expect(&mut self, rows: i128, most: i128) {
        self.rows += rows;
        self.most = self.most.max(most);
        if self.fold == Fold::Sum && self.rows.checked_mul(self.most).is_none_or(|v| v > i128::from(i64::MAX)) {
            self.promote();
        }
    }

    pub(crate) fn update(&mut self, ids: &Ids<'_>, values: &ArrayRef) -> Result<()> {
        self.expect(values.len() as i128, 0);
        let value = Evaluated::Array(values.clone());
        if let Some(wide) = &mut self.wide {
            let ints = Ints::<i128>::of(&value)?;
            let valid = |row: usize| ints.nulls.as_ref().is_none_or(|n| n.is_valid(row));
            for (row, v) in ints.slice().unwrap_or_default().iter().enumerate() {
                if valid(row) {
                    let slot = &mut wide[ids.at(row)];
                    *slot = self.fold.wide(*slot, *v)?;
                }
            }
            return Ok(());
        }
        let ints = Ints::<i64>::of(&value)?;
        let values = ints.slice().unwrap_or_default();
        let nulls = ints.nulls.as_ref().filter(|n| n.null_count() > 0);
        let small = &mut self.small;
        match self.fold {
            Fold::Sum => sum(small, ids, values, nulls),
            Fold::Min => each(small, ids, values, nulls, i64::min),
            Fold::Max => each(small, ids, values, nulls, i64::max),
            Fold::And => each(small, ids, values, nulls, |a, b| a & b),
            Fold::Or => each(small, ids, values, nulls, |a, b| a | b),
            Fold::Xor => each(small, ids, values, nulls, |a, b| a ^ b),
        }
        Ok(())
    }

    pub(crate) fn merge(&mut self, other: &IntFold, pairs: &[(u32, u32)]) -> Result<()> {
        self.expect(other.rows, other.most);
        if other.wide.is_some() {
            self.promote();
        }
        for (from, to) in pairs {
            self.add(*to as usize, other.get(*from as usize), other.fold.start().into(), other.wide.is_none())?;
        }
        Ok(())
    }

    fn add(&mut self, to: usize, value: i128, start: i128, small: bool) -> Result<()> {
        match &mut self.wide {
            // The start of a 64-bit minimum is not the start of a 128-bit one.
            Some(wide) if small && value == start => {
                wide[to] = self.fold.wide(wide[to], self.fold.start_wide())?;
            }
            Some(wide) => wide[to] = self.fold.wide(wide[to], value)?,
            None => self.small[to] = self.fold.wide(self.small[to].into(), value)? as i64,
        }
        Ok(())
    }

    pub(crate) fn write(&self, group: usize, out: &mut Vec<u8>) {
        let value = self.get(group);
        let untouched = if self.wide.is_some() { self.fold.start_wide() } else { self.fold.start().into() };
        out.push(u8::from(value != untouched));
        if value != untouched {
            put_int(value, out);
        }
    }

    pub(crate) fn read(&mut self, group: usize, from: &mut Cursor<'_>) -> Result<()> {
        if from.byte()? == 0 {
            return Ok(());
        }
        let value = from.int()?;
        self.promote();
        self.add(group, value, 0, false)
    }
}

/// A branch-free fold for each row.
fn each(out: &mut [i64], ids: &Ids<'_>, values: &[i64], nulls: Option<&NullBuffer>, f: impl Fn(i64, i64) -> i64) {
    match (ids, nulls) {
        (Ids::One(_), None) => out[0] = values.iter().fold(out[0], |a, b| f(a, *b)),
        (Ids::Many(ids), None) => {
            for (id, v) in ids.iter().zip(values) {
                let slot = &mut out[*id as usize];
                *slot = f(*slot, *v);
            }
        }
        (ids, Some(nulls)) => {
            for (row, v) in values.iter().enumerate() {
                if nulls.is_valid(row) {
                    let slot = &mut out[ids.at(row)];
                    *slot = f(*slot, *v);
                }
            }
        }
    }
}

fn sum(sums: &mut [i64], ids: &Ids<'_>, values: &[i64], nulls: Option<&NullBuffer>) {
    match (ids, nulls) {
        (Ids::One(_), None) => sums[0] = values.iter().fold(sums[0], |a, b| a.wrapping_add(*b)),
        (Ids::Many(ids), None) => grouped::wrapping_sum(ids, values, None, sums),
        _ => each(sums, ids, values, nulls, i64::wrapping_add),
    }
}

/// Floats.
#[derive(Debug)]
pub(crate) struct FloatFold {
    fold: Fold,
    pub(crate) values: Vec<f64>,
}

impl FloatFold {
    pub(crate) fn new(fold: Fold) -> FloatFold {
        FloatFold { fold, values: vec![] }
    }

    fn start(&self) -> f64 {
        match self.fold {
            // The ends of the total order.
            Fold::Min => f64::from_bits(0x7FFF_FFFF_FFFF_FFFF),
            Fold::Max => f64::from_bits(u64::MAX),
            _ => 0.0,
        }
    }

    pub(crate) fn resize(&mut self, groups: usize) {
        let start = self.start();
        self.values.resize(groups, start);
    }

    pub(crate) fn update(&mut self, ids: &Ids<'_>, values: &ArrayRef) {
        let array = values.as_primitive::<Float64Type>();
        let fold = self.fold;
        let nulls = array.nulls().filter(|n| n.null_count() > 0);
        for (row, v) in array.values().iter().enumerate() {
            if nulls.is_none_or(|n| n.is_valid(row)) {
                let slot = &mut self.values[ids.at(row)];
                *slot = fold.float(*slot, *v);
            }
        }
    }

    pub(crate) fn merge(&mut self, other: &FloatFold, pairs: &[(u32, u32)]) {
        for (from, to) in pairs {
            let slot = &mut self.values[*to as usize];
            *slot = self.fold.float(*slot, other.values[*from as usize]);
        }
    }

    pub(crate) fn write(&self, group: usize, out: &mut Vec<u8>) {
        put_float(self.values[group], out);
    }

    pub(crate) fn read(&mut self, group: usize, from: &mut Cursor<'_>) -> Result<()> {
        self.values[group] = self.fold.float(self.values[group], from.float()?);
        Ok(())
    }
}

/// Least or greatest strings and bytes.
#[derive(Debug)]
pub(crate) struct BytesFold {
    max: bool,
    pub(crate) values: Vec<Option<Box<[u8]>>>,
    bytes: usize,
}

impl BytesFold {
    pub(crate) fn new(max: bool) -> BytesFold {
        BytesFold { max, values: vec![], bytes: 0 }
    }

    pub(crate) fn resize(&mut self, groups: usize) {
        self.values.resize(groups, None);
    }

    pub(crate) fn memory(&self) -> usize {
        self.values.capacity() * 16 + self.bytes
    }

    fn add(&mut self, group: usize, value: &[u8]) {
        let slot = &mut self.values[group];
        let better = match slot {
            None => true,
            Some(known) if self.max => value > &**known,
            Some(known) => value < &**known,
        };
        if better {
            self.bytes = self.bytes + value.len() - slot.as_ref().map_or(0, |v| v.len());
            *slot = Some(value.into());
        }
    }

    pub(crate) fn update(&mut self, ids: &Ids<'_>, values: &ArrayRef) {
        if let Some(strings) = values.as_string_view_opt() {
            for row in (0..strings.len()).filter(|row| strings.is_valid(*row)) {
                self.add(ids.at(row), strings.value(row).as_bytes());
            }
        } else if let Some(bytes) = values.as_binary_opt::<i32>() {
            for row in (0..bytes.len()).filter(|row| bytes.is_valid(*row)) {
                self.add(ids.at(row), bytes.value(row));
            }
        }
    }

    pub(crate) fn merge(&mut self, other: &BytesFold, pairs: &[(u32, u32)]) {
        for (from, to) in pairs {
            if let Some(value) = &other.values[*from as usize] {
                self.add(*to as usize, value);
            }
        }
    }

    pub(crate) fn write(&self, group: usize, out: &mut Vec<u8>) {
        out.push(u8::from(self.values[group].is_some()));
        if let Some(value) = &self.values[group] {
            super::values::put_bytes(value, out);
        }
    }

    pub(crate) fn read(&mut self, group: usize, text: bool, from: &mut Cursor<'_>) -> Result<()> {
        if from.byte()? == 0 {
            return Ok(());
        }
        let value = from.bytes()?;
        if text && std::str::from_utf8(value).is_err() {
            return Err(Error::Internal("a serialized string is no UTF-8".into()));
        }
        self.add(group, value);
        Ok(())
    }
}
