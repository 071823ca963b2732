//! The contract of the command line: output, exit codes, errors.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::binary::{self, fails, files};

fn stoa(arguments: &[&str]) -> Output {
    binary::stoa(arguments).output().unwrap()
}

fn sql(folder: &Path, text: &str) -> Output {
    stoa(&["sql", "--data", folder.to_str().unwrap(), "--format", "csv", "-c", text])
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn ok(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    stdout(output)
}

#[test]
fn statements_run_in_order_and_csv_follows_rfc_4180() {
    let folder = tempfile::tempdir().unwrap();
    let text = "CREATE TABLE t (a INT, b VARCHAR(20)); INSERT INTO t VALUES (1, 'x,\"y\"'), (2, NULL), (3, ''); SELECT a, b FROM t ORDER BY a";
    assert_eq!(ok(&sql(folder.path(), text)), "a,b\n1,\"x,\"\"y\"\"\"\n2,\n3,\"\"\n");
    assert_eq!(ok(&sql(folder.path(), "SELECT count(*) AS n FROM t")), "n\n3\n");
}

#[test]
fn every_format_prints() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let run = |format: &str| stoa(&["sql", "--data", data, "--format", format, "-c", "SELECT 1 AS a, NULL AS b, 'x' AS c"]);
    assert_eq!(ok(&run("json")), "[\n{\"a\":1,\"b\":null,\"c\":\"x\"}\n]\n");
    assert_eq!(ok(&run("tsv")), "a\tb\tc\n1\t\\N\tx\n");
    assert!(ok(&run("table")).contains("NULL"));
    assert!(run("arrow").stdout.starts_with(&[0xff, 0xff, 0xff, 0xff]));
}

#[test]
fn wrong_usage_is_2_and_wrong_sql_is_1_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(stoa(&["sql", "--no-such-flag"]).status.code(), Some(2));
    assert_eq!(stoa(&["tpch", "--scale", "-1"]).status.code(), Some(2));
    let misspelt = binary::stoa(&["sql", "-c", "SELECT 1"]).env("STOA_ISA", "avx1").output().unwrap();
    assert_eq!(misspelt.status.code(), Some(2));
    let said = String::from_utf8_lossy(&misspelt.stderr);
    assert!(said.contains("STOA_ISA is 'avx1'") && said.contains("scalar, avx2 or avx512"), "{said}");
    fails(&sql(folder.path(), "SELECT\n  nothing FROM nowhere"), "nowhere");
    fails(&sql(folder.path(), "SELEC 1"), "line 1");
    fails(&sql(folder.path(), "CREATE TABLE t (a INT); SELECT b FROM t"), "line 1, column 32");
    // What ran before the error stays.
    assert_eq!(ok(&sql(folder.path(), "SELECT count(*) AS n FROM t")), "n\n0\n");
}

/// Of a data directory and a cluster the one counts that was said closest by: on the command line, in the environment, in the file.
#[test]
fn the_closest_place_of_data_counts() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (data, file) = (data.to_str().unwrap(), folder.path().join("stoa.toml"));
    // Nobody listens there.
    let nowhere = "127.0.0.1:1";
    let run = |arguments: &[&str], variables: &[(&str, &str)], of_file: &str| {
        fs::write(&file, of_file).unwrap();
        let mut command = binary::stoa(&["sql", "--format", "csv", "-c", "SELECT 1 AS one", "--config", file.to_str().unwrap()]);
        command.args(arguments).env_remove("STOA_DATA").env_remove("STOA_CONNECT").envs(variables.iter().copied());
        command.output().unwrap()
    };
    let (of_data, of_cluster) = (format!("data = '{data}'\n"), format!("connect = '{nowhere}'\n"));
    let (env_data, env_cluster) = (("STOA_DATA", data), ("STOA_CONNECT", nowhere));
    let here = |output: &Output| assert_eq!(ok(output), "one\n1\n");
    let there = |output: &Output| fails(output, nowhere);
    there(&run(&["--connect", nowhere], &[env_data], ""));
    there(&run(&["--connect", nowhere], &[], &of_data));
    there(&run(&[], &[env_cluster], &of_data));
    here(&run(&["--data", data], &[env_cluster], ""));
    here(&run(&["--data", data], &[], &of_cluster));
    here(&run(&[], &[env_data], &of_cluster));
    here(&run(&["--data", data], &[env_data, env_cluster], &of_cluster));
    let both = [
        (run(&["--data", data, "--connect", nowhere], &[], ""), "on the command line"),
        (run(&[], &[env_data, env_cluster], &of_cluster), "in the environment"),
        (run(&[], &[], &(of_data.clone() + &of_cluster)), "in the configuration file"),
    ];
    for (output, place) in both {
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(&format!("--data and --connect are both {place}")), "{}", stderr(&output));
    }
    // The same of how a coordinator begins; it fails over its data directory, which is a file.
    let coordinator = |arguments: &[&str]| {
        let mut command = binary::stoa(&["coordinator", "--data", file.to_str().unwrap()]);
        command.args(arguments).env("STOA_BOOTSTRAP", "true").env("STOA_JOIN", nowhere).output().unwrap()
    };
    assert_eq!(coordinator(&[]).status.code(), Some(2));
    assert_eq!(coordinator(&["--join", nowhere]).status.code(), Some(1));
    assert_eq!(coordinator(&["--bootstrap"]).status.code(), Some(1));
}

