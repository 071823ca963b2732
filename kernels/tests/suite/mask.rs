//! Masks and selections.
use crate::{LENGTHS, Numbers, levels, mask_of};
use stoa_kernels::mask;

#[test]
fn boolean_operations() {
    for rows in LENGTHS {
        let (a, b) = (Numbers(1).mask(rows, 8), Numbers(2).mask(rows, 5));
        let bit = |mask: &[u64], row: usize| mask::get(mask, row);
        for isa in levels() {
            let mut out = a.clone();
            mask::and_with(isa, &mut out, &b);
            assert_eq!(out, mask_of((0..rows).map(|row| bit(&a, row) && bit(&b, row))));
            let mut out = a.clone();
            mask::or_with(isa, &mut out, &b);
            assert_eq!(out, mask_of((0..rows).map(|row| bit(&a, row) || bit(&b, row))));
            let mut out = a.clone();
            mask::and_not_with(isa, &mut out, &b);
            assert_eq!(out, mask_of((0..rows).map(|row| bit(&a, row) && !bit(&b, row))));
            let mut out = a.clone();
            mask::not_with(isa, &mut out, rows);
            assert_eq!(out, mask_of((0..rows).map(|row| !bit(&a, row))));
            assert_eq!(mask::popcount_with(isa, &a), (0..rows).filter(|row| bit(&a, *row)).count());
        }
        let mut full = vec![5; mask::words(rows)];
        mask::fill(&mut full, rows);
        assert_eq!(full, mask_of((0..rows).map(|_| true)));
        assert!(mask::all(&full, rows));
        assert_eq!(mask::any(&full), rows > 0);
        if rows > 0 {
            full[(rows - 1) / 64] &= !(1 << ((rows - 1) % 64));
            assert!(!mask::all(&full, rows));
        }
    }
}

#[test]
fn selections() {
    for rows in LENGTHS {
        for of_16 in [0, 1, 8, 15, 16] {
            let bits = Numbers(rows as u64).mask(rows, of_16);
            let expected: Vec<u32> = (0..rows as u32).filter(|row| mask::get(&bits, *row as usize)).collect();
            assert!(mask::rows(&bits).eq(expected.iter().map(|row| *row as usize)));
            for isa in levels() {
                let mut selection = vec![77];
                mask::to_selection_with(isa, &bits, 0, &mut selection);
                assert_eq!(selection[1..], expected);
                let mut selection = Vec::new();
                mask::to_selection_with(isa, &bits, 1 << 20, &mut selection);
                assert!(selection.iter().map(|row| row - (1 << 20)).eq(expected.iter().copied()));
            }
            let mut back = vec![9; bits.len()];
            mask::from_selection(&expected, &mut back);
            assert_eq!(back, bits);
        }
    }
}

#[test]
fn ranges() {
    for (first, rows) in [(0, 0), (0, 1), (63, 1), (63, 2), (3, 60), (64, 64), (1, 190), (100, 92), (0, 192), (192, 0)] {
        for value in [false, true] {
            let mut bits = Numbers(4).mask(192, 8);
            let expected =
                mask_of((0..192).map(|row| if (first..first + rows).contains(&row) { value } else { mask::get(&bits, row) }));
            mask::set_range(&mut bits, first, rows, value);
            assert_eq!(bits, expected, "{first}+{rows}");
        }
    }
}
