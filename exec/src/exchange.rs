//! Fragments: what runs once a partition, what is prepared once for all of them, and where their rows go.
//!
//! In one process every fragment sees the same memory. A broadcast input is therefore computed once and shared, a join table over
//! rows that are the same in every fragment is built once, and a fragment with a shuffle below it runs once over all partitions,
//! where moving rows between fragments is nothing at all.

use std::time::Instant;

use parking_lot::Mutex;
use stoa_plan::{ExchangeKind, Join, JoinKind, Node, Plan, Side};

use crate::executor::{Executor, Rows, Scope, address};
use crate::pipeline::Pipeline;
use crate::profile::LocalCounts;
use crate::{Error, Layout, Result};

/// Fragments over fewer rows than this run one after the other on the calling thread.
const SMALL_FRAGMENTS: u64 = 24 * 1024;

impl Executor<'_> {
    /// The pipeline over an exchange's rows.
    pub fn exchange(&self, plan: &Plan, input: &Plan, kind: &ExchangeKind, scope: &Scope) -> Result<Pipeline> {
        match kind {
            ExchangeKind::Gather => {
                let rows = self.gather(plan, input)?;
                Ok(self.rows(rows, false))
            }
            ExchangeKind::Broadcast => {
                let kept = self.broadcast(address(plan), || self.gather(plan, input))?;
                let rows = Rows { layout: kept.layout.clone(), batches: kept.batches.clone(), reservations: vec![] };
                Ok(self.rows(rows, false))
            }
            // Fragments that hold a shuffle run once over all partitions: its rows just pass.
            ExchangeKind::Shuffle(_) => self.open(input, scope),
        }
    }

    /// Runs the fragment below an exchange and keeps its rows.
    pub fn gather(&self, plan: &Plan, input: &Plan) -> Result<Rows> {
        if let Some(leaves) = &self.leaves
            && crate::remote::of_leaves(input)
        {
            return leaves.gather(self, plan, input);
        }
        let started = Instant::now();
        let all = self.all_partitions(input)?;
        let rows = all.batches.iter().map(|b| b.rows as u64).sum();
        let nanos = started.elapsed().as_nanos() as u64;
        self.recorder.add(plan.id, &LocalCounts { rows, batches: all.batches.len() as u64, nanos: 0 });
        self.recorder.note(plan.id, format!("wall {:.3?}", std::time::Duration::from_nanos(nanos)));
        Ok(all)
    }

    /// The rows of a fragment of all partitions, one behind the other.
    pub fn all_partitions(&self, fragment: &Plan) -> Result<Rows> {
        let mut all = Rows { layout: Layout::default(), batches: vec![], reservations: vec![] };
        for rows in self.fragments(fragment, |scope| self.collect(fragment, scope, "an exchange"))? {
            all.layout = rows.layout;
            all.batches.extend(rows.batches);
            all.reservations.extend(rows.reservations);
        }
        Ok(all)
    }

    /// Runs a fragment once a partition, partitions in parallel: the results in the order of partitions.
    pub fn fragments<T: Send>(&self, plan: &Plan, run: impl Fn(&Scope) -> Result<T> + Sync) -> Result<Vec<T>> {
        let (partitions, rows) = self.partitions(plan)?;
        if partitions <= 1 || has_shuffle(plan) {
            return Ok(vec![run(&Scope::default())?]);
        }
        self.prepare(plan)?;
        if rows < SMALL_FRAGMENTS {
            return (0..partitions).map(|p| run(&Scope::of_partition(p))).collect();
        }
        let results: Vec<Mutex<Option<Result<T>>>> = (0..partitions).map(|_| Mutex::new(None)).collect();
        rayon::scope(|threads| {
            for (p, slot) in results.iter().enumerate() {
                let run = &run;
                threads.spawn(move |_| *slot.lock() = Some(run(&Scope::of_partition(p))));
            }
        });
        let missing = || Err(Error::Internal("a fragment did not run".into()));
        let results: Vec<Result<T>> = results.into_iter().map(|r| r.into_inner().unwrap_or_else(missing)).collect();
        results.into_iter().collect()
    }

    /// Number of partitions of the tables that a fragment reads in parts (1 if none), and the rows of the largest.
    pub fn partitions(&self, plan: &Plan) -> Result<(usize, u64)> {
        let mut most = (1, 0);
        let mut stack = vec![plan];
        while let Some(plan) = stack.pop() {
            match &plan.node {
                Node::Scan(scan) if !scan.reference => {
                    let table = self.storage.table(&scan.table)?;
                    most = (most.0.max(table.partitions.len()), most.1.max(table.rows()));
                }
                Node::Exchange { .. } => {}
                _ => stack.extend(plan.inputs()),
            }
        }
        Ok(most)
    }

    /// Builds once what is the same in every fragment: join tables over rows that do not depend on the partition, smallest first,
    /// so that the run-time filters of each help the next.
    pub fn prepare(&self, plan: &Plan) -> Result<()> {
        let mut joins = Vec::new();
        shared_builds(plan, &mut joins);
        joins.sort_by(|a, b| build_side(a.1).rows.total_cmp(&build_side(b.1).rows));
        for (plan, join) in joins {
            if self.table(&self.once, address(join)).is_none() {
                let table = crate::join::build::build(self, plan, join, &self.once)?;
                self.once.keep_table(address(join), table);
            }
        }
        Ok(())
    }
}

/// The side of a join that is built into a table.
pub(crate) fn build_side(join: &Join) -> &Plan {
    match join.build {
        Side::Left => &join.left,
        Side::Right => &join.right,
    }
}

/// The side of a join that probes the table.
pub(crate) fn probe_side(join: &Join) -> &Plan {
    match join.build {
        Side::Left => &join.right,
        Side::Right => &join.left,
    }
}

/// Whether the rows of a join end with build rows that must have seen the whole probe side.
pub(crate) fn has_tail(join: &Join) -> bool {
    match (&join.kind, join.build) {
        (JoinKind::Inner, _) => false,
        (JoinKind::Full, _) => true,
        (JoinKind::Left | JoinKind::LeftSemi | JoinKind::LeftAnti | JoinKind::LeftMark(_), side) => side == Side::Left,
        (JoinKind::Right | JoinKind::RightSemi | JoinKind::RightAnti, side) => side == Side::Right,
    }
}

/// Whether a plan reads different rows in different fragments.
fn is_partitioned(plan: &Plan) -> bool {
    match &plan.node {
        Node::Scan(scan) => !scan.reference,
        Node::Exchange { .. } => false,
        _ => plan.inputs().into_iter().any(is_partitioned),
    }
}

/// Whether a fragment reads what was shuffled.
pub(crate) fn has_shuffle(plan: &Plan) -> bool {
    match &plan.node {
        Node::Exchange { kind: ExchangeKind::Shuffle(_), .. } => true,
        Node::Exchange { .. } => false,
        _ => plan.inputs().into_iter().any(has_shuffle),
    }
}

/// The joins of a fragment whose table is the same in every partition.
fn shared_builds<'a>(plan: &'a Plan, joins: &mut Vec<(&'a Plan, &'a Join)>) {
    if let Node::Exchange { .. } = &plan.node {
        return;
    }
    if let Node::Join(join) = &plan.node
        && !has_tail(join)
        && !is_partitioned(build_side(join))
    {
        joins.push((plan, join));
        shared_builds(probe_side(join), joins);
        return;
    }
    for input in plan.inputs() {
        shared_builds(input, joins);
    }
}
