//! Tests of the optimizer on the TPC-H queries.
