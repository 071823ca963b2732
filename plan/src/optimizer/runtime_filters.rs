//! Run-time filters: the keys of a join's build side, published when it is complete, thin out the scans below the probe side.
//!
//! A filter holds for a column where every row whose value is not among the keys is dropped further up. It goes down to the scan
//! that has the column, on the way also to the other side of joins that equate the column with theirs, and below aggregates
//! that group by it. It goes up too: what passed a join has only keys of its build side, so the other inputs of the joins above
//! that equate the column need no others. Which builds run first is the executor's choice; a filter that is not ready is skipped.

use hashbrown::HashSet;

use super::estimate::{Estimate, Estimator};
use crate::{ColumnId, DataType, Expr, FilterId, Join, JoinKind, Node, Plan, Query, Side};

/// A build side that keeps more than this of the probe side's keys is not worth a filter.
const WORTHWHILE: f64 = 0.8;

/// Assigns filters to all plans of the query.
pub fn run(query: &mut Query, estimator: &Estimator<'_>) {
    let mut next = 0;
    for plan in query.plans_mut() {
        assign(plan, estimator, &mut next);
        let mut used = HashSet::new();
        plan.walk(&mut |node| {
            if let Node::Scan(scan) = &node.node {
                used.extend(scan.runtime_filters.iter().map(|(id, _)| *id));
            }
        });
        plan.walk_mut(&mut |node| {
            if let Node::Join(join) = &mut node.node {
                join.publishes.retain(|(id, _)| used.contains(id));
            }
        });
    }
}

/// Filters that hold for a column in all rows of an output.
type Held = Vec<(FilterId, ColumnId)>;

fn assign(plan: &mut Plan, estimator: &Estimator<'_>, next: &mut u32) -> Held {
    let mut held: Vec<Held> = plan.inputs_mut().into_iter().map(|input| assign(input, estimator, next)).collect();
    match &mut plan.node {
        Node::Join(join) => {
            let right = held.pop().unwrap_or_default();
            let left = held.pop().unwrap_or_default();
            at_join(join, left, right, estimator, next)
        }
        Node::Filter { .. } | Node::Sort { .. } | Node::Limit { .. } | Node::Project { .. } => {
            let kept: HashSet<ColumnId> = plan.fields().iter().map(|f| f.id).collect();
            held.pop().unwrap_or_default().into_iter().filter(|(_, id)| kept.contains(id)).collect()
        }
        Node::Aggregate(aggregate) if aggregate.grouping_sets.is_empty() => {
            let renamed = |(filter, id): &(FilterId, ColumnId)| {
                let key = aggregate.keys.iter().find(|(_, e)| e.as_column() == Some(*id))?;
                Some((*filter, key.0.id))
            };
            held.pop().unwrap_or_default().iter().filter_map(renamed).collect()
        }
        _ => vec![],
    }
}

/// Whether rows of `side` without a match may be dropped before the join.
fn droppable(kind: &JoinKind, side: Side) -> bool {
    match kind {
        JoinKind::Inner | JoinKind::LeftSemi | JoinKind::RightSemi => true,
        JoinKind::Left | JoinKind::LeftAnti => side == Side::Right,
        JoinKind::Right | JoinKind::RightAnti => side == Side::Left,
        // A mark is NULL if the right side has a NULL: all of it must be seen.
        JoinKind::Full | JoinKind::LeftMark(_) => false,
    }
}

/// Whether `side`'s rows, in part, are the output (with their own columns never padded).
fn passes(kind: &JoinKind, side: Side) -> bool {
    match kind {
        JoinKind::Inner => true,
        JoinKind::Left | JoinKind::LeftSemi | JoinKind::LeftAnti | JoinKind::LeftMark(_) => side == Side::Left,
        JoinKind::Right | JoinKind::RightSemi | JoinKind::RightAnti => side == Side::Right,
        JoinKind::Full => false,
    }
}

fn at_join(join: &mut Join, left: Held, right: Held, estimator: &Estimator<'_>, next: &mut u32) -> Held {
    let (build_side, probe_side) = match join.build {
        Side::Left => (Side::Left, Side::Right),
        Side::Right => (Side::Right, Side::Left),
    };
    let mut held = Held::new();
    if !join.null_equals_null {
        // What holds in the probe side may thin the build side, whose rows are needed for those that pass only.
        let (probe_held, _) = if probe_side == Side::Left { (&left, &right) } else { (&right, &left) };
        if droppable(&join.kind, build_side) {
            for (filter, column) in probe_held.clone() {
                for other in equals(join, probe_side, column) {
                    push(join.side_mut(build_side), filter, other);
                }
            }
        }
        if droppable(&join.kind, probe_side) {
            held.extend(publish(join, build_side, probe_side, estimator, next));
        }
    }
    for (side, from) in [(Side::Left, left), (Side::Right, right)] {
        if passes(&join.kind, side) {
            held.extend(from);
        }
    }
    let fields: HashSet<ColumnId> = join.fields().iter().map(|f| f.id).collect();
    held.retain(|(_, id)| fields.contains(id));
    held
}

