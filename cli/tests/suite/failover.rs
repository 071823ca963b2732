//! Leaves are killed and frozen under reads and writes: clients notice time, and nothing is lost or doubled.

use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::load::under_load;
use crate::nodes::{Cluster, Node, text};

#[test]
fn a_leaf_that_is_killed_costs_time_and_nothing_else() {
    let cluster = Cluster::start(2);
    cluster.wait_for_replicas(2);
    under_load(&|sql| cluster.ok(sql), || {
        for round in 0..4 {
            std::thread::sleep(Duration::from_millis(600));
            cluster.signal(1 + round % 2, "KILL");
            // Long enough for the other to take over, or not.
            std::thread::sleep(Duration::from_millis(if round < 2 { 2500 } else { 300 }));
            cluster.start_again();
            cluster.wait_for_replicas(2);
        }
    });
    // Nothing moved by itself; now it does.
    cluster.ok("REBALANCE PARTITIONS ON stoa");
    let partitions = cluster.ok("SHOW PARTITIONS");
    for node in [1, 2] {
        let port = cluster.address(node).rsplit(':').next().unwrap().to_owned();
        assert_eq!(partitions.matches(&format!("{port},Master")).count(), 1, "{partitions}");
    }
}

/// The end of a process takes nothing of what the operating system has.
#[test]
fn rows_that_last_later_survive_killed_leaves() {
    let cluster = Cluster::start(2);
    cluster.ok("CREATE DATABASE later PARTITIONS 2 REDUNDANCY 2 DURABILITY ASYNC");
    assert!(cluster.ok("SHOW DATABASES").contains("later,2,2,async\n"));
    let ok = |sql: &str| {
        let output = cluster.command(&["sql", "--format", "csv", "--database", "later", "-c", sql]).output().unwrap();
        assert!(output.status.success(), "{sql}: {}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    under_load(&ok, || {
        for leaf in [1, 2] {
            std::thread::sleep(Duration::from_millis(600));
            cluster.signal(leaf, "KILL");
            std::thread::sleep(Duration::from_millis(300));
            cluster.start_again();
            // All of both databases.
            let began = Instant::now();
            while ok("SHOW PARTITIONS ON later").matches(",Slave,").count() < 2 {
                assert!(began.elapsed() < Duration::from_secs(30), "{}", ok("SHOW PARTITIONS ON later; SHOW LEAVES"));
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    });
}

#[test]
fn of_two_leaves_that_die_at_once_either_serves_alone() {
    let cluster = Cluster::start(2);
    cluster.wait_for_replicas(2);
    cluster.ok("CREATE TABLE t (a BIGINT PRIMARY KEY); CREATE REFERENCE TABLE r (a BIGINT)");
    let mut rows = 0;
    let mut check = |why: &str| {
        let values: Vec<String> = (rows..rows + 20).map(|a| format!("({a})")).collect();
        cluster.ok(&format!("INSERT INTO t VALUES {}; INSERT INTO r VALUES ({rows})", values.join(", ")));
        rows += 20;
        let expected = format!("n,d,r\n{rows},{rows},{}\n", rows / 20);
        let said = cluster.ok("SELECT count(*) AS n, count(DISTINCT a) AS d, (SELECT count(*) FROM r) AS r FROM t");
        assert_eq!(said, expected, "{why}");
    };
    check("at first");
    let start = |leaf: usize| {
        let (data, log) = (cluster.path().join(format!("leaf{leaf}")), cluster.path().join(format!("again{leaf}.log")));
        Node::start(&cluster, &["leaf", "--data", data.to_str().unwrap(), "--listen", &cluster.address(leaf)], &log)
    };
    [1, 2].into_iter().for_each(|leaf| cluster.signal(leaf, "KILL"));
    for first in [1, 2] {
        let began = Instant::now();
        while cluster.ok("SHOW LEAVES").matches(",offline,").count() < 2 {
            assert!(began.elapsed() < Duration::from_secs(20), "leaves that died are not found out");
            std::thread::sleep(Duration::from_millis(50));
        }
        let alone = start(first);
        check(&format!("leaf {first} alone"));
        let other = start(3 - first);
        cluster.wait_for_replicas(2);
        check(&format!("after leaf {first} both"));
        drop((alone, other));
    }
}

#[test]
fn a_leaf_that_hangs_is_replaced_and_fenced() {
    let cluster = Cluster::start(2);
    cluster.wait_for_replicas(2);
    let began = Mutex::new(Duration::ZERO);
    under_load(&|sql| cluster.ok(sql), || {
        std::thread::sleep(Duration::from_millis(1500));
        cluster.signal(1, "STOP");
        let stopped = Instant::now();
        cluster.ok("SELECT count(*) FROM rows");
        *began.lock().unwrap() = stopped.elapsed();
        cluster.signal(1, "CONT");
        cluster.wait_for_replicas(2);
    });
    let took = began.into_inner().unwrap();
    assert!(took < Duration::from_secs(12), "the first answer came after {took:?}");
}

#[test]
fn tpch_is_right_while_its_leaves_are_killed() {
    let cluster = Cluster::start(4);
    let tpch = |runs: &str| {
        let mut command = cluster.command(&["tpch", "--scale", "0.1", "--runs", runs]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let right = |queries: Child| {
        let done = queries.wait_with_output().unwrap();
        assert!(done.status.success(), "{}", text(&done));
    };
    right(tpch("1"));
    for killed in 1..=4 {
        let mut queries = tpch("2");
        // In the middle of some query; those that wait for new masters run on.
        std::thread::sleep(Duration::from_millis(400));
        assert!(queries.try_wait().unwrap().is_none(), "nothing ran when leaf {killed} was killed");
        cluster.signal(killed, "KILL");
        std::thread::sleep(Duration::from_millis(1800));
        cluster.start_again();
        right(queries);
        cluster.wait_for_replicas(4);
    }
}

#[test]
fn leaves_are_upgraded_one_by_one_and_no_statement_fails() {
    let cluster = Cluster::start(2);
    cluster.wait_for_replicas(2);
    under_load(&|sql| cluster.ok(sql), || {
        for leaf in [1, 2] {
            let (address, pid) = (cluster.address(leaf), cluster.pid(leaf));
            cluster.ok(&format!("DETACH LEAF '{address}'"));
            assert!(!cluster.ok("SHOW PARTITIONS").contains(&format!("{},", address.rsplit(':').next().unwrap())));
            cluster.signal(leaf, "TERM");
            let running = || std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
            let began = Instant::now();
            while running() {
                assert!(began.elapsed() < Duration::from_secs(20), "leaf {leaf} does not end");
                std::thread::sleep(Duration::from_millis(20));
            }
            cluster.start_again();
            cluster.ok(&format!("ATTACH LEAF '{address}'"));
            cluster.wait_for_replicas(2);
        }
    });
    cluster.ok("REBALANCE PARTITIONS ON stoa");
}

/// A leaf that is no part of the cluster yet, with the folder and the log of this name.
fn new_leaf(cluster: &Cluster, name: &str) -> Node {
    let data = cluster.path().join(name);
    let args = ["leaf", "--data", data.to_str().unwrap(), "--listen", "127.0.0.1:0"];
    Node::start(cluster, &args, &cluster.path().join(format!("{name}.log")))
}

#[test]
fn copies_move_while_clients_read_and_write() {
    let cluster = Cluster::start(2);
    cluster.wait_for_replicas(2);
    let (leaf, other) = (new_leaf(&cluster, "third"), new_leaf(&cluster, "fourth"));
    let (first, second) = (cluster.address(1), cluster.address(2));
    under_load(&|sql| cluster.ok(sql), || {
        cluster.ok(&format!("ADD LEAF '{}'; ADD LEAF '{}'", leaf.address, other.address));
        let planned = cluster.ok("EXPLAIN REBALANCE PARTITIONS ON stoa");
        assert!(planned.contains("COPY PARTITION"), "{planned}");
        cluster.ok("REBALANCE PARTITIONS ON stoa");
        assert_eq!(cluster.ok("EXPLAIN REBALANCE PARTITIONS ON stoa").lines().count(), 1);
        // The first two are emptied and go.
        cluster.ok(&format!("REMOVE LEAF '{first}'"));
        cluster.ok(&format!("DETACH LEAF '{second}'; ATTACH LEAF '{second}'"));
        assert!(!cluster.ok("SHOW PARTITIONS").contains(first.rsplit(':').next().unwrap()));
    });
    cluster.wait_for_replicas(2);
    assert_eq!(cluster.ok("CLEAR ORPHAN DATABASES").lines().count(), 1);
}

#[test]
fn copies_are_made_no_faster_than_leaves_may() {
    const RATE: u64 = 500_000;
    let cluster = Cluster::start_with(1, 2, &[("STOA_COPY_RATE", &RATE.to_string())]);
    cluster.ok("CREATE TABLE t (a BIGINT PRIMARY KEY, b TEXT)");
    // Text that does not compress: digits of a generator (xorshift).
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut word = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let rows = cluster.path().join("rows.csv");
    let line = |a: usize| format!("{a},{}\n", (0..8).map(|_| format!("{:016x}", word())).collect::<String>());
    std::fs::write(&rows, (0..60_000).map(line).collect::<String>()).unwrap();
    let loaded = cluster.command(&["load", "t", rows.to_str().unwrap()]).output().unwrap();
    assert!(loaded.status.success(), "{}", text(&loaded));
    let (third, fourth) = (new_leaf(&cluster, "third"), new_leaf(&cluster, "fourth"));
    cluster.ok(&format!("ADD LEAF '{}'; ADD LEAF '{}'", third.address, fourth.address));
    let planned = cluster.ok("EXPLAIN REBALANCE PARTITIONS ON stoa");
    let column = planned.lines().next().unwrap().split(',').position(|name| name == "Bytes").unwrap();
    let bytes = |line: &str| line.split(',').nth(column).and_then(|bytes| bytes.parse::<u64>().ok());
    let bytes: u64 = planned.lines().skip(1).filter_map(bytes).sum();
    let began = Instant::now();
    cluster.ok("REBALANCE PARTITIONS ON stoa");
    // Two leaves send at most, and each may begin with a second's worth.
    let least = (bytes as f64 / RATE as f64 - 2.0) / 2.0;
    let took = began.elapsed().as_secs_f64();
    assert!(bytes > 4 * RATE && took >= least, "{bytes} bytes took {took} s, at least {least} s");
    assert_eq!(cluster.ok("SELECT count(*) AS n FROM t"), "n\n60000\n");
}
