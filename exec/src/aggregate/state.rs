//! The state of an aggregation: groups and slots.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array, new_null_array};
use arrow::compute::{filter, take};
use arrow::datatypes::UInt32Type;
use stoa_plan::{DataType, Phase};

use super::finish::finish;
use super::groups::{Choice, Groups};
use super::hash::hash_columns;
use super::slot::{Ids, Slot};
use super::values::{Cursor, Written};
use super::{GroupedAggregation, calls::Computed};
use crate::{Batch, Error, Result};

/// Version of the serialized form of states.
const VERSION: u8 = 1;

/// The groups seen so far by one worker.
#[derive(Debug)]
pub struct AggregateState {
    plan: Arc<GroupedAggregation>,
    groups: Groups,
    slots: Vec<Slot>,
    ids: Vec<u32>,
    /// Whether anything was added.
    used: bool,
    /// Why this state cannot be used.
    broken: Option<String>,
}

impl AggregateState {
    pub(super) fn new(plan: &Arc<GroupedAggregation>, choice: &Choice) -> Result<AggregateState> {
        let groups = Groups::new(&plan.keys, choice.clone())?;
        let one = groups.is_one();
        let new = |s: &super::calls::SlotPlan| Slot::new(&s.kind, &s.arg_types, one, choice.clone());
        let mut slots = plan.calls.slots.iter().map(new).collect::<Result<Vec<_>>>()?;
        slots.iter_mut().for_each(|s| s.resize(groups.len()));
        Ok(AggregateState { plan: plan.clone(), groups, slots, ids: vec![], used: false, broken: None })
    }

    /// A state every use of which gives an error.
    pub(super) fn broken(plan: &Arc<GroupedAggregation>, error: &Error) -> AggregateState {
        let broken = Some(error.to_string());
        AggregateState { plan: plan.clone(), groups: Groups::one(), slots: vec![], ids: vec![], used: false, broken }
    }

    fn check(&self) -> Result<()> {
        self.broken.as_ref().map_or(Ok(()), |why| Err(Error::Internal(why.clone())))
    }

    /// Adds the rows of a batch.
    ///
    /// # Errors
    /// Those of the expressions, and overflow of a sum.
    pub fn update(&mut self, batch: &Batch) -> Result<()> {
        self.check()?;
        let plan = self.plan.clone();
        if plan.phase == Phase::Final {
            return Err(Error::Internal("rows fed to a final aggregation".into()));
        }
        self.used = true;
        let inputs = Inputs::of(&plan, batch)?;
        let keys: Vec<ArrayRef> = plan.calls.keys.iter().map(|k| inputs.computed[*k].clone()).collect();
        if plan.sets.is_empty() {
            return self.add(&keys, batch.rows, &inputs);
        }
        for set in &plan.sets {
            let mut kept: Vec<ArrayRef> = Vec::new();
            for ((key, keep), (ty, _)) in keys.iter().zip(&set.kept).zip(&plan.keys) {
                kept.push(if *keep { key.clone() } else { new_null_array(&ty.to_arrow(), batch.rows) });
            }
            kept.push(Arc::new(UInt32Array::from(vec![set.id; batch.rows])));
            self.add(&kept, batch.rows, &inputs)?;
        }
        Ok(())
    }

    fn add(&mut self, keys: &[ArrayRef], rows: usize, inputs: &Inputs) -> Result<()> {
        let one = self.groups.is_one();
        if !one {
            self.groups.assign(keys, rows, &mut self.ids)?;
        }
        let count = self.groups.len();
        let mut filtered: Vec<Option<Vec<u32>>> = vec![None; inputs.masks.len()];
        for (slot, plan) in self.slots.iter_mut().zip(&self.plan.calls.slots) {
            slot.resize(count);
            let args: Vec<ArrayRef> = plan.args.iter().map(|a| inputs.computed[*a].clone()).collect();
            let ids = match plan.filter {
                None if one => Ids::One(rows),
                None => Ids::Many(&self.ids),
                Some(f) if one => Ids::One(inputs.masks[f].true_count()),
                Some(f) => {
                    let kept = || inputs.masks[f].values().set_indices().map(|row| self.ids[row]).collect();
                    Ids::Many(filtered[f].get_or_insert_with(kept))
                }
            };
            slot.update(&ids, &args)?;
        }
        Ok(())
    }

