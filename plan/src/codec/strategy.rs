//! Arbitrary plans: every node, every expression, every type. They are well-formed, not valid: the codec alone reads them.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::values::{ALL_AGGREGATES, ALL_BINARY, ALL_PHASES, ALL_SIDES, ALL_UNARY};
use crate::*;

pub(super) fn query() -> impl Strategy<Value = Query> {
    let kind = prop_oneof![
        any::<u32>().prop_map(|id| SubplanKind::Scalar(ParameterId(id))),
        any::<u32>().prop_map(SubplanKind::Shared),
        any::<u32>().prop_map(SubplanKind::Received),
        any::<u32>().prop_map(|id| SubplanKind::Filter(FilterId(id)))
    ];
    let subplan = (kind, plan()).prop_map(|(kind, plan)| Subplan { kind, plan });
    (vec(subplan, 0..3), plan(), vec(field(), 0..4)).prop_map(|(subplans, root, output)| Query { subplans, root, output })
}

pub(super) fn data_type() -> impl Strategy<Value = DataType> {
    use DataType::*;
    let simple =
        vec![Null, Bool, Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64, Float32, Float64, Date, Timestamp, Interval];
    let decimal = (1u8..=38).prop_flat_map(|precision| (Just(precision), 0..=precision as i8));
    prop_oneof![
        8 => select(simple),
        1 => select(&[Utf8, Binary][..]),
        2 => decimal.prop_map(|(precision, scale)| Decimal { precision, scale }),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<u64>().prop_map(Value::UInt),
        proptest::num::f64::ANY.prop_filter("equal to itself", |v| !v.is_nan()).prop_map(Value::Float),
        any::<i128>().prop_map(Value::Decimal),
        ".{0,12}".prop_map(Value::Str),
        vec(any::<u8>(), 0..12).prop_map(Value::Bytes),
        any::<(i32, i32, i64)>().prop_map(|(months, days, nanos)| Value::Interval { months, days, nanos }),
    ]
}

pub(super) fn field() -> impl Strategy<Value = Field> {
    (any::<u32>(), "\\PC{0,8}", data_type(), any::<bool>()).prop_map(|(id, name, ty, nullable)| Field {
        id: ColumnId(id),
        name,
        ty,
        nullable,
    })
}

pub(super) fn expr() -> impl Strategy<Value = Expr> {
    let leaf = prop_oneof![
        (any::<u32>(), data_type()).prop_map(|(id, ty)| Expr::Column(ColumnId(id), ty)),
        (any::<u32>(), data_type()).prop_map(|(id, ty)| Expr::Parameter(ParameterId(id), ty)),
        (data_type(), value()).prop_map(|(ty, value)| Expr::Literal(Literal { ty, value })),
    ];
    leaf.prop_recursive(4, 12, 3, |inner| prop_oneof![operator(inner.clone()), list(inner)])
}

fn operator(inner: BoxedStrategy<Expr>) -> impl Strategy<Value = Expr> {
    let boxed = inner.prop_map(Box::new).boxed();
    prop_oneof![
        (select(ALL_BINARY), boxed.clone(), boxed.clone(), data_type()).prop_map(|(op, left, right, ty)| Expr::Binary {
            op,
            left,
            right,
            ty
        }),
        (select(ALL_UNARY), boxed.clone()).prop_map(|(op, input)| Expr::Unary { op, input }),
        (boxed.clone(), data_type(), any::<bool>()).prop_map(|(input, ty, safe)| Expr::Cast { input, ty, safe }),
        (boxed.clone(), boxed, option::of(any::<char>().prop_filter("not 0", |c| *c != '\0')), any::<(bool, bool)>()).prop_map(
            |(input, pattern, escape, (negated, case_insensitive))| Expr::Like {
                input,
                pattern,
                escape,
                negated,
                case_insensitive
            }
        ),
    ]
}

fn list(inner: BoxedStrategy<Expr>) -> impl Strategy<Value = Expr> {
    let boxed = inner.clone().prop_map(Box::new).boxed();
    let some = vec(inner.clone(), 0..3).boxed();
    prop_oneof![
        (vec((inner.clone(), inner), 0..3), option::of(boxed.clone()), data_type())
            .prop_map(|(branches, otherwise, ty)| Expr::Case { branches, otherwise, ty }),
        (boxed, some.clone(), any::<bool>()).prop_map(|(input, list, negated)| Expr::InList { input, list, negated }),
        ("[a-z_]{0,9}", some, data_type()).prop_map(|(name, args, ty)| Expr::Function { name, args, ty }),
    ]
}

fn sort_keys() -> impl Strategy<Value = Vec<SortKey>> {
    let key =
        (expr(), any::<(bool, bool)>()).prop_map(|(expr, (descending, nulls_first))| SortKey { expr, descending, nulls_first });
    vec(key, 0..3)
}

fn scan() -> impl Strategy<Value = Node> {
    let column = (any::<u32>(), field()).prop_map(|(ordinal, field)| ScanColumn { ordinal, field }).boxed();
    let filter = any::<(u32, u32)>().prop_map(|(filter, column)| (FilterId(filter), ColumnId(column)));
    let shard_key = vec(any::<u32>(), 0..3);
    (
        ".{0,9}",
        vec(column.clone(), 0..4),
        vec(expr(), 0..3),
        vec(column, 0..3),
        vec(filter, 0..3),
        any::<(bool, u64)>(),
        shard_key,
    )
        .prop_map(|(table, columns, filters, filter_columns, runtime_filters, (reference, revision), shard_key)| {
            Node::Scan(Scan { table, columns, filters, filter_columns, runtime_filters, reference, shard_key, revision })
        })
}

