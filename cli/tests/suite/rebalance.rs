//! REBALANCE PARTITIONS on its way: under reads and writes, at a rate, seen, left by its leader, cancelled.

use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::coordinators::leader;
use crate::load::under_load;
use crate::nodes::{Cluster, Node, text};

/// Bytes a second that leaves send where copies are to take some seconds.
const SLOW: (&str, &str) = ("STOA_COPY_RATE", "300000");
const EXPLAINED: &str = "Action,Ordinal,Target_Host,Target_Port,Phase,Estimated_Time_Remaining_Ms,Bytes";
const SHOWN: &str = "Action,Ordinal,Target_Host,Target_Port,Phase,Status,Running_Time,Estimated_Time_Remaining_Ms,Bytes_Copied,\
                     Bytes_To_Copy,Reason";

/// A row by the names of its columns.
pub type Row = BTreeMap<String, String>;

/// The rows of an answer in CSV. Only the last column may have commas or be in quotes.
fn rows(csv: &str) -> Vec<Row> {
    let mut lines = csv.lines();
    let names: Vec<&str> = lines.next().unwrap().split(',').collect();
    let row = |line: &str| {
        let values = line.splitn(names.len(), ',').map(|value| value.trim_matches('"').to_owned());
        names.iter().map(|name| (*name).to_owned()).zip(values).collect()
    };
    lines.map(row).collect()
}

/// Fills a new table `t` with rows of text that does not compress.
pub fn load_rows(cluster: &Cluster, count: usize) {
    cluster.ok("CREATE TABLE t (a BIGINT PRIMARY KEY, b TEXT)");
    // Digits of a generator (xorshift).
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut word = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let path = cluster.path().join("rows.csv");
    let line = |a: usize| format!("{a},{}\n", (0..8).map(|_| format!("{:016x}", word())).collect::<String>());
    std::fs::write(&path, (0..count).map(line).collect::<String>()).unwrap();
    let loaded = cluster.command(&["load", "t", path.to_str().unwrap()]).output().unwrap();
    assert!(loaded.status.success(), "{}", text(&loaded));
}

