//! Integers of any width as a base, a divisor and unsigned residuals: value = base + divisor * residual. And conditions on residuals.

use std::sync::Arc;

use arrow::datatypes::ArrowNativeType;

use super::condition::{IntCondition, key_passes};
use super::layout::Reader;
use super::packed::{PackedBlocks, kernel_mask};
use super::width::{PACKED, WORDS};
use crate::KeySet;
use crate::predicate::KeyMembers;

/// Base and divisor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    /// The smallest value.
    pub(super) base: i128,
    /// Divides every value's difference to the base; at least 1.
    pub(super) divisor: u64,
}

/// Integers in a frame.
#[derive(Debug)]
pub(super) struct Residuals {
    /// The frame.
    pub(super) frame: Frame,
    /// The residuals, those of NULL rows too.
    pub(super) values: Vec<u64>,
}

impl Residuals {
    /// From integers whose range fits 64 bits.
    pub(super) fn new<T: Copy + Into<i128>>(values: &[T]) -> Option<Residuals> {
        let (mut min, mut max) = (i128::MAX, i128::MIN);
        for &value in values {
            let value = value.into();
            min = min.min(value);
            max = max.max(value);
        }
        if values.is_empty() || u64::try_from(max.checked_sub(min)?).is_err() {
            return None;
        }
        let mut residuals: Vec<u64> = values.iter().map(|&v| (v.into() - min) as u64).collect();
        let mut divisor = 0;
        for &value in &residuals {
            divisor = gcd(divisor, value);
            if divisor == 1 {
                break;
            }
        }
        if divisor > 1 {
            residuals.iter_mut().for_each(|v| *v /= divisor);
        }
        Some(Residuals { frame: Frame { base: min, divisor: divisor.max(1) }, values: residuals })
    }
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    if a == 1 {
        return 1;
    }
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

impl Frame {
    /// Writes it.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.base.to_le_bytes());
        out.extend(self.divisor.to_le_bytes());
    }

    /// Reads it.
    pub(super) fn open(reader: &mut Reader) -> Result<Frame, String> {
        let frame = Frame { base: reader.i128()?, divisor: reader.u64()? };
        if frame.divisor == 0 { Err("a divisor of 0".into()) } else { Ok(frame) }
    }

    /// For people.
    pub(super) fn describe(&self) -> String {
        if self.divisor > 1 { format!(", divisor {}", self.divisor) } else { String::new() }
    }

    /// A condition on values as one on residuals.
    pub(super) fn condition(&self, condition: &IntCondition) -> ResidualCondition {
        let residual = |value: i128| {
            let difference = value.checked_sub(self.base)?;
            let divisor = i128::from(self.divisor);
            if difference % divisor == 0 { u64::try_from(difference / divisor).ok() } else { None }
        };
        match condition {
            IntCondition::Range(low, high) => {
                if low > high || *high < self.base {
                    return ResidualCondition::Nothing;
                }
                let divisor = i128::from(self.divisor);
                let low = low.saturating_sub(self.base).max(0);
                let high = high.saturating_sub(self.base).max(0);
                let low = low / divisor + i128::from(low % divisor != 0);
                let Ok(low) = u64::try_from(low) else { return ResidualCondition::Nothing };
                let high = u64::try_from(high / divisor).unwrap_or(u64::MAX);
                if low > high { ResidualCondition::Nothing } else { ResidualCondition::Range(low, high) }
            }
            IntCondition::NotEqual(value) => match residual(*value) {
                None => ResidualCondition::Range(0, u64::MAX),
                Some(value) => ResidualCondition::NotEqual(value),
            },
            IntCondition::In(list) => {
                let list: Vec<u64> = list.iter().filter_map(|&v| residual(v)).collect();
                match list[..] {
                    [] => ResidualCondition::Nothing,
                    [one] => ResidualCondition::Range(one, one),
                    [first, .., last] if last - first == list.len() as u64 - 1 => ResidualCondition::Range(first, last),
                    _ => ResidualCondition::In(list),
                }
            }
            IntCondition::Keys(keys) => ResidualCondition::Keys(keys.clone()),
        }
    }
}

