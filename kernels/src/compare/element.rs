//! The types that comparisons take, and the order that each has.

use super::bits::{Bits, Level, run_level};
use crate::isa::Isa;

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// `=`
    Eq,
    /// `<>`
    Ne,
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `>`
    Gt,
    /// `>=`
    Ge,
}

pub(crate) mod sealed {
    //! What only this crate can implement.

    /// The work of a comparison, compiled once in this crate for each type.
    pub trait Compare: Sized {
        fn range(isa: crate::Isa, values: &[Self], low: Self, high: Self, invert: bool, mask: &mut [u64]);
        fn slices(isa: crate::Isa, a: &[Self], b: &[Self], equal: bool, invert: bool, mask: &mut [u64]);
        fn list(isa: crate::Isa, values: &[Self], list: &[Self], mask: &mut [u64]);
    }
}

/// An integer or float of up to 128 bits. Floats are ordered as SQL wants it: NaN equals itself and is above all other
/// values, and -0.0 equals 0.0.
pub trait Element: Copy + sealed::Compare {
    /// The least value.
    const LEAST: Self;
    /// The greatest value (NaN for floats).
    const GREATEST: Self;
    /// The value just below, unless this is the least.
    fn below(self) -> Option<Self>;
    /// The value just above, unless this is the greatest.
    fn above(self) -> Option<Self>;
    /// `self <= other` in this type's order.
    fn at_most(self, other: Self) -> bool;
}

/// Elements whose order is that of an unsigned key, all of whose values within a range are a range of keys.
trait Keyed: Copy {
    type Key: Bits + Default;
    /// Subtracting keys gives their distance; equal values have equal keys.
    fn key(self) -> Self::Key;
    /// `high.key() - low.key()`.
    fn span(low: Self, high: Self) -> Self::Key;
}

macro_rules! integer {
    ($($type:ty => $key:ty),*) => { $(
        impl Keyed for $type {
            type Key = $key;
            #[inline(always)]
            fn key(self) -> $key {
                self as $key
            }
            #[inline(always)]
            fn span(low: Self, high: Self) -> $key {
                (high as $key).wrapping_sub(low as $key)
            }
        }
        integer!(order $type);
        compare!($type);
    )* };
    (order $type:ty) => {
        impl Element for $type {
            const LEAST: Self = <$type>::MIN;
            const GREATEST: Self = <$type>::MAX;
            #[inline(always)]
            fn below(self) -> Option<Self> {
                self.checked_sub(1)
            }
            #[inline(always)]
            fn above(self) -> Option<Self> {
                self.checked_add(1)
            }
            #[inline(always)]
            fn at_most(self, other: Self) -> bool {
                self <= other
            }
        }
    };
}

macro_rules! float {
    ($($type:ty, $signed:ty, $key:ty, $shift:literal);*) => { $(
        impl Keyed for $type {
            type Key = $key;
            #[inline(always)]
            fn key(self) -> $key {
                // Adding 0.0 turns -0.0 into 0.0; then negative numbers are flipped so that integers order them.
                let bits = (self + 0.0).to_bits().cast_signed();
                let ordered = bits ^ ((bits >> $shift).cast_unsigned() >> 1).cast_signed();
                (if self.is_nan() { <$signed>::MAX } else { ordered }).cast_unsigned()
            }
            #[inline(always)]
            fn span(low: Self, high: Self) -> $key {
                high.key().wrapping_sub(low.key())
            }
        }
        impl Element for $type {
            const LEAST: Self = <$type>::NEG_INFINITY;
            const GREATEST: Self = <$type>::NAN;
            #[inline(always)]
            fn below(self) -> Option<Self> {
                match self {
                    <$type>::NEG_INFINITY => None,
                    _ if self.is_nan() => Some(<$type>::INFINITY),
                    _ => Some(self.next_down()),
                }
            }
            #[inline(always)]
            fn above(self) -> Option<Self> {
                match self {
                    <$type>::INFINITY => Some(<$type>::NAN),
                    _ if self.is_nan() => None,
                    _ => Some(self.next_up()),
                }
            }
            #[inline(always)]
            fn at_most(self, other: Self) -> bool {
                self.key().cast_signed() <= other.key().cast_signed()
            }
        }
        compare!($type);
    )* };
}

