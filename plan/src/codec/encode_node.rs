//! Plan nodes to messages.

use capnp::struct_list;
use stoa_schema::limits::MAX_COLUMNS;
use stoa_schema::plan_capnp as wire;

use super::CodecError;
use super::budget::{Budget, length, list};
use super::encode_expression::{expression, expressions, sort_keys};
use super::values::{encode_aggregate, encode_field, encode_fields, encode_name, encode_phase, encode_side, encode_type};
use crate::{Aggregate, AggregateCall, ExchangeKind, Expr, Field, Join, JoinKind, Node, Plan, Scan, ScanColumn, SubplanScan};
use crate::{Values, WindowCall};

type Done = Result<(), CodecError>;

/// Writes a node and the tree below it. `depth` is 1 at the root.
pub(super) fn plan(plan: &Plan, mut to: wire::plan::Builder<'_>, depth: usize, budget: &mut Budget) -> Done {
    budget.node(depth)?;
    to.set_id(plan.id.0);
    to.set_rows(plan.rows);
    match &plan.node {
        Node::Scan(from) => scan(from, to.init_scan(), budget),
        Node::Values(from) => values(from, to.init_values(), budget),
        Node::SubplanScan(from) => subplan_scan(from, to.init_subplan_scan()),
        Node::Join(from) => join(from, to.init_join(), depth, budget),
        Node::Aggregate(from) => aggregate(from, to.init_aggregate(), depth, budget),
        Node::Exchange { input, kind } => exchange(input, kind, to.init_exchange(), depth, budget),
        node => group(node, to, depth, budget),
    }
}

/// The nodes that are groups of the message's union rather than structs of their own.
fn group(node: &Node, to: wire::plan::Builder<'_>, depth: usize, budget: &mut Budget) -> Done {
    match node {
        Node::Filter { input, predicate } => {
            let mut to = to.init_filter();
            expression(predicate, to.reborrow().init_predicate(), budget)?;
            plan(input, to.init_input(), depth + 1, budget)
        }
        Node::Project { input, exprs } => {
            let mut to = to.init_project();
            let count = length("columns", exprs.len(), MAX_COLUMNS)?;
            computed(exprs, to.reborrow().init_expressions(count), budget)?;
            plan(input, to.init_input(), depth + 1, budget)
        }
        Node::Sort { input, keys, fetch, skip } => {
            let mut to = to.init_sort();
            sort_keys(keys, to.reborrow().init_keys(list("sort keys", keys.len())?), budget)?;
            limit(*fetch, *skip, to.reborrow().init_limit());
            plan(input, to.init_input(), depth + 1, budget)
        }
        Node::Limit { input, fetch, skip } => {
            let mut to = to.init_limit();
            limit(*fetch, *skip, to.reborrow().init_limit());
            plan(input, to.init_input(), depth + 1, budget)
        }
        Node::Union { inputs, fields } => union(inputs, fields, to.init_union(), depth, budget),
        Node::Repeat { input, times } => {
            let mut to = to.init_repeat();
            expression(times, to.reborrow().init_times(), budget)?;
            plan(input, to.init_input(), depth + 1, budget)
        }
        Node::Window { input, calls } => {
            let mut to = to.init_window();
            window(calls, to.reborrow().init_calls(length("columns", calls.len(), MAX_COLUMNS)?), budget)?;
            plan(input, to.init_input(), depth + 1, budget)
        }
        _ => Ok(()),
    }
}

fn computed(exprs: &[(Field, Expr)], mut to: struct_list::Builder<'_, wire::computed::Owned>, budget: &mut Budget) -> Done {
    for (i, (field, expr)) in (0..to.len()).zip(exprs) {
        let mut to = to.reborrow().get(i);
        encode_field(field, to.reborrow().init_field())?;
        expression(expr, to.init_expression(), budget)?;
    }
    Ok(())
}

fn limit(fetch: Option<u64>, skip: u64, mut to: wire::row_limit::Builder<'_>) {
    to.set_skip(skip);
    match fetch {
        Some(fetch) => to.set_fetch(fetch),
        None => to.set_all(()),
    }
}