/// A condition on residuals.
#[derive(Clone, Debug)]
pub(super) enum ResidualCondition {
    /// No value passes.
    Nothing,
    /// Inclusive.
    Range(u64, u64),
    /// All but one.
    NotEqual(u64),
    /// Sorted.
    In(Vec<u64>),
    /// Join keys, on values.
    Keys(Arc<KeySet>),
}

impl ResidualCondition {
    /// How [`ResidualCondition::packed`] decides, for people.
    pub(super) fn packed_kernel(&self) -> &'static str {
        match self {
            ResidualCondition::Nothing => "nothing",
            ResidualCondition::Range(..) | ResidualCondition::NotEqual(_) => "compare_packed",
            ResidualCondition::In(list) if list.len() <= PACKED_COMPARES => "compare_packed",
            ResidualCondition::In(_) => "unpacked, binary search",
            ResidualCondition::Keys(keys) => match &keys.members {
                KeyMembers::All => "unpacked, range",
                KeyMembers::Bits(_) => "unpacked, bitmap",
                KeyMembers::Bloom(_) => "unpacked, Bloom filter",
            },
        }
    }

    /// Which residuals of a packed block pass. Only rows of `current` matter.
    pub(super) fn packed(&self, frame: &Frame, blocks: &PackedBlocks, block: usize, current: &[u64], out: &mut [u64; WORDS]) {
        match self {
            ResidualCondition::Nothing => *out = [0; WORDS],
            ResidualCondition::Range(low, high) => blocks.range(block, *low, *high, out),
            ResidualCondition::NotEqual(value) => {
                blocks.range(block, *value, *value, out);
                out.iter_mut().for_each(|word| *word = !*word);
            }
            ResidualCondition::In(list) => packed_list(list, blocks, block, out),
            ResidualCondition::Keys(keys) => packed_keys(keys, frame, blocks, block, current, out),
        }
    }

    /// Which decoded residuals pass.
    pub(super) fn decoded(&self, frame: &Frame, values: &[u64; PACKED], out: &mut [u64; WORDS]) {
        match self {
            ResidualCondition::Nothing => *out = [0; WORDS],
            ResidualCondition::Range(low, high) => {
                stoa_kernels::compare::range(values, *low, *high, out);
            }
            ResidualCondition::NotEqual(value) => kernel_mask(values, out, |v| v != *value),
            ResidualCondition::In(list) => kernel_mask(values, out, |v| list.binary_search(&v).is_ok()),
            ResidualCondition::Keys(keys) => {
                let base = frame.base as i64;
                kernel_mask(values, out, |v| key_passes(keys, base.wrapping_add(v.wrapping_mul(frame.divisor) as i64)));
            }
        }
    }
}

/// Lists up to this long are compared one by one in the packed form.
const PACKED_COMPARES: usize = 4;

fn packed_list(list: &[u64], blocks: &PackedBlocks, block: usize, out: &mut [u64; WORDS]) {
    let (base, max) = (blocks.base(block), blocks.max(block));
    let list = &list[list.partition_point(|&v| v < base)..list.partition_point(|&v| v <= max)];
    *out = [0; WORDS];
    if list.len() <= PACKED_COMPARES {
        let mut one = [0; WORDS];
        for &value in list {
            blocks.range(block, value, value, &mut one);
            out.iter_mut().zip(one).for_each(|(out, one)| *out |= one);
        }
        return;
    }
    let mut values = [0; PACKED];
    blocks.decode(block, &mut values);
    kernel_mask(&values, out, |v| list.binary_search(&v).is_ok());
}

