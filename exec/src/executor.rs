//! From plan nodes to pipelines: what runs inside one, what breaks it, what runs once and what once a partition.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use stoa_columnstore::KeySet;
use stoa_plan::{Aggregate, ColumnId, Expr, Field, FilterId, Node, Phase, Plan};

use crate::aggregate::{AggregateState, GroupedAggregation};
use crate::expression::{Expression, Parameters};
use crate::flow::Passing;
use crate::join::table::JoinTable;
use crate::pipeline::{BatchSource, Operator, Output, Pipeline, Source, Stage, run};
use crate::profile::{LocalCounts, Progress, Recorder};
use crate::query::Storage;
use crate::remote::Leaves;
use crate::required::Required;
use crate::scan::ScanSource;
use crate::sink::{AggregateLocal, AggregateSink, Collect, LimitSink, in_order};
use crate::{Batch, Bounds, Error, Layout, LayoutColumn, QueryContext, Reservation, Result};

/// Rows of a morsel of a source in memory.
const MORSEL_ROWS: usize = 16 * 1024;

/// A query in progress.
pub(crate) struct Executor<'a> {
    pub storage: &'a dyn Storage,
    /// Who runs the fragments below exchanges; this process if nobody else does.
    pub leaves: Option<Leaves<'a>>,
    pub ctx: &'a QueryContext,
    pub recorder: Recorder,
    pub progress: Progress,
    pub required: Required,
    /// Values of the scalar subplans that have run.
    pub parameters: Parameters,
    /// Rows of the shared subplans that have run.
    pub shared: HashMap<u32, Rows>,
    /// What is the same in every fragment.
    pub once: Scope,
    aggregations: Mutex<HashMap<usize, Arc<GroupedAggregation>>>,
    broadcasts: Mutex<HashMap<usize, Arc<Rows>>>,
    /// Rows that pass through the plan in parts.
    pub passing: Passing,
}

/// Rows in memory, with the memory that they hold.
pub(crate) struct Rows {
    pub layout: Layout,
    pub batches: Vec<Batch>,
    pub reservations: Vec<Reservation>,
}

/// What one fragment sees: its partition, its run-time filters, its join tables.
#[derive(Default)]
pub(crate) struct Scope {
    /// The partition; `None` reads all.
    pub partition: Option<usize>,
    filters: Mutex<HashMap<FilterId, Arc<KeySet>>>,
    tables: Mutex<HashMap<usize, Arc<JoinTable>>>,
}

impl Scope {
    /// The scope of a partition's fragment.
    pub fn of_partition(partition: usize) -> Scope {
        Scope { partition: Some(partition), ..Scope::default() }
    }

    /// Publishes a run-time filter to scans that start later.
    pub fn publish(&self, id: FilterId, keys: Arc<KeySet>) {
        self.filters.lock().insert(id, keys);
    }

    /// Keeps the table of the join at `address`.
    pub fn keep_table(&self, address: usize, table: Arc<JoinTable>) {
        self.tables.lock().insert(address, table);
    }
}

/// The address of a plan node, which names it while the query runs.
pub(crate) fn address<T>(node: &T) -> usize {
    std::ptr::from_ref(node) as usize
}

