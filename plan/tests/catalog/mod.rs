//! TPC-H at scale factor 1 as a catalog with statistics, and the way from SQL to a distributed plan.
#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::HashMap;

use stoa_plan::{ColumnStatistics, DataType, Query, StatisticsSource, TableStatistics, Value};
use stoa_sql::{Catalog, Statement, TableColumn, TableInfo};

const DEFINITIONS: &str = "
CREATE TABLE part (p_partkey BIGINT NOT NULL, p_name VARCHAR(55) NOT NULL, p_mfgr CHAR(25) NOT NULL, p_brand CHAR(10) NOT NULL,
  p_type VARCHAR(25) NOT NULL, p_size INT NOT NULL, p_container CHAR(10) NOT NULL, p_retailprice DECIMAL(15,2) NOT NULL,
  p_comment VARCHAR(23) NOT NULL, SHARD KEY (p_partkey));
CREATE TABLE supplier (s_suppkey BIGINT NOT NULL, s_name CHAR(25) NOT NULL, s_address VARCHAR(40) NOT NULL,
  s_nationkey INT NOT NULL, s_phone CHAR(15) NOT NULL, s_acctbal DECIMAL(15,2) NOT NULL, s_comment VARCHAR(101) NOT NULL,
  SHARD KEY (s_suppkey));
CREATE TABLE partsupp (ps_partkey BIGINT NOT NULL, ps_suppkey BIGINT NOT NULL, ps_availqty INT NOT NULL,
  ps_supplycost DECIMAL(15,2) NOT NULL, ps_comment VARCHAR(199) NOT NULL, SHARD KEY (ps_partkey));
CREATE TABLE customer (c_custkey BIGINT NOT NULL, c_name VARCHAR(25) NOT NULL, c_address VARCHAR(40) NOT NULL,
  c_nationkey INT NOT NULL, c_phone CHAR(15) NOT NULL, c_acctbal DECIMAL(15,2) NOT NULL, c_mktsegment CHAR(10) NOT NULL,
  c_comment VARCHAR(117) NOT NULL, SHARD KEY (c_custkey));
CREATE TABLE orders (o_orderkey BIGINT NOT NULL, o_custkey BIGINT NOT NULL, o_orderstatus CHAR(1) NOT NULL,
  o_totalprice DECIMAL(15,2) NOT NULL, o_orderdate DATE NOT NULL, o_orderpriority CHAR(15) NOT NULL, o_clerk CHAR(15) NOT NULL,
  o_shippriority INT NOT NULL, o_comment VARCHAR(79) NOT NULL, SHARD KEY (o_orderkey));
CREATE TABLE lineitem (l_orderkey BIGINT NOT NULL, l_partkey BIGINT NOT NULL, l_suppkey BIGINT NOT NULL, l_linenumber INT NOT NULL,
  l_quantity DECIMAL(15,2) NOT NULL, l_extendedprice DECIMAL(15,2) NOT NULL, l_discount DECIMAL(15,2) NOT NULL,
  l_tax DECIMAL(15,2) NOT NULL, l_returnflag CHAR(1) NOT NULL, l_linestatus CHAR(1) NOT NULL, l_shipdate DATE NOT NULL,
  l_commitdate DATE NOT NULL, l_receiptdate DATE NOT NULL, l_shipinstruct CHAR(25) NOT NULL, l_shipmode CHAR(10) NOT NULL,
  l_comment VARCHAR(44) NOT NULL, SHARD KEY (l_orderkey));
CREATE REFERENCE TABLE nation (n_nationkey INT NOT NULL, n_name CHAR(25) NOT NULL, n_regionkey INT NOT NULL, n_comment VARCHAR(152));
CREATE REFERENCE TABLE region (r_regionkey INT NOT NULL, r_name CHAR(25) NOT NULL, r_comment VARCHAR(152));
";

/// Distinct values and, for numbers, the least and the greatest (as they are stored, dates as days).
type ColumnFacts = (f64, Option<(i64, i64)>);

