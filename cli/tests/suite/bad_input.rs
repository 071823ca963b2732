//! Input that is wrong, damaged or hostile, and machines that run out of something: an error that names the thing, nothing stored is
//! lost, and the engine goes on. A panic never shows.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::binary::{fails, files, stoa};
use arrow::array::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use stoa::engine::{Engine, Setup};
use stoa_exec::{CancelToken, Settings};

fn setup() -> Setup {
    let storage = stoa_columnstore::Options { default_partitions: 2, ..Default::default() };
    Setup { memory_limit: 1 << 30, threads: 2, settings: Settings::default(), storage }
}

fn run(engine: &Engine, sql: &str) -> Result<(), String> {
    engine.run(sql, &CancelToken::default(), &mut |_| Ok(())).map_err(|e| no_defect(sql, e.to_string()))
}

fn rows(engine: &Engine, sql: &str) -> Result<String, String> {
    let result = engine.query(sql, &CancelToken::default()).map_err(|e| no_defect(sql, e.to_string()))?;
    let batches: Vec<RecordBatch> = result.batches;
    Ok(pretty_format_batches(&batches).unwrap().to_string())
}

/// A panic behind the error would be a defect.
fn no_defect(what: &str, message: String) -> String {
    assert!(
        !message.contains("defect") && !message.contains("panicked") && !message.contains("please report"),
        "{what}: {message}"
    );
    message
}

#[test]
fn wrong_sql_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::with_setup(folder.path(), &setup()).unwrap();
    run(&engine, "CREATE TABLE t (a INT, b TEXT, d DECIMAL(9,2)); INSERT INTO t VALUES (1, 'x', 1.5), (NULL, NULL, NULL)")
        .unwrap();
    let deep = format!("SELECT {}1{}", "(".repeat(5000), ")".repeat(5000));
    let long = format!("SELECT {}1", "1 + ".repeat(50_000));
    let many = format!("SELECT {}", "a, ".repeat(10));
    for sql in [
        "SELECT",
        "SELECT a FROM t WHERE",
        "SELECT a FROM nowhere",
        "SELECT nothing FROM t",
        "SELECT a FROM t GROUP BY b",
        "SELECT sum(b) FROM t",
        "SELECT sum(sum(a)) FROM t",
        "SELECT a FROM t WHERE sum(a) > 1",
        "SELECT * FROM t JOIN t ON a = a",
        "SELECT a FROM t ORDER BY 2",
        "SELECT a FROM t LIMIT -1",
        "SELECT a FROM t LIMIT 'x'",
        "SELECT a FROM t UNION SELECT a, b FROM t",
        "SELECT (SELECT a, b FROM t)",
        "SELECT (SELECT a FROM t) + (SELECT x.a FROM t x, t y)",
        "SELECT a FROM t WHERE a IN (SELECT a, b FROM t)",
        "SELECT CAST('x' AS INT)",
        "SELECT CAST(b AS INT) FROM t",
        "SELECT DATE '2024-02-30'",
        "SELECT 1 / 0",
        "SELECT a / 0 FROM t",
        "SELECT nofunction(1)",
        "SELECT 'unclosed",
        "SELECT \"unclosed",
        "SELECT 1 /* unclosed",
        "SELECT regexp_like(b, '(') FROM t",
        "SELECT 99999999999999999999999999999999999999999999999999",
        "SELECT * FROM t FETCH FIRST x ROWS ONLY",
        "SELECT rank() OVER (ORDER BY",
        "WITH w AS (SELECT * FROM w) SELECT * FROM w",
        "CREATE TABLE t (a INT)",
        "CREATE TABLE u (a INT, a INT)",
        "CREATE TABLE u (a NOTYPE)",
        "CREATE TABLE u (a DECIMAL(99,2))",
        "CREATE TABLE u (a DECIMAL(5,9))",
        "CREATE TABLE u (a INT, SHARD KEY (b))",
        "CREATE TABLE u ()",
        "CREATE VIEW v AS SELECT nothing FROM t",
        "DROP TABLE nowhere",
        "DROP VIEW nowhere",
        "INSERT INTO nowhere VALUES (1)",
        "INSERT INTO t VALUES (1)",
        "INSERT INTO t (a, a) VALUES (1, 2)",
        "INSERT INTO t (nothing) VALUES (1)",
        "INSERT INTO t VALUES ('x', 'y', 1)",
        "INSERT INTO t VALUES (99999999999, 'y', 1)",
        "INSERT INTO t VALUES (1, 'y', 99999999999)",
        "DESCRIBE nowhere",
        "\0",
        "\u{feff}SELEC",
        "💥",
        deep.as_str(),
        long.as_str(),
        many.as_str(),
    ] {
        assert!(run(&engine, sql).is_err(), "this should be an error: {}", &sql[..sql.len().min(100)]);
    }
    assert_eq!(engine.names(), ["t"]);
    assert!(rows(&engine, "SELECT count(*) AS n FROM t").unwrap().contains("| 2 |"));
}

