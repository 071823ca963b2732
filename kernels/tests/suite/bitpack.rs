//! Packed blocks.
use crate::{Numbers, levels, mask_of};
use proptest::prelude::*;
use stoa_kernels::bitpack::{self, BLOCK};

fn values(width: usize, seed: u64) -> Vec<u64> {
    let mut numbers = Numbers(seed);
    let low = if width == 0 { 0 } else { u64::MAX >> (64 - width) };
    numbers.take(BLOCK).into_iter().map(|value| value & low).collect()
}

/// The block at an odd address.
fn packed(values: &[u64], width: usize) -> Vec<u8> {
    let mut bytes = vec![0xaa];
    bitpack::pack(values, width, &mut bytes);
    assert_eq!(bytes.len() - 1, bitpack::packed_block_bytes(width));
    bytes
}

#[test]
fn layout_is_as_documented() {
    for width in 1..=64usize {
        let values = values(width, width as u64);
        let bytes = &packed(&values, width)[1..];
        let bits = match width {
            0..=8 => 8,
            9..=16 => 16,
            17..=32 => 32,
            _ => 64,
        };
        let lanes = 1024 / bits;
        for (index, value) in values.iter().enumerate() {
            for bit in 0..width {
                let at = index / lanes * width + bit;
                let word = at / bits * lanes + index % lanes;
                let byte = bytes[word * bits / 8 + at % bits / 8];
                assert_eq!(u64::from(byte >> (at % 8) & 1), value >> bit & 1, "width {width} value {index} bit {bit}");
            }
        }
    }
}

#[test]
fn unpack_gives_what_was_packed() {
    for width in 0..=64 {
        let values = values(width, 7 + width as u64);
        let bytes = &packed(&values, width)[1..];
        for isa in levels() {
            let mut wide = [1u64; BLOCK];
            bitpack::unpack_u64_with(isa, bytes, width, &mut wide);
            assert_eq!(wide.as_slice(), values);
            let mut signed = [1i64; BLOCK];
            bitpack::unpack_i64_with(isa, bytes, width, -5, &mut signed);
            assert!(signed.iter().zip(&values).all(|(a, b)| *a == (*b as i64).wrapping_sub(5)));
            if width <= 32 {
                let mut out = [1u32; BLOCK];
                bitpack::unpack_u32_with(isa, bytes, width, &mut out);
                assert!(out.iter().zip(&values).all(|(a, b)| u64::from(*a) == *b));
                let mut out = [1i32; BLOCK];
                bitpack::unpack_i32_with(isa, bytes, width, i32::MIN, &mut out);
                assert!(out.iter().zip(&values).all(|(a, b)| *a == (*b as i32).wrapping_add(i32::MIN)));
            }
            if width <= 16 {
                let mut out = [1u16; BLOCK];
                bitpack::unpack_u16_with(isa, bytes, width, &mut out);
                assert!(out.iter().zip(&values).all(|(a, b)| u64::from(*a) == *b));
            }
            if width <= 8 {
                let mut out = [1u8; BLOCK];
                bitpack::unpack_u8_with(isa, bytes, width, &mut out);
                assert!(out.iter().zip(&values).all(|(a, b)| u64::from(*a) == *b));
            }
        }
    }
}

#[test]
fn short_blocks_are_filled_with_zeros_and_high_bits_dropped() {
    let mut bytes = Vec::new();
    bitpack::pack(&[u64::MAX, 5], 3, &mut bytes);
    let mut out = [9u64; BLOCK];
    bitpack::unpack_u64(&bytes, 3, &mut out);
    assert_eq!(out[..3], [7, 5, 0]);
    assert!(out[3..].iter().all(|value| *value == 0));
}

#[test]
fn single_values() {
    for width in 0..=64 {
        let values = values(width, 99 + width as u64);
        let bytes = &packed(&values, width)[1..];
        for (index, value) in values.iter().enumerate() {
            assert_eq!(bitpack::get(bytes, width, index), *value);
        }
        let selection = [0u32, 1, 63, 64, 500, 1023];
        let expected: Vec<u64> = selection.iter().map(|row| values[*row as usize]).collect();
        let mut out = vec![0; selection.len()];
        bitpack::gather_u64(bytes, width, &selection, &mut out);
        assert_eq!(out, expected);
        let mut out = vec![0; selection.len()];
        bitpack::gather_i64(bytes, width, -1, &selection, &mut out);
        assert!(out.iter().zip(&expected).all(|(a, b)| *a == (*b as i64).wrapping_sub(1)));
        if width <= 32 {
            let mut out = vec![0; selection.len()];
            bitpack::gather_u32(bytes, width, &selection, &mut out);
            assert!(out.iter().zip(&expected).all(|(a, b)| u64::from(*a) == *b));
        }
    }
}

#[test]
fn compare_in_the_packed_domain() {
    for width in 0..=64 {
        let values = values(width, 3 + width as u64);
        let bytes = &packed(&values, width)[1..];
        let (a, b) = (values[3].min(values[4]), values[3].max(values[4]));
        let max = if width == 0 { 0 } else { u64::MAX >> (64 - width) };
        for (low, high) in
            [(a, b), (a, a), (0, b), (b, u64::MAX), (0, max), (1, 0), (max, max), (0, u64::MAX), (u64::MAX, u64::MAX)]
        {
            let expected = mask_of(values.iter().map(|value| low <= *value && *value <= high));
            for isa in levels() {
                let mut mask = [3; 16];
                bitpack::compare_packed_with(isa, bytes, width, low, high, &mut mask);
                assert_eq!(mask.as_slice(), expected, "width {width} {low}..={high} {isa:?}");
            }
        }
    }
}

#[test]
fn sets_in_the_packed_domain() {
    for width in [0, 1, 2, 3, 5, 6, 7, 8, 9, 11, 13, 16, 17, 20, 33, 64] {
        let values = values(width, 11 + width as u64);
        let bytes = &packed(&values, width)[1..];
        for words in [0, 1, 2, 4, 5, 100] {
            for of_16 in [0, 3, 8, 16] {
                let set = Numbers(width as u64 + of_16).mask(words * 64, of_16);
                let member = |value: u64| set.get((value / 64) as usize).is_some_and(|word| word >> (value % 64) & 1 != 0);
                let expected = mask_of(values.iter().map(|value| member(*value)));
                for isa in levels() {
                    let mut mask = [3; 16];
                    bitpack::in_packed_with(isa, bytes, width, &set, &mut mask);
                    assert_eq!(mask.as_slice(), expected, "width {width}, {words} words, {isa:?}");
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn any_values(values in prop::collection::vec(any::<u64>(), 0..=BLOCK), width in 0usize..=64, low: u64, high: u64) {
        let bytes = &packed(&values, width)[1..];
        let low_bits = if width == 0 { 0 } else { u64::MAX >> (64 - width) };
        let mut expected: Vec<u64> = values.iter().map(|value| value & low_bits).collect();
        expected.resize(BLOCK, 0);
        let matches = mask_of(expected.iter().map(|value| low <= *value && *value <= high));
        for isa in levels() {
            let mut out = [0; BLOCK];
            bitpack::unpack_u64_with(isa, bytes, width, &mut out);
            prop_assert_eq!(out.as_slice(), expected.as_slice());
            let mut mask = [0; 16];
            bitpack::compare_packed_with(isa, bytes, width, low, high, &mut mask);
            prop_assert_eq!(mask.as_slice(), matches.as_slice());
        }
    }
}
