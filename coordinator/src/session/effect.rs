//! What a text may have changed whose coordinator was lost before it said so.

use stoa_sql::{ClusterStatement, Statement};

use super::Session;
use super::open::Open;

/// What the statements of a text decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing: they can be run again.
    Nothing,
    /// One transaction, last of all: it tells what came of the whole text.
    Once,
    /// Something else, and why it cannot be found out.
    Unclear(&'static str),
}

impl Session {
    /// What a text decides, or would have decided on the session before this one.
    #[must_use]
    pub fn effect(&self, sql: &str) -> Effect {
        match stoa_sql::parse(sql) {
            Ok(statements) => of_all(&statements, self.in_transaction()),
            Err(_) => Effect::Unclear("this coordinator cannot parse it"),
        }
    }

    /// Whether a transaction is open, or was and its end was not said yet.
    #[must_use]
    pub fn in_transaction(&self) -> bool {
        self.open.lock().is_some()
    }

    /// The session before this one had a transaction open, which was lost with its coordinator.
    pub(crate) fn lose(&self) {
        *self.open.lock() = Some(Open::Lost("the coordinator was lost"));
    }

    /// The transaction that seemed lost was committed.
    pub(crate) fn find(&self) {
        *self.open.lock() = None;
    }
}

/// `open`: they begin in a transaction.
fn of_all(statements: &[Statement], mut open: bool) -> Effect {
    const SEVERAL: Effect = Effect::Unclear("it is several statements, which do not have their effect at once");
    let (mut decided, mut rows) = (false, false);
    for statement in statements {
        if decided {
            return SEVERAL;
        }
        match statement {
            Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_) => decided = !open,
            Statement::Commit => decided = std::mem::take(&mut open),
            Statement::Begin => open = true,
            Statement::Rollback => open = false,
            reads if only_reads(reads) => rows = true,
            _ => return Effect::Unclear("it changes what there is beside rows of tables"),
        }
    }
    match (decided, rows) {
        (false, _) => Effect::Nothing,
        (true, false) => Effect::Once,
        // They were shown to nobody, and cannot be made again.
        (true, true) => SEVERAL,
    }
}

fn only_reads(statement: &Statement) -> bool {
    match statement {
        Statement::Query(_) | Statement::Explain { .. } | Statement::ShowTables | Statement::Describe { .. } => true,
        Statement::ShowMergeStatus { .. } => true,
        Statement::Cluster(ClusterStatement::Kill { .. }) | Statement::Optimize { .. } => false,
        Statement::Cluster(_) | Statement::User(_) => !statement.changes_catalog(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effect(sql: &str, open: bool) -> Effect {
        of_all(&stoa_sql::parse(sql).unwrap(), open)
    }

    #[test]
    fn one_change_at_the_end_tells_what_came_of_all() {
        let once = ["INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (?)", "REPLACE INTO t VALUES (1)", "UPDATE t SET a = 1"];
        for sql in once.into_iter().chain(["DELETE FROM t", "BEGIN; DELETE FROM t; INSERT INTO t VALUES (1); COMMIT"]) {
            assert_eq!(effect(sql, false), Effect::Once, "{sql}");
        }
        for sql in ["COMMIT", "DELETE FROM t; COMMIT", "ROLLBACK; DELETE FROM t"] {
            assert_eq!(effect(sql, true), Effect::Once, "{sql}");
        }
    }

    #[test]
    fn what_decides_nothing_is_run_again() {
        let reads =
            ["SELECT 1", "SELECT 1; SHOW TABLES", "EXPLAIN ANALYZE SELECT a FROM t", "DESCRIBE t", "SHOW LEAVES", "SHOW USERS"];
        let open = [
            "BEGIN",
            "BEGIN; DELETE FROM t",
            "BEGIN; DELETE FROM t; ROLLBACK",
            "COMMIT",
            "ROLLBACK",
            "SHOW COLUMNAR MERGE STATUS",
        ];
        for sql in reads.into_iter().chain(open) {
            assert_eq!(effect(sql, false), Effect::Nothing, "{sql}");
        }
        for sql in ["DELETE FROM t", "SELECT 1; DELETE FROM t", "ROLLBACK"] {
            assert_eq!(effect(sql, true), Effect::Nothing, "{sql}");
        }
    }

    #[test]
    fn of_anything_else_nobody_knows() {
        let others =
            ["DELETE FROM t; DELETE FROM u", "DELETE FROM t; SELECT 1", "SELECT 1; DELETE FROM t", "CREATE TABLE t (a INT)"];
        let more = [
            "TRUNCATE t",
            "DROP TABLE t",
            "KILL 1",
            "OPTIMIZE TABLE t",
            "ADD LEAF '127.0.0.1:1'",
            "DROP USER u",
            "CREATE TABLE t AS SELECT 1 AS a",
        ];
        for sql in others.into_iter().chain(more) {
            assert!(matches!(effect(sql, false), Effect::Unclear(_)), "{sql}");
        }
        assert!(matches!(effect("COMMIT; DELETE FROM t", true), Effect::Unclear(_)));
        assert!(matches!(effect("BEGIN; SELECT 1; DELETE FROM t; COMMIT", false), Effect::Unclear(_)));
    }
}
