//! Statements other than SELECT.

use crate::catalog::{self, check, plan};
use stoa_plan::{DataType, Node};
use stoa_sql::{BitmapIndex, CreateTable, Statement, parse};

fn one(sql: &str) -> Statement {
    let mut statements = parse(sql).unwrap_or_else(|e| panic!("{e}: {sql}"));
    assert_eq!(statements.len(), 1);
    statements.remove(0)
}

fn table(sql: &str) -> CreateTable {
    match one(sql) {
        Statement::CreateTable(table) => table,
        other => panic!("{other:?}"),
    }
}

#[test]
fn create_table_with_every_type() {
    let table = table(
        "CREATE TABLE IF NOT EXISTS Everything (a BOOL, b TINYINT, c SMALLINT UNSIGNED, d INT NOT NULL, e BIGINT UNSIGNED, f FLOAT, g DOUBLE,
         h DECIMAL(12,2), i NUMERIC(5), j DATE, k TIMESTAMP, l DATETIME, m CHAR(3), n VARCHAR(25) NULL, o TEXT, p BINARY(4), q VARBINARY(9),
         r BLOB, s DOUBLE PRECISION, t INTEGER, u DECIMAL, v BOOLEAN, w TIMESTAMP(6), \"Mixed Case\" INT)",
    );
    assert!(table.if_not_exists && !table.reference);
    assert_eq!(table.name, "everything");
    let ty = |name: &str| table.columns.iter().find(|c| c.name == name).map(|c| c.ty);
    assert_eq!(ty("c"), Some(DataType::UInt16));
    assert_eq!(ty("e"), Some(DataType::UInt64));
    assert_eq!(ty("h"), Some(DataType::Decimal { precision: 12, scale: 2 }));
    assert_eq!(ty("i"), Some(DataType::Decimal { precision: 5, scale: 0 }));
    assert_eq!(ty("u"), Some(DataType::Decimal { precision: 10, scale: 0 }));
    assert_eq!(ty("q"), Some(DataType::Binary));
    assert_eq!(ty("l"), Some(DataType::Timestamp));
    assert_eq!(ty("Mixed Case"), Some(DataType::Int32));
    assert_eq!(table.columns[13].sql_type, "VARCHAR(25)");
    assert!(!table.columns[3].nullable && table.columns[13].nullable);
}

#[test]
fn create_table_with_keys() {
    let keys = table(
        "CREATE REFERENCE TABLE x (a INT NOT NULL WITH (BITMAP INDEX), b VARCHAR(10) WITHOUT (BITMAP INDEX), c DATE,
         SHARD KEY (a, b), SORT KEY (c), PRIMARY KEY (a))",
    );
    assert!(keys.reference);
    assert_eq!(keys.shard_key, ["a", "b"]);
    assert_eq!(keys.sort_key, ["c"]);
    assert_eq!(keys.primary_key, ["a"]);
    assert_eq!(keys.columns[0].bitmap_index, BitmapIndex::Declared);
    assert_eq!(keys.columns[1].bitmap_index, BitmapIndex::None);
    assert_eq!(keys.columns[2].bitmap_index, BitmapIndex::Auto);
    let named = table("CREATE TABLE x (`key` INT PRIMARY KEY, sort INT SORT KEY, shard INT, SHARD KEY k (`key`))");
    assert_eq!(
        (named.primary_key, named.sort_key, named.shard_key),
        (vec!["key".into()], vec!["sort".into()], vec!["key".into()])
    );
    assert!(!named.columns[0].nullable);
}

#[test]
fn create_table_with_unique_keys() {
    let keys = table(
        "CREATE TABLE x (a INT, b INT, c INT UNIQUE, d INT UNIQUE KEY, PRIMARY KEY (a, b) USING HASH, UNIQUE KEY k (a) USING HASH,
         UNIQUE INDEX (b, a), UNIQUE (c, d), `unique` INT)",
    );
    assert_eq!(keys.primary_key, ["a", "b"]);
    assert_eq!(keys.unique_keys, [vec!["c"], vec!["d"], vec!["a"], vec!["b", "a"], vec!["c", "d"]]);
    let nullable: Vec<bool> = keys.columns.iter().map(|c| c.nullable).collect();
    assert_eq!(nullable, [false, false, true, true, true]);
    assert_eq!(table("CREATE TABLE x (a INT, b INT, SHARD KEY (a), UNIQUE KEY (b, a))").unique_keys.len(), 1);
    assert_eq!(table("CREATE REFERENCE TABLE x (a INT, b INT, SHARD KEY (a), UNIQUE KEY (b))").unique_keys.len(), 1);
    for (sql, message) in [
        ("a INT, SHARD KEY (a), b INT UNIQUE", "UNIQUE KEY (b) must contain the shard key (a)"),
        ("a INT, b INT, SHARD KEY (a, b), PRIMARY KEY (b)", "PRIMARY KEY (b) must contain the shard key (a, b)"),
        ("a INT, UNIQUE KEY (z)", "UNIQUE KEY names 'z', which is not a column of the table"),
        ("a INT, UNIQUE KEY (a, a)", "UNIQUE KEY names 'a' twice"),
        ("a INT, UNIQUE KEY ()", "a UNIQUE KEY needs columns"),
        ("a INT, UNIQUE KEY (a) USING BTREE", "expected HASH"),
    ] {
        let error = parse(&format!("CREATE TABLE x ({sql})")).unwrap_err().to_string();
        assert!(error.contains(message), "{sql}: {error}");
    }
}

