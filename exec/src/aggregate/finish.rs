//! Final values of aggregate calls.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BinaryArray, Float64Array, StringViewBuilder};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use stoa_plan::{AggregateFunction as F, DataType};

use super::by_group::ByGroup;
use super::calls::CallPlan;
use super::groups::Choice;
use super::moments::Moments;
use super::slot::{Ids, Slot};
use crate::expression::{bounds, from_i64, from_i128};
use crate::{Bounds, CancelToken, Error, Result};

pub(super) fn mismatch() -> Error {
    Error::Internal("an aggregate has slots of another".into())
}

/// The column of a call's final values.
pub(crate) fn finish(call: &CallPlan, slots: &[&Slot], groups: usize, cancel: &CancelToken) -> Result<ArrayRef> {
    cancel.check()?;
    let Some(inner) = &call.inner else { return plain(call, slots, groups, cancel) };
    let [Slot::Distinct(distinct)] = slots else { return Err(mismatch()) };
    if call.function == F::Count {
        return from_i64(distinct.counts(groups)?, None, call.ty);
    }
    let (ids, columns) = distinct.content()?;
    let choice = Choice { dense_bits: 0, pack: true, hash_zero: false, cancel: cancel.clone() };
    let mut fed = Vec::new();
    for (kind, positions) in inner {
        let types: Vec<_> = positions.iter().map(|p| (call.arg_types[*p], Bounds::default())).collect();
        let mut slot = Slot::new(kind, &types, false, choice.clone())?;
        slot.resize(groups);
        let args: Vec<ArrayRef> = positions.iter().map(|p| columns[*p].clone()).collect();
        slot.update(&Ids::Many(&ids), &args)?;
        fed.push(slot);
    }
    plain(call, &fed.iter().collect::<Vec<_>>(), groups, cancel)
}

fn plain(call: &CallPlan, slots: &[&Slot], groups: usize, cancel: &CancelToken) -> Result<ArrayRef> {
    let ty = call.ty;
    match (call.function, slots) {
        (_, [Slot::Count(counts)]) => from_i64(counts.0.clone(), None, ty),
        (F::Avg, [sums, Slot::Count(counts)]) => average(call, sums, &counts.0),
        (_, [Slot::Ints(ints), Slot::Count(counts)]) => {
            let values: Vec<Option<i128>> = counts.0.iter().enumerate().map(|(g, n)| (*n > 0).then(|| ints.get(g))).collect();
            integers(values, call.arg_types[0], ty, call.function)
        }
        (_, [Slot::Floats(floats), Slot::Count(counts)]) => {
            let array = floats.values.iter().zip(&counts.0).map(|(v, n)| (*n > 0).then_some(*v));
            as_type(Arc::new(array.collect::<Float64Array>()), ty)
        }
        (_, [Slot::Bytes(bytes)]) => {
            if call.arg_types[0] == DataType::Utf8 {
                let mut builder = StringViewBuilder::with_capacity(groups);
                bytes.values.iter().for_each(|v| builder.append_option(v.as_ref().map(|v| String::from_utf8_lossy(v))));
                return as_type(Arc::new(builder.finish()), ty);
            }
            as_type(Arc::new(bytes.values.iter().map(|v| v.as_deref()).collect::<BinaryArray>()), ty)
        }
        (function, [Slot::Moments(moments)]) => {
            let values = moments.0.iter().map(|m| statistic(function, m));
            as_type(Arc::new(values.collect::<Float64Array>()), ty)
        }
        (_, [Slot::Sketch(sketches)]) => from_i64((0..groups).map(|g| sketches.estimate(g) as i64).collect(), None, ty),
        (_, [Slot::Pick(picked)]) => as_type(picked.values()?, ty),
        (F::StringAgg, [Slot::Collect(rows)]) => ByGroup::new(call, rows, groups, cancel)?.strings(call, cancel),
        (F::FirstValue | F::LastValue, [Slot::Collect(rows)]) => ByGroup::new(call, rows, groups, cancel)?.picked(call),
        (_, [Slot::Collect(rows)]) => ByGroup::new(call, rows, groups, cancel)?.percentile(call, cancel),
        _ => Err(mismatch()),
    }
}

pub(super) fn as_type(array: ArrayRef, ty: DataType) -> Result<ArrayRef> {
    let target = ty.to_arrow();
    if *array.data_type() == target { Ok(array) } else { Ok(cast(&array, &target)?) }
}