#[test]
fn wrong_changes_are_errors_and_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::with_setup(folder.path(), &setup()).unwrap();
    run(&engine, "CREATE TABLE t (a INT, b TEXT, d DECIMAL(9,2)); INSERT INTO t VALUES (1, 'x', 1.5), (NULL, NULL, NULL)")
        .unwrap();
    for sql in [
        "INSERT INTO t VALUES (1, 'y', 1) ON DUPLICATE KEY UPDATE nothing = 1",
        "UPDATE t SET nothing = 1",
        "UPDATE t SET a = 1, a = 2",
        "UPDATE t SET a = 'x'",
        "UPDATE t SET a = 1 LIMIT 1",
        "UPDATE nowhere SET a = 1",
        "DELETE FROM nowhere",
        "DELETE FROM t WHERE nothing = 1",
        "TRUNCATE nowhere",
        "OPTIMIZE TABLE nowhere",
        "BEGIN; BEGIN; DELETE FROM t",
    ] {
        assert!(run(&engine, sql).is_err(), "this should be an error: {sql}");
    }
    assert!(rows(&engine, "SELECT count(*) AS n, sum(a) AS a FROM t").unwrap().contains("| 2 | 1 |"));
}

/// A table whose columns are in every encoding that a small table can have.
const TABLE: &str = "CREATE TABLE t (k BIGINT NOT NULL, d DECIMAL(12,2), w DECIMAL(30,4), s VARCHAR(20), u TEXT, f DOUBLE, day DATE, b BOOLEAN,
    at TIMESTAMP, SHARD KEY (k), SORT KEY (day));
    INSERT INTO t SELECT x.a * 16 + y.a, x.a * 1.25, x.a * 123456789012345.5, CASE WHEN y.a % 3 = 0 THEN 'red' WHEN y.a % 3 = 1 THEN 'green' END,
      concat('row number ', CAST(x.a * 100 + y.a AS VARCHAR)), x.a * 0.1e0 + y.a, make_date(2024, 1, x.a + 1), y.a > 7,
      TIMESTAMP '2024-01-01 00:00:00' + INTERVAL '7' HOUR
    FROM (VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9), (10), (11), (12), (13), (14), (15)) x(a),
         (VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9), (10), (11), (12), (13), (14), (15)) y(a)";

const READS: [&str; 3] = [
    "SELECT * FROM t ORDER BY k",
    "SELECT s, count(*) AS n, sum(d) AS d, max(w) AS w, sum(f) AS f, min(day) AS day FROM t WHERE day > DATE '2024-01-03' GROUP BY s ORDER BY s",
    "SELECT count(*) AS n FROM t WHERE u LIKE '%9%' AND b AND k < 200",
];

/// What the reads say: each the right answer, or an error.
fn check_damaged(folder: &Path, right: &[String], what: &str) -> usize {
    let engine = match Engine::with_setup(folder, &setup()) {
        Ok(engine) => engine,
        Err(error) => {
            no_defect(what, error.to_string());
            return READS.len();
        }
    };
    let mut errors = 0;
    for (sql, right) in READS.iter().zip(right) {
        match rows(&engine, sql) {
            Ok(found) => assert_eq!(found, *right, "{what}: a wrong answer of {sql}"),
            Err(_) => errors += 1,
        }
    }
    errors
}

