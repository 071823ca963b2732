//! One suite for every kernel: each level that the CPU has must give what a plain loop gives, for lengths from nothing to
//! several blocks and for slices that start anywhere.

mod aggregate;
mod arith;
mod bitpack;
mod compare;
mod mask;
mod moves;
mod probe;
mod string;

use stoa_kernels::Isa;

/// Lengths around the sizes of words, vectors and blocks.
pub const LENGTHS: [usize; 18] = [0, 1, 2, 7, 8, 15, 31, 32, 63, 64, 65, 127, 130, 255, 1000, 1024, 1025, 3000];

/// A small generator of reproducible numbers (splitmix64).
pub struct Numbers(pub u64);

impl Numbers {
    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Numbers from all bits.
    pub fn take(&mut self, count: usize) -> Vec<u64> {
        (0..count).map(|_| self.draw()).collect()
    }

    /// A mask over `rows` rows of about that many of 16 set.
    pub fn mask(&mut self, rows: usize, of_16: u64) -> Vec<u64> {
        mask_of((0..rows).map(|_| self.draw() % 16 < of_16))
    }
}

/// The mask of a sequence of flags.
pub fn mask_of(flags: impl Iterator<Item = bool>) -> Vec<u64> {
    let mut mask = Vec::new();
    for (row, flag) in flags.enumerate() {
        if row % 64 == 0 {
            mask.push(0);
        }
        mask[row / 64] |= u64::from(flag) << (row % 64);
    }
    mask
}

/// The levels to test.
pub fn levels() -> impl Iterator<Item = Isa> {
    Isa::available()
}
