//! INSERT and CREATE TABLE AS: the rows of a query into a table, all or none.

use stoa_exec::{CancelToken, Progress};
use stoa_plan::{DataType, Field, Query};
use stoa_sql::{ColumnDef, CreateTable, Insert, QueryText};

use super::change::{self, Source};
use super::misfit::RowsOf;
use super::{Session, View, ddl};
use crate::store::existing;
use crate::{Error, Result, Rows};

pub(super) fn insert(session: &Session, insert: &Insert, cancel: &CancelToken) -> Result<String> {
    let view = View(&*session.store);
    let def = existing(&*session.store, &insert.table)?;
    let source = match stoa_sql::literal_rows(insert, &view) {
        Some(rows) => Source::Rows([rows]),
        None => Source::Query(Box::new(RowsOf::plan(session, stoa_sql::bind_insert(insert, &view)?)?)),
    };
    // The rows are of the definition that was there before and is there now.
    existing(&*session.store, &insert.table)?.check_revision(def.revision())?;
    change::insert(session, insert, &def, &source, cancel)
}

pub(super) fn create_table_as(session: &Session, table: &CreateTable, query: &QueryText, cancel: &CancelToken) -> Result<String> {
    if table.if_not_exists && session.store.table(&table.name).is_some() {
        return Ok(format!("table {} is there already", table.name));
    }
    let query = stoa_sql::bind_query(query, &View(&*session.store))?;
    let mut table = table.clone();
    table.columns = columns(&table, &query.output)?;
    let rows = session.store.create_table_rows(ddl::table_def(&table)?)?;
    let rows = write(session, rows, query, cancel)?;
    Ok(format!("table {} created, {rows} rows inserted", table.name))
}

/// Runs the query and commits its rows; an error leaves the table as it was.
fn write(session: &Session, mut rows: Box<dyn Rows>, query: Query, cancel: &CancelToken) -> Result<u64> {
    let result = session.store.execute(&session.physical(query)?, cancel, &Progress::default())?;
    for batch in &result.batches {
        cancel.check()?;
        rows.push(batch)?;
    }
    rows.finish()
}

