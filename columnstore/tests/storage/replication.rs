//! A replica has what its master has, and nothing that was acknowledged is lost when it takes over.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use parking_lot::Mutex;
use stoa_columnstore::{CopyReceiver, Database, Durability, Error, LogRecord, Options, Replication, RowNames, TableDef};

use crate::tables::{options, read_sorted, wide_rows, wide_table};

/// Feeds a replica in the same process.
struct Link {
    master: Mutex<Weak<Database>>,
    replica: Arc<Database>,
    cut: AtomicBool,
}

impl Link {
    fn from(master: &Arc<Database>, replica: &Arc<Database>, term: u64) -> Arc<Link> {
        replica.become_replica().unwrap();
        let link =
            Arc::new(Link { master: Mutex::new(Arc::downgrade(master)), replica: replica.clone(), cut: AtomicBool::new(false) });
        master.become_master(term, link.clone()).unwrap();
        assert!(master.has(replica.position()).unwrap());
        link
    }

    /// Sends all that there is.
    fn feed(&self) {
        let master = self.master.lock().upgrade().unwrap();
        loop {
            let records = master.records_after(self.replica.position().lsn, 1 << 16).unwrap().unwrap();
            if records.is_empty() {
                return;
            }
            send(&records, &self.replica);
        }
    }
}

fn send(records: &[LogRecord], replica: &Arc<Database>) {
    for file in records.iter().flat_map(LogRecord::files) {
        let mut receiver = replica.receive_file(&file.name).unwrap();
        std::fs::read(&file.path).unwrap().chunks(1000).for_each(|part| receiver.write(part).unwrap());
        receiver.finish().unwrap();
    }
    let sent: Vec<LogRecord> = records.iter().map(|r| LogRecord::new(r.lsn, r.term, r.body.clone())).collect();
    replica.replicate(&sent).unwrap();
}

impl Replication for Link {
    fn written(&self, _: u64) {}

    fn wait(&self, lsn: u64) -> Result<(), String> {
        if self.cut.load(Ordering::Relaxed) {
            return Err("another is".into());
        }
        self.feed();
        assert!(self.replica.position().lsn >= lsn);
        Ok(())
    }

    fn acknowledged(&self) -> u64 {
        self.replica.position().lsn
    }
}

fn open(folder: &Path) -> Arc<Database> {
    Database::open(folder, options(64)).unwrap()
}

fn insert(database: &Arc<Database>, from: i64, to: i64) -> Result<(), Error> {
    let mut transaction = database.begin();
    transaction.insert("wide", &wide_rows(&wide_table("wide"), from, to), RowNames::default())?;
    transaction.commit()
}

fn delete(database: &Arc<Database>, gone: impl Fn(i64) -> bool) {
    let mut transaction = database.begin();
    let table = transaction.table("wide").unwrap();
    let mut addresses = Vec::new();
    for scanned in (0..table.partitions.len()).flat_map(|partition| table.scanned(partition).unwrap()) {
        let ids = scanned.segment.values(0, 0, scanned.segment.rows(), None).unwrap();
        let live = |row: u64| !scanned.deleted.as_ref().is_some_and(|deleted| deleted.contains(row as u32));
        let rows = (0..).zip(ids.as_primitive::<Int64Type>().values().to_vec());
        addresses.extend(rows.filter(|(row, id)| gone(*id) && live(*row)).map(|(row, _)| scanned.address + row));
    }
    transaction.delete("wide", &addresses).unwrap();
    transaction.commit().unwrap();
}

fn load(database: &Arc<Database>, from: i64, to: i64) {
    let mut writer = database.writer("wide").unwrap();
    writer.push(&wide_rows(&wide_table("wide"), from, to)).unwrap();
    writer.finish().unwrap();
}

