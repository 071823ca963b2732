//! The fraction of rows that a predicate keeps.

use hashbrown::HashMap;

use super::estimate::{ColumnEstimate, Estimate, number};
use crate::{BinaryOp, ColumnId, Expr, Literal, UnaryOp, Value};

/// A range whose bounds are unknown.
const RANGE: f64 = 1.0 / 3.0;
/// `a < b` over two columns.
const COMPARE_COLUMNS: f64 = 0.5;
/// `LIKE '%x%'`.
const CONTAINS: f64 = 0.06;
/// Anything else.
const UNKNOWN: f64 = 0.3;
/// No predicate keeps less.
const LEAST: f64 = 1e-7;

/// The part of a column's range that conjuncts leave.
#[derive(Clone, Copy)]
struct Interval {
    low: f64,
    high: f64,
}

/// Reduces `estimate` by the conjuncts; ranges over one column are taken together.
pub fn apply(conjuncts: &[Expr], estimate: &mut Estimate) {
    let mut intervals: HashMap<ColumnId, Interval> = HashMap::new();
    let mut kept = 1.0;
    let mut pinned: Vec<(ColumnId, f64)> = Vec::new();
    for conjunct in conjuncts {
        if narrow(conjunct, estimate, &mut intervals) {
            continue;
        }
        let share = of(conjunct, estimate);
        kept *= share;
        if let Some((id, values)) = values_kept(conjunct, estimate, share) {
            pinned.push((id, values));
        }
    }
    for (id, interval) in &intervals {
        let Some(column) = estimate.columns.get_mut(id) else { continue };
        let share = share_of(column, *interval);
        kept *= share * (1.0 - column.nulls);
        pinned.push((*id, (column.distinct * share).max(1.0)));
        (column.min, column.max) = (Some(interval.low), Some(interval.high));
    }
    if conjuncts.is_empty() {
        return;
    }
    estimate.reduce(kept.clamp(LEAST, 1.0));
    for (id, values) in pinned {
        if let Some(column) = estimate.columns.get_mut(&id) {
            column.distinct = column.distinct.min(values).max(1.0);
        }
    }
    estimate.cap();
}

/// How many values of its only column a predicate leaves, if it speaks of values and not of rows.
fn values_kept(conjunct: &Expr, estimate: &Estimate, share: f64) -> Option<(ColumnId, f64)> {
    let columns = conjunct.columns();
    let [id] = columns.as_slice() else { return None };
    let column = estimate.columns.get(id)?;
    Some((*id, (column.distinct * share).max(1.0)))
}

/// Takes `column op literal` into the column's interval; false if the conjunct is no such thing.
fn narrow(conjunct: &Expr, estimate: &Estimate, intervals: &mut HashMap<ColumnId, Interval>) -> bool {
    let Some((op, id, literal)) = comparison(conjunct) else { return false };
    let Some(column) = estimate.columns.get(&id) else { return false };
    let (Some(min), Some(max), Some(value)) = (column.min, column.max, number(&literal.value, literal.ty)) else { return false };
    if !matches!(op, BinaryOp::Lt | BinaryOp::LtEq | BinaryOp::Gt | BinaryOp::GtEq) {
        return false;
    }
    let interval = intervals.entry(id).or_insert(Interval { low: min, high: max });
    match op {
        BinaryOp::Lt | BinaryOp::LtEq => interval.high = interval.high.min(value),
        _ => interval.low = interval.low.max(value),
    }
    true
}

fn share_of(column: &ColumnEstimate, interval: Interval) -> f64 {
    let (Some(min), Some(max)) = (column.min, column.max) else { return RANGE };
    if interval.high < interval.low {
        return LEAST;
    }
    if max <= min {
        return 1.0;
    }
    // One value is a step of its own: `x <= min` keeps the rows of that value.
    let step = (max - min) / column.distinct.max(1.0);
    ((interval.high - interval.low + step) / (max - min + step)).clamp(1.0 / column.distinct.max(1.0), 1.0)
}

/// `column op literal`, either way round.
fn comparison(expr: &Expr) -> Option<(BinaryOp, ColumnId, &Literal)> {
    let Expr::Binary { op, left, right, .. } = expr else { return None };
    match (bare(left), bare(right)) {
        (Expr::Column(id, _), Expr::Literal(literal)) => Some((*op, *id, literal)),
        (Expr::Literal(literal), Expr::Column(id, _)) => Some((op.mirrored()?, *id, literal)),
        _ => None,
    }
}

/// Without casts.
fn bare(expr: &Expr) -> &Expr {
    match expr {
        Expr::Cast { input, .. } => bare(input),
        other => other,
    }
}

