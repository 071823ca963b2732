//! Cuts a query into fragments: what runs once a partition, and the merge above it.
//!
//! Tables are hash-partitioned on their shard key. [`distribute`] follows where the rows of every node are ([`Place`]) and puts a
//! [`Node::Exchange`] wherever a node needs them elsewhere. What it keeps true:
//! - Every plan ends in the merging fragment: there is an exchange between its root and every scan of a partitioned table.
//! - A fragment runs once a partition if it reads a partitioned table without an exchange between ([`runs_per_partition`]), else once
//!   a leaf if it reads what was shuffled, else once.
//! - A shuffle sends a row to the leaf that has the partition of the hash of its keys, as if they were a shard key: rows with equal
//!   keys meet, and where the other side of a join is sharded by those keys they meet its rows without that one moving.
//! - A sort of rows that are apart is done where they are; above the gather what is in order is merged ([`sorted_below`]).
//! - No row of a result is made by two fragments: a join that emits unmatched or marked rows of its build side never has that side
//!   broadcast or replicated under a partitioned probe side.

pub(crate) mod joins;
#[cfg(test)]
mod tests;

use crate::{
    Aggregate, AggregateCall, AggregateFunction, ColumnId, DataType, ExchangeKind, Expr, Node, Phase, Plan, Query, Scan, SortKey,
};

/// Where the rows of a node are.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Place {
    /// In the merging fragment.
    Merged,
    /// Every fragment has, or may compute, all of them: REFERENCE tables, literal rows, shared subplans.
    Everywhere,
    /// Each in one partition's fragment. Each entry is a list of columns by whose hash they are partitioned, in shard key order.
    Partitioned(Vec<Vec<ColumnId>>),
    /// Each on one leaf, in a fragment that runs once there. Each entry is a list of columns by whose hash they were shuffled.
    Spread(Vec<Vec<ColumnId>>),
}

impl Place {
    /// Whether the rows are on the leaves, each in one fragment.
    fn is_apart(&self) -> bool {
        matches!(self, Place::Partitioned(_) | Place::Spread(_))
    }

    /// By which columns the rows are apart.
    fn keys(&self) -> &[Vec<ColumnId>] {
        match self {
            Place::Partitioned(keys) | Place::Spread(keys) => keys,
            Place::Merged | Place::Everywhere => &[],
        }
    }

    /// The same place, apart by other columns.
    fn with_keys(&self, keys: Vec<Vec<ColumnId>>) -> Place {
        match self {
            Place::Partitioned(_) => Place::Partitioned(keys),
            Place::Spread(_) => Place::Spread(keys),
            Place::Merged | Place::Everywhere => self.clone(),
        }
    }
}

/// Between what rows move.
#[derive(Clone, Copy, Debug)]
pub struct Net {
    /// Leaves; with 1 nothing moves.
    pub leaves: usize,
    /// Shuffle wherever that is possible: for tests of it.
    pub always_shuffle: bool,
}

/// One process: exchanges move nothing.
const ONE: Net = Net { leaves: 1, always_shuffle: false };

/// Groups that are merged on the leaves rather than where the query was asked, if there are more.
const MANY_GROUPS: f64 = 200_000.0;
/// The same of groups that are joined on the leaves.
const MANY_JOINED_GROUPS: f64 = 20_000.0;
/// The same of rows whose values the states of groups keep, one by one, if these are for enough groups to have all leaves merge some.
const MANY_VALUES: f64 = 50_000.0;
const ENOUGH_GROUPS: f64 = 100.0;

/// Adds exchanges, splits aggregates into phases, numbers the nodes.
#[must_use]
pub fn distribute(query: Query) -> Query {
    distribute_on(query, ONE)
}

fn distribute_on(mut query: Query, net: Net) -> Query {
    for plan in query.plans_mut() {
        let (placed, place) = place(plan.take(), net);
        *plan = merged(placed, &place);
    }
    query.number();
    query
}

/// As [`distribute`], for an engine whose merging fragment is not where the tables are: what it would read of them is gathered.
#[must_use]
pub fn distribute_over_leaves(query: Query, net: Net) -> Query {
    let mut query = distribute_on(query, net);
    query.plans_mut().into_iter().for_each(gather_tables);
    query.number();
    query
}