/// The bare columns that `join` equates with `column` of `side`.
fn equals(join: &Join, side: Side, column: ColumnId) -> Vec<ColumnId> {
    let pair = |(l, r): &(Expr, Expr)| {
        let (mine, other) = if side == Side::Left { (l, r) } else { (r, l) };
        (mine.as_column() == Some(column)).then(|| other.as_column()).flatten()
    };
    join.on.iter().filter_map(pair).collect()
}

fn publish(join: &mut Join, build_side: Side, probe_side: Side, estimator: &Estimator<'_>, next: &mut u32) -> Held {
    let build = estimator.plan(join.side(build_side));
    let probe = estimator.plan(join.side(probe_side));
    let mut held = Held::new();
    for at in 0..join.on.len() {
        let (l, r) = &join.on[at];
        let (key, probed) = if build_side == Side::Left { (l, r) } else { (r, l) };
        let Some(column) = probed.as_column() else { continue };
        if !filterable(probed.data_type()) || !worthwhile(key, probed, &build, &probe) {
            continue;
        }
        let key = key.as_column();
        let filter = FilterId(*next);
        if push(join.side_mut(probe_side), filter, column) || passes(&join.kind, probe_side) {
            *next += 1;
            join.publishes.push((filter, at as u32));
            held.push((filter, column));
            held.extend(key.map(|key| (filter, key)));
        }
    }
    held
}

fn filterable(ty: DataType) -> bool {
    use DataType as T;
    let integer = matches!(ty, T::Int8 | T::Int16 | T::Int32 | T::Int64 | T::UInt8 | T::UInt16 | T::UInt32 | T::UInt64);
    integer || matches!(ty, T::Date | T::Utf8)
}

/// Whether the keys are thought to leave few enough of the probed column's values.
fn worthwhile(key: &Expr, probed: &Expr, build: &Estimate, probe: &Estimate) -> bool {
    build.distinct(key) <= WORTHWHILE * probe.domain(probed)
}

/// Gives the filter to every scan below that may use it; whether there was one.
fn push(plan: &mut Plan, filter: FilterId, column: ColumnId) -> bool {
    match &mut plan.node {
        Node::Scan(scan) => {
            let has = scan.columns.iter().chain(&scan.filter_columns).any(|c| c.field.id == column);
            if has && !scan.runtime_filters.contains(&(filter, column)) {
                scan.runtime_filters.push((filter, column));
            }
            has
        }
        Node::Filter { input, .. } | Node::Sort { input, fetch: None, skip: 0, .. } | Node::Exchange { input, .. } => {
            push(input, filter, column)
        }
        Node::Project { input, exprs } => {
            let below = exprs.iter().find(|(field, _)| field.id == column).and_then(|(_, e)| e.as_column());
            below.is_some_and(|id| push(input, filter, id))
        }
        Node::Aggregate(aggregate) if aggregate.grouping_sets.is_empty() => {
            let below = aggregate.keys.iter().find(|(field, _)| field.id == column).and_then(|(_, e)| e.as_column());
            below.is_some_and(|id| push(&mut aggregate.input, filter, id))
        }
        Node::Union { inputs, fields } => {
            let Some(at) = fields.iter().position(|f| f.id == column) else { return false };
            let mut any = false;
            for (input, ids) in inputs {
                any |= ids.get(at).is_some_and(|id| push(input, filter, *id));
            }
            any
        }
        Node::Join(join) => push_join(join, filter, column),
        _ => false,
    }
}

fn push_join(join: &mut Join, filter: FilterId, column: ColumnId) -> bool {
    let mut any = false;
    for (side, other) in [(Side::Left, Side::Right), (Side::Right, Side::Left)] {
        let mine = join.side(side).fields().iter().any(|f| f.id == column);
        if !mine || !passes(&join.kind, side) {
            continue;
        }
        any |= push(join.side_mut(side), filter, column);
        // Rows of the other side with other keys match only rows that are dropped.
        if join.null_equals_null || !(droppable(&join.kind, other)) {
            continue;
        }
        for equal in equals(join, side, column) {
            any |= push(join.side_mut(other), filter, equal);
        }
    }
    any
}
