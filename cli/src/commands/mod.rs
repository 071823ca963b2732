//! The commands of the binary, one module each.

pub mod inspect;
pub mod load;
pub mod sql;
pub mod tpch;
