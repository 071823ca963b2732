//! Push-based pipelines: a source, a chain of operators, a sink.
//!
//! A pipeline is run by workers that claim morsels of the source from a shared counter. A worker makes its local states when it gets
//! its first morsel, so that idle threads may join any pipeline and none pays for threads that do not come. Rows that only exist
//! once all input is seen (build rows without a match) are a second source behind the operator that makes them.
//!
//! A pipeline may also run in rounds ([`crate::rounds`]), between which its workers are free and the caller takes what they made.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use stoa_plan::{DataType, NodeId};

use crate::columns::{concat_arrays, filter_batch, gather_batch};
use crate::executor::Executor;
use crate::expression::Expression;
use crate::join::probe::{Probe, ProbeState, Tail};
use crate::profile::LocalCounts;
use crate::repeat::Repeats;
use crate::scan::{ScanSource, ScanState};
use crate::{Batch, Error, Layout, Reservation, Result};

/// Below this many rows a pipeline runs on the calling thread alone.
const SMALL_SOURCE: usize = 24 * 1024;

/// A runnable chain without its sink.
pub(crate) struct Pipeline {
    /// Where rows come from.
    pub source: Source,
    /// What happens to them, in order.
    pub stages: Vec<Stage>,
    /// Columns behind the last stage.
    pub layout: Layout,
    /// The order of the source's rows matters: one worker runs the pipeline.
    pub ordered: bool,
}

/// An operator with the plan node whose profile it counts for.
pub(crate) struct Stage {
    pub node: NodeId,
    pub operator: Operator,
    /// Its output rows are the node's.
    pub counted: bool,
}

/// The operators that run inside a pipeline.
pub(crate) enum Operator {
    /// Keeps the rows for which the expression is true, and these columns of them.
    Filter { predicate: Expression, keep: Vec<usize> },
    /// Gives out every row as often as the expression says, and these columns of it.
    Repeat { times: Expression, keep: Vec<usize> },
    /// Computes columns.
    Project(Vec<Output>),
    /// Merges small batches into fuller ones, of columns of these types.
    Coalesce(Vec<DataType>),
    /// Probes a join table.
    Probe(Box<Probe>),
}

/// A column of a projection.
pub(crate) enum Output {
    /// A column of the input.
    Column(usize),
    /// An expression.
    Computed(Expression),
}

/// Where the rows of a pipeline come from.
pub(crate) enum Source {
    /// Segments of a table.
    Scan(Box<ScanSource>),
    /// Batches in memory.
    Batches(BatchSource),
}

/// Batches in memory, cut into morsels.
pub(crate) struct BatchSource {
    batches: Vec<Batch>,
    morsels: Vec<(usize, usize, usize)>,
    rows: usize,
    reservations: Vec<Reservation>,
}

impl BatchSource {
    /// A source of these batches, whose memory is reserved; large ones are cut at `morsel_rows`.
    pub fn new(batches: Vec<Batch>, morsel_rows: usize, reservations: Vec<Reservation>) -> BatchSource {
        let mut morsels = Vec::with_capacity(batches.len());
        for (i, batch) in batches.iter().enumerate() {
            let mut start = 0;
            while start < batch.rows {
                let rows = morsel_rows.max(1).min(batch.rows - start);
                morsels.push((i, start, rows));
                start += rows;
            }
        }
        let rows = batches.iter().map(|b| b.rows).sum();
        BatchSource { batches, morsels, rows, reservations }
    }

    /// The batches again, and the memory that they hold.
    pub fn into_parts(self) -> (Vec<Batch>, Vec<Reservation>) {
        (self.batches, self.reservations)
    }

    fn morsel(&self, index: usize) -> Batch {
        let (batch, start, rows) = self.morsels[index];
        let batch = &self.batches[batch];
        if rows == batch.rows { batch.clone() } else { batch.slice(start, rows) }
    }
}

/// Where the batches of a pipeline end.
pub(crate) trait Sink: Sync {
    /// What one worker gathers.
    type Local: Send;

