//! The background: what fails in one place does not stop it elsewhere, merges stay small and rest, and what happens is told.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stoa_columnstore::{Database, Error, MergePace, MergeState, MergeStatus, Options, RowNames, TableDef};

use crate::tables::{options, read_sorted, wide_rows, wide_table};

/// One partition, and segments of a few rows.
fn small() -> Options {
    Options { default_partitions: 1, flush_rows: 10, ..options(1000) }
}

fn create(database: &Arc<Database>, name: &str) {
    database.create_table(wide_table(name)).unwrap();
}

fn insert(database: &Arc<Database>, name: &str, from: i64, to: i64) {
    let mut transaction = database.begin();
    transaction.insert(name, &wide_rows(&wide_table(name), from, to), RowNames::default()).unwrap();
    transaction.commit().unwrap();
}

/// Segments of ten rows each, with the rows from `first` on.
fn add_segments(database: &Arc<Database>, name: &str, first: i64, count: i64) {
    for from in (first..first + 10 * count).step_by(10) {
        insert(database, name, from, from + 10);
        database.flush_table(name).unwrap();
    }
}

fn status(database: &Database, name: &str) -> MergeStatus {
    let found = database.merge_status().into_iter().find(|status| status.table == name);
    found.unwrap_or_else(|| panic!("there is no table {name}"))
}

/// Waits until a table stands as it should.
fn wait_for(database: &Database, name: &str, is_so: impl Fn(&MergeStatus) -> bool) -> MergeStatus {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let status = status(database, name);
        if is_so(&status) {
            return status;
        }
        assert!(Instant::now() < until, "{status:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn log_bytes(folder: &Path) -> u64 {
    let files = fs::read_dir(folder.join("log")).unwrap();
    // One that is removed meanwhile has none.
    files.map(|file| file.unwrap().metadata().map_or(0, |data| data.len())).sum()
}

/// A table with a damaged segment that is to be merged, and nobody has read.
fn damaged(folder: &Path, options: &Options, name: &str) -> std::path::PathBuf {
    let database = Database::open(folder, options.clone()).unwrap();
    create(&database, name);
    add_segments(&database, name, 0, 7);
    let file = database.table(name).unwrap().segments().next().unwrap().path().to_path_buf();
    drop(database);
    let mut bytes = fs::read(&file).unwrap();
    bytes[64] ^= 1;
    fs::write(&file, bytes).unwrap();
    file
}

#[test]
fn a_damaged_segment_keeps_no_other_table_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { checkpoint_bytes: 20_000, ..small() };
    let file = damaged(folder.path(), &options, "a");
    let database = Database::open(folder.path(), options.clone()).unwrap();
    insert(&database, "a", 70, 80);
    let failed = wait_for(&database, "a", |status| status.state == Some(MergeState::Failed));
    assert!(failed.error.as_ref().is_some_and(|error| error.contains(&file.display().to_string())), "{failed:?}");
    assert_eq!((failed.segments, failed.to_merge, failed.rows_in_memory), (8, 8, 0), "the eighth was flushed all the same");
    assert_eq!(database.maintenance_error(), failed.error);

    create(&database, "b");
    for from in (0..600).step_by(10) {
        insert(&database, "b", from, from + 10);
    }
    let done =
        |status: &MergeStatus| status.rows_in_memory < 10 && status.to_merge == 0 && status.state == Some(MergeState::Idle);
    assert_eq!(wait_for(&database, "b", done).error, None);
    let until = Instant::now() + Duration::from_secs(60);
    while log_bytes(folder.path()) > 2 * options.checkpoint_bytes {
        assert!(Instant::now() < until, "a log of {} bytes stays", log_bytes(folder.path()));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(read_sorted(&database.table("b").unwrap()).unwrap(), wide_rows(&wide_table("b"), 0, 600));
    assert_eq!(status(&database, "a").state, Some(MergeState::Failed));
    assert!(matches!(database.optimize_table("a", false), Err(Error::Corrupt { path, .. }) if path == file));

    // What is not there any more fails no more.
    database.truncate_table("a").unwrap();
    let empty = wait_for(&database, "a", |status| status.state == Some(MergeState::Idle));
    assert_eq!((empty.error, database.maintenance_error()), (None, None));
}

#[test]
fn a_merge_takes_only_so_much_and_others_do_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    // Nothing is merged in the background before it is asked for.
    let database = Database::open(folder.path(), Options { flush_rows: 1 << 20, ..options(64) }).unwrap();
    let def = TableDef { partitions: 1, ..wide_table("t") };
    database.create_table(def.clone()).unwrap();
    let mut writer = database.writer("t").unwrap();
    writer.push(&wide_rows(&def, 0, 64 * 12)).unwrap();
    writer.finish().unwrap();
    drop(database);
    let raw: u64 = {
        let database = Database::open(folder.path(), options(64)).unwrap();
        database.table("t").unwrap().statistics().columns.iter().map(|column| column.raw_bytes).sum()
    };
    // Three of twelve segments, when a quarter of each is deleted.
    let bounded =
        Options { merge_bytes: raw / 12 * 3 * 3 / 4 + raw / 100, merge_pace: MergePace::resting(1000.0), ..options(64) };
    let database = Database::open(folder.path(), bounded).unwrap();
    let mut transaction = database.begin();
    let table = transaction.table("t").unwrap();
    let quarter = |first: u64| (first..first + 64).step_by(4);
    let addresses: Vec<u64> = table.scanned(0).unwrap().iter().flat_map(|scanned| quarter(scanned.address)).collect();
    transaction.delete("t", &addresses).unwrap();
    transaction.commit().unwrap();
    let expected = read_sorted(&database.table("t").unwrap()).unwrap();
    let before = status(&database, "t");
    assert!(before.deleted_rows <= 64 * 12 / 4, "{before:?}");
    let lsn = database.lsn();
    database.optimize_table("t", false).unwrap();
    // The background may have done one of them before it rests.
    assert!((3..=5).contains(&(database.lsn() - lsn)), "{} merges", database.lsn() - lsn);
    assert_eq!((status(&database, "t").to_merge, status(&database, "t").deleted_rows), (0, 0));
    assert_eq!(read_sorted(&database.table("t").unwrap()).unwrap(), expected);
}

