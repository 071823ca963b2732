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

#[test]
fn rows_are_sorted_where_they_are_and_merged_above() {
    let tables = Tables::tpch();
    let titles = |sql: &str| {
        let text = stoa_plan::explain::explain(&tables.distribute(sql), None);
        let title = |line: &str| line.split("  [").next().unwrap_or_default().trim().to_owned();
        text.lines().filter(|line| line.contains("  [")).map(title).collect::<Vec<_>>()
    };
    let keys = "s_name DESC, s_suppkey NULLS FIRST";
    let sql = format!("SELECT s_name, s_suppkey FROM supplier ORDER BY {keys}");
    let scan = "Scan supplier: s_suppkey, s_name";
    let (merge, sort) = (format!("Merge sorted by {keys}"), format!("Sort by {keys}"));
    assert_eq!(titles(&sql), [&*merge, "Gather", &*sort, scan]);
    let (merge, sort) = (format!("{merge}, first 7, after 2"), format!("{sort}, first 9"));
    assert_eq!(titles(&format!("{sql} LIMIT 7 OFFSET 2")), [&*merge, "Gather", &*sort, scan]);
    let (merge, sort) = (format!("Merge sorted by {keys}, after 2"), format!("Sort by {keys}"));
    assert_eq!(titles(&format!("{sql} OFFSET 2")), [&*merge, "Gather", &*sort, scan]);
    let grouped = titles("SELECT s_nationkey, count(*) AS n FROM supplier GROUP BY s_nationkey ORDER BY n");
    let any = |what: &str| grouped.iter().any(|title| title.starts_with(what));
    assert!(any("Sort by") && !any("Merge"), "{grouped:?}");
}
