//! The plans of the 22 queries of TPC-H over statistics of scale factor 1.

mod catalog;

use catalog::{Tables, tpch};

#[test]
fn all_plans_are_valid() {
    let tables = Tables::tpch();
    for number in 1..=22 {
        let query = tables.distribute(&tpch(number));
        if std::env::var("SHOW_PLANS").is_ok() {
            println!("== q{number:02}\n{}", stoa_plan::explain::explain(&query, None));
        }
        stoa_plan::validate::validate(&query).unwrap_or_else(|e| panic!("q{number:02}: {e}"));
    }
}
