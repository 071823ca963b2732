//! The commands of the binary, one module each.

pub mod admin;
mod certificates;
pub mod check;
pub mod cluster;
pub mod inspect;
pub mod load;
pub mod node;
pub mod sql;
pub mod tpch;