/// Rows of the tables, and their columns in table order.
const STATISTICS: &[(&str, u64, &[ColumnFacts])] = &[
    (
        "part",
        200_000,
        &[
            (200_000.0, Some((1, 200_000))),
            (199_997.0, None),
            (5.0, None),
            (25.0, None),
            (150.0, None),
            (50.0, Some((1, 50))),
            (40.0, None),
            (20_899.0, Some((90_100, 209_899))),
            (131_753.0, None),
        ],
    ),
    (
        "supplier",
        10_000,
        &[
            (10_000.0, Some((1, 10_000))),
            (10_000.0, None),
            (10_000.0, None),
            (25.0, Some((0, 24))),
            (10_000.0, None),
            (9955.0, Some((-99_822, 999_272))),
            (10_000.0, None),
        ],
    ),
    (
        "partsupp",
        800_000,
        &[
            (200_000.0, Some((1, 200_000))),
            (10_000.0, Some((1, 10_000))),
            (9999.0, Some((1, 9999))),
            (99_865.0, Some((100, 100_000))),
            (800_000.0, None),
        ],
    ),
    (
        "customer",
        150_000,
        &[
            (150_000.0, Some((1, 150_000))),
            (150_000.0, None),
            (150_000.0, None),
            (25.0, Some((0, 24))),
            (150_000.0, None),
            (140_187.0, Some((-99_999, 999_999))),
            (5.0, None),
            (149_968.0, None),
        ],
    ),
    (
        "orders",
        1_500_000,
        &[
            (1_500_000.0, Some((1, 6_000_000))),
            (99_996.0, Some((1, 149_999))),
            (3.0, None),
            (1_464_556.0, Some((85_771, 55_528_516))),
            (2406.0, Some((8035, 10_440))),
            (5.0, None),
            (1000.0, None),
            (1.0, Some((0, 0))),
            (1_482_071.0, None),
        ],
    ),
    (
        "lineitem",
        6_001_215,
        &[
            (1_500_000.0, Some((1, 6_000_000))),
            (200_000.0, Some((1, 200_000))),
            (10_000.0, Some((1, 10_000))),
            (7.0, Some((1, 7))),
            (50.0, Some((100, 5000))),
            (933_900.0, Some((90_100, 10_494_950))),
            (11.0, Some((0, 10))),
            (9.0, Some((0, 8))),
            (3.0, None),
            (2.0, None),
            (2526.0, Some((8036, 10_561))),
            (2466.0, Some((8065, 10_530))),
            (2554.0, Some((8038, 10_591))),
            (4.0, None),
            (7.0, None),
            (4_580_667.0, None),
        ],
    ),
    ("nation", 25, &[(25.0, Some((0, 24))), (25.0, None), (5.0, Some((0, 4))), (25.0, None)]),
    ("region", 5, &[(5.0, Some((0, 4))), (5.0, None), (5.0, None)]),
];

/// The catalog and its statistics.
pub struct Tables {
    tables: HashMap<String, TableInfo>,
}

impl Tables {
    /// TPC-H.
    pub fn tpch() -> Self {
        let mut tables = HashMap::new();
        for statement in stoa_sql::parse(DEFINITIONS).expect("definitions") {
            let Statement::CreateTable(table) = statement else { panic!("a definition") };
            let columns: Vec<TableColumn> =
                table.columns.iter().map(|c| TableColumn { name: c.name.clone(), ty: c.ty, nullable: c.nullable }).collect();
            let ordinal = |name: &String| columns.iter().position(|c| c.name == *name).expect("a key column") as u32;
            let shard_key = table.shard_key.iter().map(ordinal).collect();
            let info = TableInfo { name: table.name.clone(), columns, shard_key, reference: table.reference };
            tables.insert(table.name.clone(), info);
        }
        Tables { tables }
    }

    /// A query as the front end leaves it.
    pub fn bind(&self, sql: &str) -> Query {
        let mut statements = stoa_sql::parse(sql).expect("it parses");
        match statements.remove(0) {
            Statement::Query(query) => stoa_sql::bind_query(&query, self).unwrap_or_else(|e| panic!("{e}: {sql}")),
            other => panic!("a query: {other:?}"),
        }
    }

    /// A query optimized.
    pub fn optimize(&self, sql: &str) -> Query {
        stoa_plan::optimizer::optimize(self.bind(sql), self).unwrap_or_else(|e| panic!("{e}: {sql}"))
    }

    /// A query as it runs.
    pub fn distribute(&self, sql: &str) -> Query {
        stoa_plan::distribute::distribute(self.optimize(sql))
    }
}

/// A query of TPC-H.
pub fn tpch(number: usize) -> String {
    let path = format!("{}/../datasets/tpch/queries/q{number:02}.sql", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

impl Catalog for Tables {
    fn table(&self, name: &str) -> Option<TableInfo> {
        self.tables.get(&name.to_lowercase()).cloned()
    }

    fn view(&self, _: &str) -> Option<String> {
        None
    }

    fn names(&self) -> Vec<String> {
        self.tables.keys().cloned().collect()
    }
}

impl StatisticsSource for Tables {
    fn table(&self, name: &str) -> Option<TableStatistics> {
        let (_, rows, columns) = STATISTICS.iter().find(|(table, ..)| *table == name)?;
        let info = self.tables.get(name)?;
        let column = |((distinct, range), column): (&ColumnFacts, &TableColumn)| {
            let value = |v: i64| match column.ty {
                DataType::Decimal { .. } => Value::Decimal(i128::from(v)),
                _ => Value::Int(v),
            };
            let (min, max) = range.map_or((None, None), |(min, max)| (Some(value(min)), Some(value(max))));
            ColumnStatistics { min, max, distinct: Some(*distinct), ..ColumnStatistics::default() }
        };
        let columns = columns.iter().zip(&info.columns).map(column).collect();
        Some(TableStatistics { rows: *rows, columns, partitions: 2 })
    }
}
