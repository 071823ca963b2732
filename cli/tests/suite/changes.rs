//! Statements that change rows, on a data directory: what they say, what is there afterwards, also after it was opened again.

use std::path::Path;
use std::sync::Arc;

use arrow::util::display::array_value_to_string;
use stoa_columnstore::Options;
use stoa_coordinator::{Embedded, Outcome, Result, Session, Store};
use stoa_exec::{CancelToken, Progress, Settings};

const T: &str = "CREATE TABLE t (id BIGINT PRIMARY KEY, v VARCHAR(10), n DECIMAL(9,2)); INSERT INTO t VALUES (1, 'a', 1.5), (2, 'b', 2.5), (3, 'c', NULL)";

fn open(folder: &Path) -> Arc<Embedded> {
    let storage = Options { default_partitions: 2, fsync: false, ..Options::default() };
    Arc::new(Embedded::open(folder, storage, Settings::default(), 2, 1 << 30).unwrap())
}

/// Runs statements; the last one's rows, a line each, or what it says.
fn run(session: &Session, sql: &str) -> Result<String> {
    let mut last = String::new();
    let mut each = |outcome| {
        last = match outcome {
            Outcome::Done(what) | Outcome::Plan(what) => what,
            Outcome::Rows { batches, .. } => {
                let mut lines = Vec::new();
                for batch in &batches {
                    for row in 0..batch.num_rows() {
                        let cells = batch.columns().iter().map(|c| array_value_to_string(c, row).unwrap());
                        lines.push(cells.collect::<Vec<_>>().join(","));
                    }
                }
                lines.join(" ")
            }
            Outcome::More(_) => panic!("more rows than these tests have"),
        };
        Ok::<_, stoa_coordinator::Error>(())
    };
    session.run(sql, &CancelToken::default(), &Progress::default(), &mut each)?;
    Ok(last)
}

fn all(session: &Session) -> String {
    run(session, "SELECT * FROM t ORDER BY id").unwrap()
}

#[test]
fn rows_are_inserted_updated_replaced_and_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let session = Session::new(open(folder.path()));
    run(&session, T).unwrap();
    let steps = [
        ("UPDATE t SET n = n * 2, v = concat(v, 'x') WHERE id <= 2", "2 rows updated", "1,ax,3.00 2,bx,5.00 3,c,"),
        ("UPDATE t AS u SET n = (SELECT max(n) FROM t) WHERE u.id = 3", "1 rows updated", "1,ax,3.00 2,bx,5.00 3,c,5.00"),
        ("DELETE FROM t WHERE id IN (SELECT id FROM t WHERE n = 5)", "2 rows deleted", "1,ax,3.00"),
        (
            "INSERT INTO t VALUES (1, 'd', 1), (9, 'e', 9), (9, 'f', 1) ON DUPLICATE KEY UPDATE n = t.n + VALUES(n), v = VALUES(v)",
            "1 rows inserted, 2 updated",
            "1,d,4.00 9,f,10.00",
        ),
        (
            "REPLACE INTO t VALUES (1, 'r', 7), (1, 's', 8), (10, 'z', 1)",
            "3 rows inserted, 2 replaced",
            "1,s,8.00 9,f,10.00 10,z,1.00",
        ),
        ("OPTIMIZE TABLE t FLUSH", "table t optimized", "1,s,8.00 9,f,10.00 10,z,1.00"),
        ("UPDATE t SET n = 0", "3 rows updated", "1,s,0.00 9,f,0.00 10,z,0.00"),
        ("OPTIMIZE TABLE t FULL", "table t optimized", "1,s,0.00 9,f,0.00 10,z,0.00"),
        ("DELETE FROM t WHERE v = 'f'", "1 rows deleted", "1,s,0.00 10,z,0.00"),
    ];
    for (sql, says, rows) in steps {
        assert_eq!((run(&session, sql).unwrap().as_str(), all(&session).as_str()), (says, rows), "{sql}");
    }
    drop(session);
    let session = Session::new(open(folder.path()));
    assert_eq!(all(&session), "1,s,0.00 10,z,0.00");
    run(&session, "TRUNCATE TABLE t; INSERT INTO t VALUES (1, 'again', 1)").unwrap();
    assert_eq!(all(&session), "1,again,1.00");
}

