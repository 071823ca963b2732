//! stoa-bench