impl<'a> Executor<'a> {
    /// An executor that has run nothing yet.
    pub fn new(storage: &'a dyn Storage, ctx: &'a QueryContext, progress: Progress) -> Executor<'a> {
        Executor {
            storage,
            leaves: None,
            ctx,
            recorder: Recorder::default(),
            progress,
            required: Required::default(),
            parameters: Parameters::default(),
            shared: HashMap::new(),
            once: Scope::default(),
            aggregations: Mutex::default(),
            broadcasts: Mutex::default(),
            passing: Passing::default(),
        }
    }

    /// A run-time filter, if it has been published for this scope.
    pub fn filter(&self, scope: &Scope, id: FilterId) -> Option<Arc<KeySet>> {
        let own = scope.filters.lock().get(&id).cloned();
        own.or_else(|| self.once.filters.lock().get(&id).cloned())
    }

    /// The table of a join, if it has been built for this scope.
    pub fn table(&self, scope: &Scope, address: usize) -> Option<Arc<JoinTable>> {
        let own = scope.tables.lock().get(&address).cloned();
        own.or_else(|| self.once.tables.lock().get(&address).cloned())
    }

    /// Compiles an expression.
    pub fn compile(&self, expr: &Expr, layout: &Layout) -> Result<Expression> {
        Expression::compile(expr, layout, &self.parameters, &self.ctx.settings)
    }

    /// Runs a plan and keeps its rows.
    pub fn collect(&self, plan: &Plan, scope: &Scope, operator: &'static str) -> Result<Rows> {
        let pipeline = self.open(plan, scope)?;
        self.collect_pipeline(pipeline, plan, operator)
    }

    /// Runs a pipeline and keeps its rows.
    pub fn collect_pipeline(&self, pipeline: Pipeline, plan: &Plan, operator: &'static str) -> Result<Rows> {
        if pipeline.stages.is_empty()
            && let Source::Batches(source) = pipeline.source
        {
            let (batches, reservations) = source.into_parts();
            return Ok(Rows { layout: pipeline.layout, batches, reservations });
        }
        let locals = run(self, &pipeline, plan.id, &Collect::new(self.ctx, operator))?;
        let (batches, reservations) = in_order(locals);
        Ok(Rows { layout: pipeline.layout, batches, reservations })
    }

    /// The pipeline that yields a plan's rows. Whatever must be complete before its first row has run when this returns.
    pub fn open(&self, plan: &Plan, scope: &Scope) -> Result<Pipeline> {
        self.ctx.cancel.check()?;
        if let Some((rows, ordered)) = self.passing.part(plan) {
            return Ok(self.rows(rows, ordered));
        }
        match &plan.node {
            Node::Scan(scan) => {
                let (source, layout) = ScanSource::new(self, plan, scan, scope)?;
                let mut pipeline = Pipeline { source: Source::Scan(Box::new(source)), stages: vec![], layout, ordered: false };
                if !scan.filters.is_empty() || !scan.runtime_filters.is_empty() {
                    pipeline.coalesce(plan);
                }
                Ok(pipeline)
            }
            Node::Values(values) => self.values(plan, values),
            Node::SubplanScan(scan) => self.subplan_scan(plan, scan),
            Node::Filter { input, predicate } => self.filter_node(plan, input, predicate, scope),
            Node::Project { input, exprs } => self.project(plan, input, exprs, scope),
            Node::Join(join) => crate::join::open(self, plan, join, scope),
            Node::Aggregate(aggregate) => self.aggregate(plan, aggregate, scope),
            Node::Sort { input, keys, fetch, skip } => crate::sort::open(self, plan, input, keys, *fetch, *skip, scope),
            Node::Limit { input, fetch, skip } => self.limit(plan, input, *fetch, *skip, scope),
            Node::Union { inputs, fields } => self.union(plan, inputs, fields, scope),
            Node::Repeat { input, times } => self.repeat(plan, input, times, scope),
            Node::Window { .. } => Err(Error::Unsupported("window functions".into())),
            Node::Exchange { input, kind } => self.exchange(plan, input, kind, scope),
        }
    }

    /// A pipeline over rows in memory.
    pub fn rows(&self, rows: Rows, ordered: bool) -> Pipeline {
        let Rows { layout, batches, reservations } = rows;
        let source = BatchSource::new(batches, MORSEL_ROWS.max(self.ctx.settings.vector_size), reservations);
        Pipeline { source: Source::Batches(source), stages: vec![], layout, ordered }
    }

    fn filter_node(&self, plan: &Plan, input: &Plan, predicate: &Expr, scope: &Scope) -> Result<Pipeline> {
        let mut pipeline = self.open(input, scope)?;
        let predicate = self.compile(predicate, &pipeline.layout)?;
        let keep = self.narrow(plan, &mut pipeline.layout);
        pipeline.stages.push(Stage { node: plan.id, operator: Operator::Filter { predicate, keep }, counted: true });
        pipeline.coalesce(plan);
        Ok(pipeline)
    }

    fn repeat(&self, plan: &Plan, input: &Plan, times: &Expr, scope: &Scope) -> Result<Pipeline> {
        let mut pipeline = self.open(input, scope)?;
        let times = self.compile(times, &pipeline.layout)?;
        let keep = self.narrow(plan, &mut pipeline.layout);
        pipeline.stages.push(Stage { node: plan.id, operator: Operator::Repeat { times, keep }, counted: true });
        pipeline.coalesce(plan);
        Ok(pipeline)
    }

    /// Leaves in a layout the columns of a node that are read above it, and says where they were.
    fn narrow(&self, plan: &Plan, layout: &mut Layout) -> Vec<usize> {
        let wanted = |(_, c): &(usize, &LayoutColumn)| self.required.wants(plan, c.field.id);
        let keep: Vec<usize> = layout.columns.iter().enumerate().filter(wanted).map(|(i, _)| i).collect();
        layout.columns = keep.iter().map(|i| layout.columns[*i].clone()).collect();
        keep
    }

    fn project(&self, plan: &Plan, input: &Plan, exprs: &[(Field, Expr)], scope: &Scope) -> Result<Pipeline> {
        let mut pipeline = self.open(input, scope)?;
        let mut outputs = Vec::with_capacity(exprs.len());
        let mut columns = Vec::with_capacity(exprs.len());
        for (field, expr) in exprs.iter().filter(|(field, _)| self.required.wants(plan, field.id)) {
            let (output, bounds) = match expr {
                Expr::Column(id, _) => {
                    let i = pipeline.layout.position(*id)?;
                    (Output::Column(i), pipeline.layout.columns[i].bounds)
                }
                expr => {
                    let expression = self.compile(expr, &pipeline.layout)?;
                    let bounds = expression.bounds();
                    (Output::Computed(expression), bounds)
                }
            };
            outputs.push(output);
            columns.push(LayoutColumn { field: field.clone(), bounds });
        }
        pipeline.layout = Layout { columns };
        pipeline.stages.push(Stage { node: plan.id, operator: Operator::Project(outputs), counted: true });
        Ok(pipeline)
    }

    fn values(&self, plan: &Plan, values: &stoa_plan::Values) -> Result<Pipeline> {
        let empty = Layout::default();
        let one = Batch { columns: vec![], rows: 1 };
        let layout = layout_of(&values.fields, &[]);
        let mut columns = Vec::with_capacity(values.fields.len());
        for (i, field) in values.fields.iter().enumerate() {
            let mut arrays = Vec::with_capacity(values.rows.len());
            for row in &values.rows {
                let expr = row.get(i).ok_or_else(|| Error::Internal("a row of VALUES is too short".into()))?;
                arrays.push(crate::batch::canonical(&self.compile(expr, &empty)?.evaluate(&one)?, field.ty)?);
            }
            columns.push(crate::columns::concat_arrays(&arrays, field.ty)?);
        }
        let batches = vec![Batch { columns, rows: values.rows.len() }];
        self.recorder.add(plan.id, &LocalCounts { rows: values.rows.len() as u64, batches: 1, nanos: 0 });
        Ok(self.rows(Rows { layout, batches, reservations: vec![] }, true))
    }

    fn subplan_scan(&self, plan: &Plan, scan: &stoa_plan::SubplanScan) -> Result<Pipeline> {
        let rows =
            self.shared.get(&scan.subplan).ok_or_else(|| Error::Internal(format!("subplan {} has not run", scan.subplan)))?;
        let mut positions = Vec::new();
        let mut columns = Vec::new();
        for (inner, field) in scan.columns.iter().filter(|(_, f)| self.required.wants(plan, f.id)) {
            let i = rows.layout.position(*inner)?;
            positions.push(i);
            columns.push(LayoutColumn { field: field.clone(), bounds: rows.layout.columns[i].bounds });
        }
        let batches = rows.batches.iter().map(|b| b.columns_at(&positions)).collect();
        Ok(self.rows(Rows { layout: Layout { columns }, batches, reservations: vec![] }, false))
    }

    fn union(&self, plan: &Plan, inputs: &[(Plan, Vec<ColumnId>)], fields: &[Field], scope: &Scope) -> Result<Pipeline> {
        let fields: Vec<(usize, &Field)> = fields.iter().enumerate().filter(|(_, f)| self.required.wants(plan, f.id)).collect();
        let mut all = Rows { layout: Layout::default(), batches: vec![], reservations: vec![] };
        let mut bounds: Vec<Option<Bounds>> = vec![None; fields.len()];
        for (input, ids) in inputs {
            let rows = self.collect(input, scope, "a union")?;
            let mut positions = Vec::with_capacity(fields.len());
            for ((i, _), bounds) in fields.iter().zip(&mut bounds) {
                let id = ids.get(*i).ok_or_else(|| Error::Internal("an input of a union is too narrow".into()))?;
                let position = rows.layout.position(*id)?;
                let own = rows.layout.columns[position].bounds;
                *bounds = Some(bounds.map_or(own, |b| union_bounds(b, own)));
                positions.push(position);
            }
            all.batches.extend(rows.batches.iter().map(|b| b.columns_at(&positions)));
            all.reservations.extend(rows.reservations);
        }
        let column = |((_, field), bounds): (&(usize, &Field), &Option<Bounds>)| LayoutColumn {
            field: (*field).clone(),
            bounds: bounds.unwrap_or_default(),
        };
        all.layout.columns = fields.iter().zip(&bounds).map(column).collect();
        self.count(plan, &all.batches);
        Ok(self.rows(all, false))
    }

    fn limit(&self, plan: &Plan, input: &Plan, fetch: Option<u64>, skip: u64, scope: &Scope) -> Result<Pipeline> {
        let pipeline = self.open(input, scope)?;
        let ordered = pipeline.ordered;
        let (fetch, skip) = self.passing.left(plan).unwrap_or((fetch, skip));
        let wanted = fetch.map_or(u64::MAX, |f| f.saturating_add(skip));
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        let (mut batches, reservations) = if wanted == 0 {
            (vec![], vec![])
        } else {
            in_order(run(self, &pipeline, plan.id, &LimitSink::new(self.ctx, wanted))?)
        };
        let came = batches.iter().map(|b| b.rows as u64).sum();
        cut(&mut batches, usize::try_from(skip).unwrap_or(usize::MAX), fetch);
        self.passing.passed(plan, came, batches.iter().map(|b| b.rows as u64).sum());
        self.count(plan, &batches);
        Ok(self.rows(Rows { layout: pipeline.layout, batches, reservations }, ordered))
    }

    /// Counts the output of a node that is complete.
    pub fn count(&self, plan: &Plan, batches: &[Batch]) {
        let rows = batches.iter().map(|b| b.rows as u64).sum();
        self.recorder.add(plan.id, &LocalCounts { rows, batches: batches.len() as u64, nanos: 0 });
    }

    fn aggregate(&self, plan: &Plan, aggregate: &Aggregate, scope: &Scope) -> Result<Pipeline> {
        if aggregate.phase == Phase::Final
            && self.leaves.is_none()
            && let Node::Exchange { input, kind: stoa_plan::ExchangeKind::Gather } = &aggregate.input.node
            && let Node::Aggregate(partial) = &input.node
            && partial.phase == Phase::Partial
        {
            let (of_parts, states) = self.aggregate_states(input, partial, None)?;
            let layout = layout_of(&partial.fields(), &of_parts.output_bounds());
            let aggregation = GroupedAggregation::new(aggregate, &layout, &self.parameters, self.ctx)?;
            return self.finish_aggregate(plan, aggregate, &aggregation, states);
        }
        let (aggregation, states) = self.aggregate_states(plan, aggregate, Some(scope))?;
        if aggregate.phase == Phase::Partial {
            let mut batches = Vec::new();
            for (state, _) in states {
                batches.extend(state.into_partial()?);
            }
            self.count(plan, &batches);
            let layout = layout_of(&aggregate.fields(), &[]);
            return Ok(self.rows(Rows { layout, batches, reservations: vec![] }, false));
        }
        self.finish_aggregate(plan, aggregate, &aggregation, states)
    }

    /// Runs the input of an aggregation into states, one per worker that took part: the input in a scope, or a fragment once a partition.
    pub fn aggregate_states(&self, plan: &Plan, aggregate: &Aggregate, scope: Option<&Scope>) -> Result<Grouped> {
        let states = Mutex::new(Vec::new());
        let run = |scope: &Scope| self.aggregate_into(plan, aggregate, scope, &states);
        let ran = match scope {
            Some(scope) => Some(run(scope)?),
            None => self.fragments(&aggregate.input, run)?.pop(),
        };
        let aggregation = ran.ok_or_else(|| Error::Internal("a fragment did not run".into()))?;
        let states: Vec<_> =
            states.into_inner().into_iter().map(|local: AggregateLocal| (local.state, local.reservation)).collect();
        let groups = states.iter().map(|(s, _)| s.groups() as u64).sum();
        if states.is_empty() {
            self.recorder.note(plan.id, aggregation.strategy());
        }
        states.iter().for_each(|(state, _)| self.recorder.groups(plan.id, state.strategy(), state.groups() as u64));
        self.recorder.memory(plan.id, states.iter().map(|(s, _)| s.memory()).sum());
        if aggregate.phase == Phase::Partial {
            self.recorder.add(plan.id, &LocalCounts { rows: groups, batches: states.len() as u64, nanos: 0 });
        }
        Ok((aggregation, states))
    }

    /// Runs the input of an aggregation in a scope. Workers go on with states that others have left, and leave theirs: groups that several
    /// partitions have are one group then.
    fn aggregate_into(
        &self,
        plan: &Plan,
        aggregate: &Aggregate,
        scope: &Scope,
        states: &Mutex<Vec<AggregateLocal>>,
    ) -> Result<Arc<GroupedAggregation>> {
        let pipeline = self.open(&aggregate.input, scope)?;
        let known = self.aggregations.lock().get(&address(aggregate)).cloned();
        let aggregation = match known {
            Some(known) => known,
            None => {
                let new = GroupedAggregation::new(aggregate, &pipeline.layout, &self.parameters, self.ctx)?;
                self.aggregations.lock().entry(address(aggregate)).or_insert(new).clone()
            }
        };
        let merge = aggregate.phase == Phase::Final;
        let sink = AggregateSink { aggregation: aggregation.clone(), ctx: self.ctx, merge, left: states };
        let locals = run(self, &pipeline, plan.id, &sink)?;
        states.lock().extend(locals);
        Ok(aggregation)
    }

    fn finish_aggregate(
        &self,
        plan: &Plan,
        aggregate: &Aggregate,
        aggregation: &Arc<GroupedAggregation>,
        states: Vec<(AggregateState, Reservation)>,
    ) -> Result<Pipeline> {
        let started = std::time::Instant::now();
        let (states, reservations): (Vec<_>, Vec<_>) = states.into_iter().unzip();
        let batches = aggregation.merge_all(states)?;
        let nanos = started.elapsed().as_nanos() as u64;
        self.recorder.add(plan.id, &LocalCounts { nanos, ..LocalCounts::default() });
        self.count(plan, &batches);
        let mut layout = layout_of(&aggregate.fields(), &aggregation.output_bounds());
        let mut batches = batches;
        let keep: Vec<usize> =
            (0..layout.columns.len()).filter(|i| self.required.wants(plan, layout.columns[*i].field.id)).collect();
        if keep.len() < layout.columns.len() {
            layout.columns = keep.iter().map(|i| layout.columns[*i].clone()).collect();
            for batch in &mut batches {
                batch.columns = keep.iter().map(|i| batch.columns[*i].clone()).collect();
            }
        }
        Ok(self.rows(Rows { layout, batches, reservations }, false))
    }
}

