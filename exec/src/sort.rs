//! Sorting: everything, or only the first rows in bounded memory.
//!
//! The rows of fragments are sorted in each of them; the sort above the gather only merges their runs.

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::SortOptions;
use arrow::row::{RowConverter, SortField};
use parking_lot::Mutex;
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use stoa_plan::distribute::sorted_below;
use stoa_plan::{DataType, Node, Plan, SortKey};

use crate::batch::canonical;
use crate::columns::{concat_batches, concat_column, distinct_bytes, gather_batch};
use crate::executor::{Executor, Rows, Scope, cut};
use crate::merge::{Run, merge};
use crate::order::OrderKeys;
use crate::pipeline::{Operator, Output, Pipeline, Sink, Stage, run};
use crate::remote::of_leaves;
use crate::sink::{Collect, in_order};
use crate::{Batch, CancelToken, Error, Layout, QueryContext, Reservation, Result};

/// The most rows that top-k keeps; a larger limit sorts everything.
const TOP_K_LIMIT: usize = 64 * 1024;

/// The pipeline over sorted rows.
pub(crate) fn open(
    exec: &Executor<'_>,
    plan: &Plan,
    input: &Plan,
    keys: &[SortKey],
    fetch: Option<u64>,
    skip: u64,
    scope: &Scope,
) -> Result<Pipeline> {
    let sorted = match sorted_below(input, keys) {
        Some(below) => fragments(exec, plan, input, below, keys)?,
        None => sorted(exec, plan, plan, exec.open(input, scope)?, keys, wanted(fetch, skip))?,
    };
    Ok(exec.rows(merged(exec, plan, sorted, fetch, skip)?, true))
}

/// The rows of a fragment whose last step is the sort `plan`: those of all partitions in one order.
pub(crate) fn fragment(exec: &Executor<'_>, plan: &Plan, input: &Plan, keys: &[SortKey], fetch: Option<u64>) -> Result<Rows> {
    let parts = exec.fragments(plan, |scope| sorted(exec, plan, plan, exec.open(input, scope)?, keys, wanted(fetch, 0)))?;
    merged(exec, plan, joined(parts), fetch, 0)
}

/// What the fragments below a sort have sorted: `below` is their sort, `exchange` what gathers their rows.
fn fragments(exec: &Executor<'_>, plan: &Plan, exchange: &Plan, below: &Plan, keys: &[SortKey]) -> Result<Sorted> {
    let Node::Sort { input, fetch, .. } = &below.node else {
        return Err(Error::Internal("rows that are not sorted are not merged".into()));
    };
    if let Some(leaves) = &exec.leaves
        && of_leaves(below)
    {
        let (rows, parts) = leaves.gather_parts(exec, exchange, below)?;
        let mut pipeline = exec.rows(rows, false);
        let order = Order::new(exec, plan, keys, &mut pipeline)?;
        let (batches, reservations) = in_order(run(exec, &pipeline, plan.id, &Collect::new(exec.ctx, "a sort"))?);
        return order.sorted_runs(batches, reservations, &parts, &exec.ctx.cancel);
    }
    let parts = exec.fragments(below, |scope| {
        let part = sorted(exec, below, plan, exec.open(input, scope)?, keys, wanted(*fetch, 0))?;
        exec.count(below, &part.batches);
        Ok(part)
    })?;
    let sorted = joined(parts);
    exec.count(exchange, &sorted.batches);
    Ok(sorted)
}

/// Rows, and in which order they are.
struct Sorted {
    layout: Layout,
    /// The columns of the layout.
    batches: Vec<Batch>,
    /// The rows of the batches, in order in each run.
    runs: Vec<Run>,
    reservations: Vec<Reservation>,
}

/// The sorted rows of several fragments.
fn joined(parts: Vec<Sorted>) -> Sorted {
    let mut all = Sorted { layout: Layout::default(), batches: vec![], runs: vec![], reservations: vec![] };
    for part in parts {
        all.layout = part.layout;
        all.batches.extend(part.batches);
        all.runs.extend(part.runs);
        all.reservations.extend(part.reservations);
    }
    all
}

/// The first `wanted` rows of a pipeline in order, with the columns that are read above `reader`.
fn sorted(
    exec: &Executor<'_>,
    plan: &Plan,
    reader: &Plan,
    mut pipeline: Pipeline,
    keys: &[SortKey],
    wanted: Option<usize>,
) -> Result<Sorted> {
    let order = Order::new(exec, reader, keys, &mut pipeline)?;
    let (batches, reservations) = match wanted {
        Some(0) => (vec![], vec![]),
        Some(wanted) if wanted <= TOP_K_LIMIT => top_k(exec, plan, &pipeline, &order, wanted)?,
        _ => {
            exec.recorder.note(plan.id, "full sort".into());
            in_order(run(exec, &pipeline, plan.id, &Collect::new(exec.ctx, "a sort"))?)
        }
    };
    let rows = batches.iter().map(|b| b.rows).sum();
    order.sorted_runs(batches, reservations, &[rows], &exec.ctx.cancel)
}

