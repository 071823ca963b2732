//! Checks of plan nodes.

use super::expression::{Scope, boolean, check as check_expression};
use super::{Check, Columns, Context, ValidateError, add, columns, find, same_type};
use crate::{Aggregate, AggregateCall, AggregateFunction, DataType, ExchangeKind, Expr, Field, Join, JoinKind, Node, Phase};
use crate::{Plan, Scan, SortKey, SubplanScan, Values};

/// How messages name a node.
pub(super) fn place(plan: &Plan) -> String {
    let kind = match &plan.node {
        Node::Scan(scan) => return format!("node {}, scan of {}", plan.id.0, scan.table),
        Node::Values(_) => "values",
        Node::SubplanScan(_) => "scan of a subplan",
        Node::Filter { .. } => "filter",
        Node::Project { .. } => "project",
        Node::Join(_) => "join",
        Node::Aggregate(_) => "aggregate",
        Node::Sort { .. } => "sort",
        Node::Limit { .. } => "limit",
        Node::Union { .. } => "union",
        Node::Repeat { .. } => "repeat",
        Node::Window { .. } => "window",
        Node::Exchange { .. } => "exchange",
    };
    format!("node {}, {kind}", plan.id.0)
}

/// Checks a tree, inputs first; returns the columns that its root produces.
pub(super) fn check(plan: &Plan, context: &mut Context) -> Result<Columns, ValidateError> {
    let mut inputs = Vec::new();
    for input in plan.inputs() {
        inputs.push(check(input, context)?);
    }
    one(plan, inputs, context).map_err(|problem| ValidateError { place: place(plan), problem })
}

/// Checks one node over the columns of its inputs.
fn one(plan: &Plan, mut inputs: Vec<Columns>, context: &mut Context) -> Check<Columns> {
    if plan.id.0 != 0 && !context.nodes.insert(plan.id) {
        return Err("two nodes have this number".into());
    }
    if plan.rows.is_nan() || plan.rows < 0.0 {
        return Err(format!("the estimate of rows is {}", plan.rows));
    }
    let context = &*context;
    match &plan.node {
        Node::Scan(node) => scan(node, context),
        Node::Values(node) => values(node, context),
        Node::SubplanScan(node) => subplan_scan(node, context),
        Node::Join(node) => {
            let (right, left) = (inputs.pop().unwrap_or_default(), inputs.pop().unwrap_or_default());
            join(node, left, right, context)
        }
        Node::Union { inputs: nodes, fields } => {
            for ((_, ids), found) in nodes.iter().zip(&inputs) {
                if ids.len() != fields.len() {
                    return Err(format!("an input has {} columns, the union has {}", ids.len(), fields.len()));
                }
                ids.iter().zip(fields).try_for_each(|(id, field)| same_type(find(found, *id)?, field))?;
            }
            columns(fields)
        }
        node => over_one_input(node, inputs.pop().unwrap_or_default(), context),
    }
}

fn over_one_input(node: &Node, mut input: Columns, context: &Context) -> Check<Columns> {
    let scope = Scope { context, inputs: &[&input] };
    match node {
        Node::Filter { predicate, .. } => boolean(predicate, scope)?,
        Node::Project { exprs, .. } => {
            computed(exprs, scope)?;
            return columns(exprs.iter().map(|(field, _)| field));
        }
        Node::Aggregate(node) => return aggregate(node, scope),
        Node::Sort { keys, fetch, skip, .. } => {
            sort_keys(keys, scope)?;
            limit(*fetch, *skip)?;
        }
        Node::Limit { fetch, skip, .. } => limit(*fetch, *skip)?,
        Node::Repeat { times, .. } => match check_expression(times, scope)? {
            DataType::Int64 => {}
            found => return Err(format!("how often rows are repeated is {found:?}")),
        },
        Node::Exchange { kind: ExchangeKind::Shuffle(keys), .. } => expressions(keys, scope)?,
        Node::Window { calls, .. } => {
            for call in calls {
                expressions(call.args.iter().chain(&call.partition_by), scope)?;
                sort_keys(&call.order_by, scope)?;
            }
            calls.iter().try_for_each(|call| add(&mut input, &call.field))?;
        }
        _ => {}
    }
    Ok(input)
}