/// Both have the same rows, and the same log. What the background is about may come between two looks.
fn same(a: &Arc<Database>, b: &Arc<Database>) {
    for _ in 0..100 {
        if a.position() == b.position() && tables(a) == tables(b) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("{:?} and {:?}:\n{:?}\n{:?}", a.position(), b.position(), tables(a), tables(b));
}

/// Every table: its definition, how many segments it has, its rows.
fn tables(database: &Arc<Database>) -> Vec<(Arc<TableDef>, usize, RecordBatch)> {
    database.tables().iter().map(|t| (t.def.clone(), t.segments().count(), read_sorted(t).unwrap())).collect()
}

fn files(folder: &Path) -> usize {
    fn walk(folder: &Path, found: &mut usize) {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.path().is_dir() {
                walk(&entry.path(), found);
            } else {
                *found += 1;
            }
        }
    }
    let mut found = 0;
    walk(&folder.join("tables"), &mut found);
    found
}

/// Waits for what the background does, or lets go.
fn eventually(master: &Arc<Database>, done: impl Fn() -> bool) {
    for _ in 0..200 {
        if done() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
        master.create_view("nothing", "SELECT 1", true).unwrap();
    }
    panic!("it never happens");
}

#[test]
fn a_replica_follows_whatever_happens() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (master, replica) = (open(one.path()), open(two.path()));
    let _link = Link::from(&master, &replica, 2);
    master.create_table(wide_table("wide")).unwrap();
    for step in 0..12i64 {
        insert(&master, step * 100, step * 100 + 30).unwrap();
        load(&master, step * 100 + 30, step * 100 + 90);
        delete(&master, |id| id % 13 == step);
        same(&master, &replica);
        match step % 4 {
            0 => master.flush_table("wide").unwrap(),
            1 => master.optimize_table("wide", true).unwrap(),
            2 => master.checkpoint().unwrap(),
            _ => replica.checkpoint().unwrap(),
        }
        same(&master, &replica);
    }
    master.create_view("v", "SELECT 1", false).unwrap();
    master.create_table(wide_table("other")).unwrap();
    master.drop_table("other", false).unwrap();
    same(&master, &replica);
    assert_eq!(replica.views(), master.views());
    assert!(matches!(insert(&replica, 0, 1), Err(Error::NotMaster(_))));
    // Merged segments go on both sides.
    eventually(&master, || files(one.path()) == files(two.path()));
    master.truncate_table("wide").unwrap();
    same(&master, &replica);
    eventually(&master, || files(one.path()) + files(two.path()) == 0);
}

#[test]
fn a_replica_takes_over_and_the_old_master_follows_or_is_found_out() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (first, second) = (open(one.path()), open(two.path()));
    let link = Link::from(&first, &second, 2);
    first.create_table(wide_table("wide")).unwrap();
    insert(&first, 0, 50).unwrap();
    let back = Link::from(&second, &first, 3);
    insert(&second, 50, 80).unwrap();
    same(&first, &second);
    // Now it writes what its replica never gets.
    back.cut.store(true, Ordering::Relaxed);
    let error = insert(&second, 80, 90).unwrap_err();
    assert!(matches!(error, Error::NotMaster(_)), "{error}");
    assert_eq!(read_sorted(&second.table("wide").unwrap()).unwrap().num_rows(), 80);
    assert!(matches!(insert(&second, 80, 90), Err(Error::NotMaster(_))));
    // The other goes on alone in a new term.
    link.cut.store(false, Ordering::Relaxed);
    first.become_master(4, Arc::new(Alone(u64::MAX))).unwrap();
    insert(&first, 200, 210).unwrap();
    second.become_replica().unwrap();
    assert_eq!(second.position().lsn, first.position().lsn - 1);
    assert!(!first.has(second.position()).unwrap(), "it has a record that was never acknowledged");
    let stale = LogRecord::new(second.position().lsn + 1, 1, Arc::from(&b""[..]));
    assert!(matches!(second.replicate(&[stale]), Err(Error::Invalid(_))));
}

