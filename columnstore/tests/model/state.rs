//! What the tables should hold, in maps; and the tables that the test has.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Int64Type};
use rand::Rng;
use rand::rngs::StdRng;
use stoa_columnstore::{BitmapIndex, ColumnDef, Result, Table, TableDef, UniqueKey};

/// Kinds of tables that there are.
pub const KINDS: usize = 5;
/// Columns that every table has.
const BASE: usize = 4;

/// A row; its serial number is never given twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub serial: i64,
    pub id: i64,
    pub key: Option<i64>,
    pub text: Option<String>,
    /// The values of the columns that were added.
    pub more: Vec<Option<i64>>,
}

/// Rows by their serial numbers.
pub type Rows = BTreeMap<i64, Row>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelColumn {
    /// Never given twice, but to those that every table has.
    pub uid: i64,
    pub name: String,
    pub nullable: bool,
    /// What rows have that were there before it.
    pub default: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelTable {
    /// Never given twice.
    pub uid: u64,
    pub kind: usize,
    pub columns: Vec<ModelColumn>,
    /// How often it was altered.
    pub version: u64,
    pub rows: Rows,
}

impl ModelTable {
    pub fn new(uid: u64, kind: usize) -> ModelTable {
        let column =
            |(uid, column): (i64, ColumnDef)| ModelColumn { uid, name: column.name, nullable: column.nullable, default: None };
        let columns = (0..).zip(definition(kind, "t").columns).map(column).collect();
        ModelTable { uid, kind, columns, version: 0, rows: Rows::new() }
    }

    /// The columns that were added.
    pub fn added(&self) -> &[ModelColumn] {
        &self.columns[BASE..]
    }

    pub fn names(&self) -> Vec<&str> {
        self.columns.iter().map(|column| column.name.as_str()).collect()
    }

    pub fn add(&mut self, column: ModelColumn) {
        self.rows.values_mut().for_each(|row| row.more.push(column.default));
        self.columns.push(column);
    }

    /// Drops one of the columns that were added.
    pub fn drop_added(&mut self, at: usize) {
        for row in self.rows.values_mut() {
            row.more.remove(at);
        }
        self.columns.remove(BASE + at);
    }

    /// A row of this table from before it was altered, as `before` was.
    pub fn altered(&self, row: &Row, before: &ModelTable) -> Row {
        let value = |column: &ModelColumn| {
            let at = before.added().iter().position(|c| c.uid == column.uid);
            at.map_or(column.default, |at| row.more[at])
        };
        Row { more: self.added().iter().map(value).collect(), ..row.clone() }
    }
}

/// Everything that is committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub tables: BTreeMap<String, Arc<ModelTable>>,
    pub views: BTreeMap<String, String>,
}

impl State {
    pub fn by_uid(&self, uid: u64) -> Option<&Arc<ModelTable>> {
        self.tables.values().find(|table| table.uid == uid)
    }

    pub fn by_uid_mut(&mut self, uid: u64) -> Option<&mut ModelTable> {
        self.tables.values_mut().find(|table| table.uid == uid).map(Arc::make_mut)
    }
}

/// The definition of a table of a kind.
pub fn definition(kind: usize, name: &str) -> TableDef {
    let column = |name: &str, ty: DataType, nullable: bool| {
        let sql_type = ty.to_string();
        ColumnDef { name: name.into(), ty, nullable, bitmap_index: BitmapIndex::Auto, sql_type }
    };
    let columns = vec![
        column("serial", DataType::Int64, false),
        column("id", DataType::Int64, false),
        column("key", DataType::Int64, true),
        column("text", DataType::Utf8View, true),
    ];
    let unique = unique_keys(kind).iter().enumerate();
    TableDef {
        name: name.into(),
        columns,
        shard_key: if matches!(kind, 0 | 2) { vec![] } else { vec![1] },
        sort_key: [vec![], vec![2], vec![2, 1], vec![3], vec![]][kind].clone(),
        unique_keys: unique.map(|(i, columns)| UniqueKey { name: format!("key{i}"), columns: columns.to_vec() }).collect(),
        layout: stoa_columnstore::Layout::default(),
        reference: kind == 2,
        partitions: [3, 2, 1, 3, 0][kind],
    }
}

fn unique_keys(kind: usize) -> &'static [&'static [u32]] {
    [&[] as &[&[u32]], &[&[1]], &[&[1], &[2]], &[], &[&[1, 2]]][kind]
}

