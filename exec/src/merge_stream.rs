//! Sorted rows of several leaves in one order, as they come.
//!
//! Of every leaf one part is here, and the first rows of all are taken in turn until a part is used up: then the next part of that
//! leaf is waited for. Equal keys are in the order of the leaves.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::time::Instant;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::row::Row;
use stoa_plan::{Field, Plan, SortKey};

use crate::columns::{concat_batches, distinct_bytes};
use crate::executor::{Executor, Rows, cut};
use crate::flow::Take;
use crate::order::OrderKeys;
use crate::pipeline::run;
use crate::remote::{Destination, LeafRows, Leaves, passing_rows};
use crate::sink::{Collect, in_order};
use crate::sort::Order;
use crate::{Batch, Layout, Reservation, Result};

/// Rows of a merged part at most.
const PART_ROWS: usize = 64 * 1024;

/// The rows of a sort whose fragments on the leaves are sorted: `sort` above `exchange` above `below`. Whether more would be taken.
pub(crate) fn merge_leaves(
    exec: &Executor<'_>,
    leaves: &Leaves<'_>,
    (sort, exchange, below): (&Plan, &Plan, &Plan),
    (keys, fetch, skip): (&[SortKey], Option<u64>, u64),
    take: Take<'_>,
) -> Result<bool> {
    if fetch == Some(0) {
        return Ok(true);
    }
    let started = Instant::now();
    let fragment = leaves.fragment(exec, exchange, below, Destination::Caller)?;
    let mut merged = Merged { exec, sort, left: fetch, skip, wanted: true, take };
    let profile = leaves.fragments.pull(&fragment, exec.ctx, &mut |rows| {
        if rows.leaves() > 1 {
            exec.recorder.note(sort.id, format!("merge of {} runs", rows.leaves()));
        }
        let parts = Parts { exec, exchange, sort, keys, fields: &fragment.query.output };
        merge(&parts, rows, &mut merged)
    })?;
    exec.recorder.add_all(&profile);
    exec.recorder.note(exchange.id, format!("wall {:.3?}", started.elapsed()));
    Ok(merged.wanted)
}

/// Hands on merged rows: those behind `skip`, as many as are `left`.
struct Merged<'a, 'b> {
    exec: &'a Executor<'b>,
    sort: &'a Plan,
    left: Option<u64>,
    skip: u64,
    wanted: bool,
    take: Take<'a>,
}

impl Merged<'_, '_> {
    /// Whether more rows are wanted.
    fn part(&mut self, layout: &Layout, batch: Batch, reservation: Reservation) -> Result<bool> {
        let rows = batch.rows as u64;
        let mut batches = vec![batch];
        cut(&mut batches, usize::try_from(self.skip).unwrap_or(usize::MAX), self.left);
        self.skip = self.skip.saturating_sub(rows);
        let kept: u64 = batches.iter().map(|b| b.rows as u64).sum();
        self.left = self.left.map(|left| left.saturating_sub(kept));
        self.exec.count(self.sort, &batches);
        self.wanted = (self.take)(Rows { layout: layout.clone(), batches, reservations: vec![reservation] })?;
        Ok(self.wanted && self.left != Some(0))
    }
}

/// How the parts of leaves become rows with keys.
struct Parts<'a, 'b> {
    exec: &'a Executor<'b>,
    exchange: &'a Plan,
    sort: &'a Plan,
    keys: &'a [SortKey],
    fields: &'a [Field],
}

/// A part of the rows of one leaf.
struct Part {
    /// Columns that leave the sort, and behind them the keys.
    batch: Batch,
    keys: OrderKeys,
    /// The first row that was not taken.
    at: usize,
    _reservations: Vec<Reservation>,
}

impl Parts<'_, '_> {
    /// A part with its keys; `None` if it has no rows.
    fn part(&self, batches: &[RecordBatch], order: &mut Option<Order>) -> Result<Option<Part>> {
        let exec = self.exec;
        let rows = passing_rows(self.fields, batches, exec.ctx)?;
        exec.count(self.exchange, &rows.batches);
        let mut pipeline = exec.rows(rows, true);
        let own = Order::new(exec, self.sort, self.keys, &mut pipeline)?;
        let order = order.get_or_insert(own);
        let locals = run(exec, &pipeline, self.sort.id, &Collect::new(exec.ctx, "a sort"))?;
        let (batches, reservations) = in_order(locals);
        let batch = concat_batches(&batches, &order.layout)?;
        if batch.rows == 0 {
            return Ok(None);
        }
        let keys = order.rows(&batch, &exec.ctx.cancel)?;
        Ok(Some(Part { batch, keys, at: 0, _reservations: reservations }))
    }

