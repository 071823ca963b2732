//! Large results: they reach the client while the query runs, and who reads slowly costs the nodes no memory.

use std::fs;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use stoa_client::{Cancelled, Client, Failure, FailureKind, Part};
use stoa_columnstore::Options;
use stoa_exec::{CancelToken, Progress, Settings};
use stoa_plan::codec::encode;
use stoa_plan::{ColumnId, DataType, Field, Node, Plan, Query, Scan, ScanColumn};
use stoa_rpc::leaf::{FragmentRequest, LeafService, QuerySetup, RowDestination};

use crate::leaves::Leaves;
use crate::nodes::Cluster;

/// 320 MB.
const LARGE: &str = "SELECT x.a, y.a AS b FROM t x, few y";
const LARGE_ROWS: u64 = 20_000_000;

/// A cluster with a table of 200,000 rows and one of 100.
fn cluster(variables: &[(&str, &str)]) -> Cluster {
    let cluster = Cluster::start_with(1, 2, variables);
    let values: Vec<String> = (0..100).map(|i| format!("({i})")).collect();
    cluster.ok(&format!("CREATE TABLE few (a BIGINT); INSERT INTO few VALUES {}", values.join(", ")));
    let t = "SELECT x.a * 10000 + y.a * 100 + z.a FROM few x, few y, few z WHERE x.a < 20";
    cluster.ok(&format!("CREATE TABLE t (a BIGINT, SHARD KEY (a)); INSERT INTO t {t}"));
    cluster
}

/// Megabytes that a process has in memory.
fn resident(pid: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// The number of the statement that reads `t` with another table.
fn running(cluster: &Cluster) -> Option<String> {
    let list = cluster.ok("SHOW PROCESSLIST");
    let line = list.lines().find(|line| line.contains("FROM t x"));
    line.and_then(|line| line.split(',').next()).map(str::to_owned)
}

/// Asks for rows; before each part of them is read `each` is called with the rows so far.
fn read(client: &Client, sql: &str, each: &mut dyn FnMut(u64) -> Result<(), Failure>) -> (u64, Result<(), Failure>) {
    let mut rows = 0;
    let ran = client.stream(sql, &Cancelled::default(), &mut |part| {
        if let Part::Rows(batches) = part {
            each(rows)?;
            rows += batches.iter().map(|batch| batch.num_rows() as u64).sum::<u64>();
        }
        Ok(())
    });
    (rows, ran)
}

fn enough() -> Failure {
    Failure::new(FailureKind::User, "enough")
}

#[test]
fn a_client_that_does_not_read_costs_no_memory_and_no_place() {
    let cluster = cluster(&[("STOA_QUERIES", "1"), ("STOA_QUEUE_TIMEOUT", "2")]);
    let pids: Vec<String> = (0..3).map(|node| cluster.pid(node)).collect();
    let all = || -> Vec<u64> { pids.iter().map(|pid| resident(pid)).collect() };
    let client = cluster.client();
    let (before, mut held) = (all(), vec![]);
    let (rows, ran) = read(&client, LARGE, &mut |_| {
        std::thread::sleep(Duration::from_secs(2));
        held.push(all());
        std::thread::sleep(Duration::from_secs(2));
        held.push(all());
        // It is not among those that run: others are let in.
        assert_eq!(cluster.ok("SELECT count(*) AS n FROM t").lines().last(), Some("200000"));
        Err(enough())
    });
    assert!(ran.is_err_and(|why| why.message.contains("enough")) && rows < LARGE_ROWS / 2, "{rows} rows");
    // A debug build, and what a query takes to begin with: the result is 320 MB.
    for held in &held {
        let grown: Vec<u64> = held.iter().zip(&before).map(|(now, before)| now.saturating_sub(*before)).collect();
        assert!(grown.iter().all(|grown| *grown < 150), "megabytes more than before on each node: {grown:?}");
    }
    let later: Vec<i64> = held[1].iter().zip(&held[0]).map(|(now, before)| *now as i64 - *before as i64).collect();
    // A leaf may still be at its first round then: some 30 MB.
    assert!(later.iter().all(|grown| *grown < 64), "megabytes more two seconds later: {later:?}");
    let asked = Instant::now();
    while running(&cluster).is_some() {
        assert!(asked.elapsed() < Duration::from_secs(60), "the coordinator goes on");
    }
}

/// The statement of a client that reads no more ends when it is killed, on all nodes.
#[test]
fn what_waits_for_its_client_can_be_killed() {
    let cluster = cluster(&[]);
    let client = cluster.client();
    let (waits, waiting) = mpsc::channel();
    let (goes_on, go_on) = mpsc::channel();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            read(&client, LARGE, &mut move |rows| {
                if rows == 0 {
                    waits.send(()).unwrap();
                    go_on.recv_timeout(Duration::from_secs(60)).unwrap();
                }
                Ok(())
            })
        });
        waiting.recv_timeout(Duration::from_secs(60)).unwrap();
        std::thread::sleep(Duration::from_millis(500));
        let number = running(&cluster).expect("the statement waits for its client");
        let killed = Instant::now();
        cluster.ok(&format!("KILL QUERY {number}"));
        while running(&cluster).is_some() {
            assert!(killed.elapsed() < Duration::from_secs(60), "it still waits");
        }
        goes_on.send(()).unwrap();
        let (rows, ran) = reader.join().unwrap();
        assert!(ran.is_err_and(|why| why.kind == FailureKind::Cancelled) && rows < LARGE_ROWS / 2, "{rows} rows");
    });
}

