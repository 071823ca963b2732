//! A [`Predicate`] compiled for a column's type: the same for every encoding, and the scalar rule that every fast path must agree with.
//!
//! Integers, decimals, dates, timestamps and booleans are compared as `i128`; floats by their total order, through an integer key
//! of the same order; strings and binary as bytes. A NULL never passes a value condition.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};

use crate::predicate::{Datum, KeySet, Predicate, ValueFunction};
use crate::{Error, Result};

/// What a column's values are, whatever their logical type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Bits.
    Bool,
    /// Integers of `bytes` bytes (1, 2, 4, 8, 16).
    Int {
        /// Bytes of a value.
        bytes: usize,
        /// Whether negative values exist.
        signed: bool,
    },
    /// `f32`.
    Float32,
    /// `f64`.
    Float64,
    /// UTF-8.
    Utf8,
    /// Bytes.
    Binary,
}

impl Kind {
    /// The kind of a canonical type; `None` for a type that columns cannot have.
    pub(super) fn of(ty: &DataType) -> Option<Kind> {
        Some(match ty {
            DataType::Boolean => Kind::Bool,
            DataType::Int8 => Kind::Int { bytes: 1, signed: true },
            DataType::Int16 => Kind::Int { bytes: 2, signed: true },
            DataType::Int32 | DataType::Date32 => Kind::Int { bytes: 4, signed: true },
            DataType::Int64 | DataType::Decimal64(..) | DataType::Timestamp(TimeUnit::Microsecond, _) => {
                Kind::Int { bytes: 8, signed: true }
            }
            DataType::Decimal128(..) => Kind::Int { bytes: 16, signed: true },
            DataType::UInt8 => Kind::Int { bytes: 1, signed: false },
            DataType::UInt16 => Kind::Int { bytes: 2, signed: false },
            DataType::UInt32 => Kind::Int { bytes: 4, signed: false },
            DataType::UInt64 => Kind::Int { bytes: 8, signed: false },
            DataType::Float32 => Kind::Float32,
            DataType::Float64 => Kind::Float64,
            DataType::Utf8View => Kind::Utf8,
            DataType::Binary => Kind::Binary,
            _ => return None,
        })
    }
}

/// A predicate in a column's own terms.
#[derive(Clone, Debug)]
pub(super) enum Condition {
    /// NULLs pass.
    IsNull,
    /// All but NULLs pass.
    IsNotNull,
    /// Of integers and booleans.
    Int(IntCondition),
    /// Of the total-order keys of floats.
    Float(IntCondition),
    /// Of strings and binary.
    Bytes(BytesCondition),
    /// Of arrays.
    Function(ValueFunction),
}

/// A condition on integers.
#[derive(Clone, Debug)]
pub(super) enum IntCondition {
    /// Inclusive; empty if the first is above the second.
    Range(i128, i128),
    /// All but one.
    NotEqual(i128),
    /// Sorted, without duplicates.
    In(Vec<i128>),
    /// Join keys.
    Keys(Arc<KeySet>),
}

/// A condition on byte strings.
#[derive(Clone, Debug)]
pub(super) enum BytesCondition {
    /// Bounds, each with whether it is included.
    Range(Option<(Vec<u8>, bool)>, Option<(Vec<u8>, bool)>),
    /// All but one.
    NotEqual(Vec<u8>),
    /// A set.
    In(HashSet<Vec<u8>>),
}

/// The integer whose order among such integers is the float's in the total order.
#[inline]
pub(super) fn float_key(value: f64) -> i64 {
    let bits = value.to_bits() as i64;
    bits ^ (((bits >> 63) as u64) >> 1) as i64
}

impl IntCondition {
    /// Whether a value passes.
    #[inline]
    pub(super) fn passes(&self, value: i128) -> bool {
        match self {
            IntCondition::Range(low, high) => (*low..=*high).contains(&value),
            IntCondition::NotEqual(other) => value != *other,
            IntCondition::In(list) => list.binary_search(&value).is_ok(),
            IntCondition::Keys(keys) => i64::try_from(value).is_ok_and(|v| key_passes(keys, v)),
        }
    }
}

/// Whether a key may be in the set; a set that is not well formed holds everything.
#[inline]
pub(super) fn key_passes(keys: &KeySet, value: i64) -> bool {
    keys.contains(value)
}