/// A statement that runs beside the test, through a coordinator.
pub fn begin(cluster: &Cluster, coordinator: &str, sql: &str) -> Child {
    let mut command = cluster.command_at(coordinator, &["sql", "-c", sql]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until a step of the rebalance of `stoa` stands so; what SHOW REBALANCE STATUS says of all of them.
pub fn wait_for_status(show: &dyn Fn(&str) -> String, status: &str) -> Vec<Row> {
    let began = Instant::now();
    loop {
        let said = show("SHOW REBALANCE STATUS ON stoa");
        assert_eq!(said.lines().next(), Some(SHOWN));
        let all = rows(&said);
        if all.iter().any(|row| row["Status"] == status) {
            return all;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "nothing is {status}: {said}");
        std::thread::sleep(Duration::from_millis(50));
    }
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
        // A copy that ran ahead of a new master is made anew, and soon has its role again.
        let (left, began) = (|| cluster.ok("EXPLAIN REBALANCE PARTITIONS ON stoa"), Instant::now());
        while left().lines().count() > 1 {
            assert!(began.elapsed() < Duration::from_secs(60), "{}", left());
        }
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
    load_rows(&cluster, 60_000);
    let (third, fourth) = (new_leaf(&cluster, "third"), new_leaf(&cluster, "fourth"));
    cluster.ok(&format!("ADD LEAF '{}'; ADD LEAF '{}'", third.address, fourth.address));
    let planned = cluster.ok("EXPLAIN REBALANCE PARTITIONS ON stoa");
    // The log takes room ahead, which is not sent.
    let sent = |row: &Row| row["Bytes"].parse::<u64>().unwrap().saturating_sub(1 << 20);
    let bytes: u64 = rows(&planned).iter().map(sent).sum();
    let began = Instant::now();
    cluster.ok("REBALANCE PARTITIONS ON stoa");
    // Two leaves send at most.
    let least = bytes as f64 / RATE as f64 / 2.0;
    let took = began.elapsed().as_secs_f64();
    assert!(bytes > 4 * RATE && took >= least, "{bytes} bytes took {took} s, at least {least} s");
    assert_eq!(cluster.ok("SELECT count(*) AS n FROM t"), "n\n60000\n");
}

/// A cluster whose copies take seconds to be made, with rows in `t`, and two leaves that have nothing yet.
fn cluster_that_grows(coordinators: u32, count: usize) -> (Cluster, [Node; 2]) {
    let cluster = Cluster::start_with(coordinators, 2, &[SLOW]);
    load_rows(&cluster, count);
    cluster.wait_for_replicas(2);
    let leaves = ["third", "fourth"].map(|name| new_leaf(&cluster, name));
    cluster.ok(&format!("ADD LEAF '{}'; ADD LEAF '{}'", leaves[0].address, leaves[1].address));
    (cluster, leaves)
}

/// What is in `t`.
const CONTENT: &str = "SELECT count(*) AS n, count(DISTINCT a) AS d, sum(a) AS s, min(b) AS first, max(b) AS last FROM t";

/// The steps that a rebalance of `stoa` has: each copy goes to a new leaf, and what is promoted and dropped comes after it.
fn check_steps(cluster: &Cluster, leaves: &[Node; 2]) {
    let planned = cluster.ok("EXPLAIN REBALANCE PARTITIONS ON stoa");
    assert_eq!(planned.lines().next(), Some(EXPLAINED));
    let all = rows(&planned);
    for row in &all {
        let address = format!("{}:{}", row["Target_Host"], row["Target_Port"]);
        let copy = row["Action"] == "COPY PARTITION";
        assert!(
            ["COPY PARTITION", "PROMOTE PARTITION", "PROMOTE PARTITION WITH DROP", "DROP PARTITION"].contains(&&*row["Action"])
        );
        assert!(!copy || leaves.iter().any(|leaf| leaf.address == address), "{row:?}");
        assert_eq!(row["Phase"] == "1", copy, "{row:?}");
        assert_eq!(row["Bytes"] != "0", copy, "{row:?}");
        assert!(["0", "1"].contains(&&*row["Ordinal"]) && (copy || row["Estimated_Time_Remaining_Ms"] == "0"), "{row:?}");
    }
    assert_eq!(all.iter().filter(|row| row["Action"] == "COPY PARTITION").count(), 2, "{planned}");
    let of_all = cluster.ok("EXPLAIN REBALANCE ALL DATABASES");
    assert_eq!(of_all.lines().next(), Some(&*format!("Database,{EXPLAINED}")));
    assert!(rows(&of_all).iter().all(|row| row["Database"] == "stoa"), "{of_all}");
    assert_eq!(cluster.ok("SHOW REBALANCE STATUS"), format!("Database,{SHOWN}\n"));
}

#[test]
fn a_rebalance_outlives_the_coordinator_that_leads_it() {
    let (cluster, leaves) = cluster_that_grows(3, 30_000);
    check_steps(&cluster, &leaves);
    let content = cluster.ok(CONTENT);
    let first = leader(&cluster, &cluster.address(0));
    let others: Vec<String> = (0..3).filter(|node| *node != first).map(|node| cluster.address(node)).collect();
    let run = |sql: &str| cluster.command_at(&others.join(","), &["sql", "--format", "csv", "-c", sql]).output().unwrap();
    let ok = |sql: &str| {
        let output = run(sql);
        assert!(output.status.success(), "{sql}: {}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let statement = begin(&cluster, &others[0], "REBALANCE PARTITIONS ON stoa");
    let all = wait_for_status(&ok, "running");
    assert!(all.iter().any(|row| row["Status"] == "scheduled"), "{all:?}");
    let running = all.iter().find(|row| row["Status"] == "running").unwrap();
    assert!(running["Action"] == "COPY PARTITION" && running["Reason"].is_empty(), "{running:?}");
    assert!(running["Running_Time"].parse::<u64>().is_ok() && running["Bytes_To_Copy"] != "0", "{running:?}");
    cluster.signal(first, "KILL");
    assert!(!statement.wait_with_output().unwrap().status.success());
    // It goes on without anybody's word.
    assert_ne!(leader(&cluster, &others[0]), first);
    let began = Instant::now();
    while ok("SHOW REBALANCE STATUS ON stoa").lines().count() > 1 {
        assert_eq!(ok(CONTENT), content);
        assert!(began.elapsed() < Duration::from_secs(120), "{}", ok("SHOW REBALANCE STATUS ON stoa"));
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(ok("EXPLAIN REBALANCE PARTITIONS ON stoa"), format!("{EXPLAINED}\n"));
    let partitions = ok("SHOW PARTITIONS");
    for leaf in &leaves {
        assert!(partitions.contains(leaf.address.rsplit(':').next().unwrap()), "{partitions}");
    }
    assert_eq!(ok(CONTENT), content);
}

#[test]
fn a_rebalance_that_is_cancelled_loses_nothing_and_can_be_done_later() {
    let (cluster, leaves) = cluster_that_grows(1, 15_000);
    let content = cluster.ok(CONTENT);
    let statement = begin(&cluster, &cluster.address(0), "REBALANCE PARTITIONS ON stoa");
    let show = |sql: &str| cluster.ok(sql);
    wait_for_status(&show, "running");
    assert!(cluster.sql("CANCEL REBALANCE ON stoa").status.success());
    let output = statement.wait_with_output().unwrap();
    assert!(!output.status.success() && text(&output).contains("cancelled with"), "{}", text(&output));
    assert_eq!(cluster.ok("SHOW REBALANCE STATUS ON stoa").lines().count(), 1);
    assert_eq!(cluster.ok(CONTENT), content);
    cluster.ok("INSERT INTO t VALUES (-1, 'written in between')");
    cluster.ok("REBALANCE PARTITIONS ON stoa; DELETE FROM t WHERE a = -1");
    assert_eq!(cluster.ok(CONTENT), content);
    cluster.wait_for_replicas(2);
    let partitions = cluster.ok("SHOW PARTITIONS");
    assert!(leaves.iter().all(|leaf| partitions.contains(leaf.address.rsplit(':').next().unwrap())), "{partitions}");
    assert_eq!(cluster.ok("EXPLAIN REBALANCE PARTITIONS ON stoa").lines().count(), 1);
    assert_eq!(cluster.ok("CLEAR ORPHAN DATABASES").lines().count(), 1);
}

/// Databases of one partition are all on the first leaves, as far as each of them alone goes.
#[test]
fn databases_are_spread_together_if_they_are_rebalanced_in_full() {
    let cluster = Cluster::start(2);
    let (third, fourth) = (new_leaf(&cluster, "third"), new_leaf(&cluster, "fourth"));
    cluster.ok(&format!("DROP DATABASE stoa; ADD LEAF '{}'; ADD LEAF '{}'", third.address, fourth.address));
    let databases = ["a", "b", "c", "d"];
    for name in databases {
        cluster.ok(&format!("CREATE DATABASE {name} PARTITIONS 1 REDUNDANCY 2"));
    }
    let lines = |port: &str| -> usize {
        let partitions = |name: &str| cluster.ok(&format!("SHOW PARTITIONS ON {name}"));
        databases.iter().map(|name| partitions(name).matches(&format!("{port},Master")).count()).sum()
    };
    let addresses = [cluster.address(1), cluster.address(2), third.address.clone(), fourth.address.clone()];
    let masters = || addresses.iter().map(|address| lines(address.rsplit(':').next().unwrap())).collect::<Vec<_>>();
    assert_eq!(masters(), [4, 0, 0, 0]);
    // Each by itself is as even as it can be.
    assert_eq!(cluster.ok("EXPLAIN REBALANCE ALL DATABASES").lines().count(), 1);
    cluster.ok("REBALANCE ALL DATABASES FULL");
    assert_eq!(masters(), [1, 1, 1, 1]);
    assert_eq!(cluster.ok("EXPLAIN REBALANCE ALL DATABASES FULL").lines().count(), 1);
}
