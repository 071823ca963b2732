//! UPDATE, DELETE, REPLACE, ON DUPLICATE KEY UPDATE and ALTER TABLE.

use stoa_plan::{DataType, Expr, Node, Plan, Query, ROW_ADDRESS, Scan, Value};
use stoa_sql::{AlterTable, OnDuplicate, SqlError, Statement, parse};

use crate::catalog::{Tables, check, nodes};

fn one(sql: &str) -> Statement {
    let mut statements = parse(sql).unwrap_or_else(|e| panic!("{e}: {sql}"));
    assert_eq!(statements.len(), 1);
    statements.remove(0)
}

/// Binds the part of a statement that changes rows which are there.
fn bind(sql: &str) -> Result<Query, SqlError> {
    let tables = Tables::all().view("v", "SELECT a FROM t");
    match parse(sql)?.remove(0) {
        Statement::Update(update) => stoa_sql::bind_update(&update, &tables),
        Statement::Delete(delete) => stoa_sql::bind_delete(&delete, &tables),
        Statement::Insert(insert) => stoa_sql::bind_duplicate_update(&insert, &tables),
        other => panic!("{other:?}"),
    }
}

fn plan(sql: &str) -> Query {
    let query = bind(sql).unwrap_or_else(|e| panic!("{e}\n{sql}"));
    check(&query);
    query
}

fn error(sql: &str) -> String {
    bind(sql).map(|query| format!("bound: {query:?}")).unwrap_err().to_string()
}

fn names(query: &Query) -> Vec<&str> {
    query.output.iter().map(|f| f.name.as_str()).collect()
}

fn scans(plan: &Plan) -> Vec<&Scan> {
    let scan = |plan: &&'_ Plan| matches!(plan.node, Node::Scan(_));
    let scans = nodes(plan).into_iter().filter(scan);
    scans.filter_map(|plan| if let Node::Scan(scan) = &plan.node { Some(scan) } else { None }).collect()
}

/// The scan of the changed table: the only one that reads addresses.
fn addressed(plan: &Plan) -> &Scan {
    let found: Vec<&Scan> =
        scans(plan).into_iter().filter(|scan| scan.columns.iter().any(|c| c.ordinal == ROW_ADDRESS)).collect();
    assert_eq!(found.len(), 1, "{plan:?}");
    found[0]
}

#[test]
fn update_yields_the_address_and_every_column() {
    let query = plan("UPDATE u AS w SET y = concat(y, '!'), w.x = a * 2.5 WHERE w.a > 3");
    assert_eq!(names(&query), ["$row", "a", "x", "y"]);
    let types: Vec<DataType> = query.output.iter().map(|f| f.ty).collect();
    assert_eq!(types, [DataType::UInt64, DataType::Int32, DataType::Int32, DataType::Utf8]);
    let scan = addressed(&query.root);
    assert_eq!((scan.table.as_str(), scan.filters.len()), ("u", 1));
    let address = scan.columns.iter().find(|c| c.ordinal == ROW_ADDRESS).unwrap();
    assert!(!address.field.nullable && address.field.id == query.output[0].id);
    let Statement::Update(update) = one("UPDATE U SET Y = 'x', x = 1") else { panic!("UPDATE") };
    assert_eq!((update.table.as_str(), update.assigned), ("u", vec!["y".to_owned(), "x".to_owned()]));
}

#[test]
fn update_takes_constants_of_any_type() {
    let query = plan("UPDATE t SET d = 1.239, f = '1995-01-01', e = 1, j = 7, c = NULL, h = true");
    assert_eq!(query.output[4].ty, DataType::Decimal { precision: 10, scale: 2 });
    assert_eq!(query.output[6].ty, DataType::Date);
    assert_eq!(query.output[3].ty, DataType::Utf8);
    // Those that do not fit are found where there is a row to name.
    plan("UPDATE t SET f = 'soon', i = 1000");
    // All expressions read the row as it was.
    let query = plan("UPDATE u SET a = x, x = a");
    assert_eq!(names(&query), ["$row", "a", "x", "y"]);
}

#[test]
fn update_with_subqueries() {
    for sql in [
        "UPDATE u SET x = 1 WHERE a IN (SELECT a FROM t)",
        "UPDATE u SET x = 1 WHERE a NOT IN (SELECT a FROM u)",
        "UPDATE u SET x = 1 WHERE EXISTS (SELECT 1 FROM t WHERE t.a = u.a)",
        "UPDATE u SET x = (SELECT max(b) FROM t WHERE t.a = u.a)",
        "UPDATE u SET x = (SELECT count(*) FROM u) WHERE x < (SELECT avg(x) FROM u)",
        "UPDATE u SET x = 1 WHERE a IN (SELECT a FROM v)",
    ] {
        let query = plan(sql);
        assert_eq!(names(&query), ["$row", "a", "x", "y"], "{sql}");
        addressed(&query.root);
    }
}

