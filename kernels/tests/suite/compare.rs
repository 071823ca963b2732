//! Comparisons of flat values.
use crate::{LENGTHS, Numbers, levels, mask_of};
use proptest::prelude::*;
use std::cmp::Ordering;
use stoa_kernels::compare::{self, Element, Op};

const OPS: [Op; 6] = [Op::Eq, Op::Ne, Op::Lt, Op::Le, Op::Gt, Op::Ge];

fn holds(op: Op, order: Ordering) -> bool {
    match op {
        Op::Eq => order.is_eq(),
        Op::Ne => order.is_ne(),
        Op::Lt => order.is_lt(),
        Op::Le => order.is_le(),
        Op::Gt => order.is_gt(),
        Op::Ge => order.is_ge(),
    }
}

/// Everything about one type: `a` against a constant, a range, a list, and against `b`.
fn check<T: Element + std::fmt::Debug>(a: &[T], b: &[T], constants: &[T], order: impl Fn(T, T) -> Ordering) {
    let words = a.len().div_ceil(64);
    for isa in levels() {
        for op in OPS {
            for constant in constants {
                let mut mask = vec![7; words + 1];
                compare::compare_with(isa, op, a, *constant, &mut mask);
                assert_eq!(mask[words], 0);
                mask.truncate(words);
                assert_eq!(mask, mask_of(a.iter().map(|a| holds(op, order(*a, *constant)))), "{op:?} {constant:?} {isa:?}");
            }
            let mut mask = vec![7; words];
            compare::compare_slices_with(isa, op, a, b, &mut mask);
            assert_eq!(mask, mask_of(a.iter().zip(b).map(|(a, b)| holds(op, order(*a, *b)))), "{op:?} {isa:?}");
        }
        for (low, high) in constants.iter().zip(constants.iter().rev()) {
            let mut mask = vec![7; words];
            compare::range_with(isa, a, *low, *high, &mut mask);
            assert_eq!(mask, mask_of(a.iter().map(|a| order(*low, *a).is_le() && order(*a, *high).is_le())));
        }
        let mut mask = vec![7; words];
        compare::in_list_with(isa, a, constants, &mut mask);
        assert_eq!(mask, mask_of(a.iter().map(|a| constants.iter().any(|member| order(*a, *member).is_eq()))));
    }
}

macro_rules! integers {
    ($($name:ident $type:ty;)*) => { $(
        #[test]
        fn $name() {
            for length in LENGTHS {
                let mut numbers = Numbers(length as u64);
                let narrow = |value: u64| (value as $type) >> (value % <$type>::BITS as u64);
                let a: Vec<$type> = numbers.take(length + 1).into_iter().map(narrow).collect();
                let mut b: Vec<$type> = numbers.take(length).into_iter().map(narrow).collect();
                b.iter_mut().zip(&a[1..]).filter(|(b, _)| **b % 3 == 0).for_each(|(b, a)| *b = *a);
                check(&a[1..], &b, &[a[0], <$type>::MIN, 0, 1, <$type>::MAX, *a.last().unwrap()], |a, b| a.cmp(&b));
            }
        }
    )* };
}

integers! {
    int8 i8; int16 i16; int32 i32; int64 i64; int128 i128;
    unsigned8 u8; unsigned16 u16; unsigned32 u32; unsigned64 u64;
}

fn float_order(a: f64, b: f64) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (false, false) => a.partial_cmp(&b).unwrap(),
        (a, b) => a.cmp(&b),
    }
}

#[test]
fn floats() {
    let special =
        [0.0, -0.0, 1.5, -1.5, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, -f64::NAN, f64::MAX, f64::MIN_POSITIVE, -5e-324];
    for length in LENGTHS {
        let mut numbers = Numbers(length as u64 + 5);
        let mut float = || {
            let value = numbers.draw();
            if value.is_multiple_of(2) { special[value as usize / 2 % special.len()] } else { f64::from_bits(value) }
        };
        let a: Vec<f64> = (0..length).map(|_| float()).collect();
        let b: Vec<f64> = (0..length).map(|_| float()).collect();
        check(&a, &b, &special, float_order);
        let single = |values: &[f64]| values.iter().map(|value| *value as f32).collect::<Vec<_>>();
        check(&single(&a), &single(&b), &single(&special), |a, b| float_order(a.into(), b.into()));
    }
}

proptest! {
    #[test]
    fn any_integers(a in prop::collection::vec(-3i64..3, 0..300), constants in prop::collection::vec(-4i64..4, 1..5), skip in 0usize..9) {
        let a = &a[skip.min(a.len())..];
        let b: Vec<i64> = a.iter().rev().copied().collect();
        check(a, &b, &constants, |a, b| a.cmp(&b));
    }
}
