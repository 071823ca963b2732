//! Texts that are too deep, too long or broken: an error or a plan, never a panic or an overflow of the stack.

use crate::catalog::{self, Tables, bind};

/// Binds every statement that parses; only that nothing panics matters.
fn survive(sql: &str) {
    let tables = Tables::all();
    let Ok(statements) = stoa_sql::parse(sql) else { return };
    for statement in statements {
        match statement {
            stoa_sql::Statement::Query(query) | stoa_sql::Statement::Explain { query, .. } => {
                let bound = stoa_sql::bind_query(&query, &tables);
                if let Err(error) = bound {
                    assert!(!error.message.contains("please report"), "{error}: {}", &query.sql()[..query.sql().len().min(200)]);
                }
            }
            stoa_sql::Statement::Insert(insert) => drop(stoa_sql::bind_insert(&insert, &tables)),
            _ => {}
        }
    }
}

#[test]
fn deep_nesting() {
    for depth in [10, 60, 1_000, 100_000] {
        survive(&format!("SELECT {}1{}", "(".repeat(depth), ")".repeat(depth)));
        survive(&format!("SELECT {}a FROM t", "NOT ".repeat(depth)));
        survive(&format!("SELECT {}a FROM t", "- ".repeat(depth)));
        survive(&format!("SELECT * FROM {}t{}", "(SELECT * FROM ".repeat(depth), ")".repeat(depth)));
        survive(&format!("SELECT {}a{} FROM t", "abs(".repeat(depth), ")".repeat(depth)));
        survive(&format!("SELECT {}1{}", "CASE WHEN true THEN ".repeat(depth), " END".repeat(depth)));
        survive(&"(".repeat(depth));
        survive(&format!("CREATE TABLE x (a {}", "(".repeat(depth)));
    }
}

#[test]
fn deep_nesting_is_named() {
    let sql = format!("SELECT {}1{}", "(".repeat(5000), ")".repeat(5000));
    assert!(bind(&sql).unwrap_err().message.contains("nested too deeply"));
}

#[test]
fn long_chains() {
    for (length, binds) in [(150, true), (100_000, false)] {
        for (first, rest) in [
            ("SELECT a FROM t WHERE a = 1", " OR a = 2"),
            ("SELECT a FROM t WHERE a = 1", " AND b = 2"),
            ("SELECT 1", " UNION ALL SELECT 1"),
            ("SELECT 1", " UNION ALL SELECT 1, 2"),
        ] {
            let sql = format!("{first}{}", rest.repeat(length));
            let bound = bind(&sql);
            if !binds {
                let error = bound.unwrap_err();
                assert!(error.location.is_some(), "{error}");
            } else if !rest.contains(',') {
                bound.unwrap_or_else(|e| panic!("{e}: {rest}"));
            }
        }
    }
    survive(&format!("SELECT a{} FROM t", " + a".repeat(100)));
    survive(&format!("SELECT c{} FROM t", " || c".repeat(3900)));
    survive(&format!("SELECT 1 FROM t{}", ", t".repeat(100_000)));
}

#[test]
fn wide_statements() {
    let list: Vec<String> = (0..20_000).map(|i| i.to_string()).collect();
    bind(&format!("SELECT a FROM t WHERE a IN ({})", list.join(", "))).unwrap();
    let rows: Vec<String> = (0..5_000).map(|i| format!("({i}, {i}, 'x{i}')")).collect();
    bind(&format!("INSERT INTO u VALUES {}", rows.join(", "))).unwrap();
}

#[test]
fn every_prefix_and_every_hole() {
    let texts = [
        "WITH w (x, y) AS (SELECT a, sum(b) FILTER (WHERE c LIKE 'x%') FROM t GROUP BY a HAVING count(*) > 1) \
         SELECT DISTINCT x, CASE y WHEN 1 THEN 'a' ELSE \"y\" END FROM w LEFT JOIN u ON w.x = u.a AND u.x NOT IN (SELECT a FROM u) \
         WHERE EXISTS (SELECT 1 FROM t WHERE t.a = w.x) ORDER BY 1 DESC NULLS LAST LIMIT 3 OFFSET 1",
        "CREATE REFERENCE TABLE IF NOT EXISTS x (a DECIMAL(10,2) NOT NULL WITH (BITMAP INDEX), `b c` VARCHAR(3), SHARD KEY (a), SORT KEY (a));",
        "INSERT INTO u (a, y) VALUES (1, 'it''s'), (2, NULL); DROP TABLE IF EXISTS a, b; SHOW COLUMNS FROM t; EXPLAIN ANALYZE SELECT 1",
        "SELECT e'\\u00e9', x'0f', 1.5e3, $1, @a, a[1], {'x': 1}, :b, a -> b, /* c */ -- d\n 1 FROM t",
    ];
    for text in texts {
        let ends: Vec<usize> = text.char_indices().map(|(i, _)| i).collect();
        for &end in ends.iter().step_by(3) {
            survive(&text[..end]);
        }
        for pair in ends.windows(8).step_by(5) {
            survive(&format!("{}{}", &text[..pair[0]], &text[pair[7]..]));
        }
    }
}

#[test]
fn odd_characters() {
    for text in [
        "",
        ";",
        ";;;",
        "\u{0}",
        "'",
        "\"",
        "`",
        "/*",
        "--",
        "\u{1f600}",
        "SELECT '\u{1f600}' AS \"\u{e9}\"",
        "SELECT \u{a0}1",
        "\u{feff}SELECT 1",
    ] {
        survive(text);
    }
    assert!(stoa_sql::parse(" ; -- nothing\n ; ").unwrap().is_empty());
}

#[test]
fn views_that_name_themselves() {
    let tables = Tables::all().view("v", "SELECT * FROM w").view("w", "SELECT * FROM v");
    let error = catalog::bind_with("SELECT * FROM v", &tables).unwrap_err();
    assert!(error.message.contains("names itself"), "{error}");
}
