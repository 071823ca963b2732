//! A query over leaves: the merging fragment runs here, every other one where its rows are.
//!
//! The executor meets an exchange and hands the fragment below it to [`Fragments`]. Exchanges inside that fragment come first: the
//! leaves send each other the rows of a broadcast, or this process sends them what only it has. A fragment that goes out therefore
//! is a query of its own: parameters are literals, and what other fragments sent is read as [`SubplanKind::Received`] rows.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use arrow::array::{Array, ArrayRef, RecordBatch};
use parking_lot::Mutex;
use stoa_columnstore::KeySet;
use stoa_columnstore::predicate::KeyMembers;
use stoa_plan::{
    ExchangeKind, Expr, Field, FilterId, Node, NodeId, Phase, Plan, Query, Subplan, SubplanKind, SubplanScan, Values,
    distribute::runs_per_partition,
};

use crate::columns::row_bytes;
use crate::executor::{Executor, Rows, layout_of};
use crate::profile::{LocalCounts, Profile, Progress};
use crate::query::{self, QueryResult, Storage, guarded, record_batches};
use crate::{Batch, Bounds, Error, QueryContext, Result};

/// Bytes of a run-time filter that are sent at most.
const MOST_FILTER_BYTES: usize = 1 << 20;

/// A part of a query that leaves run.
#[derive(Clone, Debug)]
pub struct Fragment {
    /// Its plan, complete in itself.
    pub query: Query,
    /// It reads nothing that is partitioned: one leaf runs it. Otherwise every leaf does, over its partitions.
    pub once: bool,
    /// It is all that leaves do for its query.
    pub only: bool,
    /// Where its rows go.
    pub destination: Destination,
    /// The run-time filters that it may use and this process has published.
    pub filters: Vec<(FilterId, Arc<KeySet>)>,
}

/// What other fragments sent for a fragment.
#[derive(Clone, Debug, Default)]
pub struct Received {
    /// Rows, by the number under which they were sent.
    pub rows: HashMap<u32, Vec<RecordBatch>>,
    /// Run-time filters.
    pub filters: Vec<(FilterId, Arc<KeySet>)>,
}

/// Where the rows of a fragment go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Back to who asked for them.
    Caller,
    /// To every leaf that takes part in the query, to be received under this number.
    Leaves(u32),
    /// Each to the leaf that has the partition of the hash of these columns, to be received under this number.
    Shuffle {
        /// The number.
        number: u32,
        /// Positions among the fragment's columns.
        keys: Vec<u32>,
    },
}

/// Who runs fragments: the leaves that have a query's partitions.
pub trait Fragments: Send + Sync {
    /// Runs a fragment: the rows of each leaf, none if they go elsewhere, and what it did. Returns when all of them are where they
    /// belong.
    ///
    /// # Errors
    /// The first error of any leaf, or [`Error::Cancelled`].
    fn run(&self, fragment: &Fragment, ctx: &QueryContext) -> Result<(Vec<Vec<RecordBatch>>, Profile)>;