    /// The next part of a leaf that has rows.
    fn next(&self, leaves: &mut dyn LeafRows, leaf: usize, order: &mut Option<Order>) -> Result<Option<Part>> {
        while let Some(batches) = leaves.next(leaf)? {
            if let Some(part) = self.part(&batches, order)? {
                return Ok(Some(part));
            }
        }
        Ok(None)
    }
}

fn merge(parts: &Parts<'_, '_>, leaves: &mut dyn LeafRows, merged: &mut Merged<'_, '_>) -> Result<()> {
    let mut order = None;
    let mut heads: Vec<Option<Part>> = Vec::with_capacity(leaves.leaves());
    for leaf in 0..leaves.leaves() {
        heads.push(parts.next(leaves, leaf, &mut order)?);
    }
    let Some(layout) = order.as_ref().map(|order| Layout { columns: order.layout.columns[..order.payload].to_vec() }) else {
        return Ok(());
    };
    while heads.iter().any(Option::is_some) {
        parts.exec.ctx.cancel.check()?;
        let taken = first_rows(&mut heads);
        let batch = gather(&heads, &taken, layout.columns.len())?;
        let mut reservation = parts.exec.ctx.memory.reserve("a sort");
        reservation.grow(distinct_bytes(&batch))?;
        if !merged.part(&layout, batch, reservation)? {
            return Ok(());
        }
        for (leaf, head) in heads.iter_mut().enumerate() {
            if head.as_ref().is_some_and(|part| part.at == part.batch.rows) {
                *head = parts.next(leaves, leaf, &mut order)?;
            }
        }
    }
    Ok(())
}

/// The next row of a leaf.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Head<'a> {
    prefix: u64,
    key: Row<'a>,
    leaf: usize,
}

/// The first rows of all parts in order, until one is used up: leaf and row of each.
fn first_rows(parts: &mut [Option<Part>]) -> Vec<(usize, usize)> {
    let mut at: Vec<usize> = parts.iter().map(|part| part.as_ref().map_or(0, |part| part.at)).collect();
    let mut taken = Vec::new();
    let head = |leaf: usize, row: usize| {
        let part = parts[leaf].as_ref().filter(|part| row < part.batch.rows)?;
        let (prefix, row) = part.keys.prefixed(row as u32);
        Some(Reverse(Head { prefix, key: part.keys.row(row), leaf }))
    };
    let mut heads: BinaryHeap<Reverse<Head<'_>>> = (0..at.len()).filter_map(|leaf| head(leaf, at[leaf])).collect();
    while taken.len() < PART_ROWS
        && let Some(mut least) = heads.peek_mut()
    {
        let leaf = least.0.leaf;
        taken.push((leaf, at[leaf]));
        at[leaf] += 1;
        match head(leaf, at[leaf]) {
            Some(next) => *least = next,
            None => {
                PeekMut::pop(least);
                break;
            }
        }
    }
    drop(heads);
    for (part, at) in parts.iter_mut().zip(at) {
        if let Some(part) = part {
            part.at = at;
        }
    }
    taken
}

/// The first columns of rows of several parts.
fn gather(parts: &[Option<Part>], rows: &[(usize, usize)], columns: usize) -> Result<Batch> {
    let present: Vec<(usize, &Batch)> = (0..).zip(parts).filter_map(|(i, part)| Some((i, &part.as_ref()?.batch))).collect();
    let mut places = vec![0; parts.len()];
    (0..).zip(&present).for_each(|(place, (leaf, _))| places[*leaf] = place);
    let rows: Vec<(usize, usize)> = rows.iter().map(|(leaf, row)| (places[*leaf], *row)).collect();
    let column = |i: usize| -> Result<ArrayRef> {
        let arrays: Vec<&dyn Array> = present.iter().map(|(_, batch)| batch.columns[i].as_ref()).collect();
        Ok(arrow::compute::interleave(&arrays, &rows)?)
    };
    Ok(Batch { columns: (0..columns).map(column).collect::<Result<_>>()?, rows: rows.len() })
}
