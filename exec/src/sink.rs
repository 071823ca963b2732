//! The sinks of pipelines: collect, aggregate, limit. Top-k is in [`crate::sort`].

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::aggregate::{AggregateState, GroupedAggregation};
use crate::columns::distinct_bytes;
use crate::pipeline::Sink;
use crate::{Batch, QueryContext, Reservation, Result};

/// Keeps all batches, in the order of the morsels that they came from.
pub(crate) struct Collect<'a> {
    ctx: &'a QueryContext,
    operator: &'static str,
}

impl<'a> Collect<'a> {
    /// A collector whose memory is held by `operator`.
    pub fn new(ctx: &'a QueryContext, operator: &'static str) -> Collect<'a> {
        Collect { ctx, operator }
    }
}

/// What one worker collected.
pub(crate) struct Collected {
    pub batches: Vec<(usize, Batch)>,
    pub reservation: Reservation,
}

impl Sink for Collect<'_> {
    type Local = Collected;

    fn local(&self) -> Result<Collected> {
        Ok(Collected { batches: Vec::new(), reservation: self.ctx.memory.reserve(self.operator) })
    }

    fn consume(&self, local: &mut Collected, batch: Batch, order: usize) -> Result<bool> {
        if batch.rows > 0 {
            local.reservation.grow(distinct_bytes(&batch))?;
            local.batches.push((order, batch));
        }
        Ok(true)
    }
}

/// All batches of all workers in morsel order, and the memory that they hold.
pub(crate) fn in_order(locals: Vec<Collected>) -> (Vec<Batch>, Vec<Reservation>) {
    let mut tagged = Vec::with_capacity(locals.iter().map(|l| l.batches.len()).sum());
    let mut reservations = Vec::with_capacity(locals.len());
    for local in locals {
        tagged.extend(local.batches);
        reservations.push(local.reservation);
    }
    tagged.sort_by_key(|(order, _)| *order);
    (tagged.into_iter().map(|(_, batch)| batch).collect(), reservations)
}

/// Feeds an aggregation.
pub(crate) struct AggregateSink<'a> {
    pub aggregation: Arc<GroupedAggregation>,
    pub ctx: &'a QueryContext,
    /// Input batches are partial states.
    pub merge: bool,
    /// States that workers have left who fed them before.
    pub left: &'a Mutex<Vec<AggregateLocal>>,
}

/// One worker's groups and the memory they hold.
pub(crate) struct AggregateLocal {
    pub state: AggregateState,
    pub reservation: Reservation,
}

impl Sink for AggregateSink<'_> {
    type Local = AggregateLocal;

    fn local(&self) -> Result<AggregateLocal> {
        if let Some(left) = self.left.lock().pop() {
            return Ok(left);
        }
        Ok(AggregateLocal { state: self.aggregation.new_state(), reservation: self.ctx.memory.reserve("an aggregation") })
    }

    fn consume(&self, local: &mut AggregateLocal, batch: Batch, _order: usize) -> Result<bool> {
        if self.merge {
            local.state.merge_partial(&batch)?;
        } else {
            local.state.update(&batch)?;
        }
        let held = local.state.memory();
        if held != local.reservation.bytes() {
            local.reservation.resize(held)?;
        }
        Ok(true)
    }
}

/// Keeps the first rows that come, and then stops the source.
pub(crate) struct LimitSink<'a> {
    collect: Collect<'a>,
    wanted: usize,
    seen: AtomicUsize,
}

impl<'a> LimitSink<'a> {
    /// Keeps about `wanted` rows, at least that many if there are.
    pub fn new(ctx: &'a QueryContext, wanted: usize) -> LimitSink<'a> {
        LimitSink { collect: Collect::new(ctx, "a limit"), wanted, seen: AtomicUsize::new(0) }
    }
}

impl Sink for LimitSink<'_> {
    type Local = Collected;

    fn local(&self) -> Result<Collected> {
        self.collect.local()
    }

    fn consume(&self, local: &mut Collected, batch: Batch, order: usize) -> Result<bool> {
        let before = self.seen.fetch_add(batch.rows, Ordering::Relaxed);
        if before < self.wanted {
            let rows = batch.rows.min(self.wanted - before);
            let batch = if rows < batch.rows { batch.slice(0, rows) } else { batch };
            self.collect.consume(local, batch, order)?;
        }
        Ok(before.saturating_add(0) < self.wanted && self.seen.load(Ordering::Relaxed) < self.wanted)
    }
}
