//! Cap'n Proto schemas of Stoa and the code generated from them.
//!
//! The schemas are in `schema/capnp/`; the code in `src/generated/` is committed, so that building needs no `capnp` program.

#[rustfmt::skip]
#[path = "generated/manifest_capnp.rs"]
#[allow(missing_docs, clippy::all, clippy::pedantic, rust_2018_idioms)]
pub mod manifest_capnp;

#[rustfmt::skip]
#[path = "generated/segment_capnp.rs"]
#[allow(missing_docs, clippy::all, clippy::pedantic, rust_2018_idioms)]
pub mod segment_capnp;

#[rustfmt::skip]
#[path = "generated/plan_capnp.rs"]
#[allow(missing_docs, clippy::all, clippy::pedantic, rust_2018_idioms)]
pub mod plan_capnp;

pub mod limits;