    /// Adds the groups of another state of the same aggregation (or of the aggregation of the other phase, same keys and calls).
    ///
    /// # Errors
    /// If the states do not fit together.
    pub fn merge(&mut self, other: AggregateState) -> Result<()> {
        self.check()?;
        if !other.used {
            return Ok(());
        }
        if self.plan.serialize_states {
            for batch in other.into_partial()? {
                self.merge_partial(&batch)?;
            }
            return Ok(());
        }
        if !self.used {
            *self = other;
            return Ok(());
        }
        let keys = other.groups.keys()?;
        self.merge_groups(&other, &keys, None)
    }

    /// Adds groups of another state: all, or those that are listed, whose keys are given.
    fn merge_groups(&mut self, other: &AggregateState, keys: &[ArrayRef], listed: Option<&[u32]>) -> Result<()> {
        let rows = listed.map_or(other.groups.len(), <[u32]>::len);
        if keys.len() != self.plan.keys.len() || other.plan.calls.calls.len() != self.plan.calls.calls.len() {
            return Err(Error::Internal("aggregate states of different plans".into()));
        }
        self.used = true;
        let mut ids = std::mem::take(&mut self.ids);
        self.groups.assign(keys, rows, &mut ids)?;
        let count = self.groups.len();
        self.slots.iter_mut().for_each(|s| s.resize(count));
        let from = |i: usize| listed.map_or(i as u32, |l| l[i]);
        let pairs: Vec<(u32, u32)> = ids.iter().enumerate().map(|(i, to)| (from(i), *to)).collect();
        self.ids = ids;
        let mut done = vec![false; self.slots.len()];
        for (ours, theirs) in self.plan.clone().calls.calls.iter().zip(&other.plan.calls.calls) {
            for (to, from) in ours.slots.iter().zip(&theirs.slots) {
                if !std::mem::replace(&mut done[*to], true) {
                    self.plan.choice.cancel.check()?;
                    self.slots[*to].merge(&other.slots[*from], &pairs)?;
                }
            }
        }
        Ok(())
    }

    /// Whether some keys determine the others.
    pub(super) fn has_leading_keys(&self) -> bool {
        self.groups.leading().is_some()
    }

    /// The groups of each part, by hash of their keys or of those that determine the others.
    pub(super) fn split(&self, parts: usize, by_leading: bool) -> Result<Split> {
        let keys = self.groups.keys()?;
        let hashed: Vec<ArrayRef> = match self.groups.leading().filter(|_| by_leading) {
            Some(leading) => leading.iter().map(|i| keys[*i].clone()).collect(),
            None => keys.clone(),
        };
        let hash_zero = self.plan.choice.hash_zero;
        let hashes = if hash_zero { vec![0; self.groups.len()] } else { hash_columns(&hashed, self.groups.len())? };
        let mut lists = vec![Vec::new(); parts];
        self.plan.choice.cancel.check()?;
        for (group, hash) in hashes.iter().enumerate() {
            lists[(hash >> 48) as usize & (parts - 1)].push(group as u32);
        }
        Ok(Split { keys, lists })
    }

    /// The keys as output columns.
    fn key_columns(&self) -> Result<Vec<ArrayRef>> {
        let mut keys = self.groups.keys()?;
        if !self.plan.sets.is_empty()
            && let Some(ids) = keys.pop()
            && self.plan.grouping_id
        {
            let mask = (1u64 << keys.len()) as u32 - 1;
            let ids = ids.as_primitive::<UInt32Type>().values().iter().map(|id| id & mask);
            keys.push(Arc::new(UInt32Array::from_iter_values(ids)));
        }
        Ok(keys)
    }

