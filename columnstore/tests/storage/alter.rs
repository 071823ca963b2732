//! ALTER TABLE leaves segments as they are, and every row reads as if it had been written under the new definition.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal64Array, Float64Array, Int64Array, RecordBatch, StringViewArray,
    new_null_array,
};
use arrow::compute::{concat, concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Int64Type};
use stoa_columnstore::{
    AlterTable, CheckReport, ColumnDef, Database, Datum, Error, FilterCounters, Predicate, RowNames, Table, TableDef, UniqueKey,
    Verdict, decode_definition, encode_definition,
};

use crate::tables::{column, fill, options, read_all, read_sorted, wide_rows, wide_table};

/// What a table should hold.
struct Model {
    def: TableDef,
    rows: RecordBatch,
}

impl Model {
    fn alter(&mut self, change: &AlterTable) {
        let mut columns = self.rows.columns().to_vec();
        match change {
            AlterTable::AddColumn { column, default } => {
                let value = default.clone().unwrap_or_else(|| new_null_array(&column.ty, 1));
                columns.push(concat(&vec![value.as_ref(); self.rows.num_rows()]).unwrap());
            }
            AlterTable::DropColumn(name) => drop(columns.remove(self.def.ordinal(name).unwrap())),
            AlterTable::RenameColumn { .. } | AlterTable::RenameTable(_) => {}
        }
        self.def = self.def.altered(change).unwrap();
        self.rows = RecordBatch::try_new(self.def.schema(), columns).unwrap();
    }

    /// Rows `from..to` for the definition, with the wide table's values of the same types.
    fn more(&mut self, from: i64, to: i64) -> RecordBatch {
        let wide = wide_rows(&wide_table("wide"), from, to);
        let of_type = |c: &ColumnDef| Arc::clone(wide.columns().iter().find(|a| *a.data_type() == c.ty).unwrap());
        let batch = RecordBatch::try_new(self.def.schema(), self.def.columns.iter().map(of_type).collect()).unwrap();
        self.rows = concat_batches(&self.def.schema(), [&self.rows, &batch]).unwrap();
        batch
    }

    fn delete(&mut self, gone: impl Fn(i64) -> bool) {
        let kept: BooleanArray = ids(self.rows.column(0)).into_iter().map(|id| Some(!gone(id))).collect();
        self.rows = filter_record_batch(&self.rows, &kept).unwrap();
    }

    /// Rows, figures and filters of every column.
    fn check(&self, database: &Arc<Database>) {
        let table = database.table(&self.def.name).unwrap();
        assert_eq!(table.def.columns, self.def.columns);
        assert_eq!(read_sorted(&table).unwrap(), self.rows);
        let statistics = table.statistics();
        assert_eq!(statistics.columns.len(), self.def.columns.len());
        let all = ids(self.rows.column(0));
        for (ordinal, values) in self.rows.columns().iter().enumerate() {
            let known =
                |valid: bool| (0..all.len()).filter(|row| values.is_valid(*row) == valid).map(|row| all[row]).collect::<Vec<_>>();
            assert_eq!(passing(&table, ordinal, &Predicate::IsNotNull), known(true));
            assert_eq!(passing(&table, ordinal, &Predicate::IsNull), known(false));
            assert!(statistics.columns[ordinal].nulls >= known(false).len() as u64);
            assert!(statistics.columns[ordinal].min.is_some() || statistics.columns[ordinal].distinct == 0);
            if let Some(min) = &statistics.columns[ordinal].min {
                let range = Predicate::Range { low: Some((min.clone(), true)), high: None };
                assert_eq!(passing(&table, ordinal, &range), known(true));
            }
        }
    }
}

fn ids(column: &ArrayRef) -> Vec<i64> {
    column.as_primitive::<Int64Type>().values().to_vec()
}

