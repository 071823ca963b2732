//! The plans of TPC-H are valid and come back from their messages, as bound and as distributed.

use stoa_plan::codec::{decode, encode};
use stoa_plan::distribute::distribute;

use crate::catalog;

#[test]
fn the_plans_of_tpch_come_back_from_their_messages() {
    for number in 1..=22 {
        let path = format!("{}/../datasets/tpch/queries/q{number:02}.sql", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        let bound = catalog::plan(&text);
        for query in [distribute(bound.clone()), bound] {
            let message = encode(&query).unwrap_or_else(|e| panic!("q{number:02}: {e}"));
            let back = decode(&message).unwrap_or_else(|e| panic!("q{number:02}: {e}"));
            assert_eq!(back, query, "q{number:02}");
        }
    }
}
