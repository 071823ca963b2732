//! What operators see of nodes, and how nodes end.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::binary::stoa;
use crate::nodes::{Cluster, text};

/// The page of a node: status line and body.
fn page(address: &str, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(stream, "{request} HTTP/1.1\r\nHost: stoa\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

fn log(cluster: &Cluster, node: &str) -> String {
    fs::read_to_string(cluster.path().join(format!("{node}.log"))).unwrap()
}

/// Where a node serves its pages, as its log says.
fn pages(cluster: &Cluster, node: &str) -> String {
    let log = log(cluster, node);
    let line = log.lines().find(|line| line.contains("metrics and health are served")).unwrap_or_else(|| panic!("{log}"));
    line.split_once("address=").unwrap().1.trim().to_owned()
}

#[test]
fn logs_metrics_and_health() {
    let cluster = Cluster::start_with(1, 2, &[("STOA_METRICS", "127.0.0.1:0"), ("STOA_LOG_LEVEL", "debug")]);
    cluster.ok("CREATE TABLE t (a BIGINT, SHARD KEY (a)); INSERT INTO t VALUES (1), (2), (3)");
    cluster.ok("SELECT\n sum(a) AS a_log_line FROM t");
    cluster.fails("SELECT 1 / 0 FROM t", "division by zero");

    // One number leads from the statement on the coordinator to its fragments on every leaf.
    let of_coordinator = log(&cluster, "coordinator1");
    let lines: Vec<&str> = of_coordinator.lines().collect();
    let done =
        lines.iter().position(|line| line.contains("SELECT  sum(a) AS a_log_line FROM t") && line.contains("done")).unwrap();
    let number = lines[done - 1].split_once("query=").unwrap().1.split(' ').next().unwrap();
    for leaf in ["leaf1", "leaf2"] {
        assert!(log(&cluster, leaf).contains(&format!("query={number}")), "{}", log(&cluster, leaf));
    }
    cluster.ok("CREATE USER ada IDENTIFIED BY 'a-password'");
    assert!(!log(&cluster, "coordinator1").contains("a-password"));

    let coordinator = pages(&cluster, "coordinator1");
    let (status, metrics) = page(&coordinator, "GET /metrics");
    assert!(status.contains("200"), "{status}");
    let value = |metrics: &str, name: &str| -> f64 {
        let line = metrics.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {metrics}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert_eq!(value(&metrics, "stoa_statements_total{outcome=\"failed\"}"), 1.0);
    assert!(value(&metrics, "stoa_statements_total{outcome=\"done\"}") >= 2.0);
    assert!(value(&metrics, "stoa_statement_seconds_count") >= 3.0);
    assert_eq!(value(&metrics, "stoa_queries_running"), 0.0);
    let leaf = pages(&cluster, "leaf1");
    assert!(value(&page(&leaf, "GET /metrics").1, "stoa_fragments_total{outcome=\"done\"}") >= 1.0);
    for address in [&coordinator, &leaf] {
        assert_eq!(page(address, "GET /health"), ("HTTP/1.1 200 OK".to_owned(), "ok\n".to_owned()));
        assert!(page(address, "GET /nothing").0.contains("404"));
        assert!(page(address, "POST /metrics").0.contains("405"));
    }
}

#[test]
fn a_coordinator_without_a_part_is_not_healthy() {
    let folder = tempfile::tempdir().unwrap();
    let errors = folder.path().join("errors");
    let args = [
        "coordinator",
        "--data",
        folder.path().join("data").to_str().unwrap(),
        "--metrics",
        "127.0.0.1:0",
        "--log-format",
        "json",
    ]
    .map(str::to_owned);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut node = stoa(&args).stdout(Stdio::null()).stderr(fs::File::create(&errors).unwrap()).spawn().unwrap();
    let began = Instant::now();
    let address = loop {
        let lines = fs::read_to_string(&errors).unwrap();
        let objects = lines.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let served =
            objects.map(|object| object["fields"].clone()).find(|fields| fields["message"].as_str().unwrap().contains("served"));
        if let Some(fields) = served {
            break fields["address"].as_str().unwrap().to_owned();
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{lines}");
        std::thread::sleep(Duration::from_millis(20));
    };
    let (status, why) = page(&address, "GET /health");
    assert!(status.contains("503") && why.contains("has no part in a cluster yet"), "{status} {why}");
    node.kill().unwrap();
    node.wait().unwrap();
}

/// Metrics for others need an option of their own, which opens nothing else.
#[test]
fn metrics_beyond_loopback_leave_the_rest_guarded() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let leaf = |more: &[&str]| {
        let args = ["leaf", "--data", data.to_str().unwrap(), "--metrics", "0.0.0.0:0"];
        let mut command = stoa(&[&args[..], more].concat());
        command.env_remove("STOA_SECRET").stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let refused = text(&leaf(&[]).output().unwrap());
    assert!(refused.contains("--insecure-metrics allows it"), "{refused}");
    let refused = text(&leaf(&["--insecure-metrics", "--listen", "0.0.0.0:0"]).output().unwrap());
    assert!(refused.contains("a cluster secret and TLS would be missing; --insecure allows it"), "{refused}");
    let mut node = leaf(&["--insecure-metrics"]).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(node.stdout.take().unwrap()), &mut line).unwrap();
    node.kill().unwrap();
    let said = text(&node.wait_with_output().unwrap());
    assert!(line.contains("leaf listening on 127.0.0.1:") && said.contains("address=0.0.0.0:"), "{line}{said}");
}

#[test]
fn nodes_end_in_order_when_they_are_told_to() {
    let cluster = Cluster::start_with(1, 1, &[("STOA_SHUTDOWN_TIMEOUT", "60")]);
    cluster.ok("CREATE TABLE t (a BIGINT)");
    let rows: Vec<String> = (0..3000).map(|i| format!("({i})")).collect();
    cluster.ok(&format!("INSERT INTO t VALUES {}", rows.join(",")));
    // It takes a while, and what it gives is known.
    let slow = "SELECT count(*) AS n FROM t AS x, t AS y WHERE x.a * 3 <> y.a * 7 + 1";
    let query = cluster.command(&["sql", "--format", "csv", "-c", slow]).stdout(Stdio::piped()).spawn().unwrap();
    let began = Instant::now();
    while !cluster.ok("SHOW PROCESSLIST").contains("x.a * 3") && began.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let told = Command::new("kill").args(["-TERM", &cluster.pid(0)]).status().unwrap();
    assert!(told.success());
    // What runs ends with its answer; what comes is sent away.
    let output = query.wait_with_output().unwrap();
    assert!(output.status.success() && text(&output).starts_with("n\n"), "{}", text(&output));
    let began = Instant::now();
    while !log(&cluster, "coordinator1").contains("coordinator ends") {
        assert!(began.elapsed() < Duration::from_secs(60), "{}", log(&cluster, "coordinator1"));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(!cluster.sql("SELECT 1").status.success());
}

#[test]
fn too_many_queries_wait_or_are_sent_away() {
    let limits = [("STOA_QUERIES", "1"), ("STOA_QUEUE", "1"), ("STOA_QUEUE_TIMEOUT", "60")];
    let cluster = Cluster::start_with(1, 1, &limits);
    cluster.ok("CREATE TABLE t (a BIGINT)");
    let rows: Vec<String> = (0..2000).map(|i| format!("({i})")).collect();
    cluster.ok(&format!("INSERT INTO t VALUES {}", rows.join(",")));
    let slow = "SELECT count(*) AS n FROM t AS x, t AS y WHERE x.a * 3 <> y.a * 7 + 1";
    let queries: Vec<_> = (0..6)
        .map(|_| cluster.command(&["sql", "-c", slow]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
        .collect();
    let outputs: Vec<_> = queries.into_iter().map(|query| query.wait_with_output().unwrap()).collect();
    let refused = outputs.iter().filter(|output| text(output).contains("too many queries")).count();
    let done = outputs.iter().filter(|output| output.status.success()).count();
    assert!(done >= 1 && refused + done == 6, "{}", outputs.iter().map(text).collect::<String>());
    cluster.ok("SELECT count(*) FROM t");
}
