//! Arithmetic of slices and constants. Integers wrap: the caller proves from bounds that they do not, or checks.

use crate::isa::{Isa, isa};

mod sealed {
    //! What only this crate can implement.

    /// The loops, compiled once in this crate for each type.
    pub trait Loops: Sized {
        fn slices(isa: crate::Isa, op: super::Op, a: &[Self], b: &[Self], out: &mut [Self]);
        fn constant(isa: crate::Isa, op: super::Op, a: &[Self], b: Self, out: &mut [Self]);
        fn reversed(isa: crate::Isa, op: super::Op, a: Self, b: &[Self], out: &mut [Self]);
        fn assign(isa: crate::Isa, op: super::Op, a: &mut [Self], b: &[Self]);
    }
}

/// An operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `a + b`
    Add,
    /// `a - b`
    Sub,
    /// `a * b`
    Mul,
}

/// An integer or float that is calculated with.
pub trait Number: Copy + sealed::Loops {
    /// `a op b`; integers wrap.
    fn apply(op: Op, a: Self, b: Self) -> Self;
}

/// `out[i] = a[i] op b[i]`.
pub fn slices<T: Number>(op: Op, a: &[T], b: &[T], out: &mut [T]) {
    slices_with(isa(), op, a, b, out);
}

/// [`slices`] at a given level.
pub fn slices_with<T: Number>(isa: Isa, op: Op, a: &[T], b: &[T], out: &mut [T]) {
    assert!(a.len() == b.len() && a.len() == out.len(), "slices of different lengths");
    T::slices(isa, op, a, b, out);
}

/// `out[i] = a[i] op b`.
pub fn constant<T: Number>(op: Op, a: &[T], b: T, out: &mut [T]) {
    constant_with(isa(), op, a, b, out);
}

/// [`constant`] at a given level.
pub fn constant_with<T: Number>(isa: Isa, op: Op, a: &[T], b: T, out: &mut [T]) {
    assert_eq!(a.len(), out.len(), "slices of different lengths");
    T::constant(isa, op, a, b, out);
}

/// `out[i] = a op b[i]`, the constant first.
pub fn reversed<T: Number>(op: Op, a: T, b: &[T], out: &mut [T]) {
    reversed_with(isa(), op, a, b, out);
}

/// [`reversed`] at a given level.
pub fn reversed_with<T: Number>(isa: Isa, op: Op, a: T, b: &[T], out: &mut [T]) {
    assert_eq!(b.len(), out.len(), "slices of different lengths");
    T::reversed(isa, op, a, b, out);
}

/// `a[i] = a[i] op b[i]`.
pub fn assign<T: Number>(op: Op, a: &mut [T], b: &[T]) {
    assign_with(isa(), op, a, b);
}

/// [`assign`] at a given level.
pub fn assign_with<T: Number>(isa: Isa, op: Op, a: &mut [T], b: &[T]) {
    assert_eq!(a.len(), b.len(), "slices of different lengths");
    T::assign(isa, op, a, b);
}

/// A loop for each operation, so that the choice is outside of it.
macro_rules! each {
    ($isa:ident, $op:ident, $apply:ident => $body:expr) => {
        $isa.run(
            #[inline(always)]
            || match $op {
                Op::Add => {
                    let $apply = |a, b| Self::apply(Op::Add, a, b);
                    $body
                }
                Op::Sub => {
                    let $apply = |a, b| Self::apply(Op::Sub, a, b);
                    $body
                }
                Op::Mul => {
                    let $apply = |a, b| Self::apply(Op::Mul, a, b);
                    $body
                }
            },
        )
    };
}

macro_rules! loops {
    ($($type:ty: $add:expr, $sub:expr, $mul:expr;)*) => { $(
        impl sealed::Loops for $type {
            fn slices(isa: Isa, op: Op, a: &[Self], b: &[Self], out: &mut [Self]) {
                each!(isa, op, apply => out.iter_mut().zip(a).zip(b).for_each(|((out, a), b)| *out = apply(*a, *b)));
            }
            fn constant(isa: Isa, op: Op, a: &[Self], b: Self, out: &mut [Self]) {
                each!(isa, op, apply => out.iter_mut().zip(a).for_each(|(out, a)| *out = apply(*a, b)));
            }
            fn reversed(isa: Isa, op: Op, a: Self, b: &[Self], out: &mut [Self]) {
                each!(isa, op, apply => out.iter_mut().zip(b).for_each(|(out, b)| *out = apply(a, *b)));
            }
            fn assign(isa: Isa, op: Op, a: &mut [Self], b: &[Self]) {
                each!(isa, op, apply => a.iter_mut().zip(b).for_each(|(a, b)| *a = apply(*a, *b)));
            }
        }
        impl Number for $type {
            #[inline(always)]
            fn apply(op: Op, a: Self, b: Self) -> Self {
                match op {
                    Op::Add => $add(a, b),
                    Op::Sub => $sub(a, b),
                    Op::Mul => $mul(a, b),
                }
            }
        }
    )* };
}

loops! {
    i32: i32::wrapping_add, i32::wrapping_sub, i32::wrapping_mul;
    i64: i64::wrapping_add, i64::wrapping_sub, i64::wrapping_mul;
    u64: u64::wrapping_add, u64::wrapping_sub, u64::wrapping_mul;
    i128: i128::wrapping_add, i128::wrapping_sub, i128::wrapping_mul;
    f32: |a, b| a + b, |a, b| a - b, |a, b| a * b;
    f64: |a, b| a + b, |a, b| a - b, |a, b| a * b;
}
