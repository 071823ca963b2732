//! Tests of the text form of plans.
