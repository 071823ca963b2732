//! Dense tables and bit sets.
use crate::{LENGTHS, Numbers, levels, mask_of};
use stoa_kernels::{mask, probe};

#[test]
fn dense_tables() {
    let table: Vec<u32> = (0..100).map(|entry| if entry % 3 == 0 { probe::NONE } else { entry * 2 }).collect();
    for length in LENGTHS {
        let mut keys: Vec<i64> = Numbers(2).take(length).into_iter().map(|value| (value % 130) as i64 - 60).collect();
        keys.iter_mut().skip(5).step_by(50).for_each(|key| *key = i64::MIN + (*key % 2).abs());
        let find = |key: i64| key.checked_add(50).filter(|at| (0..100).contains(at) && at % 3 != 0).map(|at| at as u32 * 2);
        let (mut rows, mut values, mut entries) = (vec![9], vec![9], vec![0; length]);
        probe::dense_lookup(&keys, -50, &table, &mut rows, &mut values);
        probe::dense_entries(&keys, -50, &table, &mut entries);
        let expected: Vec<(u32, u32)> = (0..length).filter_map(|row| Some((row as u32, find(keys[row])?))).collect();
        assert!(rows[1..].iter().copied().zip(values[1..].iter().copied()).eq(expected));
        assert!(entries.iter().zip(&keys).all(|(entry, key)| *entry == find(*key).unwrap_or(probe::NONE)));
    }
}

#[test]
fn bit_sets() {
    let mut bits = vec![0u64; 10];
    let members: Vec<i32> = (0..640).filter(|value| value % 7 < 3).map(|value| value - 100).collect();
    assert!(probe::bitset_insert(&members, -100, &mut bits));
    assert!(!probe::bitset_insert(&[-101], -100, &mut bits));
    for length in LENGTHS {
        for of_16 in [0, 1, 4, 12, 16] {
            let mut numbers = Numbers(length as u64);
            let keys: Vec<i64> = numbers.take(length).into_iter().map(|value| (value % 900) as i64 - 200).collect();
            let before = numbers.mask(length, of_16);
            let is_member = |key: i64| (-100..540).contains(&key) && (key + 100) % 7 < 3;
            let expected = mask_of(keys.iter().enumerate().map(|(row, key)| mask::get(&before, row) && is_member(*key)));
            for isa in levels() {
                let mut after = before.clone();
                probe::bitset_probe_with(isa, &keys, -100, &bits, &mut after);
                assert_eq!(after, expected);
            }
        }
    }
}
