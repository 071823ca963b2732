//! Every coordinator is lost with its folder: new ones take the leaves over.

use std::time::{Duration, Instant};

use crate::nodes::{Cluster, Node, text};

/// Waits until a command succeeds and says this.
fn wait_for(cluster: &Cluster, coordinator: &str, sql: &str, expected: &str) {
    let began = Instant::now();
    loop {
        let output = cluster.command_at(coordinator, &["sql", "--format", "csv", "-c", sql]).output().unwrap();
        if output.status.success() && text(&output).contains(expected) {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{sql}: {} instead of {expected}", text(&output));
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn new_coordinators_take_over_the_leaves_of_lost_ones() {
    let cluster = Cluster::start(3);
    let rows = (1..=500).map(|a| format!("({a})")).collect::<Vec<_>>().join(", ");
    cluster.ok(&format!(
        "CREATE TABLE t (a BIGINT PRIMARY KEY); CREATE REFERENCE TABLE r (x INT); INSERT INTO r VALUES (1), (2); \
         INSERT INTO t VALUES {rows}; CREATE VIEW v AS SELECT count(*) AS n FROM t; \
         CREATE DATABASE alone PARTITIONS 2 REDUNDANCY 1; CREATE USER ada IDENTIFIED BY 'secret'"
    ));
    let kept = |leaf: usize| cluster.path().join(format!("leaf{leaf}")).join("catalog");
    let leaves: Vec<String> = (1..4).map(|leaf| cluster.address(leaf)).collect();
    let named: Vec<&str> = leaves.iter().flat_map(|leaf| ["--leaf", leaf]).collect();
    let admin = |coordinator: &str, args: &[&str]| {
        let all = [&["admin", "recover", "--user", "ada"], &named[..], args, &["--format", "csv"]].concat();
        let output = cluster.command_at(coordinator, &all).env("STOA_PASSWORD", "secret").output().unwrap();
        (output.status.success(), text(&output))
    };
    // Every leaf has been given the catalog with the user in it.
    let began = Instant::now();
    let has_user = |leaf| std::fs::read(kept(leaf)).is_ok_and(|bytes| bytes.windows(3).any(|part| part == b"ada"));
    while !(1..4).all(has_user) {
        assert!(began.elapsed() < Duration::from_secs(60), "the leaves keep no catalog");
        std::thread::sleep(Duration::from_millis(20));
    }
    cluster.signal(0, "KILL");

    let folder = tempfile::tempdir().unwrap();
    let args = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let start = |name: &str| {
        let (data, log) = (args(name), folder.path().join(format!("{name}.log")));
        Node::start(&cluster, &["coordinator", "--data", &data, "--listen", "127.0.0.1:0", "--bootstrap"], &log)
    };
    let new = start("new");
    // Leaves that hear a coordinator are not taken from it.
    let (success, said) = admin(&new.address, &["--yes"]);
    assert!(!success && said.contains("its cluster has a coordinator that leads"), "{said}");
    std::thread::sleep(Duration::from_secs(6));
    let (success, said) = admin(&new.address, &[]);
    assert!(!success && said.contains("say --yes") && said.contains("MASTER,stoa,0,"), "{said}");
    let (success, said) = admin(&new.address, &["--explain"]);
    assert!(success && !said.contains("WARNING") && said.matches("MASTER,").count() == 5, "{said}");
    assert_eq!(said.matches("REPLICA,stoa,").count(), 3, "{said}");
    wait_for(&cluster, &new.address, "SHOW LEAVES", "Host");
    let (success, said) = admin(&new.address, &["--yes"]);
    assert!(success && said.contains("2 databases on 3 leaves recovered, 0 warnings"), "{said}");

    // From here on the user is there, and nobody else.
    let ask = |sql: &str| {
        let mut command = cluster.command_at(&new.address, &["sql", "--user", "ada", "--format", "csv", "-c", sql]);
        text(&command.env("STOA_PASSWORD", "secret").output().unwrap())
    };
    let began = Instant::now();
    while ask("SELECT n, (SELECT sum(x) FROM r) AS x FROM v") != "n,x\n500,3\n" {
        assert!(began.elapsed() < Duration::from_secs(60), "{}", ask("SELECT n, (SELECT sum(x) FROM r) AS x FROM v"));
    }
    assert!(
        cluster.command_at(&new.address, &["sql", "-c", "SHOW LEAVES"]).output().is_ok_and(|output| !output.status.success())
    );
    while ask("SHOW PARTITIONS").matches(",Slave,").count() < 3 {
        assert!(began.elapsed() < Duration::from_secs(60), "{}", ask("SHOW PARTITIONS; SHOW CLUSTER STATUS"));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(ask("INSERT INTO t VALUES (1000); UPDATE r SET x = 7; CREATE TABLE later (a INT); SELECT n FROM v"), "n\n501\n");
    let (success, said) = admin(&new.address, &["--yes"]);
    assert!(!success && said.contains("the catalog has 3 leaves and 2 databases"), "{said}");
    // The leaf that fails now has a replica.
    cluster.signal(1, "KILL");
    let began = Instant::now();
    while ask("SELECT n FROM v") != "n\n501\n" {
        assert!(began.elapsed() < Duration::from_secs(60), "{}", ask("SELECT n FROM v"));
    }
}

#[test]
fn copies_that_are_behind_or_alone_stay() {
    let cluster = Cluster::start(2);
    cluster.ok("CREATE TABLE t (a BIGINT PRIMARY KEY); INSERT INTO t VALUES (1), (2), (3), (4), (5), (6), (7), (8)");
    cluster.wait_for_replicas(2);
    // One leaf misses rows: its copies end in an earlier term.
    cluster.signal(2, "KILL");
    let began = Instant::now();
    while !cluster.sql("INSERT INTO t VALUES (9), (10), (11), (12), (13), (14), (15), (16)").status.success() {
        assert!(began.elapsed() < Duration::from_secs(120));
    }
    cluster.signal(0, "KILL");
    let record = cluster.record();
    let data = cluster.path().join("leaf2");
    let folder = tempfile::tempdir().unwrap();
    let log = |name: &str| folder.path().join(format!("{name}.log"));
    let back = Node::start(
        &cluster,
        &["leaf", "--data", data.to_str().unwrap(), "--listen", record["nodes"][2]["address"].as_str().unwrap()],
        &log("leaf"),
    );
    let new_folder = folder.path().join("new");
    let args = ["coordinator", "--data", new_folder.to_str().unwrap(), "--listen", "127.0.0.1:0", "--bootstrap"];
    let new = Node::start(&cluster, &args, &log("new"));
    std::thread::sleep(Duration::from_secs(6));
    // Nobody writes them any more.
    for leaf in ["leaf1", "leaf2"] {
        std::fs::remove_file(cluster.path().join(leaf).join("catalog")).unwrap();
    }
    let leaves = format!("'{}', '{}'", cluster.address(1), back.address);
    let explain = format!("EXPLAIN RECOVER FROM LEAVES {leaves}");
    wait_for(&cluster, &new.address, &explain, "no leaf keeps a catalog");
    wait_for(&cluster, &new.address, &explain, "an orphan: its log ends in another term");
    let output = cluster.command_at(&new.address, &["sql", "-c", &format!("RECOVER FROM LEAVES {leaves}")]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    wait_for(&cluster, &new.address, "SELECT count(*) AS n, sum(a) AS a FROM t", "16,136");
    // Nothing was thrown away, and copies come when somebody says so.
    wait_for(&cluster, &new.address, "EXPLAIN CLEAR ORPHAN DATABASES", "to be removed");
    let output = cluster.command_at(&new.address, &["sql", "-c", "RESTORE REDUNDANCY ON stoa"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let partitions = cluster.command_at(&new.address, &["sql", "--format", "csv", "-c", "SHOW PARTITIONS"]).output().unwrap();
    assert_eq!(
        text(&partitions).matches(",Slave,").count(),
        text(&partitions).matches(",Master,").count(),
        "{}",
        text(&partitions)
    );
}