#[test]
fn small_segments_of_large_rows_end_up_in_segments_that_fit_a_merge() {
    let folder = tempfile::tempdir().unwrap();
    let bounded = Options { merge_bytes: 10_000, flush_rows: 1 << 20, ..options(1000) };
    let database = Database::open(folder.path(), Options { default_partitions: 1, ..bounded }).unwrap();
    create(&database, "t");
    add_segments(&database, "t", 0, 100);
    database.optimize_table("t", false).unwrap();
    let after = status(&database, "t");
    assert_eq!(after.to_merge, 0);
    let most = database.table("t").unwrap().segments().map(|segment| segment.rows()).max().unwrap();
    assert!(after.segments < 50 && most < 500, "{after:?}, the largest of {most} rows");
    assert_eq!(read_sorted(&database.table("t").unwrap()).unwrap(), wide_rows(&wide_table("t"), 0, 1000));
}

#[test]
fn background_merges_rest_and_nothing_else_does() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path(), Options { merge_pace: MergePace::resting(1000.0), ..small() }).unwrap();
    create(&database, "t");
    add_segments(&database, "t", 0, 8);
    let merged = wait_for(&database, "t", |status| status.segments < 8);
    assert_eq!(merged.to_merge, 0, "{merged:?}");
    add_segments(&database, "t", 80, 8);
    let waiting = wait_for(&database, "t", |status| status.state == Some(MergeState::Waiting));
    assert!(waiting.to_merge >= 8 && waiting.error.is_none(), "{waiting:?}");
    // Rows go to segments meanwhile.
    insert(&database, "t", 160, 180);
    wait_for(&database, "t", |status| status.rows_in_memory == 0);
    assert_eq!(status(&database, "t").state, Some(MergeState::Waiting));
    // Who asks for a merge has it at once.
    database.optimize_table("t", false).unwrap();
    assert_eq!((status(&database, "t").to_merge, status(&database, "t").state), (0, Some(MergeState::Idle)));
    // Very many segments are worse than a merge.
    add_segments(&database, "t", 180, 80);
    wait_for(&database, "t", |status| status.segments < 60);
    database.optimize_table("t", true).unwrap();
    assert_eq!(read_sorted(&database.table("t").unwrap()).unwrap(), wide_rows(&wide_table("t"), 0, 980));
}

#[test]
fn directories_of_one_pace_take_turns() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let shared = Options { merge_pace: MergePace::resting(1000.0), ..small() };
    let [first, second] = folders.each_ref().map(|folder| Database::open(folder.path(), shared.clone()).unwrap());
    create(&first, "t");
    create(&second, "t");
    add_segments(&first, "t", 0, 8);
    wait_for(&first, "t", |status| status.segments < 8);
    add_segments(&second, "t", 0, 8);
    let waiting = wait_for(&second, "t", |status| status.to_merge == 8);
    assert_eq!(waiting.state, Some(MergeState::Waiting));
}
