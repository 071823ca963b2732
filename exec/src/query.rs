//! Runs a whole query: subplans in order, then the root.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{
    DataType as Arrow, Date32Type, Decimal64Type, Decimal128Type, Field as ArrowField, Float32Type, Float64Type, Int64Type,
    IntervalMonthDayNanoType, Schema, SchemaRef, TimestampMicrosecondType, UInt64Type,
};
use stoa_plan::{DataType, Field, Literal, Plan, Query, SubplanKind, Value};

use crate::batch::canonical;
use crate::executor::{Executor, Rows};
use crate::profile::{Profile, Progress};
use crate::{Batch, CancelToken, Error, QueryContext, Result};

/// Where scans find their tables.
pub trait Storage: Send + Sync {
    /// The snapshot of a table that this query reads.
    ///
    /// # Errors
    /// If there is no such table or it cannot be opened.
    fn table(&self, name: &str) -> Result<Arc<stoa_columnstore::Table>>;
}

/// What a query gave.
#[derive(Debug)]
pub struct QueryResult {
    /// Names and canonical types of the columns.
    pub schema: SchemaRef,
    /// The rows.
    pub batches: Vec<RecordBatch>,
    /// What it did.
    pub profile: Profile,
}

/// Runs a query.
///
/// # Errors
/// See [`Error`]. A panic of an operator, which would be a defect, is an [`Error::Internal`].
pub fn execute(query: &Query, storage: &dyn Storage, ctx: &QueryContext) -> Result<QueryResult> {
    execute_with(query, storage, ctx, &Progress::default())
}

/// Runs a query that reports how far it is.
///
/// # Errors
/// As [`execute`].
pub fn execute_with(query: &Query, storage: &dyn Storage, ctx: &QueryContext, progress: &Progress) -> Result<QueryResult> {
    guarded(|| {
        let started = Instant::now();
        let mut exec = Executor::new(storage, ctx, progress.clone());
        run_subplans(query, &mut exec)?;
        finish(query, &mut exec, started)
    })
}

/// Runs operators; a panic of one, which would be a defect, is an [`Error::Internal`].
pub(crate) fn guarded<T>(run: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| Err(Error::Internal(panic_message(&*panic))))
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("an operator failed: {}", text.unwrap_or("no message"))
}

/// Runs the subplans in order and keeps what they give.
pub(crate) fn run_subplans(query: &Query, exec: &mut Executor<'_>) -> Result<()> {
    for subplan in &query.subplans {
        exec.required.add(&subplan.plan, subplan.plan.fields().iter().map(|f| f.id).collect());
        match subplan.kind {
            SubplanKind::Scalar(id) => {
                let value = scalar(&subplan.plan, &exec.collect(&subplan.plan, &exec.once, "a subquery")?)?;
                exec.parameters.insert(id, value);
            }
            SubplanKind::Shared(number) => {
                let rows = exec.collect(&subplan.plan, &exec.once, "a subquery")?;
                exec.shared.insert(number, rows);
            }
            // Results are right without it; it is published before the query if it is there.
            SubplanKind::Filter(_) => {}
            SubplanKind::Received(number) if exec.shared.contains_key(&number) => {}
            SubplanKind::Received(number) => return Err(Error::Internal(format!("rows {number} did not come"))),
        }
    }
    Ok(())
}

/// Runs the root and gives the result.
pub(crate) fn finish(query: &Query, exec: &mut Executor<'_>, started: Instant) -> Result<QueryResult> {
    exec.required.add(&query.root, query.output.iter().map(|f| f.id).collect());
    let rows = exec.collect(&query.root, &exec.once, "the result")?;
    let (schema, batches) = record_batches(&query.output, &rows, &exec.ctx.cancel)?;
    let profile = exec.recorder.finish(started.elapsed(), exec.ctx.memory.peak());
    Ok(QueryResult { schema, batches, profile })
}

/// What is wrong with a scalar subquery of several rows.
pub(crate) const SEVERAL_ROWS: &str = "a subquery that is used as a value returned more than one row";