    /// An empty local state.
    fn local(&self) -> Result<Self::Local>;

    /// Takes a batch; `order` is the number of its morsel. False if no more rows are wanted.
    fn consume(&self, local: &mut Self::Local, batch: Batch, order: usize) -> Result<bool>;
}

/// Runs a pipeline into a sink: the local states of the workers that took part.
pub(crate) fn run<S: Sink>(exec: &Executor<'_>, pipeline: &Pipeline, sink_node: NodeId, sink: &S) -> Result<Vec<S::Local>> {
    let state = RunState::default();
    let mut run = Run::new(exec, pipeline, sink, &state);
    run.flush_late = pipeline.stages.iter().any(|s| matches!(&s.operator, Operator::Probe(p) if p.tail().is_some()));
    run.pass(0, &Input::Source(&pipeline.source));
    if run.flush_late {
        for k in 0..pipeline.stages.len() {
            run.flush(k);
            if let Some(tail) = pipeline.tail(k) {
                run.pass(k + 1, &Input::Tail(k, tail));
            }
        }
    }
    run.finish(sink_node)
}

impl Pipeline {
    /// The rows of stage `k` that are there once it has seen all input.
    pub fn tail(&self, k: usize) -> Option<Tail<'_>> {
        match &self.stages[k].operator {
            Operator::Probe(probe) => probe.tail(),
            _ => None,
        }
    }
}

/// A pipeline in progress.
pub(crate) struct Run<'a, S: Sink> {
    exec: &'a Executor<'a>,
    pipeline: &'a Pipeline,
    sink: &'a S,
    state: &'a RunState<S::Local>,
    /// What workers hold back is flushed at the end of all input, not when a worker finds no more morsels.
    pub flush_late: bool,
    /// Whether a round is over; without, there is one round.
    pub over: Option<&'a (dyn Fn() -> bool + Sync)>,
}

/// What is left of a pipeline between two rounds.
pub(crate) struct RunState<L> {
    idle: Mutex<Vec<Worker<L>>>,
    error: Mutex<Option<Error>>,
    stop: AtomicBool,
}

impl<L> Default for RunState<L> {
    fn default() -> RunState<L> {
        RunState { idle: Mutex::new(Vec::new()), error: Mutex::new(None), stop: AtomicBool::new(false) }
    }
}

