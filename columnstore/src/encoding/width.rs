//! Sizes of packed blocks.

use stoa_kernels::bitpack;

/// Values of a packed block.
pub(super) const PACKED: usize = bitpack::BLOCK;
/// Mask words of a block.
pub(super) const WORDS: usize = PACKED / 64;

/// The largest value of a width.
#[inline]
pub(super) fn width_max(width: u8) -> u64 {
    if width >= 64 { u64::MAX } else { (1 << width) - 1 }
}