/// Puts a gather above the largest parts of a merging fragment that read tables and have no exchange in them.
fn gather_tables(plan: &mut Plan) {
    if let Node::Exchange { input, kind: ExchangeKind::Broadcast } = &mut plan.node
        && !runs_per_partition(input)
    {
        return gather_tables(input);
    }
    if let Node::Exchange { input, .. } = &mut plan.node {
        // A fragment of the leaves; what it is sent may again be a merging fragment's.
        return broadcasts(input);
    }
    let (mut exchanges, mut tables) = (false, false);
    plan.walk(&mut |node| match &node.node {
        Node::Exchange { .. } => exchanges = true,
        Node::Scan(_) => tables = true,
        _ => {}
    });
    match (exchanges, tables) {
        (false, true) => *plan = exchange(plan.take(), ExchangeKind::Gather),
        (false, false) => {}
        (true, _) => plan.inputs_mut().into_iter().for_each(gather_tables),
    }
}

fn broadcasts(plan: &mut Plan) {
    match &plan.node {
        Node::Exchange { .. } => gather_tables(plan),
        _ => plan.inputs_mut().into_iter().for_each(broadcasts),
    }
}

/// Where the rows of a plan without exchanges will be.
pub(crate) fn partitioning(plan: &Plan) -> Place {
    place(plan.clone(), ONE).1
}

/// Whether the fragment whose root is `plan` runs once a partition; otherwise it runs once. Does not look below exchanges.
#[must_use]
pub fn runs_per_partition(plan: &Plan) -> bool {
    match &plan.node {
        Node::Scan(scan) => !scan.reference,
        Node::Exchange { kind, .. } => matches!(kind, ExchangeKind::Shuffle(_)),
        _ => plan.inputs().into_iter().any(runs_per_partition),
    }
}

/// `plan` in the merging fragment.
fn merged(plan: Plan, place: &Place) -> Plan {
    match place {
        Place::Partitioned(_) | Place::Spread(_) => exchange(plan, ExchangeKind::Gather),
        Place::Merged | Place::Everywhere => plan,
    }
}

fn exchange(input: Plan, kind: ExchangeKind) -> Plan {
    Plan { id: input.id, rows: input.rows, node: Node::Exchange { input: Box::new(input), kind } }
}

fn place(plan: Plan, net: Net) -> (Plan, Place) {
    let Plan { id, rows, node } = plan;
    let again = |node| Plan { id, rows, node };
    match node {
        Node::Scan(scan) => {
            let place = scan_place(&scan);
            (again(Node::Scan(scan)), place)
        }
        node @ (Node::Values(_) | Node::SubplanScan(_)) => (again(node), Place::Everywhere),
        Node::Filter { input, predicate } => {
            let (input, place) = place(*input, net);
            (again(Node::Filter { input: Box::new(input), predicate }), place)
        }
        Node::Repeat { input, times } => {
            let (input, place) = place(*input, net);
            (again(Node::Repeat { input: Box::new(input), times }), place)
        }
        Node::Project { input, exprs } => {
            let (input, place) = place(*input, net);
            let place = rename(&place, &|id| exprs.iter().find(|(_, e)| e.as_column() == Some(id)).map(|(field, _)| field.id));
            (again(Node::Project { input: Box::new(input), exprs }), place)
        }
        Node::Join(join) => joins::place_join(id, rows, *join, net),
        Node::Aggregate(aggregate) => place_aggregate(again, *aggregate, (rows, MANY_GROUPS), net),
        Node::Sort { input, keys, fetch, skip } => {
            let (input, place) = place(*input, net);
            let below = |input, fetch| Node::Sort { input, keys: keys.clone(), fetch, skip: 0 };
            let keep = fetch.and_then(|fetch| fetch.checked_add(skip));
            let input = if place.is_apart() { first_rows(input, keep, below) } else { input };
            (again(Node::Sort { input: Box::new(input), keys, fetch, skip }), Place::Merged)
        }
        Node::Limit { input, fetch, skip } => {
            let (input, place) = place(*input, net);
            let below = |input, fetch| Node::Limit { input, fetch, skip: 0 };
            let input = match fetch.and_then(|fetch| fetch.checked_add(skip)) {
                Some(keep) if place.is_apart() => first_rows(input, Some(keep), below),
                _ => merged(input, &place),
            };
            (again(Node::Limit { input: Box::new(input), fetch, skip }), Place::Merged)
        }
        Node::Union { inputs, fields } => {
            let (inputs, place) = place_union(inputs, &fields, net);
            (again(Node::Union { inputs, fields }), place)
        }
        Node::Window { input, calls } => {
            let (input, place) = place(*input, net);
            let stays =
                calls.iter().all(|call| covers(&place, &|id| call.partition_by.iter().any(|e| e.as_column() == Some(id))));
            let (input, place) = if stays { (input, place) } else { (merged(input, &place), Place::Merged) };
            (again(Node::Window { input: Box::new(input), calls }), place)
        }
        node @ Node::Exchange { .. } => (again(node), Place::Merged),
    }
}