#[test]
fn flipped_and_missing_bytes_are_errors_but_never_wrong_answers() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::with_setup(folder.path(), &setup()).unwrap();
    run(&engine, TABLE).unwrap();
    run(&engine, "OPTIMIZE TABLE t FLUSH").unwrap();
    let right: Vec<String> = READS.iter().map(|sql| rows(&engine, sql).unwrap()).collect();
    drop(engine);
    let mut damaged = files(folder.path(), "segment");
    assert!(damaged.len() >= 2);
    damaged.truncate(1);
    damaged.extend(["manifest", "stoa.version"].map(|name| folder.path().join(name)));
    for file in damaged {
        let whole = fs::read(&file).unwrap();
        let step = (whole.len() / 250).max(1) | 1;
        let (mut found, mut tried) = (0, 0);
        for at in (0..whole.len()).step_by(step) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            fs::write(&file, &bytes).unwrap();
            tried += 1;
            found += usize::from(
                check_damaged(folder.path(), &right, &format!("{} with bit {} of byte {at} flipped", file.display(), at % 8)) > 0,
            );
        }
        // Padding between blocks is read by nobody, and the number of a version may become that of an older one; everything else is under
        // a checksum.
        let enough = found * 10 >= tried * 8 || file.ends_with("stoa.version");
        assert!(enough, "{}: {found} of {tried} flips were seen", file.display());
        for length in [0, 1, 7, 8, whole.len() / 3, whole.len() / 2, whole.len().saturating_sub(8), whole.len() - 1] {
            fs::write(&file, &whole[..length.min(whole.len())]).unwrap();
            let errors = check_damaged(folder.path(), &right, &format!("{} cut to {length} bytes", file.display()));
            // A version without its newline, or one with more behind it, may be read.
            assert!(errors > 0 || file.ends_with("stoa.version"), "{} cut to {length} bytes", file.display());
        }
        fs::write(&file, &whole).unwrap();
        assert_eq!(check_damaged(folder.path(), &right, "whole again"), 0);
    }
    let gone = files(folder.path(), "segment").remove(0);
    fs::remove_file(&gone).unwrap();
    assert!(check_damaged(folder.path(), &right, "a segment is gone") > 0);
}

#[test]
fn ragged_and_wrong_files_are_refused_whole() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (data, file) = (data.to_str().unwrap(), folder.path().join("rows.csv"));
    let name = file.to_str().unwrap();
    let sql = |text: &str| stoa(&["sql", "--data", data, "--format", "csv", "-c", text]).output().unwrap();
    assert!(sql("CREATE TABLE t (a INT NOT NULL, b VARCHAR(5), d DATE)").status.success());
    let good: &[u8] = b"1,x,2024-01-01\n";
    let cases: &[(&[u8], &str)] = &[
        (b"2,y\n", "line 2"),
        (b"2,y,2024-01-01,4\n", "line 2"),
        (b"x,y,2024-01-01\n", "'a'"),
        (b",y,2024-01-01\n", "'a'"),
        (b"99999999999,y,2024-01-01\n", "'a'"),
        (b"2,y,2024-02-30\n", "'d'"),
        (b"2,toolong,2024-01-01\n", "'b'"),
        (b"2,\xff\xfe,2024-01-01\n", "UTF-8"),
        (b"2,\"y,2024-01-01\n", "rows.csv"),
    ];
    for (bad, what) in cases {
        fs::write(&file, [good, bad].concat()).unwrap();
        fails(&stoa(&["load", "--data", data, "t", name]).output().unwrap(), what);
        assert_eq!(sql("SELECT count(*) AS n FROM t").stdout, b"n\n0\n", "{what}");
    }
    // Many good rows before the bad one: what was written of them goes again.
    let mut many = b"1,x,2024-01-01\n".repeat(60_000);
    many.extend_from_slice(b"oops,x,2024-01-01\n");
    fs::write(&file, &many).unwrap();
    fails(&stoa(&["load", "--data", data, "t", name]).output().unwrap(), "line 60001");
    assert_eq!(sql("SELECT count(*) AS n FROM t").stdout, b"n\n0\n");
    assert!(files(Path::new(data), "segment").is_empty());
    // Lines are counted in each file, whoever finds the fault: the parser, or the table that the row does not fit.
    let other = folder.path().join("other.csv");
    for (bad, what) in [("x,y,2024-01-01\n", "'a'"), (",y,2024-01-01\n", "'a'"), ("2,toolong,2024-01-01\n", "'b'")] {
        fs::write(&other, format!("a,b,d\n1,x,2024-01-01\n{bad}")).unwrap();
        let headed = format!("a,b,d\n{}", String::from_utf8_lossy(good));
        fs::write(&file, headed).unwrap();
        let output = stoa(&["load", "--data", data, "t", name, other.to_str().unwrap(), "--header"]).output().unwrap();
        for part in ["other.csv", "line 3", what] {
            fails(&output, part);
        }
    }
    assert_eq!(sql("SELECT count(*) AS n FROM t").stdout, b"n\n0\n");
    assert!(sql("CREATE TABLE money (a INT, m DECIMAL(9,2), u TIMESTAMP)").status.success());
    for (bad, what) in [("oops", "'m'"), ("1e", "'m'"), ("12345678.9", "'m'"), (&"9".repeat(300), "'m'")] {
        fs::write(&file, format!("1,1.5,\n2,{bad},\n")).unwrap();
        for part in ["rows.csv", "line 2", what] {
            fails(&stoa(&["load", "--data", data, "money", name]).output().unwrap(), part);
        }
    }
    fs::write(&file, "1,1.5,\n2,1.5,oops\n").unwrap();
    for part in ["line 2", "'u'"] {
        fails(&stoa(&["load", "--data", data, "money", name]).output().unwrap(), part);
    }
    assert_eq!(sql("SELECT count(*) AS n FROM money").stdout, b"n\n0\n");
    fs::write(folder.path().join("x.parquet"), b"PAR1 this is none PAR1").unwrap();
    let parquet = folder.path().join("x.parquet");
    fails(&stoa(&["load", "--data", data, "t", parquet.to_str().unwrap()]).output().unwrap(), "x.parquet");
    fs::write(&file, b"").unwrap();
    assert!(stoa(&["load", "--data", data, "t", name]).output().unwrap().status.success());
    assert_eq!(sql("SELECT count(*) AS n FROM t").stdout, b"n\n0\n");
}

