//! Types, literals, fields, names, and the enumerations that have one name on both sides.

use capnp::struct_list;
use stoa_schema::limits::{MAX_COLUMNS, MAX_NAME_BYTES};
use stoa_schema::plan_capnp as wire;

use super::budget::length;
use super::{CodecError, newer};
use crate::{AggregateFunction, BinaryOp, ColumnId, DataType, Field, Literal, Phase, Side, UnaryOp, Value};

/// Two functions between an enum of the plan and the one of the same variants in the schema.
macro_rules! enumeration {
    ($encode:ident, $decode:ident, $all:ident, $what:literal, $plan:ident, $wire:ident, [$($variant:ident)*]) => {
        #[cfg(test)]
        pub(super) const $all: &[$plan] = &[$($plan::$variant,)*];
        pub(super) fn $encode(value: $plan) -> wire::$wire {
            match value { $($plan::$variant => wire::$wire::$variant,)* }
        }
        pub(super) fn $decode(value: Result<wire::$wire, capnp::NotInSchema>) -> Result<$plan, CodecError> {
            Ok(match value.map_err(|e| newer($what, e))? { $(wire::$wire::$variant => $plan::$variant,)* })
        }
    };
}

enumeration!(encode_binary, decode_binary, ALL_BINARY, "binary operator", BinaryOp, BinaryOperator, [
    Eq NotEq Lt LtEq Gt GtEq IsDistinctFrom IsNotDistinctFrom And Or Add Sub Mul Div Mod BitAnd BitOr BitXor ShiftLeft ShiftRight
    Concat RegexMatch RegexIMatch RegexNotMatch RegexNotIMatch
]);
enumeration!(encode_unary, decode_unary, ALL_UNARY, "unary operator", UnaryOp, UnaryOperator, [
    Not Negate IsNull IsNotNull IsTrue IsNotTrue IsFalse IsNotFalse IsUnknown IsNotUnknown
]);
enumeration!(encode_side, decode_side, ALL_SIDES, "join side", Side, Side, [Left Right]);
enumeration!(encode_phase, decode_phase, ALL_PHASES, "aggregation phase", Phase, Phase, [Single Partial Final]);
enumeration!(encode_aggregate, decode_aggregate, ALL_AGGREGATES, "aggregate function", AggregateFunction, AggregateFunction, [
    Count Sum Avg Min Max VarPop VarSamp StddevPop StddevSamp CovarPop CovarSamp Corr Median PercentileCont ApproxDistinct
    ApproxPercentile BoolAnd BoolOr BitAnd BitOr BitXor StringAgg FirstValue LastValue AnyValue RegrSlope RegrIntercept RegrR2
    RegrCount RegrAvgx RegrAvgy RegrSxx RegrSyy RegrSxy
]);

/// A name for the message, if it is short enough.
pub(super) fn encode_name(name: &str) -> Result<&str, CodecError> {
    length("bytes in a name", name.len(), MAX_NAME_BYTES)?;
    Ok(name)
}

/// A name from the message.
pub(super) fn decode_name(name: capnp::text::Reader<'_>) -> Result<String, CodecError> {
    length("bytes in a name", name.len(), MAX_NAME_BYTES)?;
    Ok(name.to_str()?.to_owned())
}

pub(super) fn encode_type(ty: DataType, mut to: wire::type_::Builder<'_>) {
    match ty {
        DataType::Null => to.set_null(()),
        DataType::Bool => to.set_bool(()),
        DataType::Int8 => to.set_int8(()),
        DataType::Int16 => to.set_int16(()),
        DataType::Int32 => to.set_int32(()),
        DataType::Int64 => to.set_int64(()),
        DataType::UInt8 => to.set_uint8(()),
        DataType::UInt16 => to.set_uint16(()),
        DataType::UInt32 => to.set_uint32(()),
        DataType::UInt64 => to.set_uint64(()),
        DataType::Float32 => to.set_float32(()),
        DataType::Float64 => to.set_float64(()),
        DataType::Decimal { precision, scale } => {
            let mut decimal = to.init_decimal();
            decimal.set_precision(precision);
            decimal.set_scale(scale);
        }
        DataType::Date => to.set_date(()),
        DataType::Timestamp => to.set_timestamp(()),
        DataType::Interval => to.set_interval(()),
        DataType::Utf8 => to.set_utf8(()),
        DataType::Binary => to.set_binary(()),
    }
}

