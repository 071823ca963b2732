//! Statements that change rows: INSERT, REPLACE, UPDATE, DELETE.
//!
//! A statement runs in the transaction that is open, or in one of its own, which it commits; that one is tried again when another
//! transaction came first, or a node failed. A statement that fails has changed nothing, unless it says that this is not known.

use std::borrow::Cow;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array, UInt64Array};
use arrow::compute::{filter_record_batch, take};
use arrow::datatypes::{DataType, UInt64Type};
use stoa_columnstore::{BitmapIndex, ColumnDef, RowNames, Table, TableDef, conform};
use stoa_exec::{CancelToken, Progress, QueryResult};
use stoa_plan::Query;
use stoa_rpc::FailureKind;
use stoa_sql::{Delete, Insert, OnDuplicate, Update};

use super::misfit::RowsOf;
use super::{Session, View};
use crate::store::existing;
use crate::{Error, Result, Transaction};

/// Runs `work` in the open transaction, or in one of its own.
fn within<T>(session: &Session, cancel: &CancelToken, work: &dyn Fn(&mut dyn Transaction) -> Result<T>) -> Result<T> {
    if let Some(open) = &mut *session.open.lock() {
        return open.run(&*session.store, cancel, &mut |transaction| {
            transaction.savepoint();
            work(transaction).inspect_err(|_| transaction.undo())
        });
    }
    let mut tries = session.store.retry_limit().tries();
    loop {
        let mut transaction = session.store.begin()?;
        match work(&mut *transaction).and_then(|done| transaction.commit(cancel).map(|()| done)) {
            Err(error) => tries.after(error, cancel)?,
            done => return done,
        }
    }
}

fn is_duplicate(error: &Error) -> bool {
    match error {
        Error::Storage(error) => matches!(error, stoa_columnstore::Error::DuplicateKey(_)),
        Error::Node(failure) => failure.kind == FailureKind::DuplicateKey,
        _ => false,
    }
}

pub(super) fn update(session: &Session, update: &Update, cancel: &CancelToken) -> Result<String> {
    let def = existing(&*session.store, &update.table)?;
    check_assigned(&def, &update.assigned)?;
    let query = RowsOf::plan(session, stoa_sql::bind_update(update, &View(&*session.store))?)?;
    let rows = within(session, cancel, &|transaction| {
        check_same(transaction, &def)?;
        let run = |plan: &Query| transaction.execute(plan, cancel, &Progress::default());
        let result = query.run(session, &def, &run)?;
        replace(transaction, &update.table, &result.batches)
    })?;
    Ok(format!("{rows} rows updated"))
}

/// A transaction must see a table as the statement was planned for it.
fn check_same(transaction: &dyn Transaction, def: &TableDef) -> Result<()> {
    Ok(transaction.table(&def.name).map_or(Ok(()), |seen| seen.check_revision(def.revision()))?)
}

/// Which partition a row is in must not change.
fn check_assigned(def: &TableDef, assigned: &[String]) -> Result<()> {
    let in_shard_key = |name: &&String| def.ordinal(name).is_some_and(|ordinal| def.shard_key.contains(&(ordinal as u32)));
    match assigned.iter().find(in_shard_key) {
        Some(column) => Err(Error::Invalid(format!(
            "column '{column}' is part of the SHARD KEY of table '{}', which cannot be updated: DELETE the row and INSERT it anew",
            def.name
        ))),
        None => Ok(()),
    }
}

/// Puts rows in the place of those whose address is their first column; how many.
fn replace(transaction: &mut dyn Transaction, table: &str, batches: &[RecordBatch]) -> Result<u64> {
    let mut addresses = Vec::new();
    for batch in batches {
        addresses.extend(address_column(batch)?);
    }
    transaction.delete(table, &addresses)?;
    for batch in batches.iter().filter(|batch| batch.num_rows() > 0) {
        let columns: Vec<usize> = (1..batch.num_columns()).collect();
        transaction.insert(table, &batch.project(&columns).map_err(stoa_exec::Error::from)?)?;
    }
    Ok(addresses.len() as u64)
}

fn address_column(batch: &RecordBatch) -> Result<Vec<u64>> {
    let column = arrow::compute::cast(batch.column(0), &DataType::UInt64).map_err(stoa_exec::Error::from)?;
    Ok(column.as_primitive::<UInt64Type>().values().to_vec())
}