/// The ids of the live rows that pass, by the columns' own filters.
fn passing(table: &Table, ordinal: usize, predicate: &Predicate) -> Vec<i64> {
    let mut found = Vec::new();
    for scanned in (0..table.partitions.len()).flat_map(|partition| table.scanned(partition).unwrap()) {
        let (segment, rows) = (&scanned.segment, scanned.segment.rows());
        let mut mask = vec![u64::MAX; rows.div_ceil(64)];
        let column = segment.column(ordinal).unwrap();
        column.filter(predicate, 0, rows, &mut mask, &mut FilterCounters::default()).unwrap();
        let passes = |row: &usize| mask[row / 64] >> (row % 64) & 1 == 1;
        match segment.verdict(ordinal, predicate).unwrap() {
            Verdict::None => assert!(!(0..rows).any(|row| passes(&row))),
            Verdict::All => assert!((0..rows).all(|row| passes(&row))),
            Verdict::Some => {}
        }
        let live = |row: &usize| !scanned.deleted.as_ref().is_some_and(|deleted| deleted.contains(*row as u32));
        let ids = ids(&segment.values(0, 0, rows, None).unwrap());
        found.extend((0..rows).filter(passes).filter(live).map(|row| ids[row]));
    }
    found.sort_unstable();
    found
}

fn insert(database: &Arc<Database>, name: &str, batch: &RecordBatch) -> Result<(), Error> {
    let mut transaction = database.begin();
    transaction.insert(name, batch, RowNames::default())?;
    transaction.commit()
}

fn load(database: &Arc<Database>, name: &str, batch: &RecordBatch) {
    let mut writer = database.writer(name).unwrap();
    writer.push(batch).unwrap();
    writer.finish().unwrap();
}

/// Deletes rows wherever they are.
fn delete(database: &Arc<Database>, name: &str, gone: impl Fn(i64) -> bool) {
    let mut transaction = database.begin();
    let table = transaction.table(name).unwrap();
    let mut addresses = Vec::new();
    for scanned in (0..table.partitions.len()).flat_map(|partition| table.scanned(partition).unwrap()) {
        let ids = ids(&scanned.segment.values(0, 0, scanned.segment.rows(), None).unwrap());
        let live = |row: u64| !scanned.deleted.as_ref().is_some_and(|deleted| deleted.contains(row as u32));
        addresses.extend((0..).zip(&ids).filter(|(row, id)| gone(**id) && live(*row)).map(|(row, _)| scanned.address + row));
    }
    transaction.delete(name, &addresses).unwrap();
    transaction.commit().unwrap();
}

fn reopened(database: Arc<Database>, folder: &Path) -> Arc<Database> {
    drop(database);
    let report = CheckReport::of(folder, None, &|_, _| ()).unwrap();
    assert_eq!(report.damages, vec![]);
    Database::open(folder, options(64)).unwrap()
}

fn add(name: &str, ty: DataType, default: Option<ArrayRef>) -> AlterTable {
    AlterTable::AddColumn { column: column(name, ty), default }
}

fn rename(from: &str, to: &str) -> AlterTable {
    AlterTable::RenameColumn { from: from.into(), to: to.into() }
}

fn text(value: &str) -> ArrayRef {
    Arc::new(StringViewArray::from(vec![value]))
}

fn changes() -> Vec<AlterTable> {
    let price = Decimal64Array::from(vec![1250]).with_precision_and_scale(15, 2).unwrap();
    let count = ColumnDef { nullable: false, ..column("count", DataType::Int64) };
    vec![
        add("note", DataType::Utf8View, Some(text("a note of more than twelve bytes"))),
        add("empty", DataType::Utf8View, None),
        AlterTable::AddColumn { column: count, default: Some(Arc::new(Int64Array::from(vec![-7]))) },
        add("cost", DataType::Decimal64(15, 2), Some(Arc::new(price))),
        AlterTable::DropColumn("TEXT".into()),
        rename("Small", "little"),
        add("rate", DataType::Float64, Some(Arc::new(Float64Array::from(vec![f64::NAN])))),
        add("text", DataType::Int64, None),
        AlterTable::RenameTable("broad".into()),
        add("on", DataType::Boolean, Some(Arc::new(BooleanArray::from(vec![true])))),
        AlterTable::DropColumn("note".into()),
        add("bytes", DataType::Binary, None),
        AlterTable::RenameTable("BROAD".into()),
        rename("text", "kind2"),
        AlterTable::DropColumn("on".into()),
        AlterTable::DropColumn("day".into()),
        add("day", DataType::Utf8View, Some(text("today"))),
    ]
}

