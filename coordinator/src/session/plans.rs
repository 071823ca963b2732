//! Plans of queries that were asked lately, by their texts: asked again, a query is run at once.
//!
//! A plan is used as long as the store says that nothing has changed on which it hangs: definitions, statistics, and what users may
//! read. Plans with functions of time are not kept.

use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;
use stoa_plan::Query;

/// Plans that are kept; those that were not asked for the longest go first.
const PLANS: NonZeroUsize = NonZeroUsize::new(256).unwrap();
/// A longer text is seldom asked twice.
const MAX_TEXT: usize = 1 << 16;

/// What a plan hangs on besides its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanBasis {
    /// Whose queries on what: the same text means something else to others.
    pub scope: String,
    /// The version of the definitions.
    pub definitions: u64,
    /// The version of the statistics.
    pub statistics: u64,
}

/// See the module.
pub struct Plans(Mutex<LruCache<String, Kept>>);

struct Kept {
    basis: PlanBasis,
    plan: Arc<Query>,
}

impl Default for Plans {
    fn default() -> Plans {
        Plans(Mutex::new(LruCache::new(PLANS)))
    }
}

impl Plans {
    /// The plan of a text, if it was made on this basis.
    pub(super) fn get(&self, sql: &str, basis: &PlanBasis) -> Option<Arc<Query>> {
        self.0.lock().get(sql).filter(|kept| kept.basis == *basis).map(|kept| kept.plan.clone())
    }

    /// Keeps a plan.
    pub(super) fn put(&self, sql: &str, basis: PlanBasis, plan: Arc<Query>) {
        if sql.len() <= MAX_TEXT {
            self.0.lock().put(sql.to_owned(), Kept { basis, plan });
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
    use stoa_columnstore::Options;
    use stoa_exec::{CancelToken, Progress, Settings};

    use super::*;
    use crate::{Embedded, Error, Outcome, Session, Store};

    /// The last value that statements give, cast to a number.
    fn number(session: &Session, sql: &str) -> i64 {
        let mut last = 0;
        let mut each = |outcome| {
            if let Outcome::Rows { batches, .. } = outcome {
                let column = batches[0].column(0);
                last = match column.as_primitive_opt::<Int64Type>() {
                    Some(column) => column.value(0),
                    None => column.as_primitive::<TimestampMicrosecondType>().value(0),
                };
            }
            Ok::<(), Error>(())
        };
        session.run(sql, &CancelToken::default(), &Progress::default(), &mut each).unwrap();
        last
    }

    #[test]
    fn plans_last_as_long_as_what_they_hang_on() {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(folder.path(), Options::default(), Settings::default(), 1, 1 << 28).unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        let session = Session::new(store.clone());
        let kept = |sql: &str| store.plans().get(sql, &store.plan_basis().unwrap());
        number(&session, "CREATE TABLE t (a BIGINT); CREATE VIEW v AS SELECT a FROM t; INSERT INTO t VALUES (1)");

        let sum = "SELECT CAST(sum(a) AS BIGINT) FROM v";
        assert!(kept(sum).is_none());
        assert_eq!(number(&session, sum), 1);
        let first = kept(sum).unwrap();
        assert_eq!(number(&session, sum), 1);
        assert!(Arc::ptr_eq(&first, &kept(sum).unwrap()));
        number(&session, "INSERT INTO t VALUES (2)");
        assert_eq!(number(&session, sum), 3);
        assert!(Arc::ptr_eq(&first, &kept(sum).unwrap()));
        number(&session, "OPTIMIZE TABLE t FLUSH");
        assert!(kept(sum).is_none());
        assert_eq!(number(&session, sum), 3);
        number(&session, "CREATE OR REPLACE VIEW v AS SELECT a * 10 AS a FROM t");
        assert_eq!(number(&session, sum), 30);

        let (now, early) = ("SELECT now()", number(&session, "SELECT now()"));
        assert!(kept(now).is_none());
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(number(&session, now) > early);

        let basis = |scope: &str| PlanBasis { scope: scope.to_owned(), ..store.plan_basis().unwrap() };
        assert!(store.plans().get(sum, &basis("")).is_some());
        assert!(store.plans().get(sum, &basis("another user")).is_none());
    }
}
