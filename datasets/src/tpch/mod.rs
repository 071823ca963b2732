//! TPC-H: tables, generator, queries, answers, and the comparison of a result with its answer.

mod check;
mod tables;
mod texts;

pub use check::{Mismatch, check};
pub use tables::{Batches, TABLES, Table, table};
pub use texts::{QUERY_COUNT, answer, query};
