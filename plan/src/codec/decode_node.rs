//! Plan nodes from messages.

use capnp::struct_list;
use stoa_schema::limits::MAX_COLUMNS;
use stoa_schema::plan_capnp as wire;

use super::budget::{Budget, length, list};
use super::decode_expression::{expression, expressions, sort_keys};
use super::values::{decode_aggregate, decode_field, decode_fields, decode_name, decode_phase, decode_side, decode_type};
use super::{CodecError, newer};
use crate::{Aggregate, AggregateCall, ColumnId, ExchangeKind, Expr, Field, FilterId, Join, JoinKind, Node, NodeId, Plan, Scan};
use crate::{ScanColumn, SubplanScan, Values, WindowCall};

type Decoded<T> = Result<T, CodecError>;

/// Reads a node and the tree below it. `depth` is 1 at the root.
pub(super) fn plan(from: wire::plan::Reader<'_>, depth: usize, budget: &mut Budget) -> Decoded<Plan> {
    use wire::plan::Which;
    budget.node(depth)?;
    let (id, rows) = (NodeId(from.get_id()), from.get_rows());
    let node = match from.which().map_err(|e| newer("kind of plan node", e))? {
        Which::Scan(from) => Node::Scan(scan(from?, budget)?),
        Which::Values(from) => Node::Values(values(from?, budget)?),
        Which::SubplanScan(from) => Node::SubplanScan(subplan_scan(from?)?),
        Which::Filter(from) => filter(from, depth, budget)?,
        Which::Project(from) => project(from, depth, budget)?,
        Which::Join(from) => Node::Join(join(from?, depth, budget)?),
        Which::Aggregate(from) => Node::Aggregate(aggregate(from?, depth, budget)?),
        Which::Sort(from) => sort(from, depth, budget)?,
        Which::Limit(from) => row_limit(from, depth, budget)?,
        Which::Union(from) => union(from, depth, budget)?,
        Which::Window(from) => window(from, depth, budget)?,
        Which::Repeat(from) => repeat(from, depth, budget)?,
        Which::Exchange(from) => exchange(from?, depth, budget)?,
    };
    Ok(Plan { id, rows, node })
}

/// The input of the node at `depth`.
fn input(from: capnp::Result<wire::plan::Reader<'_>>, present: bool, depth: usize, budget: &mut Budget) -> Decoded<Plan> {
    if !present {
        return Err(CodecError::Missing("the input of a plan node"));
    }
    plan(from?, depth + 1, budget)
}

fn boxed(from: capnp::Result<wire::plan::Reader<'_>>, present: bool, depth: usize, budget: &mut Budget) -> Decoded<Box<Plan>> {
    input(from, present, depth, budget).map(Box::new)
}

fn filter(from: wire::plan::filter::Reader<'_>, depth: usize, budget: &mut Budget) -> Decoded<Node> {
    Ok(Node::Filter {
        input: boxed(from.get_input(), from.has_input(), depth, budget)?,
        predicate: expression(from.get_predicate(), from.has_predicate(), budget)?,
    })
}

fn repeat(from: wire::plan::repeat::Reader<'_>, depth: usize, budget: &mut Budget) -> Decoded<Node> {
    Ok(Node::Repeat {
        input: boxed(from.get_input(), from.has_input(), depth, budget)?,
        times: expression(from.get_times(), from.has_times(), budget)?,
    })
}

fn project(from: wire::plan::project::Reader<'_>, depth: usize, budget: &mut Budget) -> Decoded<Node> {
    Ok(Node::Project {
        input: boxed(from.get_input(), from.has_input(), depth, budget)?,
        exprs: computed(from.get_expressions()?, budget)?,
    })
}

fn sort(from: wire::plan::sort::Reader<'_>, depth: usize, budget: &mut Budget) -> Decoded<Node> {
    let (fetch, skip) = limit(from.get_limit()?)?;
    let input = boxed(from.get_input(), from.has_input(), depth, budget)?;
    Ok(Node::Sort { input, keys: sort_keys(from.get_keys()?, budget)?, fetch, skip })
}

fn row_limit(from: wire::plan::limit::Reader<'_>, depth: usize, budget: &mut Budget) -> Decoded<Node> {
    let (fetch, skip) = limit(from.get_limit()?)?;
    Ok(Node::Limit { input: boxed(from.get_input(), from.has_input(), depth, budget)?, fetch, skip })
}

