//! How long binding takes: `cargo test --release -p stoa-sql --test timing -- --ignored --nocapture`.

mod catalog;

use std::time::{Duration, Instant};

use stoa_sql::Statement;

/// Bindings of each query; the median of them is printed.
const ROUNDS: usize = 41;

#[test]
#[ignore = "a measurement, not a check"]
fn tpch() {
    let tables = catalog::Tables::all();
    let mut total = Duration::ZERO;
    for number in 1..=22 {
        let path = format!("{}/../datasets/tpch/queries/q{number:02}.sql", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        let mut times: Vec<Duration> = (0..ROUNDS)
            .map(|_| {
                let start = Instant::now();
                let statements = stoa_sql::parse(&text).expect("a statement");
                let Some(Statement::Query(query)) = statements.first() else { panic!("a query") };
                std::hint::black_box(stoa_sql::bind_query(query, &tables).expect("a plan"));
                start.elapsed()
            })
            .collect();
        let first = times[0];
        times.sort_unstable();
        let median = times[ROUNDS / 2];
        total += median;
        println!("q{number:02} first {first:8.3?} median {median:8.3?}");
    }
    println!("sum of medians {total:.3?}");
}