/// An aggregation and the states of the workers that fed it.
pub(crate) type Grouped = (Arc<GroupedAggregation>, Vec<(AggregateState, Reservation)>);

impl Executor<'_> {
    /// The kept broadcast at `address`, or what `make` gives.
    pub fn broadcast(&self, address: usize, make: impl FnOnce() -> Result<Rows>) -> Result<Arc<Rows>> {
        let known = self.broadcasts.lock().get(&address).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        let rows = Arc::new(make()?);
        Ok(self.broadcasts.lock().entry(address).or_insert(rows).clone())
    }
}

impl Pipeline {
    /// Adds a stage that merges small batches.
    pub fn coalesce(&mut self, plan: &Plan) {
        let types = self.layout.columns.iter().map(|c| c.field.ty).collect();
        self.stages.push(Stage { node: plan.id, operator: Operator::Coalesce(types), counted: false });
    }
}

/// A layout of these fields; bounds where given.
pub(crate) fn layout_of(fields: &[Field], bounds: &[Bounds]) -> Layout {
    let column =
        |(i, field): (usize, &Field)| LayoutColumn { field: field.clone(), bounds: bounds.get(i).copied().unwrap_or_default() };
    Layout { columns: fields.iter().enumerate().map(column).collect() }
}

/// Bounds of the values of either.
fn union_bounds(a: Bounds, b: Bounds) -> Bounds {
    Bounds { range: a.range.zip(b.range).map(|(x, y)| (x.0.min(y.0), x.1.max(y.1))) }
}

/// Drops the first `skip` rows and all after the next `fetch`.
pub(crate) fn cut(batches: &mut Vec<Batch>, skip: usize, fetch: Option<u64>) {
    let mut skip = skip;
    let mut left = fetch.map_or(usize::MAX, |f| usize::try_from(f).unwrap_or(usize::MAX));
    let all = std::mem::take(batches);
    for batch in all {
        let dropped = skip.min(batch.rows);
        skip -= dropped;
        let rows = left.min(batch.rows - dropped);
        left -= rows;
        if rows > 0 {
            batches.push(if rows == batch.rows { batch } else { batch.slice(dropped, rows) });
        }
    }
}
