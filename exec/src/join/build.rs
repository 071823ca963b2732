//! Runs the build side of a join and makes its table.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::buffer::NullBuffer;
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use stoa_plan::{ColumnId, DataType, Field, Join, JoinKind, Plan};

use super::extremes::Comparison;
use super::index::{Index, Question};
use super::keys::{BatchKeys, KeyForm, integers};
use super::members::Members;
use super::table::{Bits, JoinTable};
use super::{Fate, Shape, publish, side_key};
use crate::columns::concat_column;
use crate::exchange::build_side;
use crate::executor::{Executor, Rows, Scope};
use crate::pipeline::{Operator, Output, Stage};
use crate::profile::LocalCounts;
use crate::{Batch, CancelToken, Layout, LayoutColumn, Reservation, Result};

/// From here on columns are concatenated on all threads.
const PARALLEL_ROWS: usize = 64 * 1024;

/// The columns of a join's build side: those that are kept, and where its keys are.
struct Columns {
    all: Layout,
    kept: usize,
    keys: Vec<(usize, DataType)>,
}

/// Runs the build side and makes the table. Its run-time filters are published in `scope`.
pub(crate) fn build(exec: &Executor<'_>, plan: &Plan, join: &Join, scope: &Scope) -> Result<Arc<JoinTable>> {
    let (rows, columns) = collect(exec, plan, join, scope)?;
    let started = Instant::now();
    let held: usize = rows.reservations.iter().map(Reservation::bytes).sum();
    let mut reservation = exec.ctx.memory.reserve("a join");
    reservation.grow(held)?;
    let mut all = concat_all(&rows, &columns.all, &exec.ctx.cancel)?;
    drop(rows);
    exec.ctx.cancel.check()?;
    let types: Vec<DataType> = columns.keys.iter().map(|(_, ty)| *ty).collect();
    let keys: Vec<ArrayRef> = columns.keys.iter().map(|(i, _)| all.columns[*i].clone()).collect();
    let form = KeyForm::choose(&keys, &types, join.null_equals_null)?;
    let nulls = keys.iter().fold(None, |n, k| NullBuffer::union(n.as_ref(), k.logical_nulls().as_ref()));
    reservation.grow(all.rows.saturating_mul(24))?;
    let row_keys = form.keys(&keys, all.rows, &exec.ctx.cancel)?;
    exec.ctx.cancel.check()?;
    publish::publish(exec, join, &keys, scope)?;
    let shape = Shape::of(join);
    let (index, ranks) = index(exec, join, shape, &form, row_keys, &all, &columns)?;
    let form = if matches!(index, Index::All(_)) { KeyForm::None } else { form };
    all.columns.truncate(if matches!(index, Index::Members(_) | Index::Extremes(_)) { 0 } else { columns.kept });
    reservation.resize(held + index.memory() + ranks.as_ref().map_or(0, Members::memory))?;
    exec.recorder.note(plan.id, format!("{}{}", index.description(), if ranks.is_some() { ", by rank" } else { "" }));
    exec.recorder.note(plan.id, format!("build rows={} time={:.3?}", all.rows, started.elapsed()));
    exec.recorder.memory(plan.id, reservation.bytes());
    let nanos = started.elapsed().as_nanos() as u64;
    exec.recorder.add(plan.id, &LocalCounts { nanos, ..LocalCounts::default() });
    let marks_build = shape.build == Fate::Mark && matches!(&join.kind, JoinKind::LeftMark(mark) if mark.nullable);
    Ok(Arc::new(JoinTable {
        layout: Layout { columns: columns.all.columns[..columns.kept].to_vec() },
        columns: all.columns,
        rows: all.rows,
        form,
        index,
        ranks,
        null_keys: nulls.as_ref().is_some_and(|n| n.null_count() > 0),
        matched: Bits::new(if shape.build == Fate::Drop { 0 } else { all.rows }),
        probed: AtomicBool::new(false),
        probed_null: AtomicBool::new(false),
        null_rows: nulls.filter(|_| marks_build).map(|n| BooleanArray::new(!n.inner(), None)),
        reservation,
    }))
}

/// The index over the keys, as far as the join asks for it.
fn index(
    exec: &Executor<'_>,
    join: &Join,
    shape: Shape,
    form: &KeyForm,
    keys: BatchKeys,
    rows: &Batch,
    columns: &Columns,
) -> Result<(Index, Option<Members>)> {
    let (settings, cancel) = (&exec.ctx.settings, &exec.ctx.cancel);
    let mut codes = match keys {
        BatchKeys::Codes(codes) => codes,
        BatchKeys::Rows(rows, valid) => return Ok((Index::of_bytes(rows, valid.as_ref(), settings, cancel)?, None)),
    };
    let kept = Layout { columns: columns.all.columns[..columns.kept].to_vec() };
    let comparison = Comparison::of(join, &kept).filter(|_| shape.first_match_only());
    let values = comparison.and_then(|c| Some((c, integers(&rows.columns[c.build], false)?)));
    let question = match &values {
        Some((comparison, values)) => Question::Compares(*comparison, values),
        None if shape.first_match_only() && join.residual.is_none() => Question::Any,
        None => Question::Rows,
    };
    Index::of_codes(&mut codes, form.codes(), question, settings, cancel)
}

/// The rows of the build side: the kept columns, then the computed keys.
fn collect(exec: &Executor<'_>, plan: &Plan, join: &Join, scope: &Scope) -> Result<(Rows, Columns)> {
    let input = build_side(join);
    let mut pipeline = exec.open(input, scope)?;
    let residual = join.residual.as_ref().map(stoa_plan::Expr::columns).unwrap_or_default();
    let layout = &pipeline.layout;
    let keep: Vec<usize> = (0..layout.columns.len())
        .filter(|i| {
            let id = layout.columns[*i].field.id;
            exec.required.wants(plan, id) || residual.contains(&id)
        })
        .collect();
    let mut outputs: Vec<Output> = keep.iter().map(|i| Output::Column(*i)).collect();
    let mut all = Layout { columns: keep.iter().map(|i| layout.columns[*i].clone()).collect() };
    let kept = all.columns.len();
    let mut keys = Vec::with_capacity(join.on.len());
    for (n, pair) in join.on.iter().enumerate() {
        let expression = exec.compile(&side_key(join, pair, join.build), layout)?;
        let ty = expression.data_type();
        keys.push((all.columns.len(), ty));
        let field = Field { id: ColumnId(u32::MAX - n as u32), name: "join key".into(), ty, nullable: true };
        all.columns.push(LayoutColumn { field, bounds: expression.bounds() });
        outputs.push(Output::Computed(expression));
    }
    pipeline.layout = all.clone();
    pipeline.stages.push(Stage { node: plan.id, operator: Operator::Project(outputs), counted: false });
    let rows = exec.collect_pipeline(pipeline, plan, "a join build side")?;
    Ok((rows, Columns { all, kept, keys }))
}

/// All rows as one batch; large ones on all threads, a column each.
fn concat_all(rows: &Rows, layout: &Layout, cancel: &CancelToken) -> Result<Batch> {
    let count: usize = rows.batches.iter().map(|b| b.rows).sum();
    let column = |i: usize| {
        cancel.check()?;
        concat_column(&rows.batches, i, layout.columns[i].field.ty)
    };
    let columns = 0..layout.columns.len();
    let columns: Result<Vec<ArrayRef>> =
        if count < PARALLEL_ROWS { columns.map(column).collect() } else { columns.into_par_iter().map(column).collect() };
    Ok(Batch { columns: columns?, rows: count })
}
