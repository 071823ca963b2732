//! Transactions over several data directories: whatever is closed and opened again at any point, all of them commit or none.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Int64Type};
use stoa_columnstore::{BackupSource, Database, Error, Hold, Options, RowNames, TableDef, Transaction, UniqueKey};

use crate::tables::{column, options, read_all};

fn setup() -> Options {
    Options { default_partitions: 1, ..options(64) }
}

/// A directory with a table of one unique column.
fn create(folder: &Path) -> Arc<Database> {
    let database = Database::open(folder, setup()).unwrap();
    let def = TableDef {
        name: "t".into(),
        columns: vec![column("id", DataType::Int64)],
        shard_key: vec![0],
        unique_keys: vec![UniqueKey { name: "PRIMARY KEY".into(), columns: vec![0] }],
        ..TableDef::default()
    };
    database.create_table(def).unwrap();
    let mut first = database.begin();
    insert(&mut first, 0..10).unwrap();
    first.commit().unwrap();
    database
}

fn rows(ids: std::ops::Range<i64>) -> RecordBatch {
    RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from_iter_values(ids)) as ArrayRef)]).unwrap()
}

fn insert(transaction: &mut Transaction, ids: std::ops::Range<i64>) -> Result<u64, Error> {
    transaction.insert("t", &rows(ids), RowNames::default())
}

fn ids(database: &Database) -> Vec<i64> {
    let all = read_all(&database.table("t").unwrap()).unwrap();
    let mut ids: Vec<i64> = all.iter().flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec()).collect();
    ids.sort_unstable();
    ids
}

/// The address of the row with this key.
fn address(transaction: &Transaction, id: i64) -> u64 {
    transaction.duplicates("t", &rows(id..id + 1), RowNames::default()).unwrap()[0].1
}

/// A transaction that deletes row 3 and adds rows.
fn begin(database: &Arc<Database>, added: std::ops::Range<i64>) -> Transaction {
    let mut transaction = database.begin();
    let three = address(&transaction, 3);
    transaction.delete("t", &[three]).unwrap();
    insert(&mut transaction, added).unwrap();
    transaction
}

/// Closes a directory, after a checkpoint or not, and opens it again.
fn reopen(database: Arc<Database>, checkpoint: bool) -> Arc<Database> {
    if checkpoint {
        database.checkpoint().unwrap();
    }
    let root = database.root().to_path_buf();
    drop(database);
    Database::open(root, setup()).unwrap()
}

fn after(added: std::ops::Range<i64>) -> Vec<i64> {
    (0..10).filter(|id| *id != 3).chain(added).collect()
}

#[test]
fn what_is_prepared_waits_for_the_outcome() {
    // Few rows go to memory, many to segments.
    for added in [20..22, 20..100_020] {
        for commit in [true, false] {
            for checkpoint in [true, false] {
                let folder = tempfile::tempdir().unwrap();
                let database = create(folder.path());
                begin(&database, added.clone()).prepare(7, 5).unwrap();
                assert_eq!(ids(&database), (0..10).collect::<Vec<_>>());
                let database = reopen(database, checkpoint);
                assert_eq!((ids(&database), database.in_doubt()), ((0..10).collect(), vec![(7, 5)]));
                // Nothing moves the row meanwhile.
                database.optimize_table("t", true).unwrap();
                database.optimize_table("t", false).unwrap();
                database.resolve(7, commit.then_some(1)).unwrap();
                database.resolve(7, (!commit).then_some(1)).unwrap();
                let expected = if commit { after(added.clone()) } else { (0..10).collect() };
                assert_eq!((ids(&database), database.in_doubt()), (expected.clone(), vec![]));
                let database = reopen(database, checkpoint);
                assert_eq!((ids(&database), database.in_doubt()), (expected, vec![]));
                if !commit {
                    assert_eq!(segments(folder.path()), database.table("t").unwrap().segments().count());
                }
            }
        }
    }
}

/// A transaction that loads rows.
fn load(database: &Arc<Database>, added: std::ops::Range<i64>) -> Transaction {
    let mut writer = database.writer("t").unwrap();
    writer.push(&rows(added)).unwrap();
    let mut transaction = database.begin();
    transaction.attach(writer).unwrap();
    transaction
}