fn scan(scan: &Scan, mut to: wire::scan::Builder<'_>, budget: &mut Budget) -> Done {
    to.set_table(encode_name(&scan.table)?);
    to.set_reference(scan.reference);
    to.set_revision(scan.revision);
    scan_columns(&scan.columns, to.reborrow().init_columns(length("columns", scan.columns.len(), MAX_COLUMNS)?))?;
    let count = length("columns", scan.filter_columns.len(), MAX_COLUMNS)?;
    scan_columns(&scan.filter_columns, to.reborrow().init_filter_columns(count))?;
    let count = list("filters of a scan", scan.filters.len())?;
    expressions(&scan.filters, to.reborrow().init_filters(count), budget)?;
    let count = list("run-time filters of a scan", scan.runtime_filters.len())?;
    let mut filters = to.reborrow().init_runtime_filters(count);
    for (i, (filter, column)) in (0..count).zip(&scan.runtime_filters) {
        let mut to = filters.reborrow().get(i);
        to.set_filter(filter.0);
        to.set_column(column.0);
    }
    length("columns", scan.shard_key.len(), MAX_COLUMNS)?;
    Ok(to.set_shard_key(&scan.shard_key[..])?)
}

fn scan_columns(columns: &[ScanColumn], mut to: struct_list::Builder<'_, wire::scan_column::Owned>) -> Done {
    for (i, column) in (0..to.len()).zip(columns) {
        let mut to = to.reborrow().get(i);
        to.set_ordinal(column.ordinal);
        encode_field(&column.field, to.init_field())?;
    }
    Ok(())
}

fn values(values: &Values, mut to: wire::values::Builder<'_>, budget: &mut Budget) -> Done {
    let count = length("columns", values.fields.len(), MAX_COLUMNS)?;
    encode_fields(&values.fields, &mut to.reborrow().init_fields(count))?;
    let count = list("rows of VALUES", values.rows.len())?;
    let mut rows = to.init_rows(count);
    for (i, row) in (0..count).zip(&values.rows) {
        let count = length("columns", row.len(), MAX_COLUMNS)?;
        expressions(row, rows.reborrow().get(i).init_expressions(count), budget)?;
    }
    Ok(())
}

fn subplan_scan(scan: &SubplanScan, mut to: wire::subplan_scan::Builder<'_>) -> Done {
    to.set_subplan(scan.subplan);
    let count = length("columns", scan.columns.len(), MAX_COLUMNS)?;
    let mut columns = to.init_columns(count);
    for (i, (source, field)) in (0..count).zip(&scan.columns) {
        let mut to = columns.reborrow().get(i);
        to.set_source(source.0);
        encode_field(field, to.init_field())?;
    }
    Ok(())
}

fn join(join: &Join, mut to: wire::join::Builder<'_>, depth: usize, budget: &mut Budget) -> Done {
    join_kind(&join.kind, to.reborrow().get_kind())?;
    let count = list("equalities of a join", join.on.len())?;
    let mut on = to.reborrow().init_on(count);
    for (i, (left, right)) in (0..count).zip(&join.on) {
        let mut to = on.reborrow().get(i);
        expression(left, to.reborrow().init_left(), budget)?;
        expression(right, to.init_right(), budget)?;
    }
    to.set_null_equals_null(join.null_equals_null);
    if let Some(residual) = &join.residual {
        expression(residual, to.reborrow().init_residual(), budget)?;
    }
    to.set_build(encode_side(join.build));
    let count = list("run-time filters of a join", join.publishes.len())?;
    let mut publishes = to.reborrow().init_publishes(count);
    for (i, (filter, on)) in (0..count).zip(&join.publishes) {
        let mut to = publishes.reborrow().get(i);
        to.set_filter(filter.0);
        to.set_on(*on);
    }
    plan(&join.left, to.reborrow().init_left(), depth + 1, budget)?;
    plan(&join.right, to.init_right(), depth + 1, budget)
}

fn join_kind(kind: &JoinKind, mut to: wire::join::kind::Builder<'_>) -> Done {
    match kind {
        JoinKind::Inner => to.set_inner(()),
        JoinKind::Left => to.set_left(()),
        JoinKind::Right => to.set_right(()),
        JoinKind::Full => to.set_full(()),
        JoinKind::LeftSemi => to.set_left_semi(()),
        JoinKind::LeftAnti => to.set_left_anti(()),
        JoinKind::RightSemi => to.set_right_semi(()),
        JoinKind::RightAnti => to.set_right_anti(()),
        JoinKind::LeftMark(mark) => encode_field(mark, to.init_left_mark())?,
    }
    Ok(())
}

