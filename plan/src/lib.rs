//! The plan of a query, from the SQL front end to the leaves.
//!
//! A [`Query`] is a tree of [`Plan`] nodes over named tables plus the subplans that run before it. The front end (`stoa-sql`)
//! produces it in logical form, [`optimize`](optimizer::optimize) orders joins by cost, pushes filters down and assigns run-time
//! filters, and [`distribute`](distribute::distribute) cuts it into fragments that run once a partition and the merge above them.
//! [`codec`] turns a query into Cap'n Proto bytes and back: it is the form in which clients and coordinators submit plans.
//!
//! What it keeps true: every column of a query has one [`ColumnId`], defined by exactly one node and visible only above it.

pub mod codec;
pub mod distribute;
pub mod explain;
pub mod expr;
pub mod ir;
pub mod optimizer;
#[cfg(test)]
mod sample;
pub mod statistics;
mod traverse;
pub mod types;
pub mod validate;

pub use expr::{AggregateCall, AggregateFunction, BinaryOp, Expr, UnaryOp};
pub use ir::*;
pub use statistics::{ColumnStatistics, StatisticsSource, TableStatistics};
pub use types::{DataType, Literal, Value};