pub(super) fn delete(session: &Session, delete: &Delete, cancel: &CancelToken) -> Result<String> {
    existing(&*session.store, &delete.table)?;
    let query = session.physical(stoa_sql::bind_delete(delete, &View(&*session.store))?)?;
    let rows = within(session, cancel, &|transaction| {
        let result = transaction.execute(&query, cancel, &Progress::default())?;
        let mut addresses = Vec::new();
        for batch in &result.batches {
            addresses.extend(address_column(batch)?);
        }
        transaction.delete(&delete.table, &addresses)
    })?;
    Ok(format!("{rows} rows deleted"))
}

/// Where the rows of an INSERT come from.
pub(super) enum Source {
    /// They are at hand.
    Rows([RecordBatch; 1]),
    Query(Box<RowsOf>),
}

impl Source {
    /// The rows, for a table; `run` executes a query.
    fn batches(
        &self,
        session: &Session,
        def: &TableDef,
        run: &dyn Fn(&Query) -> Result<QueryResult>,
    ) -> Result<Cow<'_, [RecordBatch]>> {
        match self {
            Source::Rows(rows) => Ok(Cow::Borrowed(rows)),
            Source::Query(query) => Ok(Cow::Owned(query.run(session, def, run)?.batches)),
        }
    }
}

/// Rows into a table.
pub(super) fn insert(
    session: &Session,
    insert: &Insert,
    def: &TableDef,
    source: &Source,
    cancel: &CancelToken,
) -> Result<String> {
    let evaluation = match insert.on_duplicate {
        OnDuplicate::Update => {
            check_assigned(def, &insert.assigned)?;
            Some(RowsOf::plan(session, stoa_sql::bind_duplicate_update(insert, &View(&*session.store))?)?)
        }
        OnDuplicate::Refuse | OnDuplicate::Replace => None,
    };
    if insert.on_duplicate == OnDuplicate::Refuse && session.open.lock().is_none() {
        let batches = source.batches(session, def, &|query| session.store.execute(query, cancel, &Progress::default()))?;
        if batches.iter().map(RecordBatch::num_rows).sum::<usize>() >= session.store.insert_rows() {
            let limit = session.store.retry_limit();
            let rows = limit.persist(cancel, || load(session, def, &batches, cancel))?;
            return Ok(format!("{rows} rows inserted"));
        }
        let rows = within(session, cancel, &|transaction| {
            check_same(transaction, def)?;
            insert_all(transaction, &insert.table, &batches)
        })?;
        return Ok(format!("{rows} rows inserted"));
    }
    let (rows, others) = within(session, cancel, &|transaction| {
        check_same(transaction, def)?;
        let batches = source.batches(session, def, &|query| transaction.execute(query, cancel, &Progress::default()))?;
        if insert.on_duplicate == OnDuplicate::Refuse {
            return Ok((insert_all(transaction, &insert.table, &batches)?, 0));
        }
        let mut upsert = Upsert { session, transaction, def, evaluation: evaluation.as_ref(), cancel, changed: 0 };
        let mut rows = 0;
        for batch in &*batches {
            rows += upsert.batch(batch)?;
        }
        Ok((rows, upsert.changed))
    })?;
    Ok(match insert.on_duplicate {
        OnDuplicate::Refuse => format!("{rows} rows inserted"),
        OnDuplicate::Replace => format!("{rows} rows inserted, {others} replaced"),
        OnDuplicate::Update => format!("{rows} rows inserted, {others} updated"),
    })
}

/// Many rows, in segments of their own.
fn load(session: &Session, def: &TableDef, batches: &[RecordBatch], cancel: &CancelToken) -> Result<u64> {
    let mut rows = session.store.rows(&def.name)?;
    rows.table().check_revision(def.revision())?;
    for batch in batches {
        cancel.check()?;
        rows.push(batch)?;
    }
    rows.finish()
}

fn insert_all(transaction: &mut dyn Transaction, table: &str, batches: &[RecordBatch]) -> Result<u64> {
    let batches = batches.iter().filter(|batch| batch.num_rows() > 0);
    batches.map(|batch| transaction.insert(table, batch)).sum()
}

/// INSERT into a table that may have the rows' keys.
struct Upsert<'a> {
    session: &'a Session,
    transaction: &'a mut dyn Transaction,
    def: &'a TableDef,
    /// Of ON DUPLICATE KEY UPDATE.
    evaluation: Option<&'a RowsOf>,
    cancel: &'a CancelToken,
    /// Rows that were there and gave way or were updated.
    changed: u64,
}