fn aggregate(aggregate: &Aggregate, mut to: wire::aggregate::Builder<'_>, depth: usize, budget: &mut Budget) -> Done {
    to.set_phase(encode_phase(aggregate.phase));
    let count = length("columns", aggregate.keys.len(), MAX_COLUMNS)?;
    computed(&aggregate.keys, to.reborrow().init_keys(count), budget)?;
    let count = list("grouping sets", aggregate.grouping_sets.len())?;
    let mut sets = to.reborrow().init_grouping_sets(count);
    for (i, set) in (0..count).zip(&aggregate.grouping_sets) {
        length("columns", set.len(), MAX_COLUMNS)?;
        sets.reborrow().get(i).set_keys(&set[..])?;
    }
    if let Some(field) = &aggregate.grouping_id {
        encode_field(field, to.reborrow().init_grouping_id())?;
    }
    let count = length("columns", aggregate.calls.len(), MAX_COLUMNS)?;
    let mut calls = to.reborrow().init_calls(count);
    for (i, (field, from)) in (0..count).zip(&aggregate.calls) {
        let mut to = calls.reborrow().get(i);
        encode_field(field, to.reborrow().init_field())?;
        call(from, to, budget)?;
    }
    plan(&aggregate.input, to.init_input(), depth + 1, budget)
}

fn call(call: &AggregateCall, mut to: wire::aggregate::call::Builder<'_>, budget: &mut Budget) -> Done {
    to.set_function(encode_aggregate(call.function));
    expressions(&call.args, to.reborrow().init_args(list("arguments of a function", call.args.len())?), budget)?;
    to.set_distinct(call.distinct);
    if let Some(filter) = &call.filter {
        expression(filter, to.reborrow().init_filter(), budget)?;
    }
    sort_keys(&call.order_by, to.reborrow().init_order_by(list("sort keys", call.order_by.len())?), budget)?;
    encode_type(call.ty, to.init_type());
    Ok(())
}

fn union(
    inputs: &[(Plan, Vec<crate::ColumnId>)],
    fields: &[Field],
    mut to: wire::plan::union::Builder<'_>,
    depth: usize,
    budget: &mut Budget,
) -> Done {
    let count = length("columns", fields.len(), MAX_COLUMNS)?;
    encode_fields(fields, &mut to.reborrow().init_fields(count))?;
    let count = list("inputs of a union", inputs.len())?;
    let mut list = to.init_inputs(count);
    for (i, (input, ids)) in (0..count).zip(inputs) {
        let mut to = list.reborrow().get(i);
        let count = length("columns", ids.len(), MAX_COLUMNS)?;
        let mut columns = to.reborrow().init_columns(count);
        (0..count).zip(ids).for_each(|(i, id)| columns.set(i, id.0));
        plan(input, to.init_plan(), depth + 1, budget)?;
    }
    Ok(())
}

fn window(calls: &[WindowCall], mut to: struct_list::Builder<'_, wire::window_call::Owned>, budget: &mut Budget) -> Done {
    for (i, call) in (0..to.len()).zip(calls) {
        let mut to = to.reborrow().get(i);
        encode_field(&call.field, to.reborrow().init_field())?;
        to.set_function(encode_name(&call.function)?);
        expressions(&call.args, to.reborrow().init_args(list("arguments of a function", call.args.len())?), budget)?;
        let count = list("partition keys", call.partition_by.len())?;
        expressions(&call.partition_by, to.reborrow().init_partition_by(count), budget)?;
        sort_keys(&call.order_by, to.reborrow().init_order_by(list("sort keys", call.order_by.len())?), budget)?;
        to.set_frame(encode_name(&call.frame)?);
    }
    Ok(())
}

fn exchange(input: &Plan, kind: &ExchangeKind, mut to: wire::exchange::Builder<'_>, depth: usize, budget: &mut Budget) -> Done {
    match kind {
        ExchangeKind::Gather => to.set_gather(()),
        ExchangeKind::Broadcast => to.set_broadcast(()),
        ExchangeKind::Shuffle(keys) => {
            expressions(keys, to.reborrow().init_shuffle(list("shuffle keys", keys.len())?), budget)?;
        }
    }
    plan(input, to.init_input(), depth + 1, budget)
}