fn limit(from: wire::row_limit::Reader<'_>) -> Decoded<(Option<u64>, u64)> {
    let fetch = match from.which().map_err(|e| newer("kind of row limit", e))? {
        wire::row_limit::Which::All(()) => None,
        wire::row_limit::Which::Fetch(fetch) => Some(fetch),
    };
    Ok((fetch, from.get_skip()))
}

fn computed(from: struct_list::Reader<'_, wire::computed::Owned>, budget: &mut Budget) -> Decoded<Vec<(Field, Expr)>> {
    length("columns", from.len() as usize, MAX_COLUMNS)?;
    let mut columns = Vec::new();
    for column in from {
        let expr = expression(column.get_expression(), column.has_expression(), budget)?;
        columns.push((decode_field(column.get_field()?)?, expr));
    }
    Ok(columns)
}

fn scan(from: wire::scan::Reader<'_>, budget: &mut Budget) -> Decoded<Scan> {
    let runtime_filters = from.get_runtime_filters()?;
    list("run-time filters of a scan", runtime_filters.len() as usize)?;
    Ok(Scan {
        table: decode_name(from.get_table()?)?,
        columns: scan_columns(from.get_columns()?)?,
        filters: expressions("filters of a scan", from.get_filters()?, budget)?,
        filter_columns: scan_columns(from.get_filter_columns()?)?,
        runtime_filters: runtime_filters.iter().map(|f| (FilterId(f.get_filter()), ColumnId(f.get_column()))).collect(),
        reference: from.get_reference(),
        shard_key: numbers(from.get_shard_key()?)?,
        revision: from.get_revision(),
    })
}

fn numbers(from: capnp::primitive_list::Reader<'_, u32>) -> Decoded<Vec<u32>> {
    length("columns", from.len() as usize, MAX_COLUMNS)?;
    Ok(from.iter().collect())
}

fn scan_columns(from: struct_list::Reader<'_, wire::scan_column::Owned>) -> Decoded<Vec<ScanColumn>> {
    length("columns", from.len() as usize, MAX_COLUMNS)?;
    from.iter().map(|c| Ok(ScanColumn { ordinal: c.get_ordinal(), field: decode_field(c.get_field()?)? })).collect()
}

fn values(from: wire::values::Reader<'_>, budget: &mut Budget) -> Decoded<Values> {
    let fields = decode_fields("columns", from.get_fields()?)?;
    let list_of = from.get_rows()?;
    list("rows of VALUES", list_of.len() as usize)?;
    let mut rows = Vec::new();
    for row in list_of {
        let expressions_of = row.get_expressions()?;
        length("columns", expressions_of.len() as usize, MAX_COLUMNS)?;
        rows.push(expressions("columns", expressions_of, budget)?);
    }
    Ok(Values { fields, rows })
}

fn subplan_scan(from: wire::subplan_scan::Reader<'_>) -> Decoded<SubplanScan> {
    let list = from.get_columns()?;
    length("columns", list.len() as usize, MAX_COLUMNS)?;
    let column = |c: wire::subplan_scan::column::Reader<'_>| Ok((ColumnId(c.get_source()), decode_field(c.get_field()?)?));
    Ok(SubplanScan { subplan: from.get_subplan(), columns: list.iter().map(column).collect::<Decoded<_>>()? })
}

fn join(from: wire::join::Reader<'_>, depth: usize, budget: &mut Budget) -> Decoded<Box<Join>> {
    let equalities = from.get_on()?;
    list("equalities of a join", equalities.len() as usize)?;
    let mut on = Vec::new();
    for equality in equalities {
        let left = expression(equality.get_left(), equality.has_left(), budget)?;
        on.push((left, expression(equality.get_right(), equality.has_right(), budget)?));
    }
    let residual = if from.has_residual() { Some(expression(from.get_residual(), true, budget)?) } else { None };
    let publishes = from.get_publishes()?;
    list("run-time filters of a join", publishes.len() as usize)?;
    Ok(Box::new(Join {
        kind: join_kind(from.get_kind())?,
        left: input(from.get_left(), from.has_left(), depth, budget)?,
        right: input(from.get_right(), from.has_right(), depth, budget)?,
        on,
        null_equals_null: from.get_null_equals_null(),
        residual,
        build: decode_side(from.get_build())?,
        publishes: publishes.iter().map(|p| (FilterId(p.get_filter()), p.get_on())).collect(),
    }))
}

