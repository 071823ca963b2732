//! Messages, with the place they speak of.

use crate::catalog::error;

#[test]
fn names() {
    assert_eq!(error("SELECT a FROM lineitm"), "there is no table 'lineitm'; did you mean 'lineitem'? at line 1, column 15");
    assert_eq!(error("SELECT\n  a,\n  foo\nFROM t"), "there is no column 'foo' at line 3, column 3");
    assert_eq!(
        error("SELECT o_ordrdate FROM orders"),
        "there is no column 'o_ordrdate'; did you mean 'o_orderdate'? at line 1, column 8"
    );
    assert_eq!(
        error("SELECT substrr(c, 1) FROM t"),
        "there is no function 'substrr'; did you mean 'substr'? at line 1, column 8"
    );
    assert_eq!(error("SELECT a FROM t, u"), "column 'a' is ambiguous: several tables have it at line 1, column 8");
    assert_eq!(error("SELECT a FROM db.t"), "there is no table 'db.t': tables have no schema prefix at line 1, column 15");
    assert_eq!(error("INSERT INTO u (x, zz) VALUES (1, 2)"), "there is no column 'zz' at line 1, column 19");
}

#[test]
fn syntax() {
    assert_eq!(error("SELECT a FROM t WHERE"), "expected an expression, found the end of the statement at line 1, column 22");
    assert_eq!(error("SELCT 1"), "'SELCT' does not start a statement; did you mean SELECT? at line 1, column 1");
    assert_eq!(error("SELECT a FROM t; MERGE INTO t"), "the statement MERGE is not supported at line 1, column 18");
    assert_eq!(error("SELECT a # 1 FROM t"), "expected an operator, found Sharp at line 1, column 10");
    assert!(error("SELECT 'abc").contains("at line 1, column 8"));
    assert!(error("CREATE TABLE x (a INT, SHARD KEY (b))").contains("SHARD KEY names 'b', which is not a column"));
    assert!(error("CREATE TABLE x (a INT[])").contains("nested type"));
    assert_eq!(error("CREATE TABLE x (a INT, a INT)"), "column 'a' is declared twice at line 1, column 24");
    assert!(error("CREATE TABLE x (a DECIMAL(39,2))").contains("precision is 1 to 38"));
}

#[test]
fn types_and_values() {
    assert_eq!(error("SELECT sum(c) FROM t"), "the function 'sum' does not take these arguments (String) at line 1, column 8");
    assert!(error("SELECT CAST('abc' AS INT)").starts_with("cannot cast string 'abc'"));
    assert!(error("SELECT CAST(300 AS TINYINT)").contains("cast value 300"));
    assert_eq!(error("SELECT 9223372036854775807 + 1"), "integer overflow in 9223372036854775807 + 1");
    assert_eq!(error("SELECT 1e0 / 0"), "division by zero in 1 / 0");
    assert_eq!(error("SELECT 1e400"), "the number 1e400 is out of range at line 1, column 8");
    assert_eq!(
        error("SELECT a, b FROM t GROUP BY a"),
        "column 't.b' must be in GROUP BY or inside an aggregate at line 1, column 11"
    );
}

#[test]
fn dates_are_not_numbers() {
    for sql in [
        "SELECT a FROM t WHERE f > 19950101",
        "SELECT a FROM t WHERE f IN (1, 2)",
        "SELECT a FROM t WHERE g BETWEEN 1 AND 2",
        "SELECT CASE WHEN a = 1 THEN f ELSE 5 END FROM t",
        "SELECT a FROM t UNION SELECT f FROM t",
    ] {
        let message = error(sql);
        assert!(message.contains("a number"), "{sql}: {message}");
    }
}

#[test]
fn what_is_not_supported() {
    for (sql, part) in [
        ("SELECT * FROM t, LATERAL (SELECT 1) z", "LATERAL is not supported at line 1, column"),
        ("WITH RECURSIVE w AS (SELECT 1) SELECT * FROM w", "WITH RECURSIVE is not supported"),
        ("SELECT a FROM t INTERSECT ALL BY NAME SELECT a FROM u", "not supported"),
        ("SELECT array_agg(a) FROM t", "nested types"),
        ("SELECT [1, 2]", "nested value"),
        ("SELECT * EXCLUDE (b) FROM t RIGHT JOIN u USING (a)", "options of * beside a RIGHT or FULL join with USING"),
        ("SELECT a FROM t NATURAL FULL JOIN (SELECT * FROM u) v", "NATURAL in a RIGHT or FULL join of anything but tables"),
        ("SELECT a FROM t FULL JOIN u USING (nowhere)", "there is no column 'nowhere' on one side of the join"),
        ("SELECT t.a FROM t JOIN u ON t.b = u.b FULL JOIN u v USING (a)", "may be that of several tables"),
        (
            "SELECT (SELECT x FROM u WHERE u.a > v.a) FROM (SELECT a FROM t LIMIT 2) v",
            "this form of correlation is not supported",
        ),
        (
            "SELECT (SELECT max(x) FROM u WHERE u.a <> v.r) FROM (SELECT random() AS r FROM t) v",
            "this form of correlation is not supported",
        ),
        ("SELECT a FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.a = t.a OFFSET 1)", "OFFSET or LIMIT 0"),
        ("SELECT a FROM t WHERE EXISTS (SELECT count(*) FROM u WHERE u.a = t.a)", "aggregate and no GROUP BY"),
        (
            "SELECT t.a FROM t LEFT JOIN u ON EXISTS (SELECT 1 FROM u v WHERE v.a = t.a AND v.x = u.x)",
            "reads columns of both sides",
        ),
        ("SELECT ? FROM t", "placeholder"),
    ] {
        let message = error(sql);
        assert!(message.contains(part), "{sql}: {message}");
    }
}
