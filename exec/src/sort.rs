//! Sorting: everything, or only the first rows in bounded memory.

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::SortOptions;
use arrow::row::{RowConverter, SortField};
use parking_lot::Mutex;
use rayon::iter::ParallelIterator;
use rayon::slice::ParallelSlice;
use stoa_plan::{DataType, Plan, SortKey};

use crate::batch::canonical;
use crate::columns::{concat_batches, distinct_bytes, gather_batch};
use crate::executor::{Executor, Rows, Scope, cut};
use crate::order::OrderKeys;
use crate::pipeline::{Operator, Output, Pipeline, Sink, Stage, run};
use crate::sink::{Collect, in_order};
use crate::{Batch, CancelToken, Error, Layout, QueryContext, Reservation, Result};

/// The most rows that top-k keeps; a larger limit sorts everything.
const TOP_K_LIMIT: usize = 64 * 1024;
/// Rows of a batch of sorted rows.
const GATHERED_ROWS: usize = 64 * 1024;

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
    let mut pipeline = exec.open(input, scope)?;
    let order = Order::new(exec, plan, keys, &mut pipeline)?;
    let wanted = fetch.map(|f| f.saturating_add(skip)).and_then(|n| usize::try_from(n).ok());
    let (batches, reservations) = match wanted {
        Some(0) => (vec![], vec![]),
        Some(wanted) if wanted <= TOP_K_LIMIT => top_k(exec, plan, &pipeline, &order, wanted)?,
        _ => full(exec, plan, &pipeline, &order)?,
    };
    let rows = batches.iter().map(|b| b.rows).sum::<usize>();
    let skip = usize::try_from(skip).unwrap_or(usize::MAX).min(rows);
    let width = order.payload;
    let mut batches: Vec<Batch> = batches
        .into_iter()
        .map(|mut b| {
            b.columns.truncate(width);
            b
        })
        .collect();
    cut(&mut batches, skip, fetch);
    exec.count(plan, &batches);
    exec.recorder.memory(plan.id, reservations.iter().map(Reservation::bytes).sum());
    let mut layout = pipeline.layout;
    layout.columns.truncate(width);
    Ok(exec.rows(Rows { layout, batches, reservations }, true))
}

/// The keys of a sort: where they are in a batch, and how they compare.
struct Order {
    /// Columns that leave the sort; behind them are computed keys.
    payload: usize,
    keys: Vec<(usize, DataType)>,
    converter: RowConverter,
    layout: Layout,
}

impl Order {
    /// Adds a stage to the pipeline that keeps the columns that leave the sort and computes the keys.
    fn new(exec: &Executor<'_>, plan: &Plan, keys: &[SortKey], pipeline: &mut Pipeline) -> Result<Order> {
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
    fn rows(&self, batch: &Batch, cancel: &CancelToken) -> Result<OrderKeys> {
        let columns = self.keys.iter().map(|(i, ty)| canonical(&batch.columns[*i], *ty)).collect::<Result<Vec<ArrayRef>>>()?;
        OrderKeys::new(&self.converter, &columns, batch.rows, cancel)
    }

    /// The rows of a batch in order; only the first `limit`.
    fn sorted(&self, batch: &Batch, limit: Option<usize>, cancel: &CancelToken) -> Result<Vec<u32>> {
        let keys = self.rows(batch, cancel)?;
        if u32::try_from(batch.rows).is_err() {
            return Err(Error::Unsupported("sorts of more than 4 billion rows".into()));
        }
        cancel.check()?;
        let mut rows = keys.all();
        if let Some(limit) = limit.filter(|limit| *limit < rows.len()) {
            rows.select_nth_unstable_by(limit, |a, b| keys.compare(a, b));
            rows.truncate(limit);
        }
        keys.sort(&mut rows, cancel)?;
        Ok(rows.into_iter().map(|(_, row)| row).collect())
    }
}

/// Sorts everything.
fn full(exec: &Executor<'_>, plan: &Plan, pipeline: &Pipeline, order: &Order) -> Result<(Vec<Batch>, Vec<Reservation>)> {
    let (batches, mut reservations) = in_order(run(exec, pipeline, plan.id, &Collect::new(exec.ctx, "a sort"))?);
    let held: usize = reservations.iter().map(Reservation::bytes).sum();
    let mut more = exec.ctx.memory.reserve("a sort");
    more.grow(held.saturating_mul(2))?;
    let all = concat_batches(&batches, &order.layout)?;
    drop(batches);
    exec.ctx.cancel.check()?;
    let cancel = &exec.ctx.cancel;
    let order = order.sorted(&all, None, cancel)?;
    let gathered = order.par_chunks(GATHERED_ROWS).map(|rows| {
        cancel.check()?;
        gather_batch(&all, &UInt32Array::from(rows.to_vec()))
    });
    let sorted = gathered.collect::<Result<Vec<Batch>>>()?;
    exec.recorder.note(plan.id, "full sort".into());
    reservations.clear();
    more.resize(held)?;
    Ok((sorted, vec![more]))
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
    let rows = order.sorted(&all, Some(wanted), &exec.ctx.cancel)?;
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
        let rows = self.order.sorted(&all, Some(self.wanted), &self.ctx.cancel)?;
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
