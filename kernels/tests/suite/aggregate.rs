//! Aggregates, with and without groups.
use crate::{LENGTHS, Numbers, levels};
use proptest::prelude::*;
use stoa_kernels::compare::Element;
use stoa_kernels::{Isa, aggregate, grouped, mask};

fn masks(rows: usize) -> Vec<Option<Vec<u64>>> {
    let mut masks: Vec<_> = [0, 1, 8, 15, 16].into_iter().map(|of_16| Some(Numbers(of_16 + 9).mask(rows, of_16))).collect();
    masks.push(None);
    masks
}

fn is_set(mask: Option<&[u64]>, row: usize) -> bool {
    mask.is_none_or(|mask| mask::get(mask, row))
}

#[test]
fn sums_and_extremes() {
    for length in LENGTHS {
        let mut numbers = Numbers(length as u64);
        let values: Vec<i64> = numbers.take(length + 1).into_iter().map(|value| (value as i64) >> (value % 64)).collect();
        let values = &values[1..];
        let narrow: Vec<i32> = values.iter().map(|value| *value as i32).collect();
        let floats: Vec<f64> = values.iter().map(|value| (*value as i32).into()).collect();
        for mask in masks(length) {
            let mask = mask.as_deref();
            let rows: Vec<usize> = (0..length).filter(|row| is_set(mask, *row)).collect();
            let exact: i128 = rows.iter().map(|row| i128::from(values[*row])).sum();
            let exact_narrow: i128 = rows.iter().map(|row| i128::from(narrow[*row])).sum();
            let least = rows.iter().map(|row| values[*row]).min();
            let greatest = rows.iter().map(|row| values[*row]).max();
            for isa in levels() {
                assert_eq!(aggregate::sum_with(isa, values, mask), exact, "{length} {isa:?}");
                assert_eq!(aggregate::wrapping_sum_with(isa, values, mask), exact as i64);
                assert_eq!(aggregate::sum_with(isa, &narrow, mask), exact_narrow);
                assert_eq!(aggregate::sum_f64_with(isa, &floats, mask), exact_narrow as f64);
                let extremes = aggregate::min_max_with(isa, values, mask);
                assert_eq!((extremes.map(|(least, _)| least), extremes.map(|(_, greatest)| greatest)), (least, greatest));
                let extremes = aggregate::min_max_with(isa, &floats, mask);
                assert_eq!(extremes.map(|(least, _)| least), rows.iter().map(|row| floats[*row]).reduce(f64::min));
            }
        }
    }
}

#[test]
fn float_sums_are_the_same_at_every_level() {
    let floats: Vec<f64> = Numbers(3).take(1001).into_iter().map(|bits| (bits as f64).sqrt() - 1e9).collect();
    for mask in masks(floats.len()) {
        let sums: Vec<u64> = levels().map(|isa| aggregate::sum_f64_with(isa, &floats, mask.as_deref()).to_bits()).collect();
        assert!(sums.iter().all(|sum| *sum == sums[0]));
    }
    assert!(aggregate::sum_f64(&[1.0, f64::NAN], None).is_nan());
    assert_eq!(aggregate::sum_f64(&[1.0, f64::NAN], Some(&[1])), 1.0);
    let (least, greatest) = aggregate::min_max(&[1.0, f64::NAN, -3.0], None).unwrap();
    assert!(least == -3.0 && greatest.is_nan());
}

