//! Grouped aggregation with mergeable states.
//!
//! Rows get the number of their group first ([`groups`]: one group, a direct array or a hash table over packed keys, either also over
//! the integers among the keys while these determine the rest, a hash table over rows of bytes), then every slot ([`slot`]) takes in
//! its arguments column by column. What it keeps true: update, merge, serialization and their order do not change results (floating
//! sums aside by rounding); an overflow is an error.

mod by_group;
mod bytes;
mod calls;
mod determined;
mod entries;
mod finish;
mod folds;
mod groups;
mod hash;
mod intern;
mod moments;
mod packed;
mod rows;
mod sketch;
mod slot;
mod state;
mod table;
#[cfg(test)]
mod tests;
mod values;

use std::sync::Arc;

use rayon::prelude::*;
use stoa_plan::{Aggregate, AggregateFunction, DataType, Phase};

use calls::{Builder, Calls};
use groups::{Choice, Groups};
pub use state::AggregateState;

use crate::expression::{Expression, Parameters};
use crate::{Batch, Bounds, Error, Layout, QueryContext, Result};

/// A compiled aggregation: how rows are grouped and what is computed, chosen once. Shared by the workers of a stage.
#[derive(Debug)]
pub struct GroupedAggregation {
    calls: Calls,
    /// Types and bounds of the keys, then of the number of the grouping set if there are sets.
    keys: Vec<(DataType, Bounds)>,
    sets: Vec<GroupingSet>,
    /// Whether the number of the grouping set is an output column.
    grouping_id: bool,
    functions: Vec<AggregateFunction>,
    choice: Choice,
    phase: Phase,
    vector_size: usize,
    serialize_states: bool,
}

/// One grouping set.
#[derive(Debug)]
struct GroupingSet {
    /// Whether each key is kept.
    kept: Vec<bool>,
    /// The grouping id; above it, a number that tells repeated sets apart.
    id: u32,
}

/// Groups from which on states are merged in parallel.
const PARALLEL: usize = 100_000;
/// Bits of keys up to which a direct array is always right: 4 MiB.
const DENSE_BITS: u32 = 20;
/// Bits of keys up to which a direct array may be right if there are rows enough.
const MOST_DENSE_BITS: u32 = 26;

impl GroupedAggregation {
    /// Compiles an aggregation over batches of `input`. For [`stoa_plan::Phase::Final`], `input` is the layout of the partial
    /// states, as [`AggregateState::into_partial`] makes them; only [`AggregateState::merge`] and
    /// [`AggregateState::merge_partial`] may be called then.
    ///
    /// # Errors
    /// If the plan is malformed or uses what cannot run.
    pub fn new(aggregate: &Aggregate, input: &Layout, parameters: &Parameters, ctx: &QueryContext) -> Result<Arc<Self>> {
        let calls = Builder::build(aggregate, input, parameters, &ctx.settings)?;
        let mut keys = Vec::new();
        for (at, (field, _)) in aggregate.keys.iter().enumerate() {
            let computed = &calls.computed[calls.keys[at]];
            let known = match &computed.expression {
                Some(expression) if expression.data_type() != field.ty => {
                    return Err(Error::Internal(format!("group key {} is no {:?}", field.name, field.ty)));
                }
                Some(expression) => expression.bounds(),
                None => input.columns.get(at).filter(|c| c.field.ty == field.ty).map_or(Bounds::default(), |c| c.bounds),
            };
            keys.push((field.ty, known));
        }
        let sets = grouping_sets(aggregate)?;
        if let Some(most) = sets.iter().map(|s| s.id).max() {
            keys.push((DataType::UInt32, Bounds { range: Some((0, most.into())) }));
        }
        let rows = aggregate.input.rows.max(0.0);
        let worth = (rows * 4.0).max(1.0).log2() as u32;
        let dense_bits = if ctx.settings.no_fast_paths { 0 } else { worth.clamp(DENSE_BITS, MOST_DENSE_BITS) };
        let choice = Choice {
            dense_bits,
            pack: !ctx.settings.no_fast_paths,
            hash_zero: ctx.settings.hash_zero,
            cancel: ctx.cancel.clone(),
        };
        let plan = Arc::new(GroupedAggregation {
            calls,
            keys,
            sets,
            grouping_id: aggregate.grouping_id.is_some(),
            functions: aggregate.calls.iter().map(|(_, c)| c.function).collect(),
            choice,
            phase: aggregate.phase,
            vector_size: ctx.settings.vector_size.max(1),
            serialize_states: ctx.settings.serialize_states,
        });
        AggregateState::new(&plan, &plan.choice)?;
        Ok(plan)
    }

