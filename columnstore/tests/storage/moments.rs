//! Readers of several data directories at one moment: they see a transaction in all of them or in none.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Int64Type};
use stoa_columnstore::{Clock, Database, Error, Options, RowNames, Snapshot, TableDef, Transaction};

use crate::tables::{column, options, read_all};

const PATIENCE: Duration = Duration::from_secs(20);

fn create(folder: &Path) -> Arc<Database> {
    let setup = Options { default_partitions: 1, keep_shown: Duration::from_secs(60), fsync: true, ..options(64) };
    let database = Database::open(folder, setup).unwrap();
    let columns = vec![column("id", DataType::Int64)];
    database.create_table(TableDef { name: "t".into(), columns, ..TableDef::default() }).unwrap();
    database
}

fn adds(database: &Arc<Database>, id: i64) -> Transaction {
    let mut transaction = database.begin();
    let rows = RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from(vec![id])) as ArrayRef)]).unwrap();
    transaction.insert("t", &rows, RowNames::default()).unwrap();
    transaction
}

fn ids(snapshot: &Snapshot) -> BTreeSet<i64> {
    let all = read_all(&snapshot.table("t").unwrap()).unwrap();
    all.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
}

fn seen(database: &Database, moment: u64) -> BTreeSet<i64> {
    ids(&database.snapshot_at(moment, PATIENCE).unwrap())
}

#[test]
fn a_transaction_counts_from_one_moment_everywhere() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [decides, other] = folders.each_ref().map(|folder| create(folder.path()));
    let prepared = adds(&other, 1).prepare(7, 0).unwrap();
    let before = prepared - 1;
    let moment = adds(&decides, 1).commit_deciding(7, prepared).unwrap();
    assert!(moment > prepared);
    // Who looks before it need not wait; who looks later does.
    assert_eq!((seen(&decides, before), seen(&other, before)), (BTreeSet::new(), BTreeSet::new()));
    assert_eq!((seen(&decides, moment - 1), seen(&decides, moment)), (BTreeSet::new(), BTreeSet::from([1])));
    let in_doubt = other.snapshot_at(moment, Duration::from_millis(20));
    assert!(matches!(in_doubt.map(drop), Err(Error::Unsettled(_))));
    // What is committed alone meanwhile is shown at once, and does not keep the order from being one.
    adds(&other, 2).commit().unwrap();
    assert_eq!(ids(&other.snapshot()), BTreeSet::from([2]));
    let waiting = Arc::clone(&other);
    let waits = std::thread::spawn(move || seen(&waiting, moment));
    other.resolve(7, Some(moment)).unwrap();
    assert_eq!(waits.join().unwrap(), BTreeSet::from([1, 2]));
    assert!(seen(&other, moment - 1).is_disjoint(&BTreeSet::from([1])));
    assert_eq!(decides.outcome(7).unwrap(), Some(moment));
    // One that is given up keeps nobody waiting.
    let prepared = adds(&other, 3).prepare(8, 0).unwrap();
    other.resolve(8, None).unwrap();
    assert_eq!(seen(&other, prepared + 1), BTreeSet::from([1, 2]));
}

#[test]
fn transactions_are_shown_in_the_order_of_their_moments() {
    let folder = tempfile::tempdir().unwrap();
    let database = create(folder.path());
    let first = adds(&database, 1).prepare(1, 9).unwrap();
    let second = adds(&database, 2).prepare(2, 9).unwrap();
    // The later one is told first: it waits until it is known from when the other one counts.
    let later = Arc::clone(&database);
    let told = std::thread::spawn(move || later.resolve(2, Some(second + 100)).unwrap());
    std::thread::sleep(Duration::from_millis(30));
    assert!(!told.is_finished());
    database.resolve(1, Some(first + 50)).unwrap();
    told.join().unwrap();
    assert_eq!(seen(&database, first + 49), BTreeSet::new());
    assert_eq!(seen(&database, first + 50), BTreeSet::from([1]));
    assert_eq!(seen(&database, second + 100), BTreeSet::from([1, 2]));
}

