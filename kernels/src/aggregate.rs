//! Sums, minima and maxima of a slice, all of it or the rows of a mask. Counting rows is [`crate::mask::popcount`].

use crate::compare::Element;
use crate::isa::{Isa, isa};
use crate::mask::words;

/// Calls `whole` for each 64 rows that are all set, and `some` with the bits for those that are not (and the last ones).
#[inline(always)]
fn each<'a, T>(values: &'a [T], mask: Option<&[u64]>, mut whole: impl FnMut(&'a [T]), mut some: impl FnMut(&'a [T], u64)) {
    let Some(mask) = mask else {
        return whole(values);
    };
    assert!(mask.len() >= words(values.len()), "mask too short");
    for (values, word) in values.chunks(64).zip(mask) {
        match *word {
            0 => {}
            u64::MAX => whole(values),
            bits => some(values, bits),
        }
    }
}

/// An integer that is summed.
pub trait Integer: Copy + sealed::Sums {}

mod sealed {
    //! What only this crate can implement.

    /// Sums, compiled once in this crate for each type.
    pub trait Sums: Sized {
        fn sum(isa: crate::Isa, values: &[Self], mask: Option<&[u64]>) -> i128;
        fn wrapping_sum(isa: crate::Isa, values: &[Self], mask: Option<&[u64]>) -> i64;
    }

    /// Minima and maxima.
    pub trait Extremes: Sized {
        fn extremes(isa: crate::Isa, values: &[Self], mask: Option<&[u64]>) -> Option<(Self, Self)>;
    }
}

/// The exact sum.
pub fn sum<T: Integer>(values: &[T], mask: Option<&[u64]>) -> i128 {
    sum_with(isa(), values, mask)
}

/// [`sum`] at a given level.
pub fn sum_with<T: Integer>(isa: Isa, values: &[T], mask: Option<&[u64]>) -> i128 {
    T::sum(isa, values, mask)
}

/// The sum modulo 2^64: right if the caller's bounds prove that it fits.
pub fn wrapping_sum<T: Integer>(values: &[T], mask: Option<&[u64]>) -> i64 {
    wrapping_sum_with(isa(), values, mask)
}

/// [`wrapping_sum`] at a given level.
pub fn wrapping_sum_with<T: Integer>(isa: Isa, values: &[T], mask: Option<&[u64]>) -> i64 {
    T::wrapping_sum(isa, values, mask)
}

/// All ones if the bit of that row is set.
#[inline(always)]
fn select(bits: u64, row: usize) -> u64 {
    (bits >> row & 1).wrapping_neg()
}

/// Values that `exact` adds without overflow: the sums of the high and low halves of so many fit 64 bits.
const CHUNK: usize = 1 << 30;

macro_rules! sums {
    ($($type:ty),*) => { $(
        impl sealed::Sums for $type {
            fn sum(isa: Isa, values: &[Self], mask: Option<&[u64]>) -> i128 {
                isa.run(#[inline(always)] || {
                    let mut total = 0i128;
                    let chunks = values.chunks(CHUNK).enumerate();
                    for (index, values) in chunks {
                        let mask = mask.map(|mask| &mask[index * (CHUNK / 64)..]);
                        let (mut low, mut high) = (0u64, 0i64);
                        each_selected(values, mask, #[inline(always)] |value, selected| {
                            let value = (value as i64) & selected.cast_signed();
                            low += u64::from(value as u32);
                            high += value >> 32;
                        });
                        total += (i128::from(high) << 32) + i128::from(low);
                    }
                    total
                })
            }

            fn wrapping_sum(isa: Isa, values: &[Self], mask: Option<&[u64]>) -> i64 {
                isa.run(#[inline(always)] || {
                    let mut total = 0i64;
                    each_selected(values, mask, #[inline(always)] |value, selected| {
                        total = total.wrapping_add((value as i64) & selected.cast_signed());
                    });
                    total
                })
            }
        }
        impl Integer for $type {}
    )* };
}