fn packed_keys(keys: &KeySet, frame: &Frame, blocks: &PackedBlocks, block: usize, current: &[u64], out: &mut [u64; WORDS]) {
    let (base, divisor) = (frame.base as i64, frame.divisor);
    let value = |residual: u64| base.wrapping_add(residual.wrapping_mul(divisor) as i64);
    let wide = |residual: u64| frame.base.saturating_add(i128::from(residual) * i128::from(divisor));
    *out = [0; WORDS];
    let fits = i64::try_from(wide(blocks.max(block))).is_ok() && i64::try_from(frame.base).is_ok();
    if keys.is_empty()
        || fits && (wide(blocks.base(block)) > i128::from(keys.max) || wide(blocks.max(block)) < i128::from(keys.min))
    {
        return;
    }
    let selected: u32 = current.iter().map(|w| w.count_ones()).sum();
    if (selected as usize) < PACKED / 8 {
        for (word, (out, &current)) in out.iter_mut().zip(current).enumerate() {
            let mut left = current;
            while left != 0 {
                let bit = left.trailing_zeros();
                left &= left - 1;
                let residual = blocks.get(block, word * 64 + bit as usize);
                *out |= u64::from(key_passes(keys, value(residual))) << bit;
            }
        }
        return;
    }
    let mut values = [0i64; PACKED];
    if divisor == 1 {
        blocks.decode_i64(block, base, &mut values);
    } else {
        blocks.decode_i64(block, 0, &mut values);
        values.iter_mut().for_each(|v| *v = value(*v as u64));
    }
    probe(keys, &values, current, out);
}

/// Which keys may be in the set; only those of `current` matter.
fn probe(keys: &KeySet, values: &[i64; PACKED], current: &[u64], out: &mut [u64; WORDS]) {
    match &keys.members {
        KeyMembers::All => stoa_kernels::compare::range(values, keys.min, keys.max, out),
        KeyMembers::Bits(bits) => {
            let words = (keys.max.wrapping_sub(keys.min) as u64 / 64).saturating_add(1);
            let words = usize::try_from(words).map_or(bits.len(), |words| words.min(bits.len()));
            out[..current.len()].copy_from_slice(current);
            stoa_kernels::probe::bitset_probe(values, keys.min, &bits[..words], out);
        }
        KeyMembers::Bloom(_) => kernel_mask(values, out, |v| key_passes(keys, v)),
    }
}

/// An integer that columns are read as. Signedness does not matter: the bits are the same.
pub(super) trait Integer: ArrowNativeType + Default {
    /// base + scaled, wrapping.
    fn value(base: i128, scaled: u64) -> Self;

    /// Decodes a block of residuals with divisor 1.
    fn decode(blocks: &PackedBlocks, block: usize, base: i128, out: &mut [Self; PACKED]) {
        let mut residuals = [0; PACKED];
        blocks.decode(block, &mut residuals);
        out.iter_mut().zip(residuals).for_each(|(out, r)| *out = Self::value(base, r));
    }
}

macro_rules! narrow {
    ($($ty:ty),*) => {$(
        impl Integer for $ty {
            #[inline]
            fn value(base: i128, scaled: u64) -> Self {
                (base as u64).wrapping_add(scaled) as $ty
            }
        }
    )*};
}
narrow!(i8, i16);

impl Integer for i32 {
    #[inline]
    fn value(base: i128, scaled: u64) -> Self {
        (base as u64).wrapping_add(scaled) as i32
    }

    fn decode(blocks: &PackedBlocks, block: usize, base: i128, out: &mut [Self; PACKED]) {
        blocks.decode_i32(block, base as i32, out);
    }
}

impl Integer for i64 {
    #[inline]
    fn value(base: i128, scaled: u64) -> Self {
        (base as u64).wrapping_add(scaled) as i64
    }

    fn decode(blocks: &PackedBlocks, block: usize, base: i128, out: &mut [Self; PACKED]) {
        blocks.decode_i64(block, base as i64, out);
    }
}

impl Integer for i128 {
    #[inline]
    fn value(base: i128, scaled: u64) -> Self {
        base.wrapping_add(i128::from(scaled))
    }
}

/// The value of a residual. Wide values with a divisor stay exact: the product is taken in 128 bits where the result has them.
#[inline]
pub(super) fn value<T: Integer>(frame: &Frame, residual: u64) -> T {
    if size_of::<T>() == 16 && frame.divisor > 1 {
        let scaled = i128::from(residual) * i128::from(frame.divisor);
        return T::value(frame.base.wrapping_add(scaled & !i128::from(u64::MAX)), scaled as u64);
    }
    T::value(frame.base, residual.wrapping_mul(frame.divisor))
}