/// The type; that a decimal's precision and scale fit is for [`crate::validate`] to see.
pub(super) fn decode_type(from: wire::type_::Reader<'_>) -> Result<DataType, CodecError> {
    use wire::type_::Which;
    Ok(match from.which().map_err(|e| newer("type", e))? {
        Which::Null(()) => DataType::Null,
        Which::Bool(()) => DataType::Bool,
        Which::Int8(()) => DataType::Int8,
        Which::Int16(()) => DataType::Int16,
        Which::Int32(()) => DataType::Int32,
        Which::Int64(()) => DataType::Int64,
        Which::Uint8(()) => DataType::UInt8,
        Which::Uint16(()) => DataType::UInt16,
        Which::Uint32(()) => DataType::UInt32,
        Which::Uint64(()) => DataType::UInt64,
        Which::Float32(()) => DataType::Float32,
        Which::Float64(()) => DataType::Float64,
        Which::Decimal(decimal) => DataType::Decimal { precision: decimal.get_precision(), scale: decimal.get_scale() },
        Which::Date(()) => DataType::Date,
        Which::Timestamp(()) => DataType::Timestamp,
        Which::Interval(()) => DataType::Interval,
        Which::Utf8(()) => DataType::Utf8,
        Which::Binary(()) => DataType::Binary,
    })
}

pub(super) fn encode_literal(literal: &Literal, mut to: wire::literal::Builder<'_>) {
    encode_type(literal.ty, to.reborrow().init_type());
    match &literal.value {
        Value::Null => to.set_null(()),
        Value::Bool(value) => to.set_bool(*value),
        Value::Int(value) => to.set_int(*value),
        Value::UInt(value) => to.set_uint(*value),
        Value::Float(value) => to.set_float(*value),
        Value::Decimal(value) => {
            let mut decimal = to.init_decimal();
            decimal.set_low(*value as u64);
            decimal.set_high((*value >> 64) as i64);
        }
        Value::Str(value) => to.set_string(value.as_str()),
        Value::Bytes(value) => to.set_bytes(value),
        Value::Interval { months, days, nanos } => {
            let mut interval = to.init_interval();
            interval.set_months(*months);
            interval.set_days(*days);
            interval.set_nanos(*nanos);
        }
    }
}

/// The literal; that the value fits the type is for [`crate::validate`] to see.
pub(super) fn decode_literal(from: wire::literal::Reader<'_>) -> Result<Literal, CodecError> {
    use wire::literal::Which;
    let ty = decode_type(from.get_type()?)?;
    let value = match from.which().map_err(|e| newer("kind of literal", e))? {
        Which::Null(()) => Value::Null,
        Which::Bool(value) => Value::Bool(value),
        Which::Int(value) => Value::Int(value),
        Which::Uint(value) => Value::UInt(value),
        Which::Float(value) => Value::Float(value),
        Which::Decimal(value) => Value::Decimal((i128::from(value.get_high()) << 64) | i128::from(value.get_low())),
        Which::String(value) => Value::Str(value?.to_str()?.to_owned()),
        Which::Bytes(value) => Value::Bytes(value?.to_vec()),
        Which::Interval(value) => {
            Value::Interval { months: value.get_months(), days: value.get_days(), nanos: value.get_nanos() }
        }
    };
    Ok(Literal { ty, value })
}

pub(super) fn encode_field(field: &Field, mut to: wire::field::Builder<'_>) -> Result<(), CodecError> {
    to.set_id(field.id.0);
    to.set_name(encode_name(&field.name)?);
    to.set_nullable(field.nullable);
    encode_type(field.ty, to.init_type());
    Ok(())
}

pub(super) fn decode_field(from: wire::field::Reader<'_>) -> Result<Field, CodecError> {
    Ok(Field {
        id: ColumnId(from.get_id()),
        name: decode_name(from.get_name()?)?,
        ty: decode_type(from.get_type()?)?,
        nullable: from.get_nullable(),
    })
}

pub(super) fn encode_fields(fields: &[Field], to: &mut struct_list::Builder<'_, wire::field::Owned>) -> Result<(), CodecError> {
    for (i, field) in (0..to.len()).zip(fields) {
        encode_field(field, to.reborrow().get(i))?;
    }
    Ok(())
}

pub(super) fn decode_fields(
    what: &'static str,
    from: struct_list::Reader<'_, wire::field::Owned>,
) -> Result<Vec<Field>, CodecError> {
    length(what, from.len() as usize, MAX_COLUMNS)?;
    from.iter().map(decode_field).collect()
}
