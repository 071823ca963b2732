//! What a check finds of rows that are whole by themselves, and should not be where they are.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use stoa_columnstore::{
    CheckReport, Damage, Database, LogRecord, Options, RowNames, TableDef, UniqueKey, partition_of, shard_hashes,
};

use crate::tables::{options, wide_rows, wide_table};

fn open(folder: &Path) -> Arc<Database> {
    Database::open(folder, Options { default_partitions: 1, ..options(64) }).unwrap()
}

fn insert(database: &Arc<Database>, name: &str, rows: &RecordBatch) {
    let mut transaction = database.begin();
    transaction.insert(name, rows, RowNames::default()).unwrap();
    transaction.commit().unwrap();
}

/// Rows of the wide table that belong to one of two partitions.
fn rows_of(partition: usize) -> RecordBatch {
    let all = wide_rows(&wide_table("t"), 0, 100);
    let keys: Vec<ArrayRef> = vec![Arc::clone(all.column(0))];
    let here: BooleanArray = shard_hashes(&keys).into_iter().map(|hash| Some(partition_of(hash, 2) == partition)).collect();
    filter_record_batch(&all, &here).unwrap()
}

#[test]
fn rows_of_another_partition_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let found = |part: Option<(u32, u32)>| CheckReport::of(folder.path(), part, &|_, _| ()).unwrap().damages;
    let database = open(folder.path());
    database.create_table(wide_table("t")).unwrap();
    database.create_table(TableDef { reference: true, ..wide_table("everywhere") }).unwrap();
    database.create_table(TableDef { shard_key: vec![], ..wide_table("anywhere") }).unwrap();
    for name in ["t", "everywhere", "anywhere"] {
        insert(&database, name, &rows_of(0));
    }
    database.flush_table("t").unwrap();
    insert(&database, "everywhere", &rows_of(1));
    insert(&database, "anywhere", &rows_of(1));
    drop(database);
    assert_eq!((found(Some((0, 2))), found(None)), (vec![], vec![]));

    let database = open(folder.path());
    insert(&database, "t", &rows_of(1).slice(0, 1));
    drop(database);
    let damages = found(Some((0, 2)));
    assert!(
        matches!(&damages[..], [Damage { path, what }]
        if path == folder.path() && what.contains("'t'") && what.contains("row 0 belongs to partition 1 of 2")),
        "{damages:?}"
    );
    // A directory that is all of a database has it rightly.
    assert_eq!(found(None), vec![]);

    let database = open(folder.path());
    database.flush_table("t").unwrap();
    let files: Vec<_> = database.table("t").unwrap().segments().map(|segment| segment.path().to_path_buf()).collect();
    drop(database);
    let damages = found(Some((0, 2)));
    assert!(
        matches!(&damages[..], [Damage { path, what }] if *path == files[1] && what.contains("partition 1 of 2")),
        "{damages:?}"
    );

    let database = open(folder.path());
    let mut transaction = database.begin();
    let stray = transaction.table("t").unwrap().scanned(0).unwrap()[1].address;
    transaction.delete("t", &[stray]).unwrap();
    transaction.commit().unwrap();
    drop(database);
    assert_eq!(found(Some((0, 2))), vec![]);
}

#[test]
fn equal_keys_of_rows_in_memory_are_found() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (source, copy) = (open(one.path()), open(two.path()));
    let unique_keys = vec![UniqueKey { name: "PRIMARY".into(), columns: vec![0] }];
    source.create_table(TableDef { unique_keys, ..wide_table("t") }).unwrap();
    insert(&source, "t", &wide_rows(&wide_table("t"), 0, 10));
    insert(&source, "t", &wide_rows(&wide_table("t"), 10, 13));
    copy.become_replica().unwrap();
    let sent = |record: &LogRecord, ahead: u64| LogRecord::new(record.lsn + ahead, record.term, record.body.clone());
    let records = source.records_after(0, 1 << 20).unwrap().unwrap();
    copy.replicate(&records.iter().map(|record| sent(record, 0)).collect::<Vec<_>>()).unwrap();
    // A replica takes what its master says: here the last rows once more.
    copy.replicate(&[sent(records.last().unwrap(), 1)]).unwrap();
    drop((source, copy));
    let found = |folder: &Path| CheckReport::of(folder, None, &|_, _| ()).unwrap().damages;
    assert_eq!(found(one.path()), vec![]);
    let damages = found(two.path());
    assert!(
        matches!(&damages[..], [Damage { path, what }]
        if path == two.path() && what.contains("another row has the same PRIMARY")),
        "{damages:?}"
    );
}