    /// Runs a fragment whose rows come back, and hands them to `each` as they come, until it wants no more: what the leaves did that ran
    /// to the end.
    ///
    /// # Errors
    /// As [`Fragments::run`], and those of `each`.
    fn stream(&self, fragment: &Fragment, ctx: &QueryContext, each: &mut TakeRows<'_>) -> Result<Profile>;

    /// Runs a fragment whose rows come back, for `read`, which takes those of each leaf as it needs them.
    ///
    /// # Errors
    /// As [`Fragments::run`], and those of `read`.
    fn pull(&self, fragment: &Fragment, ctx: &QueryContext, read: &mut ReadLeaves<'_>) -> Result<Profile>;

    /// Gives every leaf these rows, to be received under this number.
    ///
    /// # Errors
    /// If a leaf cannot take them.
    fn give(&self, number: u32, batches: &[RecordBatch], ctx: &QueryContext) -> Result<()>;
}

/// Takes rows that come from a leaf; false if no more are wanted.
pub type TakeRows<'a> = dyn FnMut(Vec<RecordBatch>) -> Result<bool> + 'a;

/// Reads the rows of leaves.
pub type ReadLeaves<'a> = dyn FnMut(&mut dyn LeafRows) -> Result<()> + 'a;

/// Rows of leaves that come as they are taken: a leaf whose rows nobody takes makes no more of them.
pub trait LeafRows {
    /// How many leaves there are.
    fn leaves(&self) -> usize;

    /// The next rows of a leaf; waits for them. `None`: it has no more.
    ///
    /// # Errors
    /// If a leaf has failed, or [`Error::Cancelled`].
    fn next(&mut self, leaf: usize) -> Result<Option<Vec<RecordBatch>>>;
}

/// Runs a distributed query over leaves.
///
/// # Errors
/// As [`crate::execute`], and those of the leaves.
pub fn execute_on_leaves(query: &Query, leaves: &dyn Fragments, ctx: &QueryContext, progress: &Progress) -> Result<QueryResult> {
    guarded(|| {
        let started = Instant::now();
        let mut exec = Executor::new(&NoTables, ctx, progress.clone());
        exec.leaves = Some(Leaves::new(leaves, query));
        query::run_subplans(query, &mut exec)?;
        query::finish(query, &mut exec, started)
    })
}

/// Runs a fragment over all partitions that `storage` has, with the rows that other fragments sent.
///
/// # Errors
/// As [`crate::execute`].
pub fn execute_fragment(query: &Query, storage: &dyn Storage, received: &Received, ctx: &QueryContext) -> Result<QueryResult> {
    guarded(|| {
        let started = Instant::now();
        let exec = fragment_executor(query, storage, received, ctx, &Progress::default())?;
        let rows = exec.fragment_rows(&query.root)?;
        let (schema, batches) = record_batches(&query.output, &rows, &ctx.cancel)?;
        let profile = exec.recorder.finish(started.elapsed(), ctx.memory.peak());
        Ok(QueryResult { schema, batches, profile })
    })
}

/// An executor for a fragment, which has run all but its root.
pub(crate) fn fragment_executor<'a>(
    query: &Query,
    storage: &'a dyn Storage,
    received: &Received,
    ctx: &'a QueryContext,
    progress: &Progress,
) -> Result<Executor<'a>> {
    let mut exec = Executor::new(storage, ctx, progress.clone());
    for subplan in &query.subplans {
        if let SubplanKind::Received(number) = subplan.kind {
            let batches = received.rows.get(&number).map_or(&[][..], Vec::as_slice);
            exec.shared.insert(number, received_rows(&subplan.plan.fields(), batches, ctx)?);
        }
    }
    received.filters.iter().for_each(|(id, keys)| exec.once.publish(*id, keys.clone()));
    query::run_subplans(query, &mut exec)?;
    exec.required.add(&query.root, query.output.iter().map(|f| f.id).collect());
    Ok(exec)
}

impl Executor<'_> {
    /// The rows of a whole fragment, run once a partition. Partial states of one group and rows in order are merged before they leave.
    pub fn fragment_rows(&self, root: &Plan) -> Result<Rows> {
        let aggregate = match &root.node {
            Node::Aggregate(aggregate) if aggregate.phase == Phase::Partial => aggregate,
            Node::Sort { input, keys, fetch, skip: 0 } => return crate::sort::fragment(self, root, input, keys, *fetch),
            _ => return self.all_partitions(root),
        };
        let (aggregation, states) = self.aggregate_states(root, aggregate, None)?;
        let (states, reservations) = states.into_iter().unzip();
        let batches = aggregation.merge_all(states)?;
        Ok(Rows { layout: layout_of(&aggregate.fields(), &[]), batches, reservations })
    }
}

/// No table is here: the leaves have them.
pub(crate) struct NoTables;

impl Storage for NoTables {
    fn table(&self, name: &str) -> Result<Arc<stoa_columnstore::Table>> {
        Err(Error::Internal(format!("table '{name}' is read outside of the leaves")))
    }
}

/// The leaves of a query in progress, and what they have been given.
pub(crate) struct Leaves<'a> {
    pub fragments: &'a dyn Fragments,
    /// Number of the next rows that are sent.
    next: AtomicU32,
    /// Shared subplans whose rows the leaves have.
    given: Mutex<HashSet<u32>>,
    /// Exchanges of the query.
    exchanges: usize,
}

