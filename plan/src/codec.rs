//! Queries to Cap'n Proto bytes and back; `schema/capnp/plan.capnp` is the format.
//!
//! [`decode`] takes bytes from anyone. What it keeps true:
//! - It never panics, and its cost is bounded by the length of the input and by [`stoa_schema::limits`].
//! - What it returns has passed [`crate::validate`]: every column and parameter that is used is defined where it is used, with one
//!   type. An executor may trust a decoded query as much as one that the optimizer made.
//! - `decode(encode(q)) == q` for every valid query within the limits.
//!
//! [`encode`] keeps to the same limits, so that it never writes what [`decode`] refuses for its size.

mod budget;
mod decode_expression;
mod decode_node;
mod encode_expression;
mod encode_node;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod round_trip_tests;
mod statistics;
#[cfg(test)]
mod strategy;
mod values;

use capnp::serialize;
use stoa_schema::limits::{self, MAX_COLUMNS, MAX_MESSAGE_SEGMENTS, MAX_PLAN_BYTES, MAX_SUBPLANS, PLAN_VERSION};
use stoa_schema::plan_capnp as wire;

use crate::validate::{ValidateError, validate};
use crate::{FilterId, ParameterId, Query, Subplan, SubplanKind};
use budget::Budget;
pub use statistics::{TableSummary, decode_statistics, encode_statistics};

/// Why a message is not a plan, or a plan has no message.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The bytes are not a message of the plan schema.
    #[error("malformed plan message: {0}")]
    Malformed(String),
    /// The message holds something that this release does not know.
    #[error("the plan message has {0}, which this release does not know: it comes from a newer version")]
    Newer(String),
    /// Something that must be there is not.
    #[error("malformed plan message: {0} is missing")]
    Missing(&'static str),
    /// Larger than `schema/src/limits.rs` allows.
    #[error("the plan is too large: more than {limit} {what}")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much there may be.
        limit: usize,
    },
    /// A well-formed message of a plan that cannot be run.
    #[error("invalid plan: {0}")]
    Invalid(#[from] ValidateError),
}

impl From<capnp::Error> for CodecError {
    fn from(error: capnp::Error) -> Self {
        CodecError::Malformed(error.to_string())
    }
}

impl From<std::str::Utf8Error> for CodecError {
    fn from(error: std::str::Utf8Error) -> Self {
        CodecError::Malformed(error.to_string())
    }
}

/// An enumerant or union member that this release does not know.
fn newer(what: &str, found: capnp::NotInSchema) -> CodecError {
    CodecError::Newer(format!("{what} {}", found.0))
}

/// The message of a query.
///
/// # Errors
/// [`CodecError::TooLarge`] for a plan that goes past the limits of `schema/src/limits.rs`.
pub fn encode(query: &Query) -> Result<Vec<u8>, CodecError> {
    let mut message = capnp::message::Builder::new_default();
    let mut budget = Budget::default();
    let mut root = message.init_root::<wire::query::Builder<'_>>();
    root.set_version(PLAN_VERSION);
    let count = budget::length("subplans", query.subplans.len(), MAX_SUBPLANS)?;
    let mut subplans = root.reborrow().init_subplans(count);
    for (i, subplan) in (0..count).zip(&query.subplans) {
        let mut to = subplans.reborrow().get(i);
        match subplan.kind {
            SubplanKind::Scalar(ParameterId(id)) => to.set_scalar(id),
            SubplanKind::Shared(number) => to.set_shared(number),
            SubplanKind::Received(number) => to.set_received(number),
            SubplanKind::Filter(FilterId(id)) => to.set_filter(id),
        }
        encode_node::plan(&subplan.plan, to.init_plan(), 1, &mut budget)?;
    }
    encode_node::plan(&query.root, root.reborrow().init_root(), 1, &mut budget)?;
    let count = budget::length("output columns", query.output.len(), MAX_COLUMNS)?;
    values::encode_fields(&query.output, &mut root.init_output(count))?;
    let bytes = serialize::write_message_to_words(&message);
    budget::length("bytes", bytes.len(), MAX_PLAN_BYTES)?;
    Ok(bytes)
}

/// The query of a message, validated.
///
/// # Errors
/// Whatever is wrong with the message, see [`CodecError`].
pub fn decode(bytes: &[u8]) -> Result<Query, CodecError> {
    budget::length("bytes", bytes.len(), MAX_PLAN_BYTES)?;
    let segments = bytes.first_chunk::<4>().map_or(0, |b| u32::from_le_bytes(*b) as usize);
    budget::length("message segments", segments.saturating_add(1), MAX_MESSAGE_SEGMENTS)?;
    let mut rest = bytes;
    let message = serialize::read_message(&mut rest, limits::plan_reader_options(bytes.len()))?;
    if !rest.is_empty() {
        return Err(CodecError::Malformed(format!("{} bytes follow the message", rest.len())));
    }
    let query = decode_query(message.get_root::<wire::query::Reader<'_>>()?)?;
    validate(&query)?;
    Ok(query)
}

fn decode_query(from: wire::query::Reader<'_>) -> Result<Query, CodecError> {
    if from.get_requires() > PLAN_VERSION {
        return Err(CodecError::Newer(format!("features of version {} (this one reads {PLAN_VERSION})", from.get_requires())));
    }
    if !from.has_root() {
        return Err(CodecError::Missing("the root of the query"));
    }
    let mut budget = Budget::default();
    let list = from.get_subplans()?;
    budget::length("subplans", list.len() as usize, MAX_SUBPLANS)?;
    let mut subplans = Vec::new();
    for subplan in list {
        let kind = match subplan.which().map_err(|e| newer("subplan kind", e))? {
            wire::subplan::Which::Scalar(id) => SubplanKind::Scalar(ParameterId(id)),
            wire::subplan::Which::Shared(number) => SubplanKind::Shared(number),
            wire::subplan::Which::Received(number) => SubplanKind::Received(number),
            wire::subplan::Which::Filter(id) => SubplanKind::Filter(FilterId(id)),
        };
        if !subplan.has_plan() {
            return Err(CodecError::Missing("the plan of a subplan"));
        }
        subplans.push(Subplan { kind, plan: decode_node::plan(subplan.get_plan()?, 1, &mut budget)? });
    }
    let root = decode_node::plan(from.get_root()?, 1, &mut budget)?;
    let output = values::decode_fields("output columns", from.get_output()?)?;
    Ok(Query { subplans, root, output })
}
