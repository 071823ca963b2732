//! Leaves are killed and frozen under reads and writes: clients notice time, and nothing is lost or doubled.

use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::load::under_load;
use crate::nodes::{Cluster, Node, kill_rounds, text};

#[test]
fn a_leaf_that_is_killed_costs_time_and_nothing_else() {
    let cluster = Cluster::start(2);
    cluster.wait_for_replicas(2);
    under_load(&|sql| cluster.ok(sql), || {
        for round in 0..kill_rounds(4) {
            std::thread::sleep(Duration::from_millis(600));
            cluster.signal(1 + round % 2, "KILL");
            // Long enough for the other to take over, or not.
            std::thread::sleep(Duration::from_millis(if round % 4 < 2 { 2500 } else { 300 }));
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
                assert!(began.elapsed() < Duration::from_secs(60), "{}", ok("SHOW PARTITIONS ON later; SHOW LEAVES"));
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
    // The one that lived a moment longer would take the other's copies out.
    cluster.signal_all(&[1, 2], "KILL");
    for first in [1, 2] {
        let began = Instant::now();
        while cluster.ok("SHOW LEAVES").matches(",offline,").count() < 2 {
            assert!(began.elapsed() < Duration::from_secs(60), "leaves that died are not found out");
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

/// Ends a node as an operator does, and starts it again.
fn restart(cluster: &Cluster, node: usize) {
    let pid = cluster.pid(node);
    cluster.signal(node, "TERM");
    let running = || std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    let began = Instant::now();
    while running() {
        assert!(began.elapsed() < Duration::from_secs(60), "node {node} does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
    cluster.start_again();
}

#[test]
fn a_cluster_is_upgraded_node_by_node_and_no_statement_fails() {
    let cluster = Cluster::with(3, 2);
    let coordinators = (0..3).map(|node| cluster.address(node)).collect::<Vec<_>>().join(",");
    let ok = |sql: &str| {
        let output = cluster.command_at(&coordinators, &["sql", "--format", "csv", "-c", sql]).output().unwrap();
        assert!(output.status.success(), "{sql}: {}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let wait_for = |sql: &str, what: &str, times: usize| {
        let began = Instant::now();
        while ok(sql).matches(what).count() < times {
            assert!(began.elapsed() < Duration::from_secs(60), "{}", ok(sql));
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    wait_for("SHOW PARTITIONS", ",Slave,", 2);
    under_load(&ok, || {
        for leaf in [3, 4] {
            let address = cluster.address(leaf);
            ok(&format!("DETACH LEAF '{address}'"));
            assert!(!ok("SHOW PARTITIONS").contains(&format!("{},", address.rsplit(':').next().unwrap())));
            restart(&cluster, leaf);
            ok(&format!("ATTACH LEAF '{address}'"));
            wait_for("SHOW PARTITIONS", ",Slave,", 2);
        }
        for coordinator in 0..3 {
            restart(&cluster, coordinator);
            wait_for("SHOW AGGREGATORS", ",online,", 3);
        }
    });
    ok("REBALANCE PARTITIONS ON stoa");
}
