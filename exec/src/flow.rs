//! A query whose rows leave while it runs.
//!
//! Rows come in parts: rounds of a fragment that runs here ([`crate::rounds`]), chunks from leaves, or parts of a merge of those
//! ([`crate::merge_stream`]). Projections, filters, limits and unions above do not need all rows: each part goes through them by
//! itself, and who takes it slowly stops what makes the next. Everything else is run to its end and then handed on.

use std::collections::HashMap;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parking_lot::Mutex;
use rayon::ThreadPool;
use stoa_plan::distribute::sorted_below;
use stoa_plan::{ColumnId, ExchangeKind, Field, Node, Plan, Query};

use crate::columns::distinct_bytes;
use crate::executor::{Executor, Rows, address, cut, layout_of};
use crate::merge_stream::merge_leaves;
use crate::profile::{Profile, Progress};
use crate::query::{Storage, guarded, output_batches, output_schema, record_batches, run_subplans, with_schema};
use crate::remote::{Destination, Fragments, Leaves, NoTables, of_leaves, passing_rows};
use crate::rounds::Rounds;
use crate::{Batch, Error, Layout, QueryContext, Reservation, Result};

/// Bytes of a result that are held back: one that is no larger comes whole, and the query may be run again until then.
const HELD: usize = 1 << 20;
/// Fragments over fewer rows a partition run to their end in this process.
const SMALL: u64 = 64 * 1024;

/// Takes columns and rows of a result: at least once, and the same columns each time.
pub type TakeResult<'a> = dyn FnMut(&SchemaRef, Vec<RecordBatch>) -> Result<()> + 'a;

/// Runs a query as [`crate::execute_with`] does, on the threads of `pool`, and hands its rows to `take` on the calling thread.
///
/// # Errors
/// As [`crate::execute`], and those of `take`.
pub fn stream_query(
    query: &Query,
    storage: &dyn Storage,
    ctx: &QueryContext,
    progress: &Progress,
    pool: &ThreadPool,
    take: &mut TakeResult<'_>,
) -> Result<Profile> {
    guarded(|| {
        let started = Instant::now();
        let mut exec = Executor::new(storage, ctx, progress.clone());
        pool.install(|| run_subplans(query, &mut exec))?;
        deliver(query, exec, Some(pool), started, take)
    })
}

/// Runs a query as [`crate::execute_on_leaves`] does, and hands its rows to `take` on the calling thread.
///
/// # Errors
/// As [`crate::execute_on_leaves`], and those of `take`.
pub fn stream_on_leaves(
    query: &Query,
    leaves: &dyn Fragments,
    ctx: &QueryContext,
    progress: &Progress,
    take: &mut TakeResult<'_>,
) -> Result<Profile> {
    guarded(|| {
        let started = Instant::now();
        let mut exec = Executor::new(&NoTables, ctx, progress.clone());
        exec.leaves = Some(Leaves::new(leaves, query));
        run_subplans(query, &mut exec)?;
        deliver(query, exec, None, started, take)
    })
}

/// Runs the root of a query.
fn deliver(
    query: &Query,
    mut exec: Executor<'_>,
    pool: Option<&ThreadPool>,
    started: Instant,
    take: &mut TakeResult<'_>,
) -> Result<Profile> {
    exec.required.add(&query.root, query.output.iter().map(|f| f.id).collect());
    let flow = Flow::new(&exec, pool);
    if flow.comes_in_parts(&query.root)? {
        let mut result = Delivery::new(&query.output, exec.ctx, take);
        flow.plan(&query.root, &mut |rows| result.part(&rows))?;
        result.finish()?;
    } else {
        let (schema, batches, _reserved) = flow.on(|| {
            let rows = exec.collect(&query.root, &exec.once, "the result")?;
            let (schema, batches) = record_batches(&query.output, &rows, &exec.ctx.cancel)?;
            Ok((schema, batches, rows.reservations))
        })?;
        take(&schema, batches)?;
    }
    Ok(exec.recorder.finish(started.elapsed(), exec.ctx.memory.peak()))
}

/// A result on its way.
struct Delivery<'a, 'b> {
    output: &'a [Field],
    ctx: &'a QueryContext,
    held: Vec<Batch>,
    memory: Reservation,
    /// Its columns, once rows have been handed on.
    schema: Option<SchemaRef>,
    take: &'a mut TakeResult<'b>,
}