/// The first `fetch` rows behind `skip` of all runs in one order.
fn merged(exec: &Executor<'_>, plan: &Plan, sorted: Sorted, fetch: Option<u64>, skip: u64) -> Result<Rows> {
    let Sorted { layout, batches, runs, mut reservations } = sorted;
    let held: usize = reservations.iter().map(Reservation::bytes).sum();
    let mut more = exec.ctx.memory.reserve("a sort");
    more.grow(held.saturating_mul(2))?;
    let cancel = &exec.ctx.cancel;
    if u32::try_from(runs.iter().map(Run::rows).sum::<usize>()).is_err() {
        return Err(Error::Unsupported("sorts of more than 4 billion rows".into()));
    }
    if runs.len() > 1 {
        exec.recorder.note(plan.id, format!("merge of {} runs", runs.len()));
    }
    let parts = merge(&runs, wanted(fetch, skip), cancel)?;
    drop(runs);
    let all = concat_batches(&batches, &layout)?;
    drop(batches);
    let gathered = parts.into_par_iter().filter(|rows| !rows.is_empty()).map(|rows| {
        cancel.check()?;
        gather_batch(&all, &UInt32Array::from(rows))
    });
    let mut batches = gathered.collect::<Result<Vec<Batch>>>()?;
    reservations.clear();
    more.resize(held)?;
    let skip = usize::try_from(skip).unwrap_or(usize::MAX).min(batches.iter().map(|b| b.rows).sum());
    cut(&mut batches, skip, fetch);
    exec.count(plan, &batches);
    exec.recorder.memory(plan.id, held);
    Ok(Rows { layout, batches, reservations: vec![more] })
}

/// How many of the first rows are to be known for `fetch` rows behind `skip`.
fn wanted(fetch: Option<u64>, skip: u64) -> Option<usize> {
    fetch.map(|fetch| fetch.saturating_add(skip)).and_then(|rows| usize::try_from(rows).ok())
}

/// The keys of a sort: where they are in a batch, and how they compare.
pub(crate) struct Order {
    /// Columns that leave the sort; behind them are computed keys.
    pub payload: usize,
    keys: Vec<(usize, DataType)>,
    converter: RowConverter,
    pub layout: Layout,
}

impl Order {
    /// Adds a stage to the pipeline that keeps the columns that leave the sort and computes the keys.
    pub fn new(exec: &Executor<'_>, plan: &Plan, keys: &[SortKey], pipeline: &mut Pipeline) -> Result<Order> {
        let input = &pipeline.layout;
        let kept: Vec<usize> =
            (0..input.columns.len()).filter(|i| exec.required.wants(plan, input.columns[*i].field.id)).collect();
        let mut outputs: Vec<Output> = kept.iter().map(|i| Output::Column(*i)).collect();
        let mut layout = Layout { columns: kept.iter().map(|i| input.columns[*i].clone()).collect() };
        let payload = layout.columns.len();
        let mut positions = Vec::with_capacity(keys.len());
        let mut fields = Vec::with_capacity(keys.len());
        for (n, key) in keys.iter().enumerate() {
            let expression = exec.compile(&key.expr, input)?;
            let ty = expression.data_type();
            positions.push((layout.columns.len(), ty));
            layout.columns.push(crate::LayoutColumn {
                field: stoa_plan::Field {
                    id: stoa_plan::ColumnId(u32::MAX - n as u32),
                    name: "sort key".into(),
                    ty,
                    nullable: true,
                },
                bounds: expression.bounds(),
            });
            outputs.push(Output::Computed(expression));
            let options = SortOptions { descending: key.descending, nulls_first: key.nulls_first };
            fields.push(SortField::new_with_options(ty.to_arrow(), options));
        }
        pipeline.layout = layout.clone();
        pipeline.stages.push(Stage { node: plan.id, operator: Operator::Project(outputs), counted: false });
        Ok(Order { payload, keys: positions, converter: RowConverter::new(fields)?, layout })
    }

    /// The keys of a batch in a form whose bytes compare as the keys do.
    pub fn rows(&self, batch: &Batch, cancel: &CancelToken) -> Result<OrderKeys> {
        let columns = self.keys.iter().map(|(i, ty)| canonical(&batch.columns[*i], *ty)).collect::<Result<Vec<ArrayRef>>>()?;
        OrderKeys::new(&self.converter, &columns, batch.rows, cancel)
    }

    /// The first `limit` rows of a batch in order.
    fn first(&self, batch: &Batch, limit: usize, cancel: &CancelToken) -> Result<Vec<u32>> {
        let keys = self.rows(batch, cancel)?;
        cancel.check()?;
        let mut rows = keys.all();
        if limit < rows.len() {
            rows.select_nth_unstable_by(limit, |a, b| keys.compare(a, b));
            rows.truncate(limit);
        }
        keys.sort(&mut rows, cancel)?;
        Ok(rows.into_iter().map(|(_, row)| row).collect())
    }