#[test]
fn tables_are_altered_without_their_rows_being_written_anew() {
    let folder = tempfile::tempdir().unwrap();
    let session = Session::new(open(folder.path()));
    run(&session, T).unwrap();
    run(&session, "OPTIMIZE TABLE t FLUSH; INSERT INTO t VALUES (4, 'd', 4)").unwrap();
    for (sql, rows) in [
        ("ALTER TABLE t ADD COLUMN x INT NOT NULL DEFAULT 7", "1,a,1.50,7 2,b,2.50,7 3,c,,7 4,d,4.00,7"),
        ("ALTER TABLE t ADD y VARCHAR(5)", "1,a,1.50,7, 2,b,2.50,7, 3,c,,7, 4,d,4.00,7,"),
        ("UPDATE t SET y = 'new', x = x + id WHERE id > 2", "1,a,1.50,7, 2,b,2.50,7, 3,c,,10,new 4,d,4.00,11,new"),
        ("ALTER TABLE t DROP COLUMN v", "1,1.50,7, 2,2.50,7, 3,,10,new 4,4.00,11,new"),
        ("ALTER TABLE t RENAME COLUMN y TO v", "1,1.50,7, 2,2.50,7, 3,,10,new 4,4.00,11,new"),
        ("OPTIMIZE TABLE t FULL", "1,1.50,7, 2,2.50,7, 3,,10,new 4,4.00,11,new"),
    ] {
        run(&session, sql).unwrap();
        assert_eq!(all(&session), rows, "{sql}");
    }
    assert_eq!(run(&session, "SELECT count(*), sum(x) FROM t WHERE v = 'new'").unwrap(), "2,21");
    run(&session, "ALTER TABLE t RENAME TO u").unwrap();
    for (sql, what) in [
        ("SELECT * FROM t", "there is no table 't'"),
        ("ALTER TABLE u DROP COLUMN id", "id"),
        ("ALTER TABLE u ADD COLUMN n INT", "n"),
        ("ALTER TABLE u ADD COLUMN z INT NOT NULL", "z"),
        ("ALTER TABLE nowhere DROP COLUMN n", "nowhere"),
    ] {
        let error = run(&session, sql).unwrap_err().to_string();
        assert!(error.contains(what), "{sql}: {error}");
    }
    drop(session);
    let session = Session::new(open(folder.path()));
    assert_eq!(run(&session, "SELECT v, x, id FROM u ORDER BY id").unwrap(), ",7,1 ,7,2 new,10,3 new,11,4");
}

#[test]
fn the_default_of_a_column_is_that_of_later_rows_too() {
    let folder = tempfile::tempdir().unwrap();
    let session = Session::new(open(folder.path()));
    run(
        &session,
        "CREATE TABLE d (id BIGINT PRIMARY KEY, s TEXT); INSERT INTO d VALUES (1, 'a'); \
         ALTER TABLE d ADD COLUMN x INT NOT NULL DEFAULT 7; ALTER TABLE d ADD COLUMN m DECIMAL(9,2) DEFAULT -1.5; \
         ALTER TABLE d ADD COLUMN t TEXT DEFAULT 'it''s'; ALTER TABLE d ADD COLUMN w DATE DEFAULT '2026-02-28'; ALTER TABLE d ADD COLUMN z INT",
    )
    .unwrap();
    let rest = "7,-1.50,it's,2026-02-28,";
    for (sql, id) in [
        ("INSERT INTO d (id, s) VALUES (2, 'a')", 2),
        ("INSERT INTO d (s, id) VALUES ('a', 1 + 2)", 3),
        ("INSERT INTO d (id, s) SELECT 4, 'a'", 4),
        ("REPLACE INTO d (id, s) VALUES (1, 'a')", 1),
        ("INSERT INTO d (id, s) VALUES (5, 'a') ON DUPLICATE KEY UPDATE x = 8", 5),
    ] {
        run(&session, sql).unwrap();
        assert_eq!(run(&session, &format!("SELECT * FROM d WHERE id = {id}")).unwrap(), format!("{id},a,{rest}"), "{sql}");
    }
    run(&session, "INSERT INTO d (id, x, m) VALUES (6, 1, NULL)").unwrap();
    assert_eq!(run(&session, "SELECT * FROM d WHERE id = 6").unwrap(), "6,,1,,it's,2026-02-28,");
    let error = run(&session, "INSERT INTO d (id, x) VALUES (7, NULL)").unwrap_err().to_string();
    assert!(error.contains("column 'x', row 1: NULL"), "{error}");
}