#[test]
fn the_address_is_hidden() {
    let query = plan("UPDATE u SET x = 1 WHERE a IN (SELECT w.a FROM (SELECT * FROM u) w)");
    addressed(&query.root);
    assert!(crate::catalog::error("SELECT \"$row\" FROM u").contains("there is no column '$row'"));
    assert!(error("UPDATE u SET \"$row\" = 1").contains("there is no column '$row'"));
    assert!(parse("CREATE TABLE x (a INT, \"$row\" INT)").unwrap_err().to_string().contains("cannot have the name '$row'"));
}

#[test]
fn mixed_case() {
    let query = plan("UPDATE hits SET url = concat(URL, '/') WHERE counterid = 1");
    assert_eq!(names(&query), ["$row", "CounterID", "URL", "EventDate"]);
    let query = plan("INSERT INTO hits VALUES (1, 'a', '2020-01-01') ON DUPLICATE KEY UPDATE URL = values(url)");
    assert_eq!(names(&query), ["$row", "CounterID", "URL", "EventDate"]);
}

#[test]
fn delete_yields_the_address() {
    for sql in [
        "DELETE FROM u",
        "DELETE FROM u WHERE a = 1",
        "DELETE FROM u w WHERE EXISTS (SELECT 1 FROM t WHERE t.a = w.a AND w.x > 1)",
    ] {
        let query = plan(sql);
        assert_eq!(names(&query), ["$row"]);
        assert_eq!(addressed(&query.root).table, "u");
    }
    assert_eq!(names(&plan("DELETE FROM u WHERE 1 = 2")), ["$row"]);
    let Statement::Delete(delete) = one("delete from U where A = 1") else { panic!("DELETE") };
    assert_eq!(delete.table, "u");
}

#[test]
fn plans_are_valid_and_optimized() {
    struct None;
    impl stoa_plan::StatisticsSource for None {
        fn table(&self, _name: &str) -> Option<stoa_plan::TableStatistics> {
            Option::None
        }
    }
    for sql in [
        "UPDATE u SET x = (SELECT max(b) FROM t WHERE t.a = u.a) WHERE y IN (SELECT c FROM t)",
        "DELETE FROM u WHERE a IN (SELECT a FROM t WHERE b > 1)",
        "DELETE FROM u",
    ] {
        let query = plan(sql);
        let output = query.output.clone();
        let query = stoa_plan::optimizer::optimize(query, &None, 1).unwrap();
        assert_eq!(query.output, output);
        addressed(&query.root);
        let distributed = stoa_plan::distribute::distribute(query);
        assert_eq!(distributed.output, output);
        let bytes = stoa_plan::codec::encode(&distributed).unwrap();
        assert_eq!(stoa_plan::codec::decode(&bytes).unwrap(), distributed);
    }
}

#[test]
fn replace_and_on_duplicate() {
    let how = |sql: &str| match one(sql) {
        Statement::Insert(insert) => {
            check(&stoa_sql::bind_insert(&insert, &Tables::all()).unwrap_or_else(|e| panic!("{e}: {sql}")));
            (insert.table, insert.on_duplicate, insert.assigned)
        }
        other => panic!("{other:?}"),
    };
    let u = || "u".to_owned();
    assert_eq!(how("INSERT INTO u VALUES (1, 2, 'x')"), (u(), OnDuplicate::Refuse, vec![]));
    assert_eq!(how("REPLACE INTO U VALUES (1, 2, 'x')"), (u(), OnDuplicate::Replace, vec![]));
    assert_eq!(how("REPLACE INTO u (a, y) SELECT a, c FROM t"), (u(), OnDuplicate::Replace, vec![]));
    let (_, update, assigned) = how("INSERT INTO u VALUES (1, 2, 'x') ON DUPLICATE KEY UPDATE x = x + 1, y = VALUES(y)");
    assert_eq!((update, assigned), (OnDuplicate::Update, vec!["x".to_owned(), "y".to_owned()]));
    assert_eq!(how("INSERT INTO u (a) SELECT a FROM t WHERE b > 1 ON DUPLICATE KEY UPDATE x = 1").1, OnDuplicate::Update);
}

