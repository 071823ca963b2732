//! Masks: one bit a row, least significant bit first, bits past the last row are 0.

use crate::isa::{Isa, isa};

/// Words that a mask over `rows` rows has.
#[inline]
pub const fn words(rows: usize) -> usize {
    rows.div_ceil(64)
}

/// The bits of the last word of a mask over `rows` rows that stand for rows.
#[inline]
pub const fn tail(rows: usize) -> u64 {
    match rows % 64 {
        0 => u64::MAX,
        used => (1 << used) - 1,
    }
}

/// Whether row `row` is set.
#[inline]
pub fn get(mask: &[u64], row: usize) -> bool {
    mask[row / 64] >> (row % 64) & 1 != 0
}

/// Sets row `row`.
#[inline]
pub fn set(mask: &mut [u64], row: usize) {
    mask[row / 64] |= 1 << (row % 64);
}

/// `mask &= other`.
pub fn and(mask: &mut [u64], other: &[u64]) {
    and_with(isa(), mask, other);
}

/// [`and`] at a given level.
pub fn and_with(isa: Isa, mask: &mut [u64], other: &[u64]) {
    isa.run(
        #[inline(always)]
        || zip(mask, other, |a, b| a & b),
    );
}

/// `mask |= other`.
pub fn or(mask: &mut [u64], other: &[u64]) {
    or_with(isa(), mask, other);
}

/// [`or`] at a given level.
pub fn or_with(isa: Isa, mask: &mut [u64], other: &[u64]) {
    isa.run(
        #[inline(always)]
        || zip(mask, other, |a, b| a | b),
    );
}

/// `mask &= !other`.
pub fn and_not(mask: &mut [u64], other: &[u64]) {
    and_not_with(isa(), mask, other);
}

/// [`and_not`] at a given level.
pub fn and_not_with(isa: Isa, mask: &mut [u64], other: &[u64]) {
    isa.run(
        #[inline(always)]
        || zip(mask, other, |a, b| a & !b),
    );
}

#[inline(always)]
fn zip(mask: &mut [u64], other: &[u64], combine: impl Fn(u64, u64) -> u64) {
    assert_eq!(mask.len(), other.len(), "masks of different lengths");
    for (a, b) in mask.iter_mut().zip(other) {
        *a = combine(*a, *b);
    }
}

/// Complements a mask over `rows` rows; the bits past the last row stay 0.
pub fn not(mask: &mut [u64], rows: usize) {
    not_with(isa(), mask, rows);
}

/// [`not`] at a given level.
pub fn not_with(isa: Isa, mask: &mut [u64], rows: usize) {
    assert!(mask.len() >= words(rows), "mask too short");
    isa.run(
        #[inline(always)]
        || mask.iter_mut().for_each(|word| *word = !*word),
    );
    clear_tail(mask, rows);
}

/// Clears the bits of a mask that stand for no row of `rows`.
#[inline]
pub fn clear_tail(mask: &mut [u64], rows: usize) {
    let used = words(rows);
    if used > 0 {
        mask[used - 1] &= tail(rows);
    }
    mask[used..].fill(0);
}

/// Sets exactly the first `rows` rows.
pub fn fill(mask: &mut [u64], rows: usize) {
    let used = words(rows);
    mask[..used].fill(u64::MAX);
    clear_tail(mask, rows);
}

/// Sets (or clears) the rows `first..first + rows`.
pub fn set_range(mask: &mut [u64], first: usize, rows: usize, value: bool) {
    if rows == 0 {
        return;
    }
    let (end, word, last) = (first + rows, first / 64, (first + rows - 1) / 64);
    let head = u64::MAX << (first % 64);
    let put = |word: &mut u64, bits: u64| if value { *word |= bits } else { *word &= !bits };
    if word == last {
        put(&mut mask[word], head & tail(end));
        return;
    }
    put(&mut mask[word], head);
    mask[word + 1..last].fill(if value { u64::MAX } else { 0 });
    put(&mut mask[last], tail(end));
}

/// The number of rows set.
pub fn popcount(mask: &[u64]) -> usize {
    popcount_with(isa(), mask)
}

/// [`popcount`] at a given level.
pub fn popcount_with(isa: Isa, mask: &[u64]) -> usize {
    isa.run(
        #[inline(always)]
        || mask.iter().map(|word| u64::from(word.count_ones())).sum::<u64>() as usize,
    )
}

/// Whether any row is set.
pub fn any(mask: &[u64]) -> bool {
    mask.iter().any(|word| *word != 0)
}

/// Whether all of the first `rows` rows are set.
pub fn all(mask: &[u64], rows: usize) -> bool {
    let full = rows / 64;
    mask[..full].iter().all(|word| *word == u64::MAX) && (rows.is_multiple_of(64) || mask[full] & tail(rows) == tail(rows))
}

