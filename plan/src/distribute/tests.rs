//! Tests of distribution.
