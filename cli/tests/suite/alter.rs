//! ALTER TABLE on clusters of processes, while clients read and write and leaves die.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::nodes::{Cluster, text};

/// The values of the last row of a CSV answer.
fn last(answer: &str) -> Vec<i64> {
    let line = answer.lines().last().unwrap_or_default();
    line.split(',').map(|n| n.parse().unwrap_or_else(|_| panic!("{answer}"))).collect()
}

/// Reads and writes by name while `alter` runs: no value may be of another column, and nothing may fail.
fn under_load(cluster: &Cluster, alter: impl FnOnce()) -> u64 {
    let (ended, next) = (AtomicBool::new(false), AtomicU64::new(1000));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (ended, next) = (&ended, &next);
            scope.spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    let id = next.fetch_add(1, Ordering::Relaxed);
                    cluster
                        .ok(&format!("INSERT INTO t (c, id) VALUES ({}, {id}); UPDATE t SET c = c + 0 WHERE id = {id}", 3 * id));
                    cluster.ok(&format!("REPLACE INTO names (id, c) VALUES ({0}, {0})", id % 7));
                }
            });
        }
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                let said = cluster.ok("SELECT count(*) AS n, sum(CASE WHEN c = 3 * id THEN 1 ELSE 0 END) AS r FROM t");
                let row = last(&said);
                assert!(row[0] == row[1] && row[0] >= 100, "{said}");
                let said = cluster.ok("SELECT count(*) AS n, count(names.c) AS r FROM t JOIN names ON t.id = names.id");
                let row = last(&said);
                assert_eq!(row[0], row[1], "{said}");
            }
        });
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(alter));
        ended.store(true, Ordering::Relaxed);
        done.unwrap();
    });
    next.into_inner() - 1000
}

fn with_rows() -> Cluster {
    let cluster = Cluster::start(2);
    let rows: Vec<String> = (0..100).map(|id| format!("({id}, {}, {})", 1000 + id, 3 * id)).collect();
    cluster.ok("CREATE TABLE t (id BIGINT PRIMARY KEY, b BIGINT, c BIGINT NOT NULL)");
    cluster.ok("CREATE REFERENCE TABLE names (id BIGINT PRIMARY KEY, b BIGINT, c BIGINT NOT NULL)");
    cluster.ok(&format!("INSERT INTO t VALUES {}; INSERT INTO names VALUES (1, 1, 1), (2, 2, 2)", rows.join(", ")));
    cluster
}

#[test]
fn tables_are_altered_under_reads_and_writes() {
    let cluster = with_rows();
    cluster.wait_for_replicas(2);
    let written = under_load(&cluster, || {
        for round in 0..3 {
            for sql in [
                "ALTER TABLE t DROP COLUMN b; ALTER TABLE names DROP COLUMN b".to_owned(),
                format!("ALTER TABLE t ADD COLUMN b BIGINT DEFAULT {round}"),
                "OPTIMIZE TABLE t FLUSH; OPTIMIZE TABLE t FULL".to_owned(),
                format!("ALTER TABLE names ADD COLUMN b BIGINT DEFAULT {round}"),
                "ALTER TABLE t RENAME COLUMN b TO d; ALTER TABLE t RENAME COLUMN d TO b".to_owned(),
            ] {
                cluster.ok(&sql);
                std::thread::sleep(Duration::from_millis(150));
            }
        }
    });
    assert!(written > 10, "{written} rows");
    let all = last(
        &cluster.ok("SELECT count(*) AS n, count(CASE WHEN c = 3 * id THEN 1 END) AS r, min(b) AS b FROM t WHERE id < 1000"),
    );
    assert_eq!(all, [100, 100, 2]);
    // Its replica has it too.
    cluster.wait_for_replicas(2);
    cluster.signal(1, "KILL");
    assert_eq!(last(&cluster.ok("SELECT count(*) AS n, min(b) AS b FROM t WHERE id < 1000")), [100, 2]);
    cluster.start_again();
}

#[test]
fn a_leaf_that_was_away_learns_what_it_missed() {
    let cluster = Cluster::start(2);
    cluster.ok("CREATE DATABASE single PARTITIONS 4 REDUNDANCY 1");
    let sql = |sql: &str| {
        let output = cluster.command(&["sql", "--database", "single", "--format", "csv", "-c", sql]).output().unwrap();
        assert!(output.status.success(), "{sql}: {}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    sql("CREATE TABLE t (id BIGINT PRIMARY KEY, b BIGINT, c BIGINT); CREATE REFERENCE TABLE r (id BIGINT PRIMARY KEY, b BIGINT)");
    let rows: Vec<String> = (0..50).map(|id| format!("({id}, {}, {id})", -id)).collect();
    sql(&format!("INSERT INTO t VALUES {}; INSERT INTO r VALUES (1, 1)", rows.join(", ")));
    cluster.signal(1, "KILL");
    // Half of the partitions are away: what the others have now, these get when somebody asks.
    sql("ALTER TABLE t DROP COLUMN b; ALTER TABLE r DROP COLUMN b");
    sql("ALTER TABLE t ADD COLUMN b BIGINT DEFAULT 5; ALTER TABLE r ADD COLUMN d BIGINT DEFAULT 6");
    cluster.start_again();
    sql("INSERT INTO t (id, c) VALUES (50, 50), (51, 51), (52, 52), (53, 53), (54, 54), (55, 55)");
    assert_eq!(last(&sql("SELECT count(*) AS n, sum(b) AS b, sum(id - c) AS c FROM t")), [56, 56 * 5, 0]);
    assert_eq!(last(&sql("SELECT id, d FROM r")), [1, 6]);
}

#[test]
fn open_transactions_see_one_definition_or_end() {
    let cluster = with_rows();
    let run = |statements: &[&str]| cluster.sql(&statements.join("; "));
    std::thread::scope(|scope| {
        let open = scope.spawn(|| {
            let slow = "SELECT count(*) FROM t x JOIN t y ON x.id <> y.id JOIN t z ON z.id <> y.id AND z.b <> x.c";
            run(&[
                "BEGIN",
                "SELECT sum(b) FROM t",
                slow,
                slow,
                "UPDATE t SET c = b WHERE id = 1",
                "SELECT c FROM t WHERE id = 1",
                "COMMIT",
            ])
        });
        std::thread::sleep(Duration::from_millis(150));
        cluster.ok("ALTER TABLE t ADD COLUMN d BIGINT DEFAULT 77");
        let output = open.join().unwrap();
        let said = text(&output);
        // It came first, or last, or was told that it cannot go on.
        let whole = output.status.success() && said.contains("1001");
        assert!(whole || said.contains("run the transaction again"), "{said}");
    });
    let c = last(&cluster.ok("SELECT c FROM t WHERE id = 1"))[0];
    assert!([3, 1001].contains(&c), "{c}");
}
