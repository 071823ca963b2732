//! TPC-H at scale factor 1 as a catalog with statistics, and the way from SQL to a distributed plan.
#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::HashMap;

use stoa_plan::distribute::{self, Net};
use stoa_plan::{ColumnStatistics, DataType, Query, StatisticsSource, TableStatistics, Value};
use stoa_sql::{Catalog, Statement, TableColumn, TableInfo};

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
        for (name, ..) in STATISTICS {
            let path = format!("{}/../datasets/tpch/tables/{name}.sql", env!("CARGO_MANIFEST_DIR"));
            let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
            let Statement::CreateTable(table) = stoa_sql::parse(&text).expect("a definition").remove(0) else { panic!("{path}") };
            tables.insert(table.name.clone(), table.info().expect("its key has its columns"));
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

    /// A query optimized for so many leaves.
    pub fn optimize(&self, sql: &str, leaves: usize) -> Query {
        stoa_plan::optimizer::optimize(self.bind(sql), self, leaves).unwrap_or_else(|e| panic!("{e}: {sql}"))
    }

    /// A query as it runs in one process.
    pub fn distribute(&self, sql: &str) -> Query {
        distribute::distribute(self.optimize(sql, 1))
    }

    /// A query as it runs on so many leaves.
    pub fn distribute_over(&self, sql: &str, leaves: usize) -> Query {
        distribute::distribute_over_leaves(self.optimize(sql, leaves), Net { leaves, always_shuffle: false })
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