/// The rows that are set, ascending; iterates without a selection vector.
pub fn rows(mask: &[u64]) -> impl Iterator<Item = usize> + '_ {
    mask.iter().enumerate().flat_map(|(index, word)| {
        let mut rest = *word;
        std::iter::from_fn(move || {
            (rest != 0).then(|| {
                let bit = rest.trailing_zeros() as usize;
                rest &= rest - 1;
                index * 64 + bit
            })
        })
    })
}

/// Appends the rows that are set to `selection`, ascending.
pub fn to_selection(mask: &[u64], selection: &mut Vec<u32>) {
    to_selection_with(isa(), mask, 0, selection);
}

/// [`to_selection`] of a mask whose first bit stands for row `first`.
pub fn to_selection_from(mask: &[u64], first: u32, selection: &mut Vec<u32>) {
    to_selection_with(isa(), mask, first, selection);
}

/// Room past the end that a level may write to: one vector of row numbers.
const SLACK: usize = 16;

/// [`to_selection_from`] at a given level.
pub fn to_selection_with(isa: Isa, mask: &[u64], first: u32, selection: &mut Vec<u32>) {
    let count = popcount_with(isa, mask);
    selection.reserve(count + SLACK);
    let start = selection.len();
    let out = selection.spare_capacity_mut().as_mut_ptr().cast::<u32>();
    // SAFETY: there is room for `count + SLACK` numbers; every form writes `count` numbers and at most `SLACK` past them.
    // The levels are proven by `usable`.
    unsafe {
        match isa.usable() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => x86::selection_avx512(mask, first, out),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => x86::selection_avx2(mask, first, out),
            _ => selection_scalar(mask, first, out),
        }
        selection.set_len(start + count);
    }
}

/// # Safety
/// `out` has room for as many numbers as there are bits set.
unsafe fn selection_scalar(mask: &[u64], first: u32, mut out: *mut u32) {
    for (index, word) in mask.iter().enumerate() {
        let base = first.wrapping_add(index as u32 * 64);
        let mut rest = *word;
        while rest != 0 {
            // SAFETY: one number is written for each bit set.
            unsafe {
                *out = base + rest.trailing_zeros();
                out = out.add(1);
            }
            rest &= rest - 1;
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    //! Row numbers by compressing registers of them; a full store follows, since compressing to memory is slow on Zen.
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx512f,avx512vl,avx512bw,popcnt")]
    pub(super) unsafe fn selection_avx512(mask: &[u64], first: u32, mut out: *mut u32) {
        let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        for (index, word) in mask.iter().enumerate() {
            if *word == 0 {
                continue;
            }
            let base = first.wrapping_add(index as u32 * 64);
            for quarter in 0..4 {
                let bits = (*word >> (16 * quarter)) as u16;
                let rows = _mm512_add_epi32(lanes, _mm512_set1_epi32((base + 16 * quarter) as i32));
                // SAFETY: at most the 16 numbers of slack past the numbers written so far are overwritten.
                unsafe {
                    _mm512_storeu_si512(out.cast(), _mm512_maskz_compress_epi32(bits, rows));
                    out = out.add(bits.count_ones() as usize);
                }
            }
        }
    }

    #[target_feature(enable = "avx2,bmi1,popcnt")]
    pub(super) unsafe fn selection_avx2(mask: &[u64], first: u32, mut out: *mut u32) {
        for (index, word) in mask.iter().enumerate() {
            if *word == 0 {
                continue;
            }
            let base = first.wrapping_add(index as u32 * 64);
            for eighth in 0..8 {
                let bits = (*word >> (8 * eighth)) as u8;
                // SAFETY: the table's entries are 8 bytes; at most 8 numbers of slack are overwritten.
                unsafe {
                    let lanes = _mm_loadl_epi64(crate::mask::POSITIONS[bits as usize].as_ptr().cast());
                    let rows = _mm256_add_epi32(_mm256_cvtepu8_epi32(lanes), _mm256_set1_epi32((base + 8 * eighth) as i32));
                    _mm256_storeu_si256(out.cast(), rows);
                    out = out.add(bits.count_ones() as usize);
                }
            }
        }
    }
}

/// For every byte the positions of its set bits, ascending, then zeros.
#[cfg(target_arch = "x86_64")]
pub(crate) static POSITIONS: [[u8; 8]; 256] = {
    let mut table = [[0u8; 8]; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut bit, mut at) = (0, 0);
        while bit < 8 {
            if byte >> bit & 1 != 0 {
                table[byte][at] = bit as u8;
                at += 1;
            }
            bit += 1;
        }
        byte += 1;
    }
    table
};

/// Sets the rows of `selection` in `mask` and clears all others.
pub fn from_selection(selection: &[u32], mask: &mut [u64]) {
    mask.fill(0);
    for row in selection {
        mask[*row as usize / 64] |= 1 << (row % 64);
    }
}