fn expressions<'e>(exprs: impl IntoIterator<Item = &'e Expr>, scope: Scope<'_>) -> Check {
    exprs.into_iter().try_for_each(|expr| check_expression(expr, scope).map(|_| ()))
}

fn computed(exprs: &[(Field, Expr)], scope: Scope<'_>) -> Check {
    exprs.iter().try_for_each(|(field, expr)| same_type(check_expression(expr, scope)?, field))
}

fn sort_keys(keys: &[SortKey], scope: Scope<'_>) -> Check {
    expressions(keys.iter().map(|key| &key.expr), scope)
}

fn limit(fetch: Option<u64>, skip: u64) -> Check {
    match fetch.unwrap_or(0).checked_add(skip) {
        Some(_) => Ok(()),
        None => Err(format!("LIMIT {} OFFSET {skip} is more than a row number holds", fetch.unwrap_or(0))),
    }
}

fn scan(scan: &Scan, context: &Context) -> Check<Columns> {
    if scan.table.is_empty() {
        return Err("the table has no name".into());
    }
    let produced = columns(scan.columns.iter().map(|c| &c.field))?;
    let mut read = produced.clone();
    scan.filter_columns.iter().try_for_each(|column| add(&mut read, &column.field))?;
    if let Some(ty) = read.values().find(|ty| matches!(ty, DataType::Null | DataType::Interval)) {
        return Err(format!("a table has no column of type {ty:?}"));
    }
    let scope = Scope { context, inputs: &[&read] };
    scan.filters.iter().try_for_each(|filter| boolean(filter, scope))?;
    for (filter, column) in &scan.runtime_filters {
        let key = context.published.get(filter).ok_or_else(|| format!("run-time filter {} is not published", filter.0))?;
        let found = find(&read, *column)?;
        if found != *key {
            return Err(format!("run-time filter {} is over {key:?}, its column is {found:?}", filter.0));
        }
    }
    Ok(produced)
}

fn values(values: &Values, context: &Context) -> Check<Columns> {
    let scope = Scope { context, inputs: &[] };
    for row in &values.rows {
        if row.len() != values.fields.len() {
            return Err(format!("a row has {} values for {} columns", row.len(), values.fields.len()));
        }
        for (field, expr) in values.fields.iter().zip(row) {
            match check_expression(expr, scope)? {
                DataType::Null => {}
                found => same_type(found, field)?,
            }
        }
    }
    columns(&values.fields)
}

fn subplan_scan(scan: &SubplanScan, context: &Context) -> Check<Columns> {
    let source = context.shared.get(&scan.subplan).ok_or_else(|| format!("no subplan {} ran before", scan.subplan))?;
    scan.columns.iter().try_for_each(|(id, field)| same_type(find(source, *id)?, field))?;
    columns(scan.columns.iter().map(|(_, field)| field))
}

fn join(join: &Join, mut left: Columns, right: Columns, context: &Context) -> Check<Columns> {
    for (a, b) in &join.on {
        let a = check_expression(a, Scope { context, inputs: &[&left] })?;
        let b = check_expression(b, Scope { context, inputs: &[&right] })?;
        if !super::expression::comparable(a, b) {
            return Err(format!("the join compares {a:?} with {b:?}"));
        }
    }
    if let Some(residual) = &join.residual {
        boolean(residual, Scope { context, inputs: &[&left, &right] })?;
    }
    let (few, many) = if left.len() < right.len() { (&left, &right) } else { (&right, &left) };
    if let Some(id) = few.keys().find(|id| many.contains_key(*id)) {
        return Err(format!("column {} is on both sides of the join", id.0));
    }
    match &join.kind {
        JoinKind::Inner | JoinKind::Left | JoinKind::Right | JoinKind::Full => {
            left.extend(right);
            Ok(left)
        }
        JoinKind::LeftSemi | JoinKind::LeftAnti => Ok(left),
        JoinKind::RightSemi | JoinKind::RightAnti => Ok(right),
        JoinKind::LeftMark(mark) => {
            if mark.ty != DataType::Bool {
                return Err(format!("the mark of the join is {:?}", mark.ty));
            }
            add(&mut left, mark)?;
            Ok(left)
        }
    }
}

