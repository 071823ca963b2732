//! The statements that manage a cluster.

use datafusion_sql::sqlparser::tokenizer::Token;

use super::cursor::Cursor;
use crate::{ClusterStatement, Durability, MoveKind, SqlError, Statement};

/// `CREATE DATABASE [IF NOT EXISTS] d [PARTITIONS n] [REDUNDANCY n] [DURABILITY SYNC | ASYNC]`, behind CREATE DATABASE.
pub(super) fn create_database(mut cursor: Cursor<'_>) -> Result<Statement, SqlError> {
    let if_not_exists = cursor.take("IF");
    if if_not_exists {
        cursor.expect("NOT")?;
        cursor.expect("EXISTS")?;
    }
    let name = cursor.name()?;
    let (mut partitions, mut redundancy, mut durability) = (None, None, None);
    loop {
        if cursor.take("DURABILITY") {
            cursor.take_token(&Token::Eq);
            durability = Some(sync_or_async(&mut cursor)?);
            continue;
        }
        let slot = if cursor.take("PARTITIONS") {
            &mut partitions
        } else if cursor.take("REDUNDANCY") {
            &mut redundancy
        } else {
            break;
        };
        cursor.take_token(&Token::Eq);
        *slot = Some(number(&mut cursor)?);
    }
    cursor.expect_end()?;
    Ok(Statement::Cluster(ClusterStatement::CreateDatabase { name, if_not_exists, partitions, redundancy, durability }))
}

fn sync_or_async(cursor: &mut Cursor<'_>) -> Result<Durability, SqlError> {
    if cursor.take("SYNC") {
        return Ok(Durability::Sync);
    }
    if cursor.take("ASYNC") { Ok(Durability::Async) } else { Err(cursor.error("expected SYNC or ASYNC")) }
}

/// `DROP DATABASE [IF EXISTS] d`, behind DROP DATABASE.
pub(super) fn drop_database(mut cursor: Cursor<'_>) -> Result<Statement, SqlError> {
    let if_exists = cursor.take("IF");
    if if_exists {
        cursor.expect("EXISTS")?;
    }
    let name = cursor.name()?;
    cursor.expect_end()?;
    Ok(Statement::Cluster(ClusterStatement::DropDatabase { name, if_exists }))
}

/// `ADD LEAF 'HOST:PORT' [INTO GROUP n]`, `ADD AGGREGATOR 'HOST:PORT'`.
pub(super) fn add(mut cursor: Cursor<'_>) -> Result<Statement, SqlError> {
    cursor.next();
    if cursor.take("AGGREGATOR") || cursor.take("COORDINATOR") {
        let address = address(&mut cursor)?;
        cursor.expect_end()?;
        return Ok(Statement::Cluster(ClusterStatement::AddCoordinator { address }));
    }
    if !cursor.take("LEAF") {
        return Err(cursor.error("expected LEAF or AGGREGATOR"));
    }
    let address = address(&mut cursor)?;
    let mut group = None;
    if cursor.take("INTO") {
        cursor.expect("GROUP")?;
        group = Some(number(&mut cursor)?);
    }
    cursor.expect_end()?;
    Ok(Statement::Cluster(ClusterStatement::AddLeaf { address, group }))
}

/// `REMOVE LEAF 'HOST:PORT' [FORCE]`, `REMOVE AGGREGATOR 'HOST:PORT'`.
pub(super) fn remove(mut cursor: Cursor<'_>) -> Result<Statement, SqlError> {
    cursor.next();
    if cursor.take("AGGREGATOR") || cursor.take("COORDINATOR") {
        let address = address(&mut cursor)?;
        cursor.expect_end()?;
        return Ok(Statement::Cluster(ClusterStatement::RemoveCoordinator { address }));
    }
    if !cursor.take("LEAF") {
        return Err(cursor.error("expected LEAF or AGGREGATOR"));
    }
    let address = address(&mut cursor)?;
    let force = cursor.take("FORCE");
    cursor.expect_end()?;
    Ok(Statement::Cluster(ClusterStatement::RemoveLeaf { address, force }))
}

