//! A catalog for tests: the TPC-H tables and a few small ones.

use std::collections::HashMap;

use stoa_plan::{DataType, Expr, Node, Plan, Query};
use stoa_sql::{Catalog, SqlError, Statement, TableInfo};

/// Tables by their definitions.
#[derive(Default)]
pub struct Tables {
    tables: HashMap<String, TableInfo>,
    views: HashMap<String, String>,
}

const DEFINITIONS: &str = "
CREATE TABLE part (p_partkey BIGINT NOT NULL, p_name VARCHAR(55) NOT NULL, p_mfgr CHAR(25) NOT NULL, p_brand CHAR(10) NOT NULL,
  p_type VARCHAR(25) NOT NULL, p_size INT NOT NULL, p_container CHAR(10) NOT NULL, p_retailprice DECIMAL(15,2) NOT NULL,
  p_comment VARCHAR(23) NOT NULL, SHARD KEY (p_partkey));
CREATE TABLE supplier (s_suppkey BIGINT NOT NULL, s_name CHAR(25) NOT NULL, s_address VARCHAR(40) NOT NULL,
  s_nationkey INT NOT NULL, s_phone CHAR(15) NOT NULL, s_acctbal DECIMAL(15,2) NOT NULL, s_comment VARCHAR(101) NOT NULL);
CREATE TABLE partsupp (ps_partkey BIGINT NOT NULL, ps_suppkey BIGINT NOT NULL, ps_availqty INT NOT NULL,
  ps_supplycost DECIMAL(15,2) NOT NULL, ps_comment VARCHAR(199) NOT NULL);
CREATE TABLE customer (c_custkey BIGINT NOT NULL, c_name VARCHAR(25) NOT NULL, c_address VARCHAR(40) NOT NULL,
  c_nationkey INT NOT NULL, c_phone CHAR(15) NOT NULL, c_acctbal DECIMAL(15,2) NOT NULL, c_mktsegment CHAR(10) NOT NULL,
  c_comment VARCHAR(117) NOT NULL);
CREATE TABLE orders (o_orderkey BIGINT NOT NULL, o_custkey BIGINT NOT NULL, o_orderstatus CHAR(1) NOT NULL,
  o_totalprice DECIMAL(15,2) NOT NULL, o_orderdate DATE NOT NULL, o_orderpriority CHAR(15) NOT NULL, o_clerk CHAR(15) NOT NULL,
  o_shippriority INT NOT NULL, o_comment VARCHAR(79) NOT NULL, SHARD KEY (o_orderkey));
CREATE TABLE lineitem (l_orderkey BIGINT NOT NULL, l_partkey BIGINT NOT NULL, l_suppkey BIGINT NOT NULL, l_linenumber INT NOT NULL,
  l_quantity DECIMAL(15,2) NOT NULL, l_extendedprice DECIMAL(15,2) NOT NULL, l_discount DECIMAL(15,2) NOT NULL,
  l_tax DECIMAL(15,2) NOT NULL, l_returnflag CHAR(1) NOT NULL, l_linestatus CHAR(1) NOT NULL, l_shipdate DATE NOT NULL,
  l_commitdate DATE NOT NULL, l_receiptdate DATE NOT NULL, l_shipinstruct CHAR(25) NOT NULL, l_shipmode CHAR(10) NOT NULL,
  l_comment VARCHAR(44) NOT NULL, SHARD KEY (l_orderkey), SORT KEY (l_shipdate));
