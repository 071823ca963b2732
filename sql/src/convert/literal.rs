//! Constants.

use datafusion_common::ScalarValue;
use stoa_plan::{DataType, Expr, Literal, Value};

use crate::{SqlError, types};

const NANOS_PER_DAY: i64 = 86_400_000_000_000;

/// A typed NULL.
pub(super) fn null(ty: DataType) -> Expr {
    Expr::Literal(Literal { ty, value: Value::Null })
}

/// A front-end constant.
pub(super) fn literal(scalar: &ScalarValue) -> Result<Literal, SqlError> {
    let ty = types::logical_type(&scalar.data_type())?;
    if scalar.is_null() {
        return Ok(Literal { ty, value: Value::Null });
    }
    let value = value(scalar).ok_or_else(|| SqlError::unsupported(format!("the constant {scalar}")))?;
    Ok(Literal { ty, value })
}

fn value(scalar: &ScalarValue) -> Option<Value> {
    Some(match scalar {
        ScalarValue::Boolean(v) => Value::Bool((*v)?),
        ScalarValue::Int8(v) => Value::Int((*v)?.into()),
        ScalarValue::Int16(v) => Value::Int((*v)?.into()),
        ScalarValue::Int32(v) => Value::Int((*v)?.into()),
        ScalarValue::Int64(v) => Value::Int((*v)?),
        ScalarValue::UInt8(v) => Value::UInt((*v)?.into()),
        ScalarValue::UInt16(v) => Value::UInt((*v)?.into()),
        ScalarValue::UInt32(v) => Value::UInt((*v)?.into()),
        ScalarValue::UInt64(v) => Value::UInt((*v)?),
        ScalarValue::Float32(v) => Value::Float((*v)?.into()),
        ScalarValue::Float64(v) => Value::Float((*v)?),
        ScalarValue::Decimal32(v, ..) => Value::Decimal((*v)?.into()),
        ScalarValue::Decimal64(v, ..) => Value::Decimal((*v)?.into()),
        ScalarValue::Decimal128(v, ..) => Value::Decimal((*v)?),
        ScalarValue::Utf8(v) | ScalarValue::Utf8View(v) | ScalarValue::LargeUtf8(v) => Value::Str(v.clone()?),
        ScalarValue::Binary(v)
        | ScalarValue::BinaryView(v)
        | ScalarValue::LargeBinary(v)
        | ScalarValue::FixedSizeBinary(_, v) => Value::Bytes(v.clone()?),
        ScalarValue::Date32(v) => Value::Int((*v)?.into()),
        ScalarValue::Date64(v) => Value::Int((*v)?.div_euclid(86_400_000)),
        ScalarValue::TimestampSecond(v, _) => Value::Int((*v)?.checked_mul(1_000_000)?),
        ScalarValue::TimestampMillisecond(v, _) => Value::Int((*v)?.checked_mul(1000)?),
        ScalarValue::TimestampMicrosecond(v, _) => Value::Int((*v)?),
        ScalarValue::TimestampNanosecond(v, _) => Value::Int((*v)?.div_euclid(1000)),
        ScalarValue::IntervalYearMonth(v) => Value::Interval { months: (*v)?, days: 0, nanos: 0 },
        ScalarValue::IntervalDayTime(v) => {
            let v = (*v)?;
            Value::Interval { months: 0, days: v.days, nanos: i64::from(v.milliseconds) * 1_000_000 }
        }
        ScalarValue::IntervalMonthDayNano(v) => {
            let v = (*v)?;
            // There are no time zones, so that 24 hours are a day.
            match i32::try_from(v.nanoseconds / NANOS_PER_DAY).ok().and_then(|days| v.days.checked_add(days)) {
                Some(days) if v.nanoseconds % NANOS_PER_DAY == 0 => Value::Interval { months: v.months, days, nanos: 0 },
                _ => Value::Interval { months: v.months, days: v.days, nanos: v.nanoseconds },
            }
        }
        ScalarValue::Dictionary(_, inner) => return value(inner),
        _ => return None,
    })
}

/// The number that a literal is, casts looked through.
pub(super) fn as_f64(expr: &Expr) -> Option<f64> {
    match expr {
        Expr::Cast { input, .. } => as_f64(input),
        Expr::Literal(Literal { ty, value }) => match (value, ty) {
            (Value::Float(v), _) => Some(*v),
            (Value::Int(v), _) => Some(*v as f64),
            (Value::UInt(v), _) => Some(*v as f64),
            (Value::Decimal(v), DataType::Decimal { scale, .. }) => Some(*v as f64 / 10f64.powi((*scale).into())),
            _ => None,
        },
        _ => None,
    }
}