/// A transaction that empties the table and adds rows.
fn empty(database: &Arc<Database>, added: std::ops::Range<i64>) -> Transaction {
    let mut transaction = database.begin();
    let three = address(&transaction, 3);
    transaction.delete("t", &[three]).unwrap();
    transaction.truncate("t").unwrap();
    assert_eq!(transaction.table("t").unwrap().rows(), 0);
    insert(&mut transaction, added).unwrap();
    transaction
}

#[test]
fn loads_and_emptied_tables_wait_for_the_outcome() {
    for empties in [true, false] {
        for commit in [true, false] {
            for checkpoint in [true, false] {
                let folder = tempfile::tempdir().unwrap();
                let database = create(folder.path());
                database.flush_table("t").unwrap();
                // The key of a row that goes is free.
                let (transaction, committed) = match empties {
                    true => (empty(&database, 9..12), (9..12).collect::<Vec<_>>()),
                    false => (load(&database, 20..200), (0..10).chain(20..200).collect()),
                };
                transaction.prepare(7, 5).unwrap();
                assert_eq!(ids(&database), (0..10).collect::<Vec<_>>());
                let database = reopen(database, checkpoint);
                assert_eq!((ids(&database), database.in_doubt()), ((0..10).collect(), vec![(7, 5)]));
                database.optimize_table("t", true).unwrap();
                database.resolve(7, commit.then_some(1)).unwrap();
                database.resolve(7, (!commit).then_some(1)).unwrap();
                let expected = if commit { committed } else { (0..10).collect() };
                assert_eq!((ids(&database), database.in_doubt()), (expected.clone(), vec![]));
                assert_eq!(segments(folder.path()), database.table("t").unwrap().segments().count());
                let database = reopen(database, checkpoint);
                assert_eq!((ids(&database), database.in_doubt()), (expected, vec![]));
            }
        }
    }
}

#[test]
fn the_one_that_decides_commits_loads_and_emptied_tables() {
    let folder = tempfile::tempdir().unwrap();
    let database = create(folder.path());
    load(&database, 20..200).commit_deciding(7, 0).unwrap();
    let database = reopen(database, false);
    assert_eq!((ids(&database), database.outcome(7).unwrap().is_some()), ((0..10).chain(20..200).collect(), true));
    assert!(database.outcome(8).unwrap().is_none());
    assert!(matches!(empty(&database, 0..1).commit_deciding(8, 0), Err(Error::Conflict(_))));
    empty(&database, 0..1).commit_deciding(9, 0).unwrap();
    assert_eq!(segments(folder.path()), 0);
    let database = reopen(database, true);
    assert_eq!(ids(&database), [0]);
    // What is given up leaves no files.
    drop(load(&database, 20..200));
    let mut writer = database.writer("t").unwrap();
    writer.push(&rows(0..5)).unwrap();
    assert!(matches!(database.begin().attach(writer), Err(Error::DuplicateKey(_))));
    assert_eq!((ids(&database), segments(folder.path())), (vec![0], 0));
}

#[test]
fn a_load_goes_alone_and_can_be_undone() {
    let folder = tempfile::tempdir().unwrap();
    let database = create(folder.path());
    let mut transaction = database.begin();
    let before = transaction.savepoint();
    let writer = |added: std::ops::Range<i64>| {
        let mut writer = database.writer("t").unwrap();
        writer.push(&rows(added)).unwrap();
        writer
    };
    transaction.attach(writer(20..30)).unwrap();
    let refused = |result: Result<(), Error>| assert!(matches!(result, Err(Error::Invalid(_))), "{result:?}");
    refused(transaction.attach(writer(40..50)));
    refused(insert(&mut transaction, 25..26).map(drop));
    refused(transaction.truncate("t"));
    transaction.undo(before);
    insert(&mut transaction, 25..26).unwrap();
    refused(transaction.attach(writer(40..50)));
    transaction.commit().unwrap();
    assert_eq!(ids(&database), (0..10).chain([25]).collect::<Vec<_>>());
}

