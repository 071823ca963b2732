//! Opening, locking, versions, leftovers, the catalog.

use std::fs;

use stoa_columnstore::{Database, Error, TableDef};

use crate::tables::{fill, options, read_sorted, wide_rows, wide_table};

#[test]
fn two_opens_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let first = Database::open(folder.path(), options(64)).unwrap();
    match Database::open(folder.path(), options(64)) {
        Err(Error::Locked { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
        other => panic!("{:?}", other.err()),
    }
    drop(first);
    Database::open(folder.path(), options(64)).unwrap();
}

#[test]
fn another_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(Database::open(folder.path(), options(64)).unwrap());
    fs::write(folder.path().join("stoa.version"), "99\n").unwrap();
    assert!(matches!(Database::open(folder.path(), options(64)), Err(Error::Version { found: 99, .. })));
    fs::write(folder.path().join("stoa.version"), "x").unwrap();
    assert!(matches!(Database::open(folder.path(), options(64)), Err(Error::Corrupt { .. })));
}

#[test]
fn a_folder_with_other_things_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("letter.txt"), "dear").unwrap();
    let error = Database::open(folder.path(), options(64)).err().unwrap().to_string();
    assert!(error.contains("letter.txt"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn what_is_not_finished_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path(), options(64)).unwrap();
    let table = fill(&database, "kept", 500);
    let expected = read_sorted(&table).unwrap();
    let files = count_files(folder.path());
    let mut writer = database.writer("kept").unwrap();
    writer.push(&wide_rows(&wide_table("kept"), 500, 2000)).unwrap();
    drop(writer);
    // Segments that were being written remove themselves when they are done.
    for _ in 0..500 {
        if count_files(folder.path()) == files {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(count_files(folder.path()), files);
    assert_eq!(read_sorted(&database.table("kept").unwrap()).unwrap(), expected);
}

#[test]
fn leftovers_of_a_crash_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path(), options(64)).unwrap();
    let expected = read_sorted(&fill(&database, "kept", 500)).unwrap();
    drop(database);
    let files = count_files(folder.path());
    fs::write(folder.path().join("manifest.new"), "half a mani").unwrap();
    fs::write(folder.path().join("tables/0/0/999.segment"), "half a segment").unwrap();
    fs::create_dir_all(folder.path().join("tables/17/0")).unwrap();
    fs::write(folder.path().join("tables/17/0/5.segment"), "of a dropped table").unwrap();
    let database = Database::open(folder.path(), options(64)).unwrap();
    assert_eq!(count_files(folder.path()), files);
    assert_eq!(read_sorted(&database.table("kept").unwrap()).unwrap(), expected);
}

fn count_files(folder: &std::path::Path) -> usize {
    let entries = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    entries.map(|path| if path.is_dir() { count_files(&path) } else { 1 }).sum()
}

#[test]
fn dropped_tables_serve_who_reads_them() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path(), options(64)).unwrap();
    let table = fill(&database, "t", 300);
    let mut writer = database.writer("t").unwrap();
    writer.push(&wide_rows(&wide_table("t"), 300, 301)).unwrap();
    assert!(database.drop_table("T", false).unwrap());
    assert!(database.table("t").is_none());
    assert!(matches!(writer.finish(), Err(Error::NoSuchTable(_))));
    assert_eq!(read_sorted(&table).unwrap(), wide_rows(&wide_table("t"), 0, 300));
    let path = table.segments().next().unwrap().path().to_path_buf();
    assert!(path.exists());
    drop(table);
    assert!(!path.exists());
    assert!(!database.drop_table("t", true).unwrap());
    assert!(matches!(database.drop_table("t", false), Err(Error::NoSuchTable(_))));
}

#[test]
fn names_are_one_space_without_case() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path(), options(64)).unwrap();
    database.create_table(wide_table("Orders")).unwrap();
    assert!(matches!(database.create_table(wide_table("oRDERS")), Err(Error::AlreadyExists(_))));
    assert!(matches!(database.create_view("ORDERS", "select 1", true), Err(Error::AlreadyExists(_))));
    database.create_view("V", "select 1", false).unwrap();
    assert!(matches!(database.create_view("v", "select 2", false), Err(Error::AlreadyExists(_))));
    database.create_view("v", "select 2", true).unwrap();
    drop(database);
    let database = Database::open(folder.path(), options(64)).unwrap();
    assert_eq!(database.views(), [("v".to_string(), "select 2".to_string())]);
    assert!(database.drop_view("V", false).unwrap());
    assert_eq!(database.tables().len(), 1);
    let twice = TableDef { shard_key: vec![1, 1], ..wide_table("bad") };
    assert!(matches!(database.create_table(twice), Err(Error::Invalid(_))));
}