fn aggregate(aggregate: &Aggregate, scope: Scope<'_>) -> Check<Columns> {
    if aggregate.phase == Phase::Final {
        over_partial(aggregate)?;
    } else {
        computed(&aggregate.keys, scope)?;
        aggregate.calls.iter().try_for_each(|(field, of)| call(field, of, scope))?;
    }
    let keys = aggregate.keys.len();
    if let Some(index) = aggregate.grouping_sets.iter().flatten().find(|index| **index as usize >= keys) {
        return Err(format!("a grouping set names key {index} of {keys}"));
    }
    if let Some(id) = &aggregate.grouping_id
        && (id.ty != DataType::UInt32 || keys > 32)
    {
        return Err(format!("the grouping id is {:?} for {keys} keys", id.ty));
    }
    columns(&aggregate.fields())
}

/// That a final aggregate has its partial one below it, or the rows of one that ran elsewhere.
fn over_partial(aggregate: &Aggregate) -> Check {
    let mut below = &aggregate.input;
    if let Node::Exchange { input, kind: ExchangeKind::Gather | ExchangeKind::Shuffle(_) } = &below.node {
        below = input;
    }
    if let Node::SubplanScan(scan) = &below.node {
        let partial = Aggregate { phase: Phase::Partial, ..aggregate.clone() };
        let columns = scan.columns.iter().map(|(_, field)| (field.id, field.ty));
        let same = columns.eq(partial.fields().iter().map(|field| (field.id, field.ty)));
        return if same { Ok(()) } else { Err("a final aggregate is over rows that are not those of its partial one".into()) };
    }
    let Node::Aggregate(partial) = &below.node else {
        return Err("a final aggregate is not over a partial one".into());
    };
    let same = partial.phase == Phase::Partial
        && partial.keys == aggregate.keys
        && partial.calls == aggregate.calls
        && partial.grouping_sets == aggregate.grouping_sets
        && partial.grouping_id == aggregate.grouping_id;
    if same { Ok(()) } else { Err("a final aggregate is over another one than its partial".into()) }
}

fn call(field: &Field, call: &AggregateCall, scope: Scope<'_>) -> Check {
    use AggregateFunction as F;
    let types = call.args.iter().map(|arg| check_expression(arg, scope)).collect::<Check<Vec<DataType>>>()?;
    if let Some(filter) = &call.filter {
        boolean(filter, scope)?;
    }
    sort_keys(&call.order_by, scope)?;
    super::expression::valid_type(call.ty)?;
    same_type(call.ty, field)?;
    let arity = match call.function {
        F::Count => 0..=usize::MAX,
        F::ApproxPercentile => 2..=3,
        F::StringAgg | F::PercentileCont | F::CovarPop | F::CovarSamp | F::Corr | F::RegrSlope | F::RegrIntercept => 2..=2,
        F::RegrR2 | F::RegrCount | F::RegrAvgx | F::RegrAvgy | F::RegrSxx | F::RegrSyy | F::RegrSxy => 2..=2,
        _ => 1..=1,
    };
    if !arity.contains(&types.len()) {
        return Err(format!("{:?} has {} arguments", call.function, types.len()));
    }
    let fits: fn(DataType) -> bool = match call.function {
        F::BoolAnd | F::BoolOr => |ty| ty == DataType::Bool,
        F::BitAnd | F::BitOr | F::BitXor => super::expression::integer,
        F::StringAgg => |ty| matches!(ty, DataType::Utf8 | DataType::Binary),
        F::Sum | F::Avg | F::Median => |ty| super::expression::numeric(ty) || ty == DataType::Interval,
        F::Count | F::Min | F::Max | F::ApproxDistinct | F::FirstValue | F::LastValue | F::AnyValue => |_| true,
        _ => super::expression::numeric,
    };
    match types.iter().find(|ty| **ty != DataType::Null && !fits(**ty)) {
        None => Ok(()),
        Some(ty) => Err(format!("{:?} has an argument of type {ty:?}", call.function)),
    }
}
