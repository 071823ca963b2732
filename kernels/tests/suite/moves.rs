//! Filter, gather and decode: values that are only moved.
use crate::{LENGTHS, Numbers, levels};
use proptest::prelude::*;
use stoa_kernels::{decode, filter, gather, hash, mask};

fn check<T: filter::Fixed + PartialEq + std::fmt::Debug>(values: &[T]) {
    for of_16 in [0, 1, 8, 15, 16] {
        let bits = Numbers(values.len() as u64).mask(values.len(), of_16);
        let expected: Vec<T> = mask::rows(&bits).map(|row| values[row]).collect();
        for isa in levels() {
            let mut out = values.iter().take(1).copied().collect::<Vec<_>>();
            let first = out.len();
            filter::filter_with(isa, values, &bits, &mut out);
            assert_eq!(out[first..], expected, "{isa:?}");
        }
        let mut rows = Vec::new();
        mask::to_selection(&bits, &mut rows);
        let mut taken = Vec::new();
        gather::gather(values, &rows, &mut taken);
        assert_eq!(taken, expected, "filter is take of the selection");
    }
}

#[test]
fn every_byte_width() {
    for length in LENGTHS {
        let values = Numbers(5).take(length + 1);
        check(&values[1..].iter().map(|value| *value as u8).collect::<Vec<_>>());
        check(&values[1..].iter().map(|value| *value as i16).collect::<Vec<_>>());
        check(&values.iter().map(|value| *value as u32).collect::<Vec<_>>()[1..]);
        check(&values.iter().map(|value| *value as u8).collect::<Vec<_>>()[1..]);
        check(&values[1..].iter().map(|value| *value as f64).collect::<Vec<_>>());
        check(&values[1..].iter().map(|value| f32::from_bits(*value as u32 & 0xff_ffff)).collect::<Vec<_>>());
        check(&values[1..].iter().map(|value| i128::from(*value) << 30).collect::<Vec<_>>());
    }
}

#[test]
#[should_panic(expected = "a bit is set that stands for no value")]
fn filter_refuses_bits_past_the_end() {
    filter::filter(&[1u8, 2], &[4], &mut Vec::new());
}

#[test]
#[should_panic(expected = "row")]
fn gather_refuses_rows_out_of_range() {
    gather::gather(&[1u8, 2], &[0, 2], &mut Vec::new());
}

#[test]
fn decode_checks_codes() {
    let entries: Vec<u64> = (0..200).map(|entry| entry * 3).collect();
    for length in LENGTHS {
        let codes: Vec<u8> = Numbers(1).take(length).into_iter().map(|value| (value % 200) as u8).collect();
        for isa in levels() {
            let mut out = vec![1];
            decode::decode_with(isa, &codes, &entries, &mut out).unwrap();
            assert!(out[1..].iter().copied().eq(codes.iter().map(|code| u64::from(*code) * 3)));
            let wide: Vec<u32> = codes.iter().map(|code| u32::from(*code)).chain([200]).collect();
            let error = decode::decode_with(isa, &wide, &entries, &mut out).unwrap_err();
            assert_eq!(error.to_string(), "dictionary code 200 is out of range: there are 200 entries");
            assert_eq!(out.len(), length + 1);
        }
    }
    decode::decode::<u16, u64>(&[], &[], &mut Vec::new()).unwrap();
    decode::decode::<u16, u64>(&[0], &[], &mut Vec::new()).unwrap_err();
}

#[test]
fn hashes_are_the_same_at_every_level() {
    for length in LENGTHS {
        let values = Numbers(8).take(length);
        let expected: Vec<u64> = values.iter().map(|value| hash::hash_one(*value, 42)).collect();
        for isa in levels() {
            let mut out = vec![0; length];
            hash::hash_u64_with(isa, &values, 42, &mut out);
            assert_eq!(out, expected);
            hash::hash_combine_with(isa, &mut out, &values);
            assert!(out.iter().zip(expected.iter().zip(&values)).all(|(out, (a, b))| *out == hash::combine(*a, *b)));
        }
    }
}

#[test]
fn hashes_of_strings_differ() {
    let mut seen = std::collections::HashSet::new();
    for length in 0..300 {
        let mut text = vec![b'a'; length];
        assert!(seen.insert(hash::hash_bytes(&text)));
        for at in 0..length {
            text[at] = b'b';
            assert!(seen.insert(hash::hash_bytes(&text)), "{length} {at}");
            text[at] = b'a';
        }
    }
}

proptest! {
    #[test]
    fn parts_are_even(parts in 1u32..100, seed: u64) {
        let mut counts = vec![0u32; parts as usize];
        for value in 0..parts * 256 {
            counts[hash::part(hash::hash_one(u64::from(value), seed), parts) as usize] += 1;
        }
        prop_assert!(counts.iter().all(|count| (128..400).contains(count)), "{:?}", counts);
    }
}