fn plan() -> impl Strategy<Value = Plan> {
    let values =
        (vec(field(), 0..3), vec(vec(expr(), 0..3), 0..3)).prop_map(|(fields, rows)| Node::Values(Values { fields, rows }));
    let columns = vec((any::<u32>().prop_map(ColumnId), field()), 0..3);
    let subplan = (any::<u32>(), columns).prop_map(|(subplan, columns)| Node::SubplanScan(SubplanScan { subplan, columns }));
    let leaf = prop_oneof![2 => scan(), 1 => values, 1 => subplan].boxed();
    numbered(leaf).prop_recursive(4, 8, 2, |inner| numbered(prop_oneof![unary(inner.clone()), big(inner)].boxed()))
}

fn numbered(node: BoxedStrategy<Node>) -> BoxedStrategy<Plan> {
    (any::<u32>(), 0.0..1e30, node).prop_map(|(id, rows, node)| Plan { id: NodeId(id), rows, node }).boxed()
}

fn unary(inner: BoxedStrategy<Plan>) -> impl Strategy<Value = Node> {
    let input = inner.prop_map(Box::new).boxed();
    let limit = (option::of(any::<u64>()), any::<u64>()).boxed();
    let window = (field(), "[a-z]{0,5}", vec(expr(), 0..2), vec(expr(), 0..2), sort_keys(), ".{0,8}").prop_map(
        |(field, function, args, partition_by, order_by, frame)| WindowCall {
            field,
            function,
            args,
            partition_by,
            order_by,
            frame,
        },
    );
    let kind =
        prop_oneof![Just(ExchangeKind::Gather), Just(ExchangeKind::Broadcast), vec(expr(), 0..3).prop_map(ExchangeKind::Shuffle)];
    prop_oneof![
        (input.clone(), expr()).prop_map(|(input, predicate)| Node::Filter { input, predicate }),
        (input.clone(), vec((field(), expr()), 0..3)).prop_map(|(input, exprs)| Node::Project { input, exprs }),
        (input.clone(), sort_keys(), limit.clone()).prop_map(|(input, keys, (fetch, skip))| Node::Sort {
            input,
            keys,
            fetch,
            skip
        }),
        (input.clone(), limit).prop_map(|(input, (fetch, skip))| Node::Limit { input, fetch, skip }),
        (input.clone(), expr()).prop_map(|(input, times)| Node::Repeat { input, times }),
        (input.clone(), vec(window, 0..3)).prop_map(|(input, calls)| Node::Window { input, calls }),
        (input, kind).prop_map(|(input, kind)| Node::Exchange { input, kind }),
    ]
}

fn big(inner: BoxedStrategy<Plan>) -> impl Strategy<Value = Node> {
    let union = (vec((inner.clone(), vec(any::<u32>().prop_map(ColumnId), 0..3)), 0..3), vec(field(), 0..3));
    prop_oneof![
        join(inner.clone()).prop_map(|join| Node::Join(Box::new(join))),
        aggregate(inner).prop_map(|aggregate| Node::Aggregate(Box::new(aggregate))),
        union.prop_map(|(inputs, fields)| Node::Union { inputs, fields }),
    ]
}

fn join(inner: BoxedStrategy<Plan>) -> impl Strategy<Value = Join> {
    use JoinKind::*;
    let kind = prop_oneof![
        8 => select(vec![Inner, Left, Right, Full, LeftSemi, LeftAnti, RightSemi, RightAnti]),
        1 => field().prop_map(LeftMark)
    ];
    let publishes = vec(any::<(u32, u32)>().prop_map(|(filter, on)| (FilterId(filter), on)), 0..3);
    let on = vec((expr(), expr()), 0..3);
    (kind, inner.clone(), inner, on, any::<bool>(), option::of(expr()), select(ALL_SIDES), publishes).prop_map(
        |(kind, left, right, on, null_equals_null, residual, build, publishes)| Join {
            kind,
            left,
            right,
            on,
            null_equals_null,
            residual,
            build,
            publishes,
        },
    )
}

fn aggregate(inner: BoxedStrategy<Plan>) -> impl Strategy<Value = Aggregate> {
    let call = (select(ALL_AGGREGATES), vec(expr(), 0..3), any::<bool>(), option::of(expr()), sort_keys(), data_type()).prop_map(
        |(function, args, distinct, filter, order_by, ty)| AggregateCall { function, args, distinct, filter, order_by, ty },
    );
    let keys = vec((field(), expr()), 0..3);
    let sets = vec(vec(any::<u32>(), 0..3), 0..3);
    (inner, keys, sets, option::of(field()), vec((field(), call), 0..3), select(ALL_PHASES)).prop_map(
        |(input, keys, grouping_sets, grouping_id, calls, phase)| Aggregate {
            input,
            keys,
            grouping_sets,
            grouping_id,
            calls,
            phase,
        },
    )
}