impl<'a, 'b> Delivery<'a, 'b> {
    fn new(output: &'a [Field], ctx: &'a QueryContext, take: &'a mut TakeResult<'b>) -> Delivery<'a, 'b> {
        Delivery { output, ctx, held: vec![], memory: ctx.memory.reserve("the result"), schema: None, take }
    }

    fn part(&mut self, rows: &Rows) -> Result<bool> {
        let batches = output_batches(self.output, rows, &self.ctx.cancel)?;
        if let Some(schema) = &self.schema {
            (self.take)(schema, with_schema(schema, batches)?)?;
            return Ok(true);
        }
        self.memory.grow(batches.iter().map(distinct_bytes).sum())?;
        self.held.extend(batches);
        if self.memory.bytes() > HELD {
            // Whether a NULL comes is only known at the end.
            let schema = output_schema(self.output, |_| true);
            (self.take)(&schema, with_schema(&schema, std::mem::take(&mut self.held))?)?;
            self.memory.resize(0)?;
            self.schema = Some(schema);
        }
        Ok(true)
    }

    fn finish(mut self) -> Result<()> {
        if self.schema.is_some() {
            return Ok(());
        }
        let held = std::mem::take(&mut self.held);
        let schema = output_schema(self.output, |i| held.iter().any(|b| b.columns[i].null_count() > 0));
        (self.take)(&schema, with_schema(&schema, held)?)
    }
}

/// Takes a part of the rows of a plan; false if no more are wanted.
pub(crate) type Take<'a> = &'a mut dyn FnMut(Rows) -> Result<bool>;

/// Runs plans in parts. All that computes runs on the threads of the pool, if there is one; who takes rows is called on the calling
/// thread.
pub(crate) struct Flow<'a> {
    exec: &'a Executor<'a>,
    pool: Option<&'a ThreadPool>,
}