#[test]
fn rows_read_as_if_written_under_the_new_definition() {
    let folder = tempfile::tempdir().unwrap();
    let mut database = Database::open(folder.path(), options(64)).unwrap();
    fill(&database, "wide", 200);
    let mut model = Model { def: wide_table("wide"), rows: wide_rows(&wide_table("wide"), 0, 200) };
    let mut next = 200;
    insert(&database, "wide", &model.more(next, next + 30)).unwrap();
    for (step, change) in (0i64..).zip(changes()) {
        let before = model.def.name.clone();
        let gone = |id: i64| id % 61 == step;
        delete(&database, &before, gone);
        model.delete(gone);
        database.alter_table(&before, &change).unwrap();
        model.alter(&change);
        model.check(&database);
        if step % 2 == 0 {
            database.checkpoint().unwrap();
        }
        database = reopened(database, folder.path());
        model.check(&database);
        next += 30;
        let (few, many) = (model.more(next, next + 9), model.more(next + 9, next + 30));
        insert(&database, &model.def.name, &few).unwrap();
        load(&database, &model.def.name, &many);
        if step % 5 == 4 {
            database.flush_table(&model.def.name).unwrap();
        }
        model.check(&database);
    }
    database = reopened(database, folder.path());
    database.optimize_table(&model.def.name, true).unwrap();
    model.check(&database);
    database.checkpoint().unwrap();
    model.check(&reopened(database, folder.path()));
}

#[test]
fn an_added_column_is_constant_to_zone_maps_and_statistics() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path(), options(1 << 20)).unwrap();
    fill(&database, "wide", 9000);
    database.alter_table("wide", &add("note", DataType::Utf8View, Some(text("new")))).unwrap();
    database.alter_table("wide", &add("empty", DataType::Int64, None)).unwrap();
    let table = database.table("wide").unwrap();
    let is = |value: &str| Predicate::In(vec![Datum::Bytes(value.into())]);
    let (note, empty) = (table.def.ordinal("note").unwrap(), table.def.ordinal("EMPTY").unwrap());
    assert_eq!((passing(&table, note, &is("new")).len(), passing(&table, note, &is("old")).len()), (9000, 0));
    for segment in table.segments() {
        assert_ne!(segment.verdict(note, &is("new")).unwrap(), Verdict::None);
        assert_eq!(segment.verdict(note, &is("old")).unwrap(), Verdict::None);
        assert_eq!(segment.verdict(empty, &Predicate::IsNull).unwrap(), Verdict::All);
        assert_eq!(segment.column_info(note).unwrap().distinct, 1);
        assert!(segment.column_info(note).unwrap().bytes < 100);
    }
    let statistics = &table.statistics().columns;
    let new = Some(Datum::Bytes(b"new".to_vec()));
    assert_eq!((&statistics[note].min, &statistics[note].max, statistics[note].distinct), (&new, &new, 1));
    assert_eq!((statistics[note].average_length, statistics[empty].nulls, statistics[empty].distinct), (3.0, 9000, 0));
    assert_eq!(table.def.initial_value(note).unwrap().as_string_view().value(0), "new");
}

#[test]
fn a_column_that_comes_back_has_no_old_values() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path(), options(64)).unwrap();
    fill(&database, "wide", 100);
    for ty in [DataType::Utf8View, DataType::Int64, DataType::Utf8View] {
        database.alter_table("wide", &AlterTable::DropColumn("text".into())).unwrap();
        database.alter_table("wide", &add("text", ty, None)).unwrap();
        let table = database.table("wide").unwrap();
        let ordinal = table.def.ordinal("text").unwrap();
        assert_eq!(passing(&table, ordinal, &Predicate::IsNull).len(), 100);
    }
    database.optimize_table("wide", true).unwrap();
    let table = database.table("wide").unwrap();
    assert_eq!(passing(&table, table.def.ordinal("text").unwrap(), &Predicate::IsNull).len(), 100);
}

