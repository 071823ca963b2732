//! Statements with parameters.

use crate::catalog::Tables;
use stoa_plan::{DataType, Literal, Query, Value};
use stoa_sql::{Statement, bind_insert, bind_query, parse, prepare};

fn literal(ty: DataType, value: Value) -> Literal {
    Literal { ty, value }
}

fn int(v: i64) -> Literal {
    literal(DataType::Int64, Value::Int(v))
}

fn text(v: &str) -> Literal {
    literal(DataType::Utf8, Value::Str(v.to_owned()))
}

fn plan(statement: &Statement) -> Result<Query, String> {
    match statement {
        Statement::Query(query) | Statement::Explain { query, .. } => bind_query(query, &Tables::all()),
        Statement::Insert(insert) => bind_insert(insert, &Tables::all()),
        other => panic!("{other:?}"),
    }
    .map_err(|e| e.to_string())
}

fn bound(sql: &str, values: &[Literal]) -> Result<Query, String> {
    plan(&prepare(sql).and_then(|p| p.bind(values)).map_err(|e| e.to_string())?)
}

#[test]
fn a_value_is_the_literal_that_it_stands_for() {
    let null = literal(DataType::Null, Value::Null);
    let yes = literal(DataType::Bool, Value::Bool(true));
    let float = |v| literal(DataType::Float64, Value::Float(v));
    let decimal = |v, scale| literal(DataType::Decimal { precision: 38, scale }, Value::Decimal(v));
    let day = |v| literal(DataType::Date, Value::Int(v));
    let moment = |v| literal(DataType::Timestamp, Value::Int(v));
    let unsigned = literal(DataType::UInt64, Value::UInt(u64::MAX));
    let bytes = literal(DataType::Binary, Value::Bytes(vec![0, 255]));
    let long = "9".repeat(38);
    for (sql, values, same) in [
        ("SELECT a FROM t WHERE b = ?", vec![int(7)], "SELECT a FROM t WHERE b = 7"),
        ("SELECT ?, - ?", vec![int(i64::MIN), int(-5)], "SELECT (-9223372036854775808), - (-5)"),
        ("SELECT ?", vec![unsigned], "SELECT 18446744073709551615"),
        ("SELECT a FROM t WHERE h = ? OR c = ?", vec![yes, null.clone()], "SELECT a FROM t WHERE h = TRUE OR c = NULL"),
        ("SELECT e FROM t WHERE e > ?", vec![float(-2.5e-300)], "SELECT e FROM t WHERE e > (-2.5e-300)"),
        ("SELECT ?, ?", vec![float(f64::NAN), float(3.0)], "SELECT CAST('NaN' AS DOUBLE), 3e0"),
        ("SELECT ?", vec![float(f64::NEG_INFINITY)], "SELECT CAST('-inf' AS DOUBLE)"),
        ("SELECT d FROM t WHERE d < ?", vec![decimal(-5, 2)], "SELECT d FROM t WHERE d < (-0.05)"),
        ("SELECT ?", vec![decimal(10i128.pow(38) - 1, 0)], &format!("SELECT {long}")),
        ("SELECT c FROM t WHERE c = ?", vec![text("x' OR '1'='1")], "SELECT c FROM t WHERE c = 'x'' OR ''1''=''1'"),
        ("SELECT c FROM t WHERE c LIKE ?", vec![text("a\\%?;--")], "SELECT c FROM t WHERE c LIKE 'a\\%?;--'"),
        ("SELECT f FROM t WHERE f >= ?", vec![day(9131)], "SELECT f FROM t WHERE f >= DATE '1995-01-01'"),
        ("SELECT f FROM t WHERE f >= ?", vec![text("1995-01-01")], "SELECT f FROM t WHERE f >= '1995-01-01'"),
        ("SELECT g FROM t WHERE g < ?", vec![moment(-1)], "SELECT g FROM t WHERE g < TIMESTAMP '1969-12-31 23:59:59.999999'"),
        ("SELECT ?", vec![bytes], "SELECT X'00FF'"),
        ("SELECT a FROM t WHERE a IN (?, ?) LIMIT ?", vec![int(1), null, int(3)], "SELECT a FROM t WHERE a IN (1, NULL) LIMIT 3"),
        ("EXPLAIN SELECT a + ? FROM t", vec![int(1)], "EXPLAIN SELECT a + 1 FROM t"),
        ("INSERT INTO u VALUES (?, 2, ?)", vec![int(1), text("y")], "INSERT INTO u VALUES (1, 2, 'y')"),
        ("INSERT INTO u (a) SELECT a FROM t WHERE b > ?", vec![int(1)], "INSERT INTO u (a) SELECT a FROM t WHERE b > 1"),
        ("SELECT '?', \"a\" FROM t -- ?", vec![], "SELECT '?', a FROM t"),
    ] {
        let expected = plan(&parse(same).unwrap()[0]).unwrap();
        let found = bound(sql, &values).unwrap_or_else(|e| panic!("{sql}: {e}"));
        // NaN is not equal to itself.
        assert_eq!(format!("{found:?}"), format!("{expected:?}"), "{sql}");
    }
}

#[test]
fn parameters_are_counted() {
    assert_eq!(prepare("SELECT a FROM t WHERE a = ? AND b IN (?, ?)").unwrap().parameters(), 3);
    assert_eq!(prepare("SHOW TABLES;").unwrap().parameters(), 0);
    assert!(matches!(prepare("DROP TABLE t").unwrap().bind(&[]), Ok(Statement::DropTable { .. })));
}

#[test]
fn what_cannot_be_prepared_or_bound() {
    for (sql, part) in [
        ("", "exactly one statement"),
        ("SELECT 1; SELECT 2", "exactly one statement"),
        ("SELEC ?", "did you mean SELECT"),
        ("SELECT a FROM ?", "expected"),
        ("SELECT a FROM t WHERE a = $1", "a parameter is written as ?, found $1 at line 1, column 27"),
        ("SELECT ?1", "a parameter is written as ?, found ?1"),
        (
            "CREATE TABLE x AS SELECT ? AS a",
            "only queries, EXPLAIN, INSERT, UPDATE and DELETE have parameters at line 1, column 26",
        ),
        ("CREATE VIEW x AS SELECT ? AS a", "only queries"),
    ] {
        let error = prepare(sql).unwrap_err().to_string();
        assert!(error.contains(part), "{sql}: {error}");
    }
    for (sql, values, part) in [
        ("SELECT ?", vec![], "the statement has 1 parameter, but got 0 values"),
        ("SELECT 1", vec![int(1)], "the statement has 0 parameters, but got 1 value"),
        ("SELECT a FROM t WHERE a = ?", vec![text("seven")], "seven"),
        ("SELECT a FROM t WHERE f = ?", vec![int(7)], "no common type"),
        ("SELECT a FROM t LIMIT ?", vec![text("many")], "LIMIT"),
        ("SELECT ?", vec![literal(DataType::Date, Value::Int(i64::MAX))], "the value of parameter 1 has no literal"),
        ("SELECT ? FROM nothing", vec![int(1)], "nothing"),
    ] {
        let error = bound(sql, &values).unwrap_err();
        assert!(error.contains(part), "{sql}: {error}");
    }
}
