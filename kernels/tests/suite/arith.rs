//! Arithmetic.
use crate::{LENGTHS, Numbers, levels};
use stoa_kernels::arith::{self, Number, Op};

fn check<T: Number + PartialEq + std::fmt::Debug + Default>(a: &[T], b: &[T], constant: T, plain: impl Fn(Op, T, T) -> T) {
    for isa in levels() {
        for op in [Op::Add, Op::Sub, Op::Mul] {
            let mut out = vec![T::default(); a.len()];
            arith::slices_with(isa, op, a, b, &mut out);
            assert!(out.iter().zip(a.iter().zip(b)).all(|(out, (a, b))| *out == plain(op, *a, *b)), "{op:?} {isa:?}");
            let mut in_place = a.to_vec();
            arith::assign_with(isa, op, &mut in_place, b);
            assert_eq!(in_place, out);
            arith::constant_with(isa, op, a, constant, &mut out);
            assert!(out.iter().zip(a).all(|(out, a)| *out == plain(op, *a, constant)));
            arith::reversed_with(isa, op, constant, a, &mut out);
            assert!(out.iter().zip(a).all(|(out, a)| *out == plain(op, constant, *a)));
        }
    }
}

macro_rules! plain {
    () => {
        |op, a, b| match op {
            Op::Add => a.wrapping_add(b),
            Op::Sub => a.wrapping_sub(b),
            Op::Mul => a.wrapping_mul(b),
        }
    };
}

#[test]
fn numbers() {
    for length in LENGTHS {
        let mut numbers = Numbers(length as u64 + 77);
        let (a, b) = (numbers.take(length), numbers.take(length));
        check::<u64>(&a, &b, 100, plain!());
        let signed = |values: &[u64]| values.iter().map(|value| *value as i64).collect::<Vec<_>>();
        check::<i64>(&signed(&a), &signed(&b), -3, plain!());
        let narrow = |values: &[u64]| values.iter().map(|value| *value as i32).collect::<Vec<_>>();
        check::<i32>(&narrow(&a), &narrow(&b), i32::MIN, plain!());
        let wide = |values: &[u64]| values.iter().map(|value| i128::from(*value) << 50).collect::<Vec<_>>();
        check::<i128>(&wide(&a), &wide(&b), 7, plain!());
        let float = |values: &[u64]| values.iter().map(|value| *value as f64 / 3.0).collect::<Vec<_>>();
        check::<f64>(&float(&a), &float(&b), 0.1, |op, a, b| match op {
            Op::Add => a + b,
            Op::Sub => a - b,
            Op::Mul => a * b,
        });
    }
}
