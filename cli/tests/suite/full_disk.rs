//! Nodes whose disks are full.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::binary::stoa;
use crate::nodes::{Cluster, Node, text};
use crate::rebalance::{begin, load_rows, wait_for_status};
use crate::small_disk::SmallDisk;

/// A node on a disk of a few MiB.
pub struct SmallNode {
    node: Node,
    pub disk: SmallDisk,
}

impl SmallNode {
    /// `None` where file systems cannot be mounted.
    pub fn leaf(cluster: &Cluster, name: &str, megabytes: u32) -> Option<SmallNode> {
        SmallNode::start(cluster, name, megabytes, &["leaf"])
    }

    fn start(cluster: &Cluster, name: &str, megabytes: u32, what: &[&str]) -> Option<SmallNode> {
        let disk = SmallDisk::new(&cluster.path().join(name), megabytes)?;
        let words = [disk.enter(), vec![stoa(&[]).get_program().to_str().unwrap().to_owned()]].concat();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(what).args(["--listen", "127.0.0.1:0", "--data"]).arg(disk.path().join("data"));
        let node = Node::of(cluster, command, &cluster.path().join(format!("{name}.log")));
        Some(SmallNode { node, disk })
    }

    pub fn address(&self) -> &str {
        &self.node.address
    }

    fn port(&self) -> &str {
        self.address().rsplit(':').next().unwrap()
    }
}

/// Rows that only fit where there is room.
pub fn many(first: u64) -> String {
    let filler = "x".repeat(900);
    let rows: Vec<String> = (first..first + 100).map(|id| format!("({id}, '{filler}{id}')")).collect();
    format!("INSERT INTO t VALUES {}", rows.join(", "))
}

