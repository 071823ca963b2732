//! The column types that storage keeps, and their form in the schemas.

use arrow::datatypes::{DataType, TimeUnit};
use stoa_schema::segment_capnp::{TypeKind, column_type};

/// Whether columns of this Arrow type can be stored; see the crate's documentation for the list.
#[must_use]
pub fn is_storable(ty: &DataType) -> bool {
    kind_of(ty).is_some()
}

/// What the order of a type's values is compared by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Domain {
    /// [`crate::Datum::Int`]
    Integer,
    /// [`crate::Datum::Float`]
    Float,
    /// [`crate::Datum::Bytes`]
    Bytes,
}

/// The domain of a storable type.
pub(crate) fn domain(ty: &DataType) -> Domain {
    match ty {
        DataType::Float32 | DataType::Float64 => Domain::Float,
        DataType::Utf8View | DataType::Binary => Domain::Bytes,
        _ => Domain::Integer,
    }
}

fn kind_of(ty: &DataType) -> Option<TypeKind> {
    Some(match ty {
        DataType::Boolean => TypeKind::Boolean,
        DataType::Int8 => TypeKind::Int8,
        DataType::Int16 => TypeKind::Int16,
        DataType::Int32 => TypeKind::Int32,
        DataType::Int64 => TypeKind::Int64,
        DataType::UInt8 => TypeKind::Uint8,
        DataType::UInt16 => TypeKind::Uint16,
        DataType::UInt32 => TypeKind::Uint32,
        DataType::UInt64 => TypeKind::Uint64,
        DataType::Float32 => TypeKind::Float32,
        DataType::Float64 => TypeKind::Float64,
        DataType::Decimal64(..) => TypeKind::Decimal64,
        DataType::Decimal128(..) => TypeKind::Decimal128,
        DataType::Date32 => TypeKind::Date32,
        DataType::Timestamp(TimeUnit::Microsecond, None) => TypeKind::TimestampMicros,
        DataType::Utf8View => TypeKind::Utf8,
        DataType::Binary => TypeKind::Binary,
        _ => return None,
    })
}

/// Writes a type. A type that cannot be stored is refused before this ([`is_storable`]); it is written as its nearest kind.
pub(crate) fn write_type(ty: &DataType, mut out: column_type::Builder<'_>) {
    out.set_kind(kind_of(ty).unwrap_or(TypeKind::Binary));
    if let DataType::Decimal64(precision, scale) | DataType::Decimal128(precision, scale) = ty {
        out.set_precision(*precision);
        out.set_scale(*scale);
    }
}

/// Reads a type.
pub(crate) fn read_type(input: column_type::Reader<'_>) -> Result<DataType, String> {
    let kind = input.get_kind().map_err(|_| "unknown column type".to_string())?;
    let (precision, scale) = (input.get_precision(), input.get_scale());
    let decimal = |most: u8| {
        if precision == 0 || precision > most || scale.unsigned_abs() > precision {
            return Err(format!("DECIMAL({precision},{scale}) is out of range"));
        }
        Ok(())
    };
    Ok(match kind {
        TypeKind::Boolean => DataType::Boolean,
        TypeKind::Int8 => DataType::Int8,
        TypeKind::Int16 => DataType::Int16,
        TypeKind::Int32 => DataType::Int32,
        TypeKind::Int64 => DataType::Int64,
        TypeKind::Uint8 => DataType::UInt8,
        TypeKind::Uint16 => DataType::UInt16,
        TypeKind::Uint32 => DataType::UInt32,
        TypeKind::Uint64 => DataType::UInt64,
        TypeKind::Float32 => DataType::Float32,
        TypeKind::Float64 => DataType::Float64,
        TypeKind::Decimal64 => decimal(18).map(|()| DataType::Decimal64(precision, scale))?,
        TypeKind::Decimal128 => decimal(38).map(|()| DataType::Decimal128(precision, scale))?,
        TypeKind::Date32 => DataType::Date32,
        TypeKind::TimestampMicros => DataType::Timestamp(TimeUnit::Microsecond, None),
        TypeKind::Utf8 => DataType::Utf8View,
        TypeKind::Binary => DataType::Binary,
    })
}