/// `ATTACH LEAF {'HOST:PORT' | ALL}`, `DETACH LEAF 'HOST:PORT' [FORCE]`.
pub(super) fn attach_or_detach(mut cursor: Cursor<'_>) -> Result<Statement, SqlError> {
    let attach = cursor.take("ATTACH");
    if !attach {
        cursor.expect("DETACH")?;
    }
    cursor.expect("LEAF")?;
    let statement = if attach {
        let all = cursor.take("ALL");
        let address = if all { None } else { Some(address(&mut cursor)?) };
        // What the model of these statements needs to be told is what happens here anyway.
        cursor.take_two("NO", "REBALANCE");
        ClusterStatement::AttachLeaf { address }
    } else {
        let address = address(&mut cursor)?;
        ClusterStatement::DetachLeaf { address, force: cursor.take("FORCE") }
    };
    cursor.expect_end()?;
    Ok(Statement::Cluster(statement))
}

/// `REBALANCE PARTITIONS ON d [FULL]`, `REBALANCE ALL DATABASES [FULL]`.
pub(super) fn rebalance(mut cursor: Cursor<'_>, explain: bool) -> Result<Statement, SqlError> {
    cursor.expect("REBALANCE")?;
    let database = if cursor.take_two("ALL", "DATABASES") {
        None
    } else {
        cursor.expect("PARTITIONS")?;
        cursor.expect("ON")?;
        Some(cursor.name()?)
    };
    let kind = if cursor.take("FULL") { MoveKind::RebalanceFull } else { MoveKind::Rebalance };
    cursor.expect_end()?;
    Ok(Statement::Cluster(ClusterStatement::Move { kind, database, explain }))
}

/// `RESTORE REDUNDANCY ON d`, behind RESTORE REDUNDANCY.
pub(super) fn restore_redundancy(mut cursor: Cursor<'_>, explain: bool) -> Result<Statement, SqlError> {
    cursor.expect("ON")?;
    let database = Some(cursor.name()?);
    cursor.expect_end()?;
    Ok(Statement::Cluster(ClusterStatement::Move { kind: MoveKind::RestoreRedundancy, database, explain }))
}

/// `EXPLAIN` of a statement that manages a cluster, behind EXPLAIN; `None` if it is another one.
pub(super) fn explain(cursor: &mut Cursor<'_>) -> Option<Result<Statement, SqlError>> {
    if cursor.peek_word().as_deref() == Some("REBALANCE") {
        return Some(rebalance(cursor.clone(), true));
    }
    if cursor.take_two("RESTORE", "REDUNDANCY") {
        return Some(restore_redundancy(cursor.clone(), true));
    }
    if cursor.peek_word().as_deref() == Some("RECOVER") {
        return Some(recover(cursor.clone(), true));
    }
    (cursor.peek_word().as_deref() == Some("CLEAR")).then(|| clear_orphans(cursor.clone(), true))
}

/// `RECOVER FROM LEAVES 'HOST:PORT', ...`.
pub(super) fn recover(mut cursor: Cursor<'_>, explain: bool) -> Result<Statement, SqlError> {
    cursor.expect("RECOVER")?;
    cursor.expect("FROM")?;
    cursor.expect("LEAVES")?;
    let mut leaves = vec![address(&mut cursor)?];
    while cursor.take_token(&Token::Comma) {
        leaves.push(address(&mut cursor)?);
    }
    cursor.expect_end()?;
    Ok(Statement::Cluster(ClusterStatement::Recover { leaves, explain }))
}

/// `CANCEL REBALANCE [ON d]`.
pub(super) fn cancel(mut cursor: Cursor<'_>) -> Result<Statement, SqlError> {
    cursor.expect("CANCEL")?;
    cursor.expect("REBALANCE")?;
    let database = if cursor.take("ON") { Some(cursor.name()?) } else { None };
    cursor.expect_end()?;
    Ok(Statement::Cluster(ClusterStatement::CancelMove { database }))
}

/// `CLEAR ORPHAN DATABASES`.
pub(super) fn clear_orphans(mut cursor: Cursor<'_>, explain: bool) -> Result<Statement, SqlError> {
    cursor.expect("CLEAR")?;
    cursor.expect("ORPHAN")?;
    cursor.expect("DATABASES")?;
    cursor.expect_end()?;
    Ok(Statement::Cluster(ClusterStatement::ClearOrphans { explain }))
}