/// Commits of rows go to the replica and need not be on disk, whatever is committed between them.
#[test]
fn rows_that_last_later_are_on_the_replica_at_once() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // Without syncing there would be no difference.
    let open_async = |folder: &Path| {
        let database = Database::open(folder, Options { fsync: true, ..options(64) }).unwrap();
        database.set_durability(Durability::Async);
        database
    };
    let (master, replica) = (open_async(one.path()), open_async(two.path()));
    let link = Link::from(&master, &replica, 2);
    master.create_table(wide_table("wide")).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let master = &master;
            scope.spawn(move || (0..20).for_each(|i| insert(master, writer * 100 + i, writer * 100 + i + 1).unwrap()));
        }
        (0..10).for_each(|_| master.sync().unwrap());
    });
    for row in 500..520 {
        insert(&master, row, row + 1).unwrap();
        assert!(replica.position().lsn >= master.lsn());
    }
    load(&master, 1000, 1100);
    same(&master, &replica);
    assert_eq!(read_sorted(&replica.table("wide").unwrap()).unwrap().num_rows(), 200);
    // The replica takes over, and what was there is there after it was closed.
    link.cut.store(true, Ordering::Relaxed);
    assert!(matches!(insert(&master, 5000, 5001), Err(Error::NotMaster(_))));
    replica.become_master(3, Arc::new(Alone(u64::MAX))).unwrap();
    insert(&replica, 2000, 2010).unwrap();
    drop((link, master, replica));
    assert_eq!(read_sorted(&open(two.path()).table("wide").unwrap()).unwrap().num_rows(), 210);
}

/// Feeds nobody, and keeps records for a copy that is being made.
struct Alone(u64);

impl Replication for Alone {
    fn written(&self, _: u64) {}

    fn wait(&self, _: u64) -> Result<(), String> {
        Ok(())
    }

    fn acknowledged(&self) -> u64 {
        self.0
    }
}

#[test]
fn a_copy_is_made_anew_while_commits_go_on_and_then_follows() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let master = open(one.path());
    master.create_table(wide_table("wide")).unwrap();
    load(&master, 0, 500);
    insert(&master, 500, 520).unwrap();
    master.become_master(2, Arc::new(Alone(u64::MAX))).unwrap();
    master.checkpoint().unwrap();
    insert(&master, 520, 540).unwrap();
    // The log does not go back to the beginning any more.
    let root = two.path().join("copy");
    assert!(master.records_after(0, 1).unwrap().is_none());
    let source = master.copy_source();
    master.become_master(2, Arc::new(Alone(source.lsn()))).unwrap();
    let copy = CopyReceiver::begin(&root, true).unwrap();
    load(&master, 600, 700);
    master.optimize_table("wide", true).unwrap();
    for file in source.files() {
        let mut receiver = copy.file(&file.name).unwrap();
        receiver.write(&std::fs::read(&file.path).unwrap()).unwrap();
        receiver.finish().unwrap();
    }
    let manifest = source.manifest().unwrap();
    assert!(copy.file("../x").is_err() && copy.file("manifest").is_err());
    copy.finish(&manifest).unwrap();
    let replica = open(&root);
    assert_eq!(replica.position().lsn, source.lsn());
    let _link = Link::from(&master, &replica, 2);
    insert(&master, 800, 810).unwrap();
    same(&master, &replica);
    // Both end and go on where they were.
    drop((_link, replica, master, source));
    let (master, replica) = (open(one.path()), open(&root));
    same(&master, &replica);
    let _link = Link::from(&master, &replica, 3);
    delete(&master, |id| id % 3 == 0);
    same(&master, &replica);
}

#[test]
fn a_copy_with_a_file_missing_is_none() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let master = open(one.path());
    master.create_table(wide_table("wide")).unwrap();
    load(&master, 0, 100);
    let copy = CopyReceiver::begin(&two.path().join("copy"), false).unwrap();
    assert!(copy.finish(&master.copy_source().manifest().unwrap()).is_err());
    let replica = open(&two.path().join("replica"));
    replica.become_replica().unwrap();
    let records = master.records_after(0, usize::MAX).unwrap().unwrap();
    let bare: Vec<LogRecord> = records.iter().map(|r| LogRecord::new(r.lsn, r.term, r.body.clone())).collect();
    assert!(replica.replicate(&bare).is_err());
    // Nothing of the batch counts, and it can be sent again with its files.
    assert_eq!(replica.position().lsn, 0);
    send(&records, &replica);
    same(&master, &replica);
}