/// The columns of the new table: as declared, with names or types taken from the query where they are not.
fn columns(table: &CreateTable, output: &[Field]) -> Result<Vec<ColumnDef>> {
    if !table.columns.is_empty() && table.columns.len() != output.len() {
        return Err(Error::Invalid(format!(
            "table '{}' has {} columns, but the query gives {}",
            table.name,
            table.columns.len(),
            output.len()
        )));
    }
    let column = |(i, field): (usize, &Field)| {
        let ty = if field.ty == DataType::Null { DataType::Utf8 } else { field.ty };
        let inferred = ColumnDef {
            name: field.name.clone(),
            ty,
            sql_type: ddl::sql_type_name(ty),
            nullable: field.nullable,
            bitmap_index: stoa_sql::BitmapIndex::Auto,
            default: None,
        };
        match table.columns.get(i) {
            None => inferred,
            Some(declared) if declared.ty == DataType::Null => ColumnDef { name: declared.name.clone(), ..inferred },
            Some(declared) => declared.clone(),
        }
    };
    Ok(output.iter().enumerate().map(column).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::RecordBatch;
    use arrow::compute::concat_batches;
    use stoa_columnstore::Options;
    use stoa_exec::Settings;
    use stoa_sql::Statement;

    use super::*;
    use crate::{Embedded, Store};

    const TYPES: [&str; 24] = [
        "BOOL",
        "TINYINT",
        "SMALLINT",
        "INT",
        "BIGINT",
        "TINYINT UNSIGNED",
        "SMALLINT UNSIGNED",
        "INT UNSIGNED",
        "BIGINT UNSIGNED",
        "FLOAT",
        "DOUBLE",
        "DECIMAL(1,0)",
        "DECIMAL(1,1)",
        "DECIMAL(9,2)",
        "DECIMAL(18,0)",
        "DECIMAL(18,18)",
        "DECIMAL(19,4)",
        "DECIMAL(38,0)",
        "DECIMAL(38,37)",
        "DATE",
        "TIMESTAMP",
        "VARCHAR(5)",
        "TEXT",
        "BLOB",
    ];
    const LITERALS: &str = "NULL; TRUE; false; 0; 1; -1; 007; -0; 9; 10; 99; 127; 128; -128; -129; 255; 256; 32767; 32768; -32769; 65535;
        65536; 2147483647; 2147483648; -2147483649; 4294967295; 4294967296; 16777217; 9007199254740993; 9223372036854775807;
        9223372036854775808; -9223372036854775808; -9223372036854775809; 18446744073709551615; 18446744073709551616; +5; (-7); - 8;
        123456789012345; 1234567890123456; 99999999999999999999; 0.1; -0.1; -0.0; 0.30; 1.5; 9.99; .5; 5.; 1.005; 0.000000000000001;
        1234567.89; 12345678901234.5; 3.14159265358979; 16777217.5; 0.10000000149011612; 1e3; -1.5e0; 2.5E-3; 1e300; 1e-320; 1e39; 1e400; '';
        'x'; 'it''s'; 'naïve 東京'; 'longer than five'; 'a\\b'; '\"'; '1'; '-1.5'; 'true'; ' 2020-01-01'; '2020-01-01'; '2020-02-30';
        '2020-1-1'; '0000-01-01'; '1600-01-01'; '1969-12-31'; '9999-12-31'; '2020-02-29 23:59:59'; '1969-12-31 23:59:59.999999';
        '2020-01-01 00:00:00.5'; '2020-01-01 00:00:00.1234567'; '2020-01-01T00:00:00'; '2020-01-01 24:00:00'; '2016-12-31 23:59:60';
        '2020-01-01 00:00:00Z'; DATE '2020-02-29'; DATE '2021-02-29'; date '1700-01-01'; TIMESTAMP '2020-01-01 12:34:56.000001';
        TIMESTAMP '2020-01-01'; timestamp '2200-12-31 23:59:59'; x'00FF'; 1 + 1; concat('a', 'b'); DEFAULT; 'a' 'b'";

    fn open() -> (tempfile::TempDir, Session) {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(folder.path(), Options::default(), Settings::default(), 1, 1 << 28).unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        (folder, Session::new(store))
    }

    fn run(session: &Session, sql: &str) -> Result<String> {
        let mut said = String::new();
        session.run(sql, &CancelToken::default(), &Progress::default(), &mut |outcome| {
            if let crate::Outcome::Done(message) = outcome {
                said = message;
            }
            Ok::<(), Error>(())
        })?;
        Ok(said)
    }

    fn direct(session: &Session, sql: &str) -> Option<RecordBatch> {
        let [Statement::Insert(insert)] = &stoa_sql::parse(sql).ok()?[..] else { return None };
        stoa_sql::literal_rows(insert, &View(&*session.store))
    }

    fn planned(session: &Session, sql: &str) -> Result<RecordBatch> {
        let [Statement::Insert(insert)] = &stoa_sql::parse(sql)?[..] else { panic!("{sql}") };
        let query = session.physical(stoa_sql::bind_insert(insert, &View(&*session.store))?)?;
        let result = session.store.execute(&query, &CancelToken::default(), &Progress::default())?;
        Ok(concat_batches(&result.schema, &result.batches).unwrap())
    }

    /// How many of the statements have rows without a plan; those are the plan's.
    fn agree(session: &Session, statements: impl Iterator<Item = String>) -> usize {
        let mut agreed = 0;
        for sql in statements {
            let Some(direct) = direct(session, &sql) else { continue };
            let planned = planned(session, &sql).unwrap_or_else(|e| panic!("{sql}: {e}, but {direct:?}"));
            assert_eq!(direct.columns(), planned.columns(), "{sql}");
            agreed += 1;
        }
        agreed
    }

    #[test]
    fn rows_of_literals_are_those_of_the_plan() {
        let (_folder, session) = open();
        let mut agreed = Vec::new();
        for ty in TYPES {
            run(&session, &format!("CREATE TABLE \"of {ty}\" (a {ty}, b INT)")).unwrap();
            let literals = LITERALS.split(';').map(str::trim);
            agreed.push(agree(&session, literals.map(|literal| format!("INSERT INTO \"of {ty}\" VALUES ({literal}, 1)"))));
        }
        let expected = [3, 13, 18, 24, 33, 11, 15, 20, 27, 44, 46, 9, 6, 29, 29, 7, 39, 29, 17, 5, 6, 27, 27, 0];
        assert_eq!(agreed, expected, "how many literals need no plan, by type");
    }

    #[test]
    fn columns_and_rows_are_those_of_the_plan() {
        let (_folder, session) = open();
        run(&session, "CREATE TABLE t (a INT NOT NULL, b TEXT, c DECIMAL(9,2)); CREATE TABLE m (a INT, \"B\" TEXT)").unwrap();
        let all = [
            "INSERT INTO t VALUES (1, 'x', 2.5), (2, NULL, -3)",
            "INSERT INTO T (C, a) VALUES (1, 2), (NULL, 3)",
            "REPLACE INTO \"t\" (\"a\") VALUES (1)",
            "insert into t (b, c, a) values ('y', 0.25, (-1))",
            "INSERT INTO t VALUES (1, 'x', 2) ON DUPLICATE KEY UPDATE b = 'z'",
            "INSERT INTO m VALUES (1, 'x')",
        ];
        assert_eq!(agree(&session, all.iter().map(|sql| (*sql).to_owned())), all.len());
        let others = [
            "INSERT INTO t VALUES (NULL, 'x', 1)",
            "INSERT INTO t (b) VALUES ('x')",
            "INSERT INTO t VALUES (1, 'x')",
            "INSERT INTO t VALUES (1, 'x', 1), (2)",
            "INSERT INTO t (a, a, b) VALUES (1, 1, 'x')",
            "INSERT INTO t (a, d) VALUES (1, 1)",
            "INSERT INTO t VALUES (2147483648, 'x', 1)",
            "INSERT INTO t VALUES (1, 'x', 1.005)",
            "INSERT INTO none VALUES (1)",
            "INSERT INTO m (b) VALUES ('x')",
            "INSERT INTO t SELECT 1, 'x', 1",
        ];
        for sql in others {
            assert!(direct(&session, sql).is_none(), "{sql}");
        }
    }

    #[test]
    fn errors_are_those_of_the_plan() {
        let (_folder, session) = open();
        run(&session, "CREATE TABLE t (a INT NOT NULL, b VARCHAR(3), PRIMARY KEY (a), SHARD KEY (a))").unwrap();
        let error = |sql: &str| run(&session, sql).unwrap_err().to_string();
        let long = error("INSERT INTO t VALUES (1, 'xy'), (2, 'long')");
        assert_eq!(long, error("INSERT INTO t VALUES (1, 'xy'), (1 + 1, 'long')"));
        assert!(long.contains("column 'b', row 2"), "{long}");
        let null = error("INSERT INTO t VALUES (1, 'x'), (NULL, 'y')");
        assert!(null.contains("column 'a', row 2"), "{null}");
        assert_eq!(run(&session, "INSERT INTO t VALUES (1, 'x')").unwrap(), "1 rows inserted");
        assert_eq!(error("INSERT INTO t VALUES (1, 'y')"), error("INSERT INTO t VALUES (0 + 1, 'y')"));
        assert_eq!(run(&session, "REPLACE INTO t VALUES (1, 'y'), (2, 'z')").unwrap(), "2 rows inserted, 1 replaced");
        let update = "INSERT INTO t VALUES (1, 'new'), (3, 'w') ON DUPLICATE KEY UPDATE b = concat(b, '+')";
        assert_eq!(run(&session, update).unwrap(), "1 rows inserted, 1 updated");
        assert!(error("INSERT INTO t VALUES (1, 'x'); INSERT INTO t VALUES (1 'x')").contains("expected"));
    }
}