/// `KILL [QUERY] n`.
pub(super) fn kill(mut cursor: Cursor<'_>) -> Result<Statement, SqlError> {
    cursor.next();
    cursor.take("QUERY");
    let query = number(&mut cursor)?;
    cursor.expect_end()?;
    Ok(Statement::Cluster(ClusterStatement::Kill { query }))
}

/// `SHOW ...`, behind SHOW; `None` if it is not of a cluster.
pub(super) fn show(cursor: &mut Cursor<'_>) -> Result<Option<Statement>, SqlError> {
    let statement = if cursor.take("LEAVES") {
        ClusterStatement::ShowLeaves
    } else if cursor.take("AGGREGATORS") || cursor.take("COORDINATORS") {
        ClusterStatement::ShowAggregators
    } else if cursor.take("DATABASES") {
        ClusterStatement::ShowDatabases
    } else if cursor.take("PROCESSLIST") {
        ClusterStatement::ShowProcesslist
    } else if cursor.take("PARTITIONS") {
        let database = if cursor.take("ON") { Some(cursor.name()?) } else { None };
        ClusterStatement::ShowPartitions { database }
    } else if cursor.take_two("CLUSTER", "STATUS") {
        ClusterStatement::ShowClusterStatus
    } else if cursor.take("REBALANCE") {
        cursor.take_two("ALL", "DATABASES");
        cursor.expect("STATUS")?;
        let database = if cursor.take("ON") { Some(cursor.name()?) } else { None };
        ClusterStatement::ShowMoves { database }
    } else {
        return Ok(None);
    };
    cursor.expect_end()?;
    Ok(Some(Statement::Cluster(statement)))
}

/// `'HOST:PORT'`, or `'HOST':PORT`; what stands before an `@` names a user, which Stoa's leaves do not have.
fn address(cursor: &mut Cursor<'_>) -> Result<String, SqlError> {
    let Some(Token::SingleQuotedString(text) | Token::DoubleQuotedString(text)) = cursor.peek() else {
        return Err(cursor.error("expected an address 'HOST:PORT'"));
    };
    cursor.next();
    let host = text.rsplit('@').next().unwrap_or(text);
    let address = if cursor.take_token(&Token::Colon) { format!("{host}:{}", number::<u16>(cursor)?) } else { host.to_owned() };
    let port = address.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then(|| port.parse::<u16>().ok())?);
    if port.is_none() {
        return Err(SqlError::new(format!("'{address}' is not an address: expected HOST:PORT")));
    }
    Ok(address)
}