    /// The groups as rows: the keys, the grouping id if any, one `Binary` state per call.
    ///
    /// # Errors
    /// Internal ones only.
    pub fn into_partial(self) -> Result<Vec<Batch>> {
        self.check()?;
        if !self.plan.sets.is_empty() && !self.plan.grouping_id {
            return Err(Error::Unsupported("partial states of grouping sets without a grouping id".into()));
        }
        let mut columns = self.groups.keys()?;
        let rows = self.groups.len();
        let written = self.slots.iter().map(|s| s.write(rows)).collect::<Result<Vec<_>>>()?;
        for call in &self.plan.calls.calls {
            let states = Written::each(rows, |group, out| {
                out.push(VERSION);
                call.slots.iter().for_each(|slot| out.extend_from_slice(written[*slot].of(group)));
                Ok(())
            })?;
            columns.push(Arc::new(states.column()?));
        }
        Ok(vec![Batch { columns, rows }])
    }

    /// Adds groups in the form of [`AggregateState::into_partial`].
    ///
    /// # Errors
    /// If the bytes are no state of these calls.
    pub fn merge_partial(&mut self, batch: &Batch) -> Result<()> {
        self.check()?;
        let plan = self.plan.clone();
        let keys = plan.keys.len();
        if batch.columns.len() != keys + plan.calls.calls.len() || batch.columns.iter().any(|c| c.len() != batch.rows) {
            return Err(Error::Internal("partial states with a wrong number of columns or rows".into()));
        }
        for (column, (ty, _)) in batch.columns.iter().zip(&plan.keys) {
            if DataType::from_arrow(column.data_type()).is_none_or(|found| !alike(found, *ty)) {
                return Err(Error::Internal(format!("a partial state's key is {}, not {ty:?}", column.data_type())));
            }
        }
        self.used = true;
        self.groups.assign(&batch.columns[..keys], batch.rows, &mut self.ids)?;
        let count = self.groups.len();
        self.slots.iter_mut().for_each(|s| s.resize(count));
        let mut done = vec![false; self.slots.len()];
        for (call, column) in plan.calls.calls.iter().zip(&batch.columns[keys..]) {
            let states = column.as_binary_opt::<i32>().filter(|s| s.null_count() == 0);
            let states = states.ok_or_else(|| Error::Internal("a partial state is not binary".into()))?;
            let one = self.groups.is_one();
            let mut cursors = Vec::with_capacity(batch.rows);
            for row in 0..batch.rows {
                let mut cursor = Cursor::new(states.value(row));
                if cursor.byte()? != VERSION {
                    return Err(Error::Internal("a partial state of another version".into()));
                }
                cursors.push(cursor);
            }
            for index in &call.slots {
                let slot_plan = &plan.calls.slots[*index];
                let again = std::mem::replace(&mut done[*index], true);
                let mut unused = Slot::new(&slot_plan.kind, &slot_plan.arg_types, one, plan.choice.clone())?;
                let slot = if again { &mut unused } else { &mut self.slots[*index] };
                slot.resize(count);
                let ty = call.arg_types.first().copied().unwrap_or(DataType::Null);
                for (cursor, id) in cursors.iter_mut().zip(&self.ids) {
                    slot.read(*id as usize, ty, cursor)?;
                }
                slot.flush()?;
            }
            cursors.iter().try_for_each(Cursor::end)?;
        }
        Ok(())
    }

    /// The final rows: the keys, the grouping id if any, the aggregates. Without keys exactly one row.
    ///
    /// # Errors
    /// Overflow of a sum.
    pub fn finish(mut self) -> Result<Vec<Batch>> {
        self.check()?;
        self.grand_totals()?;
        let rows = self.groups.len();
        let mut columns = self.key_columns()?;
        for call in &self.plan.calls.calls {
            let slots: Vec<&Slot> = call.slots.iter().map(|s| &self.slots[*s]).collect();
            columns.push(finish(call, &slots, rows, &self.plan.choice.cancel)?);
        }
        let all = Batch { columns, rows };
        let size = self.plan.vector_size;
        Ok((0..rows.div_ceil(size)).map(|i| all.slice(i * size, size.min(rows - i * size))).collect())
    }

