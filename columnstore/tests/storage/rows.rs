//! Rows in are rows out, and a filter with zone maps and indexes keeps the rows that it should.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::DataType;
use proptest::prelude::*;
use stoa_columnstore::{
    BitmapIndex, ColumnDef, Database, Datum, Error, FilterCounters, Options, Predicate, Table, TableDef, UniqueKey, Verdict,
};

use crate::tables::{column, fill, options, read_all, read_sorted, wide_rows, wide_table};

#[test]
fn rows_in_are_rows_out() {
    for (segment_rows, rows) in [(64, 1000), (1 << 20, 5000), (1500, 10_000), (64, 1), (64, 0)] {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(folder.path(), options(segment_rows)).unwrap();
        let table = fill(&database, "wide", rows);
        assert_eq!(table.rows(), rows as u64);
        assert!(table.segments().all(|s| s.rows() <= segment_rows));
        let expected = wide_rows(&wide_table("wide"), 0, rows);
        assert_eq!(read_sorted(&table).unwrap(), expected);
        drop((table, database));
        let database = Database::open(folder.path(), options(segment_rows)).unwrap();
        let table = database.table("WIDE").unwrap();
        assert_eq!(*table.def, TableDef { partitions: 3, ..wide_table("wide") });
        assert_eq!(read_sorted(&table).unwrap(), expected);
    }
}

/// The rows that pass, by the column's own filter, over all segments.
fn passing(table: &Table, ordinal: usize, predicate: &Predicate, counters: &mut FilterCounters) -> Vec<i64> {
    let mut found = Vec::new();
    for segment in table.segments() {
        let column = segment.column(ordinal).unwrap();
        let ids = segment.column(0).unwrap().read(0, segment.rows(), None).unwrap();
        let verdict = segment.verdict(ordinal, predicate).unwrap();
        let before = found.len();
        for first in (0..segment.rows()).step_by(2048) {
            let rows = 2048.min(segment.rows() - first);
            let mut mask = vec![u64::MAX; rows.div_ceil(64)];
            if rows % 64 != 0 {
                *mask.last_mut().unwrap() = (1 << (rows % 64)) - 1;
            }
            column.filter(predicate, first, rows, &mut mask, counters).unwrap();
            let ids = ids.as_primitive::<arrow::datatypes::Int64Type>();
            found.extend((0..rows).filter(|i| mask[i / 64] >> (i % 64) & 1 == 1).map(|i| ids.value(first + i)));
        }
        match verdict {
            Verdict::None => assert_eq!(found.len(), before, "{predicate:?}"),
            Verdict::All => assert_eq!(found.len(), before + segment.rows(), "{predicate:?}"),
            Verdict::Some => {}
        }
    }
    found.sort_unstable();
    found
}

/// The rows that pass, by comparing values one by one.
fn expected(all: &RecordBatch, ordinal: usize, passes: impl Fn(&ArrayRef, usize) -> bool) -> Vec<i64> {
    let ids = all.column(0).as_primitive::<arrow::datatypes::Int64Type>();
    (0..all.num_rows()).filter(|i| passes(all.column(ordinal), *i)).map(|i| ids.value(i)).collect()
}

