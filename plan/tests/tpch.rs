//! The plans of the 22 queries of TPC-H over statistics of scale factor 1.

mod catalog;

use catalog::{Tables, tpch};

#[test]
fn all_plans_are_valid() {
    let tables = Tables::tpch();
    for number in 1..=22 {
        let sql = tpch(number);
        let queries = [2, 5].map(|leaves| tables.distribute_over(&sql, leaves));
        for (query, shape) in
            queries.into_iter().chain([tables.distribute(&sql)]).zip(["two leaves", "five leaves", "one process"])
        {
            if std::env::var("SHOW_PLANS").is_ok() {
                println!("== q{number:02}, {shape}\n{}", stoa_plan::explain::explain(&query, None));
            }
            stoa_plan::validate::validate(&query).unwrap_or_else(|e| panic!("q{number:02}, {shape}: {e}"));
        }
    }
}

/// What the nodes of a plan are, from the root on.
fn titles(query: &stoa_plan::Query) -> Vec<String> {
    let text = stoa_plan::explain::explain(query, None);
    let title = |line: &str| line.split("  [").next().unwrap_or_default().trim().to_owned();
    text.lines().filter(|line| line.contains("  [")).map(title).collect()
}

/// Of customers only twenty rows are sent: groups are whole where these are, and the rows that are sent there are narrow.
#[test]
fn between_leaves_what_moves_is_small() {
    let tables = Tables::tpch();
    let titles = titles(&tables.distribute_over(&tpch(10), 2));
    let moves = |title: &&String| ["Gather", "Shuffle", "Broadcast"].iter().any(|kind| title.starts_with(kind));
    assert_eq!(titles.iter().filter(moves).collect::<Vec<_>>(), ["Gather", "Shuffle by o_custkey"], "{titles:?}");
    assert!(titles[1] == "Gather" && titles[2].ends_with("first 20") && titles[3].starts_with("Aggregate by"), "{titles:?}");
}

/// Where there are many groups, rows are joined where these are then whole, although the order that does so builds the larger side.
#[test]
fn many_groups_are_whole_where_rows_are_joined() {
    let sql = "SELECT c_custkey, c_name, sum(o_totalprice) FROM customer JOIN orders ON c_custkey = o_custkey GROUP BY";
    let tables = Tables::tpch();
    let aggregates = |keys: &str| {
        let titles = titles(&tables.distribute_over(&format!("{} {keys}", sql.replace("c_custkey, c_name", keys)), 8));
        titles.into_iter().filter(|title| title.starts_with("Aggregate")).collect::<Vec<_>>()
    };
    let whole = aggregates("c_custkey, c_name");
    assert!(whole.len() == 1 && whole[0].starts_with("Aggregate by"), "{whole:?}");
    assert_eq!(aggregates("c_mktsegment").len(), 2);
}

/// Orders are counted by customer before they meet their customers, where there are several of each.
#[test]
fn rows_of_an_outer_join_are_counted_below_it() {
    let tables = Tables::tpch();
    let counted = |sql: &str| titles(&tables.distribute(sql)).iter().any(|title| title.contains("by o_custkey"));
    assert!(counted(&tpch(13)));
    // What a join on the leaves needs is merged there, and not where the query was asked.
    let on_leaves = titles(&tables.distribute_over(&tpch(13), 2));
    assert_eq!(on_leaves.iter().filter(|title| *title == "Gather").count(), 1, "{on_leaves:?}");
    let query = |call: &str, join: &str| {
        format!("SELECT c_custkey, {call} FROM customer {join} JOIN orders ON c_custkey = o_custkey GROUP BY c_custkey")
    };
    assert!(counted(&query("count(o_comment), max(o_orderdate)", "LEFT")));
    for (call, join) in [
        ("count(*)", "LEFT"),
        ("count(o_comment), count(*)", "LEFT"),
        ("count(c_comment)", "LEFT"),
        ("count(coalesce(o_comment, ''))", "LEFT"),
        ("count(DISTINCT o_comment)", "LEFT"),
        ("count(o_comment)", "INNER"),
        ("count(c_comment)", "RIGHT"),
    ] {
        assert!(!counted(&query(call, join)), "{call}, {join}");
    }
    let one_each =
        "SELECT o_custkey, count(c_comment) FROM orders LEFT JOIN customer ON c_custkey = o_custkey GROUP BY o_custkey";
    assert!(!titles(&tables.distribute(one_each)).iter().any(|title| title.contains("by c_custkey")));
}

/// What need not move does not: the sides of a join that have the same shard key, and the smaller side where only that one has it.
#[test]
fn joins_move_the_side_that_costs_less() {
    let tables = Tables::tpch();
    let moves = |sql: &str, leaves| {
        let titles = titles(&tables.distribute_over(sql, leaves));
        titles.into_iter().filter(|title| title.starts_with("Shuffle") || title.starts_with("Broadcast")).collect::<Vec<_>>()
    };
    let joined = "SELECT sum(l_quantity) FROM lineitem JOIN orders ON l_orderkey = o_orderkey WHERE o_orderdate < '1993-01-01'";
    assert!(moves(joined, 3).is_empty());
    let routed = "SELECT c_name, o_orderdate FROM customer JOIN orders ON c_custkey = o_custkey WHERE o_orderdate < '1992-02-01'";
    assert_eq!(moves(routed, 3), ["Shuffle by o_custkey"]);
    let few = "SELECT c_name, o_orderdate FROM customer JOIN orders ON c_custkey = o_custkey WHERE c_acctbal < -999.5";
    assert_eq!(moves(few, 3), ["Broadcast"]);
}

/// Nothing moves where both sides have the join's key as their shard key: the smaller one is built, also if its rows are what comes out.
#[test]
fn dependent_joins_on_shard_keys_build_the_smaller_side() {
    let titles = titles(&Tables::tpch().distribute(&tpch(21)));
    for kind in ["Left anti", "Left semi"] {
        let join = titles.iter().find(|title| title.starts_with(kind)).unwrap();
        assert!(join.ends_with("build left, collocated"), "{join}");
    }
}

#[test]
fn rows_are_sorted_where_they_are_and_merged_above() {
    let tables = Tables::tpch();
    let titles = |sql: &str| titles(&tables.distribute(sql));
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