/// The unique keys of a row, each with its number. A key with a NULL is none.
fn keys_of(kind: usize, row: &Row) -> impl Iterator<Item = (usize, Vec<i64>)> {
    let value = |column: &u32| if *column == 1 { Some(row.id) } else { row.key };
    let key = move |(number, columns): (usize, &&[u32])| Some((number, columns.iter().map(value).collect::<Option<Vec<_>>>()?));
    unique_keys(kind).iter().enumerate().filter_map(key)
}

/// Whether two of these rows have the same key.
pub fn clash<'a>(kind: usize, rows: impl Iterator<Item = &'a Row>) -> bool {
    let mut seen = HashSet::new();
    rows.flat_map(|row| keys_of(kind, row)).any(|key| !seen.insert(key))
}

/// Values for the columns that were added to a table.
pub fn random_values(rng: &mut StdRng, table: &ModelTable) -> Vec<Option<i64>> {
    let value = |column: &ModelColumn| {
        let value = rng.random_range(-5..5);
        (!column.nullable || value != 0).then_some(value)
    };
    table.added().iter().map(value).collect()
}

/// A row with keys of its own, or with those that others are likely to have.
pub fn random_row(rng: &mut StdRng, table: &ModelTable, serial: i64, crowded: bool) -> Row {
    let id = if crowded { rng.random_range(0..400) } else { 10_000 + serial };
    let key = match rng.random_range(0..8) {
        0 => None,
        _ if crowded => Some(rng.random_range(0..400)),
        _ => Some(10_000 + serial * 7919 % 100_003),
    };
    let text = match rng.random_range(0..4) {
        0 => None,
        1 => Some(format!("t{}", serial % 5)),
        _ => Some(format!("{serial} ").repeat(rng.random_range(0..12))),
    };
    Row { serial, id, key, text, more: random_values(rng, table) }
}

/// Rows as a table takes them.
pub fn batch<'a>(table: &ModelTable, rows: impl Iterator<Item = &'a Row> + Clone) -> RecordBatch {
    let more = |at: usize| Arc::new(rows.clone().map(|row| row.more[at]).collect::<Int64Array>()) as ArrayRef;
    let more: Vec<ArrayRef> = (0..table.added().len()).map(more).collect();
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(rows.clone().map(|row| Some(row.serial)).collect::<Int64Array>()),
        Arc::new(rows.clone().map(|row| Some(row.id)).collect::<Int64Array>()),
        Arc::new(rows.clone().map(|row| row.key).collect::<Int64Array>()),
        Arc::new(rows.map(|row| row.text.clone()).collect::<StringViewArray>()),
    ];
    columns.extend(more);
    RecordBatch::try_from_iter_with_nullable(
        table.columns.iter().zip(columns).map(|(column, values)| (&column.name, values, column.nullable)),
    )
    .unwrap()
}

/// Every row of a table with its address.
pub fn read(table: &Table) -> Result<Vec<(u64, Row)>> {
    let mut found = Vec::new();
    for partition in 0..table.partitions.len() {
        for scanned in table.scanned(partition)? {
            let rows = scanned.segment.rows();
            let deleted = |row: &u32| scanned.deleted.as_ref().is_some_and(|deleted| deleted.contains(*row));
            let live: Vec<u32> = (0..rows as u32).filter(|row| !deleted(row)).collect();
            let column = |ordinal: usize| scanned.segment.values(ordinal, 0, rows, Some(&live));
            let columns = (0..table.def.columns.len()).map(column).collect::<Result<Vec<_>>>()?;
            let number = |c: usize, i: usize| columns[c].is_valid(i).then(|| columns[c].as_primitive::<Int64Type>().value(i));
            let texts = columns[3].as_string_view();
            for (i, row) in live.iter().enumerate() {
                let text = texts.is_valid(i).then(|| texts.value(i).to_owned());
                let (serial, id) = (number(0, i).unwrap(), number(1, i).unwrap());
                let more = (BASE..columns.len()).map(|column| number(column, i)).collect();
                found.push((scanned.address + u64::from(*row), Row { serial, id, key: number(2, i), text, more }));
            }
        }
    }
    Ok(found)
}

/// Every row of a table by its serial number; none may be there twice.
pub fn rows_of(table: &Table) -> Result<Rows> {
    let read = read(table)?;
    let count = read.len();
    let rows: Rows = read.into_iter().map(|(_, row)| (row.serial, row)).collect();
    assert_eq!(rows.len(), count, "table '{}' has rows twice", table.name());
    assert_eq!(table.rows(), count as u64, "table '{}' has another number of rows than it says", table.name());
    Ok(rows)
}