fn check_groups<G: grouped::Group>(groups: &[G], values: &[i64], count: usize) {
    for mask in masks(groups.len()) {
        let mask = mask.as_deref();
        let (mut counts, mut sums) = (vec![5i64; count], vec![-7i128; count]);
        let (mut least, mut greatest) = (vec![i64::MAX; count], vec![i64::MIN; count]);
        for (row, (group, value)) in groups.iter().zip(values).enumerate().filter(|(row, _)| is_set(mask, *row)) {
            let group: u32 = (*group).into();
            let group = group as usize;
            assert!(row < groups.len());
            counts[group] += 1;
            sums[group] += i128::from(*value);
            least[group] = least[group].min(*value);
            greatest[group] = greatest[group].max(*value);
        }
        for isa in levels() {
            let mut out = vec![5; count];
            grouped::count_with(isa, groups, mask, &mut out);
            assert_eq!(out, counts);
            let mut out = vec![-7; count];
            grouped::sum_with(isa, groups, values, mask, &mut out);
            assert_eq!(out, sums, "{count} groups, {isa:?}");
            let mut out = vec![-7; count];
            grouped::wrapping_sum_with(isa, groups, values, mask, &mut out);
            assert!(out.iter().zip(&sums).all(|(out, sum)| *out == *sum as i64));
        }
        let mut out = vec![i64::GREATEST; count];
        grouped::min(groups, values, mask, &mut out);
        assert_eq!(out, least);
        let mut out = vec![i64::LEAST; count];
        grouped::max(groups, values, mask, &mut out);
        assert_eq!(out, greatest);
        let floats: Vec<f64> = values.iter().map(|value| (*value as i16).into()).collect();
        let mut out = vec![0.0; count];
        grouped::sum_f64(groups, &floats, mask, &mut out);
        let expected: f64 = (0..groups.len()).filter(|row| is_set(mask, *row)).map(|row| floats[row]).sum();
        assert_eq!(out.iter().sum::<f64>(), expected);
    }
}

/// Sums in registers are those of the memory accumulators where they do not decline, and rows of other groups are left out.
fn check_few(groups: &[u32], values: &[i64], count: usize) {
    for kept in [count, count.div_ceil(2)] {
        let (mut counts, mut sums) = (vec![3i64; kept], vec![-9i64; kept]);
        for (group, value) in groups.iter().zip(values).filter(|(group, _)| (**group as usize) < kept) {
            counts[*group as usize] += 1;
            sums[*group as usize] = sums[*group as usize].wrapping_add(*value);
        }
        for isa in levels() {
            let mut out = vec![3; kept];
            let done = grouped::few::count_with(isa, groups, &mut out);
            assert_eq!(out, if done { counts.clone() } else { vec![3; kept] });
            let mut out = vec![-9; kept];
            assert_eq!(grouped::few::sum_with(isa, groups, values, &mut out), done);
            assert_eq!(out, if done { sums.clone() } else { vec![-9; kept] }, "{kept} groups, {isa:?}");
            assert_eq!(done, isa == Isa::Avx512 && kept <= grouped::few::MOST);
        }
    }
}

#[test]
fn groups() {
    for length in LENGTHS {
        for count in [1, 2, 3, 5, 7, 8, 9, 64, 65, 200] {
            for shift in [0, 20, 50] {
                let mut numbers = Numbers((length * count) as u64);
                let values: Vec<i64> = numbers.take(length).into_iter().map(|value| value as i64 >> shift).collect();
                let groups: Vec<u32> = numbers.take(length).into_iter().map(|value| (value % count as u64) as u32).collect();
                check_groups(&groups, &values, count);
                check_few(&groups, &values, count);
                let bytes: Vec<u8> = groups.iter().map(|group| *group as u8).collect();
                check_groups(&bytes, &values, count);
                let shorts: Vec<u16> = groups.iter().map(|group| *group as u16).collect();
                check_groups(&shorts, &values, count);
            }
        }
    }
}

proptest! {
    #[test]
    fn any_sums(values in prop::collection::vec(any::<i64>(), 0..300), seed: u64) {
        let mask = Numbers(seed).mask(values.len(), 8);
        let exact: i128 = mask::rows(&mask).map(|row| i128::from(values[row])).sum();
        for isa in levels() {
            prop_assert_eq!(aggregate::sum_with(isa, &values, Some(&mask)), exact);
        }
    }
}
