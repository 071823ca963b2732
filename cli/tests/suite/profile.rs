//! EXPLAIN, EXPLAIN ANALYZE and plans that clients submit, on two leaves.

use arrow::array::RecordBatch;
use stoa::engine::{Engine, Outcome, Setup};
use stoa_columnstore::Options;
use stoa_coordinator::{Error, Session};
use stoa_exec::{CancelToken, Progress, Settings};
use stoa_plan::codec::encode;
use stoa_plan::{ColumnId, DataType, ExchangeKind, Expr, Field, Join, JoinKind, Node, Plan, Query, Scan, ScanColumn, Side};

use crate::leaves::Leaves;
use crate::nodes::Cluster;

fn run(session: &Session, sql: &str) -> Result<String, Error> {
    let mut plan = String::new();
    session.run(sql, &CancelToken::default(), &Progress::default(), &mut |outcome| {
        if let Outcome::Plan(text) = outcome {
            plan = text;
        }
        Ok::<(), Error>(())
    })?;
    Ok(plan)
}

/// The lines of a plan that begin with this, without what is before.
fn lines<'a>(plan: &'a str, with: &str) -> Vec<&'a str> {
    plan.lines().map(str::trim).filter(|line| line.starts_with(with)).collect()
}

#[test]
fn what_each_leaf_did_is_shown() {
    let cluster = Cluster::start(2);
    cluster.ok("CREATE DATABASE d PARTITIONS 4 REDUNDANCY 1");
    let sql = |sql: &str| {
        let output = cluster.command(&["sql", "--database", "d", "--format", "csv", "-c", sql]).output().unwrap();
        assert!(output.status.success(), "{}", crate::nodes::text(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let values = |of: std::ops::Range<i64>| of.map(|a| format!("({a}, {})", a % 7)).collect::<Vec<_>>().join(", ");
    sql(&format!("CREATE TABLE t (a BIGINT, b BIGINT, SHARD KEY (a)); INSERT INTO t VALUES {}", values(0..1000)));
    sql(&format!("CREATE TABLE u (a BIGINT, b BIGINT, SHARD KEY (a)); INSERT INTO u VALUES {}", values(0..1000)));

    // One exchange: a partial aggregate on each leaf, of seven groups that both of its partitions have.
    let grouped = sql("PROFILE SELECT b, count(*) FROM t GROUP BY b");
    for leaf in [1, 2] {
        let line = lines(&grouped, &format!("leaf {}: ", cluster.address(leaf)));
        let [line] = line[..] else { panic!("{grouped}") };
        let figures: Vec<&str> = line.rsplit(": ").next().unwrap().split(' ').collect();
        assert_eq!(figures[0], "rows=7", "{grouped}");
        let sent: u64 = figures[1].strip_prefix("sent=").and_then(|sent| sent.strip_suffix('B')).unwrap().parse().unwrap();
        assert!(sent > 0 && figures[2].starts_with("wall=") && figures[2].ends_with('s'), "{grouped}");
    }
    assert_eq!(lines(&grouped, "skew 1.00").len(), 1, "{grouped}");
    assert!(grouped.contains("rows=1000") && grouped.contains("executed in"), "{grouped}");

    // A row of one key is on one leaf: the skew says so where two of them took part.
    let one = sql("PROFILE SELECT a FROM t WHERE b = 3 AND a * 2 = 6");
    assert_eq!(lines(&one, "skew 2.00").len(), 1, "{one}");

    // Exchanges, as they are planned.
    let gather = sql("EXPLAIN SELECT b, count(*) FROM t GROUP BY b");
    assert!(gather.contains("Gather") && !gather.contains("leaf "), "{gather}");
    let collocated = sql("EXPLAIN SELECT count(*) FROM t JOIN u ON t.a = u.a");
    assert!(
        collocated.contains("collocated") && !collocated.contains("Broadcast") && !collocated.contains("Shuffle"),
        "{collocated}"
    );
    let moved = sql("EXPLAIN SELECT count(*) FROM t JOIN u ON t.b = u.b");
    assert!(moved.contains("Broadcast") || moved.contains("Shuffle"), "{moved}");
    let profiled = sql("PROFILE SELECT count(*) FROM t JOIN u ON t.b = u.b");
    let per_leaf = |leaf| lines(&profiled, &format!("leaf {}: rows=", cluster.address(leaf))).len();
    assert!(per_leaf(1) >= 2 && per_leaf(1) == per_leaf(2), "each fragment says what each leaf did: {profiled}");
}

/// It runs in the transaction that is open, as the query itself would.
#[test]
fn a_profile_sees_the_transaction_that_is_open() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { fsync: false, ..Options::default() };
    let cluster = Leaves::start(folder.path(), 2, 4, &Settings::default(), &options);
    let setup = Setup { memory_limit: 1 << 28, threads: 1, settings: Settings::default(), storage: options };
    let engine = Engine::with_setup(&folder.path().join("embedded"), &setup).unwrap();
    let embedded = |sql: &str| {
        let mut plan = String::new();
        let mut each = |outcome| {
            if let Outcome::Plan(text) = outcome {
                plan = text;
            }
            Ok(())
        };
        engine.run(sql, &CancelToken::default(), &mut each).unwrap();
        plan
    };
    let on_leaves = |sql: &str| run(&cluster.session, sql).unwrap();
    for on in [&on_leaves as &dyn Fn(&str) -> String, &embedded] {
        on("CREATE TABLE t (a BIGINT, SHARD KEY (a)); INSERT INTO t VALUES (1), (2), (3)");
        on("BEGIN; INSERT INTO t VALUES (4), (5); DELETE FROM t WHERE a = 1");
        let within = on("EXPLAIN ANALYZE SELECT a FROM t");
        assert!(within.contains("rows=4 "), "{within}");
        on("ROLLBACK");
        let after = on("EXPLAIN ANALYZE SELECT a FROM t");
        assert!(after.contains("rows=3 "), "{after}");
    }
}

fn field(id: u32, name: &str) -> Field {
    Field { id: ColumnId(id), name: name.into(), ty: DataType::Int64, nullable: true }
}

/// The scan of two columns of a table that claims to have its rows elsewhere than they are.
fn scan(table: &str, first: u32, reference: bool, shard_key: Vec<u32>) -> Plan {
    let columns = [(0, "a"), (1, "b")].map(|(ordinal, name)| ScanColumn { ordinal, field: field(first + ordinal, name) });
    Plan::new(Node::Scan(Scan {
        table: table.into(),
        columns: columns.to_vec(),
        filters: vec![],
        filter_columns: vec![],
        runtime_filters: vec![],
        reference,
        shard_key,
        revision: 0,
    }))
}

fn submit(session: &Session, root: Plan) -> Result<usize, Error> {
    let query = Query { subplans: vec![], root, output: vec![field(0, "a")] };
    let query = stoa_plan::codec::decode(&encode(&query).unwrap()).unwrap();
    let mut rows = 0;
    session.run_plan(&query, &CancelToken::default(), &Progress::default(), &mut |outcome| {
        if let Outcome::Rows { batches, .. } | Outcome::More(batches) = outcome {
            rows += batches.iter().map(RecordBatch::num_rows).sum::<usize>();
        }
        Ok::<(), Error>(())
    })?;
    Ok(rows)
}

#[test]
fn a_submitted_plan_does_not_say_where_rows_are() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { fsync: false, ..Options::default() };
    let cluster = Leaves::start(folder.path(), 2, 4, &Settings::default(), &options);
    let session = &cluster.session;
    let values: Vec<String> = (0..100).map(|a| format!("({a}, {})", 99 - a)).collect();
    let values = values.join(", ");
    let make = format!(
        "CREATE TABLE t (a BIGINT, b BIGINT, SHARD KEY (a)); INSERT INTO t VALUES {values};
         CREATE TABLE u (a BIGINT, b BIGINT, SHARD KEY (a)); INSERT INTO u VALUES {values}"
    );
    run(session, &make).unwrap();
    for (reference, key) in [(false, vec![0]), (true, vec![]), (true, vec![1]), (false, vec![1]), (false, vec![])] {
        assert_eq!(submit(session, scan("t", 0, reference, key.clone())).unwrap(), 100, "{reference} {key:?}");
        // Rows that meet by `t.b = u.b` are not on the same leaf.
        let on = |id, name: &str| Expr::Column(ColumnId(id), field(id, name).ty);
        let join = Join {
            kind: JoinKind::Inner,
            left: scan("t", 0, false, key.clone()),
            right: scan("u", 10, reference, vec![0]),
            on: vec![(on(1, "b"), on(10, "a"))],
            null_equals_null: false,
            residual: None,
            build: Side::Right,
            publishes: vec![],
        };
        let joined = submit(session, Plan::new(Node::Join(Box::new(join)))).unwrap();
        assert_eq!(joined, 100, "{reference} {key:?}");
    }
    let gathered = Node::Exchange { input: Box::new(scan("t", 0, false, vec![])), kind: ExchangeKind::Gather };
    let error = submit(session, Plan::new(gathered)).unwrap_err().to_string();
    assert!(error.contains("a plan that is submitted has no exchanges"), "{error}");
    let missing = submit(session, scan("nowhere", 0, false, vec![])).unwrap_err().to_string();
    assert!(missing.contains("nowhere"), "{missing}");
    // It sees the transaction that is open.
    run(session, "BEGIN; DELETE FROM t WHERE a < 10").unwrap();
    assert_eq!(submit(session, scan("t", 0, false, vec![])).unwrap(), 90);
    run(session, "ROLLBACK").unwrap();
}