#[test]
fn decimals_are_rounded_and_headers_name_columns() {
    let folder = tempfile::tempdir().unwrap();
    let (data, file) = (folder.path().join("data"), folder.path().join("rows.csv"));
    let (data, name) = (data.to_str().unwrap(), file.to_str().unwrap());
    let sql = |text: &str| stoa(&["sql", "--data", data, "--format", "csv", "-c", text]).output().unwrap();
    assert!(sql("CREATE TABLE t (a INT, m DECIMAL(9,2), b INT)").status.success());
    let load = |text: &str, options: &[&str]| {
        fs::write(&file, text).unwrap();
        stoa(&[&["load", "--data", data, "t", name], options].concat()).output().unwrap()
    };
    assert!(load("1,1.999,2\n2,-0.005,3\n3,.5,4\n4,,5\n", &[]).status.success());
    // By name, in any order and with others beside; by position, where no name is one of the table's.
    assert!(load("\u{feff}B,other,m,A\n6,x,7.25,5\n", &["--header"]).status.success());
    assert!(load("x,y,z\n7,8,9\n", &["--header"]).status.success());
    fails(&load("a,b,c\n7,8,9\n", &["--header"]), "there is no column 'm' in the file");
    let rows = "a,m,b\n1,2.00,2\n2,-0.01,3\n3,0.50,4\n4,,5\n5,7.25,6\n7,8.00,9\n";
    assert_eq!(String::from_utf8(sql("SELECT a, m, b FROM t ORDER BY a").stdout).unwrap(), rows);
}

/// A load that is killed without warning: what was stored stays, the load is there whole or not at all, and its files go when the
/// directory is opened again.
#[cfg(unix)]
#[test]
fn a_load_that_is_killed_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let sql = |text: &str| stoa(&["sql", "--data", data.to_str().unwrap(), "--format", "csv", "-c", text]).output().unwrap();
    let made = sql("CREATE TABLE t (a BIGINT, s TEXT); INSERT INTO t VALUES (-1, 'kept')");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let stored = files(&data, "segment");
    let load = |file: &str, input: Stdio| {
        let mut command = stoa(&["load", "--data", data.to_str().unwrap(), "t", file]);
        command.env("STOA_SEGMENT_ROWS", "4096").stdin(input).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let rows: String = (0..100_000).map(|i| format!("{i},row {i}\n")).collect();
    // Killed while it waits for more rows, with segments on disk that nobody has committed.
    let mut child = load("-", Stdio::piped());
    let mut input = child.stdin.take().unwrap();
    input.write_all(rows.as_bytes()).unwrap();
    let started = std::time::Instant::now();
    while files(&data, "segment").len() < stored.len() + 4 {
        assert!(started.elapsed().as_secs() < 60, "no segment was written");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    drop(input);
    assert!(files(&data, "segment").len() > stored.len());
    assert_eq!(sql("SELECT count(*) AS n, min(s) AS s FROM t").stdout, b"n,s\n1,kept\n");
    assert_eq!(files(&data, "segment"), stored);
    // Killed at any moment, the commit among them.
    let file = folder.path().join("rows.csv");
    fs::write(&file, rows).unwrap();
    let mut expected = 1;
    for delay in (0..600).step_by(50) {
        let mut child = load(file.to_str().unwrap(), Stdio::null());
        std::thread::sleep(std::time::Duration::from_millis(delay));
        child.kill().unwrap();
        child.wait().unwrap();
        let output = sql("SELECT count(*) AS n, count(DISTINCT a) AS a, min(a) AS least FROM t");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "after {delay} ms: {}", String::from_utf8_lossy(&output.stderr));
        let found: usize = text.lines().nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
        assert!(
            found == expected || found == expected + 100_000,
            "after {delay} ms: {found} rows, not {expected} or a load more"
        );
        expected = found;
        let distinct = if found == 1 { 1 } else { 100_001 };
        assert_eq!(text, format!("n,a,least\n{found},{distinct},-1\n"));
        let engine = Engine::with_setup(&data, &setup()).unwrap();
        let table = engine.database().table("t").unwrap();
        assert_eq!(table.segments().count(), files(&data, "segment").len(), "files that no table has");
        assert!(files(&data, "new").is_empty());
    }
}

