//! Transactions over several leaves: whatever dies when, none of them is there half.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use stoa_rpc::ipc::one_chunk;
use stoa_rpc::leaf::{LeafService, LeafTransaction, NumberedRows, TransactionSetup};
use stoa_rpc::{FailureKind, Io, LeafPool, Security};

use crate::nodes::{Cluster, text};

const ACCOUNTS: u64 = 16;

/// A statement that moves an amount from some accounts to others, which most of the time are of several leaves.
fn transfer(number: u64) -> String {
    let (from, to) = (number % ACCOUNTS, (number * 7 + 3) % ACCOUNTS);
    let (from, to) = if from == to { (from, (to + 1) % ACCOUNTS) } else { (from, to) };
    format!(
        "BEGIN; UPDATE accounts SET amount = amount - 1 WHERE id = {from}; UPDATE accounts SET amount = amount + 1 WHERE id = {to}; \
         INSERT INTO moves VALUES ({number}, {from}, {to}); UPDATE total SET moved = moved + 1; COMMIT"
    )
}

/// What nobody ever sees other than as 1600 and 0.
const SUMS: &str =
    "SELECT (SELECT sum(amount) FROM accounts) AS amount, (SELECT count(*) FROM moves) - (SELECT moved FROM total) AS lost";

/// Reads what transfers keep as it is; whether the leaves answered.
fn look(cluster: &Cluster) -> bool {
    let output = cluster.sql(SUMS);
    if output.status.success() {
        assert_eq!(text(&output), "amount,lost\n1600,0\n");
    }
    output.status.success()
}

/// What must be so after any number of whole transfers. Asked until the leaves answer.
fn check(cluster: &Cluster, sure: u64) {
    let began = Instant::now();
    while !look(cluster) {
        assert!(began.elapsed() < Duration::from_secs(60), "the leaves do not answer");
        std::thread::sleep(Duration::from_millis(200));
    }
    let moves: u64 = cluster.ok("SELECT count(*) AS n FROM moves").lines().nth(1).unwrap().parse().unwrap();
    assert!(moves >= sure, "{moves} transfers are there of {sure} that were acknowledged");
    // Each account has what the transfers that are there left it with.
    let wrong = "SELECT id FROM accounts WHERE amount <> 100 + (SELECT count(*) FROM moves WHERE target = id) \
                 - (SELECT count(*) FROM moves WHERE source = id)";
    assert_eq!(cluster.ok(wrong).lines().skip(1).count(), 0);
}

#[test]
fn no_transfer_is_there_half_after_a_leaf_died() {
    let cluster = Cluster::start(2);
    cluster.ok("CREATE TABLE accounts (id BIGINT PRIMARY KEY, amount BIGINT NOT NULL); \
                CREATE TABLE moves (number BIGINT PRIMARY KEY, source BIGINT NOT NULL, target BIGINT NOT NULL); \
                CREATE REFERENCE TABLE total (moved BIGINT NOT NULL); INSERT INTO total VALUES (0)");
    let accounts: Vec<String> = (0..ACCOUNTS).map(|id| format!("({id}, 100)")).collect();
    cluster.ok(&format!("INSERT INTO accounts VALUES {}", accounts.join(", ")));
    let (ended, number, sure) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let seen = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    let number = number.fetch_add(1, Ordering::Relaxed);
                    if cluster.sql(&transfer(number)).status.success() {
                        sure.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                seen.fetch_add(u64::from(look(&cluster)), Ordering::Relaxed);
            }
        });
        for round in 0..6u64 {
            // Somewhere in the middle of some transfers.
            std::thread::sleep(Duration::from_millis(700 + round * 97));
            cluster.signal(1 + round as usize % 2, "KILL");
            cluster.start_again();
        }
        std::thread::sleep(Duration::from_millis(500));
        ended.store(true, Ordering::Relaxed);
    });
    let (sure, seen) = (sure.load(Ordering::Relaxed), seen.load(Ordering::Relaxed));
    assert!(sure > 0 && seen > 0);
    check(&cluster, sure);
    // The coordinator too: what it left in doubt is resolved by the next one that leads.
    cluster.signal(0, "KILL");
    cluster.start_again();
    check(&cluster, sure);
    // What the coordinator left in doubt may stand in the way until it is resolved.
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let output = cluster.sql(&transfer(1_000_000));
        if output.status.success() {
            break;
        }
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains("run the transaction again") && Instant::now() < end, "{error}");
        std::thread::sleep(Duration::from_millis(200));
    }
    check(&cluster, sure + 1);
}

