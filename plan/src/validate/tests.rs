//! Plans that mean nothing, and what is said of them.

use super::*;
use crate::sample::{self, field};
use crate::{BinaryOp, Expr, Join, JoinKind, Literal, Node, Scan, Value, Values};

fn query(node: Node) -> Query {
    Query { subplans: vec![], root: Plan::new(node), output: vec![] }
}

fn problem(node: Node) -> String {
    validate(&query(node)).expect_err("a plan that means nothing").to_string()
}

fn column(id: u32, ty: DataType) -> Expr {
    Expr::Column(ColumnId(id), ty)
}

fn rows(fields: Vec<Field>, rows: Vec<Vec<Expr>>) -> Plan {
    Plan::new(Node::Values(Values { fields, rows }))
}

fn filter(predicate: Expr) -> Node {
    let fields = vec![field(1, DataType::Int64), field(2, DataType::Utf8)];
    Node::Filter { input: Box::new(rows(fields, vec![])), predicate }
}

/// The first node of the sample for which `change` returns true is changed.
fn changed(mut change: impl FnMut(&mut Plan) -> bool) -> String {
    let mut query = sample::query();
    let mut done = false;
    for plan in query.plans_mut() {
        plan.walk_mut(&mut |node| done = done || change(node));
    }
    assert!(done, "the sample has no such node");
    validate(&query).expect_err("a plan that means nothing").to_string()
}

#[test]
fn the_sample_is_valid() {
    validate(&sample::query()).unwrap();
}

#[test]
fn columns_must_be_defined_below_with_the_type_they_are_read_with() {
    let is_null = |expr| Expr::Unary { op: crate::UnaryOp::IsNull, input: Box::new(expr) };
    validate(&query(filter(is_null(column(1, DataType::Int64))))).unwrap();
    assert_eq!(problem(filter(is_null(column(3, DataType::Int64)))), "column 3 is not defined here (node 0, filter)");
    assert!(problem(filter(is_null(column(1, DataType::Utf8)))).contains("column 1 is Int64 and is read as Utf8"));
    let twice = vec![field(1, DataType::Int64), field(1, DataType::Int64)];
    assert!(problem(rows(twice, vec![]).node).contains("defined twice"));
    let constant = rows(vec![field(2, DataType::Int64)], vec![vec![column(1, DataType::Int64)]]);
    assert!(problem(constant.node).contains("in a constant"));
}

#[test]
fn operands_must_have_types_that_the_operator_has_a_meaning_for() {
    let one = || column(1, DataType::Int64);
    let text = || column(2, DataType::Utf8);
    let binary = |op, left, right, ty| Expr::Binary { op, left: Box::new(left), right: Box::new(right), ty };
    assert!(problem(filter(one())).contains("a condition of type Int64"));
    assert!(problem(filter(binary(BinaryOp::Eq, one(), text(), DataType::Bool))).contains("Eq of Int64 and Utf8"));
    assert!(problem(filter(binary(BinaryOp::Eq, one(), one(), DataType::Int64))).contains("gives Int64"));
    assert!(problem(filter(binary(BinaryOp::And, one(), one(), DataType::Bool))).contains("And of"));
    assert!(problem(filter(binary(BinaryOp::RegexMatch, text(), one(), DataType::Bool))).contains("RegexMatch"));
    let list = Expr::InList { input: Box::new(one()), list: vec![text()], negated: false };
    assert!(problem(filter(list)).contains("IN compares"));
    let case = Expr::Case { branches: vec![], otherwise: None, ty: DataType::Bool };
    assert!(problem(filter(case)).contains("without WHEN"));
}

#[test]
fn literals_must_be_values_of_their_type() {
    let literal = |ty, value| problem(rows(vec![field(1, ty)], vec![vec![Expr::Literal(Literal { ty, value })]]).node);
    assert!(literal(DataType::Int8, Value::Int(128)).contains("no value of type Int8"));
    assert!(literal(DataType::UInt16, Value::Int(1)).contains("no value"));
    assert!(literal(DataType::Date, Value::Int(1 << 31)).contains("no value"));
    assert!(literal(DataType::Decimal { precision: 2, scale: 0 }, Value::Decimal(-100)).contains("no value"));
    assert!(literal(DataType::Decimal { precision: 39, scale: 0 }, Value::Null).contains("out of range"));
    assert!(literal(DataType::Utf8, Value::Bytes(vec![])).contains("no value"));
}

#[test]
fn rows_must_have_a_value_for_every_column() {
    assert!(problem(rows(vec![field(1, DataType::Int64)], vec![vec![]]).node).contains("a row has 0 values for 1 columns"));
}