#[test]
fn loads_csv_and_keeps_nothing_of_a_bad_file() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (data, good, bad) = (data.to_str().unwrap(), folder.path().join("good.csv"), folder.path().join("bad.csv"));
    fs::write(&good, "k,v,d\n1,1.50,2024-02-29\n2,,2024-03-01\n").unwrap();
    fs::write(&bad, "k,v,d\n3,1.50,2024-02-29\n4,oops,2024-03-01\n").unwrap();
    ok(&stoa(&["load", "--data", data, "t", good.to_str().unwrap(), "--create", "--header"]));
    let count = "SELECT count(*) AS n, count(v) AS v, max(d) AS d FROM t";
    assert_eq!(ok(&sql(Path::new(data), count)), "n,v,d\n2,1,2024-03-01\n");
    let failed = stoa(&["load", "--data", data, "t", good.to_str().unwrap(), bad.to_str().unwrap(), "--header"]);
    fails(&failed, "bad.csv");
    fails(&failed, "line 3");
    fails(&failed, "'v'");
    assert_eq!(ok(&sql(Path::new(data), count)), "n,v,d\n2,1,2024-03-01\n");
    fs::write(&bad, "k,v,d\n3,1.50\n").unwrap();
    fails(&stoa(&["load", "--data", data, "t", bad.to_str().unwrap(), "--header"]), "line 2");
    fails(&stoa(&["load", "--data", data, "nowhere", good.to_str().unwrap()]), "nowhere");
    fails(&stoa(&["load", "--data", data, "t", "no-such-file.csv"]), "no-such-file.csv");
}

#[test]
fn a_duplicate_key_of_a_load_is_named_with_its_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (data, good, bad) = (data.to_str().unwrap(), folder.path().join("good.csv"), folder.path().join("bad.csv"));
    fs::write(&good, "k,v\n1,b\n2,a\n").unwrap();
    fs::write(&bad, "k,v\n3,c\n1,d\n4,a\n").unwrap();
    ok(&sql(Path::new(data), "CREATE TABLE t (k INT NOT NULL, v TEXT, PRIMARY KEY (k), SORT KEY (v))"));
    ok(&stoa(&["load", "--data", data, "t", good.to_str().unwrap(), "--header"]));
    fs::write(&good, "k,v\n5,b\n6,a\n").unwrap();
    let failed = stoa(&["load", "--data", data, "t", good.to_str().unwrap(), bad.to_str().unwrap(), "--header"]);
    fails(&failed, "bad.csv: table 't', line 3: there is a row with PRIMARY (1) already");
    assert_eq!(ok(&sql(Path::new(data), "SELECT count(*) AS n FROM t")), "n\n2\n");
}

#[test]
fn loads_tbl_and_standard_input() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (data, tbl) = (data.to_str().unwrap(), folder.path().join("rows.tbl"));
    fs::write(&tbl, "1|a b|\n2|c|\n").unwrap();
    ok(&sql(Path::new(data), "CREATE TABLE t (a INT NOT NULL, b TEXT)"));
    ok(&stoa(&["load", "--data", data, "t", tbl.to_str().unwrap()]));
    let mut child = Command::new(env!("CARGO_BIN_EXE_stoa"))
        .args(["load", "--data", data, "t", "-", "--delimiter", ";"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"3;d\n").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(ok(&sql(Path::new(data), "SELECT a, b FROM t ORDER BY a")), "a,b\n1,a b\n2,c\n3,d\n");
}

