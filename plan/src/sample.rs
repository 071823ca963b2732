//! A valid query with every kind of node and expression, for the tests of this crate.

use crate::*;

/// A column for tests, named after its number.
pub fn field(id: u32, ty: DataType) -> Field {
    Field { id: ColumnId(id), name: format!("c{id}"), ty, nullable: id.is_multiple_of(2) }
}

fn column(id: u32, ty: DataType) -> Expr {
    Expr::Column(ColumnId(id), ty)
}

fn int(value: i64) -> Expr {
    Expr::Literal(Literal { ty: DataType::Int64, value: Value::Int(value) })
}

fn string(value: &str) -> Expr {
    Expr::Literal(Literal { ty: DataType::Utf8, value: Value::Str(value.into()) })
}

fn binary(op: BinaryOp, left: Expr, right: Expr, ty: DataType) -> Expr {
    Expr::Binary { op, left: Box::new(left), right: Box::new(right), ty }
}

fn gather(input: Plan) -> Plan {
    exchange(input, ExchangeKind::Gather)
}

fn exchange(input: Plan, kind: ExchangeKind) -> Plan {
    Plan::new(Node::Exchange { input: Box::new(input), kind })
}

/// A table with an `Int64` as column `first`, a `Utf8` as the next, and a filter column after them.
fn scan(table: &str, first: u32) -> Plan {
    let column_of = |ordinal, ty| ScanColumn { ordinal, field: field(first + ordinal, ty) };
    let like = Expr::Like {
        input: Box::new(column(first + 1, DataType::Utf8)),
        pattern: Box::new(string("%a\\%_")),
        escape: Some('\\'),
        negated: true,
        case_insensitive: false,
    };
    let not_null = Expr::Unary { op: UnaryOp::IsNotNull, input: Box::new(column(first + 2, DataType::Date)) };
    Plan::new(Node::Scan(Scan {
        table: table.into(),
        columns: vec![column_of(0, DataType::Int64), column_of(1, DataType::Utf8)],
        filters: vec![like, not_null],
        filter_columns: vec![column_of(2, DataType::Date)],
        runtime_filters: vec![],
        reference: table == "nation",
        shard_key: vec![0],
        revision: 0,
    }))
}

/// A join of columns 0.. and 10.. with a run-time filter, then a mark join with columns 20.. .
fn joins() -> Plan {
    let mut probe = scan("lineitem", 0);
    if let Node::Scan(scan) = &mut probe.node {
        scan.runtime_filters.push((FilterId(1), ColumnId(0)));
    }
    let probe = exchange(probe, ExchangeKind::Shuffle(vec![column(0, DataType::Int64)]));
    let join = |kind, left, right, on: (u32, u32), publishes| {
        let residual =
            binary(BinaryOp::NotEq, column(on.0 + 1, DataType::Utf8), column(on.1 + 1, DataType::Utf8), DataType::Bool);
        Plan::new(Node::Join(Box::new(Join {
            kind,
            left,
            right,
            on: vec![(column(on.0, DataType::Int64), column(on.1, DataType::Int64))],
            null_equals_null: on.0 == 10,
            residual: Some(residual),
            build: Side::Right,
            publishes,
        })))
    };
    let broadcast = exchange(scan("orders", 10), ExchangeKind::Broadcast);
    let inner = join(JoinKind::Inner, probe, broadcast, (0, 10), vec![(FilterId(1), 0)]);
    join(JoinKind::LeftMark(field(23, DataType::Bool)), inner, scan("nation", 20), (10, 20), vec![])
}

