//! Every byte flipped, every length cut: a clear error or the right rows, and other tables are not touched by it.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow::array::RecordBatch;
use stoa_columnstore::{Database, Error, Options, RowNames};

use crate::tables::{fill, options, read_sorted, wide_rows, wide_table};

fn one_partition() -> Options {
    Options { default_partitions: 1, ..options(1 << 20) }
}

/// Opens the directory; the damaged table must give its rows or an error that names its file, the other its rows.
fn check(folder: &std::path::Path, file: &std::path::Path, rows: &RecordBatch, what: &str) {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let database = Database::open(folder, one_partition())?;
        let other = database.table("other").unwrap();
        assert_eq!(other.rows(), 20);
        assert_eq!(read_sorted(&other).unwrap(), wide_rows(&wide_table("other"), 0, 20), "{what}");
        let damaged = database.table("damaged").unwrap();
        let _ = damaged.statistics();
        read_sorted(&damaged)
    }));
    match outcome {
        Err(_) => panic!("{what}: panicked"),
        Ok(Ok(read)) => assert_eq!(read, *rows, "{what}"),
        Ok(Err(error)) => {
            assert!(matches!(error, Error::Corrupt { .. }), "{what}: {error:?}");
            assert!(error.to_string().contains(&file.display().to_string()), "{what}: {error}");
        }
    }
}

#[test]
fn damaged_segments_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path(), one_partition()).unwrap();
    fill(&database, "other", 20);
    let table = fill(&database, "damaged", 30);
    let file = table.segments().next().unwrap().path().to_path_buf();
    // Not as read: that may refer to the mapped file, which is cut short below.
    let rows = wide_rows(&wide_table("damaged"), 0, 30);
    drop((table, database));
    let good = fs::read(&file).unwrap();
    let mut silent = 0;
    for i in 0..good.len() {
        let mut bad = good.clone();
        bad[i] ^= 1 << (i % 8);
        fs::write(&file, &bad).unwrap();
        check(folder.path(), &file, &rows, &format!("byte {i} of {} flipped", good.len()));
        silent += usize::from(bad == good);
    }
    assert_eq!(silent, 0);
    for length in (0..good.len()).rev() {
        fs::write(&file, &good[..length]).unwrap();
        check(folder.path(), &file, &rows, &format!("cut to {length} of {}", good.len()));
    }
    fs::remove_file(&file).unwrap();
    check(folder.path(), &file, &rows, "removed");
    fs::write(&file, &good).unwrap();
    check(folder.path(), &file, &rows, "as it was");
}

#[test]
fn a_damaged_manifest_is_named_and_removes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path(), one_partition()).unwrap();
    fill(&database, "other", 20);
    let table = fill(&database, "damaged", 30);
    let rows = wide_rows(&wide_table("damaged"), 0, 30);
    let segment = table.segments().next().unwrap().path().to_path_buf();
    drop((table, database));
    let file = folder.path().join("manifest");
    let good = fs::read(&file).unwrap();
    let refuse = |bytes: &[u8], what: &str| {
        fs::write(&file, bytes).unwrap();
        match catch_unwind(AssertUnwindSafe(|| Database::open(folder.path(), one_partition()).err())) {
            Ok(Some(Error::Corrupt { path, .. })) => assert_eq!(path, file, "{what}"),
            other => panic!("{what}: {other:?}"),
        }
        assert!(segment.exists());
    };
    for i in 0..good.len() {
        let mut bad = good.clone();
        bad[i] ^= 1 << (i % 8);
        refuse(&bad, &format!("byte {i} flipped"));
    }
    for length in 0..good.len() {
        refuse(&good[..length], &format!("cut to {length}"));
    }
    fs::remove_file(&file).unwrap();
    assert!(matches!(Database::open(folder.path(), one_partition()), Err(Error::Corrupt { .. })));
    assert!(segment.exists());
    fs::write(&file, &good).unwrap();
    check(folder.path(), &segment, &rows, "as it was");
}

#[test]
fn a_damaged_log_is_named_and_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let def = wide_table("t");
    // Each process writes a file of the log.
    for from in [0, 10] {
        let database = Database::open(folder.path(), one_partition()).unwrap();
        if from == 0 {
            database.create_table(def.clone()).unwrap();
        }
        let mut transaction = database.begin();
        transaction.insert("t", &wide_rows(&def, from, from + 10), RowNames::default()).unwrap();
        transaction.commit().unwrap();
    }
    let logs = fs::read_dir(folder.path().join("log")).unwrap().map(|entry| entry.unwrap().path());
    let mut logs: Vec<_> = logs.filter(|file| fs::metadata(file).unwrap().len() > 0).collect();
    logs.sort();
    let [first, _] = &logs[..] else { panic!("{logs:?}") };
    let good = fs::read(first).unwrap();
    for at in [0, 7, 60, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 4;
        fs::write(first, &bad).unwrap();
        for _ in 0..2 {
            match Database::open(folder.path(), one_partition()) {
                Err(Error::Corrupt { path, .. }) => assert_eq!(path, *first, "byte {at}"),
                other => panic!("byte {at}: {:?}", other.err()),
            }
            assert_eq!(fs::read(first).unwrap(), bad, "byte {at}");
        }
    }
    fs::write(first, &good).unwrap();
    let database = Database::open(folder.path(), one_partition()).unwrap();
    assert_eq!(read_sorted(&database.table("t").unwrap()).unwrap(), wide_rows(&def, 0, 20));
}

#[test]
fn damage_of_the_last_record_is_told_from_a_torn_one_by_the_files_that_it_took_away() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path(), one_partition()).unwrap();
    let def = wide_table("t");
    fill(&database, "t", 20);
    let mut writer = database.writer("t").unwrap();
    writer.push(&wide_rows(&def, 20, 40)).unwrap();
    writer.finish().unwrap();
    database.optimize_table("t", true).unwrap();
    assert_eq!(database.table("t").unwrap().segments().count(), 1);
    drop(database);
    let logs = fs::read_dir(folder.path().join("log")).unwrap().map(|entry| entry.unwrap().path());
    let log = logs.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let good = fs::read(&log).unwrap();
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 4;
    fs::write(&log, &bad).unwrap();
    for _ in 0..2 {
        match Database::open(folder.path(), one_partition()) {
            Err(Error::Corrupt { path, what }) => assert!(path == log && what.contains(".segment is missing"), "{what}"),
            other => panic!("{:?}", other.err()),
        }
    }
    // Nothing was taken for a leftover meanwhile.
    fs::write(&log, &good).unwrap();
    let database = Database::open(folder.path(), one_partition()).unwrap();
    assert_eq!(read_sorted(&database.table("t").unwrap()).unwrap(), wide_rows(&def, 0, 40));
}