#[test]
fn one_process_a_data_directory() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let mut first = Command::new(env!("CARGO_BIN_EXE_stoa"))
        .args(["sql", "--data", data, "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // The first process opens the directory when its input ends, so hold the lock through the library here.
    let engine = stoa::engine::Engine::with_setup(folder.path(), &stoa::engine::Setup::from_env()).unwrap();
    fails(&sql(folder.path(), "SELECT 1"), "in use by another process");
    drop(engine);
    drop(first.stdin.take());
    assert!(first.wait().unwrap().success());
}

#[test]
fn damaged_and_foreign_directories_are_named() {
    let folder = tempfile::tempdir().unwrap();
    ok(&sql(folder.path(), "CREATE TABLE a (x INT); INSERT INTO a VALUES (1); CREATE TABLE b (x INT); INSERT INTO b VALUES (2)"));
    ok(&sql(folder.path(), "OPTIMIZE TABLE a FLUSH; OPTIMIZE TABLE b FLUSH"));
    let segment = newest_segment(folder.path());
    let mut bytes = fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes.truncate(middle);
    fs::write(&segment, bytes).unwrap();
    let outcomes = [sql(folder.path(), "SELECT * FROM a"), sql(folder.path(), "SELECT * FROM b")];
    let failed: Vec<_> = outcomes.iter().filter(|o| !o.status.success()).collect();
    assert_eq!(failed.len(), 1, "one table is damaged, the other is not");
    fails(failed[0], "damaged");
    fs::write(folder.path().join("stoa.version"), "999\n").unwrap();
    fails(&sql(folder.path(), "SELECT 1"), "version");
}

fn newest_segment(folder: &Path) -> std::path::PathBuf {
    files(folder, "segment").into_iter().max_by_key(|path| path.metadata().unwrap().modified().unwrap()).unwrap()
}

#[test]
fn past_its_memory_limit_a_query_fails_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    ok(&sql(
        folder.path(),
        "CREATE TABLE t (a BIGINT); INSERT INTO t SELECT * FROM (VALUES (1), (2), (3), (4), (5), (6), (7), (8))",
    ));
    for _ in 0..4 {
        ok(&sql(folder.path(), "INSERT INTO t SELECT x.a * 8 + y.a FROM t x, t y"));
        let n = ok(&sql(folder.path(), "SELECT count(*) AS n FROM t"));
        if n.lines().nth(1).unwrap().parse::<u64>().unwrap() > 4000 {
            break;
        }
    }
    let output = stoa(&["sql", "--data", data, "--memory-limit", "64KiB", "-c", "SELECT x.a, y.a FROM t x, t y ORDER BY 1, 2"]);
    fails(&output, "memory");
}

#[test]
fn tpch_writes_its_times_as_json() {
    let folder = tempfile::tempdir().unwrap();
    let (data, json) = (folder.path().join("data"), folder.path().join("times.json"));
    let run = || {
        stoa(&[
            "tpch",
            "--scale",
            "0.01",
            "--runs",
            "1",
            "--queries",
            "1,6",
            "--data",
            data.to_str().unwrap(),
            "--json",
            json.to_str().unwrap(),
        ])
    };
    let text = ok(&run());
    assert_eq!(text.matches("ok").count(), 2, "{text}");
    let report: serde_json::Value = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
    assert!(report["queries"]["q01"].as_f64().unwrap() > 0.0);
    assert!(report["load_seconds"].as_f64().unwrap() > 0.0);
    assert!(report["bytes_on_disk"].as_u64().unwrap() > 0);
    assert!(report["memory_bytes"]["q01"].as_u64().unwrap() > 0);
    if cfg!(target_os = "linux") {
        assert!(text.contains("peak memory of the process"), "{text}");
        assert!(report["peak_resident_bytes"].as_u64().unwrap() > 1_000_000);
    }
    // What is loaded is used again.
    ok(&run());
    let other = stoa(&["tpch", "--scale", "0.02", "--data", data.to_str().unwrap()]);
    fails(&other, "scale 0.02");
    assert!(ok(&stoa(&["inspect", "--data", data.to_str().unwrap()])).contains("lineitem"));
    assert!(ok(&stoa(&["inspect", "--data", data.to_str().unwrap(), "orders"])).contains("o_orderkey"));
}

/// Row groups are read by several threads at once: none may read what another one seeks.
#[test]
fn loads_parquet_with_many_row_groups() {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    use parquet::arrow::ArrowWriter;
    use parquet::file::properties::WriterProperties;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.parquet");
    let keys: ArrayRef = std::sync::Arc::new(Int64Array::from_iter_values((0..400_000).map(|i| i * 7919 % 400_009)));
    let texts: ArrayRef =
        std::sync::Arc::new(StringArray::from_iter_values((0..400_000).map(|i| format!("text {}", i * 31 % 9973))));
    let batch = RecordBatch::try_from_iter([("k", keys), ("s", texts)]).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(2_000)).build();
    let mut writer = ArrowWriter::try_new(fs::File::create(&path).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let data = folder.path().join("data");
    ok(&stoa(&["load", "--data", data.to_str().unwrap(), "--threads", "8", "t", path.to_str().unwrap(), "--create"]));
    let (sum, length) = (0..400_000i64)
        .fold((0, 0), |(sum, length), i| (sum + i * 7919 % 400_009, length + format!("text {}", i * 31 % 9973).len()));
    let query = "SELECT count(*) AS n, sum(k) AS k, sum(length(s)) AS s FROM t";
    assert_eq!(ok(&sql(&data, query)), format!("n,k,s\n400000,{sum},{length}\n"));
}