fn scan_place(scan: &Scan) -> Place {
    if scan.reference {
        return Place::Everywhere;
    }
    let column = |ordinal: &u32| scan.columns.iter().find(|c| c.ordinal == *ordinal).map(|c| c.field.id);
    let key: Option<Vec<ColumnId>> = scan.shard_key.iter().map(column).collect();
    Place::Partitioned(key.filter(|k| !k.is_empty()).into_iter().collect())
}

/// The place under new column names; keys with a column that has none are forgotten.
fn rename(place: &Place, new: &dyn Fn(ColumnId) -> Option<ColumnId>) -> Place {
    place.with_keys(place.keys().iter().filter_map(|key| key.iter().map(|id| new(*id)).collect()).collect())
}

/// Whether rows that agree on the columns `has` accepts are all in one fragment.
fn covers(place: &Place, has: &dyn Fn(ColumnId) -> bool) -> bool {
    match place {
        Place::Partitioned(keys) | Place::Spread(keys) => keys.iter().any(|key| key.iter().all(|id| has(*id))),
        Place::Merged | Place::Everywhere => true,
    }
}

/// A gather over `below`, by which each fragment sends the first `keep` of its rows, or all of them in order.
fn first_rows(input: Plan, keep: Option<u64>, below: impl FnOnce(Box<Plan>, Option<u64>) -> Node) -> Plan {
    let rows = keep.map_or(input.rows, |keep| input.rows.min(keep as f64));
    let first = Plan { id: input.id, rows, node: below(Box::new(input), keep) };
    exchange(first, ExchangeKind::Gather)
}

/// The sort of the fragments if a sort by `keys` over `input` has only to merge what each of them has sorted.
#[must_use]
pub fn sorted_below<'a>(input: &'a Plan, keys: &[SortKey]) -> Option<&'a Plan> {
    let Node::Exchange { input: below, kind: ExchangeKind::Gather } = &input.node else { return None };
    let Node::Sort { keys: own, skip: 0, .. } = &below.node else { return None };
    (own == keys).then_some(below)
}

/// An input of a join.
fn place_input(plan: Plan, net: Net) -> (Plan, Place) {
    let Plan { id, rows, node } = plan;
    let again = |node| Plan { id, rows, node };
    match node {
        Node::Aggregate(aggregate) => place_aggregate(again, *aggregate, (rows, MANY_JOINED_GROUPS), net),
        node => place(again(node), net),
    }
}