/// The value of a scalar subquery.
fn scalar(plan: &Plan, rows: &Rows) -> Result<Literal> {
    let fields = plan.fields();
    let field = fields.first().ok_or_else(|| Error::Internal("a scalar subquery has no column".into()))?;
    let total: usize = rows.batches.iter().map(|b| b.rows).sum();
    if total > 1 {
        return Err(Error::User(SEVERAL_ROWS.into()));
    }
    let Some(batch) = rows.batches.iter().find(|b| b.rows == 1) else {
        return Ok(Literal { ty: field.ty, value: Value::Null });
    };
    let array = canonical(&batch.columns[rows.layout.position(field.id)?], field.ty)?;
    Ok(Literal { ty: field.ty, value: value_at(&array, 0)? })
}

/// The value of an element of an array of a canonical type.
fn value_at(array: &ArrayRef, i: usize) -> Result<Value> {
    if array.is_null(i) || *array.data_type() == Arrow::Null {
        return Ok(Value::Null);
    }
    let ty = array.data_type();
    Ok(match ty {
        Arrow::Boolean => Value::Bool(array.as_boolean().value(i)),
        Arrow::Float32 => Value::Float(f64::from(array.as_primitive::<Float32Type>().value(i))),
        Arrow::Float64 => Value::Float(array.as_primitive::<Float64Type>().value(i)),
        Arrow::Decimal64(..) => Value::Decimal(i128::from(array.as_primitive::<Decimal64Type>().value(i))),
        Arrow::Decimal128(..) => Value::Decimal(array.as_primitive::<Decimal128Type>().value(i)),
        Arrow::Date32 => Value::Int(i64::from(array.as_primitive::<Date32Type>().value(i))),
        Arrow::Timestamp(..) => Value::Int(array.as_primitive::<TimestampMicrosecondType>().value(i)),
        Arrow::Utf8View => Value::Str(array.as_string_view().value(i).to_owned()),
        Arrow::Binary => Value::Bytes(array.as_binary::<i32>().value(i).to_vec()),
        Arrow::Interval(_) => {
            let v = array.as_primitive::<IntervalMonthDayNanoType>().value(i);
            Value::Interval { months: v.months, days: v.days, nanos: v.nanoseconds }
        }
        _ if ty.is_unsigned_integer() => {
            Value::UInt(arrow::compute::cast(array, &Arrow::UInt64)?.as_primitive::<UInt64Type>().value(i))
        }
        _ if ty.is_signed_integer() => {
            Value::Int(arrow::compute::cast(array, &Arrow::Int64)?.as_primitive::<Int64Type>().value(i))
        }
        other => return Err(Error::Internal(format!("a scalar of type {other}"))),
    })
}

/// The result's batches, in canonical types under the output's names.
pub(crate) fn record_batches(output: &[Field], rows: &Rows, cancel: &CancelToken) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let batches = output_batches(output, rows, cancel)?;
    let schema = output_schema(output, |i| batches.iter().any(|b| b.columns[i].null_count() > 0));
    Ok((schema.clone(), with_schema(&schema, batches)?))
}

/// The columns of the output in its order and in canonical types.
pub(crate) fn output_batches(output: &[Field], rows: &Rows, cancel: &CancelToken) -> Result<Vec<Batch>> {
    let positions = output.iter().map(|f| rows.layout.position(f.id)).collect::<Result<Vec<_>>>()?;
    let mut batches = Vec::with_capacity(rows.batches.len());
    for batch in rows.batches.iter().filter(|b| b.rows > 0) {
        cancel.check()?;
        let columns = output.iter().zip(&positions).map(|(f, p)| canonical(&batch.columns[*p], f.ty));
        batches.push(Batch { columns: columns.collect::<Result<_>>()?, rows: batch.rows });
    }
    Ok(batches)
}

/// Names and types of the output; `has_null` tells whether there is a NULL in the column at a position.
pub(crate) fn output_schema(output: &[Field], has_null: impl Fn(usize) -> bool) -> SchemaRef {
    let field =
        |(i, f): (usize, &Field)| ArrowField::new(&f.name, f.ty.to_arrow(), f.nullable || f.ty == DataType::Null || has_null(i));
    Arc::new(Schema::new(output.iter().enumerate().map(field).collect::<Vec<_>>()))
}

/// Batches of the columns of a schema.
pub(crate) fn with_schema(schema: &SchemaRef, batches: Vec<Batch>) -> Result<Vec<RecordBatch>> {
    let with = |batch: Batch| {
        let options = RecordBatchOptions::new().with_row_count(Some(batch.rows));
        Ok(RecordBatch::try_new_with_options(schema.clone(), batch.columns, &options)?)
    };
    batches.into_iter().map(with).collect()
}