    /// The rows of the batches, of which every part, `parts` rows each, becomes a run.
    fn sorted_runs(
        &self,
        mut batches: Vec<Batch>,
        reservations: Vec<Reservation>,
        parts: &[usize],
        cancel: &CancelToken,
    ) -> Result<Sorted> {
        let mut runs = Vec::with_capacity(parts.len());
        let mut rest = batches.as_slice();
        for rows in parts {
            let mut left = *rows;
            let end = rest.iter().position(|batch| {
                let over = left == 0;
                left = left.saturating_sub(batch.rows);
                over
            });
            let (part, after) = rest.split_at(end.unwrap_or(rest.len()));
            rest = after;
            let column = |(at, ty): &(usize, DataType)| canonical(&concat_column(part, *at, *ty)?, *ty);
            let columns = self.keys.iter().map(column).collect::<Result<Vec<ArrayRef>>>()?;
            runs.push(Run::new(OrderKeys::new(&self.converter, &columns, *rows, cancel)?, cancel)?);
        }
        batches.iter_mut().for_each(|batch| batch.columns.truncate(self.payload));
        let mut layout = self.layout.clone();
        layout.columns.truncate(self.payload);
        Ok(Sorted { layout, batches, runs, reservations })
    }
}

/// Keeps the first `wanted` rows.
fn top_k(
    exec: &Executor<'_>,
    plan: &Plan,
    pipeline: &Pipeline,
    order: &Order,
    wanted: usize,
) -> Result<(Vec<Batch>, Vec<Reservation>)> {
    let sink = TopK { order, wanted, ctx: exec.ctx, threshold: Mutex::new(None) };
    let locals = run(exec, pipeline, plan.id, &sink)?;
    exec.recorder.note(plan.id, format!("top {wanted}"));
    let mut batches = Vec::new();
    let mut reservations = Vec::new();
    for local in locals {
        batches.extend(local.batches);
        reservations.push(local.reservation);
    }
    let all = concat_batches(&batches, &order.layout)?;
    let rows = order.first(&all, wanted, &exec.ctx.cancel)?;
    Ok((vec![gather_batch(&all, &rows.into())?], reservations))
}

/// The sink of top-k. A row that sorts behind the `wanted`-th of any worker is dropped at once.
struct TopK<'a> {
    order: &'a Order,
    wanted: usize,
    ctx: &'a QueryContext,
    threshold: Mutex<Option<Box<[u8]>>>,
}

/// The candidates of one worker.
struct Candidates {
    batches: Vec<Batch>,
    rows: usize,
    threshold: Option<Box<[u8]>>,
    reservation: Reservation,
}

impl Sink for TopK<'_> {
    type Local = Candidates;

    fn local(&self) -> Result<Candidates> {
        let reservation = self.ctx.memory.reserve("a top-k sort");
        Ok(Candidates { batches: vec![], rows: 0, threshold: None, reservation })
    }

    fn consume(&self, local: &mut Candidates, batch: Batch, _order: usize) -> Result<bool> {
        let batch = match &local.threshold {
            Some(threshold) => {
                let rows = self.order.rows(&batch, &self.ctx.cancel)?;
                let kept: Vec<u32> = (0..batch.rows as u32).filter(|i| rows.row(*i).as_ref() <= &**threshold).collect();
                if kept.len() == batch.rows { batch } else { gather_batch(&batch, &kept.into())? }
            }
            None => batch,
        };
        if batch.rows > 0 {
            local.reservation.grow(distinct_bytes(&batch))?;
            local.rows += batch.rows;
            local.batches.push(batch);
        }
        if local.rows >= self.wanted.saturating_mul(2).max(1024) {
            self.compact(local)?;
        }
        Ok(true)
    }
}

impl TopK<'_> {
    /// Keeps the best `wanted` candidates and lowers the threshold.
    fn compact(&self, local: &mut Candidates) -> Result<()> {
        let all = concat_batches(&local.batches, &self.order.layout)?;
        let rows = self.order.first(&all, self.wanted, &self.ctx.cancel)?;
        let best = gather_batch(&all, &rows.into())?;
        if best.rows == self.wanted {
            let last = self.order.rows(&best.slice(best.rows - 1, 1), &self.ctx.cancel)?;
            let own: Box<[u8]> = last.row(0).as_ref().into();
            let mut shared = self.threshold.lock();
            if shared.as_ref().is_none_or(|s| own < *s) {
                *shared = Some(own);
            }
            local.threshold.clone_from(&shared);
        }
        local.rows = best.rows;
        local.reservation.resize(distinct_bytes(&best))?;
        local.batches = vec![best];
        Ok(())
    }
}
