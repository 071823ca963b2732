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
    // Segments that were being written remove themselves when they are done; one that waits for a thread is yet to begin.
    let mut quiet = 0;
    for _ in 0..3000 {
        quiet = if count_files(folder.path()) == files { quiet + 1 } else { 0 };
        if quiet == 50 {
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
    // With the log file that is new.
    assert_eq!(count_files(folder.path()), files + 1);
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

#[test]
fn a_table_comes_with_its_first_rows() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path(), options(64)).unwrap();
    let def = wide_table("t");
    let writer = |name: &str| database.create_table_writer(wide_table(name)).unwrap();
    let (mut first, mut second, mut dropped) = (writer("t"), writer("T"), writer("u"));
    first.push(&wide_rows(&def, 0, 300)).unwrap();
    second.push(&wide_rows(&def, 300, 400)).unwrap();
    dropped.push(&wide_rows(&def, 0, 300)).unwrap();
    assert!(database.tables().is_empty());
    assert_eq!(first.finish().unwrap(), 300);
    assert!(matches!(second.finish(), Err(Error::AlreadyExists(_))));
    assert!(matches!(database.create_table_writer(wide_table("T")), Err(Error::AlreadyExists(_))));
    drop(dropped);
    assert_eq!(writer("none").finish().unwrap(), 0);
    drop(database);
    let database = Database::open(folder.path(), options(64)).unwrap();
    let tables: Vec<(String, u64)> = database.tables().iter().map(|t| (t.name().to_owned(), t.rows())).collect();
    assert_eq!(tables, [("none".to_owned(), 0), ("t".to_owned(), 300)]);
    assert_eq!(read_sorted(&database.table("t").unwrap()).unwrap(), wide_rows(&def, 0, 300));
}

#[test]
fn writers_commit_side_by_side_and_readers_keep_their_snapshot() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path(), options(64)).unwrap();
    let before = fill(&database, "t", 100);
    let def = wide_table("t");
    std::thread::scope(|scope| {
        for part in 0..4 {
            let (database, def) = (&database, &def);
            scope.spawn(move || {
                let mut writer = database.writer("t").unwrap();
                writer.push(&wide_rows(def, 100 + part * 150, 250 + part * 150)).unwrap();
                assert_eq!(writer.finish().unwrap(), 150);
            });
        }
    });
    assert_eq!(read_sorted(&before).unwrap(), wide_rows(&def, 0, 100));
    assert_eq!(read_sorted(&database.table("t").unwrap()).unwrap(), wide_rows(&def, 0, 700));
}

#[test]
fn a_writer_that_failed_commits_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path(), options(64)).unwrap();
    let table = fill(&database, "t", 100);
    // A file where the table's folder should be: no segment can be written.
    let tables = folder.path().join("tables").join(table.id.to_string());
    drop(table);
    fs::rename(&tables, folder.path().join("tables/aside")).unwrap();
    fs::write(&tables, "in the way").unwrap();
    let mut writer = database.writer("t").unwrap();
    let rows = wide_rows(&wide_table("t"), 100, 1000);
    let error = writer.push(&rows).unwrap_err();
    assert!(matches!(&error, Error::Io { path, .. } if path.starts_with(&tables)), "{error:?}");
    assert!(matches!(writer.finish(), Err(Error::Invalid(_))));
    fs::remove_file(&tables).unwrap();
    fs::rename(folder.path().join("tables/aside"), &tables).unwrap();
    drop(database);
    let database = Database::open(folder.path(), options(64)).unwrap();
    assert_eq!(read_sorted(&database.table("t").unwrap()).unwrap(), wide_rows(&wide_table("t"), 0, 100));
}

#[test]
fn a_manifest_that_cannot_be_written_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path(), options(64)).unwrap();
    fill(&database, "t", 100);
    // A folder of this name cannot be opened as a file.
    fs::create_dir(folder.path().join("manifest.new")).unwrap();
    let error = database.checkpoint().err().unwrap();
    assert!(matches!(&error, Error::Io { path, .. } if path.ends_with("manifest.new")), "{error:?}");
    database.create_table(wide_table("u")).unwrap();
    fs::remove_dir(folder.path().join("manifest.new")).unwrap();
    drop(database);
    let database = Database::open(folder.path(), options(64)).unwrap();
    assert_eq!((database.tables().len(), database.table("t").unwrap().rows()), (2, 100));
    database.checkpoint().unwrap();
    drop(database);
    let database = Database::open(folder.path(), options(64)).unwrap();
    assert_eq!((database.tables().len(), database.table("t").unwrap().rows()), (2, 100));
}