#[test]
fn a_start_and_states_that_are_gone_make_readers_begin_anew() {
    let folder = tempfile::tempdir().unwrap();
    let database = create(folder.path());
    let before = database.moment();
    adds(&database, 1).prepare(1, 9).unwrap();
    drop(database);
    let database = create_again(folder.path());
    let passed = database.snapshot_at(before, PATIENCE).map(drop);
    assert!(matches!(passed, Err(Error::Passed { first }) if first == database.moment()), "{passed:?}");
    // What was prepared may count from any moment that is still to be had.
    let now = database.moment();
    assert!(matches!(database.snapshot_at(now, Duration::ZERO).map(drop), Err(Error::Unsettled(_))));
    database.resolve(1, Some(before)).unwrap();
    assert_eq!(seen(&database, now), BTreeSet::from([1]));
    assert!(matches!(database.snapshot_at(u64::MAX, PATIENCE).map(drop), Err(Error::Invalid(_))));
}

fn create_again(folder: &Path) -> Arc<Database> {
    Database::open(folder, Options { default_partitions: 1, ..options(64) }).unwrap()
}

/// Adds a row to some directories in one transaction, as a coordinator does.
fn add_to(databases: &[&Arc<Database>], id: i64) {
    let (decides, others) = databases.split_first().unwrap();
    let transactions: Vec<Transaction> = others.iter().map(|database| adds(database, id)).collect();
    let prepared = transactions.into_iter().map(|t| t.prepare(id as u64, 0).unwrap()).max().unwrap_or(0);
    let moment = adds(decides, id).commit_deciding(id as u64, prepared).unwrap();
    for other in others {
        std::thread::sleep(Duration::from_micros(id as u64 * 37 % 300));
        while other.resolve(id as u64, Some(moment)).is_err() {}
    }
}

#[test]
fn readers_beside_writers_see_all_of_a_transaction_or_nothing() {
    let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let all: Vec<Arc<Database>> = folders.iter().map(|folder| create(folder.path())).collect();
    let (next, ended, clock) = (AtomicU64::new(1), AtomicBool::new(false), Clock::default());
    // A reader that fails does not end the writers.
    let most = Instant::now() + PATIENCE;
    // Odd numbers go to all directories, those that 4 divides to the last two, the others to the second one alone.
    let write = || {
        while !ended.load(Ordering::Relaxed) && Instant::now() < most {
            let id = next.fetch_add(1, Ordering::Relaxed) as i64;
            match id {
                id if id % 2 == 1 => add_to(&all.iter().collect::<Vec<_>>(), id),
                id if id % 4 == 0 => add_to(&[&all[1], &all[2]], id),
                id => adds(&all[1], id).commit().unwrap(),
            }
        }
    };
    let read = || {
        let mut most = 0;
        // Longer on a machine where writers hardly run.
        let (began, until) = (Instant::now(), Duration::from_secs(2));
        while began.elapsed() < until || most <= 20 && began.elapsed() < PATIENCE {
            let moment = clock.tick();
            let seen: Vec<BTreeSet<i64>> = all.iter().map(|database| seen(database, moment)).collect();
            let of = |number: usize, which: fn(&i64) -> bool| seen[number].iter().copied().filter(which).collect::<BTreeSet<_>>();
            assert_eq!(of(0, |_| true), of(1, |id| id % 2 == 1));
            assert_eq!(of(0, |_| true), of(2, |id| id % 2 == 1));
            assert_eq!(of(1, |id| id % 4 == 0), of(2, |id| id % 4 == 0));
            most = most.max(seen[1].len());
        }
        ended.store(true, Ordering::Relaxed);
        most
    };
    let most = std::thread::scope(|scope| {
        (0..4).for_each(|_| drop(scope.spawn(write)));
        scope.spawn(read).join().unwrap()
    });
    assert!(most > 20, "readers saw {most} rows at most: writers hardly ran");
}

/// Whoever settles them asks for one after the other, of which the first waits for the others.
#[test]
fn transactions_whose_moments_are_forgotten_settle_all_the_same() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [decides, other] = folders.each_ref().map(|folder| create(folder.path()));
    for transaction in 7..10 {
        let prepared = adds(&other, transaction as i64).prepare(transaction, 0).unwrap();
        adds(&decides, transaction as i64).commit_deciding(transaction, prepared).unwrap();
    }
    drop(decides);
    let decides = create_again(folders[0].path());
    for _ in 0..3 {
        for (transaction, _) in other.in_doubt() {
            let outcome = decides.outcome(transaction).unwrap();
            assert!(outcome.is_some());
            let settled = other.resolve(transaction, outcome);
            assert!(matches!(settled, Ok(()) | Err(Error::Unsettled(_))), "{settled:?}");
        }
    }
    assert_eq!((other.in_doubt(), ids(&other.snapshot())), (vec![], BTreeSet::from([7, 8, 9])));
}