impl<'a> Leaves<'a> {
    pub fn new(fragments: &'a dyn Fragments, query: &Query) -> Leaves<'a> {
        let shared = query.subplans.iter().filter_map(|s| match s.kind {
            SubplanKind::Shared(number) | SubplanKind::Received(number) => Some(number.saturating_add(1)),
            SubplanKind::Scalar(_) | SubplanKind::Filter(_) => None,
        });
        let mut exchanges = 0;
        let mut count = |plan: &Plan| exchanges += usize::from(matches!(plan.node, Node::Exchange { .. }));
        query.plans().into_iter().for_each(|plan| plan.walk(&mut count));
        Leaves { fragments, next: AtomicU32::new(shared.max().unwrap_or(0)), given: Mutex::default(), exchanges }
    }

    /// The rows of the fragment below `exchange`.
    pub fn gather(&self, exec: &Executor<'_>, exchange: &Plan, input: &Plan) -> Result<Rows> {
        self.gather_parts(exec, exchange, input).map(|(rows, _)| rows)
    }

    /// The rows of the fragment below `exchange`, those of one leaf behind those of the other, and how many each has.
    pub fn gather_parts(&self, exec: &Executor<'_>, exchange: &Plan, input: &Plan) -> Result<(Rows, Vec<usize>)> {
        let started = Instant::now();
        let fragment = self.fragment(exec, exchange, input, Destination::Caller)?;
        let (leaves, profile) = self.fragments.run(&fragment, exec.ctx)?;
        exec.recorder.add_all(&profile);
        let parts = leaves.iter().map(|batches| batches.iter().map(RecordBatch::num_rows).sum()).collect();
        let rows = received_rows(&fragment.query.output, &leaves.concat(), exec.ctx)?;
        exec.count(exchange, &rows.batches);
        exec.recorder.note(exchange.id, format!("wall {:.3?}", started.elapsed()));
        Ok((rows, parts))
    }

    /// The fragment below an exchange, ready to go out.
    pub fn fragment(&self, exec: &Executor<'_>, exchange: &Plan, input: &Plan, destination: Destination) -> Result<Fragment> {
        let output: Vec<Field> = input.fields().into_iter().filter(|f| exec.required.wants(exchange, f.id)).collect();
        let mut subplans = Vec::new();
        let mut root = self.cut(exec, input, &mut subplans)?;
        let filters = bind(&mut root, exec, &mut subplans);
        let mut query = Query { subplans, root, output };
        number_subplans(&mut query);
        let only = self.exchanges == 1 && self.given.lock().is_empty();
        Ok(Fragment { query, once: !runs_per_partition(input), only, destination, filters })
    }

    /// A plan without exchanges: the rows below each are sent first, and read where it was.
    fn cut(&self, exec: &Executor<'_>, plan: &Plan, subplans: &mut Vec<Subplan>) -> Result<Plan> {
        exec.ctx.cancel.check()?;
        match &plan.node {
            Node::Exchange { input, .. } => {
                let (number, fields) = self.send(exec, plan, input)?;
                let columns = fields.iter().map(|f| (f.id, f.clone())).collect();
                subplans.push(received(number, fields));
                let node = Node::SubplanScan(SubplanScan { subplan: number, columns });
                Ok(Plan { id: plan.id, rows: plan.rows, node })
            }
            Node::SubplanScan(scan) => {
                if !subplans.iter().any(|s| s.kind == SubplanKind::Received(scan.subplan)) {
                    subplans.push(received(scan.subplan, self.give_shared(exec, scan.subplan)?));
                }
                Ok(plan.clone())
            }
            _ => {
                let mut copy = plan.clone();
                for (slot, input) in copy.inputs_mut().into_iter().zip(plan.inputs()) {
                    *slot = self.cut(exec, input, subplans)?;
                }
                Ok(copy)
            }
        }
    }

    /// Sends the rows below an exchange to every leaf: their number and columns.
    fn send(&self, exec: &Executor<'_>, exchange: &Plan, input: &Plan) -> Result<(u32, Vec<Field>)> {
        let Node::Exchange { kind, .. } = &exchange.node else {
            return Err(Error::Internal("only rows below an exchange are sent".into()));
        };
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let fields: Vec<Field> = input.fields().into_iter().filter(|f| exec.required.wants(exchange, f.id)).collect();
        let destination = match kind {
            ExchangeKind::Broadcast => Destination::Leaves(number),
            ExchangeKind::Shuffle(by) => Destination::Shuffle { number, keys: positions(by, &fields)? },
            ExchangeKind::Gather => return Err(Error::Internal("a gather is not below another exchange".into())),
        };
        if of_leaves(input) {
            let fragment = self.fragment(exec, exchange, input, destination)?;
            let (_, profile) = self.fragments.run(&fragment, exec.ctx)?;
            exec.recorder.add_all(&profile);
            return Ok((number, fragment.query.output));
        }
        if destination != Destination::Leaves(number) {
            return Err(Error::Internal("rows that are not on the leaves are not shuffled".into()));
        }
        let rows = exec.collect(input, &exec.once, "a broadcast")?;
        self.give(exec, number, &fields, &rows)?;
        Ok((number, fields))
    }

    /// Gives the leaves the rows of a shared subplan, once: their columns.
    fn give_shared(&self, exec: &Executor<'_>, number: u32) -> Result<Vec<Field>> {
        let rows = exec.shared.get(&number).ok_or_else(|| Error::Internal(format!("subplan {number} has not run")))?;
        let fields: Vec<Field> = rows.layout.columns.iter().map(|c| c.field.clone()).collect();
        if self.given.lock().insert(number) {
            self.give(exec, number, &fields, rows)?;
        }
        Ok(fields)
    }

    fn give(&self, exec: &Executor<'_>, number: u32, fields: &[Field], rows: &Rows) -> Result<()> {
        let (_, batches) = record_batches(fields, rows, &exec.ctx.cancel)?;
        self.fragments.give(number, &batches, exec.ctx)
    }
}

/// The declaration of rows that are received.
fn received(number: u32, fields: Vec<Field>) -> Subplan {
    Subplan { kind: SubplanKind::Received(number), plan: Plan::new(Node::Values(Values { fields, rows: vec![] })) }
}

/// Where the columns of a shuffle are among those that are sent.
fn positions(by: &[Expr], fields: &[Field]) -> Result<Vec<u32>> {
    let position = |expr: &Expr| {
        let id = expr.as_column()?;
        fields.iter().position(|field| field.id == id).map(|at| at as u32)
    };
    by.iter()
        .map(|expr| position(expr).ok_or_else(|| Error::Internal("a shuffle is by a column that is not sent".into())))
        .collect()
}

/// Whether leaves must run a plan: it reads tables, or what was shuffled.
pub(crate) fn of_leaves(plan: &Plan) -> bool {
    reads_tables(plan) || runs_per_partition(plan)
}

/// Whether a plan reads a table without an exchange between, so that leaves must run it.
fn reads_tables(plan: &Plan) -> bool {
    match &plan.node {
        Node::Scan(_) => true,
        Node::Exchange { .. } => false,
        _ => plan.inputs().into_iter().any(reads_tables),
    }
}

/// Makes a fragment complete in itself: parameters become literals, run-time filters from outside come with it if they are ready.
fn bind(root: &mut Plan, exec: &Executor<'_>, subplans: &mut Vec<Subplan>) -> Vec<(FilterId, Arc<KeySet>)> {
    let mut published: HashSet<FilterId> = HashSet::new();
    root.walk(&mut |node| {
        if let Node::Join(join) = &node.node {
            published.extend(join.publishes.iter().map(|(id, _)| *id));
        }
    });
    let mut filters: Vec<(FilterId, Arc<KeySet>)> = Vec::new();
    root.walk_mut(&mut |node| {
        if let Node::Scan(scan) = &mut node.node {
            let columns: Vec<Field> = scan.columns.iter().chain(&scan.filter_columns).map(|c| c.field.clone()).collect();
            scan.runtime_filters.retain(|(id, column)| {
                if published.contains(id) || filters.iter().any(|(other, _)| other == id) {
                    return true;
                }
                let field = columns.iter().find(|f| f.id == *column);
                let Some((keys, field)) = exec.filter(&exec.once, *id).zip(field) else { return false };
                filters.push((*id, sendable(&keys)));
                let plan = Plan::new(Node::Values(Values { fields: vec![field.clone()], rows: vec![] }));
                subplans.push(Subplan { kind: SubplanKind::Filter(*id), plan });
                true
            });
        }
        for expr in node.expressions_mut() {
            expr.walk_mut(&mut |e| {
                if let Expr::Parameter(id, _) = e
                    && let Some(value) = exec.parameters.get(id)
                {
                    *e = Expr::Literal(value.clone());
                }
            });
        }
    });
    filters
}

/// The filter as it is sent: the range of its keys alone if their members are too much to send.
fn sendable(keys: &Arc<KeySet>) -> Arc<KeySet> {
    match &keys.members {
        KeyMembers::Bits(words) | KeyMembers::Bloom(words) if words.len() * 8 > MOST_FILTER_BYTES => {
            Arc::new(KeySet { min: keys.min, max: keys.max, keys: keys.keys, members: KeyMembers::All })
        }
        _ => keys.clone(),
    }
}

/// Gives the subplans of a fragment numbers that none of its nodes has.
fn number_subplans(query: &mut Query) {
    let mut most = 0;
    query.root.walk(&mut |node| most = most.max(node.id.0));
    for (i, subplan) in query.subplans.iter_mut().enumerate() {
        subplan.plan.id = NodeId(most.saturating_add(1 + i as u32));
    }
}

/// Rows that came from another process, with what their values tell.
pub(crate) fn received_rows(fields: &[Field], batches: &[RecordBatch], ctx: &QueryContext) -> Result<Rows> {
    let mut rows = passing_rows(fields, batches, ctx)?;
    let mut bounds = vec![None; fields.len()];
    for batch in &rows.batches {
        bounds.iter_mut().zip(&batch.columns).for_each(|(known, column)| widen(known, column));
    }
    let bounds: Vec<Bounds> = bounds.into_iter().map(|range| Bounds { range }).collect();
    rows.layout = layout_of(fields, &bounds);
    Ok(rows)
}

/// Some of the rows that come from another process: nothing is known of the values of all.
pub(crate) fn passing_rows(fields: &[Field], batches: &[RecordBatch], ctx: &QueryContext) -> Result<Rows> {
    let mut reservation = ctx.memory.reserve("rows from other nodes");
    let mut out = Vec::with_capacity(batches.len());
    for batch in batches.iter().filter(|b| b.num_rows() > 0) {
        let same = batch.num_columns() == fields.len()
            && batch.columns().iter().zip(fields).all(|(c, f)| *c.data_type() == f.ty.to_arrow());
        if !same {
            return Err(Error::Internal("rows of other columns than were asked for came from another node".into()));
        }
        reservation.grow(row_bytes(batch))?;
        out.push(Batch { columns: batch.columns().to_vec(), rows: batch.num_rows() });
    }
    Ok(Rows { layout: layout_of(fields, &[]), batches: out, reservations: vec![reservation] })
}

/// Widens the range of a column's values by those of an array of integers of any kind.
fn widen(range: &mut Option<(i128, i128)>, array: &ArrayRef) {
    use arrow::compute::{max, min};
    use arrow::datatypes::{
        Date32Type, Decimal64Type, Decimal128Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
        UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    };
    macro_rules! extremes {
        ($($ty:ty),*) => {
            $(if let Some(array) = array.as_any().downcast_ref::<arrow::array::PrimitiveArray<$ty>>() {
                min(array).zip(max(array)).map(|(low, high)| (i128::from(low), i128::from(high)))
            } else)* {
                None
            }
        };
    }
    let found = extremes!(
        Int8Type,
        Int16Type,
        Int32Type,
        Int64Type,
        UInt8Type,
        UInt16Type,
        UInt32Type,
        UInt64Type,
        Date32Type,
        Decimal64Type,
        Decimal128Type,
        TimestampMicrosecondType
    );
    if let Some((low, high)) = found {
        *range = Some(range.map_or((low, high), |(l, h)| (l.min(low), h.max(high))));
    }
}

impl crate::profile::Recorder {
    /// Adds what another node did for this query.
    pub fn add_all(&self, profile: &Profile) {
        for (id, node) in &profile.nodes {
            let id = NodeId(*id);
            self.add(id, &LocalCounts { rows: node.rows, batches: node.batches, nanos: node.cpu.as_nanos() as u64 });
            self.memory(id, usize::try_from(node.memory).unwrap_or(usize::MAX));
            if let Some(scan) = &node.scan {
                self.add_scan(id, scan);
            }
            node.notes.iter().for_each(|note| self.note(id, note.clone()));
        }
    }
}
