//! Coordinators that die or hang while clients write through them: autocommitted statements succeed, transactions succeed or say that
//! nothing of them was done, and every change is made once.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use stoa_client::{Cancelled, Client, Failure, FailureKind, Parameter};

use crate::garbled_answers::Proxy;
use crate::nodes::{Cluster, kill_rounds};

fn run(client: &Client, sql: &str) -> Result<(), Failure> {
    client.execute(sql, &Cancelled::default(), &mut |_| Ok(()))
}

/// The integers that a query gives, in its order.
fn ask(client: &Client, sql: &str) -> Vec<i64> {
    let rows = client.query(sql).unwrap_or_else(|failure| panic!("{sql}: {failure}"));
    let bigint = |column| arrow::compute::cast(column, &arrow::datatypes::DataType::Int64).unwrap();
    let columns = rows.batches.iter().flat_map(RecordBatch::columns);
    columns.flat_map(|column| bigint(column).as_primitive::<Int64Type>().values().to_vec()).collect()
}

/// The coordinators, beginning with one of them.
fn from(cluster: &Cluster, first: usize) -> Vec<String> {
    (0..3).map(|n| cluster.address((first + n) % 3)).collect()
}

const TABLES: &str = "CREATE TABLE one (a BIGINT NOT NULL, SHARD KEY (a)); CREATE TABLE several (a BIGINT NOT NULL, SHARD KEY (a)); \
                      CREATE TABLE keyed (a BIGINT PRIMARY KEY, n BIGINT NOT NULL); INSERT INTO keyed VALUES (1, 0), (2, 0), (3, 0); \
                      CREATE TABLE moved (a BIGINT NOT NULL, SHARD KEY (a)); CREATE TABLE loaded (a BIGINT NOT NULL, SHARD KEY (a))";

/// What a writer does the nth time, in one table: `Err` if nothing of it was done.
type Write = fn(&Client, i64) -> Result<(), Failure>;

/// Each with the table that it adds the rows 0, 1, 2... to, and how many a time.
const WRITES: [(Write, &str, i64); 6] = [
    (|client, n| run(client, &format!("INSERT INTO one VALUES ({n})")), "one", 1),
    (|client, n| run(client, &format!("INSERT INTO several VALUES ({}), ({}), ({})", 3 * n, 3 * n + 1, 3 * n + 2)), "several", 3),
    (|client, _| run(client, "UPDATE keyed SET n = n + 1 WHERE a <= 2"), "", 0),
    (
        |client, n| {
            let statements = ["BEGIN".into(), format!("INSERT INTO moved VALUES ({}), ({})", 2 * n, 2 * n + 1), "COMMIT".into()];
            statements.iter().try_for_each(|sql| run(client, sql))
        },
        "moved",
        2,
    ),
    (|client, _| run(client, "BEGIN; UPDATE keyed SET n = n + 1 WHERE a = 3; COMMIT"), "", 0),
    (
        |client, n| {
            let mut load = client.load("loaded")?;
            let rows = Arc::new(Int64Array::from_iter_values(4 * n..4 * n + 4)) as ArrayRef;
            load.push(&RecordBatch::try_from_iter([("a", rows)]).unwrap())?;
            load.finish().map(|rows| assert_eq!(rows, 4))
        },
        "loaded",
        4,
    ),
];
/// Those of [`WRITES`] that are no single statement may fail, if nothing of them was done: the last transaction may be in doubt yet, which
/// is a conflict.
const AGAIN: [usize; 3] = [3, 4, 5];

/// Has a client write until it is told to end, and a few times at least; how often.
fn write(client: &Client, which: usize, ended: &AtomicBool) -> i64 {
    let mut done = 0;
    while !ended.load(Ordering::Relaxed) || done <= 5 {
        match WRITES[which].0(client, done) {
            Ok(()) => done += 1,
            Err(failure) if AGAIN.contains(&which) => {
                let kinds = [FailureKind::Retryable, FailureKind::Conflict];
                let wrong = ["not known", "after parts"].iter().any(|what| failure.message.contains(what));
                assert!(kinds.contains(&failure.kind) && !wrong, "{which}: {failure:?}");
                // Ends what is left of it for the client.
                run(client, "ROLLBACK").unwrap();
            }
            Err(failure) => panic!("{which}: {failure:?}"),
        }
    }
    done
}

/// Everything that was written so often is there, once.
fn check(client: &Client, done: &[i64]) {
    for ((_, table, rows), done) in WRITES.iter().zip(done).filter(|((_, table, _), _)| !table.is_empty()) {
        let there = ask(client, &format!("SELECT a FROM {table} ORDER BY a"));
        let expected: Vec<i64> = (0..rows * done).collect();
        assert_eq!(there, expected, "{table}");
    }
    assert_eq!(ask(client, "SELECT n FROM keyed ORDER BY a"), [done[2], done[2], done[4]]);
}

