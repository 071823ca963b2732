//! Fixed-width values as storage orders and hashes them, and the one dispatch from Arrow types to them.

use stoa_kernels::hash::{combine, shard_hash};

/// A fixed-width value.
pub(crate) trait Native: Copy {
    /// What it is ordered by.
    type Ordered: Ord + Copy;
    /// Smallest and largest of the order.
    const EXTREMES: (Self::Ordered, Self::Ordered);
    /// The value in its order.
    fn ordered(self) -> Self::Ordered;
    /// The ordered value in the domain of zone maps.
    fn key(ordered: Self::Ordered) -> i128;
    /// Its stable hash; equal integers of different width hash alike.
    fn hash(self) -> u64;
}

macro_rules! native_integer {
    ($($ty:ty),*) => {$(
        impl Native for $ty {
            type Ordered = $ty;
            const EXTREMES: ($ty, $ty) = (<$ty>::MIN, <$ty>::MAX);
            #[inline]
            fn ordered(self) -> $ty {
                self
            }
            #[inline]
            fn key(ordered: $ty) -> i128 {
                i128::from(ordered)
            }
            #[inline]
            fn hash(self) -> u64 {
                shard_hash(self as u64)
            }
        }
    )*};
}
native_integer!(i8, i16, i32, i64, u8, u16, u32, u64);

impl Native for i128 {
    type Ordered = i128;
    const EXTREMES: (i128, i128) = (i128::MIN, i128::MAX);
    #[inline]
    fn ordered(self) -> i128 {
        self
    }
    #[inline]
    fn key(ordered: i128) -> i128 {
        ordered
    }
    #[inline]
    fn hash(self) -> u64 {
        let low = shard_hash(self as u64);
        if i64::try_from(self).is_ok() { low } else { combine(low, (self >> 64) as u64) }
    }
}

/// The total order of floats as integers, both zeros being one value.
#[inline]
pub(crate) fn float_order(value: f64) -> i64 {
    let bits = (if value == 0.0 { 0.0 } else { value }).to_bits() as i64;
    bits ^ (((bits >> 63) as u64) >> 1) as i64
}

/// The float of [`float_order`].
pub(crate) fn float_of_order(order: i64) -> f64 {
    f64::from_bits((order ^ (((order >> 63) as u64) >> 1) as i64) as u64)
}

impl Native for f64 {
    type Ordered = i64;
    const EXTREMES: (i64, i64) = (i64::MIN, i64::MAX);
    #[inline]
    fn ordered(self) -> i64 {
        float_order(self)
    }
    #[inline]
    fn key(ordered: i64) -> i128 {
        i128::from(ordered)
    }
    #[inline]
    fn hash(self) -> u64 {
        shard_hash((if self == 0.0 { 0.0 } else { self }).to_bits())
    }
}

impl Native for f32 {
    type Ordered = i64;
    const EXTREMES: (i64, i64) = (i64::MIN, i64::MAX);
    #[inline]
    fn ordered(self) -> i64 {
        float_order(f64::from(self))
    }
    #[inline]
    fn key(ordered: i64) -> i128 {
        i128::from(ordered)
    }
    #[inline]
    fn hash(self) -> u64 {
        f64::from(self).hash()
    }
}

/// Runs `$body` with `$values` bound to the typed primitive array of a storable fixed-width type; `$other` for every other type.
macro_rules! with_primitive {
    ($array:expr, $values:ident => $body:expr, _ => $other:expr) => {{
        use arrow::array::AsArray as _;
        use arrow::datatypes as types;
        macro_rules! run {
            ($ty:ty) => {{
                let $values = $array.as_primitive::<$ty>();
                $body
            }};
        }
        match $array.data_type() {
            types::DataType::Int8 => run!(types::Int8Type),
            types::DataType::Int16 => run!(types::Int16Type),
            types::DataType::Int32 => run!(types::Int32Type),
            types::DataType::Int64 => run!(types::Int64Type),
            types::DataType::UInt8 => run!(types::UInt8Type),
            types::DataType::UInt16 => run!(types::UInt16Type),
            types::DataType::UInt32 => run!(types::UInt32Type),
            types::DataType::UInt64 => run!(types::UInt64Type),
            types::DataType::Float32 => run!(types::Float32Type),
            types::DataType::Float64 => run!(types::Float64Type),
            types::DataType::Decimal64(..) => run!(types::Decimal64Type),
            types::DataType::Decimal128(..) => run!(types::Decimal128Type),
            types::DataType::Date32 => run!(types::Date32Type),
            types::DataType::Timestamp(types::TimeUnit::Microsecond, None) => run!(types::TimestampMicrosecondType),
            _ => $other,
        }
    }};
}
pub(crate) use with_primitive;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn float_order_is_the_total_order() {
        let values = [f64::NEG_INFINITY, -1.5, -f64::MIN_POSITIVE, 0.0, 1e-300, 2.0, f64::INFINITY, f64::NAN];
        for pair in values.windows(2) {
            assert!(float_order(pair[0]) < float_order(pair[1]), "{pair:?}");
        }
        assert_eq!(float_order(-0.0), float_order(0.0));
        for value in values {
            assert_eq!(float_of_order(float_order(value)).to_bits(), value.to_bits());
        }
    }

    #[test]
    fn equal_values_hash_alike_whatever_their_width() {
        assert_eq!((-5i8).hash(), (-5i64).hash());
        assert_eq!((-5i128).hash(), (-5i64).hash());
        assert_eq!(200u8.hash(), 200i64.hash());
        assert_eq!((-0.0f64).hash(), 0.0f32.hash());
    }
}
