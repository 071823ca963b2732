//! `IN` with a list of constants. Other lists are compiled to a chain of comparisons.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use hashbrown::HashSet;

use super::bounds;
use super::node::Compiled;
use super::value::{Evaluated, Ints, int_at};
use crate::{Batch, Result};

/// `input [NOT] IN (constants)`.
#[derive(Debug)]
pub(crate) struct InList {
    pub(crate) input: Compiled,
    pub(crate) set: Set,
    /// Whether the list holds a NULL: then what is not found is NULL.
    pub(crate) has_null: bool,
    pub(crate) negated: bool,
}

/// The constants.
#[derive(Debug)]
pub(crate) enum Set {
    /// Bit `value - first`, over a short range.
    Bits { first: i64, bits: Vec<u64> },
    /// Few or scattered integers in 64 bits.
    Small(HashSet<i64>),
    /// Integers in 128 bits.
    Wide(HashSet<i128>),
    /// Strings.
    Strings(HashSet<String>),
}

/// Longest range kept as bits.
const BITS: i128 = 1 << 16;

impl Set {
    /// The set of the constants in the input's own terms, and whether a NULL is among them. `None` if there is no set for the type.
    pub(crate) fn of(input: &Compiled, list: &[Compiled]) -> Option<(Set, bool)> {
        let constants: Vec<&ArrayRef> = list.iter().map(Compiled::constant).collect::<Option<_>>()?;
        let has_null = constants.iter().any(|c| c.logical_null_count() > 0);
        let valid = || constants.iter().zip(list).filter(|(c, _)| c.logical_null_count() == 0);
        if input.ty == stoa_plan::DataType::Utf8 {
            let strings: Option<HashSet<String>> =
                valid().map(|(c, _)| Some(c.as_string_view_opt()?.value(0).to_owned())).collect();
            return Some((Set::Strings(strings?), has_null));
        }
        let range = bounds::effective(input.bounds, input.ty)?;
        let scale = bounds::scale(input.ty);
        let mut values = HashSet::new();
        for (constant, node) in valid() {
            bounds::of_type(node.ty)?;
            let value = int_at(constant, 0).ok()?;
            let shift = scale - bounds::scale(node.ty);
            let power = bounds::power_of_ten(shift.unsigned_abs())?;
            let same = if shift >= 0 { value.checked_mul(power) } else { (value % power == 0).then_some(value / power) };
            values.extend(same.filter(|v| *v >= range.0 && *v <= range.1));
        }
        if !bounds::fits_i64(range) {
            return Some((Set::Wide(values), has_null));
        }
        let low = values.iter().copied().min().unwrap_or(0);
        let high = values.iter().copied().max().unwrap_or(0);
        if high - low >= BITS {
            return Some((Set::Small(values.into_iter().map(|v| v as i64).collect()), has_null));
        }
        let mut bits = vec![0u64; ((high - low) / 64 + 1) as usize];
        for v in values {
            let i = (v - low) as usize;
            bits[i / 64] |= 1 << (i % 64);
        }
        Some((Set::Bits { first: low as i64, bits }, has_null))
    }
}

impl InList {
    pub(crate) fn evaluate(&self, batch: &Batch) -> Result<Evaluated> {
        let value = self.input.flat(batch)?;
        let rows = value.array().len();
        let found: BooleanBuffer = match &self.set {
            Set::Strings(set) => {
                let array = crate::batch::canonical(value.array(), stoa_plan::DataType::Utf8)?;
                let strings = array.as_string_view();
                BooleanBuffer::collect_bool(rows, |row| set.contains(strings.value(row)))
            }
            Set::Wide(set) => {
                let array = Evaluated::Array(value.array().clone());
                let ints = Ints::<i128>::of(&array)?;
                let values = ints.slice().unwrap_or_default();
                BooleanBuffer::collect_bool(rows, |row| set.contains(&values[row]))
            }
            Set::Small(set) => self.small(&value, |v| set.contains(&v))?,
            Set::Bits { first, bits } => self.small(&value, |v| {
                let i = v.wrapping_sub(*first) as u64;
                bits.get((i / 64) as usize).is_some_and(|word| word >> (i % 64) & 1 == 1)
            })?,
        };
        let mut nulls = value.array().logical_nulls();
        if self.has_null {
            nulls = NullBuffer::union(nulls.as_ref(), Some(&NullBuffer::new(found.clone())));
        }
        let result = BooleanArray::new(if self.negated { !&found } else { found }, nulls);
        Ok(value.with(Arc::new(result)))
    }

    fn small(&self, value: &Evaluated, contains: impl Fn(i64) -> bool) -> Result<BooleanBuffer> {
        let array = Evaluated::Array(value.array().clone());
        let ints = Ints::<i64>::of(&array)?;
        let values = ints.slice().unwrap_or_default();
        Ok(BooleanBuffer::collect_bool(values.len(), |row| contains(values[row])))
    }
}