/// A table that is created with rows and killed without warning at any moment, the commit among them, is there with all of them or
/// not at all.
#[cfg(unix)]
#[test]
fn a_table_whose_creation_is_killed_is_whole_or_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let file = folder.path().join("rows.csv");
    let rows: String = (0..100_000).map(|i| format!("{i},row {i}\n")).collect();
    fs::write(&file, format!("a,s\n{rows}")).unwrap();
    let (data_name, file) = (data.to_str().unwrap(), file.to_str().unwrap());
    run(&Engine::with_setup(&data, &setup()).unwrap(), "CREATE TABLE t (a BIGINT, s TEXT)").unwrap();
    assert!(stoa(&["load", "--data", data_name, "--header", "t", file]).output().unwrap().status.success());
    let load = ["load", "--data", data_name, "--create", "--header", "made", file];
    let select = ["sql", "--data", data_name, "-c", "CREATE TABLE made AS SELECT s, a FROM t ORDER BY s"];
    for arguments in [load.as_slice(), select.as_slice()] {
        let mut done = 0;
        for delay in (0..).map(|i| i * 40).take_while(|delay| *delay < 600) {
            let mut command = stoa(arguments);
            command.env("STOA_SEGMENT_ROWS", "4096").stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            std::thread::sleep(std::time::Duration::from_millis(delay));
            child.kill().unwrap();
            child.wait().unwrap();
            let engine = Engine::with_setup(&data, &setup()).unwrap();
            let found = engine.database().table("made").map(|table| table.rows());
            assert!(matches!(found, None | Some(100_000)), "{arguments:?} after {delay} ms: {found:?} rows");
            let segments: usize = engine.database().tables().iter().map(|table| table.segments().count()).sum();
            assert_eq!(segments, files(&data, "segment").len(), "files that no table has");
            if found.is_some() {
                run(&engine, "DROP TABLE made").unwrap();
                done += 1;
            }
            if done == 2 {
                break;
            }
        }
    }
}

#[test]
fn a_statement_that_fails_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::with_setup(folder.path(), &setup()).unwrap();
    run(&engine, TABLE).unwrap();
    run(&engine, "CREATE TABLE u (a BIGINT NOT NULL)").unwrap();
    for sql in [
        "INSERT INTO u SELECT 100 / (k - 200) FROM t",
        "INSERT INTO u SELECT CASE WHEN k < 250 THEN k END FROM t",
        "INSERT INTO u VALUES (1), (NULL)",
        "INSERT INTO u VALUES (1), (1 / 0)",
        "INSERT INTO u SELECT CAST(u AS BIGINT) FROM t",
        "CREATE TABLE v AS SELECT 100 / (k - 200) AS x FROM t",
        "CREATE TABLE v AS SELECT k, k FROM t",
    ] {
        assert!(run(&engine, sql).is_err(), "{sql}");
    }
    assert_eq!(engine.names(), ["t", "u"]);
    assert!(rows(&engine, "SELECT count(*) AS n FROM u").unwrap().contains("| 0 |"));
    drop(engine);
    let engine = Engine::with_setup(folder.path(), &setup()).unwrap();
    assert!(rows(&engine, "SELECT count(*) AS n FROM u").unwrap().contains("| 0 |"));
}

