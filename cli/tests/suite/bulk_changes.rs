//! Loads and TRUNCATEs over several partitions: whatever dies when, all rows are there or none.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use stoa_rpc::ipc::one_chunk;
use stoa_rpc::leaf::{LeafService, LeafTransaction, TransactionSetup};
use stoa_rpc::{Io, LeafPool, Security};

use crate::nodes::{Cluster, kill_rounds, text};

/// So many rows are loaded into segments.
const ROWS: u64 = 1 << 16;

/// How often nodes are killed.
fn rounds() -> u64 {
    kill_rounds(8) as u64
}

/// The rows of each load that are there. Asked until the leaves answer and nothing is in doubt.
fn found(cluster: &Cluster) -> BTreeMap<u64, u64> {
    let began = Instant::now();
    loop {
        let output = cluster.sql("SELECT number, count(*) AS n FROM t GROUP BY number");
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        let pair = |line: &str| line.split_once(',').map(|(load, n)| (load.parse().unwrap(), n.parse().unwrap()));
        let found: BTreeMap<u64, u64> = lines.lines().skip(1).filter_map(pair).collect();
        if output.status.success() && found.values().all(|n| *n == ROWS) {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{found:?} {}", text(&output));
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn loads_and_truncates_are_whole_whatever_dies() {
    let cluster = Cluster::start(2);
    let values: Vec<String> = (0..1 << 8).map(|n| format!("({n})")).collect();
    cluster.ok(&format!(
        "CREATE TABLE some (n BIGINT NOT NULL); INSERT INTO some VALUES {}; \
         CREATE TABLE t (number BIGINT NOT NULL, n BIGINT NOT NULL, SHARD KEY (n))",
        values.join(", ")
    ));
    let mut rng = StdRng::seed_from_u64(256);
    let (mut before, mut known) = (BTreeMap::new(), 0);
    for round in 0..rounds() {
        let truncates = round % 3 == 2;
        let sql = match truncates {
            true => "TRUNCATE TABLE t".to_owned(),
            false => format!("INSERT INTO t SELECT {round}, 256 * x.n + y.n FROM some x CROSS JOIN some y"),
        };
        let done = std::thread::scope(|scope| {
            let statement = scope.spawn(|| cluster.sql(&sql).status.success());
            // Somewhere in it; TRUNCATE is quick.
            std::thread::sleep(Duration::from_millis(rng.random_range(0..if truncates { 150 } else { 1200 })));
            cluster.signal(rng.random_range(0..3), "KILL");
            std::thread::sleep(Duration::from_millis(100));
            cluster.start_again();
            statement.join().unwrap()
        });
        known += u64::from(done);
        let after = found(&cluster);
        let mut wanted = before.clone();
        if truncates {
            wanted.clear();
        } else {
            wanted.insert(round, ROWS);
        }
        assert!(after == wanted || !done && after == before, "{sql} ({done}): {after:?} after {before:?}");
        before = after;
    }
    // A leaf that dies is no reason to fail.
    eprintln!("{known} of {} statements succeeded", rounds());
    cluster.ok("TRUNCATE TABLE t; INSERT INTO t SELECT 0, 256 * x.n + y.n FROM some x CROSS JOIN some y");
    assert_eq!(found(&cluster), BTreeMap::from([(0, ROWS)]));
}

#[test]
fn a_duplicate_key_of_a_load_is_named_with_its_file_and_line() {
    let cluster = Cluster::start(2);
    let folder = tempfile::tempdir().unwrap();
    let (good, bad) = (folder.path().join("good.csv"), folder.path().join("bad.csv"));
    let write = |path: &Path, ids: &mut dyn Iterator<Item = u64>| {
        let lines: String = ids.map(|id| format!("{id},{}\n", "some text ".repeat(10))).collect();
        std::fs::write(path, format!("k,v\n{lines}")).unwrap();
    };
    let load = |table: &str, files: &[&Path]| {
        let files: Vec<&str> = files.iter().map(|file| file.to_str().unwrap()).collect();
        cluster.command(&[&["load", table], &files[..], &["--header"]].concat()).output().unwrap()
    };
    // Several chunks for each partition, and rows in another order than they came.
    write(&good, &mut (100_000..150_000));
    write(&bad, &mut (200_000..300_000).map(|id| if id == 287_654 { 4_711 } else { id }));
    for table in ["t", "r"] {
        let kind = if table == "r" { "REFERENCE " } else { "" };
        cluster.ok(&format!("CREATE {kind}TABLE {table} (k BIGINT NOT NULL, v TEXT, PRIMARY KEY (k), SORT KEY (v))"));
        cluster.ok(&format!("INSERT INTO {table} VALUES (4711, 'there')"));
        let output = load(table, &[&good, &bad]);
        let named = format!("bad.csv: table '{table}', line 87656: there is a row with PRIMARY (4711) already");
        assert!(!output.status.success() && text(&output).contains(&named), "{}", text(&output));
        assert_eq!(cluster.ok(&format!("SELECT count(*) AS n FROM {table}")), "n\n1\n");
        assert!(load(table, &[&good]).status.success());
    }
    // Rows that a query gives have numbers too, if they are many enough to be loaded.
    let query = "INSERT INTO t SELECT CASE WHEN k = 149999 THEN 4711 ELSE k + 1000000 END, v FROM r";
    cluster.fails(query, "there is a row with PRIMARY (4711) already");
    cluster.fails(query, "table 't', row ");
}

#[test]
fn a_row_that_does_not_fit_is_named_with_its_file_whenever_that_is_told() {
    let cluster = Cluster::start(2);
    cluster.ok("CREATE TABLE t (k BIGINT NOT NULL, SHARD KEY (k))");
    let mut load = cluster.client().load("t").unwrap();
    let mut push = |file: &str, value: Option<i64>| {
        load.number_rows(file, true, 2);
        load.push(
            &RecordBatch::try_from_iter_with_nullable([("k", Arc::new(Int64Array::from(vec![value])) as ArrayRef, true)])
                .unwrap(),
        )
    };
    let pushed = push("first.csv", None).and_then(|()| push("second.csv", Some(1)));
    let failure = pushed.and_then(|()| load.finish()).unwrap_err();
    assert!(failure.message.starts_with("first.csv: ") && failure.message.contains("line 2"), "{failure:?}");
    assert_eq!(cluster.ok("SELECT count(*) AS n FROM t"), "n\n0\n");
}

/// Begins a transaction of this number that changes the partition of a leaf.
type Begin = fn(&dyn LeafService, u32, u64) -> Arc<dyn LeafTransaction>;

/// A transaction that reads nothing.
fn begin(leaf: &dyn LeafService, ordinal: u32, transaction: u64) -> Arc<dyn LeafTransaction> {
    let (database, address) = ("single".into(), "here".into());
    leaf.begin_transaction(TransactionSetup { transaction, database, address, ordinals: vec![ordinal], blind: true, moment: 0 })
        .unwrap()
}

/// One that loads two rows into the partition of a leaf.
fn load(leaf: &dyn LeafService, ordinal: u32, number: u64) -> Arc<dyn LeafTransaction> {
    let transaction = begin(leaf, ordinal, number);
    let rows = Arc::new(Int64Array::from(vec![number as i64; 2])) as ArrayRef;
    let mut load = transaction.load("t", ordinal).unwrap();
    load.write(one_chunk(&RecordBatch::try_from_iter([("a", rows)]).unwrap()).unwrap(), None).unwrap();
    load.prepare().unwrap();
    assert!(load.commit().is_err(), "the transaction commits it");
    transaction
}

/// One that empties the partition.
fn truncate(leaf: &dyn LeafService, ordinal: u32, number: u64) -> Arc<dyn LeafTransaction> {
    let transaction = begin(leaf, ordinal, number);
    transaction.truncate("t", ordinal).unwrap();
    transaction
}

#[test]
fn loads_and_truncates_in_doubt_become_what_was_decided() {
    let cluster = Cluster::start(2);
    // Each leaf has the only copy of its partition.
    cluster.ok("CREATE DATABASE single PARTITIONS 2 REDUNDANCY 1");
    let query = |sql: &str| {
        let output = cluster.command(&["sql", "--database", "single", "--format", "csv", "-c", sql]).output().unwrap();
        assert!(output.status.success(), "{sql}: {}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    query("CREATE TABLE t (a BIGINT)");
    let pool = || LeafPool::new(Io::start("test-io").unwrap(), Security::new(cluster.secret()));
    let leaves = || [1, 2].map(|node| pool().leaf(&cluster.address(node)).unwrap());
    let ordinal = |leaf: &Arc<dyn LeafService>| {
        leaf.status().unwrap().iter().find(|database| database.name == "single").unwrap().ordinals[0]
    };
    // One that was decided and one that never was, whose coordinator is gone; then the leaf that waits is too.
    let in_doubt = |change: Begin, decided: Option<u64>, not: Option<u64>| {
        let [waits, decides] = leaves();
        let (own, decider) = (ordinal(&waits), ordinal(&decides));
        let prepare = |number| change(&*waits, own, number).prepare(&[own], decider).unwrap();
        let prepared: Vec<u64> = decided.into_iter().chain(not).map(prepare).collect();
        if let Some(number) = decided {
            change(&*decides, decider, number).commit(decider, true, prepared[0]).unwrap();
        }
        assert!(!waits.in_doubt().unwrap().is_empty());
        cluster.signal(1, "KILL");
        cluster.start_again();
        let began = Instant::now();
        while leaves()[0].in_doubt().map_or(true, |all| !all.is_empty()) {
            assert!(began.elapsed() < Duration::from_secs(60));
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    in_doubt(load, Some(1), Some(2));
    assert_eq!(query("SELECT a, count(*) AS n FROM t GROUP BY a"), "a,n\n1,4\n");
    in_doubt(truncate, None, Some(3));
    assert_eq!(query("SELECT count(*) AS n FROM t"), "n\n4\n");
    in_doubt(truncate, Some(4), None);
    assert_eq!(query("SELECT count(*) AS n FROM t"), "n\n0\n");
}