#[test]
fn what_does_not_fit_is_named_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let session = Session::new(open(folder.path()));
    run(&session, T).unwrap();
    let before = all(&session);
    for (sql, what) in [
        ("INSERT INTO t VALUES (7, 'x', 1), (2, 'y', 1)", "row 2: there is a row with PRIMARY (2) already"),
        ("INSERT INTO t VALUES (7, 'x', 1), (7, 'y', 1)", "row 2: there is a row with PRIMARY (7) already"),
        ("INSERT INTO t VALUES (7, 'x', 1), (NULL, 'y', 1)", "column 'id', row 2: NULL in a NOT NULL column"),
        ("INSERT INTO t VALUES (7, 'much too long', 1)", "column 'v', row 1: a value of length 13 does not fit VARCHAR(10)"),
        ("INSERT INTO t VALUES (7, 'x', 1), (8, 'y', 99999999)", "column 'n', row 2: '99999999' does not fit DECIMAL(9,2)"),
        ("INSERT INTO t (n, id) VALUES ('x', 7)", "column 'n', row 1: 'x' does not fit DECIMAL(9,2)"),
        ("UPDATE t SET n = 99999999 WHERE id = 2", "column 'n', row 1: '99999999' does not fit DECIMAL(9,2)"),
        ("INSERT INTO t VALUES (1, 'x', 1) ON DUPLICATE KEY UPDATE n = 99999999", "column 'n', row 1: '99999999' does not fit"),
        ("UPDATE t SET n = n * 4000000 WHERE id = 2", "column 'n', row 1: '10000000.00' does not fit DECIMAL(9,2)"),
        ("UPDATE t SET n = v WHERE id = 3", "column 'n', row 1: 'c' does not fit DECIMAL(9,2)"),
        ("INSERT INTO t SELECT id + 20, v, concat(v, '?') FROM t WHERE id = 2", "column 'n', row 1: 'b?' does not fit"),
        ("REPLACE INTO t SELECT id, v, n * 10000000 FROM t WHERE id = 1", "column 'n', row 1: '15000000.00' does not fit"),
        (
            "INSERT INTO t VALUES (9, 'x', 0), (1, 'x', 1) ON DUPLICATE KEY UPDATE n = id * 99999999",
            "column 'n', row 1: '99999999'",
        ),
        ("UPDATE t SET n = 1 / 0", "division by zero"),
        ("UPDATE t SET v = 'much too long'", "does not fit VARCHAR(10)"),
        ("UPDATE t SET id = id + 1", "part of the SHARD KEY"),
        ("BEGIN; CREATE TABLE u (a INT)", "COMMIT or ROLLBACK first"),
    ] {
        let error = run(&session, sql).unwrap_err().to_string();
        assert!(error.to_lowercase().contains(&what.to_lowercase()), "{sql}: {error}");
        assert_eq!(all(&session), before, "{sql}");
    }
    run(&session, "ROLLBACK").unwrap();
}

