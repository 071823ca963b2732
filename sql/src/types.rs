//! SQL type names to logical types, and the Arrow types that the front end works with.

use arrow_schema::DataType as Arrow;
use datafusion_sql::sqlparser::ast::{DataType as Sql, ExactNumberInfo, TimezoneInfo};
use stoa_plan::DataType;

use crate::{SqlError, token};

/// The most digits of a DECIMAL.
const MAX_PRECISION: u64 = 38;

/// The logical type that a type name stands for.
pub(crate) fn from_sql(ty: &Sql) -> Result<DataType, SqlError> {
    Ok(match ty {
        Sql::Bool | Sql::Boolean => DataType::Bool,
        Sql::TinyInt(_) => DataType::Int8,
        Sql::SmallInt(_) | Sql::Int2(_) | Sql::Int16 => DataType::Int16,
        Sql::MediumInt(_) | Sql::Int(_) | Sql::Int4(_) | Sql::Integer(_) | Sql::Int32 => DataType::Int32,
        Sql::BigInt(_) | Sql::Int8(_) | Sql::Int64 | Sql::Signed | Sql::SignedInteger => DataType::Int64,
        Sql::TinyIntUnsigned(_) | Sql::UTinyInt | Sql::UInt8 => DataType::UInt8,
        Sql::SmallIntUnsigned(_) | Sql::Int2Unsigned(_) | Sql::USmallInt | Sql::UInt16 => DataType::UInt16,
        Sql::MediumIntUnsigned(_) | Sql::IntUnsigned(_) | Sql::Int4Unsigned(_) | Sql::IntegerUnsigned(_) | Sql::UInt32 => {
            DataType::UInt32
        }
        Sql::BigIntUnsigned(_) | Sql::UBigInt | Sql::Int8Unsigned(_) | Sql::UInt64 | Sql::Unsigned | Sql::UnsignedInteger => {
            DataType::UInt64
        }
        Sql::Float(ExactNumberInfo::Precision(bits)) if *bits > 24 => DataType::Float64,
        Sql::Float(_) | Sql::Float4 | Sql::Float32 | Sql::Real => DataType::Float32,
        Sql::Double(_) | Sql::DoublePrecision | Sql::Float8 | Sql::Float64 => DataType::Float64,
        Sql::Decimal(info) | Sql::Numeric(info) | Sql::Dec(info) => decimal(*info)?,
        Sql::Date | Sql::Date32 => DataType::Date,
        Sql::Timestamp(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) | Sql::Datetime(_) | Sql::TimestampNtz(_) => {
            DataType::Timestamp
        }
        Sql::Char(_)
        | Sql::Character(_)
        | Sql::CharVarying(_)
        | Sql::CharacterVarying(_)
        | Sql::Varchar(_)
        | Sql::Nvarchar(_)
        | Sql::Text
        | Sql::TinyText
        | Sql::MediumText
        | Sql::LongText
        | Sql::String(_)
        | Sql::Clob(_) => DataType::Utf8,
        Sql::Binary(_)
        | Sql::Varbinary(_)
        | Sql::Blob(_)
        | Sql::TinyBlob
        | Sql::MediumBlob
        | Sql::LongBlob
        | Sql::Bytea
        | Sql::Bytes(_) => DataType::Binary,
        Sql::Interval { .. } => DataType::Interval,
        Sql::Array(_) | Sql::Struct(..) | Sql::Map(..) | Sql::Tuple(_) | Sql::Nested(_) => {
            return Err(SqlError::unsupported(format!("the nested type {ty}")));
        }
        other => return Err(SqlError::unsupported(format!("the type {other}"))),
    })
}

/// The name of a type, which [`from_name`] reads.
pub(crate) fn name(ty: DataType) -> String {
    match ty {
        DataType::Bool => "bool",
        DataType::Int8 => "tinyint",
        DataType::Int16 => "smallint",
        DataType::Int32 => "int",
        DataType::Int64 => "bigint",
        DataType::UInt8 => "tinyint unsigned",
        DataType::UInt16 => "smallint unsigned",
        DataType::UInt32 => "int unsigned",
        DataType::UInt64 => "bigint unsigned",
        DataType::Float32 => "real",
        DataType::Float64 => "double",
        DataType::Decimal { precision, scale } => return format!("decimal({precision},{scale})"),
        DataType::Date => "date",
        DataType::Timestamp => "timestamp",
        DataType::Interval => "interval",
        DataType::Null | DataType::Utf8 => "text",
        DataType::Binary => "blob",
    }
    .to_owned()
}

/// The type that is called that; `None` for none.
pub(crate) fn from_name(name: &str) -> Option<DataType> {
    let tokens = token::tokenize(name).ok()?;
    from_sql(&token::parser(&tokens).parse_data_type().ok()?).ok()
}

fn decimal(info: ExactNumberInfo) -> Result<DataType, SqlError> {
    let (precision, scale) = match info {
        ExactNumberInfo::None => (10, 0),
        ExactNumberInfo::Precision(precision) => (precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (precision, scale),
    };
    if !(1..=MAX_PRECISION).contains(&precision) || scale < 0 || scale.unsigned_abs() > precision {
        return Err(SqlError::new(format!(
            "DECIMAL({precision},{scale}) is not a type: precision is 1 to {MAX_PRECISION}, scale 0 to the precision"
        )));
    }
    // Both are at most 38 here.
    Ok(DataType::Decimal { precision: precision as u8, scale: scale as i8 })
}

/// The Arrow type by which the front end knows a logical type: the canonical one, but with one width of decimals.
pub(crate) fn front_end_type(ty: DataType) -> Arrow {
    match ty {
        DataType::Decimal { precision, scale } => Arrow::Decimal128(precision, scale),
        other => other.to_arrow(),
    }
}

/// The logical type of a front-end expression. Time zones: only UTC, which `now()` yields, and it is dropped.
pub(crate) fn logical_type(ty: &Arrow) -> Result<DataType, SqlError> {
    match ty {
        Arrow::Timestamp(_, Some(zone)) if is_utc(zone) => Ok(DataType::Timestamp),
        Arrow::Decimal128(precision, scale) if *scale < 0 || i16::from(*scale) > i16::from(*precision) => {
            Err(SqlError::unsupported(format!("DECIMAL({precision},{scale})")))
        }
        Arrow::List(_) | Arrow::LargeList(_) | Arrow::FixedSizeList(..) | Arrow::Struct(_) | Arrow::Map(..) => {
            Err(SqlError::new("nested types (arrays, structs, maps) are not supported"))
        }
        other => DataType::from_arrow(other).ok_or_else(|| SqlError::unsupported(format!("the type {other}"))),
    }
}

/// Whether a time zone is UTC under one of its names.
pub(crate) fn is_utc(zone: &str) -> bool {
    matches!(zone, "UTC" | "+00:00" | "+00" | "Z")
}