    /// An empty state.
    #[must_use]
    pub fn new_state(self: &Arc<Self>) -> AggregateState {
        AggregateState::new(self, &self.choice).unwrap_or_else(|error| AggregateState::broken(self, &error))
    }

    /// Merges states, in parallel if they are large, and gives the final rows; in [`Phase::Partial`] those of the merged states.
    ///
    /// # Errors
    /// As [`AggregateState::finish`].
    pub fn merge_all(self: &Arc<Self>, mut states: Vec<AggregateState>) -> Result<Vec<Batch>> {
        let rows = |state: AggregateState| if self.phase == Phase::Partial { state.into_partial() } else { state.finish() };
        states.sort_by_key(|s| std::cmp::Reverse(s.groups()));
        let total: usize = states.iter().map(AggregateState::groups).sum();
        if total < PARALLEL || states.len() < 2 || self.serialize_states {
            let mut states = states.into_iter();
            let Some(mut all) = states.next() else { return rows(self.new_state()) };
            for state in states {
                all.merge(state)?;
            }
            return rows(all);
        }
        let parts = (rayon::current_num_threads() * 2).next_power_of_two().max(4);
        let by_leading = states.iter().all(AggregateState::has_leading_keys);
        let split = states.par_iter().map(|s| s.split(parts, by_leading)).collect::<Result<Vec<_>>>()?;
        let merged = (0..parts).into_par_iter().map(|part| state::merge_part(&states, &split, part));
        let batches = merged.map(|state| state.and_then(rows)).collect::<Result<Vec<_>>>()?;
        Ok(batches.into_iter().flatten().collect())
    }

    /// Bounds of the output columns of the final rows: the keys, the grouping id if any, the aggregates.
    #[must_use]
    pub fn output_bounds(&self) -> Vec<Bounds> {
        let keys = self.keys.len() - usize::from(!self.sets.is_empty() && !self.grouping_id);
        let mut all: Vec<Bounds> = self.keys[..keys].iter().map(|(_, known)| *known).collect();
        for (call, function) in self.calls.calls.iter().zip(&self.functions) {
            let known = match function {
                AggregateFunction::Min
                | AggregateFunction::Max
                | AggregateFunction::FirstValue
                | AggregateFunction::LastValue
                | AggregateFunction::AnyValue => {
                    let slot = &self.calls.slots[call.slots[0]];
                    slot.arg_types.first().filter(|(ty, _)| *ty == call.ty).map_or(Bounds::default(), |(_, known)| *known)
                }
                AggregateFunction::Count => Bounds { range: Some((0, i64::MAX.into())) },
                _ => Bounds::default(),
            };
            all.push(known);
        }
        all
    }

    /// How rows are grouped at first, for people.
    #[must_use]
    pub fn strategy(&self) -> String {
        Groups::new(&self.keys, self.choice.clone()).map_or_else(|e| e.to_string(), |groups| groups.describe())
    }

    fn key_expressions(&self) -> impl Iterator<Item = &Expression> {
        self.calls.keys.iter().filter_map(|k| self.calls.computed[*k].expression.as_ref())
    }

    /// Names of the keys, for people.
    #[must_use]
    pub fn describe_keys(&self) -> Vec<String> {
        self.key_expressions().map(|e| e.description().to_owned()).collect()
    }
}

fn grouping_sets(aggregate: &Aggregate) -> Result<Vec<GroupingSet>> {
    let keys = aggregate.keys.len();
    if aggregate.grouping_sets.is_empty() {
        return Ok(Vec::new());
    }
    if keys > 24 {
        return Err(Error::Unsupported("GROUPING SETS over more than 24 keys".into()));
    }
    let mut sets: Vec<GroupingSet> = Vec::new();
    for set in &aggregate.grouping_sets {
        if set.iter().any(|k| *k as usize >= keys) {
            return Err(Error::Internal("a grouping set names no key".into()));
        }
        let kept: Vec<bool> = (0..keys as u32).map(|k| set.contains(&k)).collect();
        let id = kept.iter().fold(0u32, |id, kept| id << 1 | u32::from(!kept));
        let repeats = sets.iter().filter(|s| s.kept == kept).count() as u32;
        if repeats > 100 {
            return Err(Error::Unsupported("a grouping set repeated more than 100 times".into()));
        }
        sets.push(GroupingSet { kept, id: id | repeats << keys });
    }
    Ok(sets)
}
