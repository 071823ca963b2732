//! Data sets with their queries and right answers: TPC-H.
//!
//! Nothing here is needed by the engine at run time; the `stoa tpch` command, the tests and the benches use it.

pub mod tpch;
