//! Pipelines that run in rounds.
//!
//! In a round the workers make rows until there are enough of them. Between two rounds no thread is held: whoever takes the rows
//! slowly stops the pipeline and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use stoa_plan::{Field, NodeId, Plan};

use crate::batch::canonical;
use crate::columns::distinct_bytes;
use crate::exchange::has_shuffle;
use crate::executor::{Executor, Rows, Scope, layout_of};
use crate::pipeline::{Input, Pipeline, Run, RunState, Sink};
use crate::{Batch, CancelToken, Reservation, Result};

/// Bytes of rows that end a round.
const ROUND_BYTES: usize = 8 << 20;

/// A fragment that runs in rounds: once a partition, one partition after the other, each on all threads.
pub(crate) struct Rounds<'a> {
    exec: &'a Executor<'a>,
    plan: &'a Plan,
    scopes: std::vec::IntoIter<Scope>,
    now: Option<InRounds<Outgoing>>,
    fields: Vec<Field>,
    made: Arc<Made>,
}

impl<'a> Rounds<'a> {
    /// A fragment of which these columns are wanted, and no more rows than `wanted`.
    pub fn new(exec: &'a Executor<'a>, plan: &'a Plan, fields: Vec<Field>, wanted: Option<usize>) -> Result<Rounds<'a>> {
        let (partitions, _) = exec.partitions(plan)?;
        let scopes: Vec<Scope> = if partitions <= 1 || has_shuffle(plan) {
            vec![Scope::default()]
        } else {
            exec.prepare(plan)?;
            (0..partitions).map(Scope::of_partition).collect()
        };
        let reservation = exec.ctx.memory.reserve("rows on their way out");
        let rows = Mutex::new((vec![], reservation));
        let made = Made { cancel: exec.ctx.cancel.clone(), bytes: AtomicUsize::new(0), count: AtomicUsize::new(0), wanted, rows };
        Ok(Rounds { exec, plan, scopes: scopes.into_iter(), now: None, fields, made: Arc::new(made) })
    }

    /// Runs a round: the rows that it made, in the order of their morsels, and whether there is another one.
    pub fn round(&mut self) -> Result<(Rows, bool)> {
        let made = self.made.clone();
        let over = move || made.enough();
        let mut more = true;
        while more && !over() {
            let Some(now) = &mut self.now else {
                match self.scopes.next() {
                    Some(scope) => {
                        let pipeline = self.exec.open(self.plan, &scope)?;
                        let sink = Outgoing::new(&self.fields, &pipeline, self.made.clone())?;
                        self.now = Some(InRounds::new(pipeline, self.plan.id, sink));
                    }
                    None => more = false,
                }
                continue;
            };
            if !now.round(self.exec, &over)? {
                self.now = None;
            }
        }
        let more = more && !self.made.is_full();
        let (batches, reservation) = self.made.take(self.exec);
        Ok((Rows { layout: layout_of(&self.fields, &[]), batches, reservations: vec![reservation] }, more))
    }
}

/// A pipeline in progress between two rounds.
struct InRounds<S: Sink> {
    pipeline: Pipeline,
    node: NodeId,
    sink: S,
    state: RunState<S::Local>,
    /// What is read now: 0 is the source, `k + 1` the tail of stage `k`.
    input: usize,
    /// Whether its morsels are among those that are to be done.
    announced: bool,
    next: AtomicUsize,
}

impl<S: Sink> InRounds<S> {
    fn new(pipeline: Pipeline, node: NodeId, sink: S) -> InRounds<S> {
        let next = AtomicUsize::new(0);
        InRounds { pipeline, node, sink, state: RunState::default(), input: 0, announced: false, next }
    }

    /// Runs until the round is over, or the pipeline: whether there is more to do.
    fn round(&mut self, exec: &Executor<'_>, over: &(dyn Fn() -> bool + Sync)) -> Result<bool> {
        let mut run = Run::new(exec, &self.pipeline, &self.sink, &self.state);
        run.flush_late = true;
        run.over = Some(over);
        let stages = self.pipeline.stages.len();
        while self.input <= stages && !self.state.stopped() {
            let input = match self.input.checked_sub(1) {
                None => Some(Input::Source(&self.pipeline.source)),
                Some(k) => self.pipeline.tail(k).map(|tail| Input::Tail(k, tail)),
            };
            if let Some(input) = input {
                let morsels = input.morsels();
                if !std::mem::replace(&mut self.announced, true) {
                    exec.progress.add_total(morsels as u64);
                }
                if self.next.load(Ordering::Relaxed) < morsels {
                    run.round(self.input, &input, morsels, &self.next);
                }
                if self.next.load(Ordering::Relaxed) < morsels && !self.state.stopped() {
                    return Ok(true);
                }
            }
            if self.input < stages {
                run.flush(self.input);
            }
            self.input += 1;
            self.announced = false;
            self.next = AtomicUsize::new(0);
        }
        run.finish(self.node).map(|_| false)
    }
}

/// Rows that were made and not yet handed on.
struct Made {
    cancel: CancelToken,
    bytes: AtomicUsize,
    /// Rows of all rounds.
    count: AtomicUsize,
    /// So many rows are enough.
    wanted: Option<usize>,
    /// With the number of their morsel.
    rows: Mutex<(Vec<(usize, Batch)>, Reservation)>,
}

impl Made {
    /// Whether a round is over.
    fn enough(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) >= ROUND_BYTES || self.is_full()
    }

    /// Whether no more rows are wanted.
    fn is_full(&self) -> bool {
        self.wanted.is_some_and(|wanted| self.count.load(Ordering::Relaxed) >= wanted)
    }

    /// All of them, in the order of their morsels, and the memory that they hold.
    fn take(&self, exec: &Executor<'_>) -> (Vec<Batch>, Reservation) {
        let mut rows = self.rows.lock();
        self.bytes.store(0, Ordering::Relaxed);
        let reservation = std::mem::replace(&mut rows.1, exec.ctx.memory.reserve("rows on their way out"));
        let mut taken = std::mem::take(&mut rows.0);
        taken.sort_by_key(|(order, _)| *order);
        (taken.into_iter().map(|(_, batch)| batch).collect(), reservation)
    }
}

/// The sink of a fragment whose rows leave while it runs: columns become canonical on the threads of the workers.
struct Outgoing {
    fields: Vec<Field>,
    positions: Vec<usize>,
    made: Arc<Made>,
}

impl Outgoing {
    fn new(fields: &[Field], pipeline: &Pipeline, made: Arc<Made>) -> Result<Outgoing> {
        let positions = fields.iter().map(|f| pipeline.layout.position(f.id)).collect::<Result<_>>()?;
        Ok(Outgoing { fields: fields.to_vec(), positions, made })
    }
}

impl Sink for Outgoing {
    type Local = ();

    fn local(&self) -> Result<()> {
        Ok(())
    }

    fn consume(&self, _: &mut (), batch: Batch, order: usize) -> Result<bool> {
        if batch.rows == 0 {
            return Ok(true);
        }
        self.made.cancel.check()?;
        let column = |(field, at): (&Field, &usize)| canonical(&batch.columns[*at], field.ty);
        let columns = self.fields.iter().zip(&self.positions).map(column).collect::<Result<_>>()?;
        let batch = Batch { columns, rows: batch.rows };
        let bytes = distinct_bytes(&batch).max(batch.rows);
        self.made.count.fetch_add(batch.rows, Ordering::Relaxed);
        let mut rows = self.made.rows.lock();
        rows.1.grow(bytes)?;
        rows.0.push((order, batch));
        self.made.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(!self.made.is_full())
    }
}