#[test]
fn create_table_as() {
    let Statement::CreateTableAs { table, query } = one("CREATE TABLE x (SHARD KEY (a)) AS SELECT a, b FROM t WHERE a > 1")
    else {
        panic!("CREATE TABLE AS")
    };
    assert_eq!((table.name.as_str(), query.sql()), ("x", "SELECT a, b FROM t WHERE a > 1"));
    assert_eq!(table.shard_key, ["a"]);
    let bound = stoa_sql::bind_query(&query, &catalog::Tables::all()).unwrap();
    assert_eq!(bound.output.len(), 2);
    assert!(matches!(one("CREATE TABLE y AS (SELECT 1 AS a)"), Statement::CreateTableAs { .. }));
    assert!(matches!(one("CREATE TABLE y SELECT 1 AS a"), Statement::CreateTableAs { .. }));
}

#[test]
fn views_and_drops() {
    let Statement::CreateView { name, or_replace: true, query } = one("CREATE OR REPLACE VIEW V AS\n SELECT a FROM t -- all\n;")
    else {
        panic!("CREATE VIEW")
    };
    assert_eq!((name.as_str(), query.sql()), ("v", "SELECT a FROM t"));
    let Statement::CreateView { query, .. } = one("CREATE VIEW v (x, y) AS SELECT a, b FROM t") else { panic!("CREATE VIEW") };
    let bound = stoa_sql::bind_query(&query, &catalog::Tables::all()).unwrap();
    assert_eq!(bound.output.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(), ["x", "y"]);
    assert_eq!(one("DROP TABLE a, B"), Statement::DropTable { names: vec!["a".into(), "b".into()], if_exists: false });
    assert_eq!(one("DROP VIEW IF EXISTS v"), Statement::DropView { names: vec!["v".into()], if_exists: true });
}

#[test]
fn insert() {
    let query = plan("INSERT INTO t (f, a, d) VALUES ('1995-01-01', 1, 1.239), (NULL, 2, 3)");
    let names: Vec<_> = query.output.iter().map(|f| f.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]);
    assert_eq!(query.output[3].ty, DataType::Decimal { precision: 10, scale: 2 });
    let query = plan("INSERT INTO u SELECT a, b, c FROM t WHERE a IS NOT NULL");
    assert_eq!(query.output[1].ty, DataType::Int32);
    let query = plan("INSERT INTO u VALUES (1, 2, 'x')");
    assert!(matches!(query.root.node, Node::Values(_)));
    check(&query);
    let Statement::Insert(insert) = one("insert into U values (1, 2, 'x')") else { panic!("INSERT") };
    assert_eq!(insert.table, "u");
}

#[test]
fn show_describe_explain() {
    assert_eq!(one("SHOW TABLES"), Statement::ShowTables);
    for text in ["DESCRIBE t", "DESC t", "SHOW COLUMNS FROM t", "SHOW FULL COLUMNS IN T;"] {
        assert_eq!(one(text), Statement::Describe { name: "t".into() });
    }
    assert!(matches!(one("EXPLAIN SELECT 1"), Statement::Explain { analyze: false, .. }));
    assert!(matches!(one("EXPLAIN ANALYZE SELECT 1"), Statement::Explain { analyze: true, .. }));
    assert!(matches!(one("PROFILE SELECT 1"), Statement::Explain { analyze: true, .. }));
}

#[test]
fn several_statements() {
    let statements = parse("SELECT 1;\n\nSELECT ';' AS x; -- ;\n DROP TABLE t;").unwrap();
    assert_eq!(statements.len(), 3);
    let Statement::Query(query) = &statements[1] else { panic!("a query") };
    assert_eq!(query.sql(), "SELECT ';' AS x");
    let error = parse("SELECT 1;\n  SELECT 1 +;").unwrap_err();
    assert_eq!(error.location.map(|l| l.line), Some(2));
}
