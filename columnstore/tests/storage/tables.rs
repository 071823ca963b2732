//! Tables that tests write and read.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal64Array, Decimal128Array, Float64Array, Int32Array, Int64Array,
    RecordBatch, StringViewArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, TimeUnit};
use stoa_columnstore::{BitmapIndex, ColumnDef, Database, Options, Result, Table, TableDef};

/// Options of tests: small segments, no waiting for the disk.
pub fn options(segment_rows: usize) -> Options {
    Options { segment_rows, default_partitions: 3, fsync: false, ..Options::default() }
}

pub fn column(name: &str, ty: DataType) -> ColumnDef {
    let sql_type = ty.to_string();
    ColumnDef { name: name.into(), ty, nullable: true, bitmap_index: BitmapIndex::Auto, sql_type }
}

/// A table with a column of most types; `id` is never NULL.
pub fn wide_table(name: &str) -> TableDef {
    let mut columns = vec![
        column("id", DataType::Int64),
        column("small", DataType::Int32),
        column("text", DataType::Utf8View),
        column("kind", DataType::Utf8View),
        column("price", DataType::Decimal64(15, 2)),
        column("total", DataType::Decimal128(38, 4)),
        column("day", DataType::Date32),
        column("at", DataType::Timestamp(TimeUnit::Microsecond, None)),
        column("ratio", DataType::Float64),
        column("flag", DataType::Boolean),
        column("raw", DataType::Binary),
    ];
    columns[0].nullable = false;
    columns[3].bitmap_index = BitmapIndex::Declared;
    TableDef { name: name.into(), columns, shard_key: vec![0], ..TableDef::default() }
}

/// Rows `from..to` of the wide table.
pub fn wide_rows(def: &TableDef, from: i64, to: i64) -> RecordBatch {
    let null = |i: i64, every: i64| i % every == every - 1;
    let some = |every: i64| move |i: i64| if null(i, every) { None } else { Some(i) };
    let ids = || from..to;
    let price = Decimal64Array::from_iter(ids().map(some(7)).map(|i| i.map(|i| i * 101 - 5000)));
    let total = Decimal128Array::from_iter(ids().map(some(11)).map(|i| i.map(|i| i128::from(i).pow(5) * 1_000_003 - (1 << 90))));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(ids())),
        Arc::new(Int32Array::from_iter(ids().map(some(5)).map(|i| i.map(|i| (i % 1000) as i32)))),
        Arc::new(StringViewArray::from_iter(
            ids().map(some(13)).map(|i| i.map(|i| format!("Customer#{:09}", i * 7919 % 100_000))),
        )),
        Arc::new(StringViewArray::from_iter(
            ids().map(|i| Some(["AIR", "MAIL", "SHIP", "TRUCK", "RAIL"][(i / 50 % 5) as usize])),
        )),
        Arc::new(price.with_precision_and_scale(15, 2).unwrap()),
        Arc::new(total.with_precision_and_scale(38, 4).unwrap()),
        Arc::new(Date32Array::from_iter(ids().map(some(17)).map(|i| i.map(|i| 8000 + (i / 10) as i32)))),
        Arc::new(TimestampMicrosecondArray::from_iter(ids().map(|i| Some(i * 1_000_000)))),
        Arc::new(Float64Array::from_iter(ids().map(some(3)).map(|i| i.map(|i| i as f64 / 8.0 - 20.0)))),
        Arc::new(BooleanArray::from_iter(ids().map(some(4)).map(|i| i.map(|i| i % 3 == 0)))),
        Arc::new(BinaryArray::from_iter(ids().map(some(6)).map(|i| i.map(i64::to_le_bytes)))),
    ];
    RecordBatch::try_new(def.schema(), columns).unwrap()
}

/// Creates the wide table and fills it.
pub fn fill(database: &Arc<Database>, name: &str, rows: i64) -> Arc<Table> {
    let def = wide_table(name);
    database.create_table(def.clone()).unwrap();
    let mut writer = database.writer(name).unwrap();
    for from in (0..rows).step_by(37) {
        writer.push(&wide_rows(&def, from, (from + 37).min(rows))).unwrap();
    }
    assert_eq!(writer.finish().unwrap(), rows as u64);
    database.table(name).unwrap()
}

/// Every row of a table that is not deleted, in no order that matters.
pub fn read_all(table: &Table) -> Result<Vec<RecordBatch>> {
    let schema = table.def.schema();
    let mut batches = Vec::new();
    for partition in 0..table.partitions.len() {
        for scanned in table.scanned(partition)? {
            let rows = scanned.segment.rows();
            let live: Vec<u32> =
                (0..rows as u32).filter(|row| !scanned.deleted.as_ref().is_some_and(|deleted| deleted.contains(*row))).collect();
            let read = |i: usize| scanned.segment.values(i, 0, rows, Some(&live));
            let columns = (0..table.def.columns.len()).map(read).collect::<Result<Vec<_>>>()?;
            batches.push(RecordBatch::try_new(schema.clone(), columns)?);
        }
    }
    Ok(batches)
}

/// Every row of a table, ordered by its first column.
pub fn read_sorted(table: &Table) -> Result<RecordBatch> {
    let all = arrow::compute::concat_batches(&table.def.schema(), &read_all(table)?)?;
    let order = arrow::compute::sort_to_indices(all.column(0), None, None)?;
    Ok(arrow::compute::take_record_batch(&all, &order)?)
}