#[test]
fn keys_follow_their_columns() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path(), options(64)).unwrap();
    let key = UniqueKey { name: "PRIMARY".into(), columns: vec![0, 7] };
    let def = TableDef { shard_key: vec![0], sort_key: vec![7], unique_keys: vec![key], ..wide_table("wide") };
    database.create_table(def.clone()).unwrap();
    let mut model = Model { def: def.clone(), rows: RecordBatch::new_empty(def.schema()) };
    load(&database, "wide", &model.more(0, 100));
    insert(&database, "wide", &model.more(100, 120)).unwrap();
    for change in [AlterTable::DropColumn("text".into()), add("x", DataType::Int64, None), AlterTable::DropColumn("kind".into())]
    {
        database.alter_table("wide", &change).unwrap();
        model.alter(&change);
        for there in [5, 105] {
            let again = Model { def: model.def.clone(), rows: model.rows.clone() }.more(there, there + 1);
            assert!(matches!(insert(&database, "wide", &again), Err(Error::DuplicateKey(_))));
            let mut writer = database.writer("wide").unwrap();
            writer.push(&again).unwrap();
            assert!(matches!(writer.finish(), Err(Error::DuplicateKey(_))));
        }
    }
    let now = database.table("wide").unwrap();
    assert_eq!((&now.def.shard_key, &now.def.sort_key, &now.def.unique_keys[0].columns), (&vec![0], &vec![5], &vec![0, 5]));
    for name in ["id", "at"] {
        let error = database.alter_table("wide", &AlterTable::DropColumn(name.into())).unwrap_err().to_string();
        assert!(error.contains("cannot be dropped") && error.contains(&format!("'{name}'")), "{error}");
    }
    model.check(&reopened(database, folder.path()));
}

#[test]
fn what_cannot_be_changed_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path(), options(64)).unwrap();
    fill(&database, "wide", 10);
    let lone = TableDef { columns: vec![column("a", DataType::Int64)], shard_key: vec![], ..wide_table("lone") };
    database.create_table(lone).unwrap();
    database.create_view("v", "SELECT 1", false).unwrap();
    let short = ColumnDef { sql_type: "VARCHAR(3)".into(), ..column("s", DataType::Utf8View) };
    let strict = ColumnDef { nullable: false, ..column("n", DataType::Int64) };
    let two: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let refused = [
        (AlterTable::DropColumn("none".into()), "no column 'none'"),
        (AlterTable::DropColumn("id".into()), "SHARD KEY"),
        (rename("small", "KIND"), "twice"),
        (add("Kind", DataType::Int64, None), "twice"),
        (AlterTable::AddColumn { column: strict.clone(), default: None }, "needs a DEFAULT"),
        (AlterTable::AddColumn { column: strict, default: Some(new_null_array(&DataType::Int64, 1)) }, "needs a DEFAULT"),
        (AlterTable::AddColumn { column: short, default: Some(text("four")) }, "length 4"),
        (add("x", DataType::Int64, Some(two)), "2 values"),
        (add("x", DataType::Int64, Some(text("x"))), "'x'"),
        (add("x", DataType::Null, None), "cannot be stored"),
        (AlterTable::RenameTable(String::new()), "needs a name"),
    ];
    for (change, what) in refused {
        let error = database.alter_table("wide", &change).unwrap_err();
        assert!(matches!(&error, Error::Invalid(text) if text.contains(what)), "{error} instead of {what}");
    }
    for name in ["LONE", "V"] {
        assert!(matches!(database.alter_table("wide", &AlterTable::RenameTable(name.into())), Err(Error::AlreadyExists(_))));
    }
    let last = database.alter_table("lone", &AlterTable::DropColumn("a".into())).unwrap_err().to_string();
    assert!(last.contains("the last one"), "{last}");
    assert!(matches!(database.alter_table("none", &rename("a", "b")), Err(Error::NoSuchTable(_))));
    assert_eq!(*database.table("wide").unwrap().def, TableDef { partitions: 3, ..wide_table("wide") });
}