/// The fraction of rows for which `expr` is true.
pub fn of(expr: &Expr, estimate: &Estimate) -> f64 {
    let share = match expr {
        Expr::Literal(Literal { value: Value::Bool(true), .. }) => 1.0,
        Expr::Literal(_) => LEAST,
        Expr::Binary { op: BinaryOp::And, .. } => {
            let mut conjuncts = Vec::new();
            super::predicates::split_conjuncts(expr.clone(), &mut conjuncts);
            let mut copy = Estimate { rows: 1e12, unfiltered: 1e12, columns: estimate.columns.clone() };
            apply(&conjuncts, &mut copy);
            copy.rows / 1e12
        }
        Expr::Binary { op: BinaryOp::Or, left, right, .. } => {
            let (left, right) = (of(left, estimate), of(right, estimate));
            left + right - left * right
        }
        Expr::Binary { op, left, right, .. } => compare(*op, left, right, expr, estimate),
        Expr::Unary { op: UnaryOp::Not, input } => 1.0 - of(input, estimate),
        Expr::Unary { op, input } => null_test(*op, input, estimate),
        Expr::InList { input, list, negated } => {
            let one = 1.0 / estimate.distinct(input);
            let share = (one * list.len() as f64).min(0.9);
            if *negated { 1.0 - share } else { share }
        }
        Expr::Like { input, pattern, negated, .. } => {
            let share = like(input, pattern, estimate);
            if *negated { 1.0 - share } else { share }
        }
        _ => UNKNOWN,
    };
    share.clamp(LEAST, 1.0)
}

fn compare(op: BinaryOp, left: &Expr, right: &Expr, whole: &Expr, estimate: &Estimate) -> f64 {
    let columns = (!left.columns().is_empty(), !right.columns().is_empty());
    let equal = || {
        let widest = estimate.distinct(left).max(estimate.distinct(right));
        1.0 / widest.max(1.0)
    };
    match op {
        BinaryOp::Eq | BinaryOp::IsNotDistinctFrom => match comparison(whole) {
            Some((_, id, literal)) => outside(id, literal, estimate).unwrap_or_else(equal),
            None => equal(),
        },
        BinaryOp::NotEq | BinaryOp::IsDistinctFrom => 1.0 - equal(),
        BinaryOp::Lt | BinaryOp::LtEq | BinaryOp::Gt | BinaryOp::GtEq => match comparison(whole) {
            Some((op, id, literal)) => range(op, id, literal, estimate),
            None if columns.0 && columns.1 => COMPARE_COLUMNS,
            None => RANGE,
        },
        BinaryOp::RegexMatch | BinaryOp::RegexIMatch => CONTAINS,
        BinaryOp::RegexNotMatch | BinaryOp::RegexNotIMatch => 1.0 - CONTAINS,
        _ => UNKNOWN,
    }
}

/// Almost nothing equals a value outside the column's range.
fn outside(id: ColumnId, literal: &Literal, estimate: &Estimate) -> Option<f64> {
    let column = estimate.columns.get(&id)?;
    let value = number(&literal.value, literal.ty)?;
    (value < column.min? || value > column.max?).then_some(LEAST)
}

fn range(op: BinaryOp, id: ColumnId, literal: &Literal, estimate: &Estimate) -> f64 {
    let Some(column) = estimate.columns.get(&id) else { return RANGE };
    let Some(value) = number(&literal.value, literal.ty) else { return RANGE };
    let above = matches!(op, BinaryOp::Gt | BinaryOp::GtEq);
    if let (Some(min), Some(max)) = (column.min, column.max) {
        let interval =
            if above { Interval { low: min.max(value), high: max } } else { Interval { low: min, high: max.min(value) } };
        return share_of(column, interval);
    }
    match column.mean {
        // The result of an aggregate: thought to be distributed exponentially around its mean.
        Some(mean) if mean > 0.0 && value > 0.0 => {
            let more = (-value / mean).exp().clamp(1e-4, 1.0);
            if above { more } else { 1.0 - more }
        }
        _ => RANGE,
    }
}

fn null_test(op: UnaryOp, input: &Expr, estimate: &Estimate) -> f64 {
    let nulls = input.as_column().and_then(|id| estimate.columns.get(&id)).map_or(0.05, |c| c.nulls);
    match op {
        UnaryOp::IsNull | UnaryOp::IsUnknown => nulls,
        UnaryOp::IsNotNull | UnaryOp::IsNotUnknown => 1.0 - nulls,
        UnaryOp::IsTrue => of(input, estimate),
        UnaryOp::IsNotTrue => 1.0 - of(input, estimate),
        UnaryOp::IsFalse => 1.0 - of(input, estimate),
        UnaryOp::IsNotFalse => of(input, estimate),
        UnaryOp::Not | UnaryOp::Negate => UNKNOWN,
    }
}

fn like(input: &Expr, pattern: &Expr, estimate: &Estimate) -> f64 {
    let Expr::Literal(Literal { value: Value::Str(pattern), .. }) = pattern else { return CONTAINS };
    let distinct = estimate.distinct(input);
    let pieces = pattern.split('%').filter(|p| !p.is_empty()).count();
    if pieces == 0 {
        return 0.95;
    }
    if !pattern.contains(['%', '_']) {
        return 1.0 / distinct;
    }
    // With few distinct values a pattern keeps at least one of them, and rarely less than a fifth of a small dictionary.
    let few = if distinct < 1000.0 { (distinct.sqrt() / distinct).min(0.2) } else { 0.0 };
    if !pattern.starts_with('%') {
        let length = pattern.find(['%', '_']).unwrap_or(0).min(8) as i32;
        return (0.35f64.powi(length).max(0.01)).max(few);
    }
    CONTAINS.powf(1.0 + 0.3 * (pieces as f64 - 1.0)).max(few)
}