#[test]
fn filters_keep_the_right_rows() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path(), Options { default_partitions: 1, ..options(1 << 20) }).unwrap();
    let table = fill(&database, "wide", 20_000);
    let all = read_sorted(&table).unwrap();
    let bound = |value: Datum| Some((value, true));
    let text = |s: &str| Datum::Bytes(s.as_bytes().to_vec());
    let mut counters = FilterCounters::default();

    let range = Predicate::Range { low: bound(Datum::Int(8100)), high: Some((Datum::Int(8300), false)) };
    let days = |a: &ArrayRef, i: usize| {
        a.is_valid(i) && (8100..8300).contains(&a.as_primitive::<arrow::datatypes::Date32Type>().value(i))
    };
    assert_eq!(passing(&table, 6, &range, &mut counters), expected(&all, 6, days));
    assert!(counters.blocks_skipped > 10, "{counters:?}");

    let range = Predicate::Range { low: bound(text("Customer#000050000")), high: None };
    let later = |a: &ArrayRef, i: usize| a.is_valid(i) && a.as_string_view().value(i) >= "Customer#000050000";
    assert_eq!(passing(&table, 2, &range, &mut counters), expected(&all, 2, later));

    for kind in ["AIR", "RAIL", "none", ""] {
        let equal = Predicate::In(vec![text(kind)]);
        let is = |a: &ArrayRef, i: usize| a.is_valid(i) && a.as_string_view().value(i) == kind;
        assert_eq!(passing(&table, 3, &equal, &mut counters), expected(&all, 3, is));
        let not = Predicate::NotEqual(text(kind));
        assert_eq!(passing(&table, 3, &not, &mut counters), expected(&all, 3, |a, i| a.is_valid(i) && !is(a, i)));
    }
    for ordinal in 0..all.num_columns() {
        assert_eq!(passing(&table, ordinal, &Predicate::IsNull, &mut counters), expected(&all, ordinal, Array::is_null));
        assert_eq!(passing(&table, ordinal, &Predicate::IsNotNull, &mut counters), expected(&all, ordinal, Array::is_valid));
    }
    let low = Predicate::Range { low: None, high: Some((Datum::Float(-10.0), false)) };
    let small = |a: &ArrayRef, i: usize| a.is_valid(i) && a.as_primitive::<arrow::datatypes::Float64Type>().value(i) < -10.0;
    assert_eq!(passing(&table, 8, &low, &mut counters), expected(&all, 8, small));
}

#[test]
fn bitmap_indexes_answer_rare_values() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path(), options(1 << 20)).unwrap();
    let mut kind = column("kind", DataType::Utf8View);
    kind.bitmap_index = BitmapIndex::Declared;
    let columns = vec![column("id", DataType::Int64), kind];
    let def = TableDef { name: "t".into(), columns, reference: true, ..TableDef::default() };
    database.create_table(def.clone()).unwrap();
    let rows = 70_000i64;
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
    let rare = |i: i64| i % 997 == 3;
    let kinds =
        (0..rows).map(|i| if i % 10 == 9 { None } else { Some(if rare(i) { "rare" } else { ["a", "b"][i as usize % 2] }) });
    let kinds: ArrayRef = Arc::new(StringViewArray::from_iter(kinds));
    let mut writer = database.writer("t").unwrap();
    writer.push(&RecordBatch::try_new(def.schema(), vec![ids, kinds]).unwrap()).unwrap();
    writer.finish().unwrap();
    let table = database.table("t").unwrap();
    let segment = &table.partitions[0].segments[0];
    let index = segment.segment.column(1).unwrap().bitmap_index().expect("declared");
    assert_eq!(index.values(), 3);
    let is_rare = Predicate::In(vec![Datum::Bytes(b"rare".to_vec())]);
    let expected: Vec<i64> = (0..rows).filter(|i| rare(*i) && i % 10 != 9).collect();
    assert_eq!(index.count(&is_rare).unwrap(), expected.len() as u64);
    let mut counters = FilterCounters::default();
    assert_eq!(passing(&table, 1, &is_rare, &mut counters), expected);
    assert!(counters.bitmap_index_used > 0 && counters.blocks_evaluated == 0, "{counters:?}");
    let statistics = &table.statistics().columns[1];
    assert_eq!((statistics.distinct, statistics.nulls), (3, 7000));
    assert_eq!(statistics.min, Some(Datum::Bytes(b"a".to_vec())));
}