/// The comparisons of one type: 64 values become 64 keys, which the level compares; the last word is padded.
macro_rules! compare {
    ($type:ty) => {
        impl sealed::Compare for $type {
            fn range(isa: Isa, values: &[Self], low: Self, high: Self, invert: bool, mask: &mut [u64]) {
                let (low, span) = (low.key(), Self::span(low, high));
                run_level!(isa, level => {
                    each_word(values, mask, invert, |values| level.in_range(&keys(values), low, span));
                });
            }

            fn slices(isa: Isa, a: &[Self], b: &[Self], equal: bool, invert: bool, mask: &mut [u64]) {
                slices(isa, a, b, equal, invert, mask);
            }

            fn list(isa: Isa, values: &[Self], list: &[Self], mask: &mut [u64]) {
                run_level!(isa, level => {
                    each_word(values, mask, false, |values| {
                        let keys = keys(values);
                        list.iter().fold(0, |bits, member| bits | level.in_range(&keys, member.key(), 0))
                    });
                });
            }
        }
    };
}

#[inline(always)]
fn keys<T: Keyed>(values: &[T; 64]) -> [T::Key; 64] {
    let mut keys = [T::Key::default(); 64];
    for (key, value) in keys.iter_mut().zip(values) {
        *key = value.key();
    }
    keys
}

/// Fills `mask` a word at a time; the values past the end are copies of the last one, and their bits are cleared.
#[inline(always)]
fn each_word<T: Copy>(values: &[T], mask: &mut [u64], invert: bool, word: impl Fn(&[T; 64]) -> u64) {
    let flip = if invert { u64::MAX } else { 0 };
    let mut chunks = values.chunks_exact(64);
    let mut words = mask.iter_mut();
    for (chunk, into) in chunks.by_ref().zip(words.by_ref()) {
        if let Ok(chunk) = chunk.try_into() {
            *into = word(chunk) ^ flip;
        }
    }
    let rest = chunks.remainder();
    if let Some(last) = rest.last() {
        let mut padded = [*last; 64];
        padded[..rest.len()].copy_from_slice(rest);
        if let Some(into) = words.next() {
            *into = (word(&padded) ^ flip) & crate::mask::tail(rest.len());
        }
    }
    words.for_each(|word| *word = 0);
}

/// `a = b` or `a <= b`, or its complement.
#[inline(always)]
fn slices<T: Element>(isa: Isa, a: &[T], b: &[T], equal: bool, invert: bool, mask: &mut [u64]) {
    let flip = if invert { u64::MAX } else { 0 };
    run_level!(isa, level => {
        let words = crate::mask::words(a.len());
        for (index, into) in mask[..words].iter_mut().enumerate() {
            let (a, b) = (&a[index * 64..], &b[index * 64..]);
            let rows = a.len().min(64);
            let mut flags = [0u8; 64];
            if equal {
                compare_rows(&a[..rows], &b[..rows], &mut flags, |a, b| a.at_most(b) & b.at_most(a));
            } else {
                compare_rows(&a[..rows], &b[..rows], &mut flags, T::at_most);
            }
            *into = (level.pack(&flags) ^ flip) & if rows == 64 { u64::MAX } else { crate::mask::tail(rows) };
        }
        mask[words..].fill(0);
    });
}

#[inline(always)]
fn compare_rows<T: Element>(a: &[T], b: &[T], flags: &mut [u8; 64], test: impl Fn(T, T) -> bool) {
    for ((flag, a), b) in flags.iter_mut().zip(a).zip(b) {
        *flag = u8::from(test(*a, *b));
    }
}

integer!(i8 => u8, u8 => u8, i16 => u16, u16 => u16, i32 => u32, u32 => u32, i64 => u64, u64 => u64);
float!(f32, i32, u32, 31; f64, i64, u64, 63);
integer!(order i128);

impl sealed::Compare for i128 {
    fn range(isa: Isa, values: &[Self], low: Self, high: Self, invert: bool, mask: &mut [u64]) {
        run_level!(isa, level => {
            each_word(values, mask, invert, |values| {
                let mut flags = [0u8; 64];
                for (flag, value) in flags.iter_mut().zip(values) {
                    *flag = u8::from((low <= *value) & (*value <= high));
                }
                level.pack(&flags)
            });
        });
    }

    fn slices(isa: Isa, a: &[Self], b: &[Self], equal: bool, invert: bool, mask: &mut [u64]) {
        slices(isa, a, b, equal, invert, mask);
    }

    fn list(isa: Isa, values: &[Self], list: &[Self], mask: &mut [u64]) {
        run_level!(isa, level => {
            each_word(values, mask, false, |values| {
                let mut flags = [0u8; 64];
                for (flag, value) in flags.iter_mut().zip(values) {
                    *flag = u8::from(list.contains(value));
                }
                level.pack(&flags)
            });
        });
    }
}
