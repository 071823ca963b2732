//! Where a join runs, and which of its inputs move.

use super::{Place, equates, exchange, merged, place};
use crate::{ColumnId, ExchangeKind, Expr, Join, JoinKind, Node, NodeId, Plan, Side};

/// Keys that a place remembers at most; more would only cost time.
const MAX_KEYS: usize = 16;

pub(super) fn place_join(id: NodeId, rows: f64, join: Join) -> (Plan, Place) {
    let Join { kind, left, right, on, null_equals_null, residual, build, publishes } = join;
    let (left, left_place) = place(left);
    let (right, right_place) = place(right);
    let shape = Shape { kind: &kind, on: &on, build, rows: (left.rows, right.rows), publishes: !publishes.is_empty() };
    let decision = decide(&shape, &left_place, &right_place);
    let (left, right, place) = match decision {
        Decision::Stay(place) => (left, right, place),
        Decision::Broadcast(Side::Left, place) => (exchange(left, ExchangeKind::Broadcast), right, place),
        Decision::Broadcast(Side::Right, place) => (left, exchange(right, ExchangeKind::Broadcast), place),
        Decision::Swap(side, place) => {
            return swapped(id, rows, (left, right), side, place, (kind, on, null_equals_null, residual));
        }
        Decision::Merge => (merged(left, &left_place), merged(right, &right_place), Place::Merged),
    };
    let join = Join { kind, left, right, on, null_equals_null, residual, build, publishes };
    (Plan { id, rows, node: Node::Join(Box::new(join)) }, place)
}

type Rest = (JoinKind, Vec<(Expr, Expr)>, bool, Option<Expr>);

/// The join with the build side on `side`, which is broadcast. Its run-time filters go: they were about the other side's keys.
fn swapped(id: NodeId, rows: f64, inputs: (Plan, Plan), side: Side, place: Place, rest: Rest) -> (Plan, Place) {
    let (left, right) = match side {
        Side::Left => (exchange(inputs.0, ExchangeKind::Broadcast), inputs.1),
        Side::Right => (inputs.0, exchange(inputs.1, ExchangeKind::Broadcast)),
    };
    let (kind, on, null_equals_null, residual) = rest;
    let join = Join { kind, left, right, on, null_equals_null, residual, build: side, publishes: vec![] };
    (Plan { id, rows, node: Node::Join(Box::new(join)) }, place)
}

struct Shape<'a> {
    kind: &'a JoinKind,
    on: &'a [(Expr, Expr)],
    build: Side,
    rows: (f64, f64),
    publishes: bool,
}

#[derive(Debug, PartialEq)]
enum Decision {
    /// Both inputs are where they are needed.
    Stay(Place),
    /// The build side goes to every fragment.
    Broadcast(Side, Place),
    /// The other side becomes the build side and goes to every fragment.
    Swap(Side, Place),
    /// Both inputs go to the merging fragment.
    Merge,
}

/// Whether the join emits rows of `side` by themselves (unmatched, or once if marked): then each must be in one fragment only,
/// together with all that may match it.
fn emits(kind: &JoinKind, side: Side) -> bool {
    match kind {
        JoinKind::Inner => false,
        JoinKind::Full => true,
        JoinKind::Left | JoinKind::LeftSemi | JoinKind::LeftAnti | JoinKind::LeftMark(_) => side == Side::Left,
        JoinKind::Right | JoinKind::RightSemi | JoinKind::RightAnti => side == Side::Right,
    }
}

fn decide(shape: &Shape<'_>, left: &Place, right: &Place) -> Decision {
    use Place::{Everywhere, Merged, Partitioned};
    match (left, right) {
        (Everywhere, Everywhere) => Decision::Stay(Everywhere),
        (Merged | Everywhere, Merged | Everywhere) => Decision::Stay(Merged),
        (Partitioned(l), Partitioned(r)) => match collocated(shape, l, r) {
            Some(place) => Decision::Stay(place),
            None => move_one(shape, left, right),
        },
        (Partitioned(_), Everywhere) if !emits(shape.kind, Side::Right) => Decision::Stay(surviving(shape, left, Side::Left)),
        (Everywhere, Partitioned(_)) if !emits(shape.kind, Side::Left) => Decision::Stay(surviving(shape, right, Side::Right)),
        (Partitioned(_), Merged) | (Merged, Partitioned(_)) => move_one(shape, left, right),
        (Partitioned(_), Everywhere) | (Everywhere, Partitioned(_)) => Decision::Merge,
    }
}