fn join_kind(from: wire::join::kind::Reader<'_>) -> Decoded<JoinKind> {
    use wire::join::kind::Which;
    Ok(match from.which().map_err(|e| newer("kind of join", e))? {
        Which::Inner(()) => JoinKind::Inner,
        Which::Left(()) => JoinKind::Left,
        Which::Right(()) => JoinKind::Right,
        Which::Full(()) => JoinKind::Full,
        Which::LeftSemi(()) => JoinKind::LeftSemi,
        Which::LeftAnti(()) => JoinKind::LeftAnti,
        Which::RightSemi(()) => JoinKind::RightSemi,
        Which::RightAnti(()) => JoinKind::RightAnti,
        Which::LeftMark(mark) => JoinKind::LeftMark(decode_field(mark?)?),
    })
}

fn aggregate(from: wire::aggregate::Reader<'_>, depth: usize, budget: &mut Budget) -> Decoded<Box<Aggregate>> {
    let sets = from.get_grouping_sets()?;
    list("grouping sets", sets.len() as usize)?;
    let calls = from.get_calls()?;
    length("columns", calls.len() as usize, MAX_COLUMNS)?;
    let grouping_id = if from.has_grouping_id() { Some(decode_field(from.get_grouping_id()?)?) } else { None };
    Ok(Box::new(Aggregate {
        input: input(from.get_input(), from.has_input(), depth, budget)?,
        keys: computed(from.get_keys()?, budget)?,
        grouping_sets: sets.iter().map(|set| numbers(set.get_keys()?)).collect::<Decoded<_>>()?,
        grouping_id,
        calls: calls.iter().map(|from| Ok((decode_field(from.get_field()?)?, call(from, budget)?))).collect::<Decoded<_>>()?,
        phase: decode_phase(from.get_phase())?,
    }))
}

fn call(from: wire::aggregate::call::Reader<'_>, budget: &mut Budget) -> Decoded<AggregateCall> {
    Ok(AggregateCall {
        function: decode_aggregate(from.get_function())?,
        args: expressions("arguments of a function", from.get_args()?, budget)?,
        distinct: from.get_distinct(),
        filter: if from.has_filter() { Some(expression(from.get_filter(), true, budget)?) } else { None },
        order_by: sort_keys(from.get_order_by()?, budget)?,
        ty: decode_type(from.get_type()?)?,
    })
}

fn union(from: wire::plan::union::Reader<'_>, depth: usize, budget: &mut Budget) -> Decoded<Node> {
    let list_of = from.get_inputs()?;
    list("inputs of a union", list_of.len() as usize)?;
    let mut inputs = Vec::new();
    for from in list_of {
        let ids = numbers(from.get_columns()?)?.into_iter().map(ColumnId).collect();
        inputs.push((input(from.get_plan(), from.has_plan(), depth, budget)?, ids));
    }
    Ok(Node::Union { inputs, fields: decode_fields("columns", from.get_fields()?)? })
}

fn window(from: wire::plan::window::Reader<'_>, depth: usize, budget: &mut Budget) -> Decoded<Node> {
    let list_of = from.get_calls()?;
    length("columns", list_of.len() as usize, MAX_COLUMNS)?;
    let mut calls = Vec::new();
    for call in list_of {
        calls.push(WindowCall {
            field: decode_field(call.get_field()?)?,
            function: decode_name(call.get_function()?)?,
            args: expressions("arguments of a function", call.get_args()?, budget)?,
            partition_by: expressions("partition keys", call.get_partition_by()?, budget)?,
            order_by: sort_keys(call.get_order_by()?, budget)?,
            frame: decode_name(call.get_frame()?)?,
        });
    }
    Ok(Node::Window { input: boxed(from.get_input(), from.has_input(), depth, budget)?, calls })
}

fn exchange(from: wire::exchange::Reader<'_>, depth: usize, budget: &mut Budget) -> Decoded<Node> {
    let kind = match from.which().map_err(|e| newer("kind of exchange", e))? {
        wire::exchange::Which::Gather(()) => ExchangeKind::Gather,
        wire::exchange::Which::Broadcast(()) => ExchangeKind::Broadcast,
        wire::exchange::Which::Shuffle(keys) => ExchangeKind::Shuffle(expressions("shuffle keys", keys?, budget)?),
    };
    Ok(Node::Exchange { input: boxed(from.get_input(), from.has_input(), depth, budget)?, kind })
}
