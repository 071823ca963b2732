//! `stoa check`: what is whole passes, and each damage is found and its file named.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use stoa::engine::{Engine, Setup};
use stoa_columnstore::{Database, Options, RowNames, partition_of, shard_hashes};
use stoa_exec::{CancelToken, Progress, Settings};

use crate::binary::{fails, files, stoa};
use crate::leaves::Leaves;
use crate::nodes::{Cluster, text};

fn check(folder: &Path) -> Output {
    stoa(&["check", "--data", folder.to_str().unwrap()]).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A directory with rows in segments, with deleted ones among them, rows in the log, and a unique key.
fn directory() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    // So many that a merge is not due after the deletes.
    let rows: Vec<String> = (0..40).map(|k| format!("({k}, '{}')", ["a", "b", "c"][k % 3])).collect();
    let text = format!(
        "CREATE TABLE t (k INT NOT NULL, kind VARCHAR(9) WITH (BITMAP INDEX), PRIMARY KEY (k), SHARD KEY (k));
        INSERT INTO t VALUES {}; OPTIMIZE TABLE t FLUSH; DELETE FROM t WHERE k = 4; INSERT INTO t VALUES (40, 'c');
        UPDATE t SET kind = 'd' WHERE k = 5; INSERT INTO t VALUES (41, NULL)",
        rows.join(", ")
    );
    let made =
        stoa(&["sql", "--data", folder.path().to_str().unwrap(), "-c", &text]).env("STOA_PARTITIONS", "2").output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    folder
}

/// The file with a byte changed does not pass, and is named; and passes as it was.
fn flip(folder: &Path, file: &Path, at: impl Fn(usize) -> usize) {
    let whole = fs::read(file).unwrap();
    let mut bytes = whole.clone();
    bytes[at(whole.len())] ^= 1;
    fs::write(file, bytes).unwrap();
    let output = check(folder);
    fails(&output, "damage");
    assert!(stdout(&output).contains(&format!("{}: ", file.display())), "{}", stdout(&output));
    fs::write(file, whole).unwrap();
    assert!(check(folder).status.success());
}

fn log_with_records(folder: &Path) -> PathBuf {
    files(folder, "log").into_iter().find(|file| fs::metadata(file).unwrap().len() > 0).unwrap()
}

#[test]
fn a_whole_directory_passes_and_is_not_changed() {
    let folder = directory();
    let all = || -> Vec<(PathBuf, Vec<u8>)> {
        let found = ["segment", "log"].iter().flat_map(|extension| files(folder.path(), extension));
        found.chain([folder.path().join("manifest")]).map(|file| (file.clone(), fs::read(file).unwrap())).collect()
    };
    let before = all();
    let output = check(folder.path());
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let text = stdout(&output);
    let line = text.lines().find(|line| line.contains(folder.path().to_str().unwrap())).unwrap();
    let numbers: Vec<u64> = line.split(['│', '┆']).filter_map(|cell| cell.trim().parse().ok()).collect();
    assert!(matches!(numbers[..], [1, 2, 41, _, lsn, 0] if lsn >= 5), "tables, segments, rows, bytes, LSN, damages: {text}");
    assert_eq!(before, all());
}

#[test]
fn damage_is_found_and_the_file_named() {
    let folder = directory();
    for segment in files(folder.path(), "segment") {
        // The first byte of the first column, one of the footer, and one of the trailer.
        flip(folder.path(), &segment, |_| 64);
        flip(folder.path(), &segment, |length| length - 48);
        flip(folder.path(), &segment, |length| length - 20);
    }
    flip(folder.path(), &log_with_records(folder.path()), |_| 60);
    flip(folder.path(), &folder.path().join("manifest"), |length| length / 2);
    flip(folder.path(), &folder.path().join("stoa.version"), |_| 1);
    let gone = files(folder.path(), "segment").remove(0);
    fs::remove_file(&gone).unwrap();
    let output = check(folder.path());
    fails(&output, "damage");
    assert!(stdout(&output).contains(gone.to_str().unwrap()), "{}", stdout(&output));
}

