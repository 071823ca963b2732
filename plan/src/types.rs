//! Logical types and literals, and how both map to Arrow.
//!
//! The set is closed. Every type has one canonical Arrow representation, [`DataType::to_arrow`]; what encodings an executor may
//! use in its place is the executor's own business.

use arrow_schema::{DataType as Arrow, IntervalUnit, TimeUnit};

/// The logical type of a column or an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DataType {
    /// The type of a bare `NULL`.
    Null,
    /// `BOOL`.
    Bool,
    /// `TINYINT`.
    Int8,
    /// `SMALLINT`.
    Int16,
    /// `INT`.
    Int32,
    /// `BIGINT`.
    Int64,
    /// `TINYINT UNSIGNED`.
    UInt8,
    /// `SMALLINT UNSIGNED`.
    UInt16,
    /// `INT UNSIGNED`.
    UInt32,
    /// `BIGINT UNSIGNED`.
    UInt64,
    /// `FLOAT`, 32 bits.
    Float32,
    /// `DOUBLE`, 64 bits.
    Float64,
    /// `DECIMAL(precision, scale)`: `1 <= precision <= 38`, `0 <= scale <= precision`.
    Decimal {
        /// Digits in all.
        precision: u8,
        /// Digits after the point.
        scale: i8,
    },
    /// `DATE`: days since 1970-01-01.
    Date,
    /// `TIMESTAMP`: microseconds since 1970-01-01 00:00:00, no time zone.
    Timestamp,
    /// A span of months, days and nanoseconds; expressions only, never a table column.
    Interval,
    /// `CHAR`, `VARCHAR`, `TEXT`: UTF-8.
    Utf8,
    /// `BINARY`, `VARBINARY`, `BLOB`.
    Binary,
}

impl DataType {
    /// The canonical Arrow type: `Utf8View` for strings, `Binary` for bytes, `Decimal64(p, s)` for `p <= 18`, else `Decimal128`,
    /// `Timestamp(Microsecond)`, `Interval(MonthDayNano)`, and the type of the same name otherwise.
    #[must_use]
    pub fn to_arrow(self) -> Arrow {
        match self {
            DataType::Null => Arrow::Null,
            DataType::Bool => Arrow::Boolean,
            DataType::Int8 => Arrow::Int8,
            DataType::Int16 => Arrow::Int16,
            DataType::Int32 => Arrow::Int32,
            DataType::Int64 => Arrow::Int64,
            DataType::UInt8 => Arrow::UInt8,
            DataType::UInt16 => Arrow::UInt16,
            DataType::UInt32 => Arrow::UInt32,
            DataType::UInt64 => Arrow::UInt64,
            DataType::Float32 => Arrow::Float32,
            DataType::Float64 => Arrow::Float64,
            DataType::Decimal { precision, scale } if precision <= 18 => Arrow::Decimal64(precision, scale),
            DataType::Decimal { precision, scale } => Arrow::Decimal128(precision, scale),
            DataType::Date => Arrow::Date32,
            DataType::Timestamp => Arrow::Timestamp(TimeUnit::Microsecond, None),
            DataType::Interval => Arrow::Interval(IntervalUnit::MonthDayNano),
            DataType::Utf8 => Arrow::Utf8View,
            DataType::Binary => Arrow::Binary,
        }
    }

    /// The logical type that an Arrow type stands for, or `None` where Stoa has none (nested types, time zones, ...).
    #[must_use]
    pub fn from_arrow(ty: &Arrow) -> Option<DataType> {
        Some(match ty {
            Arrow::Null => DataType::Null,
            Arrow::Boolean => DataType::Bool,
            Arrow::Int8 => DataType::Int8,
            Arrow::Int16 => DataType::Int16,
            Arrow::Int32 => DataType::Int32,
            Arrow::Int64 => DataType::Int64,
            Arrow::UInt8 => DataType::UInt8,
            Arrow::UInt16 => DataType::UInt16,
            Arrow::UInt32 => DataType::UInt32,
            Arrow::UInt64 => DataType::UInt64,
            Arrow::Float32 => DataType::Float32,
            Arrow::Float64 => DataType::Float64,
            Arrow::Decimal32(precision, scale) | Arrow::Decimal64(precision, scale) | Arrow::Decimal128(precision, scale) => {
                DataType::Decimal { precision: *precision, scale: *scale }
            }
            Arrow::Date32 | Arrow::Date64 => DataType::Date,
            Arrow::Timestamp(_, None) => DataType::Timestamp,
            Arrow::Interval(_) => DataType::Interval,
            Arrow::Utf8 | Arrow::LargeUtf8 | Arrow::Utf8View => DataType::Utf8,
            Arrow::Binary | Arrow::LargeBinary | Arrow::BinaryView | Arrow::FixedSizeBinary(_) => DataType::Binary,
            Arrow::Dictionary(_, values) => return DataType::from_arrow(values),
            _ => return None,
        })
    }
}

/// A constant: a type and a value of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Literal {
    /// The type; also of a NULL.
    pub ty: DataType,
    /// The value; its variant fits `ty`, or is [`Value::Null`].
    pub value: Value,
}

/// The value of a [`Literal`] or a statistic, in the widest form of its family.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// `Bool`.
    Bool(bool),
    /// Signed integers, `Date` (days) and `Timestamp` (microseconds).
    Int(i64),
    /// Unsigned integers.
    UInt(u64),
    /// `Float32` and `Float64`.
    Float(f64),
    /// The unscaled value of a `Decimal`: 1.50 with scale 2 is 150.
    Decimal(i128),
    /// `Utf8`.
    Str(String),
    /// `Binary`.
    Bytes(Vec<u8>),
    /// `Interval`.
    Interval {
        /// Calendar months.
        months: i32,
        /// Calendar days.
        days: i32,
        /// Nanoseconds.
        nanos: i64,
    },
}