#[test]
fn on_duplicate_reads_both_rows() {
    let query = plan("INSERT INTO u VALUES (1, 2, 'x') ON DUPLICATE KEY UPDATE x = u.x + VALUES(x), y = concat(VALUES(u.y), y)");
    assert_eq!(names(&query), ["$row", "a", "x", "y"]);
    assert_eq!(query.output[2].ty, DataType::Int32);
    let [scan] = scans(&query.root)[..] else { panic!("one scan") };
    assert_eq!(scan.table, stoa_sql::DUPLICATES);
    let columns: Vec<(u32, &str)> = scan.columns.iter().map(|c| (c.ordinal, c.field.name.as_str())).collect();
    assert_eq!(columns, [(0, "$row"), (1, "a"), (2, "x"), (3, "y"), (5, "values$x"), (6, "values$y")]);
    let Node::Project { exprs, .. } = &query.root.node else { panic!("a projection: {:?}", query.root) };
    assert!(exprs.iter().any(|(_, e)| matches!(e, Expr::Cast { .. })), "{exprs:?}");
}

#[test]
fn wrong_changes_say_what_and_where() {
    for (sql, message) in [
        ("UPDATE u SET zzz = 1", "there is no column 'zzz' at line 1, column 14"),
        ("UPDATE u SET xx = 1", "there is no column 'xx'; did you mean 'x'? at line 1, column 14"),
        ("UPDATE u SET x = 1, X = 2", "column 'X' is assigned twice at line 1, column 21"),
        ("UPDATE u SET t.x = 1", "'t.x' is not a column of the table that is changed at line 1, column 14"),
        ("UPDATE u SET (x, y) = (1, 2)", "an assignment to several columns is not supported: assign each at line 1, column 15"),
        ("UPDATE u SET x = zz", "there is no column 'zz' at line 1, column 18"),
        ("UPDATE u SET x = 1 WHERE zz = 1", "there is no column 'zz' at line 1, column 26"),
        ("UPDATE uu SET x = 1", "there is no table 'uu'; did you mean 'u'? at line 1, column 8"),
        ("UPDATE v SET a = 1", "'v' is a view: it has no rows of its own to change at line 1, column 8"),
        ("UPDATE u, t SET x = 1", "UPDATE of several tables is not supported at line 1, column 9"),
        ("UPDATE u JOIN t ON u.a = t.a SET x = 1", "UPDATE of several tables is not supported at line 1, column 15"),
        ("UPDATE u SET x = 1 FROM t", "FROM is not supported in UPDATE at line 1, column 1"),
        ("UPDATE u SET x = 1 LIMIT 1", "LIMIT is not supported in UPDATE at line 1, column 1"),
        ("UPDATE u SET x = 1 ORDER BY a", "ORDER BY is not supported in UPDATE at line 1, column 1"),
        ("UPDATE u SET x = 1 RETURNING a", "RETURNING is not supported in UPDATE at line 1, column 1"),
        ("UPDATE (SELECT 1) q SET x = 1", "UPDATE takes the name of a table, and an alias at line 1, column 9"),
        ("DELETE u WHERE a = 1", "expected FROM, found u at line 1, column 8"),
        ("DELETE FROM u, t", "DELETE of several tables is not supported at line 1, column 16"),
        ("DELETE FROM u USING t", "USING is not supported in DELETE at line 1, column 1"),
        ("DELETE FROM u LIMIT 1", "LIMIT is not supported in DELETE at line 1, column 1"),
        ("DELETE FROM u ORDER BY a", "ORDER BY is not supported in DELETE at line 1, column 1"),
        ("DELETE FROM db.u", "there is no table 'db.u': tables have no schema prefix at line 1, column 1"),
    ] {
        assert_eq!(error(sql), message, "{sql}");
    }
}

#[test]
fn what_is_not_supported() {
    for (sql, part) in [
        ("UPDATE u SET x = max(x)", "an aggregate or window function outside of a subquery, in SET, is not supported"),
        ("UPDATE u SET x = row_number() OVER ()", "an aggregate or window function"),
        ("REPLACE INTO u VALUES (1, 2, 'x') ON DUPLICATE KEY UPDATE x = 1", "REPLACE takes no ON DUPLICATE KEY UPDATE"),
        ("INSERT INTO u VALUES (1, 2, 'x') ON CONFLICT DO NOTHING", "ON CONFLICT is not supported"),
        ("INSERT INTO u VALUES (1, 2, 'x') AS n ON DUPLICATE KEY UPDATE x = n.x", "without further clauses"),
        ("INSERT INTO u VALUES (1, 2, 'x') ON DUPLICATE KEY UPDATE z = 1", "there is no column 'z'"),
        ("INSERT INTO u VALUES (1, 2, 'x') ON DUPLICATE KEY UPDATE x = VALUES(zz)", "there is no column 'zz'"),
        ("INSERT INTO u VALUES (1, 2, 'x') ON DUPLICATE KEY UPDATE x = VALUES(1)", "VALUES takes the name of a column"),
        ("INSERT INTO u VALUES (1, 2, 'x') ON DUPLICATE KEY UPDATE x = (SELECT 1)", "a subquery in ON DUPLICATE KEY UPDATE"),
    ] {
        let message = error(sql);
        assert!(message.contains(part), "{sql}: {message}");
    }
}

