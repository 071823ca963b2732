//! Hashes that are stored or decide where rows live: they are part of the format and never change.

/// A bijective mix of 64 bits (the finalizer of SplitMix64; Steele et al., "Fast Splittable Pseudorandom Number Generators").
#[inline]
pub(crate) fn hash_u64(value: u64) -> u64 {
    let h = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let h = (h ^ (h >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let h = (h ^ (h >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    h ^ (h >> 31)
}

/// Joins two hashes, in order.
#[inline]
pub(crate) fn combine(a: u64, b: u64) -> u64 {
    hash_u64(a.rotate_left(23) ^ b)
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// Hash of bytes: 16 at a time by folded multiplication, the length mixed in.
#[inline]
pub(crate) fn hash_bytes(bytes: &[u8]) -> u64 {
    const A: u64 = 0xA076_1D64_78BD_642F;
    const B: u64 = 0xE703_7ED1_A0B4_28DB;
    let word = |b: &[u8]| b.try_into().map_or(0, u64::from_le_bytes);
    let mut h = A ^ bytes.len() as u64;
    let mut chunks = bytes.chunks_exact(16);
    for chunk in &mut chunks {
        h = fold(word(&chunk[..8]) ^ B, word(&chunk[8..]) ^ h);
    }
    let rest = chunks.remainder();
    let mut last = [0; 16];
    last[..rest.len()].copy_from_slice(rest);
    hash_u64(fold(word(&last[..8]) ^ B, word(&last[8..]) ^ h))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// These values are stored in sketches and decide partitions: a change would break existing data.
    #[test]
    fn hashes_are_pinned() {
        assert_eq!(hash_u64(0), 0xE220_A839_7B1D_CDAF);
        assert_ne!(hash_bytes(b"a"), hash_bytes(b"a\0"));
        assert_ne!(hash_bytes(b""), hash_bytes(b"\0"));
        assert_ne!(combine(1, 2), combine(2, 1));
    }
}
