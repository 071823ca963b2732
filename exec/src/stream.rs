//! A fragment whose rows leave while it runs.
//!
//! It runs in rounds: the workers stop when they have made about [`ROUND_BYTES`], the calling thread hands the rows on, and the next round
//! begins when they are taken. Who takes rows slowly thus stops the fragment without holding a worker, and at most a round is in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field as ArrowField, Schema, SchemaRef};
use parking_lot::Mutex;
use rayon::ThreadPool;
use stoa_plan::{Field, Node, Plan, Query};

use crate::batch::canonical;
use crate::columns::distinct_bytes;
use crate::exchange::has_shuffle;
use crate::executor::{Executor, Scope};
use crate::pipeline::{Pipeline, Rounds, Sink, run_in_rounds};
use crate::profile::Profile;
use crate::query::{Storage, guarded, record_batches};
use crate::remote::fragment_executor;
use crate::{Batch, Error, Layout, QueryContext, Received, Reservation, Result};

/// Bytes of rows that end a round.
const ROUND_BYTES: usize = 8 << 20;

/// Runs a fragment as [`crate::execute_fragment`] does, on the threads of `pool`, and hands its rows to `each` on the calling thread:
/// while it runs, if nothing in it must see all of them first.
///
/// # Errors
/// As [`crate::execute`], and those of `each`.
pub fn stream_fragment(
    query: &Query,
    storage: &dyn Storage,
    received: &Received,
    ctx: &QueryContext,
    pool: &ThreadPool,
    each: &mut dyn FnMut(&[RecordBatch]) -> Result<()>,
) -> Result<Profile> {
    guarded(|| {
        let started = Instant::now();
        let flows = flows(&query.root);
        let (exec, rows) = pool.install(|| {
            let exec = fragment_executor(query, storage, received, ctx)?;
            let rows = if flows { None } else { Some(exec.fragment_rows(&query.root)?) };
            let sent = rows.as_ref().map(|rows| record_batches(&query.output, rows, &ctx.cancel)).transpose()?;
            Ok::<_, Error>((exec, rows.zip(sent)))
        })?;
        match rows {
            None => stream(&exec, query, pool, each)?,
            Some((rows, (_, batches))) => {
                drop(rows.batches);
                each(&batches)?;
            }
        }
        Ok(exec.recorder.finish(started.elapsed(), ctx.memory.peak()))
    })
}

/// Whether the rows of a plan come one after the other, rather than all at its end.
fn flows(plan: &Plan) -> bool {
    match &plan.node {
        Node::Scan(_) | Node::Join(_) => true,
        Node::Project { input, .. } | Node::Filter { input, .. } => flows(input),
        _ => false,
    }
}

/// Runs the fragment for one partition after the other, each on all threads.
fn stream(
    exec: &Executor<'_>,
    query: &Query,
    pool: &ThreadPool,
    each: &mut dyn FnMut(&[RecordBatch]) -> Result<()>,
) -> Result<()> {
    let root = &query.root;
    let (partitions, _) = exec.partitions(root)?;
    let scopes: Vec<Scope> = if partitions <= 1 || has_shuffle(root) {
        vec![Scope::default()]
    } else {
        pool.install(|| exec.prepare(root))?;
        (0..partitions).map(Scope::of_partition).collect()
    };
    let made = Made::new(exec.ctx);
    for scope in scopes {
        let pipeline = pool.install(|| exec.open(root, &scope))?;
        let sink = Outgoing::new(&query.output, &pipeline, &made)?;
        let over = || made.bytes.load(Ordering::Relaxed) >= ROUND_BYTES;
        let mut between = || if over() { each(&made.take()?) } else { Ok(()) };
        run_in_rounds(exec, &pipeline, root.id, &sink, &mut Rounds { pool, over: &over, between: &mut between })?;
    }
    each(&made.take()?)
}

/// Rows that were made and not yet handed on.
struct Made<'a> {
    ctx: &'a QueryContext,
    bytes: AtomicUsize,
    /// With the number of their morsel.
    rows: Mutex<(Vec<(usize, RecordBatch)>, Reservation)>,
}

impl Made<'_> {
    fn new(ctx: &QueryContext) -> Made<'_> {
        let reservation = ctx.memory.reserve("rows on their way out");
        Made { ctx, bytes: AtomicUsize::new(0), rows: Mutex::new((vec![], reservation)) }
    }

    /// All of them, in the order of their morsels.
    fn take(&self) -> Result<Vec<RecordBatch>> {
        let mut rows = self.rows.lock();
        self.bytes.store(0, Ordering::Relaxed);
        rows.1.resize(0)?;
        let mut taken = std::mem::take(&mut rows.0);
        taken.sort_by_key(|(order, _)| *order);
        Ok(taken.into_iter().map(|(_, batch)| batch).collect())
    }
}

/// The sink of a fragment whose rows leave while it runs.
struct Outgoing<'a> {
    output: &'a [Field],
    positions: Vec<usize>,
    schema: SchemaRef,
    made: &'a Made<'a>,
}

impl<'a> Outgoing<'a> {
    fn new(output: &'a [Field], pipeline: &Pipeline, made: &'a Made<'a>) -> Result<Outgoing<'a>> {
        let layout: &Layout = &pipeline.layout;
        let positions = output.iter().map(|f| layout.position(f.id)).collect::<Result<_>>()?;
        // Whether a NULL comes is only known at the end.
        let fields: Vec<ArrowField> = output.iter().map(|f| ArrowField::new(&f.name, f.ty.to_arrow(), true)).collect();
        Ok(Outgoing { output, positions, schema: Arc::new(Schema::new(fields)), made })
    }
}

impl Sink for Outgoing<'_> {
    type Local = ();

    fn local(&self) -> Result<()> {
        Ok(())
    }

    fn consume(&self, _: &mut (), batch: Batch, order: usize) -> Result<bool> {
        if batch.rows == 0 {
            return Ok(true);
        }
        self.made.ctx.cancel.check()?;
        let column = |(field, at): (&Field, &usize)| canonical(&batch.columns[*at], field.ty);
        let columns = self.output.iter().zip(&self.positions).map(column).collect::<Result<Vec<ArrayRef>>>()?;
        let batch = Batch { columns, rows: batch.rows };
        let bytes = distinct_bytes(&batch).max(batch.rows);
        let options = RecordBatchOptions::new().with_row_count(Some(batch.rows));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), batch.columns, &options)?;
        let mut rows = self.made.rows.lock();
        rows.1.grow(bytes)?;
        rows.0.push((order, batch));
        self.made.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(true)
    }
}
