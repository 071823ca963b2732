//! Eager aggregation: what counts the rows of the padded side of an outer join counts them below it, where that side has several rows
//! a key (Yan and Larson, "Eager aggregation and lazy aggregation", VLDB 1995).
//!
//! Rows of that side with equal keys meet the same rows of the other one. So they can be counted before they meet them; above the join
//! those counts are added up, and a row that met nothing adds none.

use super::estimate::Estimator;
use super::predicates::is_volatile;
use super::pushdown::filtered;
use crate::{
    Aggregate, AggregateCall, AggregateFunction, ColumnId, DataType, Expr, Field, Join, JoinKind, Literal, Node, Phase, Plan,
    Query, Side, Value,
};

/// Rows a key, about, from which on it is worth an aggregation.
const WORTHWHILE: f64 = 4.0;

/// Runs the rule on all plans of the query.
pub fn run(query: &mut Query, estimator: &Estimator<'_>) {
    let mut next = query.next_column();
    for plan in query.plans_mut() {
        plan.walk_mut(&mut |node| {
            if let Node::Aggregate(aggregate) = &mut node.node {
                split(aggregate, estimator, &mut next);
            }
        });
    }
}

/// Counts below the join what can be counted there.
fn split(aggregate: &mut Aggregate, estimator: &Estimator<'_>, next: &mut ColumnId) {
    let Aggregate { input, keys, grouping_sets, calls, phase, .. } = aggregate;
    let Node::Join(join) = &mut input.node else { return };
    let Some(side) = padded(join) else { return };
    if *phase != Phase::Single || !grouping_sets.is_empty() || keys.is_empty() || calls.is_empty() {
        return;
    }
    let fields = join.side(side).fields();
    let is_there = |id: &ColumnId| fields.iter().any(|field| field.id == *id);
    let stays = |e: &Expr| !e.columns().iter().any(is_there) && !is_volatile(e);
    let goes = |e: &Expr| e.columns().iter().all(is_there) && !is_volatile(e);
    // Of anything but a column it is not said that it is NULL in a row that was padded.
    let counts = |call: &AggregateCall| adds_up(call) && call.args.iter().all(|e| e.as_column().is_some_and(|id| is_there(&id)));
    if !keys.iter().all(|(_, e)| stays(e)) || !calls.iter().all(|(_, call)| counts(call)) || !join.residual.iter().all(goes) {
        return;
    }
    let keys: Option<Vec<&Field>> =
        join.on.iter().map(|pair| key(if side == Side::Left { &pair.0 } else { &pair.1 }, &fields)).collect();
    let Some(keys) = keys.filter(|keys| !keys.is_empty()) else { return };
    let estimate = estimator.plan(join.side(side));
    let groups: f64 = keys.iter().map(|field| estimate.distinct(&Expr::Column(field.id, field.ty))).product();
    if estimate.rows >= WORTHWHILE * groups {
        count_below(join, side, &keys, calls, next);
    }
}

/// The side of an outer join whose columns are NULL where a row of the other one has no match.
fn padded(join: &Join) -> Option<Side> {
    match join.kind {
        JoinKind::Left if !join.null_equals_null => Some(Side::Right),
        JoinKind::Right if !join.null_equals_null => Some(Side::Left),
        _ => None,
    }
}

/// Whether the value of a group comes from the values of its parts.
fn adds_up(call: &AggregateCall) -> bool {
    let function = matches!(call.function, AggregateFunction::Count | AggregateFunction::Min | AggregateFunction::Max);
    function && !call.args.is_empty() && !call.distinct && call.filter.is_none() && call.order_by.is_empty()
}

/// A column by which rows can be grouped that are joined by it.
fn key<'a>(e: &Expr, fields: &'a [Field]) -> Option<&'a Field> {
    let field = fields.iter().find(|field| e.as_column() == Some(field.id))?;
    (!matches!(field.ty, DataType::Float32 | DataType::Float64)).then_some(field)
}

fn count_below(join: &mut Join, side: Side, keys: &[&Field], calls: &mut [(Field, AggregateCall)], next: &mut ColumnId) {
    let mut new = |name: &str, ty, nullable| {
        let id = *next;
        next.0 += 1;
        Field { id, name: name.to_owned(), ty, nullable }
    };
    let mut below = Vec::new();
    for (at, field) in keys.iter().enumerate() {
        let group = new(&field.name, field.ty, field.nullable);
        let joined = Expr::Column(group.id, group.ty);
        let (left, right) = &mut join.on[at];
        *(if side == Side::Left { left } else { right }) = joined;
        below.push((group, Expr::Column(field.id, field.ty)));
    }
    let mut parts = Vec::new();
    for (field, call) in calls {
        let part = new(&field.name, call.ty, true);
        let value = Expr::Column(part.id, part.ty);
        let own = call.clone();
        call.args = match own.function {
            AggregateFunction::Count => {
                call.function = AggregateFunction::Sum;
                let none = Expr::Literal(Literal { ty: part.ty, value: Value::Int(0) });
                vec![Expr::Function { name: "coalesce".to_owned(), args: vec![value, none], ty: part.ty }]
            }
            _ => vec![value],
        };
        parts.push((part, own));
    }
    let residual = join.residual.take().into_iter().collect();
    let padded = join.side_mut(side);
    let input = filtered(padded.take(), residual);
    let (grouping_sets, grouping_id) = (vec![], None);
    let aggregate = Aggregate { input, keys: below, grouping_sets, grouping_id, calls: parts, phase: Phase::Single };
    *padded = Plan::new(Node::Aggregate(Box::new(aggregate)));
}