/// Partial and final aggregates over the joins; columns 30 (key), 31 (grouping id), 32 and 33 (calls).
fn aggregates() -> Plan {
    let decimal = DataType::Decimal { precision: 38, scale: 4 };
    let price = Expr::Cast { input: Box::new(column(0, DataType::Int64)), ty: decimal, safe: true };
    let call = |function, args, ty, filter, order_by| AggregateCall { function, args, distinct: false, filter, order_by, ty };
    let order = vec![SortKey { expr: column(10, DataType::Int64), descending: true, nulls_first: false }];
    let concat = call(AggregateFunction::StringAgg, vec![column(1, DataType::Utf8), string(", ")], DataType::Utf8, None, order);
    let sum = call(AggregateFunction::Sum, vec![price], decimal, Some(column(23, DataType::Bool)), vec![]);
    let aggregate = |input, phase| {
        Plan::new(Node::Aggregate(Box::new(Aggregate {
            input,
            keys: vec![(field(30, DataType::Utf8), column(1, DataType::Utf8))],
            grouping_sets: vec![vec![0], vec![]],
            grouping_id: Some(field(31, DataType::UInt32)),
            calls: vec![(field(32, decimal), sum.clone()), (field(33, DataType::Utf8), concat.clone())],
            phase,
        })))
    };
    aggregate(gather(aggregate(joins(), Phase::Partial)), Phase::Final)
}

/// A projection of the aggregates to columns 40 (`Utf8`) and 41 (`Int64`).
fn projection() -> Plan {
    let one_of = Expr::InList { input: Box::new(column(31, DataType::UInt32)), list: vec![], negated: true };
    let text = Expr::Function { name: "upper".into(), args: vec![column(30, DataType::Utf8)], ty: DataType::Utf8 };
    let case = Expr::Case {
        branches: vec![(one_of, int(1))],
        otherwise: Some(Box::new(Expr::Parameter(ParameterId(5), DataType::Int64))),
        ty: DataType::Int64,
    };
    let exprs = vec![(field(40, DataType::Utf8), text), (field(41, DataType::Int64), case)];
    Plan::new(Node::Project { input: Box::new(aggregates()), exprs })
}

fn subplans() -> Vec<Subplan> {
    let count = AggregateCall {
        function: AggregateFunction::Count,
        args: vec![],
        distinct: false,
        filter: None,
        order_by: vec![],
        ty: DataType::Int64,
    };
    let scalar = Plan::new(Node::Aggregate(Box::new(Aggregate {
        input: gather(scan("part", 50)),
        keys: vec![],
        grouping_sets: vec![],
        grouping_id: None,
        calls: vec![(field(53, DataType::Int64), count)],
        phase: Phase::Single,
    })));
    vec![
        Subplan { kind: SubplanKind::Scalar(ParameterId(5)), plan: scalar },
        Subplan { kind: SubplanKind::Shared(0), plan: gather(scan("supplier", 60)) },
    ]
}

/// The query.
pub fn query() -> Query {
    let values = Values {
        fields: vec![field(70, DataType::Utf8), field(71, DataType::Int64)],
        rows: vec![vec![string("a"), int(1)], vec![string("b"), int(i64::MIN)]],
    };
    let columns = vec![(ColumnId(60), field(81, DataType::Int64)), (ColumnId(61), field(80, DataType::Utf8))];
    let shared = Plan::new(Node::SubplanScan(SubplanScan { subplan: 0, columns }));
    let ids = |ids: [u32; 2]| ids.map(ColumnId).to_vec();
    let union = Plan::new(Node::Union {
        inputs: vec![
            (projection(), ids([40, 41])),
            (Plan::new(Node::Values(values)), ids([70, 71])),
            (Plan::new(Node::Limit { input: Box::new(shared), fetch: Some(3), skip: 1 }), ids([80, 81])),
        ],
        fields: vec![field(90, DataType::Utf8), field(91, DataType::Int64)],
    });
    let positive = binary(BinaryOp::Gt, column(91, DataType::Int64), int(0), DataType::Bool);
    let filter = Plan::new(Node::Filter { input: Box::new(union), predicate: positive });
    let key = SortKey { expr: column(91, DataType::Int64), descending: false, nulls_first: true };
    let window = Plan::new(Node::Window {
        input: Box::new(filter),
        calls: vec![WindowCall {
            field: field(92, DataType::UInt64),
            function: "rank".into(),
            args: vec![],
            partition_by: vec![column(90, DataType::Utf8)],
            order_by: vec![key.clone()],
            frame: String::new(),
        }],
    });
    let mut root = Plan::new(Node::Sort { input: Box::new(window), keys: vec![key], fetch: Some(10), skip: 2 });
    root.rows = 12.0;
    let output = vec![field(92, DataType::UInt64), field(90, DataType::Utf8)];
    let mut query = Query { subplans: subplans(), root, output };
    query.number();
    query
}
