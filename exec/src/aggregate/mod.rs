//! Grouped aggregation with mergeable states.

use std::sync::Arc;

use stoa_plan::Aggregate;

use crate::expression::Parameters;
use crate::{Batch, Bounds, Error, Layout, QueryContext, Result};

/// A compiled aggregation: how rows are grouped and what is computed, chosen once. Shared by the workers of a stage.
#[derive(Debug)]
pub struct GroupedAggregation {}

impl GroupedAggregation {
    /// Compiles an aggregation over batches of `input`. For [`stoa_plan::Phase::Final`], `input` is the layout of the partial
    /// states, as [`AggregateState::into_partial`] makes them; only [`AggregateState::merge`] and
    /// [`AggregateState::merge_partial`] may be called then.
    ///
    /// # Errors
    /// If the plan is malformed or uses what cannot run.
    pub fn new(aggregate: &Aggregate, input: &Layout, parameters: &Parameters, ctx: &QueryContext) -> Result<Arc<Self>> {
        let _ = (aggregate, input, parameters, ctx);
        Err(Error::Unsupported("aggregation".into()))
    }

    /// An empty state.
    #[must_use]
    pub fn new_state(self: &Arc<Self>) -> AggregateState {
        AggregateState { plan: self.clone() }
    }

    /// Merges states in parallel and gives the final rows.
    ///
    /// # Errors
    /// As [`AggregateState::finish`].
    pub fn merge_all(self: &Arc<Self>, states: Vec<AggregateState>) -> Result<Vec<Batch>> {
        let mut all = self.new_state();
        for state in states {
            all.merge(state)?;
        }
        all.finish()
    }

    /// Bounds of the output columns of the final rows: the keys, the grouping id if any, the aggregates.
    #[must_use]
    pub fn output_bounds(&self) -> Vec<Bounds> {
        Vec::new()
    }

    /// How rows are grouped, for people: `no keys`, `dense array of 6`, `hash of packed keys`, `hash of rows`.
    #[must_use]
    pub fn strategy(&self) -> String {
        String::new()
    }
}

/// The groups seen so far by one worker.
#[derive(Debug)]
pub struct AggregateState {
    plan: Arc<GroupedAggregation>,
}

impl AggregateState {
    /// Adds the rows of a batch.
    ///
    /// # Errors
    /// Those of the expressions.
    pub fn update(&mut self, batch: &Batch) -> Result<()> {
        let _ = batch;
        Err(Error::Unsupported(self.plan.strategy()))
    }

    /// Adds the groups of another state of the same aggregation (or of the aggregation of the other phase, same keys and calls).
    ///
    /// # Errors
    /// If the states do not fit together.
    pub fn merge(&mut self, other: AggregateState) -> Result<()> {
        drop(other);
        Ok(())
    }

    /// The groups as rows: the keys, the grouping id if any, one `Binary` state per call.
    ///
    /// # Errors
    /// Internal ones only.
    pub fn into_partial(self) -> Result<Vec<Batch>> {
        Ok(Vec::new())
    }

    /// Adds groups in the form of [`AggregateState::into_partial`].
    ///
    /// # Errors
    /// If the bytes are no state of these calls.
    pub fn merge_partial(&mut self, batch: &Batch) -> Result<()> {
        let _ = batch;
        Ok(())
    }

    /// The final rows: the keys, the grouping id if any, the aggregates. Without keys exactly one row.
    ///
    /// # Errors
    /// Overflow of a sum.
    pub fn finish(self) -> Result<Vec<Batch>> {
        Ok(Vec::new())
    }

    /// Number of groups.
    #[must_use]
    pub fn groups(&self) -> usize {
        0
    }

    /// Bytes held.
    #[must_use]
    pub fn memory(&self) -> usize {
        0
    }
}
