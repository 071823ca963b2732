//! The 22 queries of TPC-H bind, with plain comparisons at the scans.

use crate::catalog::{nodes, plan};
use stoa_plan::{Expr, Node};

fn query(number: usize) -> String {
    let path = format!("{}/../datasets/tpch/queries/q{number:02}.sql", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

#[test]
fn all_bind() {
    for number in 1..=22 {
        let bound = plan(&query(number));
        assert!(!bound.output.is_empty());
    }
}

#[test]
fn scan_filters_have_no_casts() {
    for number in 1..=22 {
        let bound = plan(&query(number));
        for root in bound.subplans.iter().map(|s| &s.plan).chain([&bound.root]) {
            for node in nodes(root) {
                let Node::Scan(scan) = &node.node else { continue };
                for filter in &scan.filters {
                    filter.walk(&mut |e| {
                        assert!(!matches!(e, Expr::Cast { .. }), "q{number:02}: a cast in {filter:?}");
                    });
                }
            }
        }
    }
}
