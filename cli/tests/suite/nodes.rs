//! A cluster of processes for tests.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use stoa_client::{Client, Login, Options, Security};

use crate::binary::stoa;

/// A cluster that ends with the test.
pub struct Cluster {
    folder: tempfile::TempDir,
}

impl Cluster {
    pub fn start(leaves: u32) -> Cluster {
        Cluster::with(1, leaves)
    }

    pub fn with(coordinators: u32, leaves: u32) -> Cluster {
        Cluster::start_with(coordinators, leaves, &[])
    }

    /// Starts a cluster whose nodes have these environment variables.
    pub fn start_with(coordinators: u32, leaves: u32, variables: &[(&str, &str)]) -> Cluster {
        let cluster = Cluster { folder: tempfile::tempdir().unwrap() };
        let (coordinators, leaves) = (coordinators.to_string(), leaves.to_string());
        let nodes = ["--coordinators", &coordinators, "--leaves", &leaves, "--threads", "1"];
        let mut start = stoa(&["cluster", "start", "--dir", cluster.dir()]);
        let output = start.args(nodes).envs(variables.iter().copied()).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        cluster
    }

    /// The cluster that was started in a folder.
    pub fn of(folder: tempfile::TempDir) -> Cluster {
        Cluster { folder }
    }

    pub fn dir(&self) -> &str {
        self.path().to_str().unwrap()
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn record(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path().join("cluster.json")).unwrap()).unwrap()
    }

    pub fn address(&self, node: usize) -> String {
        self.record()["nodes"][node]["address"].as_str().unwrap().to_owned()
    }

    pub fn pid(&self, node: usize) -> String {
        self.record()["nodes"][node]["pid"].to_string()
    }

    /// Sends a signal to the process of a node. One that is killed is gone when this returns, and with it its lock of its directory.
    pub fn signal(&self, node: usize, signal: &str) {
        self.signal_all(&[node], signal);
    }

    /// The same to several, at once.
    pub fn signal_all(&self, nodes: &[usize], signal: &str) {
        let pids: Vec<String> = nodes.iter().map(|node| self.pid(*node)).collect();
        assert!(Command::new("kill").arg(format!("-{signal}")).args(&pids).status().unwrap().success());
        let began = Instant::now();
        // The first of its threads may be gone before the others are, which have its files open.
        let threads = |pid: &String| fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
        let stands = |pid: &String| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
        let lives = |pid: &String| stands(pid) || threads(pid) > 1;
        while signal == "KILL" && pids.iter().any(lives) && began.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Starts the nodes that do not run, at the addresses that they had.
    pub fn start_again(&self) {
        let output = stoa(&["cluster", "start", "--dir", self.dir()]).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }

    /// Waits until so many partitions have their replicas.
    pub fn wait_for_replicas(&self, partitions: usize) {
        let began = Instant::now();
        while self.ok("SHOW PARTITIONS").matches(",Slave,").count() < partitions {
            let stands = || format!("{}\n{}", self.ok("SHOW PARTITIONS; SHOW LEAVES"), self.logs());
            assert!(began.elapsed() < Duration::from_secs(120), "{}", stands());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The last lines of all logs.
    fn logs(&self) -> String {
        let mut all = String::new();
        for file in fs::read_dir(self.path()).unwrap().flatten().filter(|f| f.path().extension().is_some_and(|e| e == "log")) {
            let text = fs::read_to_string(file.path()).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            all.push_str(&format!("{}:\n{}\n", file.path().display(), lines[lines.len().saturating_sub(30)..].join("\n")));
        }
        all
    }

    pub fn command(&self, args: &[&str]) -> Command {
        self.command_at(&self.address(0), args)
    }

    /// A command that connects to these coordinators.
    pub fn command_at(&self, addresses: &str, args: &[&str]) -> Command {
        let mut command = stoa(args);
        command.arg("--connect").arg(addresses).env("STOA_SECRET", self.secret());
        command
    }

    /// A client in this process, through the first coordinator.
    pub fn client(&self) -> Client {
        self.client_at(vec![self.address(0)])
    }

    /// A client in this process, through these coordinators.
    pub fn client_at(&self, addresses: Vec<String>) -> Client {
        Client::connect(&Options { addresses, login: Login::default(), security: Security::new(self.secret()) }).unwrap()
    }

    pub fn secret(&self) -> String {
        self.record()["secret"].as_str().unwrap().to_owned()
    }

    pub fn sql(&self, sql: &str) -> Output {
        self.command(&["sql", "--format", "csv", "-c", sql]).output().unwrap()
    }

    pub fn ok(&self, sql: &str) -> String {
        let output = self.sql(sql);
        assert!(output.status.success(), "{sql}: {}\n{}", text(&output), self.logs());
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn fails(&self, sql: &str, what: &str) {
        let output = self.sql(sql);
        assert_eq!(output.status.code(), Some(1), "{sql}: {}", text(&output));
        assert!(text(&output).contains(what), "{sql}: {} instead of {what}", text(&output));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let stopped = stoa(&["cluster", "stop", "--dir", self.dir()]).output().unwrap();
        if !std::thread::panicking() {
            assert!(stopped.status.success(), "{}", text(&stopped));
        }
    }
}

/// How often nodes are killed, if it is not `STOA_KILL_ROUNDS` times.
pub fn kill_rounds(usual: usize) -> usize {
    std::env::var("STOA_KILL_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// Says what cannot be tested here. Where CI runs that is an error: there everything must be.
pub fn not_tested<T>(why: &str) -> Option<T> {
    assert!(std::env::var_os("CI").is_none(), "not tested: {why}");
    eprintln!("NOT TESTED: {why}");
    None
}

pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A node of its own, beside those of a cluster's folder.
pub struct Node {
    process: Child,
    pub address: String,
}

impl Node {
    /// Starts it; its log goes to a file.
    pub fn start(cluster: &Cluster, args: &[&str], log: &Path) -> Node {
        Node::of(cluster, stoa(args), log)
    }

    /// Starts the node of a command.
    pub fn of(cluster: &Cluster, mut command: Command, log: &Path) -> Node {
        command.env("STOA_SECRET", cluster.secret()).stdout(Stdio::piped()).stderr(fs::File::create(log).unwrap());
        let mut process = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let why = || fs::read_to_string(log).unwrap_or_default();
        let address = line.split_once(" listening on ").unwrap_or_else(|| panic!("{line}{}", why())).1.trim().to_owned();
        Node { process, address }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
