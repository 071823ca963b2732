//! A cluster of processes, as `stoa cluster` starts it: answers, errors, restarts, hostile bytes.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::binary::stoa;
use crate::nodes::{Cluster, text};

#[test]
fn tpch_on_three_leaves() {
    let cluster = Cluster::start(3);
    let output = cluster.command(&["tpch", "--scale", "0.1", "--runs", "1"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(text(&output).matches("┆ ok").count(), 22, "{}", text(&output));
}

#[test]
fn statements_files_and_restarts() {
    let cluster = Cluster::start(2);
    cluster.ok("CREATE TABLE t (a BIGINT NOT NULL, b VARCHAR(5), SHARD KEY (a)); CREATE VIEW v AS SELECT a + 1 AS c FROM t");
    let file = cluster.path().join("rows.csv");
    let rows: String = (0..1000).map(|i| format!("{i},x{}\n", i % 7)).collect();
    fs::write(&file, &rows).unwrap();
    let load = |args: &[&str]| cluster.command(args).output().unwrap();
    let name = file.to_str().unwrap();
    let loaded = load(&["load", "t", name]);
    assert!(text(&loaded).contains("1000 rows loaded"), "{}", text(&loaded));
    // One bad row: nothing of its load stays, and the error names it.
    fs::write(&file, format!("{rows}1001,toolong\n")).unwrap();
    let refused = load(&["load", "t", name]);
    assert!(
        !refused.status.success() && text(&refused).contains("rows.csv") && text(&refused).contains("line 1001"),
        "{}",
        text(&refused)
    );
    assert_eq!(cluster.ok("SELECT count(*) AS n, sum(c) AS s FROM v"), "n,s\n1000,500500\n");
    assert!(cluster.ok("EXPLAIN SELECT b FROM t WHERE a = 7").contains("reads 1 of 2 partitions"));
    assert!(cluster.ok("EXPLAIN ANALYZE SELECT b FROM t WHERE a = 7").contains("reads 1 of 2 partitions"));
    assert!(!cluster.ok("EXPLAIN SELECT b FROM t WHERE a > 7").contains("partitions"));
    // A table made from a file.
    fs::write(&file, "k,w\n1,one\n2,two\n").unwrap();
    let made = load(&["load", "words", name, "--create", "--header"]);
    assert!(made.status.success(), "{}", text(&made));
    assert_eq!(cluster.ok("SELECT w FROM words JOIN t ON k = a ORDER BY w"), "w\none\ntwo\n");
    cluster.ok("CREATE TABLE copy AS SELECT b, count(*) AS n FROM t GROUP BY b");
    let before = cluster.ok("SELECT * FROM copy ORDER BY b");
    assert_eq!(before.lines().count(), 8, "{before}");
    // Every node stops and comes back at its address.
    let addresses: Vec<String> = (0..3).map(|node| cluster.address(node)).collect();
    for command in ["stop", "start"] {
        let output = stoa(&["cluster", command, "--dir", cluster.dir()]).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }
    assert_eq!((0..3).map(|node| cluster.address(node)).collect::<Vec<_>>(), addresses);
    assert_eq!(cluster.ok("SELECT * FROM copy ORDER BY b"), before);
    cluster.ok("DROP TABLE copy; DROP VIEW v; DROP TABLE t");
    cluster.fails("SELECT * FROM copy", "copy");
}

#[test]
fn the_cluster_is_managed_by_statements() {
    let cluster = Cluster::start(2);
    let leaves = cluster.ok("SHOW LEAVES");
    assert!(leaves.starts_with("Host,Port,Availability_Group,Pair_Host,Pair_Port,State,"), "{leaves}");
    assert_eq!(leaves.matches(",online,1,").count(), 2, "{leaves}");
    assert_eq!(leaves.matches(",running\n").count(), 2, "{leaves}");
    let aggregators = cluster.ok("SHOW AGGREGATORS");
    let columns = "Host,Port,State,Opened_Connections,Average_Roundtrip_Latency_ms,Master_Aggregator,Role,NodeId,Runtime_State\n";
    assert!(aggregators.starts_with(columns), "{aggregators}");
    cluster.wait_for_replicas(2);
    // A replica's master is the other leaf, as the catalog has it and as that leaf says.
    let status = cluster.ok("SHOW CLUSTER STATUS");
    let replica = status.lines().map(|line| line.split(',').collect::<Vec<_>>()).find(|cells| cells[4] == "Slave").unwrap();
    assert!(replica[7..9] == replica[10..12] && replica[8] != replica[2] && replica[9] != replica[0], "{status}");
    cluster.ok("CREATE REFERENCE TABLE r (a INT); INSERT INTO r VALUES (1), (2)");
    cluster.ok("CREATE DATABASE d PARTITIONS 5");
    assert_eq!(cluster.ok("SHOW PARTITIONS ON d").matches("Master").count(), 5);
    assert!(cluster.ok("SHOW DATABASES").contains("d,5,2"));
    let first = cluster.address(1);
    cluster.fails(&format!("ADD LEAF '{first}'"), "is there already");
    cluster.fails(&format!("REMOVE LEAF '{first}'"), "partitions");
    cluster.fails("ADD LEAF '127.0.0.1:1'", "cannot reach 127.0.0.1:1");
    cluster.fails("CREATE DATABASE e REDUNDANCY 3", "redundancy 3");
    cluster.fails("CREATE DATABASE d", "is there already");
    cluster.fails("SHOW PARTITIONS ON nowhere", "there is no database 'nowhere'");
    cluster.fails("KILL QUERY 123456", "SHOW PROCESSLIST");
    assert!(cluster.ok("SHOW PROCESSLIST").contains("SHOW PROCESSLIST"));
    let elsewhere = cluster.command(&["sql", "-c", "SHOW TABLES", "--database", "nowhere"]).output().unwrap();
    assert!(text(&elsewhere).contains("there is no database 'nowhere'"), "{}", text(&elsewhere));
    // A third leaf joins with the REFERENCE tables, and leaves.
    let data = cluster.path().join("more");
    let mut leaf = stoa(&["leaf", "--data", data.to_str().unwrap()]);
    let mut leaf = leaf
        .env("STOA_SECRET", cluster.record()["secret"].as_str().unwrap())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(leaf.stdout.as_mut().unwrap()), &mut line).unwrap();
    let address = line.trim().rsplit(' ').next().unwrap().to_owned();
    cluster.ok(&format!("ADD LEAF '{address}' INTO GROUP 2"));
    cluster.ok("CREATE DATABASE three PARTITIONS 3 REDUNDANCY 1; CREATE DATABASE both PARTITIONS 3");
    assert!(cluster.ok("SHOW PARTITIONS ON three").contains(address.rsplit(':').next().unwrap()));
    assert!(cluster.ok("SHOW CLUSTER STATUS").contains("three_2,Master,online"));
    // What it has is moved away first.
    cluster.ok(&format!("REMOVE LEAF '{address}'"));
    let port = address.rsplit(':').next().unwrap();
    assert!(!cluster.ok("SHOW PARTITIONS ON three").contains(port) && !cluster.ok("SHOW PARTITIONS ON both").contains(port));
    assert_eq!(cluster.ok("SELECT sum(a) AS s FROM r"), "s\n3\n");
    leaf.kill().unwrap();
    leaf.wait().unwrap();
}

#[test]
fn strangers_and_noise_are_turned_away() {
    let cluster = Cluster::start(1);
    cluster.ok("CREATE TABLE t (a INT); INSERT INTO t VALUES (7)");
    let mut silent = TcpStream::connect(cluster.address(0)).unwrap();
    let stranger = cluster.command(&["sql", "-c", "SELECT 1"]).env("STOA_SECRET", "another").output().unwrap();
    assert_eq!(stranger.status.code(), Some(1));
    assert!(text(&stranger).contains("the cluster secret is another one"), "{}", text(&stranger));
    // Bytes that are no message, and beginnings of messages, at every port.
    let mut state = 1u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    for node in 0..2 {
        for round in 0..40 {
            let mut stream = TcpStream::connect(cluster.address(node)).unwrap();
            let length = random() % 200;
            let mut bytes: Vec<u8> = (0..length).map(|_| random() as u8).collect();
            if round % 2 == 0 {
                // A believable frame: one segment of a few words.
                bytes.splice(0..0, [0, 0, 0, 0, (random() % 16) as u8, 0, 0, 0]);
            }
            let _ = stream.write_all(&bytes);
            if round % 3 == 0 {
                let _ = stream.set_read_timeout(Some(Duration::from_millis(20)));
                let _ = stream.read(&mut [0; 64]);
            }
        }
    }
    assert_eq!(cluster.ok("SELECT a FROM t"), "a\n7\n");
    // Who does not say who it is, is closed after a while.
    silent.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    assert_eq!(silent.read(&mut [0; 8]).unwrap(), 0);
    let open =
        stoa(&["leaf", "--data", cluster.path().join("open").to_str().unwrap(), "--listen", "0.0.0.0:0"]).output().unwrap();
    assert!(!open.status.success() && text(&open).contains("--insecure"), "{}", text(&open));
}

#[test]
fn a_leaf_that_dies_is_named_and_its_return_is_noticed() {
    // Nothing is tried again, so that errors show.
    let settings = [("STOA_RETRY_SECONDS", "0"), ("STOA_FAILOVER_REFUSED", "5"), ("STOA_FAILOVER_SILENT", "60")];
    let cluster = Cluster::start_with(1, 2, &settings);
    cluster.ok("CREATE TABLE t (a BIGINT, SHARD KEY (a)); INSERT INTO t VALUES (1), (2), (3), (4), (5), (6), (7), (8)");
    let killed = Command::new("kill").arg("-KILL").arg(cluster.pid(2)).status().unwrap();
    assert!(killed.success());
    let began = Instant::now();
    cluster.fails("SELECT sum(a) FROM t", &cluster.address(2));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let leaves = || cluster.ok("SHOW LEAVES");
    while !leaves().contains(",offline,0,") {
        assert!(began.elapsed() < Duration::from_secs(60), "{}", leaves());
    }
    assert!(leaves().contains(",unreachable\n"), "{}", leaves());
    assert_eq!(cluster.ok("SELECT 1 AS one"), "one\n1\n");
    let output = stoa(&["cluster", "start", "--dir", cluster.dir()]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let began = Instant::now();
    while text(&cluster.sql("SELECT sum(a) AS s FROM t")) != "s\n36\n" {
        assert!(began.elapsed() < Duration::from_secs(60), "{}", text(&cluster.sql("SELECT sum(a) AS s FROM t")));
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Sends a signal to a process.
fn signal(name: &str, pid: &str) {
    assert!(Command::new("kill").arg(name).arg(pid).status().unwrap().success());
}

#[test]
fn a_leaf_that_hangs_is_named_in_time_and_others_go_on() {
    let settings = [("STOA_LEAF_SILENCE", "3"), ("STOA_FAILOVER_SILENT", "60"), ("STOA_RETRY_SECONDS", "0")];
    let cluster = Cluster::start_with(1, 2, &settings);
    let values: Vec<String> = (0..150).map(|i| format!("({i})")).collect();
    cluster.ok(&format!("CREATE TABLE few (a BIGINT); INSERT INTO few VALUES {}", values.join(", ")));
    cluster.ok("CREATE TABLE t (a BIGINT, SHARD KEY (a)); INSERT INTO t SELECT x.a * 150 + y.a FROM few x, few y");
    let endless = "SELECT count(*) FROM t x, t y, t z WHERE x.a + y.a + z.a = -1";
    let child = cluster.command(&["sql", "-c", endless]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    // Far longer than a leaf may be silent: one that works answers beside its work.
    std::thread::sleep(Duration::from_secs(8));
    assert!(cluster.ok("SHOW PROCESSLIST").contains("FROM t x"), "a long query counts as hung");
    let (pid, address) = (cluster.pid(2), cluster.address(2));
    signal("-STOP", &pid);
    let stopped = Instant::now();
    let output = child.wait_with_output().unwrap();
    let took = stopped.elapsed();
    assert_eq!(cluster.ok("SELECT 1 AS one"), "one\n1\n");
    let again = cluster.sql("SELECT sum(a) FROM t");
    signal("-CONT", &pid);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains(&address) && text(&output).contains("gave no answer within 3s"), "{}", text(&output));
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(text(&again).contains(&address), "{}", text(&again));
    assert_eq!(cluster.ok("SELECT count(*) AS n FROM t"), "n\n22500\n");
}

/// A query that would run for hours ends everywhere, whoever ends it.
#[test]
fn a_killed_query_ends_on_the_leaves_too() {
    let cluster = Cluster::start(2);
    let values: Vec<String> = (0..150).map(|i| format!("({i})")).collect();
    cluster.ok(&format!("CREATE TABLE few (a BIGINT); INSERT INTO few VALUES {}", values.join(", ")));
    cluster.ok("CREATE TABLE t (a BIGINT, SHARD KEY (a)); INSERT INTO t SELECT x.a * 150 + y.a FROM few x, few y");
    let endless = "SELECT count(*) FROM t x, t y, t z WHERE x.a + y.a + z.a = -1";
    let running = || {
        let list = cluster.ok("SHOW PROCESSLIST");
        let line = list.lines().find(|line| line.contains("FROM t x"));
        line.and_then(|line| line.split(',').next()).map(str::to_owned)
    };
    for by_statement in [true, false] {
        let child = cluster.command(&["sql", "-c", endless]).stderr(std::process::Stdio::piped()).spawn().unwrap();
        let began = Instant::now();
        let number = loop {
            if let Some(number) = running() {
                break number;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "the query does not begin");
        };
        // Some time, so that the leaves are at it.
        std::thread::sleep(Duration::from_millis(300));
        let asked = Instant::now();
        if by_statement {
            cluster.ok(&format!("KILL QUERY {number}"));
        } else {
            assert!(Command::new("kill").arg("-INT").arg(child.id().to_string()).status().unwrap().success());
        }
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output).contains("cancelled"), "{}", text(&output));
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
        while running().is_some() {
            assert!(asked.elapsed() < Duration::from_secs(10), "the coordinator goes on");
        }
        for node in [1, 2] {
            assert!(idle(&cluster.pid(node)), "a leaf goes on");
        }
    }
}

/// Whether a process comes to use hardly any processor time, soon.
fn idle(pid: &str) -> bool {
    // User and system time in clock ticks, usually of 10 ms.
    let ticks = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<u64> =
            stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2).map(|f| f.parse().unwrap()).collect();
        fields.iter().sum::<u64>()
    };
    (0..20).any(|_| {
        let before = ticks();
        std::thread::sleep(Duration::from_millis(300));
        ticks() - before < 10
    })
}