impl Upsert<'_> {
    /// How many rows were added. Rows have their effect one after the other; where they do not meet, together.
    fn batch(&mut self, batch: &RecordBatch) -> Result<u64> {
        self.cancel.check()?;
        match batch.num_rows() {
            0 => return Ok(0),
            1 => {}
            rows => match self.transaction.duplicates(&self.def.name, batch) {
                Ok(found) if self.is_apart(&found) => {}
                Ok(_) => return self.halves(batch, rows),
                Err(error) if is_duplicate(&error) => return self.halves(batch, rows),
                Err(other) => return Err(other),
            },
        }
        let found = self.transaction.duplicates(&self.def.name, batch)?;
        match self.evaluation {
            None => {
                let addresses: Vec<u64> = found.iter().map(|(_, address)| *address).collect();
                self.changed += self.transaction.delete(&self.def.name, &addresses)?;
                self.transaction.insert(&self.def.name, batch)
            }
            Some(evaluation) => self.update(batch, &found, evaluation),
        }
    }

    /// Whether no two rows change the same row, and no row several, so that they can be taken together.
    fn is_apart(&self, found: &[(usize, u64)]) -> bool {
        let mut addresses: Vec<u64> = found.iter().map(|(_, address)| *address).collect();
        addresses.sort_unstable();
        addresses.windows(2).all(|pair| pair[0] != pair[1])
    }

    fn halves(&mut self, batch: &RecordBatch, rows: usize) -> Result<u64> {
        Ok(self.batch(&batch.slice(0, rows / 2))? + self.batch(&batch.slice(rows / 2, rows - rows / 2))?)
    }

    fn update(&mut self, batch: &RecordBatch, found: &[(usize, u64)], evaluation: &RowsOf) -> Result<u64> {
        let mut first: Vec<(usize, u64)> = found.to_vec();
        first.dedup_by_key(|(row, _)| *row);
        let fresh = BooleanArray::from_iter((0..batch.num_rows()).map(|row| Some(!first.iter().any(|(r, _)| *r == row))));
        let fresh = filter_record_batch(batch, &fresh).map_err(stoa_exec::Error::from)?;
        let added = if fresh.num_rows() > 0 { self.transaction.insert(&self.def.name, &fresh)? } else { 0 };
        if !first.is_empty() {
            let addresses: Vec<u64> = first.iter().map(|(_, address)| *address).collect();
            let there = self.transaction.read(&self.def.name, &addresses)?;
            let rows = UInt32Array::from_iter_values(first.iter().map(|(row, _)| *row as u32));
            let batch = conform(self.def, batch, RowNames::default())?;
            let values = batch.columns().iter().map(|c| take(c, &rows, None)).collect::<std::result::Result<Vec<_>, _>>();
            let values = values.map_err(stoa_exec::Error::from)?;
            let run = |plan: &Query| {
                let table = duplicates_table(self.def, &addresses, there.clone(), values.clone())?;
                self.session.store.execute_over(plan, table, self.cancel)
            };
            let result = evaluation.run(self.session, self.def, &run)?;
            self.changed += replace(self.transaction, &self.def.name, &result.batches)?;
        }
        Ok(added)
    }
}

/// What ON DUPLICATE KEY UPDATE reads: rows that are there, beside those that were to be inserted.
fn duplicates_table(def: &TableDef, addresses: &[u64], there: Vec<ArrayRef>, values: Vec<ArrayRef>) -> Result<Table> {
    let column = |name: String, ty: DataType| ColumnDef {
        name,
        ty,
        nullable: true,
        bitmap_index: BitmapIndex::None,
        sql_type: String::new(),
    };
    let mut columns = vec![column("$row".into(), DataType::UInt64)];
    columns.extend(def.columns.iter().map(|c| column(c.name.clone(), c.ty.clone())));
    columns.extend(def.columns.iter().map(|c| column(format!("values${}", c.name), c.ty.clone())));
    let version = def.version();
    let def = TableDef { name: stoa_sql::DUPLICATES.into(), columns, partitions: 1, ..TableDef::default() }.with_version(version);
    let row: ArrayRef = std::sync::Arc::new(UInt64Array::from(addresses.to_vec()));
    let rows = std::iter::once(row).chain(there).chain(values).collect();
    Ok(Table::of_rows(std::sync::Arc::new(def), rows)?)
}