/// Broadcasts the build side if that is legal; otherwise swaps sides or merges, whichever moves less.
fn move_one(shape: &Shape<'_>, left: &Place, right: &Place) -> Decision {
    let place_of = |side| if side == Side::Left { left } else { right };
    let other = |side| if side == Side::Left { Side::Right } else { Side::Left };
    let rows_of = |side| if side == Side::Left { shape.rows.0 } else { shape.rows.1 };
    let (build, probe) = (shape.build, other(shape.build));
    let legal = |side: Side| !emits(shape.kind, side) && matches!(place_of(other(side)), Place::Partitioned(_));
    if legal(build) {
        return Decision::Broadcast(build, surviving(shape, place_of(probe), probe));
    }
    // The estimate of the probe side does not know of the run-time filters that the build side may publish to it.
    let margin = if shape.publishes { 1.0 } else { 4.0 };
    if legal(probe) && rows_of(probe) <= margin * rows_of(build) {
        return Decision::Swap(probe, surviving(shape, place_of(build), build));
    }
    Decision::Merge
}

/// How the result is partitioned where `side` stays and the other side is in every fragment.
fn surviving(shape: &Shape<'_>, place: &Place, side: Side) -> Place {
    let Place::Partitioned(keys) = place else { return place.clone() };
    let kept = match shape.kind {
        // The rows of the side that is padded with NULLs are still where they were, their columns tell.
        JoinKind::Full => return Place::Partitioned(vec![]),
        _ => keys.clone(),
    };
    match shape.kind {
        JoinKind::Inner => Place::Partitioned(with_equals(kept, shape.on, side)),
        _ => Place::Partitioned(kept),
    }
}

/// Adds, for every key, those with columns replaced by the other side's equal columns.
fn with_equals(mut keys: Vec<Vec<ColumnId>>, on: &[(Expr, Expr)], side: Side) -> Vec<Vec<ColumnId>> {
    let mut at = 0;
    while at < keys.len() && keys.len() < MAX_KEYS {
        for (left, right) in on {
            let (mine, theirs) = if side == Side::Left { (left, right) } else { (right, left) };
            let (Some(mine), Some(theirs)) = (mine.as_column(), theirs.as_column()) else { continue };
            let Some(position) = keys[at].iter().position(|id| *id == mine) else { continue };
            let mut key = keys[at].clone();
            key[position] = theirs;
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        at += 1;
    }
    keys
}

/// How the result is partitioned if the equalities cover both sides' shard keys in corresponding order.
fn collocated(shape: &Shape<'_>, left: &[Vec<ColumnId>], right: &[Vec<ColumnId>]) -> Option<Place> {
    let matches = |l: &Vec<ColumnId>, r: &Vec<ColumnId>| {
        !l.is_empty() && l.len() == r.len() && l.iter().zip(r).all(|(l, r)| equates(shape.on, *l, *r))
    };
    if !left.iter().any(|l| right.iter().any(|r| matches(l, r))) {
        return None;
    }
    let keys = match shape.kind {
        JoinKind::Inner => {
            let mut keys = with_equals(left.to_vec(), shape.on, Side::Left);
            for key in with_equals(right.to_vec(), shape.on, Side::Right) {
                if !keys.contains(&key) && keys.len() < MAX_KEYS {
                    keys.push(key);
                }
            }
            keys
        }
        JoinKind::Left | JoinKind::LeftSemi | JoinKind::LeftAnti | JoinKind::LeftMark(_) => left.to_vec(),
        JoinKind::Right | JoinKind::RightSemi | JoinKind::RightAnti => right.to_vec(),
        JoinKind::Full => vec![],
    };
    Some(Place::Partitioned(keys))
}
