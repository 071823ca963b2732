//! Prepared statements of a session.

use stoa_exec::{CancelToken, Progress};
use stoa_plan::Literal;
use stoa_sql::PreparedStatement;

use super::{Outcome, Session, telling};
use crate::{Error, Result};

/// A statement that was parsed and waits for the values of its parameters. It holds on to nothing: names are looked up when it runs.
pub struct Prepared {
    sql: String,
    statement: PreparedStatement,
}

impl Prepared {
    /// Its text.
    #[must_use]
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// How many values it takes.
    #[must_use]
    pub fn parameters(&self) -> usize {
        self.statement.parameters()
    }
}

impl Session {
    /// Prepares one statement; its parameters are written as `?`.
    ///
    /// # Errors
    /// If the text cannot be parsed, is not one statement, or has parameters but is no query, EXPLAIN, INSERT, UPDATE or DELETE.
    pub fn prepare(&self, sql: &str) -> Result<Prepared> {
        Ok(Prepared { sql: sql.to_owned(), statement: stoa_sql::prepare(sql)? })
    }

    /// Runs a prepared statement with a value for each parameter, in their order.
    ///
    /// # Errors
    /// If the values are too many or too few, or as [`Session::run`].
    pub fn run_prepared<E: From<Error>>(
        &self,
        prepared: &Prepared,
        values: &[Literal],
        cancel: &CancelToken,
        progress: &Progress,
        each: &mut dyn FnMut(Outcome) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let statement = prepared.statement.bind(values).map_err(Error::from)?;
        if values.is_empty() {
            // The same text without values: its plan may be kept.
            return self.run(&prepared.sql, cancel, progress, each);
        }
        telling(each, |out| self.planned(cancel, || self.anywhere(&statement, &prepared.sql, cancel, progress, &mut *out)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;
    use stoa_columnstore::Options;
    use stoa_exec::Settings;
    use stoa_plan::{DataType, Value};

    use super::*;
    use crate::{Embedded, Store};

    /// The number that a prepared query gives, if any.
    fn number(session: &Session, prepared: &Prepared, values: &[i64]) -> Result<Option<i64>> {
        let values: Vec<Literal> = values.iter().map(|v| Literal { ty: DataType::Int64, value: Value::Int(*v) }).collect();
        let mut found = None;
        session.run_prepared(prepared, &values, &CancelToken::default(), &Progress::default(), &mut |outcome| {
            if let Outcome::Rows { batches, .. } = outcome {
                found = Some(batches[0].column(0).as_primitive::<Int64Type>().value(0));
            }
            Ok::<(), Error>(())
        })?;
        Ok(found)
    }

    #[test]
    fn values_are_bound_anew_each_time_and_plans_without_values_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(folder.path(), Options::default(), Settings::default(), 1, 1 << 28).unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        let session = Session::new(store.clone());
        let count = session.prepare("SELECT count(*) FROM t WHERE a > ?").unwrap();
        assert_eq!(count.parameters(), 1);
        // Names are looked up when it runs.
        assert!(number(&session, &count, &[1]).is_err());
        number(&session, &session.prepare("CREATE TABLE t (a BIGINT, b BIGINT)").unwrap(), &[]).unwrap();
        let insert = session.prepare("INSERT INTO t VALUES (?, ? * 10)").unwrap();
        for a in 0..5 {
            assert_eq!(number(&session, &insert, &[a, a]).unwrap(), None);
        }
        assert_eq!(number(&session, &count, &[1]).unwrap(), Some(3));
        assert_eq!(number(&session, &count, &[-1]).unwrap(), Some(5));
        let all = session.prepare("SELECT sum(b) FROM t").unwrap();
        assert_eq!(number(&session, &all, &[]).unwrap(), Some(100));
        let kept = store.plans().get(all.sql(), &store.plan_basis().unwrap()).unwrap();
        assert_eq!(number(&session, &all, &[]).unwrap(), Some(100));
        assert!(Arc::ptr_eq(&kept, &store.plans().get(all.sql(), &store.plan_basis().unwrap()).unwrap()));
        assert!(store.plans().get(count.sql(), &store.plan_basis().unwrap()).is_none());
        let wrong = number(&session, &count, &[1, 2]).unwrap_err().to_string();
        assert!(wrong.contains("has 1 parameter, but got 2 values"), "{wrong}");
    }
}
