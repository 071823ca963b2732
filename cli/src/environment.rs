//! What environment variables may say that are no options of the command line.
//!
//! Libraries read them where they are needed, and go by the default if one says nothing that they know. Here a process refuses such a
//! value before it begins.

use std::ffi::OsString;

use stoa_kernels::Isa;

use crate::{Error, Result};

/// What a variable takes.
#[derive(Clone, Copy)]
enum Takes {
    Level,
    Durability,
    /// A whole number above 0.
    Count,
    /// A number that is not negative.
    Ratio,
    Switch,
}

const VARIABLES: [(&str, Takes); 15] = [
    ("STOA_ISA", Takes::Level),
    ("STOA_DURABILITY", Takes::Durability),
    ("STOA_SEGMENT_ROWS", Takes::Count),
    ("STOA_PARTITIONS", Takes::Count),
    ("STOA_FLUSH_ROWS", Takes::Count),
    ("STOA_MERGE_BYTES", Takes::Count),
    ("STOA_CHECKPOINT_BYTES", Takes::Count),
    ("STOA_VECTOR_SIZE", Takes::Count),
    ("STOA_MERGE_REST", Takes::Ratio),
    ("STOA_FSYNC", Takes::Switch),
    ("STOA_EAGER_MAINTENANCE", Takes::Switch),
    ("STOA_HASH_ZERO", Takes::Switch),
    ("STOA_SERIALIZE_STATES", Takes::Switch),
    ("STOA_NO_FAST_PATHS", Takes::Switch),
    ("STOA_ALWAYS_SHUFFLE", Takes::Switch),
];

impl Takes {
    fn accepts(self, value: &str) -> bool {
        match self {
            Takes::Level => Isa::from_name(value).is_some(),
            Takes::Durability => ["sync", "async"].iter().any(|word| word.eq_ignore_ascii_case(value)),
            Takes::Count => value.parse::<usize>().is_ok_and(|count| count > 0),
            Takes::Ratio => value.parse::<f64>().is_ok_and(|ratio| ratio.is_finite() && ratio >= 0.0),
            Takes::Switch => matches!(value, "0" | "1"),
        }
    }

    fn words(self) -> &'static str {
        match self {
            Takes::Level => "scalar, avx2 or avx512",
            Takes::Durability => "sync or async",
            Takes::Count => "a whole number above 0",
            Takes::Ratio => "a number that is not negative",
            Takes::Switch => "0 or 1",
        }
    }
}

/// Checks the variables that are set, as `get` gives them.
///
/// # Errors
/// Names the first one with a value that it does not take, and what it takes.
pub fn check(get: impl Fn(&str) -> Option<OsString>) -> Result<()> {
    for (name, takes) in VARIABLES {
        let Some(value) = get(name) else { continue };
        let value = value.to_string_lossy();
        if !takes.accepts(&value) {
            return Err(Error::Invalid(format!("{name} is '{value}' in the environment: it takes {}", takes.words())));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_nothing_takes_are_refused() {
        let with = |name: &'static str, value: &'static str| check(|asked| (asked == name).then(|| value.into()));
        for (name, value) in [("STOA_ISA", "AVX2"), ("STOA_DURABILITY", "Async"), ("STOA_MERGE_REST", "0"), ("STOA_FSYNC", "0")] {
            with(name, value).unwrap();
        }
        for (name, value) in [
            ("STOA_ISA", "sse9"),
            ("STOA_DURABILITY", "asink"),
            ("STOA_SEGMENT_ROWS", "0"),
            ("STOA_MERGE_REST", "-1"),
            ("STOA_FSYNC", ""),
        ] {
            let error = with(name, value).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{name} is '{value}' in the environment: it takes ")), "{error}");
        }
    }
}