#[test]
fn segments_are_sorted_and_rows_sharded_alike() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path(), options(200)).unwrap();
    let def = TableDef { sort_key: vec![2, 1], unique_keys: vec![], ..wide_table("sorted") };
    database.create_table(def.clone()).unwrap();
    let mut writer = database.writer("sorted").unwrap();
    writer.push(&wide_rows(&def, 0, 3000)).unwrap();
    writer.finish().unwrap();
    let table = database.table("sorted").unwrap();
    for batch in read_all(&table).unwrap() {
        let key = |i| arrow::compute::SortColumn { values: Arc::clone(batch.column(i)), options: None };
        let order = arrow::compute::lexsort_to_indices(&[key(2), key(1), key(0)], None).unwrap();
        assert!(order.values().is_sorted());
    }
    assert_eq!(read_sorted(&table).unwrap(), wide_rows(&def, 0, 3000));
    let rows: Vec<u64> = table.partitions.iter().map(|p| p.rows()).collect();
    assert!(rows.iter().all(|n| (800..1200).contains(n)), "{rows:?}");
}

#[test]
fn one_key_fills_one_partition() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path(), options(500)).unwrap();
    let columns = vec![column("id", DataType::Int64), column("key", DataType::Int64), column("s", DataType::Utf8View)];
    let def = TableDef { name: "t".into(), columns, shard_key: vec![1], partitions: 16, ..TableDef::default() };
    database.create_table(def.clone()).unwrap();
    let rows = |from: i64, to: i64| {
        let key = |i: i64| if i % 100 == 0 { Some(i) } else { None };
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(from..to));
        let keys: ArrayRef = Arc::new(Int64Array::from_iter((from..to).map(key)));
        let text =
            (from..to).map(|i| if i % 7 == 0 { None } else { Some("long enough to be in a buffer ".repeat(i as usize % 3)) });
        RecordBatch::try_new(def.schema(), vec![ids, keys, Arc::new(StringViewArray::from_iter(text))]).unwrap()
    };
    let mut writer = database.writer("t").unwrap();
    for from in (0..6000).step_by(600) {
        writer.push(&rows(from, from + 600)).unwrap();
    }
    writer.finish().unwrap();
    let table = database.table("t").unwrap();
    assert_eq!(read_sorted(&table).unwrap(), rows(0, 6000));
    assert!(table.partitions.iter().any(|p| p.rows() >= 5940));
}

#[test]
fn a_null_in_a_not_null_column_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path(), options(64)).unwrap();
    let columns = vec![ColumnDef { nullable: false, ..column("id", DataType::Int64) }];
    let def = TableDef { name: "t".into(), columns, ..TableDef::default() };
    database.create_table(def).unwrap();
    let mut writer = database.writer("t").unwrap();
    let batch = |values: Vec<Option<i64>>| {
        let values: ArrayRef = Arc::new(Int64Array::from(values));
        RecordBatch::try_from_iter([("id", values)]).unwrap()
    };
    writer.push(&batch(vec![Some(1), Some(2)])).unwrap();
    let error = writer.push(&batch(vec![Some(1), None])).unwrap_err().to_string();
    assert!(error.contains("'t'") && error.contains("'id'") && error.contains("row 4"), "{error}");
    writer.number_rows("", "line", 2);
    writer.push(&batch(vec![Some(1), Some(2)])).unwrap();
    let error = writer.push(&batch(vec![None])).unwrap_err().to_string();
    assert!(error.contains("line 4"), "{error}");
    // Values that cannot be cast are named too, wherever they are.
    for bad in [0, 1, 499, 998, 999] {
        let texts = (0..1000).map(|i| if i >= bad && i % 7 == bad % 7 { format!("x{i}") } else { i.to_string() });
        let texts: ArrayRef = Arc::new(StringViewArray::from_iter_values(texts));
        writer.number_rows("", "row", 11);
        let error = writer.push(&RecordBatch::try_from_iter([("id", texts)]).unwrap()).unwrap_err().to_string();
        assert!(error.contains(&format!("row {}:", bad + 11)) && error.contains(&format!("'x{bad}'")), "{error}");
    }
    drop(writer);
    assert_eq!(database.table("t").unwrap().rows(), 0);
}