#[test]
fn the_first_to_commit_wins() {
    let cluster = Cluster::start(2);
    cluster.ok("CREATE TABLE counters (id BIGINT PRIMARY KEY, n BIGINT NOT NULL); \
                INSERT INTO counters VALUES (1, 0), (2, 0), (3, 0), (4, 0), (5, 0)");
    // Statements of their own are run again until they have come first.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..3).for_each(|_| drop(cluster.ok("UPDATE counters SET n = n + 1"))));
        }
    });
    assert_eq!(cluster.ok("SELECT min(n) AS low, max(n) AS high FROM counters"), "low,high\n12,12\n");
    cluster.fails("BEGIN; UPDATE counters SET n = 0; INSERT INTO counters VALUES (1, 1); COMMIT", "there is a row with PRIMARY");
    assert_eq!(cluster.ok("SELECT sum(n) AS n FROM counters"), "n\n60\n");
}

/// A transaction that adds one row to the partition of a leaf.
fn begin(leaf: &dyn LeafService, ordinal: u32, number: u64) -> Arc<dyn LeafTransaction> {
    let (database, address, ordinals) = ("single".into(), "here".into(), vec![ordinal]);
    let setup = TransactionSetup { transaction: number, database, address, ordinals, blind: false, moment: 0 };
    let transaction = leaf.begin_transaction(setup).unwrap();
    let row = RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from(vec![number as i64])) as ArrayRef)]).unwrap();
    let rows = NumberedRows { chunk: one_chunk(&row).unwrap(), numbers: vec![1] };
    transaction.insert("t", ordinal, rows).unwrap();
    transaction
}

#[test]
fn what_is_in_doubt_becomes_what_was_decided() {
    let cluster = Cluster::start(2);
    // Each leaf has the only copy of its partition.
    cluster.ok("CREATE DATABASE single PARTITIONS 2 REDUNDANCY 1");
    let query = |sql: &str| {
        let output = cluster.command(&["sql", "--database", "single", "--format", "csv", "-c", sql]).output().unwrap();
        assert!(output.status.success(), "{sql}: {}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    query("CREATE TABLE t (a BIGINT)");
    let pool = || LeafPool::new(Io::start("test-io").unwrap(), Security::new(cluster.secret()));
    let leaves = || [1, 2].map(|node| pool().leaf(&cluster.address(node)).unwrap());
    let [waits, decides] = leaves();
    let ordinal = |leaf: &Arc<dyn LeafService>| {
        leaf.status().unwrap().iter().find(|database| database.name == "single").unwrap().ordinals[0]
    };
    let (own, decider) = (ordinal(&waits), ordinal(&decides));
    // One that was decided, one that never was, one whose coordinator comes too late.
    let prepared = begin(&*waits, own, 1).prepare(&[own], decider).unwrap();
    begin(&*decides, decider, 1).commit(decider, true, prepared).unwrap();
    begin(&*waits, own, 2).prepare(&[own], decider).unwrap();
    let late = begin(&*decides, decider, 3);
    begin(&*waits, own, 3).prepare(&[own], decider).unwrap();
    assert_eq!(waits.in_doubt().unwrap().len(), 3);
    cluster.signal(1, "KILL");
    cluster.start_again();
    let [waits, _] = leaves();
    let began = Instant::now();
    while !waits.in_doubt().unwrap().is_empty() {
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", waits.in_doubt());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(late.commit(decider, true, prepared).unwrap_err().kind, FailureKind::Conflict);
    // That a transaction was given up outlives the leaf that decides.
    cluster.signal(2, "KILL");
    cluster.start_again();
    let [_, decides] = leaves();
    while decides.outcome("single", decider, 3) != Ok(None) {
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", decides.outcome("single", decider, 3));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(begin(&*decides, decider, 3).commit(decider, true, prepared).unwrap_err().kind, FailureKind::Conflict);
    assert_eq!(query("SELECT a, count(*) AS n FROM t GROUP BY a"), "a,n\n1,2\n");
    // What comes from outside and does not fit is refused.
    let transaction = begin(&*decides, decider, 4);
    assert!(transaction.delete("t", decider, &[u64::MAX]).is_err());
    assert!(transaction.delete("t", decider + 1, &[0]).is_err());
    assert!(transaction.read("t", decider, &[u64::from(decider) << 50]).is_err());
    assert!(transaction.prepare(&[decider], u32::MAX).is_err());
    let rows = NumberedRows { chunk: b"none".to_vec(), numbers: vec![1, 2] };
    assert!(transaction.insert("t", decider, rows).is_err());
    transaction.undo().unwrap();
    transaction.commit(decider, false, 0).unwrap();
    assert!(transaction.commit(decider, false, 0).is_err());
    assert_eq!(query("SELECT count(*) AS n FROM t"), "n\n2\n");
}