/// Calls `row` with each value and all ones or all zeros; words of the mask that are 0 are left out.
#[inline(always)]
fn each_selected<T: Copy>(values: &[T], mask: Option<&[u64]>, row: impl FnMut(T, u64)) {
    let row = std::cell::RefCell::new(row);
    each(
        values,
        mask,
        #[inline(always)]
        |values| {
            let mut row = row.borrow_mut();
            values.iter().for_each(|value| row(*value, u64::MAX));
        },
        #[inline(always)]
        |values, bits| {
            let mut row = row.borrow_mut();
            values.iter().enumerate().for_each(|(index, value)| row(*value, select(bits, index)));
        },
    );
}

sums!(i8, u8, i16, u16, i32, u32, i64);

/// The sum of floats, in eight interleaved parts that are then added: the same at every level.
pub fn sum_f64(values: &[f64], mask: Option<&[u64]>) -> f64 {
    sum_f64_with(isa(), values, mask)
}

/// [`sum_f64`] at a given level.
pub fn sum_f64_with(isa: Isa, values: &[f64], mask: Option<&[u64]>) -> f64 {
    isa.run(
        #[inline(always)]
        || {
            let mut parts = [0f64; 8];
            for (index, values) in values.chunks(64).enumerate() {
                let bits = mask.map_or(u64::MAX, |mask| mask[index]);
                if bits == 0 {
                    continue;
                }
                let mut eights = values.chunks_exact(8);
                for (eighth, values) in eights.by_ref().enumerate() {
                    for (lane, (part, value)) in parts.iter_mut().zip(values).enumerate() {
                        *part += f64::from_bits(value.to_bits() & select(bits, eighth * 8 + lane));
                    }
                }
                let done = values.len() / 8 * 8;
                for (lane, (part, value)) in parts.iter_mut().zip(eights.remainder()).enumerate() {
                    *part += f64::from_bits(value.to_bits() & select(bits, done + lane));
                }
            }
            let [a, b, c, d, e, f, g, h] = parts;
            ((a + e) + (c + g)) + ((b + f) + (d + h))
        },
    )
}

/// A type that has a least and a greatest value.
pub trait Extreme: Element + sealed::Extremes {}

/// The least and the greatest value (in the order of [`crate::compare::Element`]), if there is any.
pub fn min_max<T: Extreme>(values: &[T], mask: Option<&[u64]>) -> Option<(T, T)> {
    min_max_with(isa(), values, mask)
}

/// [`min_max`] at a given level.
pub fn min_max_with<T: Extreme>(isa: Isa, values: &[T], mask: Option<&[u64]>) -> Option<(T, T)> {
    T::extremes(isa, values, mask)
}

/// The least value, if there is any.
pub fn min<T: Extreme>(values: &[T], mask: Option<&[u64]>) -> Option<T> {
    min_max(values, mask).map(|(least, _)| least)
}

/// The greatest value, if there is any.
pub fn max<T: Extreme>(values: &[T], mask: Option<&[u64]>) -> Option<T> {
    min_max(values, mask).map(|(_, greatest)| greatest)
}

macro_rules! extremes {
    ($($type:ty),*) => { $(
        impl sealed::Extremes for $type {
            fn extremes(isa: Isa, values: &[Self], mask: Option<&[u64]>) -> Option<(Self, Self)> {
                isa.run(#[inline(always)] || {
                    // Rows that are not set count as the first one that is.
                    let first = match mask {
                        None => *values.first()?,
                        Some(mask) => values[crate::mask::rows(mask).next()?],
                    };
                    let (mut least, mut greatest) = (first, first);
                    for (index, values) in values.chunks(64).enumerate() {
                        match mask.map_or(u64::MAX, |mask| mask[index]) {
                            0 => {}
                            u64::MAX => for value in values {
                                least = if value.at_most(least) { *value } else { least };
                                greatest = if value.at_most(greatest) { greatest } else { *value };
                            },
                            bits => for (row, value) in values.iter().enumerate() {
                                let value = if bits >> row & 1 != 0 { *value } else { first };
                                least = if value.at_most(least) { value } else { least };
                                greatest = if value.at_most(greatest) { greatest } else { value };
                            },
                        }
                    }
                    Some((least, greatest))
                })
            }
        }
        impl Extreme for $type {}
    )* };
}

extremes!(i8, u8, i16, u16, i32, u32, i64, u64, i128, f32, f64);