impl BytesCondition {
    /// Whether a value passes.
    pub(super) fn passes(&self, value: &[u8]) -> bool {
        match self {
            BytesCondition::Range(low, high) => {
                low.as_ref().is_none_or(|(b, included)| if *included { value >= &b[..] } else { value > &b[..] })
                    && high.as_ref().is_none_or(|(b, included)| if *included { value <= &b[..] } else { value < &b[..] })
            }
            BytesCondition::NotEqual(other) => value != &other[..],
            BytesCondition::In(set) => set.contains(value),
        }
    }
}

impl Condition {
    /// Compiles a predicate for a column of this kind.
    pub(super) fn compile(predicate: &Predicate, kind: Kind) -> Result<Condition> {
        Ok(match predicate {
            Predicate::IsNull => Condition::IsNull,
            Predicate::IsNotNull => Condition::IsNotNull,
            Predicate::Function(function) => Condition::Function(function.clone()),
            Predicate::KeySet(keys) => match kind {
                Kind::Int { .. } | Kind::Bool => Condition::Int(IntCondition::Keys(keys.clone())),
                _ => return Err(Error::Invalid(format!("join keys are integers, the column is {kind:?}"))),
            },
            Predicate::Range { low, high } => match kind {
                Kind::Bool | Kind::Int { .. } => Condition::Int(int_range(low.as_ref(), high.as_ref(), int)?),
                Kind::Float32 | Kind::Float64 => Condition::Float(int_range(low.as_ref(), high.as_ref(), float)?),
                Kind::Utf8 | Kind::Binary => Condition::Bytes(BytesCondition::Range(bytes_bound(low)?, bytes_bound(high)?)),
            },
            Predicate::NotEqual(datum) => match kind {
                Kind::Bool | Kind::Int { .. } => Condition::Int(IntCondition::NotEqual(int(datum)?)),
                Kind::Float32 | Kind::Float64 => Condition::Float(IntCondition::NotEqual(float(datum)?)),
                Kind::Utf8 | Kind::Binary => Condition::Bytes(BytesCondition::NotEqual(bytes(datum)?)),
            },
            Predicate::In(list) => match kind {
                Kind::Bool | Kind::Int { .. } => Condition::Int(int_list(list, int)?),
                Kind::Float32 | Kind::Float64 => Condition::Float(int_list(list, float)?),
                Kind::Utf8 | Kind::Binary => Condition::Bytes(BytesCondition::In(list.iter().map(bytes).collect::<Result<_>>()?)),
            },
        })
    }
}

fn misfit(datum: &Datum, expected: &str) -> Error {
    Error::Invalid(format!("a column of {expected} cannot be compared with {datum:?}"))
}

fn int(datum: &Datum) -> Result<i128> {
    if let Datum::Int(value) = datum { Ok(*value) } else { Err(misfit(datum, "integers")) }
}

fn float(datum: &Datum) -> Result<i128> {
    if let Datum::Float(value) = datum { Ok(i128::from(float_key(*value))) } else { Err(misfit(datum, "floats")) }
}

fn bytes(datum: &Datum) -> Result<Vec<u8>> {
    if let Datum::Bytes(value) = datum { Ok(value.clone()) } else { Err(misfit(datum, "strings")) }
}

fn bytes_bound(bound: &Option<(Datum, bool)>) -> Result<Option<(Vec<u8>, bool)>> {
    bound.as_ref().map(|(datum, included)| Ok((bytes(datum)?, *included))).transpose()
}

fn int_range(
    low: Option<&(Datum, bool)>,
    high: Option<&(Datum, bool)>,
    convert: fn(&Datum) -> Result<i128>,
) -> Result<IntCondition> {
    let low = match low {
        None => Some(i128::MIN),
        Some((datum, true)) => Some(convert(datum)?),
        Some((datum, false)) => convert(datum)?.checked_add(1),
    };
    let high = match high {
        None => Some(i128::MAX),
        Some((datum, true)) => Some(convert(datum)?),
        Some((datum, false)) => convert(datum)?.checked_sub(1),
    };
    Ok(match (low, high) {
        (Some(low), Some(high)) => IntCondition::Range(low, high),
        _ => IntCondition::Range(1, 0),
    })
}

fn int_list(list: &[Datum], convert: fn(&Datum) -> Result<i128>) -> Result<IntCondition> {
    let mut values = list.iter().map(convert).collect::<Result<Vec<_>>>()?;
    values.sort_unstable();
    values.dedup();
    Ok(IntCondition::In(values))
}
