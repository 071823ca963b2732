//! Exact limits of integer expressions. A range that leaves `i128` becomes unknown.

use stoa_plan::DataType;

use crate::Bounds;

/// Smallest and largest value.
pub(crate) type Range = (i128, i128);

/// Ten to the power of `digits`, for `digits <= 38`.
pub(crate) fn power_of_ten(digits: u32) -> Option<i128> {
    10i128.checked_pow(digits)
}

/// The values that a type can hold, if they are integers.
pub(crate) fn of_type(ty: DataType) -> Option<Range> {
    Some(match ty {
        DataType::Bool => (0, 1),
        DataType::Int8 => (i8::MIN.into(), i8::MAX.into()),
        DataType::Int16 => (i16::MIN.into(), i16::MAX.into()),
        DataType::Int32 | DataType::Date => (i32::MIN.into(), i32::MAX.into()),
        DataType::Int64 | DataType::Timestamp => (i64::MIN.into(), i64::MAX.into()),
        DataType::UInt8 => (0, u8::MAX.into()),
        DataType::UInt16 => (0, u16::MAX.into()),
        DataType::UInt32 => (0, u32::MAX.into()),
        DataType::UInt64 => (0, u64::MAX.into()),
        DataType::Decimal { precision, .. } => {
            let limit = power_of_ten(u32::from(precision)).unwrap_or(i128::MAX).saturating_sub(1);
            (-limit, limit)
        }
        _ => return None,
    })
}

/// The scale of an integer type; 0 but for decimals.
pub(crate) fn scale(ty: DataType) -> i32 {
    if let DataType::Decimal { scale, .. } = ty { i32::from(scale) } else { 0 }
}

/// The known range within what the type can hold.
pub(crate) fn effective(bounds: Bounds, ty: DataType) -> Option<Range> {
    let limits = of_type(ty)?;
    Some(match bounds.range {
        Some((low, high)) => (low.max(limits.0), high.min(limits.1)),
        None => limits,
    })
}

/// Whether all of a range fits `i64`.
pub(crate) fn fits_i64(range: Range) -> bool {
    range.0 >= i128::from(i64::MIN) && range.1 <= i128::from(i64::MAX)
}

/// Whether values of the range are kept in 64 bits: the canonical form of the type has 64 bits or less, or the narrow form applies.
pub(crate) fn narrow(ty: DataType, range: Range) -> bool {
    match ty {
        DataType::Decimal { precision, scale } => precision <= 18 || (scale <= 18 && fits_i64(range)),
        DataType::UInt64 => fits_i64(range),
        _ => true,
    }
}

/// Whether `inner` lies within `outer`.
pub(crate) fn within(inner: Range, outer: Range) -> bool {
    inner.0 >= outer.0 && inner.1 <= outer.1
}

pub(crate) fn union(a: Range, b: Range) -> Range {
    (a.0.min(b.0), a.1.max(b.1))
}

pub(crate) fn add(a: Range, b: Range) -> Option<Range> {
    Some((a.0.checked_add(b.0)?, a.1.checked_add(b.1)?))
}

pub(crate) fn sub(a: Range, b: Range) -> Option<Range> {
    Some((a.0.checked_sub(b.1)?, a.1.checked_sub(b.0)?))
}

pub(crate) fn mul(a: Range, b: Range) -> Option<Range> {
    let corners = [a.0.checked_mul(b.0)?, a.0.checked_mul(b.1)?, a.1.checked_mul(b.0)?, a.1.checked_mul(b.1)?];
    Some((corners.iter().copied().min()?, corners.iter().copied().max()?))
}

/// Quotients, truncated, of a numerator by any non-zero integer of `b`.
pub(crate) fn div(a: Range, b: Range) -> Option<Range> {
    let smallest = if b.0 > 0 {
        b.0
    } else if b.1 < 0 {
        b.1.checked_neg()?
    } else {
        1
    };
    if b.0 > 0 {
        return Some((if a.0 < 0 { a.0 / b.0 } else { a.0 / b.1 }, if a.1 > 0 { a.1 / b.0 } else { a.1 / b.1 }));
    }
    let most = a.0.checked_abs()?.max(a.1.checked_abs()?) / smallest;
    Some((-most, most))
}

/// Remainders: they have the sign of the dividend and are smaller than the divisor.
pub(crate) fn rem(a: Range, b: Range) -> Option<Range> {
    let most = (b.0.checked_abs()?.max(b.1.checked_abs()?) - 1).max(0);
    Some((if a.0 < 0 { (-most).max(a.0) } else { 0 }, if a.1 > 0 { most.min(a.1) } else { 0 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_every_result() {
        for low in -6i128..6 {
            for high in low..6 {
                for low2 in -4i128..4 {
                    for high2 in low2..4 {
                        check((low, high), (low2, high2));
                    }
                }
            }
        }
    }

    fn check(a: Range, b: Range) {
        for x in a.0..=a.1 {
            for y in b.0..=b.1 {
                let inside = |r: Option<Range>, v: i128| assert!(r.is_some_and(|r| r.0 <= v && v <= r.1), "{a:?} {b:?} {x} {y}");
                inside(add(a, b), x + y);
                inside(sub(a, b), x - y);
                inside(mul(a, b), x * y);
                if y != 0 {
                    inside(div(a, b), x / y);
                    inside(rem(a, b), x % y);
                }
            }
        }
    }
}