fn number<N: std::str::FromStr>(cursor: &mut Cursor<'_>) -> Result<N, SqlError> {
    let found = match cursor.peek() {
        Some(Token::Number(digits, _)) => digits.parse().ok(),
        _ => None,
    };
    let found = found.ok_or_else(|| cursor.error("expected a number that fits"))?;
    cursor.next();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use crate::{ClusterStatement, Durability, MoveKind, Statement, parse};

    fn one(sql: &str) -> ClusterStatement {
        match parse(sql).unwrap().pop() {
            Some(Statement::Cluster(statement)) => statement,
            other => panic!("{sql}: {other:?}"),
        }
    }

    #[test]
    fn cluster_statements() {
        let add = |address: &str, group| ClusterStatement::AddLeaf { address: address.into(), group };
        assert_eq!(one("ADD LEAF 'a:1'"), add("a:1", None));
        assert_eq!(
            one("add leaf root@'10.0.0.1':3306 into group 2".replace("root@", "").as_str()),
            add("10.0.0.1:3306", Some(2))
        );
        assert_eq!(one("ADD LEAF 'root@a:1'"), add("a:1", None));
        let recover = |explain| ClusterStatement::Recover { leaves: vec!["a:1".into(), "b:2".into()], explain };
        assert_eq!(one("RECOVER FROM LEAVES 'a:1', 'b:2'"), recover(false));
        assert_eq!(one("EXPLAIN RECOVER FROM LEAVES 'a:1', 'b:2'"), recover(true));
        assert_eq!(one("REMOVE LEAF 'a:1' FORCE"), ClusterStatement::RemoveLeaf { address: "a:1".into(), force: true });
        let create = |partitions, redundancy, if_not_exists| ClusterStatement::CreateDatabase {
            name: "d".into(),
            if_not_exists,
            partitions,
            redundancy,
            durability: None,
        };
        for (sql, expected) in [("SYNC", Durability::Sync), ("= ASYNC", Durability::Async)] {
            let created = one(&format!("CREATE DATABASE d DURABILITY {sql} PARTITIONS 8"));
            assert!(
                matches!(created, ClusterStatement::CreateDatabase { durability: Some(d), partitions: Some(8), .. } if d == expected)
            );
        }
        assert_eq!(one("CREATE DATABASE d"), create(None, None, false));
        assert_eq!(one("CREATE DATABASE IF NOT EXISTS d REDUNDANCY 2 PARTITIONS = 8"), create(Some(8), Some(2), true));
        assert_eq!(one("ADD AGGREGATOR 'a:1'"), ClusterStatement::AddCoordinator { address: "a:1".into() });
        assert_eq!(one("REMOVE COORDINATOR 'a:1'"), ClusterStatement::RemoveCoordinator { address: "a:1".into() });
        assert_eq!(one("KILL QUERY 7"), ClusterStatement::Kill { query: 7 });
        assert_eq!(one("SHOW PARTITIONS ON d"), ClusterStatement::ShowPartitions { database: Some("d".into()) });
        assert_eq!(one("SHOW CLUSTER STATUS"), ClusterStatement::ShowClusterStatus);
    }

    #[test]
    fn statements_that_move_copies() {
        let database = || Some("d".to_owned());
        let moved = |kind, database, explain| ClusterStatement::Move { kind, database, explain };
        assert_eq!(one("REBALANCE PARTITIONS ON d"), moved(MoveKind::Rebalance, database(), false));
        assert_eq!(one("REBALANCE PARTITIONS ON d FULL"), moved(MoveKind::RebalanceFull, database(), false));
        assert_eq!(one("EXPLAIN REBALANCE ALL DATABASES FULL"), moved(MoveKind::RebalanceFull, None, true));
        assert_eq!(one("REBALANCE ALL DATABASES"), moved(MoveKind::Rebalance, None, false));
        assert_eq!(one("EXPLAIN REBALANCE PARTITIONS ON d"), moved(MoveKind::Rebalance, database(), true));
        assert_eq!(one("RESTORE REDUNDANCY ON d"), moved(MoveKind::RestoreRedundancy, database(), false));
        assert_eq!(one("EXPLAIN RESTORE REDUNDANCY ON d"), moved(MoveKind::RestoreRedundancy, database(), true));
        assert_eq!(one("CANCEL REBALANCE ON d"), ClusterStatement::CancelMove { database: database() });
        assert_eq!(one("SHOW REBALANCE STATUS ON d"), ClusterStatement::ShowMoves { database: database() });
        assert_eq!(one("SHOW REBALANCE ALL DATABASES STATUS"), ClusterStatement::ShowMoves { database: None });
        assert_eq!(one("CLEAR ORPHAN DATABASES"), ClusterStatement::ClearOrphans { explain: false });
        assert_eq!(one("EXPLAIN CLEAR ORPHAN DATABASES"), ClusterStatement::ClearOrphans { explain: true });
        assert_eq!(one("ATTACH LEAF ALL"), ClusterStatement::AttachLeaf { address: None });
        assert_eq!(one("ATTACH LEAF 'a:1' NO REBALANCE"), ClusterStatement::AttachLeaf { address: Some("a:1".into()) });
        assert_eq!(one("DETACH LEAF 'a:1' FORCE"), ClusterStatement::DetachLeaf { address: "a:1".into(), force: true });
    }

    #[test]
    fn wrong_cluster_statements_say_where() {
        for (sql, what) in [
            ("ADD LEAF", "expected an address"),
            ("ADD LEAF 'nowhere'", "expected HOST:PORT"),
            ("ADD LEAF 'a:99999'", "expected HOST:PORT"),
            ("CREATE DATABASE d PARTITIONS many", "expected a number"),
            ("CREATE DATABASE d DURABILITY 1", "expected SYNC or ASYNC"),
            ("KILL QUERY 99999999999999999999999", "expected a number"),
            ("SHOW LEAVES NOW", "expected the end"),
        ] {
            let error = parse(sql).unwrap_err().to_string();
            assert!(error.contains(what), "{sql}: {error}");
        }
    }
}