#[test]
fn writes_fail_and_resume_on_a_full_disk_and_reads_go_on() {
    let cluster = Cluster::start(1);
    let Some(leaf) = SmallNode::leaf(&cluster, "small", 24) else { return };
    // Two groups would be two copies; here each has some partitions alone.
    cluster.ok(&format!("ADD LEAF '{}'; DROP DATABASE stoa; CREATE DATABASE stoa PARTITIONS 2 REDUNDANCY 1", leaf.address()));
    cluster.ok("CREATE TABLE t (a BIGINT PRIMARY KEY, b VARCHAR(1000)); CREATE DATABASE other PARTITIONS 2 REDUNDANCY 1");
    cluster.ok(&many(0));
    leaf.disk.fill();
    let began = Instant::now();
    let mut first = 100;
    let said = loop {
        let mut command = cluster.command(&["sql", "-c", &many(first)]);
        let output = command.output().unwrap();
        if !output.status.success() {
            break text(&output);
        }
        first += 100;
        assert!(began.elapsed() < Duration::from_secs(60), "a disk without room took {first} rows");
    };
    assert!(said.contains("No space left on device"), "{said}");
    // Reads go on, and nothing of the statement that failed is there.
    for _ in 0..3 {
        assert_eq!(cluster.ok("SELECT count(*) AS n, max(a) AS a FROM t"), format!("n,a\n{first},{}\n", first - 1));
    }
    leaf.disk.make_room();
    let began = Instant::now();
    while !cluster.sql(&many(first)).status.success() {
        assert!(began.elapsed() < Duration::from_secs(60), "{}", text(&cluster.sql(&many(first))));
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(cluster.ok("SELECT count(*) AS n FROM t"), format!("n\n{}\n", first + 100));
}

#[test]
fn a_replica_without_room_falls_out_and_comes_back() {
    let cluster = Cluster::start(1);
    let Some(leaf) = SmallNode::leaf(&cluster, "small", 24) else { return };
    cluster.ok(&format!("ADD LEAF '{}'; DROP DATABASE stoa; CREATE DATABASE stoa PARTITIONS 1 REDUNDANCY 2", leaf.address()));
    let port = leaf.port();
    cluster.wait_for_replicas(1);
    assert!(cluster.ok("SHOW PARTITIONS").contains(&format!("{port},Slave")), "{}", cluster.ok("SHOW PARTITIONS"));
    cluster.ok("CREATE TABLE t (a BIGINT PRIMARY KEY, b VARCHAR(1000))");
    leaf.disk.fill();
    // The master has room: no write fails, though one waits for the replica to be taken out.
    for first in (0..3000).step_by(100) {
        cluster.ok(&many(first));
    }
    assert!(!cluster.ok("SHOW PARTITIONS").contains(&format!("{port},Slave")), "{}", cluster.ok("SHOW PARTITIONS"));
    assert!(cluster.ok("SHOW CLUSTER STATUS").contains("No space left"), "{}", cluster.ok("SHOW CLUSTER STATUS"));
    leaf.disk.make_room();
    cluster.wait_for_replicas(1);
    cluster.signal(1, "KILL");
    assert_eq!(cluster.ok("SELECT count(*) AS n, max(a) AS a FROM t"), "n,a\n3000,2999\n");
}

#[test]
fn a_rebalance_onto_a_full_disk_is_refused_before_anything_moves() {
    let cluster = Cluster::start(1);
    cluster.ok("DROP DATABASE stoa; CREATE DATABASE stoa PARTITIONS 2 REDUNDANCY 1");
    // Few rows, which are in the log and in memory alone.
    cluster.ok("CREATE TABLE t (a BIGINT PRIMARY KEY, b VARCHAR(1000))");
    cluster.ok(&many(0));
    let Some(leaf) = SmallNode::leaf(&cluster, "small", 24) else { return };
    cluster.ok(&format!("ADD LEAF '{}'", leaf.address()));
    leaf.disk.fill();
    let before = cluster.ok("SHOW PARTITIONS");
    let said = text(&cluster.sql("REBALANCE PARTITIONS ON stoa"));
    assert!(said.contains(leaf.address()) && said.contains("Nothing of 'stoa' was moved"), "{said}");
    assert_eq!(cluster.ok("SHOW PARTITIONS"), before);
    assert_eq!(cluster.ok("SHOW REBALANCE STATUS").lines().count(), 1);
    leaf.disk.make_room();
    cluster.ok("REBALANCE PARTITIONS ON stoa");
    assert!(cluster.ok("SHOW PARTITIONS").contains(&format!("{},Master", leaf.port())), "{}", cluster.ok("SHOW PARTITIONS"));
    assert_eq!(cluster.ok("SELECT count(*) AS n, max(a) AS a FROM t"), "n,a\n100,99\n");
}

#[test]
fn a_copy_that_cannot_be_finished_says_why_until_it_can() {
    let cluster = Cluster::start_with(1, 1, &[("STOA_COPY_RATE", "150000")]);
    cluster.ok("DROP DATABASE stoa; CREATE DATABASE stoa PARTITIONS 8 REDUNDANCY 1");
    load_rows(&cluster, 40_000);
    let Some(leaf) = SmallNode::leaf(&cluster, "small", 24) else { return };
    cluster.ok(&format!("ADD LEAF '{}'", leaf.address()));
    let statement = begin(&cluster, &cluster.address(0), "REBALANCE PARTITIONS ON stoa");
    let show = |sql: &str| cluster.ok(sql);
    wait_for_status(&show, "running");
    leaf.disk.fill();
    let all = wait_for_status(&show, "failed");
    let failed = all.iter().find(|row| row["Status"] == "failed").unwrap();
    assert!(failed["Reason"].contains("No space left") && failed["Action"] == "COPY PARTITION", "{failed:?}");
    assert_eq!(failed["Target_Port"], leaf.port());
    assert!(failed["Running_Time"].parse::<u64>().unwrap() > 0, "{failed:?}");
    leaf.disk.make_room();
    let output = statement.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(cluster.ok("SHOW REBALANCE STATUS").lines().count(), 1);
    assert!(cluster.ok("SHOW PARTITIONS").contains(&format!("{},Master", leaf.port())), "{}", cluster.ok("SHOW PARTITIONS"));
    assert_eq!(cluster.ok("SELECT count(*) AS n, count(DISTINCT a) AS d FROM t"), "n,d\n40000,40000\n");
}

#[test]
fn a_coordinator_without_room_takes_part_again_when_there_is_some() {
    let cluster = Cluster::start(1);
    let join = ["coordinator", "--join", &cluster.address(0)];
    let Some(coordinator) = SmallNode::start(&cluster, "small", 24, &join) else { return };
    let view = |number: u32| {
        let sql = format!("CREATE OR REPLACE VIEW v AS SELECT {number} AS n, '{}' AS text", "x".repeat(50_000));
        cluster.command(&["sql", "-c", &sql]).output().unwrap()
    };
    assert!(view(0).status.success());
    coordinator.disk.fill();
    // Both coordinators are needed for a change.
    let mut number = 1;
    let said = loop {
        let output = view(number);
        if !output.status.success() {
            break text(&output);
        }
        number += 1;
        assert!(number < 500, "a disk without room took {number} views");
    };
    assert!(said.contains("a majority of the coordinators did not answer"), "{said}");
    assert!(cluster.ok("SELECT n FROM v").starts_with("n\n"));
    coordinator.disk.make_room();
    let began = Instant::now();
    while !view(1000).status.success() {
        assert!(began.elapsed() < Duration::from_secs(60), "{}", text(&view(1000)));
    }
    // It has the catalog, and serves.
    let began = Instant::now();
    loop {
        let output =
            cluster.command_at(coordinator.address(), &["sql", "--format", "csv", "-c", "SELECT n FROM v"]).output().unwrap();
        if output.status.success() && output.stdout == b"n\n1000\n" {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{}", text(&output));
        std::thread::sleep(Duration::from_millis(50));
    }
}