/// Rows that were delivered are not delivered again: the error says so, and that the statement may be run again.
#[test]
fn a_leaf_that_dies_after_rows_came_is_no_secret() {
    let cluster = cluster(&[]);
    cluster.wait_for_replicas(cluster.ok("SHOW PARTITIONS").lines().filter(|line| line.contains("Master")).count());
    let client = cluster.client();
    let mut killed = false;
    let (rows, ran) = read(&client, LARGE, &mut |_| {
        if !std::mem::replace(&mut killed, true) {
            cluster.signal(1, "KILL");
        }
        Ok(())
    });
    let why = ran.expect_err("a leaf is gone");
    assert!(why.kind == FailureKind::Retryable && why.message.contains("were delivered"), "{rows} rows: {why}");
    assert!(rows < LARGE_ROWS);
    // Run again it finds the replicas; a result that was held back is run again without a word.
    let (rows, ran) = read(&client, "SELECT a, a AS b FROM t WHERE a < 10000", &mut |_| Ok(()));
    ran.unwrap();
    assert_eq!(rows, 10_000);
}

#[test]
fn rows_come_in_order_and_a_limit_ends_the_leaves() {
    let cluster = cluster(&[]);
    let client = cluster.client();
    let mut last = (i64::MIN, i64::MAX);
    let mut rows = 0;
    let sorted = "SELECT x.a, y.a AS b FROM t x, few y WHERE x.a < 5000 ORDER BY x.a, y.a DESC";
    let in_order = |batches: &[RecordBatch], last: &mut (i64, i64)| {
        for batch in batches {
            let [a, b] = [0, 1].map(|i| batch.column(i).as_primitive::<Int64Type>());
            for (a, b) in a.values().iter().zip(b.values()) {
                assert!((*a, -*b) > (last.0, -last.1), "({a}, {b}) after {last:?}");
                *last = (*a, *b);
            }
        }
    };
    client
        .stream(sorted, &Cancelled::default(), &mut |part| {
            if let Part::Rows(batches) = part {
                in_order(&batches, &mut last);
                rows += batches.iter().map(RecordBatch::num_rows).sum::<usize>();
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(rows, 500_000);
    let began = Instant::now();
    let (rows, ran) = read(&client, &format!("{LARGE} LIMIT 200000 OFFSET 10"), &mut |_| Ok(()));
    ran.unwrap();
    assert_eq!(rows, 200_000);
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    // Rows are printed as they come: who reads no more ends the statement.
    let mut child =
        cluster.command(&["sql", "--format", "csv", "-c", LARGE]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut first = [0; 100_000];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut first).unwrap();
    assert!(first.starts_with(b"a,b\n"));
    drop(child.stdout.take());
    let asked = Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(asked.elapsed() < Duration::from_secs(60), "the client goes on");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A leaf that sends rows to another holds a few of them at a time.
#[test]
fn a_leaf_sends_more_rows_than_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { fsync: false, ..Options::default() };
    let cluster = Leaves::start(folder.path(), 2, 1, &Settings::default(), &options);
    let (cancel, progress) = (CancelToken::default(), Progress::default());
    let made = cluster.session.run("CREATE TABLE t (a BIGINT NOT NULL)", &cancel, &progress, &mut |_| Ok(()));
    made.map_err(|error: stoa_coordinator::Error| error.to_string()).unwrap();
    let mut rows = cluster.session.store().rows("t").unwrap();
    const PUSHED: i64 = 1_000_000;
    for first in 0..8 {
        let values = Int64Array::from_iter_values(first * PUSHED..(first + 1) * PUSHED);
        rows.push(&RecordBatch::try_from_iter([("a", Arc::new(values) as _)]).unwrap()).unwrap();
    }
    assert_eq!(rows.finish().unwrap(), 8_000_000);
    let has_rows = |(_, leaf): &&(String, Arc<stoa_leaf::Leaf>)| leaf.status().unwrap().iter().any(|d| !d.ordinals.is_empty());
    let (from, to) = (cluster.nodes.iter().find(has_rows).unwrap(), cluster.nodes.iter().find(|n| !has_rows(n)).unwrap());
    let field = Field { id: ColumnId(0), name: "a".into(), ty: DataType::Int64, nullable: false };
    let scan = Scan {
        table: "t".into(),
        columns: vec![ScanColumn { ordinal: 0, field: field.clone() }],
        filters: vec![],
        filter_columns: vec![],
        runtime_filters: vec![],
        reference: false,
        shard_key: vec![],
        revision: 0,
    };
    let mut query = Query { subplans: vec![], root: Plan::new(Node::Scan(scan)), output: vec![field] };
    query.number();
    let plan = encode(&query).unwrap();
    let addresses = vec![to.0.clone()];
    let copies = RowDestination::Leaves { number: 1, addresses: addresses.clone() };
    let shuffled = RowDestination::Shuffle { number: 1, keys: vec![0], addresses, owners: vec![0] };
    for (number, destination) in [(71, copies), (72, shuffled)] {
        let setup = |address: &str, ordinals| QuerySetup {
            query: number,
            database: "stoa".into(),
            address: address.into(),
            ordinals,
            moment: 0,
        };
        let receives = to.1.begin(setup(&to.0, vec![])).unwrap();
        let sends = from.1.begin(setup(&from.0, vec![0])).unwrap();
        let request = FragmentRequest { plan: plan.clone(), destination, filters: vec![] };
        let ran = sends.run(request, &mut Vec::new()).unwrap();
        assert!(ran.sent_bytes > 64_000_000, "{} bytes were sent", ran.sent_bytes);
        assert!(ran.peak_memory < 24 << 20, "{} bytes were held", ran.peak_memory);
        drop(receives);
    }
}