impl<'a> Flow<'a> {
    pub fn new(exec: &'a Executor<'a>, pool: Option<&'a ThreadPool>) -> Flow<'a> {
        Flow { exec, pool }
    }

    fn on<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        match self.pool {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }

    /// Whether the rows of a merging fragment come in parts.
    fn comes_in_parts(&self, plan: &Plan) -> Result<bool> {
        let source = source(plan);
        match &source.node {
            Node::Exchange { input, kind: ExchangeKind::Gather } if self.exec.leaves.is_some() => Ok(of_leaves(input)),
            Node::Exchange { input, kind: ExchangeKind::Gather } => Ok(passes(input) && self.exec.partitions(input)?.1 >= SMALL),
            Node::Sort { input, keys, .. } if self.exec.leaves.is_some() => Ok(sorted_below(input, keys).is_some_and(of_leaves)),
            Node::Union { inputs, .. } => inputs.iter().try_fold(false, |any, (input, _)| Ok(any || self.comes_in_parts(input)?)),
            _ => Ok(false),
        }
    }

    /// The rows of a merging fragment; whether more would be taken.
    pub fn plan(&self, plan: &Plan, take: Take<'_>) -> Result<bool> {
        let source = source(plan);
        let ordered = matches!(source.node, Node::Sort { .. });
        self.through(plan, source, ordered, &mut |take| self.source(source, take), take)
    }

    /// The rows of a fragment, run once a partition; whether more would be taken.
    pub fn fragment(&self, plan: &Plan, take: Take<'_>) -> Result<bool> {
        match &plan.node {
            Node::Limit { input, fetch: Some(fetch), skip: 0 } if passes_rows(input) => {
                let wanted = usize::try_from(*fetch).unwrap_or(usize::MAX);
                let mut left = wanted;
                self.rounds(input, Some(wanted), &mut |mut rows| {
                    cut(&mut rows.batches, 0, Some(left as u64));
                    left -= rows.batches.iter().map(|b| b.rows).sum::<usize>();
                    self.exec.count(plan, &rows.batches);
                    take(rows)
                })
            }
            _ if passes_rows(plan) => self.rounds(plan, None, take),
            _ => {
                let source = source_of_fragment(plan);
                if let Node::Union { inputs, fields } = &source.node {
                    let made =
                        &mut |take: Take<'_>| self.union(source, inputs, fields, &|input, take| self.fragment(input, take), take);
                    return self.through(plan, source, false, made, take);
                }
                let rows = self.on(|| self.exec.fragment_rows(plan))?;
                take(rows)
            }
        }
    }

    /// What `made` makes of `source`, part by part through what is above it in `plan`.
    fn through(
        &self,
        plan: &Plan,
        source: &Plan,
        ordered: bool,
        made: &mut dyn FnMut(Take<'_>) -> Result<bool>,
        take: Take<'_>,
    ) -> Result<bool> {
        if std::ptr::eq(plan, source) {
            return made(take);
        }
        let (passing, mut limits_of) = (&self.exec.passing, vec![]);
        limits(plan, source, &mut limits_of);
        passing.begin(&limits_of);
        if passing.is_over(&limits_of) {
            return Ok(true);
        }
        let mut wanted = true;
        made(&mut |rows| {
            let rows = self.on(|| {
                passing.put(source, rows, ordered);
                self.exec.collect(plan, &self.exec.once, "rows that pass")
            })?;
            wanted = take(rows)?;
            Ok(wanted && !passing.is_over(&limits_of))
        })?;
        Ok(wanted)
    }

    fn source(&self, plan: &Plan, take: Take<'_>) -> Result<bool> {
        match &plan.node {
            Node::Exchange { input, kind: ExchangeKind::Gather } => match &self.exec.leaves {
                Some(leaves) if of_leaves(input) => return self.gathered(leaves, plan, input, take),
                None if passes(input) => {
                    let started = Instant::now();
                    let wanted = self.fragment(input, &mut |rows| {
                        self.exec.count(plan, &rows.batches);
                        take(rows)
                    })?;
                    self.exec.recorder.note(plan.id, format!("wall {:.3?}", started.elapsed()));
                    return Ok(wanted);
                }
                _ => {}
            },
            Node::Sort { input, keys, fetch, skip } => {
                if let Some((leaves, below)) = self.exec.leaves.as_ref().zip(sorted_below(input, keys))
                    && of_leaves(below)
                {
                    return merge_leaves(self.exec, leaves, (plan, input, below), (keys, *fetch, *skip), take);
                }
            }
            Node::Union { inputs, fields } => {
                return self.union(plan, inputs, fields, &|input, take| self.plan(input, take), take);
            }
            _ => {}
        }
        let rows = self.on(|| self.exec.collect(plan, &self.exec.once, "rows that pass"))?;
        take(rows)
    }

    /// The rows of a fragment of the leaves, as they come.
    fn gathered(&self, leaves: &Leaves<'_>, exchange: &Plan, input: &Plan, take: Take<'_>) -> Result<bool> {
        let (exec, started) = (self.exec, Instant::now());
        let fragment = leaves.fragment(exec, exchange, input, Destination::Caller)?;
        let mut wanted = true;
        let profile = leaves.fragments.stream(&fragment, exec.ctx, &mut |batches| {
            let rows = passing_rows(&fragment.query.output, &batches, exec.ctx)?;
            drop(batches);
            exec.count(exchange, &rows.batches);
            wanted = take(rows)?;
            Ok(wanted)
        })?;
        exec.recorder.add_all(&profile);
        exec.recorder.note(exchange.id, format!("wall {:.3?}", started.elapsed()));
        Ok(wanted)
    }

    /// The rows of a fragment in rounds, no more than `limit` of them but for those of the last round.
    fn rounds(&self, plan: &Plan, limit: Option<usize>, take: Take<'_>) -> Result<bool> {
        let exec = self.exec;
        if limit == Some(0) {
            return Ok(true);
        }
        let fields: Vec<Field> = plan.fields().into_iter().filter(|f| exec.required.wants(plan, f.id)).collect();
        let (mut rounds, mut rows, mut more) = self.on(|| {
            let mut rounds = Rounds::new(exec, plan, fields, limit)?;
            let (rows, more) = rounds.round()?;
            Ok((rounds, rows, more))
        })?;
        loop {
            if !take(rows)? {
                return Ok(false);
            }
            if !more {
                return Ok(true);
            }
            (rows, more) = self.on(|| rounds.round())?;
        }
    }

    /// The rows of the inputs of a union, one after the other.
    fn union(
        &self,
        plan: &Plan,
        inputs: &[(Plan, Vec<ColumnId>)],
        fields: &[Field],
        run: &dyn Fn(&Plan, Take<'_>) -> Result<bool>,
        take: Take<'_>,
    ) -> Result<bool> {
        let exec = self.exec;
        let wanted = |at: &usize| fields.get(*at).is_some_and(|field| exec.required.wants(plan, field.id));
        let kept: Vec<usize> = (0..fields.len()).filter(wanted).collect();
        let layout = layout_of(&kept.iter().map(|at| fields[*at].clone()).collect::<Vec<_>>(), &[]);
        for (input, ids) in inputs {
            let more = run(input, &mut |rows| {
                let rows = renamed(rows, &kept, ids, &layout)?;
                exec.count(plan, &rows.batches);
                take(rows)
            })?;
            if !more {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Rows of an input of a union under the union's names: of its columns at the positions `kept`, `ids` are the input's.
fn renamed(rows: Rows, kept: &[usize], ids: &[ColumnId], layout: &Layout) -> Result<Rows> {
    let position = |at: &usize| {
        let id = ids.get(*at).ok_or_else(|| Error::Internal("an input of a union is too narrow".into()))?;
        rows.layout.position(*id)
    };
    let positions = kept.iter().map(position).collect::<Result<Vec<_>>>()?;
    let batch = |b: &Batch| Batch { columns: positions.iter().map(|i| b.columns[*i].clone()).collect(), rows: b.rows };
    Ok(Rows { layout: layout.clone(), batches: rows.batches.iter().map(batch).collect(), reservations: rows.reservations })
}

/// Where the rows of a merging fragment come from: what is below its last projections, filters and limits.
fn source(plan: &Plan) -> &Plan {
    match &plan.node {
        Node::Project { input, .. } | Node::Filter { input, .. } | Node::Limit { input, .. } => source(input),
        _ => plan,
    }
}

/// As [`source`], of a fragment: it has its limits once a partition.
fn source_of_fragment(plan: &Plan) -> &Plan {
    match &plan.node {
        Node::Project { input, .. } | Node::Filter { input, .. } => source_of_fragment(input),
        _ => plan,
    }
}

/// Whether the rows of a fragment come in parts.
fn passes(plan: &Plan) -> bool {
    match (&plan.node, &source_of_fragment(plan).node) {
        (Node::Limit { input, fetch: Some(_), skip: 0 }, _) => passes_rows(input),
        (_, Node::Union { inputs, .. }) => inputs.iter().any(|(input, _)| passes(input)),
        _ => passes_rows(plan),
    }
}

/// Whether the rows of a fragment come one after the other, rather than all at its end.
fn passes_rows(plan: &Plan) -> bool {
    match &plan.node {
        Node::Scan(_) | Node::Join(_) => true,
        Node::Project { input, .. } | Node::Filter { input, .. } => passes_rows(input),
        _ => false,
    }
}

/// The limits between a plan and its source.
fn limits<'a>(plan: &'a Plan, source: &Plan, found: &mut Vec<&'a Plan>) {
    if std::ptr::eq(plan, source) {
        return;
    }
    if let Node::Limit { .. } = &plan.node {
        found.push(plan);
    }
    plan.inputs().into_iter().for_each(|input| limits(input, source, found));
}

/// What passes through a plan: the parts that wait to be read, and what limits still skip and let pass.
#[derive(Default)]
pub(crate) struct Passing {
    parts: Mutex<HashMap<usize, (Rows, bool)>>,
    left: Mutex<HashMap<usize, (Option<u64>, u64)>>,
}

impl Passing {
    /// The part that a plan reads in place of its own rows, and whether their order matters.
    pub fn part(&self, plan: &Plan) -> Option<(Rows, bool)> {
        self.parts.lock().remove(&address(plan))
    }

    fn put(&self, plan: &Plan, rows: Rows, ordered: bool) {
        self.parts.lock().insert(address(plan), (rows, ordered));
    }

    /// Limits count over all parts from now on.
    fn begin(&self, limits: &[&Plan]) {
        for plan in limits {
            if let Node::Limit { fetch, skip, .. } = &plan.node {
                self.left.lock().insert(address(*plan), (*fetch, *skip));
            }
        }
    }

    /// How many rows a limit still lets pass, and how many it skips before.
    pub fn left(&self, plan: &Plan) -> Option<(Option<u64>, u64)> {
        self.left.lock().get(&address(plan)).copied()
    }

    /// So many rows came to a limit, and so many of them passed.
    pub fn passed(&self, plan: &Plan, came: u64, passed: u64) {
        if let Some((fetch, skip)) = self.left.lock().get_mut(&address(plan)) {
            *fetch = fetch.map(|left| left.saturating_sub(passed));
            *skip = skip.saturating_sub(came);
        }
    }

    /// Whether one of these limits lets nothing pass any more.
    fn is_over(&self, limits: &[&Plan]) -> bool {
        limits.iter().any(|plan| matches!(self.left(plan), Some((Some(0), _))))
    }
}
