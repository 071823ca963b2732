//! AND, OR, NOT and the IS tests, in three-valued logic.
//!
//! The operands of AND and OR are evaluated from left to right; an operand that may fail or costs much sees only the rows that the
//! ones before have not decided.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::kernels::boolean;
use stoa_plan::UnaryOp;

use super::node::{Compiled, booleans, select};
use super::value::Evaluated;
use crate::{Batch, Result};

/// A chain of AND or OR.
#[derive(Debug)]
pub(crate) struct Logic {
    /// AND, else OR.
    pub(crate) and: bool,
    pub(crate) parts: Vec<Compiled>,
}

/// Operands that cost less a row than this are evaluated for all rows rather than for a selection.
const CHEAP: u32 = 6;

impl Logic {
    pub(crate) fn evaluate(&self, batch: &Batch) -> Result<Evaluated> {
        let mut result: Option<BooleanArray> = None;
        for part in &self.parts {
            let Some(known) = result else {
                result = Some(part.boolean(batch)?);
                continue;
            };
            let open = self.undecided(&known);
            let left = open.count_set_bits();
            if left == 0 {
                return Ok(booleans(known));
            }
            let few = left < batch.rows && (part.fallible || (part.cost > CHEAP && left < batch.rows / 2));
            let value = if few { scattered(part, batch, &open)? } else { part.boolean(batch)? };
            result = Some(if self.and { boolean::and_kleene(&known, &value)? } else { boolean::or_kleene(&known, &value)? });
        }
        let value = result.unwrap_or_else(|| BooleanArray::new(fill(batch.rows, self.and), None));
        Ok(booleans(value))
    }

    /// The rows that later operands can still change.
    fn undecided(&self, known: &BooleanArray) -> BooleanBuffer {
        let open = if self.and { known.values().clone() } else { !known.values() };
        match known.nulls() {
            Some(nulls) => &open | &!nulls.inner(),
            None => open,
        }
    }
}

fn fill(rows: usize, value: bool) -> BooleanBuffer {
    if value { BooleanBuffer::new_set(rows) } else { BooleanBuffer::new_unset(rows) }
}

/// Evaluates a condition for the rows of `open`; the other rows are false.
pub(crate) fn scattered(part: &Compiled, batch: &Batch, open: &BooleanBuffer) -> Result<BooleanArray> {
    let selected = select(batch, &part.columns, &BooleanArray::new(open.clone(), None))?;
    let value = part.boolean(&selected)?;
    let mut values = vec![false; batch.rows];
    let mut valid = vec![true; batch.rows];
    for (from, to) in open.set_indices().enumerate() {
        values[to] = value.value(from) && value.is_valid(from);
        valid[to] = value.is_valid(from);
    }
    let nulls = (value.null_count() > 0).then(|| NullBuffer::from(valid));
    Ok(BooleanArray::new(values.into(), nulls))
}

/// The rows where a condition is true, without NULLs.
pub(crate) fn truths(value: &BooleanArray) -> BooleanBuffer {
    match value.nulls() {
        Some(nulls) if nulls.null_count() > 0 => value.values() & nulls.inner(),
        _ => value.values().clone(),
    }
}

/// NOT and the IS tests.
#[derive(Debug)]
pub(crate) struct Is {
    pub(crate) op: UnaryOp,
    pub(crate) input: Compiled,
}

impl Is {
    pub(crate) fn evaluate(&self, batch: &Batch) -> Result<Evaluated> {
        if matches!(self.op, UnaryOp::IsNull | UnaryOp::IsNotNull) {
            let value = self.input.evaluate(batch)?;
            let array = value.array();
            let result = if self.op == UnaryOp::IsNull { boolean::is_null(array)? } else { boolean::is_not_null(array)? };
            return Ok(value.with(Arc::new(result)));
        }
        let value = self.input.canonical(batch)?;
        let condition = as_boolean(value.array())?;
        let valid = condition.nulls().map(|n| n.inner().clone());
        let all = |rows, value| BooleanArray::new(fill(rows, value), None);
        let rows = condition.len();
        let result = match self.op {
            UnaryOp::Not => boolean::not(&condition)?,
            UnaryOp::IsTrue => BooleanArray::new(truths(&condition), None),
            UnaryOp::IsNotTrue => BooleanArray::new(!&truths(&condition), None),
            UnaryOp::IsFalse | UnaryOp::IsNotFalse => {
                let no = !condition.values();
                let no = valid.map_or(no.clone(), |v| &no & &v);
                BooleanArray::new(if self.op == UnaryOp::IsFalse { no } else { !&no }, None)
            }
            UnaryOp::IsUnknown => valid.map_or_else(|| all(rows, false), |v| BooleanArray::new(!&v, None)),
            _ => valid.map_or_else(|| all(rows, true), |v| BooleanArray::new(v, None)),
        };
        let result: ArrayRef = Arc::new(result);
        Ok(value.with(result))
    }
}

fn as_boolean(array: &ArrayRef) -> Result<BooleanArray> {
    if *array.data_type() == arrow::datatypes::DataType::Null {
        return Ok(BooleanArray::new_null(array.len()));
    }
    let found = array.as_any().downcast_ref::<BooleanArray>().cloned();
    found.ok_or_else(|| crate::Error::Internal(format!("a condition of type {}", array.data_type())))
}
