//! Final values of the calls that keep all their rows: STRING_AGG, FIRST_VALUE and LAST_VALUE with an order, percentiles.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, StringViewBuilder, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::Float64Type;
use arrow::row::{RowConverter, SortField};
use stoa_plan::{AggregateFunction as F, DataType, Value};

use super::calls::CallPlan;
use super::finish::{as_type, integers, mismatch};
use super::rows::Collected;
use crate::expression::{Evaluated, Ints, bounds};
use crate::order::{OrderKeys, Prefixed};
use crate::{CancelToken, Result};

/// Rows by group, then by the order keys.
pub(crate) struct ByGroup {
    columns: Vec<ArrayRef>,
    /// Rows of the first group, of the second, ...
    rows: Vec<u32>,
    /// Where each group starts in `rows`, and the end.
    starts: Vec<usize>,
}

impl ByGroup {
    pub(crate) fn new(call: &CallPlan, collected: &Collected, groups: usize, cancel: &CancelToken) -> Result<ByGroup> {
        let columns = collected.columns()?;
        cancel.check()?;
        let (rows, starts) = grouped(collected.ids(), groups);
        let mut by_group = ByGroup { columns, rows, starts };
        if !call.order.is_empty() {
            by_group.sort(call, cancel)?;
        }
        Ok(by_group)
    }

    /// Sorts the rows of each group by the order keys, the last columns.
    fn sort(&mut self, call: &CallPlan, cancel: &CancelToken) -> Result<()> {
        let keys = &self.columns[self.columns.len() - call.order.len()..];
        let fields = keys.iter().zip(&call.order).map(|(c, o)| SortField::new_with_options(c.data_type().clone(), *o));
        let keys = OrderKeys::new(&RowConverter::new(fields.collect())?, keys, self.rows.len(), cancel)?;
        let mut rows: Vec<Prefixed> = self.rows.iter().map(|row| keys.prefixed(*row)).collect();
        for group in self.starts.windows(2) {
            keys.sort(&mut rows[group[0]..group[1]], cancel)?;
        }
        self.rows = rows.into_iter().map(|(_, row)| row).collect();
        Ok(())
    }

    fn groups(&self) -> usize {
        self.starts.len() - 1
    }

    fn of(&self, group: usize) -> &[u32] {
        &self.rows[self.starts[group]..self.starts[group + 1]]
    }

    pub(crate) fn strings(&self, call: &CallPlan, cancel: &CancelToken) -> Result<ArrayRef> {
        let separator = if let Some(Value::Str(separator)) = &call.constant { separator.as_str() } else { "" };
        let values = self.columns.first().and_then(|c| c.as_string_view_opt()).ok_or_else(mismatch)?;
        let mut builder = StringViewBuilder::with_capacity(self.groups());
        for group in 0..self.groups() {
            let rows = self.of(group);
            let mut text: Option<String> = None;
            for piece in cancel.pieces(rows.len()) {
                for row in rows[piece?].iter().map(|r| *r as usize).filter(|r| values.is_valid(*r)) {
                    match &mut text {
                        Some(text) => {
                            text.push_str(separator);
                            text.push_str(values.value(row));
                        }
                        None => text = Some(values.value(row).to_owned()),
                    }
                }
            }
            builder.append_option(text);
        }
        as_type(Arc::new(builder.finish()), call.ty)
    }

    pub(crate) fn picked(&self, call: &CallPlan) -> Result<ArrayRef> {
        let place = |group: usize| {
            let rows = self.of(group);
            if call.function == F::FirstValue { rows.first().copied() } else { rows.last().copied() }
        };
        let places: UInt32Array = (0..self.groups()).map(place).collect();
        as_type(take(&self.columns[0], &places, None)?, call.ty)
    }

    /// MEDIAN and percentiles, with linear interpolation. The median of exact numbers whose type is exact is exact, truncated.
    pub(crate) fn percentile(&self, call: &CallPlan, cancel: &CancelToken) -> Result<ArrayRef> {
        let values = self.columns.first().ok_or_else(mismatch)?;
        let p = match call.constant {
            Some(Value::Float(p)) => p,
            Some(_) => return Ok(arrow::array::new_null_array(&call.ty.to_arrow(), self.groups())),
            None => 0.5,
        };
        let valid = |group: usize| self.of(group).iter().map(|r| *r as usize).filter(|r| values.is_valid(*r));
        if call.arg_types[0] == DataType::Float64 {
            let floats = values.as_primitive::<Float64Type>();
            let one = |group| {
                cancel.check()?;
                let mut all: Vec<f64> = valid(group).map(|r| floats.value(r)).collect();
                Ok(between(&mut all, p, f64::total_cmp).map(|(low, high, part)| interpolated(low, high, part)))
            };
            let values: Float64Array = (0..self.groups()).map(one).collect::<Result<_>>()?;
            return as_type(Arc::new(values), call.ty);
        }
        cancel.check()?;
        let ints = Ints::<i128>::of(&Evaluated::Array(values.clone()))?;
        let ints = ints.slice().unwrap_or_default();
        let neighbours = |group| -> Result<_> {
            cancel.check()?;
            let mut all: Vec<i128> = valid(group).map(|r| ints[r]).collect();
            Ok(between(&mut all, p, i128::cmp))
        };
        if call.function == F::Median && bounds::of_type(call.ty).is_some() {
            let one = |group| {
                let middle = |(low, high, part): (i128, i128, f64)| {
                    let high = if part == 0.0 { low } else { high };
                    low / 2 + high / 2 + (low % 2 + high % 2) / 2
                };
                Ok(neighbours(group)?.map(middle))
            };
            let values = (0..self.groups()).map(one).collect::<Result<_>>()?;
            return integers(values, call.arg_types[0], call.ty, F::Median);
        }
        let unit = 10f64.powi(bounds::scale(call.arg_types[0]));
        let one = |group| {
            let value = |(low, high, part)| interpolated(low as f64 / unit, high as f64 / unit, part);
            Ok(neighbours(group)?.map(value))
        };
        let values: Float64Array = (0..self.groups()).map(one).collect::<Result<_>>()?;
        as_type(Arc::new(values), call.ty)
    }
}

/// Rows in the order of their groups, and where each group starts.
fn grouped(ids: &[u32], groups: usize) -> (Vec<u32>, Vec<usize>) {
    if groups == 1 {
        return ((0..ids.len() as u32).collect(), vec![0, ids.len()]);
    }
    let mut starts = vec![0usize; groups + 1];
    ids.iter().for_each(|id| starts[*id as usize + 1] += 1);
    for group in 0..groups {
        starts[group + 1] += starts[group];
    }
    let mut next = starts.clone();
    let mut rows = vec![0u32; ids.len()];
    for (row, id) in ids.iter().enumerate() {
        let slot = &mut next[*id as usize];
        rows[*slot] = row as u32;
        *slot += 1;
    }
    (rows, starts)
}

/// The two values between which the percentile `p` is, and how far it is from the first to the second; `None` of no values.
fn between<T: Copy>(all: &mut [T], p: f64, compare: impl Fn(&T, &T) -> std::cmp::Ordering + Copy) -> Option<(T, T, f64)> {
    let last = all.len().checked_sub(1)?;
    let place = p * last as f64;
    let at = (place.floor() as usize).min(last);
    let (_, low, above) = all.select_nth_unstable_by(at, compare);
    let low = *low;
    let high = above.iter().copied().min_by(compare).unwrap_or(low);
    Some((low, high, place - at as f64))
}

fn interpolated(low: f64, high: f64, part: f64) -> f64 {
    if part == 0.0 { low } else { low + (high - low) * part }
}