#[test]
fn a_duplicate_key_in_a_load_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut database = Database::open(folder.path(), options(1000)).unwrap();
    let columns = vec![column("id", DataType::Int64), column("order", DataType::Int64)];
    let unique_keys = vec![UniqueKey { name: "PRIMARY".into(), columns: vec![0] }];
    let def = TableDef { name: "t".into(), columns, shard_key: vec![0], sort_key: vec![1], unique_keys, ..TableDef::default() };
    database.create_table(def.clone()).unwrap();
    let rows = |ids: Vec<i64>| {
        let order: ArrayRef = Arc::new(Int64Array::from_iter_values(ids.iter().map(|id| id * 7919 % 1000)));
        RecordBatch::try_new(def.schema(), vec![Arc::new(Int64Array::from(ids)), order]).unwrap()
    };
    let mut writer = database.writer("t").unwrap();
    writer.push(&rows((0..100).collect())).unwrap();
    writer.finish().unwrap();
    // In two files, of which the first has no duplicate, and in segments that are full at once and in those that are not.
    for (segment_rows, stray) in [(1000, 57), (10, 57), (10, 5), (1000, 299)] {
        drop(database);
        database = Database::open(folder.path(), options(segment_rows)).unwrap();
        let mut writer = database.writer("t").unwrap();
        writer.number_rows("a.csv", "line", 2);
        writer.push(&rows((1000..1200).collect())).unwrap();
        writer.number_rows("b.csv", "line", 2);
        let ids = |from: i64| (from..from + 150).map(|i| if i - 2000 == stray { 30 } else { i }).collect();
        writer.push(&rows(ids(2000))).unwrap();
        writer.push(&rows(ids(2150))).unwrap();
        let error = writer.finish().unwrap_err();
        assert!(matches!(error, Error::DuplicateKey(_)), "{error:?}");
        let expected = format!("b.csv: table 't', line {}: there is a row with PRIMARY (30) already", stray + 2);
        assert_eq!(error.to_string(), expected);
    }
    // Of two rows of one load, one is named; and none if the numbers mean nothing.
    for numbered in [true, false] {
        let mut writer = database.writer("t").unwrap();
        let rows = rows((300..400).chain([350]).collect());
        if numbered { writer.push(&rows) } else { writer.push_from(&rows, None) }.unwrap();
        let error = writer.finish().unwrap_err().to_string();
        let named = error.contains("row 51: ") || error.contains("row 101: ");
        assert!(named == numbered && error.contains("(350)"), "{error}");
    }
    assert_eq!(database.table("t").unwrap().rows(), 100);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_rows_survive(values in prop::collection::vec((any::<Option<i64>>(), any::<Option<String>>()), 0..600), low in any::<i64>(), partitions in 1..20u32) {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(folder.path(), options(64)).unwrap();
        let columns = vec![column("id", DataType::Int64), column("v", DataType::Int64), column("s", DataType::Utf8View)];
        let def = TableDef { name: "t".into(), columns, shard_key: vec![1], sort_key: vec![2], partitions, ..TableDef::default() };
        database.create_table(def.clone()).unwrap();
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..values.len() as i64));
        let v: ArrayRef = Arc::new(Int64Array::from_iter(values.iter().map(|r| r.0)));
        let s: ArrayRef = Arc::new(StringViewArray::from_iter(values.iter().map(|r| r.1.as_deref())));
        let batch = RecordBatch::try_new(def.schema(), vec![ids, v, s]).unwrap();
        let mut writer = database.writer("t").unwrap();
        writer.push(&batch).unwrap();
        writer.finish().unwrap();
        let table = database.table("t").unwrap();
        prop_assert_eq!(&read_sorted(&table).unwrap(), &batch);
        let predicate = Predicate::Range { low: Some((Datum::Int(low.into()), false)), high: None };
        let expected: Vec<i64> = (0..values.len()).filter(|i| values[*i].0.is_some_and(|v| v > low)).map(|i| i as i64).collect();
        prop_assert_eq!(passing(&table, 1, &predicate, &mut FilterCounters::default()), expected);
    }
}