impl<L> RunState<L> {
    /// Whether no more morsels are wanted.
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// What one worker holds.
struct Worker<L> {
    states: Vec<State>,
    scan: Option<ScanState>,
    counts: Vec<LocalCounts>,
    source: LocalCounts,
    local: L,
    sink: LocalCounts,
}

/// The local state of an operator.
enum State {
    None,
    Coalesce(Pending),
    Probe(Box<ProbeState>),
}

/// Small batches that wait to be merged.
#[derive(Default)]
struct Pending {
    batches: Vec<Batch>,
    rows: usize,
}

/// What a pass reads.
pub(crate) enum Input<'a> {
    Source(&'a Source),
    Tail(usize, Tail<'a>),
}

impl Input<'_> {
    pub fn morsels(&self) -> usize {
        match self {
            Input::Source(Source::Scan(scan)) => scan.morsels(),
            Input::Source(Source::Batches(batches)) => batches.morsels.len(),
            Input::Tail(_, tail) => tail.morsels(),
        }
    }

    fn rows(&self) -> usize {
        match self {
            Input::Source(Source::Scan(scan)) => scan.rows(),
            Input::Source(Source::Batches(batches)) => batches.rows,
            Input::Tail(_, tail) => tail.rows(),
        }
    }
}

impl<'a, S: Sink> Run<'a, S> {
    pub fn new(exec: &'a Executor<'a>, pipeline: &'a Pipeline, sink: &'a S, state: &'a RunState<S::Local>) -> Run<'a, S> {
        Run { exec, pipeline, sink, state, flush_late: false, over: None }
    }

    /// Drives all morsels of an input through the stages from `first` on.
    fn pass(&self, first: usize, input: &Input<'_>) {
        let morsels = input.morsels();
        if morsels == 0 || self.state.stop.load(Ordering::Relaxed) {
            return;
        }
        self.exec.progress.add_total(morsels as u64);
        self.round(first, input, morsels, &AtomicUsize::new(0));
    }

    /// Drives the morsels from `next` on, until there are no more or the round is over.
    pub fn round(&self, first: usize, input: &Input<'_>, morsels: usize, next: &AtomicUsize) {
        let small = input.rows() < SMALL_SOURCE || self.pipeline.ordered;
        let workers = if small { 1 } else { rayon::current_num_threads().min(morsels) };
        if workers <= 1 {
            self.work(first, input, morsels, next);
            return;
        }
        rayon::scope(|scope| {
            for _ in 1..workers {
                scope.spawn(|_| self.work(first, input, morsels, next));
            }
            self.work(first, input, morsels, next);
        });
    }

    /// One worker of a pass.
    fn work(&self, first: usize, input: &Input<'_>, morsels: usize, next: &AtomicUsize) {
        let mut worker = None;
        if let Err(error) = self.claim(first, input, morsels, next, &mut worker) {
            self.state.stop.store(true, Ordering::Relaxed);
            self.state.error.lock().get_or_insert(error);
        }
        if let Some(worker) = worker {
            self.state.idle.lock().push(worker);
        }
    }

    fn claim(
        &self,
        first: usize,
        input: &Input<'_>,
        morsels: usize,
        next: &AtomicUsize,
        slot: &mut Option<Worker<S::Local>>,
    ) -> Result<()> {
        while !self.over.is_some_and(|over| over()) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= morsels || self.state.stop.load(Ordering::Relaxed) {
                break;
            }
            self.exec.ctx.cancel.check()?;
            let worker = match slot {
                Some(worker) => worker,
                None => slot.insert(self.worker()?),
            };
            self.morsel(worker, first, input, index)?;
            self.exec.progress.add_done(1);
        }
        if let (Some(worker), false) = (slot, self.flush_late) {
            for k in first..self.pipeline.stages.len() {
                self.flush_stage(worker, k)?;
            }
        }
        Ok(())
    }

    /// A worker: one that is idle, or a new one.
    fn worker(&self) -> Result<Worker<S::Local>> {
        if let Some(worker) = self.state.idle.lock().pop() {
            return Ok(worker);
        }
        let states = self.pipeline.stages.iter().map(|stage| match &stage.operator {
            Operator::Coalesce(_) => State::Coalesce(Pending::default()),
            Operator::Probe(probe) => State::Probe(Box::new(probe.state())),
            Operator::Filter { .. } | Operator::Repeat { .. } | Operator::Project(_) => State::None,
        });
        Ok(Worker {
            states: states.collect(),
            scan: None,
            counts: vec![LocalCounts::default(); self.pipeline.stages.len()],
            source: LocalCounts::default(),
            local: self.sink.local()?,
            sink: LocalCounts::default(),
        })
    }

    fn morsel(&self, worker: &mut Worker<S::Local>, first: usize, input: &Input<'_>, index: usize) -> Result<()> {
        match input {
            Input::Source(Source::Batches(batches)) => self.push(worker, first, batches.morsel(index), index).map(drop),
            Input::Source(Source::Scan(scan)) => {
                let mut state = match worker.scan.take() {
                    Some(state) => state,
                    None => scan.state(),
                };
                let result = self.scan(worker, scan, &mut state, index);
                worker.scan = Some(state);
                result
            }
            Input::Tail(stage, tail) => {
                let started = Instant::now();
                let batch = tail.morsel(index)?;
                count(&mut worker.counts[*stage], &batch, started);
                if batch.rows > 0 { self.push(worker, first, batch, index).map(drop) } else { Ok(()) }
            }
        }
    }

