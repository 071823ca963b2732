//! Hashes of integers and strings. They are the same on every machine and at every level, and they never change: the
//! partition and the shard that a row is stored in follow from them.

use crate::isa::{Isa, isa};

/// Odd numbers with well mixed bits: the fractional parts of the square roots of 2, 3, 5 and 7, made odd.
const MULTIPLIERS: [u64; 4] = [0x6a09_e667_f3bc_c909, 0xbb67_ae85_84ca_a73b, 0x3c6e_f372_fe94_f82b, 0xa54f_f53a_5f1d_36f1];

/// The seed of hashes that place rows.
const SHARD_SEED: u64 = 0x510e_527f_ade6_82d1;

/// The hash of one integer. A permutation of the integers for each seed: different values have different hashes.
#[inline(always)]
pub fn hash_one(value: u64, seed: u64) -> u64 {
    let mut x = value ^ seed;
    x = (x ^ x >> 32).wrapping_mul(MULTIPLIERS[0]);
    x = (x ^ x >> 29).wrapping_mul(MULTIPLIERS[1]);
    x ^ x >> 32
}

/// Combines the hash of the columns so far with the hash of the next one; the order counts.
#[inline(always)]
pub fn combine(first: u64, second: u64) -> u64 {
    hash_one(second, first.rotate_left(23).wrapping_mul(MULTIPLIERS[2]))
}

/// `out[i] = hash_one(values[i], seed)`.
pub fn hash_u64(values: &[u64], seed: u64, out: &mut [u64]) {
    hash_u64_with(isa(), values, seed, out);
}

/// [`hash_u64`] at a given level.
pub fn hash_u64_with(isa: Isa, values: &[u64], seed: u64, out: &mut [u64]) {
    assert_eq!(values.len(), out.len(), "one hash for each value");
    isa.run(
        #[inline(always)]
        || out.iter_mut().zip(values).for_each(|(hash, value)| *hash = hash_one(*value, seed)),
    );
}

/// [`hash_u64`] of signed integers: each is hashed as its 64 bits.
pub fn hash_i64(values: &[i64], seed: u64, out: &mut [u64]) {
    // SAFETY: i64 and u64 have the same layout and every bit pattern is valid for both.
    let values = unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<u64>(), values.len()) };
    hash_u64(values, seed, out);
}

/// `hashes[i] = combine(hashes[i], values[i])`: the next column of a key.
pub fn hash_combine(hashes: &mut [u64], values: &[u64]) {
    hash_combine_with(isa(), hashes, values);
}

/// [`hash_combine`] at a given level.
pub fn hash_combine_with(isa: Isa, hashes: &mut [u64], values: &[u64]) {
    assert_eq!(values.len(), hashes.len(), "one value for each hash");
    isa.run(
        #[inline(always)]
        || hashes.iter_mut().zip(values).for_each(|(hash, value)| *hash = combine(*hash, *value)),
    );
}

/// Both halves of a 128-bit product, folded.
#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// Up to 8 bytes as a little-endian number.
#[inline(always)]
fn read(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

/// The hash of a string of bytes. Not for keys that an adversary may choose.
#[inline]
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    hash_bytes_seeded(bytes, 0)
}

/// [`hash_bytes`] with a seed.
#[inline]
pub fn hash_bytes_seeded(bytes: &[u8], seed: u64) -> u64 {
    let length = bytes.len();
    let mut state = seed ^ MULTIPLIERS[3];
    let (a, b) = match length {
        0..=3 => match bytes {
            [] => (0, 0),
            // First, middle and last byte: all of them when there are up to three.
            _ => (u64::from(bytes[0]) << 16 | u64::from(bytes[length / 2]) << 8 | u64::from(bytes[length - 1]), 0),
        },
        4..=8 => (read(&bytes[..4]), read(&bytes[length - 4..])),
        9..=16 => (read(&bytes[..8]), read(&bytes[length - 8..])),
        _ => {
            let mut rest = bytes;
            if length > 48 {
                let (mut second, mut third) = (state, state);
                while rest.len() > 48 {
                    state = fold(read(&rest[..8]) ^ MULTIPLIERS[0], read(&rest[8..16]) ^ state);
                    second = fold(read(&rest[16..24]) ^ MULTIPLIERS[1], read(&rest[24..32]) ^ second);
                    third = fold(read(&rest[32..40]) ^ MULTIPLIERS[2], read(&rest[40..48]) ^ third);
                    rest = &rest[48..];
                }
                state ^= second ^ third.rotate_left(17);
            }
            while rest.len() > 16 {
                state = fold(read(&rest[..8]) ^ MULTIPLIERS[0], read(&rest[8..16]) ^ state);
                rest = &rest[16..];
            }
            // The last 16 bytes, which may overlap what was read.
            (read(&bytes[length - 16..length - 8]), read(&bytes[length - 8..]))
        }
    };
    let mixed = fold(a ^ MULTIPLIERS[1], b ^ state);
    fold(mixed ^ MULTIPLIERS[0] ^ length as u64, MULTIPLIERS[2] ^ a.rotate_left(32))
}

/// The hash that places a row by one integer of its shard key; combine several with [`combine`].
#[inline]
pub fn shard_hash(value: u64) -> u64 {
    hash_one(value, SHARD_SEED)
}

/// The hash that places a row by one string of its shard key.
#[inline]
pub fn shard_hash_bytes(bytes: &[u8]) -> u64 {
    hash_bytes_seeded(bytes, SHARD_SEED)
}

/// The part of `parts` that a hash belongs to, by its high bits.
#[inline(always)]
pub fn part(hash: u64, parts: u32) -> u32 {
    ((u128::from(hash) * u128::from(parts)) >> 64) as u32
}

#[cfg(test)]
mod tests {
    //! The values are part of the format: a change of one of them moves stored rows.
    use super::*;

    #[test]
    fn never_change() {
        let text = b"the quick brown fox jumps over the lazy dog, twice over, and back again";
        let hashes: Vec<u64> =
            [0, 1, 3, 4, 8, 9, 16, 17, 32, 48, 49, 71].iter().map(|length| shard_hash_bytes(&text[..*length])).collect();
        let integers = [0x7e09_c196_1fc7_ebf4, 0x9125_0173_39ff_2036, 0x6558_84ec_c8db_6ae6];
        assert_eq!([shard_hash(0), shard_hash(1), shard_hash(u64::MAX)], integers);
        let strings = [
            0x751c_bded_5737_7764,
            0xcae9_fef4_be51_2248,
            0xae96_6039_745a_7be4,
            0x441b_dd8b_a524_ffea,
            0x8554_3316_abe9_7b50,
            0x99f2_d2f6_4eb3_2bad,
            0x8bce_8843_9736_1735,
            0x1331_fa60_55ba_219d,
            0x049d_0a1b_a3e6_d7f8,
            0x8173_5153_7b0f_20f1,
            0xfb0c_3120_70a6_857f,
            0xcf81_45ca_1074_4d8c,
        ];
        assert_eq!(hashes, strings);
    }
}