/// Integers of one type as another: rescaled, checked.
pub(super) fn integers(values: Vec<Option<i128>>, from: DataType, ty: DataType, function: F) -> Result<ArrayRef> {
    let nulls = values.iter().any(Option::is_none).then(|| NullBuffer::from_iter(values.iter().map(Option::is_some)));
    let values = values.into_iter().map(Option::unwrap_or_default);
    let scale = bounds::scale(from);
    if matches!(ty, DataType::Float64 | DataType::Float32) {
        let unit = 10f64.powi(scale);
        let floats: ArrayRef = Arc::new(Float64Array::new(values.map(|v| v as f64 / unit).collect(), nulls));
        return as_type(floats, ty);
    }
    let limits = bounds::of_type(ty).ok_or_else(mismatch)?;
    let shift = bounds::scale(ty) - scale;
    let factor = bounds::power_of_ten(shift.max(0).unsigned_abs()).ok_or_else(mismatch)?;
    if shift < 0 {
        return Err(mismatch());
    }
    let fit = |v: i128| v.checked_mul(factor).filter(|v| *v >= limits.0 && *v <= limits.1);
    let checked: Option<Vec<i128>> = values.map(fit).collect();
    let checked = checked.ok_or_else(|| Error::User(format!("overflow in {}", format!("{function:?}").to_uppercase())))?;
    from_i128(checked, nulls, ty)
}

fn average(call: &CallPlan, sums: &Slot, counts: &[i64]) -> Result<ArrayRef> {
    let ints = match sums {
        Slot::Floats(floats) => {
            let values = floats.values.iter().zip(counts).map(|(v, n)| (*n > 0).then(|| v / *n as f64));
            return as_type(Arc::new(values.collect::<Float64Array>()), call.ty);
        }
        Slot::Ints(ints) => ints,
        _ => return Err(mismatch()),
    };
    let scale = bounds::scale(call.arg_types[0]);
    if let DataType::Decimal { scale: wanted, .. } = call.ty {
        let shift = u32::try_from(i32::from(wanted) - scale).ok().and_then(bounds::power_of_ten).ok_or_else(mismatch)?;
        let one = |(group, n): (usize, &i64)| {
            let sum = if *n > 0 { ints.get(group).checked_mul(shift) } else { Some(0) };
            sum.map(|v| (*n > 0).then(|| v / i128::from(*n))).ok_or_else(|| Error::User("overflow in AVG".into()))
        };
        let values = counts.iter().enumerate().map(one).collect::<Result<Vec<_>>>()?;
        return integers(values, call.ty, call.ty, F::Avg);
    }
    let unit = 10f64.powi(scale);
    let values = counts.iter().enumerate().map(|(group, n)| (*n > 0).then(|| ints.get(group) as f64 / (unit * *n as f64)));
    as_type(Arc::new(values.collect::<Float64Array>()), call.ty)
}

/// A statistic; for two variables the first is the dependent one, `y`, as SQL's regression functions have it.
fn statistic(function: F, m: &Moments) -> Option<f64> {
    let (n, sxx, syy, sxy) = (m.n, m.yy, m.xx, m.xy);
    let (mean_x, mean_y) = (m.mean_y, m.mean_x);
    let some = n > 0.0;
    let two = n > 1.0;
    match function {
        F::VarPop => some.then(|| syy / n),
        F::VarSamp => two.then(|| syy / (n - 1.0)),
        F::StddevPop => some.then(|| (syy / n).sqrt()),
        F::StddevSamp => two.then(|| (syy / (n - 1.0)).sqrt()),
        F::CovarPop => some.then(|| sxy / n),
        F::CovarSamp => two.then(|| sxy / (n - 1.0)),
        F::Corr => (two && sxx > 0.0 && syy > 0.0).then(|| sxy / (sxx.sqrt() * syy.sqrt())),
        F::RegrSlope => (two && sxx > 0.0).then(|| sxy / sxx),
        F::RegrIntercept => (two && sxx > 0.0).then(|| mean_y - sxy / sxx * mean_x),
        F::RegrR2 if two && sxx > 0.0 => Some(if syy == 0.0 { 1.0 } else { sxy * sxy / (sxx * syy) }),
        F::RegrCount => Some(n),
        F::RegrAvgx => some.then_some(mean_x),
        F::RegrAvgy => some.then_some(mean_y),
        F::RegrSxx => some.then_some(sxx),
        F::RegrSyy => some.then_some(syy),
        F::RegrSxy => some.then_some(sxy),
        _ => None,
    }
}
