//! One test per feature of SELECT: what its plan looks like.

use crate::catalog::{self, nodes, plan};
use stoa_plan::{AggregateFunction as F, BinaryOp, DataType, Expr, JoinKind, Literal, Node, Query, SubplanKind, Value};

fn joins(query: &Query) -> Vec<&stoa_plan::Join> {
    nodes(&query.root)
        .into_iter()
        .filter_map(|p| match &p.node {
            Node::Join(join) => Some(&**join),
            _ => None,
        })
        .collect()
}

fn aggregate(query: &Query) -> &stoa_plan::Aggregate {
    nodes(&query.root)
        .into_iter()
        .find_map(|p| match &p.node {
            Node::Aggregate(aggregate) => Some(&**aggregate),
            _ => None,
        })
        .expect("an aggregate")
}

fn filters(sql: &str) -> Vec<Expr> {
    let query = plan(sql);
    let found = nodes(&query.root).into_iter().find_map(|p| match &p.node {
        Node::Scan(scan) => Some(scan.filters.clone()),
        _ => None,
    });
    found.expect("a scan")
}

fn output(sql: &str) -> Vec<(String, DataType)> {
    plan(sql).output.iter().map(|f| (f.name.clone(), f.ty)).collect()
}

/// The values of a query without FROM.
fn constants(sql: &str) -> Vec<Value> {
    match plan(sql).root.node {
        Node::Project { exprs, .. } => exprs
            .into_iter()
            .map(|(_, e)| match e {
                Expr::Literal(Literal { value, .. }) => value,
                other => panic!("not folded: {other:?}"),
            })
            .collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn comparisons_with_literals_are_in_the_columns_type() {
    let all = filters(
        "SELECT a FROM t WHERE a < 5 AND d > 1.5 AND c = 'x' AND f < '1995-01-01' AND e < 3 AND e > 0.5 AND i = 3 AND j > 5 \
         AND g >= '1995-01-01' AND f >= TIMESTAMP '1995-01-01 00:00:00' AND d BETWEEN 1 AND 2",
    );
    assert!(all.len() >= 10, "{}", all.len());
    for filter in all {
        let Expr::Binary { left, right, .. } = filter else { panic!("{filter:?}") };
        assert!(matches!(*left, Expr::Column(..)) && matches!(*right, Expr::Literal(_)), "{left:?} {right:?}");
        assert_eq!(left.data_type(), right.data_type());
    }
}

#[test]
fn in_lists() {
    let all = filters("SELECT a FROM t WHERE a IN (1, 2) AND c IN ('x', 'y', 'z', 'w') AND d IN (1.5, 2)");
    assert_eq!(all.len(), 3);
    for filter in all {
        let Expr::InList { input, list, negated: false } = filter else { panic!("{filter:?}") };
        assert!(list.iter().all(|e| e.data_type() == input.data_type()));
    }
}

#[test]
fn constants_are_folded() {
    assert_eq!(
        constants(
            "SELECT 5 / 2, 7 % 2, 1.5 * 2, 2e0, DATE '1995-01-31' + INTERVAL '1' MONTH, DATE '1995-01-02' - DATE '1995-01-01'"
        ),
        [Value::Int(2), Value::Int(1), Value::Decimal(30), Value::Float(2.0), Value::Int(9189), Value::Int(1)]
    );
    assert_eq!(constants("SELECT CAST('12' AS INT), 'a' || 'b', -5, x'ff'")[3], Value::Bytes(vec![255]));
    // Left for the executor, which knows whether the row is ever computed.
    assert!(matches!(plan("SELECT 1 / 0").root.node, Node::Project { exprs, .. } if matches!(exprs[0].1, Expr::Binary { .. })));
}

#[test]
fn names_of_results() {
    let names: Vec<String> =
        output("SELECT a, t.a, a + 1, count(*) OVER () AS \"Mixed\", b AS a FROM t").into_iter().map(|o| o.0).collect();
    assert_eq!(names, ["a", "a", "a + 1", "Mixed", "a"]);
    assert_eq!(output("SELECT *, x FROM u").len(), 4);
    assert_eq!(output("SELECT counterid, URL FROM hits WHERE CounterID = 1")[0].0, "CounterID");
}

#[test]
fn decimals_keep_their_types() {
    let types: Vec<DataType> =
        output("SELECT d * d, d + d, sum(d), avg(d), d / d, d / 2, 1 / d FROM t GROUP BY d").into_iter().map(|o| o.1).collect();
    let decimal = |precision, scale| DataType::Decimal { precision, scale };
    assert_eq!(
        types,
        [
            decimal(21, 4),
            decimal(11, 2),
            decimal(20, 2),
            DataType::Float64,
            DataType::Float64,
            DataType::Float64,
            DataType::Float64
        ]
    );
}

#[test]
fn every_kind_of_join() {
    for (text, kind) in [
        ("JOIN u ON t.a = u.a", JoinKind::Inner),
        ("LEFT JOIN u ON t.a = u.a", JoinKind::Left),
        ("RIGHT JOIN u ON t.a = u.a", JoinKind::Right),
        ("FULL JOIN u ON t.a = u.a", JoinKind::Full),
        ("LEFT SEMI JOIN u ON t.a = u.a", JoinKind::LeftSemi),
        ("SEMI JOIN u ON t.a = u.a", JoinKind::LeftSemi),
        ("ANTI JOIN u USING (a)", JoinKind::LeftAnti),
        ("LEFT ANTI JOIN u ON t.a = u.a", JoinKind::LeftAnti),
    ] {
        let query = plan(&format!("SELECT t.a FROM t {text}"));
        assert_eq!(joins(&query)[0].kind, kind);
        assert_eq!(joins(&query)[0].on.len(), 1);
    }
    let query = plan("SELECT t.a FROM t LEFT JOIN u ON t.a < u.a");
    assert!(joins(&query)[0].on.is_empty() && joins(&query)[0].residual.is_some());
    let query = plan("SELECT t.a FROM t CROSS JOIN u");
    assert!(joins(&query)[0].on.is_empty() && joins(&query)[0].residual.is_none());
    let query = plan("SELECT * FROM t, u WHERE t.b = u.x AND t.a > 3");
    assert_eq!(joins(&query)[0].on[0].0.data_type(), joins(&query)[0].on[0].1.data_type());
}

#[test]
fn subqueries_become_joins() {
    for (text, kind) in [
        ("a IN (SELECT x FROM u)", JoinKind::LeftSemi),
        ("a = ANY (SELECT x FROM u)", JoinKind::LeftSemi),
        ("EXISTS (SELECT 1 FROM u WHERE u.a = t.a)", JoinKind::LeftSemi),
        ("NOT EXISTS (SELECT 1 FROM u WHERE u.a = t.a)", JoinKind::LeftAnti),
    ] {
        let query = plan(&format!("SELECT a FROM t WHERE {text}"));
        assert_eq!(joins(&query)[0].kind, kind, "{text}");
    }
    let query = plan("SELECT a FROM t WHERE a IN (SELECT x FROM u) OR b = 3");
    assert!(matches!(joins(&query)[0].kind, JoinKind::LeftMark(_)));
}

#[test]
fn not_in_with_nulls() {
    // Neither side can be NULL: one anti join.
    let query = plan("SELECT a FROM u WHERE a NOT IN (SELECT a FROM u)");
    assert_eq!(joins(&query).iter().map(|j| &j.kind).collect::<Vec<_>>(), [&JoinKind::LeftAnti]);
    // The subquery may yield NULL: a second anti join without keys for that.
    let query = plan("SELECT a FROM u WHERE a NOT IN (SELECT x FROM u)");
    assert_eq!(joins(&query).len(), 2);
    assert!(joins(&query).iter().all(|j| j.kind == JoinKind::LeftAnti));
    // The operand may be NULL too: kept only if the subquery is empty.
    let query = plan("SELECT a FROM t WHERE a NOT IN (SELECT x FROM u)");
    assert_eq!(joins(&query).len(), 3);
    plan("SELECT a FROM t WHERE NOT (a IN (SELECT x FROM u) OR b = 3)");
    plan("SELECT a, a IN (SELECT x FROM u), EXISTS (SELECT 1 FROM u WHERE u.a = t.a) FROM t");
}

#[test]
fn scalar_subqueries() {
    let query = plan("SELECT a, (SELECT max(x) FROM u) FROM t WHERE b > (SELECT x FROM u) AND a < (SELECT max(x) FROM u)");
    assert!(query.subplans.len() >= 2);
    assert!(query.subplans.iter().all(|s| matches!(s.kind, SubplanKind::Scalar(_)) && s.plan.fields().len() == 1));
    let query = plan("SELECT a, (SELECT count(*) FROM u WHERE u.a = t.a) FROM t");
    assert!(query.subplans.is_empty());
    assert_eq!(joins(&query)[0].kind, JoinKind::Left);
    plan("SELECT (SELECT x FROM u WHERE u.a > t.a) FROM t");
    plan("SELECT (SELECT max(x) FROM u WHERE u.a <> t.a) FROM t");
}

#[test]
fn ctes_and_derived_tables() {
    plan(
        "WITH w AS (SELECT a, b FROM t), v (z) AS (SELECT a FROM w) SELECT * FROM w JOIN v ON w.a = v.z JOIN w w2 ON w2.a = v.z",
    );
    plan("SELECT * FROM (VALUES (1, 'a'), (2, NULL)) AS v (x, y) WHERE x > 1");
    plan("SELECT * FROM (SELECT count(*), count(*) FROM t)");
}

#[test]
fn comparisons_with_subqueries() {
    plan("SELECT a FROM t WHERE a > ALL (SELECT x FROM u) OR b < ANY (SELECT x FROM u)");
    plan("SELECT a FROM t WHERE a IN (SELECT x FROM u WHERE x > ALL (SELECT b FROM t))");
    plan("WITH w AS (SELECT a FROM t WHERE a >= SOME (SELECT x FROM u)) SELECT count(*) FROM w");
    plan("SELECT b, count(*) FROM t GROUP BY b HAVING count(*) > ALL (SELECT x FROM u)");
}

#[test]
fn set_operations() {
    assert!(matches!(plan("SELECT a FROM t UNION ALL SELECT x FROM u").root.node, Node::Union { .. }));
    assert!(matches!(plan("SELECT a FROM t UNION SELECT x FROM u").root.node, Node::Aggregate(_)));
    let query = plan("SELECT a, c FROM t INTERSECT SELECT x, y FROM u");
    assert!(joins(&query)[0].null_equals_null && joins(&query)[0].kind == JoinKind::LeftSemi);
    for except in ["EXCEPT", "MINUS"] {
        let query = plan(&format!("SELECT a, c FROM t {except} SELECT x, y FROM u"));
        assert!(joins(&query)[0].null_equals_null && joins(&query)[0].kind == JoinKind::LeftAnti);
    }
    assert_eq!(output("SELECT a FROM t UNION ALL SELECT e FROM t UNION ALL SELECT d FROM t")[0].1, DataType::Float64);
}

#[test]
fn grouping_sets() {
    let query = plan("SELECT a, b, sum(d), grouping(a, b) FROM t GROUP BY ROLLUP (a, b)");
    assert_eq!(aggregate(&query).grouping_sets, [vec![0, 1], vec![0], vec![]]);
    assert_eq!(aggregate(&query).grouping_id.as_ref().map(|f| f.ty), Some(DataType::UInt32));
    let query = plan("SELECT a, b FROM t GROUP BY CUBE (a, b)");
    assert_eq!(aggregate(&query).grouping_sets.len(), 4);
    let query = plan("SELECT a, b FROM t GROUP BY GROUPING SETS ((a), (b), ())");
    assert_eq!(aggregate(&query).grouping_sets, [vec![0], vec![1], vec![]]);
    let query = plan("SELECT a, b FROM t GROUP BY a, b WITH ROLLUP");
    assert_eq!(aggregate(&query).grouping_sets.len(), 3);
}

#[test]
fn aggregates() {
    let query = plan(
        "SELECT count(*), count(a), count(DISTINCT a), sum(b) FILTER (WHERE a > 1), string_agg(c, ',' ORDER BY a DESC) FROM t",
    );
    let calls: Vec<_> = aggregate(&query).calls.iter().map(|(_, c)| c).collect();
    assert!(calls[0].function == F::Count && calls[0].args.is_empty());
    assert!(calls[1].args.len() == 1 && !calls[1].distinct && calls[2].distinct);
    assert!(calls[3].filter.is_some());
    assert!(calls[4].function == F::StringAgg && calls[4].order_by[0].descending);
    for (text, function) in [
        ("stddev(e)", F::StddevSamp),
        ("stddev_pop(e)", F::StddevPop),
        ("variance(e)", F::VarSamp),
        ("var_pop(e)", F::VarPop),
        ("corr(e, a)", F::Corr),
        ("covar_pop(e, a)", F::CovarPop),
        ("median(a)", F::Median),
        ("percentile_cont(0.5) WITHIN GROUP (ORDER BY a)", F::PercentileCont),
        ("approx_percentile_cont(a, 0.5)", F::ApproxPercentile),
        ("approx_distinct(c)", F::ApproxDistinct),
        ("bool_and(h)", F::BoolAnd),
        ("bool_or(h)", F::BoolOr),
        ("bit_and(a)", F::BitAnd),
        ("bit_xor(a)", F::BitXor),
        ("group_concat(c SEPARATOR ';')", F::StringAgg),
        ("first_value(a ORDER BY b)", F::FirstValue),
        ("any_value(a)", F::AnyValue),
        ("regr_slope(e, a)", F::RegrSlope),
    ] {
        let query = plan(&format!("SELECT {text} FROM t"));
        assert_eq!(aggregate(&query).calls[0].1.function, function, "{text}");
    }
    let query = plan("SELECT percentile_cont(0.9) WITHIN GROUP (ORDER BY a DESC) FROM t");
    let call = &aggregate(&query).calls[0].1;
    assert!(matches!(&call.args[1], Expr::Literal(Literal { value: Value::Float(p), .. }) if *p == 0.1));
}

#[test]
fn distinct_order_limit() {
    let Node::Sort { keys, fetch, skip, .. } =
        plan("SELECT a FROM t ORDER BY a, b DESC, c NULLS FIRST LIMIT 5 OFFSET 2").root.node
    else {
        panic!("a sort")
    };
    assert_eq!((fetch, skip), (Some(5), 2));
    assert_eq!(
        keys.iter().map(|k| (k.descending, k.nulls_first)).collect::<Vec<_>>(),
        [(false, false), (true, true), (false, true)]
    );
    assert!(matches!(plan("SELECT a FROM t LIMIT 3").root.node, Node::Limit { fetch: Some(3), skip: 0, .. }));
    assert!(matches!(plan("SELECT a FROM t FETCH FIRST 3 ROWS ONLY").root.node, Node::Limit { fetch: Some(3), .. }));
    plan("SELECT DISTINCT a + 1, c FROM t ORDER BY a + 1, c");
    let query = plan("SELECT DISTINCT ON (a) a, b FROM t ORDER BY a, b DESC");
    assert!(aggregate(&query).calls.iter().all(|(_, c)| c.function == F::FirstValue && c.order_by.len() == 2));
}

#[test]
fn expressions() {
    plan("SELECT CASE a WHEN 1 THEN 'x' ELSE c END, if(a > 1, 'x', 'y'), ifnull(a, 0), coalesce(e, 0.5), nullif(a, 0) FROM t");
    plan("SELECT c LIKE 'a!%' ESCAPE '!', c ILIKE 'x%', c ~ 'a.*b', c RLIKE 'x', c NOT REGEXP 'y.z', regexp_like(c, 'x') FROM t");
    plan(
        "SELECT date_add(f, INTERVAL 1 DAY), f - INTERVAL '90' DAY, f + 1, year(f), extract(month FROM f), date_trunc('month', g) FROM t",
    );
    plan(
        "SELECT substring(c FROM 1 FOR 2), upper(c), c || a, concat_ws(',', c, c), position('a' IN c), trim(c), left(c, 2) FROM t",
    );
    plan("SELECT abs(a), round(d, 1), power(e, 2), sign(e), mod(a, 2), greatest(a, b), -d, d % 2, a & 1, a << 1 FROM t");
    plan(
        "SELECT CAST(c AS SIGNED), c::DATE, TRY_CAST(c AS INT), CAST(a AS CHAR), CAST(a AS DECIMAL(10,2)), CAST(c AS DATETIME), CONVERT(a, CHAR)
         FROM t",
    );
    plan("SELECT a <=> b, a IS DISTINCT FROM b, h IS TRUE, h IS NOT FALSE, a IS NULL, NOT h FROM t");
    plan("SELECT `a`, \"a\", A, T.A FROM T");
    let query = plan("SELECT TRY_CAST(c AS INT) FROM t");
    assert!(
        nodes(&query.root)
            .iter()
            .any(|p| catalog::expressions(&p.node).iter().any(|e| matches!(e, Expr::Cast { safe: true, .. })))
    );
}

#[test]
fn long_conditions_are_shallow() {
    let conditions: Vec<String> = (0..1000).map(|i| format!("a + b = {i}")).collect();
    let query = plan(&format!("SELECT a FROM t WHERE {}", conditions.join(" OR ")));
    fn depth(e: &Expr) -> usize {
        1 + e.children().into_iter().map(depth).max().unwrap_or(0)
    }
    for node in nodes(&query.root) {
        for e in catalog::expressions(&node.node) {
            assert!(depth(e) < 20);
        }
    }
}

#[test]
fn windows_are_planned() {
    let query = plan("SELECT row_number() OVER (PARTITION BY a ORDER BY b), sum(b) OVER (ORDER BY a ROWS 1 PRECEDING) FROM t");
    assert!(nodes(&query.root).iter().any(|p| matches!(p.node, Node::Window { .. })));
}

#[test]
fn views() {
    let tables = catalog::Tables::all().view("v", "SELECT a, count(*) AS n FROM t GROUP BY a");
    let query = catalog::bind_with("SELECT v.n FROM v JOIN u ON v.a = u.a WHERE n > 1", &tables).unwrap();
    catalog::check(&query);
    let tables = catalog::Tables::all().view("broken", "SELECT nope FROM t");
    assert!(
        catalog::bind_with("SELECT * FROM broken", &tables)
            .unwrap_err()
            .message
            .starts_with("in view 'broken': there is no column")
    );
}

#[test]
fn comparison_operators_survive() {
    let Expr::Binary { op, .. } = filters("SELECT a FROM t WHERE a <> 1").remove(0) else { panic!("a comparison") };
    assert_eq!(op, BinaryOp::NotEq);
}