#[test]
fn no_statement_fails_and_none_is_done_twice_when_coordinators_are_killed() {
    let cluster = Cluster::with(3, 2);
    cluster.wait_for_replicas(2);
    cluster.ok(TABLES);
    let (ended, reads) = (AtomicBool::new(false), AtomicI64::new(0));
    let done = std::thread::scope(|scope| {
        let (cluster, ended, reads) = (&cluster, &ended, &reads);
        let write = |which| scope.spawn(move || write(&cluster.client_at(from(cluster, which)), which, ended));
        let writers: Vec<_> = (0..WRITES.len()).map(write).collect();
        scope.spawn(move || {
            let client = cluster.client_at(from(cluster, 1));
            let prepared = client.prepare("SELECT count(*), sum(a) FROM one WHERE a >= ?").unwrap();
            let mut seen = 0;
            while !ended.load(Ordering::Relaxed) || reads.load(Ordering::Relaxed) <= 5 {
                let now = ask(&client, "SELECT count(*) FROM one")[0];
                assert!(now >= seen, "{now} rows after {seen}");
                seen = now;
                prepared.query(&[Parameter::Int(0)]).unwrap();
                reads.fetch_add(1, Ordering::Relaxed);
            }
        });
        for round in 0..kill_rounds(6) {
            // Somewhere in the middle of some statements.
            std::thread::sleep(Duration::from_millis(400 + round as u64 % 10 * 97));
            cluster.signal(round % 3, "KILL");
            std::thread::sleep(Duration::from_millis(200));
            cluster.start_again();
            let began = Instant::now();
            while !cluster.sql("SHOW AGGREGATORS").stdout.windows(8).filter(|part| part == b",online,").count().eq(&3) {
                assert!(began.elapsed() < Duration::from_secs(60), "a coordinator does not come back");
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        ended.store(true, Ordering::Relaxed);
        writers.into_iter().map(|writer| writer.join().unwrap()).collect::<Vec<i64>>()
    });
    check(&cluster.client_at(from(&cluster, 0)), &done);
}

/// A coordinator stands still in the middle of commits and goes on when its clients have long gone on elsewhere.
#[test]
fn what_was_run_again_elsewhere_is_not_done_by_a_coordinator_that_comes_back() {
    let cluster = Cluster::with(3, 2);
    cluster.wait_for_replicas(2);
    cluster.ok(TABLES);
    let goal = Arc::new(Mutex::new(cluster.address(0)));
    let proxy = Proxy::start(goal.clone());
    let addresses = vec![proxy.to.clone(), cluster.address(1), cluster.address(2)];
    let mut all = vec![0; WRITES.len()];
    for round in 0..kill_rounds(8) as u64 {
        let ended = AtomicBool::new(false);
        // A client that goes on elsewhere stays there.
        let clients: Vec<Client> = (0..4).map(|_| cluster.client_at(addresses.clone())).collect();
        assert!(clients.iter().all(|client| client.address() == proxy.to));
        let done = std::thread::scope(|scope| {
            let writers = clients.iter().enumerate().map(|(which, client)| {
                let (ended, before) = (&ended, all[which]);
                scope.spawn(move || {
                    let mut done = before;
                    while !ended.load(Ordering::Relaxed) {
                        match WRITES[which].0(client, done) {
                            Ok(()) => done += 1,
                            Err(failure) => {
                                assert!(which == 3 && failure.kind == FailureKind::Retryable, "{which}: {failure:?}");
                                run(client, "ROLLBACK").unwrap();
                            }
                        }
                    }
                    done
                })
            });
            let writers: Vec<_> = writers.collect();
            std::thread::sleep(Duration::from_millis(200 + round * 13));
            cluster.signal(0, "STOP");
            // Nobody gets through to it any more.
            *goal.lock().unwrap() = "127.0.0.1:1".into();
            proxy.hang_up();
            std::thread::sleep(Duration::from_millis(400));
            cluster.signal(0, "CONT");
            std::thread::sleep(Duration::from_millis(200));
            ended.store(true, Ordering::Relaxed);
            writers.into_iter().map(|writer| writer.join().unwrap()).collect::<Vec<i64>>()
        });
        *goal.lock().unwrap() = cluster.address(0);
        all[..done.len()].copy_from_slice(&done);
        check(&cluster.client_at(addresses.clone()), &all);
    }
    assert!(all[..4].iter().all(|done| *done > 5), "{all:?}");
}

/// Who has a transaction open is told that it is gone, and nothing that was meant to be a part of it runs by itself.
#[test]
fn a_transaction_is_lost_with_its_coordinator_and_says_so() {
    let cluster = Cluster::with(3, 2);
    cluster.ok("CREATE TABLE t (a BIGINT NOT NULL, SHARD KEY (a))");
    let client = cluster.client_at(from(&cluster, 0));
    let lost = |sql: &str| {
        let failure = run(&client, sql).unwrap_err();
        let what = "the coordinator was lost, and the transaction was rolled back: run the transaction again";
        assert!(failure.kind == FailureKind::Retryable && failure.message.contains(what), "{sql}: {failure:?}");
    };
    for (killed, last) in [(0, "COMMIT"), (1, "ROLLBACK")] {
        run(&client, "BEGIN").unwrap();
        run(&client, "INSERT INTO t VALUES (1), (2), (3), (4)").unwrap();
        cluster.signal(killed, "KILL");
        lost("INSERT INTO t VALUES (5)");
        lost("SELECT count(*) FROM t");
        if last == "COMMIT" {
            lost(last);
        } else {
            run(&client, last).unwrap();
        }
        assert_eq!(ask(&client, "SELECT count(*) FROM t"), [0], "{last}");
        cluster.start_again();
    }
    run(&client, "BEGIN; INSERT INTO t VALUES (1), (2), (3), (4); COMMIT").unwrap();
    assert_eq!(ask(&client, "SELECT count(*) FROM t"), [4]);
}