#[test]
fn nobody_changes_a_table_that_is_about_to_be_empty() {
    let folder = tempfile::tempdir().unwrap();
    let database = create(folder.path());
    let mut added = database.begin();
    insert(&mut added, 30..31).unwrap();
    let mut deleted = database.begin();
    let four = address(&deleted, 4);
    deleted.delete("t", &[four]).unwrap();
    let mut later = database.begin();
    insert(&mut later, 40..41).unwrap();
    empty(&database, 20..22).prepare(7, 0).unwrap();
    let conflict = |result: Result<(), Error>| assert!(matches!(result, Err(Error::Conflict(_))), "{result:?}");
    conflict(added.commit());
    conflict(deleted.commit());
    conflict(later.prepare(8, 0).map(drop));
    conflict(database.drop_table("t", false).map(drop));
    conflict(database.truncate_table("t"));
    // One that would do the same waits a little.
    let began = Instant::now();
    conflict(empty(&database, 50..51).prepare(8, 0).map(drop));
    assert!(began.elapsed() >= Duration::from_millis(500), "{:?}", began.elapsed());
    // A load waits longer: its rows were written already.
    let loading = Arc::clone(&database);
    let load = std::thread::spawn(move || load(&loading, 100..200).prepare(9, 0));
    std::thread::sleep(Duration::from_millis(200));
    assert!(!load.is_finished());
    database.resolve(7, Some(1)).unwrap();
    load.join().unwrap().unwrap();
    database.resolve(9, Some(1)).unwrap();
    assert_eq!(ids(&database), (20..22).chain(100..200).collect::<Vec<_>>());
}

/// Segment files in a folder.
fn segments(folder: &Path) -> usize {
    std::fs::read_dir(folder.join("tables/0/0")).map_or(0, Iterator::count)
}

#[test]
fn others_do_not_come_in_between() {
    let folder = tempfile::tempdir().unwrap();
    let database = create(folder.path());
    let mut same_row = database.begin();
    let three = address(&same_row, 3);
    same_row.delete("t", &[three]).unwrap();
    let mut same_key = database.begin();
    insert(&mut same_key, 21..22).unwrap();
    let mut apart = database.begin();
    insert(&mut apart, 30..31).unwrap();
    let again = begin(&database, 40..41);
    begin(&database, 20..22).prepare(7, 0).unwrap();
    let conflict = |result: Result<(), Error>| assert!(matches!(result, Err(Error::Conflict(_))), "{result:?}");
    conflict(same_row.commit());
    conflict(same_key.commit());
    conflict(again.prepare(8, 0).map(drop));
    conflict(database.drop_table("t", false).map(drop));
    conflict(database.truncate_table("t"));
    let mut writer = database.writer("t").unwrap();
    writer.push(&rows(20..200)).unwrap();
    conflict(writer.finish().map(drop));
    apart.commit().unwrap();
    database.flush_table("t").unwrap();
    assert_eq!(database.table("t").unwrap().rows_in_memory(), 11);
    database.resolve(7, Some(1)).unwrap();
    assert_eq!(ids(&database), after(20..22).into_iter().chain([30]).collect::<Vec<_>>());
    database.flush_table("t").unwrap();
    assert_eq!(database.table("t").unwrap().rows_in_memory(), 0);
    database.drop_table("t", false).unwrap();
}

#[test]
fn decisions_last_and_what_is_unknown_never_commits() {
    for checkpoint in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let database = create(folder.path());
        begin(&database, 20..22).commit_deciding(7, 0).unwrap();
        let database = reopen(database, checkpoint);
        assert_eq!(ids(&database), after(20..22));
        assert!(database.outcome(7).unwrap().is_some());
        assert!(database.outcome(8).unwrap().is_none());
        let database = reopen(database, checkpoint);
        assert!(database.outcome(8).unwrap().is_none());
        database.forget(&[7, 9]).unwrap();
        let database = reopen(database, checkpoint);
        assert!(database.outcome(7).unwrap().is_none());
    }
    let folder = tempfile::tempdir().unwrap();
    let database = create(folder.path());
    let late = begin(&database, 20..22);
    assert!(database.outcome(7).unwrap().is_none());
    assert!(matches!(late.commit_deciding(7, 0), Err(Error::Conflict(_))));
    assert_eq!(ids(&database), (0..10).collect::<Vec<_>>());
    database.begin().commit_deciding(9, 0).unwrap();
    assert!(database.outcome(9).unwrap().is_some());
    database.begin().prepare(10, 0).unwrap();
    assert_eq!(database.in_doubt(), vec![]);
}

