//! Leaves that die or hang while statements run: clients see time, not errors, and every change is made once.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use stoa_client::{Cancelled, Client, FailureKind, Login, Parameter, Security};
use stoa_rpc::session::{Answer, AnswerPart, SessionService};
use stoa_rpc::{Io, SessionClient};

use crate::nodes::{Cluster, kill_rounds};

const ROWS: i64 = 1000;
const JOIN: &str = "SELECT count(*), sum(y.b) FROM t x JOIN u y ON x.b = y.a";
/// What [`JOIN`] gives: row `a` of `t` has `b = a % 10`, row `a` of `u` has `b = 2 * a`.
const JOINED: [i64; 2] = [ROWS, 9 * ROWS];

fn run(client: &Client, sql: &str) -> Result<(), stoa_client::Failure> {
    client.execute(sql, &Cancelled::default(), &mut |_| Ok(()))
}

/// Takes what statements give.
struct Ignored;

impl Answer for Ignored {
    fn part(&mut self, _: AnswerPart) -> Result<(), stoa_client::Failure> {
        Ok(())
    }
}

/// The integers of the first row.
fn numbers(batches: &[RecordBatch]) -> Vec<i64> {
    let first = batches.iter().find(|batch| batch.num_rows() > 0).unwrap();
    let bigint = |column| arrow::compute::cast(column, &arrow::datatypes::DataType::Int64).unwrap();
    first.columns().iter().map(|column| bigint(column).as_primitive::<Int64Type>().value(0)).collect()
}

fn ask(client: &Client, sql: &str) -> Vec<i64> {
    numbers(&client.query(sql).unwrap_or_else(|failure| panic!("{sql}: {failure}")).batches)
}

/// A cluster of two leaves with rows in two tables.
fn cluster_with_rows(variables: &[(&str, &str)]) -> Cluster {
    let cluster = Cluster::start_with(1, 2, variables);
    let rows = |row: &dyn Fn(i64) -> (i64, i64), all| (0..all).map(|a| format!("{:?}", row(a))).collect::<Vec<_>>().join(", ");
    cluster.ok(&format!(
        "CREATE TABLE t (a BIGINT NOT NULL, b BIGINT NOT NULL, SHARD KEY (a)); INSERT INTO t VALUES {}; \
         CREATE TABLE u (a BIGINT NOT NULL, b BIGINT NOT NULL, SHARD KEY (b)); INSERT INTO u VALUES {}",
        rows(&|a| (a, a % 10), ROWS),
        rows(&|a| (a, 2 * a), 10)
    ));
    cluster
}

/// Kills the leaves one after the other and starts them again, while others work until they are told to end.
fn kill_leaves(cluster: &Cluster, rounds: u64, ended: &AtomicBool) {
    for round in 0..kill_rounds(rounds as usize) as u64 {
        // Somewhere in the middle of some statements.
        std::thread::sleep(Duration::from_millis(500 + round % 10 * 97));
        cluster.signal(1 + round as usize % 2, "KILL");
        std::thread::sleep(Duration::from_millis(100 * (round % 10)));
        cluster.start_again();
    }
    std::thread::sleep(Duration::from_millis(500));
    ended.store(true, Ordering::Relaxed);
}