CREATE REFERENCE TABLE nation (n_nationkey INT NOT NULL, n_name CHAR(25) NOT NULL, n_regionkey INT NOT NULL, n_comment VARCHAR(152));
CREATE REFERENCE TABLE region (r_regionkey INT NOT NULL, r_name CHAR(25) NOT NULL, r_comment VARCHAR(152));
CREATE TABLE t (a INT, b BIGINT, c VARCHAR(20), d DECIMAL(10,2), e DOUBLE, f DATE, g TIMESTAMP, h BOOL, i TINYINT, j BIGINT UNSIGNED);
CREATE TABLE u (a INT NOT NULL, x INT, y VARCHAR(20));
CREATE TABLE hits (\"CounterID\" INT NOT NULL, \"URL\" TEXT NOT NULL, \"EventDate\" DATE NOT NULL);
";

impl Tables {
    /// TPC-H and the small tables.
    pub fn all() -> Self {
        let mut tables = Tables::default();
        for statement in stoa_sql::parse(DEFINITIONS).expect("definitions") {
            let Statement::CreateTable(table) = statement else { panic!("a definition") };
            tables.tables.insert(table.name.clone(), table.info().expect("its key has its columns"));
        }
        tables
    }

    /// Adds a view.
    pub fn view(mut self, name: &str, sql: &str) -> Self {
        self.views.insert(name.to_owned(), sql.to_owned());
        self
    }
}

impl Catalog for Tables {
    fn table(&self, name: &str) -> Option<TableInfo> {
        self.tables.get(&name.to_lowercase()).cloned()
    }

    fn view(&self, name: &str) -> Option<String> {
        self.views.get(&name.to_lowercase()).cloned()
    }

    fn names(&self) -> Vec<String> {
        self.tables.keys().chain(self.views.keys()).cloned().collect()
    }
}

/// Binds one query.
pub fn bind(sql: &str) -> Result<Query, SqlError> {
    bind_with(sql, &Tables::all())
}

/// Binds one query over a catalog.
pub fn bind_with(sql: &str, tables: &Tables) -> Result<Query, SqlError> {
    let mut statements = stoa_sql::parse(sql)?;
    assert_eq!(statements.len(), 1, "one statement");
    match statements.remove(0) {
        Statement::Query(query) | Statement::Explain { query, .. } => stoa_sql::bind_query(&query, tables),
        Statement::Insert(insert) => stoa_sql::bind_insert(&insert, tables),
        other => panic!("not a query: {other:?}"),
    }
}

/// Binds one query that must bind.
pub fn plan(sql: &str) -> Query {
    let query = bind(sql).unwrap_or_else(|e| panic!("{e}\n{sql}"));
    check(&query);
    query
}

/// The error of a query that must not bind or parse.
pub fn error(sql: &str) -> String {
    match bind(sql) {
        Ok(query) => panic!("bound: {sql}\n{query:?}"),
        Err(error) => error.to_string(),
    }
}

/// Every node, parents first.
pub fn nodes(plan: &Plan) -> Vec<&Plan> {
    let mut all = vec![plan];
    for input in plan.inputs() {
        all.extend(nodes(input));
    }
    all
}

/// The expressions of one node.
pub fn expressions(node: &Node) -> Vec<&Expr> {
    match node {
        Node::Scan(scan) => scan.filters.iter().collect(),
        Node::Values(values) => values.rows.iter().flatten().collect(),
        Node::Filter { predicate: e, .. } | Node::Repeat { times: e, .. } => vec![e],
        Node::Project { exprs, .. } => exprs.iter().map(|(_, e)| e).collect(),
        Node::Join(join) => join.on.iter().flat_map(|(a, b)| [a, b]).chain(&join.residual).collect(),
        Node::Aggregate(aggregate) => {
            let calls = aggregate.calls.iter().flat_map(|(_, c)| c.args.iter().chain(&c.filter));
            aggregate.keys.iter().map(|(_, e)| e).chain(calls).collect()
        }
        Node::Sort { keys, .. } => keys.iter().map(|k| &k.expr).collect(),
        Node::Window { calls, .. } => calls.iter().flat_map(|c| c.args.iter().chain(&c.partition_by)).collect(),
        Node::SubplanScan(_) | Node::Limit { .. } | Node::Union { .. } | Node::Exchange { .. } => vec![],
    }
}

/// What every plan keeps: each column is defined once, and every expression reads columns of its node's inputs.
pub fn check(query: &Query) {
    let mut defined: Vec<u32> = Vec::new();
    for root in query.subplans.iter().map(|s| &s.plan).chain([&query.root]) {
        for plan in nodes(root) {
            let inputs: Vec<_> = plan.inputs().iter().flat_map(|p| p.fields()).collect();
            let mut visible: Vec<(u32, DataType)> = inputs.iter().map(|f| (f.id.0, f.ty)).collect();
            for field in plan.fields() {
                if !inputs.iter().any(|f| f.id == field.id) {
                    assert!(!defined.contains(&field.id.0), "column {field:?} is defined twice");
                    defined.push(field.id.0);
                }
            }
            if let Node::Scan(scan) = &plan.node {
                visible.extend(scan.columns.iter().chain(&scan.filter_columns).map(|c| (c.field.id.0, c.field.ty)));
            }
            for expr in expressions(&plan.node) {
                expr.walk(&mut |e| {
                    if let Expr::Column(id, ty) = e {
                        assert!(visible.contains(&(id.0, *ty)), "column {id:?} {ty:?} is not visible in {:?}", plan.node);
                    }
                });
            }
        }
        let ids: Vec<u32> = root.fields().iter().map(|f| f.id.0).collect();
        assert_eq!(ids.len(), ids.iter().collect::<std::collections::HashSet<_>>().len(), "a column twice: {root:?}");
    }
    let root: Vec<_> = query.root.fields().iter().map(|f| f.id).collect();
    assert!(query.output.iter().all(|f| root.contains(&f.id)), "output columns come from the root");
    let bytes = stoa_plan::codec::encode(query).unwrap_or_else(|e| panic!("{e}: {query:?}"));
    let decoded = stoa_plan::codec::decode(&bytes).unwrap_or_else(|e| panic!("{e}: {query:?}"));
    assert_eq!(&decoded, query);
}