#[test]
fn states_that_are_held_together_are_of_one_moment() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let databases: Vec<Arc<Database>> = folders.iter().map(|folder| create(folder.path())).collect();
    // Prepared in one, decided in the other, and told after the hold began.
    begin(&databases[0], 20..22).prepare(7, 1).unwrap();
    begin(&databases[0], 30..31).prepare(8, 1).unwrap_err();
    let mut other = databases[0].begin();
    insert(&mut other, 40..41).unwrap();
    other.prepare(9, 1).unwrap();
    begin(&databases[1], 20..22).commit_deciding(7, 0).unwrap();
    let holds: Vec<Hold> = databases.iter().map(|database| database.hold(Duration::from_secs(60))).collect();
    let waiting = Arc::clone(&databases[0]);
    let told = std::thread::spawn(move || waiting.resolve(7, Some(1)).unwrap());
    std::thread::sleep(Duration::from_millis(50));
    assert!(!told.is_finished() && ids(&databases[0]) == (0..10).collect::<Vec<_>>(), "readers do not wait, commits do");
    let sources: Vec<BackupSource> = holds.iter().map(|hold| hold.source().unwrap()).collect();
    drop(holds);
    told.join().unwrap();
    assert_eq!(ids(&databases[0]), after(20..22));
    // What came after it is not in it, and what was in doubt is settled.
    assert_eq!(sources[0].in_doubt(), [(7, 1), (9, 1)]);
    let committed = sources[0].in_doubt().into_iter().map(|(t, _)| t).filter(|t| sources[1].commits(*t)).collect();
    for (source, expected) in sources.iter().zip([after(20..22), after(20..22)]) {
        let (restored, source) = (tempfile::tempdir().unwrap(), source.settled(&committed, &|table| table == "t").unwrap());
        let database = Database::open(restored.path(), setup()).unwrap();
        let fetch = |name: &str| source.files().find(|file| file.name == name).map(|file| std::fs::read(file.path()).unwrap());
        database.restore(&source.manifest().unwrap(), &mut |name| Ok(fetch(name).unwrap())).unwrap();
        assert_eq!((ids(&database), database.in_doubt()), (expected, vec![]));
    }
    assert!(sources[1].settled(&committed, &|_| false).unwrap().definition("t").is_none());
}

#[test]
fn a_hold_ends_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let database = create(folder.path());
    let (short, long) = (database.hold(Duration::from_millis(20)), database.hold(Duration::from_millis(200)));
    let began = Instant::now();
    begin(&database, 20..21).commit().unwrap();
    assert!(began.elapsed() >= Duration::from_millis(190), "{:?}", began.elapsed());
    // The state would have what came after it.
    assert!(matches!(short.source(), Err(Error::Conflict(_))) && matches!(long.source(), Err(Error::Conflict(_))));
    drop((short, long));
    begin_insert(&database, 50);
    let hold = database.hold(Duration::from_secs(60));
    assert!(hold.source().is_ok());
    drop(hold);
    begin_insert(&database, 51);
}

fn begin_insert(database: &Arc<Database>, id: i64) {
    let mut transaction = database.begin();
    insert(&mut transaction, id..id + 1).unwrap();
    transaction.commit().unwrap();
}

#[test]
fn writers_without_a_gap_do_not_keep_a_table_from_changing() {
    let folder = tempfile::tempdir().unwrap();
    let database = create(folder.path());
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for writer in 1..=4_i64 {
            let (database, ended) = (&database, &ended);
            scope.spawn(move || {
                for round in 0.. {
                    let (id, number) = (writer * 1_000_000 + round, (writer * 1_000_000 + round) as u64);
                    let mut transaction = database.begin();
                    insert(&mut transaction, id..id + 1).unwrap();
                    // One that meets the table altered is of a definition before: it ends, as it should.
                    let prepared = transaction.prepare(number, 0);
                    std::thread::sleep(Duration::from_millis(20));
                    if let Ok(moment) = prepared {
                        database.resolve(number, Some(moment)).unwrap();
                    }
                    if ended.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
        }
        std::thread::sleep(Duration::from_millis(50));
        let altered: Vec<bool> = (0..5)
            .map(|_| {
                let now = database.table("t").unwrap();
                std::thread::sleep(Duration::from_millis(50));
                database.redefine_table(&TableDef::clone(&now.def).with_version(now.def.version() + 1)).is_ok()
            })
            .collect();
        ended.store(true, Ordering::Relaxed);
        assert_eq!(altered, [true; 5]);
    });
}
