//! Aggregates by group, where the groups are few and numbered: dense accumulators.
//!
//! Neighbouring rows are often of one group, and an accumulator that was just stored cannot be loaded again for several
//! cycles. So up to [`COPIES_UP_TO`] groups have four copies of each accumulator on the stack, used in turn. Up to
//! [`few::MOST`] groups have accumulators in registers where the CPU has masks for them: [`few`].
//!
//! A group number past the accumulators panics, like indexing. Rows that a mask excludes need a valid number too.

pub mod few;

use crate::isa::{Isa, isa};
use crate::mask::words;

/// Groups whose accumulators are copied.
pub const COPIES_UP_TO: usize = 64;

/// A group number.
pub trait Group: Copy + Ord + Default + Into<u32> {
    /// The numbers as they are, if they have the width that [`few`] takes.
    fn as_u32(_groups: &[Self]) -> Option<&[u32]> {
        None
    }
}

impl Group for u8 {}
impl Group for u16 {}
impl Group for u32 {
    fn as_u32(groups: &[u32]) -> Option<&[u32]> {
        Some(groups)
    }
}

#[inline(always)]
fn number<G: Group>(group: G) -> usize {
    let number: u32 = group.into();
    number as usize
}

#[inline(always)]
fn check<G: Group>(isa: Isa, groups: &[G], values: usize, mask: Option<&[u64]>, accumulators: usize) {
    assert_eq!(groups.len(), values, "one value for each group number");
    assert!(mask.is_none_or(|mask| mask.len() >= words(values)), "mask too short");
    let highest = isa.run(
        #[inline(always)]
        || groups.iter().fold(G::default(), |highest, group| highest.max(*group)),
    );
    assert!(groups.is_empty() || number(highest) < accumulators, "group {} of {accumulators}", number(highest));
}

/// Whether row `row` counts.
#[inline(always)]
fn selected(mask: Option<&[u64]>, row: usize) -> bool {
    mask.is_none_or(|mask| crate::mask::get(mask, row))
}

/// Adds `value(row)` to `sums[group]` for each row, in copies if the groups are few.
///
/// # Safety
/// All group numbers are below `sums.len()`.
#[inline(always)]
unsafe fn add<G: Group>(groups: &[G], sums: &mut [i64], value: impl Fn(usize) -> i64 + Copy) {
    match sums.len() {
        // SAFETY: as promised by the caller.
        0..=COPIES_UP_TO => unsafe { in_copies(groups, sums, value) },
        _ => {
            for (row, group) in groups.iter().enumerate() {
                // SAFETY: as promised by the caller.
                let sum = unsafe { sums.get_unchecked_mut(number(*group)) };
                *sum = sum.wrapping_add(value(row));
            }
        }
    }
}

/// # Safety
/// All group numbers are below `sums.len()`, which is at most [`COPIES_UP_TO`].
#[inline(always)]
unsafe fn in_copies<G: Group>(groups: &[G], sums: &mut [i64], value: impl Fn(usize) -> i64) {
    let mut copies = [[0i64; COPIES_UP_TO]; 4];
    for (row, group) in groups.iter().enumerate() {
        // SAFETY: as promised by the caller.
        let sum = unsafe { copies[row % 4].get_unchecked_mut(number(*group)) };
        *sum = sum.wrapping_add(value(row));
    }
    for copy in &copies {
        sums.iter_mut().zip(copy).for_each(|(sum, part)| *sum = sum.wrapping_add(*part));
    }
}

/// `counts[group] += 1` for each row (of the mask, if there is one).
pub fn count<G: Group>(groups: &[G], mask: Option<&[u64]>, counts: &mut [i64]) {
    count_with(isa(), groups, mask, counts);
}

/// [`count`] at a given level.
pub fn count_with<G: Group>(isa: Isa, groups: &[G], mask: Option<&[u64]>, counts: &mut [i64]) {
    check(isa, groups, groups.len(), mask, counts.len());
    if mask.is_none() && G::as_u32(groups).is_some_and(|groups| few::count_with(isa, groups, counts)) {
        return;
    }
    // SAFETY: the group numbers were checked.
    unsafe {
        match mask {
            None => add(
                groups,
                counts,
                #[inline(always)]
                |_| 1,
            ),
            Some(mask) => add(
                groups,
                counts,
                #[inline(always)]
                |row| (mask[row / 64] >> (row % 64) & 1).cast_signed(),
            ),
        }
    }
}