#[test]
fn transactions_see_one_state_and_the_first_to_commit_wins() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let (one, other) = (Session::new(store.clone()), Session::new(store));
    run(&one, T).unwrap();
    run(&one, "BEGIN; UPDATE t SET v = 'mine' WHERE id = 1; INSERT INTO t VALUES (5, 'mine', 5)").unwrap();
    assert_eq!(all(&one), "1,mine,1.50 2,b,2.50 3,c, 5,mine,5.00");
    assert_eq!(all(&other), "1,a,1.50 2,b,2.50 3,c,");
    // A statement that fails is undone, the transaction is not.
    run(&one, "UPDATE t SET v = 'much too long' WHERE id > 1").unwrap_err();
    run(&other, "UPDATE t SET n = 9 WHERE id = 2; OPTIMIZE TABLE t FLUSH").unwrap();
    assert_eq!(all(&one), "1,mine,1.50 2,b,2.50 3,c, 5,mine,5.00");
    run(&one, "COMMIT").unwrap();
    assert_eq!(all(&other), "1,mine,1.50 2,b,9.00 3,c, 5,mine,5.00");

    run(&one, "BEGIN; UPDATE t SET n = n + 1 WHERE id = 5").unwrap();
    run(&other, "UPDATE t SET n = n + 10 WHERE id = 5").unwrap();
    let error = run(&one, "COMMIT").unwrap_err();
    assert!(error.to_string().contains("run the transaction again"), "{error}");
    run(&one, "BEGIN; INSERT INTO t VALUES (6, 'x', 1)").unwrap();
    run(&other, "INSERT INTO t VALUES (6, 'y', 1)").unwrap();
    run(&one, "COMMIT").unwrap_err();
    run(&one, "BEGIN; DELETE FROM t; ROLLBACK").unwrap();
    assert_eq!(all(&one), "1,mine,1.50 2,b,9.00 3,c, 5,mine,15.00 6,y,1.00");
}

#[test]
fn counters_that_many_raise_at_once_are_right() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let session = Session::new(store.clone());
    run(&session, "CREATE TABLE t (id BIGINT PRIMARY KEY, n BIGINT); INSERT INTO t VALUES (1, 0), (2, 0)").unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let session = Session::new(store.clone() as Arc<dyn Store>);
            scope.spawn(move || {
                let mut done = 0;
                while done < 25 {
                    match run(&session, "UPDATE t SET n = n + 1") {
                        Ok(_) => done += 1,
                        Err(error) => assert!(error.to_string().contains("committed first"), "{error}"),
                    }
                }
            });
        }
    });
    assert_eq!(all(&session), "1,100 2,100");
}

#[test]
fn a_backup_is_one_state_and_comes_back_elsewhere() {
    let (folder, place, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let place = place.path().to_str().unwrap();
    let session = Session::new(open(folder.path()));
    run(&session, T).unwrap();
    run(&session, "CREATE VIEW w AS SELECT id FROM t; OPTIMIZE TABLE t FLUSH; DELETE FROM t WHERE id = 2").unwrap();
    let first = run(&session, &format!("BACKUP DATABASE TO '{place}'")).unwrap();
    assert!(first.contains(" 0 were there"), "{first}");
    run(&session, "INSERT INTO t VALUES (4, 'd', 4)").unwrap();
    let second = run(&session, &format!("BACKUP DATABASE WITH DIFFERENTIAL TO '{place}'")).unwrap();
    assert!(second.contains(" 0 segments copied"), "{second}");
    let expected = all(&session);
    run(&session, "TRUNCATE t").unwrap();
    let restored = Session::new(open(elsewhere.path()));
    let said = run(&restored, &format!("RESTORE DATABASE FROM '{place}'")).unwrap();
    assert!(said.contains("1 tables restored"), "{said}");
    assert_eq!((all(&restored), run(&restored, "SELECT count(*) FROM w").unwrap()), (expected.clone(), "3".into()));
    run(&restored, &format!("RESTORE DATABASE FROM '{place}'")).unwrap_err();
    run(&restored, "INSERT INTO t VALUES (5, 'e', 5); OPTIMIZE TABLE t FULL").unwrap();
    drop(restored);
    assert_eq!(all(&Session::new(open(elsewhere.path()))), format!("{expected} 5,e,5.00"));
}
