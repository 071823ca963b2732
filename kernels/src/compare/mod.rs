//! Comparisons of flat values, giving masks.
//!
//! Every comparison with a constant is a range of values, or the complement of one; a range of integers is one unsigned
//! comparison (`value - low <= high - low`), so that there is one loop for each byte width, not for each type and operator.

pub(crate) mod bits;
mod element;

pub use element::{Element, Op};

use crate::isa::{Isa, isa};
use crate::mask::words;

/// Sets the bits of the values from `low` to `high`, both included; none if `low` is above `high`.
pub fn range<T: Element>(values: &[T], low: T, high: T, mask: &mut [u64]) {
    range_with(isa(), values, low, high, mask);
}

/// [`range`] at a given level.
pub fn range_with<T: Element>(isa: Isa, values: &[T], low: T, high: T, mask: &mut [u64]) {
    assert!(mask.len() >= words(values.len()), "mask too short");
    if low.at_most(high) {
        T::range(isa, values, low, high, false, mask);
    } else {
        mask.fill(0);
    }
}

/// Sets the bits of the values that `op` holds for: `value op constant`.
pub fn compare<T: Element>(op: Op, values: &[T], constant: T, mask: &mut [u64]) {
    compare_with(isa(), op, values, constant, mask);
}

/// [`compare`] at a given level.
pub fn compare_with<T: Element>(isa: Isa, op: Op, values: &[T], constant: T, mask: &mut [u64]) {
    assert!(mask.len() >= words(values.len()), "mask too short");
    let range = match op {
        Op::Eq | Op::Ne => Some((constant, constant)),
        Op::Lt => constant.below().map(|high| (T::LEAST, high)),
        Op::Le => Some((T::LEAST, constant)),
        Op::Gt => constant.above().map(|low| (low, T::GREATEST)),
        Op::Ge => Some((constant, T::GREATEST)),
    };
    match range {
        Some((low, high)) => T::range(isa, values, low, high, op == Op::Ne, mask),
        None => mask.fill(0),
    }
}

/// Sets the bits of the rows where `a op b`.
pub fn compare_slices<T: Element>(op: Op, a: &[T], b: &[T], mask: &mut [u64]) {
    compare_slices_with(isa(), op, a, b, mask);
}

/// [`compare_slices`] at a given level.
pub fn compare_slices_with<T: Element>(isa: Isa, op: Op, a: &[T], b: &[T], mask: &mut [u64]) {
    assert_eq!(a.len(), b.len(), "slices of different lengths");
    assert!(mask.len() >= words(a.len()), "mask too short");
    match op {
        Op::Eq => T::slices(isa, a, b, true, false, mask),
        Op::Ne => T::slices(isa, a, b, true, true, mask),
        Op::Le => T::slices(isa, a, b, false, false, mask),
        Op::Gt => T::slices(isa, a, b, false, true, mask),
        Op::Ge => T::slices(isa, b, a, false, false, mask),
        Op::Lt => T::slices(isa, b, a, false, true, mask),
    }
}

/// Sets the bits of the values that are in `list`. The cost is that of one comparison for each member: meant for short
/// lists.
pub fn in_list<T: Element>(values: &[T], list: &[T], mask: &mut [u64]) {
    in_list_with(isa(), values, list, mask);
}

/// [`in_list`] at a given level.
pub fn in_list_with<T: Element>(isa: Isa, values: &[T], list: &[T], mask: &mut [u64]) {
    assert!(mask.len() >= words(values.len()), "mask too short");
    T::list(isa, values, list, mask);
}
