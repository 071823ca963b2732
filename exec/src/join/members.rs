//! Which dense codes have a build row: one bit a code.
//!
//! A semi, anti or mark join without a further condition asks no more than that, so it keeps neither rows nor their numbers. With
//! ranks, a code that is there also has a position among those that are: sparse codes become dense ones, of which an array is short.

/// A set of codes.
#[derive(Debug, Default)]
pub(crate) struct Members {
    words: Vec<u64>,
    /// Codes before each word; empty unless asked for.
    ranks: Vec<u32>,
}

impl Members {
    /// The codes of rows that are kept; all are below `slots` or [`NO_CODE`](super::keys::NO_CODE).
    pub fn new(codes: &[u64], slots: usize, kept: impl Fn(usize) -> bool) -> Members {
        let mut words = vec![0u64; slots.div_ceil(64)];
        for (row, code) in codes.iter().enumerate() {
            if let Some(word) = words.get_mut((*code / 64) as usize) {
                *word |= u64::from(kept(row)) << (code % 64);
            }
        }
        Members { words, ranks: Vec::new() }
    }

    /// Counts the codes before each word, so that [`Members::rank`] answers: how many codes there are.
    pub fn count(&mut self) -> usize {
        let mut sum = 0;
        let before = |word: &u64| {
            sum += word.count_ones();
            sum - word.count_ones()
        };
        self.ranks = self.words.iter().map(before).collect();
        sum as usize
    }

    /// 1 if a code is there, else 0.
    #[inline]
    pub fn contains(&self, code: u64) -> u64 {
        self.words.get((code / 64) as usize).map_or(0, |word| word >> (code % 64) & 1)
    }

    /// The position of a code among those that are there.
    #[inline]
    pub fn rank(&self, code: u64) -> Option<usize> {
        let at = (code / 64) as usize;
        let word = *self.words.get(at)?;
        let below = word & ((1 << (code % 64)) - 1);
        (word >> (code % 64) & 1 == 1).then(|| (self.ranks[at] + below.count_ones()) as usize)
    }

    /// Replaces codes by their positions among those that are there, others by [`NO_CODE`](super::keys::NO_CODE).
    pub fn replace(&self, codes: &mut [u64]) {
        for code in codes {
            let at = (*code / 64) as usize;
            let (word, before) = self.words.get(at).zip(self.ranks.get(at)).map_or((0, 0), |(word, before)| (*word, *before));
            let below = word & ((1 << (*code % 64)) - 1);
            let absent = (word >> (*code % 64) & 1).wrapping_sub(1);
            *code = absent | u64::from(before + below.count_ones());
        }
    }

    /// Bytes that it holds.
    pub fn memory(&self) -> usize {
        self.words.len() * 8 + self.ranks.len() * 4
    }

    /// Number of codes that could be there.
    pub fn slots(&self) -> usize {
        self.words.len() * 64
    }
}

/// Sets the bits of the rows for which `holds` is 1; `matched` has a bit a row, all 0.
#[inline]
pub(crate) fn mark(codes: &[u64], matched: &mut [u64], holds: impl Fn(usize, u64) -> u64) {
    for (i, (codes, word)) in codes.chunks(64).zip(matched).enumerate() {
        let bit = |all: u64, (j, code): (usize, &u64)| all | (holds(i * 64 + j, *code) << j);
        *word |= codes.iter().enumerate().fold(0, bit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::join::keys::NO_CODE;

    #[test]
    fn ranks_count_the_codes_before() {
        let codes = [5, 64, 5, NO_CODE, 700, 63, 127, 3];
        let mut members = Members::new(&codes, 701, |row| row != 7);
        assert_eq!(members.count(), 5);
        let found: Vec<u64> = (0..800).filter(|c| members.contains(*c) == 1).collect();
        assert_eq!(found, [5, 63, 64, 127, 700]);
        for (i, code) in found.iter().enumerate() {
            assert_eq!(members.rank(*code), Some(i));
        }
        let mut replaced: Vec<u64> = (0..800).chain([NO_CODE, NO_CODE - 1]).collect();
        members.replace(&mut replaced);
        let there = replaced.iter().enumerate().filter(|(_, rank)| **rank != NO_CODE).map(|(code, rank)| (code as u64, *rank));
        assert!(there.eq(found.iter().zip(0..).map(|(code, rank)| (*code, rank))));
        assert_eq!((members.rank(3), members.rank(NO_CODE), members.contains(NO_CODE)), (None, None, 0));
    }

    #[test]
    fn marks_are_bits_of_rows() {
        let members = Members::new(&[1, 3], 4, |_| true);
        let codes: Vec<u64> = (0..130).map(|i| i % 5).collect();
        let mut matched = [0; 3];
        mark(&codes, &mut matched, |_, code| members.contains(code));
        assert!((0..130).all(|i| (matched[i / 64] >> (i % 64) & 1 == 1) == matches!(i % 5, 1 | 3)));
    }
}