    fn scan(&self, worker: &mut Worker<S::Local>, scan: &ScanSource, state: &mut ScanState, index: usize) -> Result<()> {
        let mut started = Instant::now();
        scan.begin(state, index)?;
        while let Some(batch) = scan.next(state)? {
            count(&mut worker.source, &batch, started);
            if !self.push(worker, 0, batch, index)? {
                return Ok(());
            }
            self.exec.ctx.cancel.check()?;
            started = Instant::now();
        }
        worker.source.nanos += started.elapsed().as_nanos() as u64;
        Ok(())
    }

    /// Pushes a batch through the stages from `k` on and into the sink. False if no more rows are wanted.
    fn push(&self, worker: &mut Worker<S::Local>, k: usize, batch: Batch, order: usize) -> Result<bool> {
        let Some(stage) = self.pipeline.stages.get(k) else { return self.consume(worker, batch, order) };
        let started = Instant::now();
        match &stage.operator {
            Operator::Filter { predicate, keep } => {
                let passed = predicate.filter(&batch)?;
                let batch = filter_batch(&batch.columns_at(keep), &passed)?;
                count(&mut worker.counts[k], &batch, started);
                if batch.rows == 0 { Ok(true) } else { self.push(worker, k + 1, batch, order) }
            }
            Operator::Repeat { times, keep } => self.repeat(worker, (times, keep), k, &batch, order),
            Operator::Project(outputs) => {
                let batch = project(outputs, &batch)?;
                count(&mut worker.counts[k], &batch, started);
                self.push(worker, k + 1, batch, order)
            }
            Operator::Coalesce(types) => {
                let target = self.exec.ctx.settings.vector_size;
                let State::Coalesce(pending) = &mut worker.states[k] else { return Err(mismatch()) };
                match pending.add(batch, types, target)? {
                    Some(batch) => self.push(worker, k + 1, batch, order),
                    None => Ok(true),
                }
            }
            Operator::Probe(probe) => self.probe(worker, probe, k, batch, order),
        }
    }

    fn repeat(
        &self,
        worker: &mut Worker<S::Local>,
        (times, keep): (&Expression, &[usize]),
        k: usize,
        batch: &Batch,
        order: usize,
    ) -> Result<bool> {
        let mut started = Instant::now();
        let kept = batch.columns_at(keep);
        for rows in Repeats::new(times, batch, self.exec.ctx.settings.vector_size)? {
            let batch = gather_batch(&kept, &rows)?;
            count(&mut worker.counts[k], &batch, started);
            if !self.push(worker, k + 1, batch, order)? {
                return Ok(false);
            }
            self.exec.ctx.cancel.check()?;
            started = Instant::now();
        }
        Ok(true)
    }

    fn probe(&self, worker: &mut Worker<S::Local>, probe: &Probe, k: usize, batch: Batch, order: usize) -> Result<bool> {
        let mut started = Instant::now();
        let State::Probe(state) = &mut worker.states[k] else { return Err(mismatch()) };
        let mut state = std::mem::take(state);
        probe.begin(&mut state, batch)?;
        let mut more = true;
        while more && let Some(batch) = probe.next(&mut state)? {
            count(&mut worker.counts[k], &batch, started);
            more = self.push(worker, k + 1, batch, order)?;
            self.exec.ctx.cancel.check()?;
            started = Instant::now();
        }
        worker.counts[k].nanos += started.elapsed().as_nanos() as u64;
        worker.states[k] = State::Probe(state);
        Ok(more)
    }

    fn consume(&self, worker: &mut Worker<S::Local>, batch: Batch, order: usize) -> Result<bool> {
        self.exec.ctx.cancel.check()?;
        let started = Instant::now();
        let more = self.sink.consume(&mut worker.local, batch, order)?;
        worker.sink.nanos += started.elapsed().as_nanos() as u64;
        if !more {
            self.state.stop.store(true, Ordering::Relaxed);
        }
        Ok(more)
    }