#[test]
fn the_sides_of_a_join_must_differ_and_its_parts_must_fit() {
    let side = |id| rows(vec![field(id, DataType::Int64)], vec![]);
    let join = |left, right, publishes, kind| {
        Node::Join(Box::new(Join {
            kind,
            left: side(left),
            right: side(right),
            on: vec![(column(left, DataType::Int64), column(right, DataType::Int64))],
            null_equals_null: false,
            residual: None,
            build: crate::Side::Left,
            publishes,
        }))
    };
    validate(&query(join(1, 2, vec![(FilterId(1), 0)], JoinKind::Inner))).unwrap();
    assert!(problem(join(1, 1, vec![], JoinKind::LeftSemi)).contains("on both sides"));
    assert!(problem(join(1, 2, vec![(FilterId(1), 1)], JoinKind::Inner)).contains("over equality 1 of 1"));
    assert!(problem(join(1, 2, vec![(FilterId(1), 0), (FilterId(1), 0)], JoinKind::Inner)).contains("published twice"));
    assert!(problem(join(1, 2, vec![], JoinKind::LeftMark(field(3, DataType::Int8)))).contains("the mark of the join"));
}

#[test]
fn run_time_filters_must_be_published_over_the_type_of_the_column() {
    let of_scan = |change: fn(&mut Scan)| {
        changed(move |plan| match &mut plan.node {
            Node::Scan(scan) if !scan.runtime_filters.is_empty() => {
                change(scan);
                true
            }
            _ => false,
        })
    };
    assert!(of_scan(|scan| scan.runtime_filters[0].0 = FilterId(9)).contains("run-time filter 9 is not published"));
    assert!(of_scan(|scan| scan.runtime_filters[0].1 = ColumnId(1)).contains("is over Int64, its column is Utf8"));
    assert!(of_scan(|scan| scan.table.clear()).contains("no name"));
}

#[test]
fn nodes_must_fit_together() {
    let final_aggregate = changed(|plan| match &mut plan.node {
        Node::Aggregate(aggregate) if aggregate.phase == crate::Phase::Final => {
            aggregate.keys.clear();
            aggregate.grouping_sets.clear();
            true
        }
        _ => false,
    });
    assert!(final_aggregate.contains("over another one than its partial"));
    let sets = changed(|plan| match &mut plan.node {
        Node::Aggregate(aggregate) if aggregate.phase == crate::Phase::Partial => {
            aggregate.grouping_sets.push(vec![1]);
            true
        }
        _ => false,
    });
    assert!(sets.contains("names key 1 of 1"));
    let union = changed(|plan| match &mut plan.node {
        Node::Union { inputs, .. } => inputs.iter_mut().any(|(_, ids)| ids.pop().is_some()),
        _ => false,
    });
    assert!(union.contains("an input has 1 columns, the union has 2"));
    let limit = changed(|plan| match &mut plan.node {
        Node::Sort { fetch, skip, .. } => {
            (*fetch, *skip) = (Some(u64::MAX), 1);
            true
        }
        _ => false,
    });
    assert!(limit.contains("more than a row number holds"));
    let number = changed(|plan| {
        plan.id = NodeId(3);
        plan.id.0 == 3 && matches!(plan.node, Node::Window { .. })
    });
    assert!(number.contains("two nodes have this number"));
    let rows = changed(|plan| {
        plan.rows = f64::NAN;
        true
    });
    assert!(rows.contains("the estimate of rows is NaN"));
}

#[test]
fn aggregate_calls_must_have_their_arguments() {
    let of_call = |change: fn(&mut crate::AggregateCall)| {
        changed(move |plan| match &mut plan.node {
            Node::Aggregate(aggregate) if aggregate.phase == crate::Phase::Partial => {
                change(&mut aggregate.calls[0].1);
                true
            }
            _ => false,
        })
    };
    assert!(of_call(|call| call.args.clear()).contains("Sum has 0 arguments"));
    assert!(of_call(|call| call.args = vec![column(1, DataType::Utf8)]).contains("Sum has an argument of type Utf8"));
    assert!(of_call(|call| call.filter = Some(column(0, DataType::Int64))).contains("a condition of type Int64"));
    assert!(of_call(|call| call.ty = DataType::Int8).contains("is declared"));
}

#[test]
fn subplans_and_parameters_must_be_there_before_they_are_used() {
    let mut query = sample::query();
    query.subplans.swap_remove(0);
    assert!(validate(&query).unwrap_err().problem.contains("parameter 5 is not defined before"));
    let mut query = sample::query();
    query.subplans.pop();
    assert!(validate(&query).unwrap_err().problem.contains("no subplan 0 ran before"));
    let mut query = sample::query();
    query.subplans[1].kind = SubplanKind::Scalar(ParameterId(7));
    assert!(validate(&query).unwrap_err().to_string().contains("a scalar subplan has 2 columns (subplan 1)"));
    let mut query = sample::query();
    query.output.push(field(41, DataType::Int64));
    assert!(validate(&query).unwrap_err().to_string().contains("column 41 is not defined here (output of the query)"));
}
