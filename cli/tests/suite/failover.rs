//! Leaves are killed and frozen under reads and writes: clients notice time, and nothing is lost or doubled.

use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::load::under_load;
use crate::nodes::{Cluster, text};

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

#[test]
fn a_leaf_that_hangs_is_replaced_and_fenced() {
    let cluster = Cluster::start(2);
    cluster.wait_for_replicas(2);
    let began = Mutex::new(Duration::ZERO);
    under_load(&|sql| cluster.ok(sql), || {
        std::thread::sleep(Duration::from_millis(500));
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
fn copies_move_while_clients_read_and_write() {
    let cluster = Cluster::start(2);
    cluster.wait_for_replicas(2);
    let leaf = crate::nodes::Node::start(
        &cluster,
        &["leaf", "--data", cluster.path().join("third").to_str().unwrap(), "--listen", "127.0.0.1:0"],
        &cluster.path().join("third.log"),
    );
    let other = crate::nodes::Node::start(
        &cluster,
        &["leaf", "--data", cluster.path().join("fourth").to_str().unwrap(), "--listen", "127.0.0.1:0"],
        &cluster.path().join("fourth.log"),
    );
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
