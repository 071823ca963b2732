//! Values of the parameters of prepared statements, on the wire.

use stoa_schema::coordinator_capnp::parameter;

use crate::session::MAX_PREPARED_BYTES;

/// The value of a parameter: as if it stood in the text as a literal.
#[derive(Clone, Debug, PartialEq)]
pub enum Parameter {
    /// NULL.
    Null,
    /// A BOOL.
    Bool(bool),
    /// A BIGINT.
    Int(i64),
    /// A DOUBLE.
    Float(f64),
    /// A number with all its digits: `-12.50`.
    Decimal(String),
    /// Text.
    String(String),
    /// A day, counted from 1970-01-01.
    Date(i32),
    /// Microseconds since 1970-01-01 00:00:00, no time zone.
    Timestamp(i64),
    /// Bytes.
    Bytes(Vec<u8>),
}

type List = capnp::struct_list::Owned<parameter::Owned>;

/// Writes values.
pub(crate) fn write(values: &[Parameter], mut to: <List as capnp::traits::Owned>::Builder<'_>) {
    for (i, value) in (0..).zip(values) {
        let mut to = to.reborrow().get(i);
        match value {
            Parameter::Null => to.set_null(()),
            Parameter::Bool(v) => to.set_bool(*v),
            Parameter::Int(v) => to.set_int(*v),
            Parameter::Float(v) => to.set_float(*v),
            Parameter::Decimal(v) => to.set_decimal(v),
            Parameter::String(v) => to.set_string(v),
            Parameter::Date(v) => to.set_date(*v),
            Parameter::Timestamp(v) => to.set_timestamp(*v),
            Parameter::Bytes(v) => to.set_bytes(v),
        }
    }
}

/// Reads values.
pub(crate) fn read(from: <List as capnp::traits::Owned>::Reader<'_>) -> capnp::Result<Vec<Parameter>> {
    // A list of structs without content costs its sender nothing.
    if from.len() as usize > MAX_PREPARED_BYTES {
        return Err(capnp::Error::failed(format!("a prepared statement does not take {} values", from.len())));
    }
    let value = |from: parameter::Reader<'_>| {
        Ok(match from.which()? {
            parameter::Null(()) => Parameter::Null,
            parameter::Bool(v) => Parameter::Bool(v),
            parameter::Int(v) => Parameter::Int(v),
            parameter::Float(v) => Parameter::Float(v),
            parameter::Decimal(v) => Parameter::Decimal(v?.to_string()?),
            parameter::String(v) => Parameter::String(v?.to_string()?),
            parameter::Date(v) => Parameter::Date(v),
            parameter::Timestamp(v) => Parameter::Timestamp(v),
            parameter::Bytes(v) => Parameter::Bytes(v?.to_vec()),
        })
    };
    from.iter().map(value).collect()
}