#[test]
fn past_its_memory_a_query_fails_and_the_next_one_runs() {
    let folder = tempfile::tempdir().unwrap();
    let engine = Engine::with_setup(folder.path(), &Setup { memory_limit: 2 << 20, ..setup() }).unwrap();
    run(&engine, TABLE).unwrap();
    for sql in [
        "SELECT a.k, b.u FROM t a, t b ORDER BY b.u, a.k",
        "SELECT a.u, b.k, count(*) FROM t a, t b GROUP BY a.u, b.k",
        "SELECT count(DISTINCT concat(a.u, b.u)) FROM t a, t b",
        "SELECT a.u, b.u, a.s FROM t a, t b",
        "SELECT DISTINCT a.u, b.u FROM t a, t b",
        "SELECT a.u, b.u FROM t a, t b EXCEPT SELECT u, u FROM t",
        "SELECT string_agg(concat(a.u, b.u), ',') FROM t a, t b",
    ] {
        let error = run(&engine, sql).expect_err(sql);
        assert!(error.contains("memory"), "{sql}: {error}");
        assert!(rows(&engine, "SELECT s, count(*) AS n FROM t GROUP BY s ORDER BY s").unwrap().contains("green"));
    }
}

/// A file may not grow past a limit: as on a full disk, writing fails in the middle.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_and_what_was_stored_stays() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let data = data.to_str().unwrap();
    let sql = |text: &str| stoa(&["sql", "--data", data, "--format", "csv", "-c", text]).output().unwrap();
    let made = sql("CREATE TABLE t (a BIGINT, s TEXT); INSERT INTO t VALUES (1, 'one')");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let file = folder.path().join("rows.csv");
    let text: String =
        (0..200_000u64).map(|i| format!("{},{:x}\n", i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 1, i * 7919)).collect();
    fs::write(&file, text).unwrap();
    // The signal of the limit is ignored, so that the write itself fails.
    let script = "trap '' XFSZ; ulimit -f 256; exec \"$0\" load --data \"$1\" t \"$2\"";
    let load = |limited: bool| {
        let binary = env!("CARGO_BIN_EXE_stoa");
        let script = if limited { script } else { "exec \"$0\" load --data \"$1\" t \"$2\"" };
        Command::new("bash").args(["-c", script, binary, data, file.to_str().unwrap()]).stdin(Stdio::null()).output().unwrap()
    };
    fails(&load(true), ".segment");
    assert_eq!(sql("SELECT count(*) AS n, min(s) AS s FROM t").stdout, b"n,s\n1,one\n");
    let whole = load(false);
    assert!(whole.status.success(), "{}", String::from_utf8_lossy(&whole.stderr));
    assert_eq!(sql("SELECT count(*) AS n FROM t").stdout, b"n\n200001\n");
    // Output that cannot be written.
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = stoa(&["sql", "--data", data, "-c", "SELECT * FROM t"]).stdout(full).output().unwrap();
    fails(&output, "cannot write the output");
}

#[test]
fn a_reader_that_leaves_ends_the_output_quietly() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let made = stoa(&["sql", "--data", data, "-c", TABLE]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    for format in ["csv", "tsv", "json", "table", "arrow"] {
        let mut child = stoa(&["sql", "--data", data, "--format", format, "-c", "SELECT a.u, b.u FROM t a, t b"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut first = Vec::new();
        BufReader::new(child.stdout.take().unwrap()).read_until(b'\n', &mut first).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""), "{format}");
    }
    // The same for words that are no rows.
    for arguments in
        [&["inspect", "--data", data, "t"][..], &["sql", "--help"][..], &["sql", "--data", data, "-c", "SHOW TABLES"][..]]
    {
        let mut child = stoa(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let mut errors = String::new();
        child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        assert_eq!((child.wait().unwrap().code(), errors.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn sql_that_is_not_text_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let (data, file) = (folder.path().join("data"), folder.path().join("x.sql"));
    fs::write(&file, b"SELECT '\xff'").unwrap();
    fails(&stoa(&["sql", "--data", data.to_str().unwrap(), "-f", file.to_str().unwrap()]).output().unwrap(), "x.sql");
    let mut child = Command::new(env!("CARGO_BIN_EXE_stoa"))
        .args(["sql", "--data", data.to_str().unwrap()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"SELECT '\xff'").unwrap();
    fails(&child.wait_with_output().unwrap(), "UTF-8");
    fails(&stoa(&["sql", "--data", data.to_str().unwrap(), "-f", "no-such-file.sql"]).output().unwrap(), "no-such-file.sql");
    // A data directory that is a file, and one that is something else's.
    fails(&stoa(&["sql", "--data", file.to_str().unwrap(), "-c", "SELECT 1"]).output().unwrap(), "x.sql");
}
