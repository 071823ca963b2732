//! Cap'n Proto schemas of Stoa and the code generated from them.
//!
//! The schemas are in `schema/capnp/`; the code in `src/generated/` is committed, so that building needs no `capnp` program.

#[rustfmt::skip]
#[path = "generated/manifest_capnp.rs"]
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::unimplemented, rust_2018_idioms)]
pub mod manifest_capnp;

#[rustfmt::skip]
#[path = "generated/segment_capnp.rs"]
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::unimplemented, rust_2018_idioms)]
pub mod segment_capnp;

#[rustfmt::skip]
#[path = "generated/plan_capnp.rs"]
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::unimplemented, rust_2018_idioms)]
pub mod plan_capnp;

#[rustfmt::skip]
#[path = "generated/common_capnp.rs"]
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::unimplemented, rust_2018_idioms)]
pub mod common_capnp;

#[rustfmt::skip]
#[path = "generated/leaf_capnp.rs"]
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::unimplemented, rust_2018_idioms)]
pub mod leaf_capnp;

#[rustfmt::skip]
#[path = "generated/statistics_capnp.rs"]
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::unimplemented, rust_2018_idioms)]
pub mod statistics_capnp;

#[rustfmt::skip]
#[path = "generated/coordinator_capnp.rs"]
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::unimplemented, rust_2018_idioms)]
pub mod coordinator_capnp;

#[rustfmt::skip]
#[path = "generated/admin_capnp.rs"]
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::unimplemented, rust_2018_idioms)]
pub mod admin_capnp;

#[rustfmt::skip]
#[path = "generated/log_capnp.rs"]
#[allow(missing_docs, clippy::all, clippy::pedantic, clippy::unimplemented, rust_2018_idioms)]
pub mod log_capnp;

pub mod limits;