fn alter(sql: &str) -> AlterTable {
    match one(sql) {
        Statement::Alter(alter) => {
            assert_eq!(alter.table, "t");
            alter.change
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn alter_table() {
    let added = |sql: &str| match alter(sql) {
        AlterTable::AddColumn(column) => (column.name, column.ty, column.nullable, column.default),
        other => panic!("{other:?}"),
    };
    assert_eq!(added("ALTER TABLE t ADD c INT"), ("c".into(), DataType::Int32, true, None));
    assert_eq!(
        added("ALTER TABLE T ADD COLUMN C INT NOT NULL DEFAULT -7"),
        ("c".into(), DataType::Int32, false, Some(Value::Int(-7)))
    );
    let decimal = DataType::Decimal { precision: 10, scale: 2 };
    assert_eq!(
        added("ALTER TABLE t ADD c DECIMAL(10,2) DEFAULT 1.5 NOT NULL"),
        ("c".into(), decimal, false, Some(Value::Decimal(150)))
    );
    assert_eq!(added("ALTER TABLE t ADD c DATE DEFAULT '1970-01-03'").3, Some(Value::Int(2)));
    assert_eq!(added("ALTER TABLE t ADD c VARCHAR(5) DEFAULT 'x' COMMENT 'y'").3, Some(Value::Str("x".into())));
    assert_eq!(added("ALTER TABLE t ADD c DOUBLE DEFAULT NULL").3, Some(Value::Null));
    assert_eq!(added("ALTER TABLE t ADD c DOUBLE DEFAULT 1").3, Some(Value::Float(1.0)));
    assert_eq!(alter("ALTER TABLE t DROP COLUMN c"), AlterTable::DropColumn("c".into()));
    assert_eq!(alter("ALTER TABLE t DROP c"), AlterTable::DropColumn("c".into()));
    let rename = AlterTable::RenameColumn { from: "a".into(), to: "b".into() };
    assert_eq!((alter("ALTER TABLE t RENAME COLUMN a TO b"), alter("ALTER TABLE t CHANGE a b")), (rename.clone(), rename));
    for sql in ["ALTER TABLE t RENAME x", "ALTER TABLE t RENAME TO x", "ALTER TABLE t RENAME AS x"] {
        assert_eq!(alter(sql), AlterTable::RenameTable("x".into()));
    }
}

#[test]
fn wrong_alter_table_says_where() {
    for (sql, message) in [
        ("ALTER TABLE t", "expected ADD, DROP, RENAME or CHANGE, found the end of the statement at line 1, column 14"),
        ("ALTER VIEW v", "expected TABLE, found VIEW at line 1, column 7"),
        ("ALTER TABLE t ADD c INT DEFAULT now()", "expected a constant at line 1, column 33"),
        ("ALTER TABLE t ADD c INT DEFAULT b", "there is no column 'b' at line 1, column 33"),
        ("ALTER TABLE t ADD c INT PRIMARY KEY", "ALTER TABLE cannot add a key at line 1, column 25"),
        ("ALTER TABLE t ADD UNIQUE KEY (a)", "ALTER TABLE cannot add a UNIQUE KEY, found UNIQUE at line 1, column 19"),
        (
            "ALTER TABLE t ADD c INT AFTER b",
            "AFTER is not supported for a column: expected NULL, NOT NULL, DEFAULT or WITH (BITMAP INDEX), found AFTER at line 1, column 25",
        ),
        ("ALTER TABLE t DROP PRIMARY KEY", "expected the end of the statement, found KEY at line 1, column 28"),
    ] {
        assert_eq!(parse(sql).unwrap_err().to_string(), message, "{sql}");
    }
    assert!(parse("ALTER TABLE t ADD c INT DEFAULT 'x'").unwrap_err().to_string().contains("'x'"));
}

#[test]
fn what_changes_the_catalog() {
    for sql in ["ALTER TABLE t DROP c", "TRUNCATE t", "BACKUP DATABASE TO 'x'", "RECOVER FROM LEAVES 'a:1'"] {
        assert!(one(sql).changes_catalog(), "{sql}");
    }
    for sql in [
        "UPDATE t SET a = 1",
        "DELETE FROM t",
        "REPLACE INTO u VALUES (1)",
        "OPTIMIZE TABLE t",
        "BEGIN",
        "EXPLAIN RECOVER FROM LEAVES 'a:1'",
    ] {
        assert!(!one(sql).changes_catalog(), "{sql}");
    }
}