    /// Pushes what every worker still holds at stage `k`.
    pub fn flush(&self, k: usize) {
        let mut workers = std::mem::take(&mut *self.state.idle.lock());
        for worker in &mut workers {
            if self.state.error.lock().is_some() {
                break;
            }
            if let Err(error) = self.flush_stage(worker, k) {
                self.state.stop.store(true, Ordering::Relaxed);
                self.state.error.lock().get_or_insert(error);
            }
        }
        *self.state.idle.lock() = workers;
    }

    fn flush_stage(&self, worker: &mut Worker<S::Local>, k: usize) -> Result<()> {
        let (Operator::Coalesce(types), State::Coalesce(pending)) = (&self.pipeline.stages[k].operator, &mut worker.states[k])
        else {
            return Ok(());
        };
        match pending.take(types)? {
            Some(batch) if !self.state.stop.load(Ordering::Relaxed) => self.push(worker, k + 1, batch, usize::MAX).map(drop),
            _ => Ok(()),
        }
    }

    /// Records what was done: the local states of the workers, or what went wrong.
    pub fn finish(self, sink_node: NodeId) -> Result<Vec<S::Local>> {
        let workers = std::mem::take(&mut *self.state.idle.lock());
        let recorder = &self.exec.recorder;
        let mut locals = Vec::with_capacity(workers.len());
        for worker in workers {
            for (stage, counts) in self.pipeline.stages.iter().zip(&worker.counts) {
                let silent = LocalCounts { rows: 0, batches: 0, ..*counts };
                recorder.add(stage.node, if stage.counted { counts } else { &silent });
            }
            if let (Source::Scan(scan), Some(state)) = (&self.pipeline.source, &worker.scan) {
                recorder.add(scan.node(), &worker.source);
                scan.record(state, recorder);
            }
            recorder.add(sink_node, &worker.sink);
            locals.push(worker.local);
        }
        if let Source::Scan(scan) = &self.pipeline.source {
            scan.describe(recorder);
        }
        match self.state.error.lock().take() {
            Some(error) => Err(error),
            None => Ok(locals),
        }
    }
}

/// Counts an output batch and the time since `started`.
fn count(counts: &mut LocalCounts, batch: &Batch, started: Instant) {
    counts.rows += batch.rows as u64;
    counts.batches += 1;
    counts.nanos += started.elapsed().as_nanos() as u64;
}

fn mismatch() -> Error {
    Error::Internal("an operator has the state of another".into())
}

/// Computes the columns of a projection.
pub(crate) fn project(outputs: &[Output], batch: &Batch) -> Result<Batch> {
    let column = |output: &Output| match output {
        Output::Column(i) => Ok(batch.columns[*i].clone()),
        Output::Computed(expression) => expression.evaluate(batch),
    };
    Ok(Batch { columns: outputs.iter().map(column).collect::<Result<_>>()?, rows: batch.rows })
}

impl Pending {
    /// Takes a batch: gives back one of about `target` rows when enough are there.
    fn add(&mut self, batch: Batch, types: &[DataType], target: usize) -> Result<Option<Batch>> {
        if self.rows == 0 && batch.rows * 2 > target {
            return Ok(Some(batch));
        }
        self.rows += batch.rows;
        self.batches.push(batch);
        if self.rows >= target { self.take(types) } else { Ok(None) }
    }

    /// All rows that wait.
    fn take(&mut self, types: &[DataType]) -> Result<Option<Batch>> {
        let rows = std::mem::take(&mut self.rows);
        let mut batches = std::mem::take(&mut self.batches);
        if batches.len() <= 1 {
            return Ok(batches.pop());
        }
        let column = |(i, ty): (usize, &DataType)| {
            let arrays: Vec<_> = batches.iter().map(|b| b.columns[i].clone()).collect();
            concat_arrays(&arrays, *ty)
        };
        Ok(Some(Batch { columns: types.iter().enumerate().map(column).collect::<Result<_>>()?, rows }))
    }
}