    /// The empty grouping set has a row also over no rows.
    fn grand_totals(&mut self) -> Result<()> {
        if self.used && self.groups.len() > 0 {
            return Ok(());
        }
        for set in self.plan.clone().sets.iter().filter(|s| s.kept.iter().all(|k| !k)) {
            let types = &self.plan.keys[..set.kept.len()];
            let mut keys: Vec<ArrayRef> = types.iter().map(|(ty, _)| new_null_array(&ty.to_arrow(), 1)).collect();
            keys.push(Arc::new(UInt32Array::from(vec![set.id])));
            self.groups.assign(&keys, 1, &mut self.ids)?;
        }
        let count = self.groups.len();
        self.slots.iter_mut().for_each(|s| s.resize(count));
        Ok(())
    }

    /// Number of groups.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    /// Bytes held.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.groups.memory() + self.slots.iter().map(Slot::memory).sum::<usize>() + self.ids.capacity() * 4
    }

    /// How groups are found now, for people.
    #[must_use]
    pub fn strategy(&self) -> String {
        self.groups.describe()
    }
}

fn alike(found: DataType, wanted: DataType) -> bool {
    match (found, wanted) {
        (DataType::Decimal { scale: a, .. }, DataType::Decimal { scale: b, .. }) => a == b,
        _ => found == wanted,
    }
}

/// The groups of a state by part.
#[derive(Debug)]
pub(super) struct Split {
    keys: Vec<ArrayRef>,
    lists: Vec<Vec<u32>>,
}

/// Bits of keys up to which the groups of one part have a direct array.
const PART_DENSE_BITS: u32 = 14;

/// Merges one part of all states.
pub(super) fn merge_part(states: &[AggregateState], split: &[Split], part: usize) -> Result<AggregateState> {
    let plan = &states[0].plan;
    let choice = Choice { dense_bits: plan.choice.dense_bits.min(PART_DENSE_BITS), ..plan.choice.clone() };
    let mut merged = AggregateState::new(plan, &choice)?;
    merged.used = true;
    for (state, split) in states.iter().zip(split) {
        let list = &split.lists[part];
        let indices = UInt32Array::from(list.clone());
        let keys = split.keys.iter().map(|k| Ok(take(k, &indices, None)?)).collect::<Result<Vec<_>>>()?;
        merged.merge_groups(state, &keys, Some(list))?;
    }
    Ok(merged)
}

/// What a batch gives to all slots.
struct Inputs {
    computed: Vec<ArrayRef>,
    /// Rows that each filter keeps.
    masks: Vec<arrow::array::BooleanArray>,
}

impl Inputs {
    fn of(plan: &GroupedAggregation, batch: &Batch) -> Result<Inputs> {
        let masks = plan.calls.filters.iter().map(|f| f.filter(batch)).collect::<Result<Vec<_>>>()?;
        let mut selected: Vec<Batch> = Vec::new();
        for mask in &masks {
            let columns = batch.columns.iter().map(|c| Ok(filter(c, mask)?)).collect::<Result<_>>()?;
            selected.push(Batch { columns, rows: mask.true_count() });
        }
        let mut all = batch.clone();
        let mut computed = Vec::with_capacity(plan.calls.computed.len());
        for Computed { expression, filter, .. } in &plan.calls.computed {
            let expression = expression.as_ref().ok_or_else(|| Error::Internal("an aggregation without expressions".into()))?;
            let array = expression.evaluate(filter.map_or(&all, |f| &selected[f]))?;
            if filter.is_none() {
                all.columns.push(array.clone());
            }
            computed.push(array);
        }
        Ok(Inputs { computed, masks })
    }
}
