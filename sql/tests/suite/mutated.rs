//! The 22 queries of TPC-H with words removed, repeated, exchanged and replaced: a plan or an error, never a panic.

use proptest::prelude::*;
use proptest::sample::Index;
use stoa_sql::Statement;

use crate::catalog;

/// What takes the place of a word, besides words of the query itself.
const WORDS: [&str; 28] = [
    "NULL",
    "*",
    "(",
    ")",
    ",",
    "NOT",
    "ALL",
    "-9223372036854775808",
    "99999999999999999999999999999999999999",
    "1e308",
    "0",
    "''",
    "DATE '0000-00-00'",
    "INTERVAL '1' MONTH",
    "(SELECT 1)",
    "(SELECT max(a) FROM t WHERE a = l_orderkey)",
    "IN (SELECT a FROM t)",
    "EXISTS (SELECT 1 FROM t)",
    "GROUP BY ROLLUP (1)",
    "FULL JOIN u ON true",
    "UNION SELECT 1",
    "ORDER BY 7",
    "LIMIT -1",
    "CAST(NULL AS DECIMAL(38,38))",
    "/ 0",
    "COUNT(DISTINCT *)",
    "OVER ()",
    "\u{1f600}",
];

/// Statements that change rows or the shape of a table.
const CHANGES: [&str; 6] = [
    "UPDATE t AS w SET c = concat(w.c, 'x'), d = (SELECT sum(x) FROM u WHERE u.a = w.a) WHERE w.a IN (SELECT a FROM u) AND b > 1",
    "DELETE FROM u WHERE a IN (SELECT a FROM t WHERE t.b = u.x) OR y LIKE 'a%'",
    "INSERT INTO u (a, y) SELECT a, c FROM t WHERE b > 1 ON DUPLICATE KEY UPDATE x = u.x + VALUES(a), y = VALUES(y)",
    "REPLACE INTO u VALUES (1, 2, 'x'), (2, NULL, 'y')",
    "ALTER TABLE t ADD COLUMN k DECIMAL(10,2) NOT NULL DEFAULT -1.5",
    "CREATE TABLE k (a INT, b INT UNIQUE, SHARD KEY (b), PRIMARY KEY (a, b), UNIQUE KEY n (b) USING HASH)",
];

#[derive(Debug, Clone)]
enum Change {
    Remove(Index, usize),
    Repeat(Index, usize),
    Exchange(Index, Index),
    Word(Index, usize),
    Insert(Index, usize),
    Cut(Index),
}

fn change() -> impl Strategy<Value = Change> {
    let index = any::<Index>;
    prop_oneof![
        (index(), 1..4_usize).prop_map(|(at, count)| Change::Remove(at, count)),
        (index(), 1..12_usize).prop_map(|(at, count)| Change::Repeat(at, count)),
        (index(), index()).prop_map(|(a, b)| Change::Exchange(a, b)),
        (index(), 0..WORDS.len()).prop_map(|(at, word)| Change::Word(at, word)),
        (index(), 0..WORDS.len()).prop_map(|(at, word)| Change::Insert(at, word)),
        index().prop_map(Change::Cut),
    ]
}

/// Words, numbers, and each other character on its own.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut within = false;
    for c in text.chars() {
        let part = c.is_alphanumeric() || c == '_';
        match words.last_mut() {
            Some(last) if part && within => last.push(c),
            _ => words.push(c.to_string()),
        }
        within = part;
    }
    words
}

fn apply(words: &mut Vec<String>, change: &Change) {
    if words.is_empty() {
        return;
    }
    let length = words.len();
    match change {
        Change::Remove(at, count) => {
            let at = at.index(length);
            words.drain(at..(at + count).min(length));
        }
        Change::Repeat(at, count) => {
            let at = at.index(length);
            let piece = words[at..(at + count).min(length)].to_vec();
            words.splice(at..at, piece);
        }
        Change::Exchange(a, b) => words.swap(a.index(length), b.index(length)),
        Change::Word(at, word) => words[at.index(length)] = WORDS[*word].to_owned(),
        Change::Insert(at, word) => words.insert(at.index(length), format!(" {} ", WORDS[*word])),
        Change::Cut(at) => words.truncate(at.index(length)),
    }
}

/// Binds what parses; a panic in the front end comes back as an error that asks to be reported.
fn survives(sql: &str) -> Result<(), TestCaseError> {
    let tables = catalog::Tables::all();
    let statements = match stoa_sql::parse(sql) {
        Ok(statements) => statements,
        Err(error) => {
            prop_assert!(!error.message.contains("please report"), "{error}\n{sql}");
            return Ok(());
        }
    };
    for statement in statements {
        let bound = match statement {
            Statement::Query(query) => vec![stoa_sql::bind_query(&query, &tables)],
            Statement::Update(update) => vec![stoa_sql::bind_update(&update, &tables)],
            Statement::Delete(delete) => vec![stoa_sql::bind_delete(&delete, &tables)],
            Statement::Insert(insert) => {
                vec![stoa_sql::bind_insert(&insert, &tables), stoa_sql::bind_duplicate_update(&insert, &tables)]
            }
            _ => continue,
        };
        for bound in bound {
            match bound {
                Ok(bound) => catalog::check(&bound),
                Err(error) => prop_assert!(!error.message.contains("please report"), "{error}\n{sql}"),
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn mutated_queries(number in 1..=22, changes in proptest::collection::vec(change(), 1..4)) {
        let path = format!("{}/../datasets/tpch/queries/q{number:02}.sql", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).expect("a query");
        let mut words = words(&text);
        for change in &changes {
            apply(&mut words, change);
        }
        survives(&words.concat())?;
    }

    #[test]
    fn mutated_changes(number in 0..CHANGES.len(), changes in proptest::collection::vec(change(), 1..4)) {
        let mut words = words(CHANGES[number]);
        for change in &changes {
            apply(&mut words, change);
        }
        survives(&words.concat())?;
    }
}