#[test]
fn queries_outlive_the_leaves_under_them() {
    let cluster = cluster_with_rows(&[]);
    let (ended, answers) = (AtomicBool::new(false), AtomicI64::new(0));
    std::thread::scope(|scope| {
        for which in 0..3i64 {
            let (cluster, ended, answers) = (&cluster, &ended, &answers);
            scope.spawn(move || {
                let client = cluster.client();
                let prepared = client.prepare("SELECT count(*), min(b) FROM t WHERE a < ? AND b >= 0").unwrap();
                for round in 0.. {
                    match which {
                        0 => assert_eq!(ask(&client, JOIN), JOINED),
                        // One that is planned anew each time.
                        1 => {
                            assert_eq!(ask(&client, &format!("SELECT sum(a) + {round} FROM t")), [ROWS * (ROWS - 1) / 2 + round]);
                        }
                        _ => {
                            let rows = prepared.query(&[Parameter::Int(round % ROWS + 1)]);
                            assert_eq!(numbers(&rows.unwrap().batches), [round % ROWS + 1, 0]);
                            run(&client, "EXPLAIN ANALYZE SELECT max(a) FROM t").unwrap();
                        }
                    }
                    // However slow the machine is.
                    if answers.fetch_add(1, Ordering::Relaxed) > 20 && ended.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
        }
        kill_leaves(&cluster, 4, &ended);
    });
}

#[test]
fn changes_are_made_once_whatever_dies() {
    let cluster = Cluster::start(2);
    cluster.ok("CREATE TABLE one (a BIGINT NOT NULL, SHARD KEY (a)); CREATE TABLE several (a BIGINT NOT NULL, SHARD KEY (a)); \
                CREATE TABLE keyed (a BIGINT PRIMARY KEY, n BIGINT NOT NULL); INSERT INTO keyed VALUES (1, 0), (2, 0), (3, 0)");
    let ended = AtomicBool::new(false);
    let done = [const { AtomicI64::new(0) }; 4];
    std::thread::scope(|scope| {
        for (which, done) in done.iter().enumerate() {
            let (cluster, ended) = (&cluster, &ended);
            scope.spawn(move || {
                let client = cluster.client();
                // However slow the machine is.
                while !ended.load(Ordering::Relaxed) || done.load(Ordering::Relaxed) <= 5 {
                    let n = done.load(Ordering::Relaxed);
                    let statement = match which {
                        0 => format!("INSERT INTO one VALUES ({n})"),
                        1 => format!("INSERT INTO several VALUES ({}), ({}), ({}), ({})", 4 * n, 4 * n + 1, 4 * n + 2, 4 * n + 3),
                        2 => "UPDATE keyed SET n = n + 1 WHERE a <= 2".into(),
                        _ => "INSERT INTO keyed VALUES (3, 0) ON DUPLICATE KEY UPDATE n = keyed.n + 1".into(),
                    };
                    run(&client, &statement).unwrap_or_else(|failure| panic!("{statement}: {failure}"));
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        kill_leaves(&cluster, 6, &ended);
    });
    let client = cluster.client();
    let done = done.map(|done| done.load(Ordering::Relaxed));
    assert!(done.iter().all(|done| *done > 5), "{done:?}");
    for (table, rows) in [("one", done[0]), ("several", 4 * done[1])] {
        assert_eq!(ask(&client, &format!("SELECT count(*), count(DISTINCT a), max(a) FROM {table}")), [rows, rows, rows - 1]);
    }
    for (key, times) in [(1, done[2]), (2, done[2]), (3, done[3])] {
        assert_eq!(ask(&client, &format!("SELECT n FROM keyed WHERE a = {key}")), [times]);
    }
}

#[test]
fn queries_outlive_a_leaf_that_hangs() {
    let cluster = cluster_with_rows(&[("STOA_LEAF_SILENCE", "1"), ("STOA_FAILOVER_SILENT", "60")]);
    let client = cluster.client();
    assert_eq!(ask(&client, JOIN), JOINED);
    cluster.signal(2, "STOP");
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| (ask(&client, JOIN), Instant::now()));
        let other =
            scope.spawn(|| run(&cluster.client(), "INSERT INTO t VALUES (-1, -1), (-2, -1), (-3, -1), (-4, -1), (-5, -1)"));
        std::thread::sleep(Duration::from_secs(3));
        let woken = Instant::now();
        cluster.signal(2, "CONT");
        let (answer, at) = asked.join().unwrap();
        assert_eq!(answer, JOINED);
        assert!(at >= woken);
        other.join().unwrap().unwrap();
    });
    assert_eq!(ask(&client, "SELECT count(*) FROM t WHERE b = -1"), [5]);
}

#[test]
fn a_transaction_is_lost_with_its_leaf_and_says_so() {
    let cluster = cluster_with_rows(&[]);
    let client = cluster.client();
    // A client of another kind, which stays in its session whatever happens.
    let (addresses, security) = ([cluster.address(0)], Security::new(cluster.secret()));
    let session = SessionClient::connect(&Io::start("test-io").unwrap(), &addresses, &security, &Login::default()).unwrap();
    let run = |sql: &str| session.execute(sql, &mut Ignored, &Cancelled::default());
    let lost = "the transaction was rolled back: run the transaction again";
    let fails = |sql: &str, what: &str| {
        let failure = run(sql).unwrap_err();
        assert!(failure.kind == FailureKind::Retryable && failure.message.contains(what), "{sql}: {failure:?}");
    };
    let restart = || {
        cluster.signal(2, "KILL");
        cluster.start_again();
    };
    let insert = "INSERT INTO t VALUES (-1, -1), (-2, -1), (-3, -1), (-4, -1), (-5, -1), (-6, -1)";
    for next in [insert, JOIN, "COMMIT"] {
        run(&format!("BEGIN; {insert}")).unwrap();
        restart();
        fails(next, lost);
        if next != "COMMIT" {
            // Nothing runs by itself that was meant to be a part of it.
            fails(insert, lost);
            fails("COMMIT", lost);
        }
        assert_eq!(ask(&client, "SELECT count(*) FROM t WHERE b = -1"), [0]);
    }
    // One that has seen nothing begins anew.
    run("BEGIN").unwrap();
    restart();
    run(JOIN).unwrap();
    run(&format!("{insert}; COMMIT")).unwrap();
    assert_eq!(ask(&client, "SELECT count(*) FROM t WHERE b = -1"), [6]);
}

#[test]
fn who_waits_for_nothing_is_told_at_once_what_is_away() {
    // No replica takes over meanwhile.
    let cluster =
        cluster_with_rows(&[("STOA_RETRY_SECONDS", "0"), ("STOA_FAILOVER_REFUSED", "60"), ("STOA_FAILOVER_SILENT", "60")]);
    let (client, leaf) = (cluster.client(), cluster.address(2));
    cluster.signal(2, "KILL");
    for sql in [JOIN, "INSERT INTO t VALUES (-1, -1), (-2, -1), (-3, -1), (-4, -1), (-5, -1), (-6, -1)"] {
        let failure = run(&client, sql).unwrap_err();
        assert!(failure.kind == FailureKind::Retryable && failure.message.contains(&leaf), "{sql}: {failure:?}");
    }
    cluster.start_again();
    // Nothing of what failed is there, once the leaf has its part again.
    let began = Instant::now();
    while run(&client, "SELECT count(*) FROM t WHERE b = -1").is_err() {
        assert!(began.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(ask(&client, "SELECT count(*) FROM t WHERE b = -1"), [0]);
}
