//! Where a join runs, and which of its inputs move.

use super::{Net, Place, awaits_filters, can_route, equates, exchange, merged, place_input};
use crate::{ColumnId, DataType, ExchangeKind, Expr, Join, JoinKind, Node, NodeId, Plan, Side};

/// Keys that a place remembers at most; more would only cost time.
const MAX_KEYS: usize = 16;

pub(super) fn place_join(id: NodeId, rows: f64, join: Join, net: Net) -> (Plan, Place) {
    let Join { kind, left, right, on, null_equals_null, residual, build, publishes } = join;
    let (left, left_place) = place_input(left, net);
    let (right, right_place) = place_input(right, net);
    let (bytes, rows_of) = ((bytes(&left), bytes(&right)), (left.rows, right.rows));
    let filtered = awaits_filters(&left) || awaits_filters(&right);
    let shape = Shape { kind: &kind, on: &on, build, rows: rows_of, bytes, publishes: !publishes.is_empty(), filtered, net };
    let decision = decide(&shape, &left_place, &right_place);
    let (left, right, place) = match decision {
        Decision::Stay(place) => (left, right, place),
        Decision::Broadcast(Side::Left, place) => (exchange(left, ExchangeKind::Broadcast), right, place),
        Decision::Broadcast(Side::Right, place) => (left, exchange(right, ExchangeKind::Broadcast), place),
        Decision::Swap(side, place) => {
            return swapped(id, rows, (left, right), side, place, (kind, on, null_equals_null, residual));
        }
        Decision::Route(Side::Left, keys, place) => (exchange(left, ExchangeKind::Shuffle(keys)), right, place),
        Decision::Route(Side::Right, keys, place) => (left, exchange(right, ExchangeKind::Shuffle(keys)), place),
        Decision::Shuffle(keys, place) => {
            let left = exchange(left, ExchangeKind::Shuffle(keys.0));
            let right = exchange(right, ExchangeKind::Shuffle(keys.1));
            // The other side's rows are on their way before the keys of this one are known.
            let join = Join { kind, left, right, on, null_equals_null, residual, build, publishes: vec![] };
            return (Plan { id, rows, node: Node::Join(Box::new(join)) }, place);
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
    /// Of both sides, about.
    bytes: (f64, f64),
    publishes: bool,
    /// Run-time filters from above, or from this join, would thin out what it reads.
    filtered: bool,
    net: Net,
}

/// About how many bytes the rows of a plan are.
fn bytes(plan: &Plan) -> f64 {
    plan.rows * row_bytes(plan.fields().iter().map(|field| field.ty))
}

/// About how many bytes a row of these types is.
pub(crate) fn row_bytes(types: impl Iterator<Item = DataType>) -> f64 {
    let width = |ty| if matches!(ty, DataType::Utf8 | DataType::Binary) { 24.0 } else { 8.0 };
    types.map(width).sum::<f64>().max(8.0)
}

#[derive(Debug, PartialEq)]
enum Decision {
    /// Both inputs are where they are needed.
    Stay(Place),
    /// The build side goes to every fragment.
    Broadcast(Side, Place),
    /// The other side becomes the build side and goes to every fragment.
    Swap(Side, Place),
    /// The build side goes to the leaves that have the partitions of its keys, by which the other side is sharded.
    Route(Side, Vec<Expr>, Place),
    /// Both sides go to the leaves that have the partitions of their keys.
    Shuffle((Vec<Expr>, Vec<Expr>), Place),
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

/// Whether each left row must see all right rows, and not only those with its keys: one NULL among them makes every `IN` that is not
/// true unknown.
fn needs_all(kind: &JoinKind) -> bool {
    matches!(kind, JoinKind::LeftMark(mark) if mark.nullable)
}

fn decide(shape: &Shape<'_>, left: &Place, right: &Place) -> Decision {
    use Place::{Everywhere, Merged, Partitioned, Spread};
    match (left, right) {
        (Everywhere, Everywhere) => Decision::Stay(Everywhere),
        (Merged | Everywhere, Merged | Everywhere) => Decision::Stay(Merged),
        (Partitioned(l), Partitioned(r)) | (Spread(l), Spread(r)) => match collocated(shape, l, r) {
            Some(keys) => Decision::Stay(left.with_keys(keys)),
            None => cheapest(shape, left, right),
        },
        (Partitioned(_), Spread(_)) | (Spread(_), Partitioned(_)) => cheapest(shape, left, right),
        (_, Everywhere) if !emits(shape.kind, Side::Right) => Decision::Stay(surviving(shape, left, Side::Left)),
        (Everywhere, _) if !emits(shape.kind, Side::Left) => Decision::Stay(surviving(shape, right, Side::Right)),
        (_, Merged) | (Merged, _) => move_one(shape, left, right),
        (_, Everywhere) | (Everywhere, _) => Decision::Merge,
    }
}

/// Shuffles where that moves less than what else could be done.
fn cheapest(shape: &Shape<'_>, left: &Place, right: &Place) -> Decision {
    let otherwise = move_one(shape, left, right);
    let leaves = shape.net.leaves as f64;
    if shape.net.leaves < 2 && !shape.net.always_shuffle {
        return otherwise;
    }
    let Some(keys) = shuffle_keys(shape, left, right) else { return otherwise };
    let bytes_of = |side| if side == Side::Left { shape.bytes.0 } else { shape.bytes.1 };
    if let Decision::Broadcast(side, place) = &otherwise
        && let (probe, columns) = if *side == Side::Left { (right, &keys.right) } else { (left, &keys.left) }
        && matches!(probe, Place::Partitioned(_))
        && is_key(probe, columns)
        && !shape.net.always_shuffle
    {
        let exprs = if *side == Side::Left { keys.exprs.0 } else { keys.exprs.1 };
        return Decision::Route(*side, exprs, place.clone());
    }
    let cost = match &otherwise {
        Decision::Broadcast(side, _) | Decision::Swap(side, _) => bytes_of(*side) * (leaves - 1.0),
        _ => shape.bytes.0 + shape.bytes.1,
    };
    // Rows that are in the right place already are only read once more. What is shuffled is written, sent and read, by all leaves at
    // once, and loses the run-time filters of the join.
    let moves = |place: &Place, columns: &[ColumnId], bytes: f64| {
        bytes * if is_key(place, columns) { 0.2 } else { (leaves - 1.0) / leaves }
    };
    let shuffled = moves(left, &keys.left, shape.bytes.0) + moves(right, &keys.right, shape.bytes.1);
    if shape.net.always_shuffle || (!shape.filtered && 2.0 * shuffled < cost) {
        let place = Place::Spread(keys_after(shape, &[keys.left], &[keys.right]));
        return Decision::Shuffle(keys.exprs, place);
    }
    otherwise
}

/// The keys by which both sides can be shuffled.
struct ShuffleKeys {
    left: Vec<ColumnId>,
    right: Vec<ColumnId>,
    exprs: (Vec<Expr>, Vec<Expr>),
}

/// The equal columns of the join: in the order of one side's shard key if that is among them, so that this side stays where it is.
fn shuffle_keys(shape: &Shape<'_>, left: &Place, right: &Place) -> Option<ShuffleKeys> {
    if needs_all(shape.kind) {
        return None;
    }
    let columns = |(l, r): &(Expr, Expr)| {
        let same = l.data_type() == r.data_type() && can_route(l.data_type());
        Some((l.as_column()?, r.as_column()?, l.data_type())).filter(|_| same)
    };
    let pairs: Vec<(ColumnId, ColumnId, DataType)> = shape.on.iter().filter_map(columns).collect();
    let in_order = |key: &Vec<ColumnId>, is: &dyn Fn(&(ColumnId, ColumnId, DataType)) -> ColumnId| {
        let found: Option<Vec<_>> = key.iter().map(|id| pairs.iter().find(|pair| is(pair) == *id).copied()).collect();
        found.filter(|found| !found.is_empty())
    };
    let aligned = left.keys().iter().find_map(|key| in_order(key, &|pair| pair.0));
    let aligned = aligned.or_else(|| right.keys().iter().find_map(|key| in_order(key, &|pair| pair.1)));
    let pairs = aligned.unwrap_or(pairs);
    (!pairs.is_empty()).then(|| ShuffleKeys {
        left: pairs.iter().map(|pair| pair.0).collect(),
        right: pairs.iter().map(|pair| pair.1).collect(),
        exprs: (
            pairs.iter().map(|pair| Expr::Column(pair.0, pair.2)).collect(),
            pairs.iter().map(|pair| Expr::Column(pair.1, pair.2)).collect(),
        ),
    })
}

/// Whether rows are on the leaves by the hash of exactly these columns.
fn is_key(place: &Place, columns: &[ColumnId]) -> bool {
    place.keys().iter().any(|key| key == columns)
}

/// Broadcasts the build side if that is legal; otherwise swaps sides or merges, whichever moves less.
fn move_one(shape: &Shape<'_>, left: &Place, right: &Place) -> Decision {
    let place_of = |side| if side == Side::Left { left } else { right };
    let other = |side| if side == Side::Left { Side::Right } else { Side::Left };
    let rows_of = |side| if side == Side::Left { shape.rows.0 } else { shape.rows.1 };
    let (build, probe) = (shape.build, other(shape.build));
    let legal = |side: Side| !emits(shape.kind, side) && place_of(other(side)).is_apart();
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
    match shape.kind {
        // The rows of the side that is padded with NULLs are still where they were, their columns tell.
        JoinKind::Full => place.with_keys(vec![]),
        JoinKind::Inner => place.with_keys(with_equals(place.keys().to_vec(), shape.on, side)),
        _ => place.clone(),
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

/// By which columns the result is apart if the equalities cover both sides' keys in corresponding order.
fn collocated(shape: &Shape<'_>, left: &[Vec<ColumnId>], right: &[Vec<ColumnId>]) -> Option<Vec<Vec<ColumnId>>> {
    if needs_all(shape.kind) {
        return None;
    }
    let matches = |l: &Vec<ColumnId>, r: &Vec<ColumnId>| {
        !l.is_empty() && l.len() == r.len() && l.iter().zip(r).all(|(l, r)| equates(shape.on, *l, *r))
    };
    left.iter().any(|l| right.iter().any(|r| matches(l, r))).then(|| keys_after(shape, left, right))
}

/// By which columns the result of a join is apart whose sides are apart by these, which are equal.
fn keys_after(shape: &Shape<'_>, left: &[Vec<ColumnId>], right: &[Vec<ColumnId>]) -> Vec<Vec<ColumnId>> {
    match shape.kind {
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
    }
}