/// Of so many groups, which are merged on the leaves if there are more than the second number.
fn place_aggregate(again: impl Fn(Node) -> Plan, aggregate: Aggregate, (groups, most): (f64, f64), net: Net) -> (Plan, Place) {
    let Aggregate { input, keys, grouping_sets, grouping_id, calls, phase } = aggregate;
    let (input, place) = place(input, net);
    let build = |input, phase| {
        let (keys, grouping_sets) = (keys.clone(), grouping_sets.clone());
        let (grouping_id, calls) = (grouping_id.clone(), calls.clone());
        again(Node::Aggregate(Box::new(Aggregate { input, keys, grouping_sets, grouping_id, calls, phase })))
    };
    let has = |id| keys.iter().any(|(_, e)| e.as_column() == Some(id));
    let whole = grouping_sets.is_empty() && covers(&place, &has);
    if phase != Phase::Single || whole || !place.is_apart() {
        let after = rename(&place, &|id| keys.iter().find(|(_, e)| e.as_column() == Some(id)).map(|(field, _)| field.id));
        return (build(input, phase), after);
    }
    let values = if calls.iter().any(|(_, call)| keeps_values(call)) { input.rows } else { 0.0 };
    let partial = build(input, Phase::Partial);
    let many = net.leaves > 1 && (groups > most || values > MANY_VALUES && groups > ENOUGH_GROUPS);
    let many = net.always_shuffle || (many && !awaits_filters(&partial));
    if many && grouping_sets.is_empty() && !keys.is_empty() && keys.iter().all(|(field, _)| can_route(field.ty)) {
        let by = keys.iter().map(|(field, _)| Expr::Column(field.id, field.ty)).collect();
        let place = Place::Spread(vec![keys.iter().map(|(field, _)| field.id).collect()]);
        return (build(exchange(partial, ExchangeKind::Shuffle(by)), Phase::Final), place);
    }
    (build(exchange(partial, ExchangeKind::Gather), Phase::Final), Place::Merged)
}

/// Whether the state of a group has the values of its rows, or those that differ.
fn keeps_values(call: &AggregateCall) -> bool {
    use AggregateFunction::{Median, PercentileCont, StringAgg};
    call.distinct || matches!(call.function, Median | PercentileCont | StringAgg)
}

type UnionInput = (Plan, Vec<ColumnId>);

fn place_union(inputs: Vec<UnionInput>, fields: &[crate::Field], net: Net) -> (Vec<UnionInput>, Place) {
    let placed: Vec<(Plan, Place, Vec<ColumnId>)> = inputs
        .into_iter()
        .map(|(plan, ids)| {
            let (plan, place) = place(plan, net);
            let place =
                rename(&place, &|id| ids.iter().position(|other| *other == id).and_then(|i| fields.get(i)).map(|field| field.id));
            (plan, place, ids)
        })
        .collect();
    let mut keys: Option<Vec<Vec<ColumnId>>> = None;
    let mut everywhere = true;
    let mut partitioned = true;
    for (_, place, _) in &placed {
        everywhere &= *place == Place::Everywhere;
        match place {
            Place::Partitioned(these) => match &mut keys {
                Some(keys) => keys.retain(|key| these.contains(key)),
                None => keys = Some(these.clone()),
            },
            Place::Spread(_) | Place::Merged | Place::Everywhere => partitioned = false,
        }
    }
    if everywhere || partitioned {
        let place = if everywhere { Place::Everywhere } else { Place::Partitioned(keys.unwrap_or_default()) };
        return (placed.into_iter().map(|(plan, _, ids)| (plan, ids)).collect(), place);
    }
    (placed.into_iter().map(|(plan, place, ids)| (merged(plan, &place), ids)).collect(), Place::Merged)
}

/// Whether scans in a plan may be given run-time filters from above it. What is shuffled is read before those are there.
fn awaits_filters(plan: &Plan) -> bool {
    let (mut wanted, mut published) = (Vec::new(), Vec::new());
    plan.walk(&mut |node| match &node.node {
        Node::Scan(scan) => wanted.extend(scan.runtime_filters.iter().map(|(id, _)| *id)),
        Node::Join(join) => published.extend(join.publishes.iter().map(|(id, _)| *id)),
        _ => {}
    });
    wanted.iter().any(|id| !published.contains(id))
}

/// Whether values of a type that are equal have equal hashes.
fn can_route(ty: DataType) -> bool {
    !matches!(ty, DataType::Float32 | DataType::Float64 | DataType::Interval | DataType::Null)
}

/// Whether `left` and `right` are the same bare columns on the two sides of one of the equalities.
fn equates(on: &[(Expr, Expr)], left: ColumnId, right: ColumnId) -> bool {
    on.iter().any(|(l, r)| l.as_column() == Some(left) && r.as_column() == Some(right) && l.data_type() == r.data_type())
}