#[test]
fn two_processes_cannot_have_one_directory() {
    let cluster = Cluster::start(1);
    for (kind, folder) in [("leaf", "leaf1"), ("coordinator", "coordinator1")] {
        let data: PathBuf = cluster.path().join(folder);
        let output = stoa(&[kind, "--data", data.to_str().unwrap()]).output().unwrap();
        assert!(!output.status.success() && text(&output).contains("another process has"), "{}", text(&output));
    }
}

#[test]
fn a_leaf_that_answers_garbage_is_refused_and_others_serve() {
    let cluster = Cluster::start(1);
    cluster.ok("CREATE TABLE t (a BIGINT); INSERT INTO t VALUES (1), (2)");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    // It says something at once, in several forms, and never what it should.
    let garbage: [&[u8]; 4] = [b"HTTP/1.1 400 Bad Request\r\n\r\n", &[0xff; 64], &[0; 64], &[0, 0, 0, 0, 255, 255, 255, 127]];
    std::thread::spawn(move || {
        for (stream, bytes) in listener.incoming().flatten().zip(garbage.iter().cycle()) {
            let mut stream: TcpStream = stream;
            let _ = stream.write_all(bytes);
            let _ = stream.read(&mut [0; 1024]);
        }
    });
    for _ in 0..garbage.len() {
        let began = Instant::now();
        cluster.fails(&format!("ADD LEAF '{address}'"), &address);
        assert!(began.elapsed() < Duration::from_secs(20), "it is given up in time");
    }
    assert_eq!(cluster.ok("SELECT count(*) AS n FROM t"), "n\n2\n");
}