/// `sums[group] += value`, wrapping: right if the caller's bounds prove that the sums fit.
pub fn wrapping_sum<G: Group>(groups: &[G], values: &[i64], mask: Option<&[u64]>, sums: &mut [i64]) {
    wrapping_sum_with(isa(), groups, values, mask, sums);
}

/// [`wrapping_sum`] at a given level.
pub fn wrapping_sum_with<G: Group>(isa: Isa, groups: &[G], values: &[i64], mask: Option<&[u64]>, sums: &mut [i64]) {
    check(isa, groups, values.len(), mask, sums.len());
    if mask.is_none() && G::as_u32(groups).is_some_and(|groups| few::sum_with(isa, groups, values, sums)) {
        return;
    }
    let values = &values[..groups.len()];
    // SAFETY: the group numbers were checked.
    unsafe {
        match mask {
            None => add(
                groups,
                sums,
                #[inline(always)]
                |row| values[row],
            ),
            Some(mask) => add(
                groups,
                sums,
                #[inline(always)]
                |row| values[row] & ((mask[row / 64] >> (row % 64) & 1).wrapping_neg()).cast_signed(),
            ),
        }
    }
}

/// Rows whose sums are kept in 64 bits before they are added to the 128-bit sums.
const ROWS: usize = 1024;

/// `sums[group] += value`, exact as long as 128 bits hold it.
pub fn sum<G: Group>(groups: &[G], values: &[i64], mask: Option<&[u64]>, sums: &mut [i128]) {
    sum_with(isa(), groups, values, mask, sums);
}

/// [`sum`] at a given level.
pub fn sum_with<G: Group>(isa: Isa, groups: &[G], values: &[i64], mask: Option<&[u64]>, sums: &mut [i128]) {
    check(isa, groups, values.len(), mask, sums.len());
    for (index, (groups, values)) in groups.chunks(ROWS).zip(values.chunks(ROWS)).enumerate() {
        let mask = mask.map(|mask| &mask[index * (ROWS / 64)..]);
        // Numbers of 52 bits: 1024 of them do not overflow 64.
        let spread = isa.run(
            #[inline(always)]
            || values.iter().fold(0, |bits, value| bits | (value ^ value >> 63)),
        );
        if sums.len() <= COPIES_UP_TO && spread >> 52 == 0 {
            let mut parts = [0i64; COPIES_UP_TO];
            wrapping_sum_with(isa, groups, values, mask, &mut parts[..sums.len()]);
            sums.iter_mut().zip(&parts).for_each(|(sum, part)| *sum = sum.wrapping_add(i128::from(*part)));
            continue;
        }
        for (row, (group, value)) in groups.iter().zip(values).enumerate() {
            let sum = &mut sums[number(*group)];
            *sum = sum.wrapping_add(if selected(mask, row) { i128::from(*value) } else { 0 });
        }
    }
}

/// `sums[group] += value`, in the order of the rows.
pub fn sum_f64<G: Group>(groups: &[G], values: &[f64], mask: Option<&[u64]>, sums: &mut [f64]) {
    check(isa(), groups, values.len(), mask, sums.len());
    for (row, (group, value)) in groups.iter().zip(values).enumerate() {
        if selected(mask, row) {
            sums[number(*group)] += value;
        }
    }
}

/// `least[group] = min(least[group], value)`, in the type's order; start from [`crate::compare::Element::GREATEST`].
pub fn min<G: Group, T: crate::compare::Element>(groups: &[G], values: &[T], mask: Option<&[u64]>, least: &mut [T]) {
    check(isa(), groups, values.len(), mask, least.len());
    for (row, (group, value)) in groups.iter().zip(values).enumerate() {
        let best = &mut least[number(*group)];
        // Nearly always false after the first rows: a branch, so that nothing waits for a store.
        if selected(mask, row) && !best.at_most(*value) {
            *best = *value;
        }
    }
}

/// `greatest[group] = max(greatest[group], value)`, in the type's order; start from [`crate::compare::Element::LEAST`].
pub fn max<G: Group, T: crate::compare::Element>(groups: &[G], values: &[T], mask: Option<&[u64]>, greatest: &mut [T]) {
    check(isa(), groups, values.len(), mask, greatest.len());
    for (row, (group, value)) in groups.iter().zip(values).enumerate() {
        let best = &mut greatest[number(*group)];
        if selected(mask, row) && !value.at_most(*best) {
            *best = *value;
        }
    }
}