#[test]
fn every_damage_is_told() {
    let folder = directory();
    let segments = files(folder.path(), "segment");
    for segment in &segments {
        let mut bytes = fs::read(segment).unwrap();
        bytes[64] ^= 1;
        fs::write(segment, bytes).unwrap();
    }
    let output = check(folder.path());
    fails(&output, "damages");
    assert!(segments.len() > 1 && segments.iter().all(|segment| stdout(&output).contains(segment.to_str().unwrap())));
}

#[test]
fn what_is_in_use_or_no_data_directory_is_an_error() {
    let folder = directory();
    let engine = Engine::with_setup(folder.path(), &Setup::from_env()).unwrap();
    fails(&check(folder.path()), "in use by another process");
    drop(engine);
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("letter"), "dear").unwrap();
    fails(&check(other.path()), "neither a data directory nor that of a leaf");
    assert_eq!(fs::read_dir(other.path()).unwrap().count(), 1);
    fails(&check(&other.path().join("nowhere")), "nowhere");
}

#[test]
fn all_partitions_of_a_leaf_are_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let leaf = folder.path().join("0");
    let leaves = Leaves::start(folder.path(), 1, 3, &Settings::default(), &Options::default());
    let text = "CREATE TABLE t (k INT NOT NULL, SHARD KEY (k)); CREATE REFERENCE TABLE r (k INT); INSERT INTO r VALUES (1);
        INSERT INTO t VALUES (1), (2), (3), (4), (5), (6), (7), (8), (9), (10), (11), (12)";
    let ran = leaves.session.run(text, &CancelToken::default(), &Progress::default(), &mut |_| Ok::<_, stoa::Error>(()));
    ran.unwrap();
    fails(&check(&leaf), "in use by another process");
    drop(leaves);
    let until = Instant::now() + Duration::from_secs(60);
    while check(&leaf).status.code() != Some(0) {
        assert!(Instant::now() < until, "{:?}", check(&leaf));
        std::thread::sleep(Duration::from_millis(20));
    }
    let said = stdout(&check(&leaf));
    for part in ["0", "1", "2", "reference"] {
        assert!(said.contains(&format!("{}", leaf.join("databases/stoa").join(part).display())), "{said}");
    }
    flip(&leaf, &leaf.join("databases/stoa/1/manifest"), |length| length / 2);
}

#[test]
fn a_row_in_the_wrong_partition_of_a_leaf_is_found() {
    let cluster = Cluster::start(1);
    cluster.ok("DROP DATABASE stoa; CREATE DATABASE stoa PARTITIONS 2; CREATE TABLE t (k BIGINT NOT NULL, SHARD KEY (k))");
    cluster.ok("INSERT INTO t VALUES (1), (2), (3), (4), (5), (6), (7), (8), (9), (10), (11), (12)");
    let leaf = cluster.path().join("leaf1");
    // The leaf is given the catalog to keep, which says how many partitions there are.
    let until = Instant::now() + Duration::from_secs(60);
    let knows = || fs::read(leaf.join("catalog")).is_ok_and(|bytes| bytes.windows(4).any(|part| part == b"\"t\":"));
    while !knows() {
        assert!(Instant::now() < until, "no catalog");
        std::thread::sleep(Duration::from_millis(20));
    }
    let stopped = stoa(&["cluster", "stop", "--dir", cluster.dir()]).output().unwrap();
    assert!(stopped.status.success(), "{}", text(&stopped));
    assert!(check(&leaf).status.success(), "{}", text(&check(&leaf)));

    let part = leaf.join("databases/stoa/0");
    let database = Database::open(&part, Options { default_partitions: 1, ..Options::default() }).unwrap();
    let table = database.table("t").unwrap();
    let keys = |from: i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(from..from + 100)) };
    let stray = shard_hashes(&[keys(100)]).into_iter().position(|hash| partition_of(hash, 2) == 1).unwrap() as i64;
    let rows = RecordBatch::try_new(table.def.schema(), vec![keys(100).slice(stray as usize, 1)]).unwrap();
    let mut transaction = database.begin();
    transaction.insert("t", &rows, RowNames::default()).unwrap();
    transaction.commit().unwrap();
    drop((table, database));
    let said = check(&leaf);
    fails(&said, "damage");
    let expected = format!("{}: table 't'", part.display());
    assert!(stdout(&said).contains(&expected) && stdout(&said).contains("belongs to partition 1 of 2"), "{}", stdout(&said));
}
