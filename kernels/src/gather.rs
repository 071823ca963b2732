//! Take: values by row number. Loads are the limit, and CPUs issue scalar loads no slower than vector gathers (on Zen 4 and
//! 5 faster), so that one plain loop serves every level; the bounds are checked once, before the loop, for all rows.

use crate::isa::isa;

/// Appends `values[row]` for each row of `rows` to `out`. Panics, like indexing, if a row is out of range.
pub fn gather<T: Copy>(values: &[T], rows: &[u32], out: &mut Vec<T>) {
    let highest = highest(rows);
    assert!(highest.is_none_or(|row| (row as usize) < values.len()), "row {highest:?} of {}", values.len());
    // SAFETY: the highest row is in range.
    out.extend(rows.iter().map(|row| unsafe { *values.get_unchecked(*row as usize) }));
}

/// The highest of the rows.
pub fn highest(rows: &[u32]) -> Option<u32> {
    let highest = isa().run(
        #[inline(always)]
        || rows.iter().fold(0, |highest, row| highest.max(*row)),
    );
    (!rows.is_empty()).then_some(highest)
}