#[test]
fn who_began_before_reads_on_and_only_a_load_can_write() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path(), options(64)).unwrap();
    fill(&database, "wide", 300);
    let expected = wide_rows(&wide_table("wide"), 0, 300);
    // Opened anew, so that no file is mapped yet.
    let database = reopened(database, folder.path());
    let old = database.table("wide").unwrap();
    let mut transaction = database.begin();
    transaction.insert("wide", &wide_rows(&old.def, 300, 310), RowNames::default()).unwrap();
    let mut writer = database.writer("wide").unwrap();
    writer.push(&wide_rows(&old.def, 310, 320)).unwrap();
    database.alter_table("wide", &AlterTable::DropColumn("kind".into())).unwrap();
    database.alter_table("wide", &add("kind", DataType::Utf8View, None)).unwrap();
    let error = transaction.commit().unwrap_err();
    assert!(matches!(error, Error::Conflict(_)) && error.to_string().contains("'wide' was altered"), "{error}");
    // Its segments are read as those from before: the column that went does not come back with them.
    writer.finish().unwrap();
    let now = database.table("wide").unwrap();
    let kinds = read_all(&now).unwrap().iter().map(|rows| rows.column(rows.num_columns() - 1).null_count()).sum::<usize>();
    assert_eq!((now.rows(), kinds), (310, 310));
    drop(now);
    // The merge takes the files away from the new definition; the old one needs them still.
    database.optimize_table("wide", true).unwrap();
    let path = old.segments().next().unwrap().path().to_path_buf();
    assert_eq!(read_sorted(&old).unwrap(), expected);
    assert!(path.exists());
    drop(old);
    assert!(!path.exists());
    assert_eq!(database.table("wide").unwrap().rows(), 310);
}

#[test]
fn merges_and_changes_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path(), options(64)).unwrap();
    fill(&database, "wide", 60);
    let mut model = Model { def: wide_table("wide"), rows: wide_rows(&wide_table("wide"), 0, 60) };
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let merges = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                database.flush_table("wide").unwrap();
                database.optimize_table("wide", true).unwrap();
            }
        });
        for round in 0..12i64 {
            let name = if round % 2 == 0 { "day" } else { "flag" };
            let changed = [
                add("x", DataType::Int64, Some(Arc::new(Int64Array::from(vec![round])))),
                AlterTable::DropColumn(name.into()),
                add(name, DataType::Utf8View, Some(text(&format!("round {round}")))),
                rename("x", &format!("x{round}")),
            ];
            for change in &changed {
                database.alter_table("wide", change).unwrap();
                model.alter(change);
                assert_eq!(read_sorted(&database.table("wide").unwrap()).unwrap(), model.rows);
            }
            let from = 60 + round * 4;
            insert(&database, "wide", &model.more(from, from + 4)).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        merges.join().unwrap();
    });
    model.check(&database);
    database.optimize_table("wide", true).unwrap();
    model.check(&database);
    model.check(&reopened(database, folder.path()));
}

#[test]
fn definitions_carry_their_layout() {
    let mut def = wide_table("wide");
    for change in changes() {
        def = def.altered(&change).unwrap();
        assert_eq!(decode_definition(&encode_definition(&def)).unwrap(), def);
    }
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path(), options(64)).unwrap();
    database.create_table(def.clone()).unwrap();
    let mut model = Model { rows: RecordBatch::new_empty(def.schema()), def };
    load(&database, "broad", &model.more(0, 50));
    let change = AlterTable::DropColumn("ratio".into());
    database.alter_table("broad", &change).unwrap();
    model.alter(&change);
    model.check(&reopened(database, folder.path()));
}
