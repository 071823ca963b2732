//! Clusters whose nodes the network can cut off: each is in a network namespace of its own, on a bridge that the test makes and takes
//! away. Where that is not permitted they are on the loopback interface, if a test asks for it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::binary::stoa;
use crate::nodes::{not_tested, text};
use crate::small_disk::SmallDisk;

const SECRET: &str = "a secret of this test";
/// Seconds that a statement of a client takes at most, whatever happens.
const MOST: u32 = 150;

/// Namespaces that see each other and nothing else; their names carry the number of this process.
pub struct Network {
    name: String,
    nodes: usize,
    /// Ports of the nodes on the loopback interface, if there are no namespaces.
    ports: Option<Vec<u16>>,
}

fn ip(args: &str) -> Result<(), String> {
    let output = Command::new("ip").args(args.split(' ')).output().map_err(|e| e.to_string())?;
    if output.status.success() { Ok(()) } else { Err(format!("ip {args}: {}", text(&output))) }
}

impl Network {
    /// One hub, where the clients are, and so many nodes around it. `None` where that is not permitted.
    pub fn new(test: &str, nodes: usize) -> Option<Network> {
        let network = Network { name: format!("st{test}{}", std::process::id()), nodes, ports: None };
        match network.make() {
            Ok(()) => Some(network),
            Err(why) => not_tested(&format!("network namespaces need root and ip(8) here: {why}")),
        }
    }

    /// Nodes that nothing can cut off.
    pub fn on_loopback(nodes: usize) -> Network {
        // All at once, so that no two are the same.
        let free: Vec<TcpListener> = (0..nodes).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports = free.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
        Network { name: String::new(), nodes, ports: Some(ports) }
    }

    /// Whether nodes can be cut off.
    pub fn cuts(&self) -> bool {
        self.ports.is_none()
    }

    fn hub(&self) -> String {
        format!("{}h", self.name)
    }

    fn node(&self, node: usize) -> String {
        format!("{}n{node}", self.name)
    }

    /// The address of a node.
    pub fn address(&self, node: usize) -> String {
        match &self.ports {
            Some(ports) => format!("127.0.0.1:{}", ports[node]),
            None => format!("10.77.0.{}:7000", node + 1),
        }
    }

    /// The addresses of the first nodes, for `--connect`.
    pub fn addresses(&self, nodes: usize) -> String {
        (0..nodes).map(|node| self.address(node)).collect::<Vec<_>>().join(",")
    }

    fn make(&self) -> Result<(), String> {
        let hub = self.hub();
        ip(&format!("netns add {hub}"))?;
        ip(&format!("-n {hub} link add hub type bridge"))?;
        ip(&format!("-n {hub} addr add 10.77.0.254/24 dev hub"))?;
        ip(&format!("-n {hub} link set hub up"))?;
        for node in 0..self.nodes {
            let own = self.node(node);
            ip(&format!("netns add {own}"))?;
            ip(&format!("-n {hub} link add to{node} type veth peer name net netns {own}"))?;
            ip(&format!("-n {own} addr add 10.77.0.{}/24 dev net", node + 1))?;
            ip(&format!("-n {own} link set net up"))?;
            ip(&format!("-n {own} link set lo up"))?;
            ip(&format!("-n {hub} link set to{node} master hub"))?;
            ip(&format!("-n {hub} link set to{node} up"))?;
        }
        Ok(())
    }

    /// Cuts a node off from all others.
    pub fn cut(&self, node: usize) {
        ip(&format!("-n {} link set to{node} down", self.hub())).unwrap();
    }

    pub fn heal(&self, node: usize) {
        ip(&format!("-n {} link set to{node} up", self.hub())).unwrap();
    }

    /// `stoa` where a node is, or the clients are, behind the words of another command.
    fn command(&self, node: Option<usize>, mut words: Vec<String>, args: &[&str]) -> Command {
        if self.cuts() {
            let namespace = node.map_or_else(|| self.hub(), |node| self.node(node));
            words.extend(["ip", "netns", "exec", &namespace].map(str::to_owned));
        }
        words.push(stoa(&[]).get_program().to_str().unwrap().to_owned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(args).env("STOA_SECRET", SECRET).stdin(Stdio::null());
        command
    }

    /// `stoa` where a node is.
    pub fn within(&self, node: usize, args: &[&str]) -> Command {
        self.command(Some(node), vec![], args)
    }

    /// Starts a node with a folder of its own in this one, or on a disk, and waits until it listens.
    pub fn start(&self, node: usize, kind: &str, folder: &Path, disk: Option<&SmallDisk>, more: &[&str]) -> Running {
        let (own, address) = (folder.join(node.to_string()), self.address(node));
        let (data, log) = (disk.map_or(own.clone(), |_| own.join("data")), own.with_extension("log"));
        let errors = File::options().create(true).append(true).open(&log).unwrap();
        let all = [&[kind, "--data", data.to_str().unwrap(), "--listen", &address, "--insecure"], more].concat();
        let enter = disk.map(SmallDisk::enter).unwrap_or_default();
        let mut process = self.command(Some(node), enter, &all).stdout(Stdio::piped()).stderr(errors).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let running = Running(process);
        assert!(line.contains(" listening on "), "{line}{}", fs::read_to_string(&log).unwrap_or_default());
        running
    }

    /// Starts coordinators first, then leaves, of one cluster, with an empty database `stoa`: where it is reached, and its nodes.
    pub fn start_cluster(&self, coordinators: usize, folder: &Path) -> (String, Vec<Running>) {
        let all = self.addresses(coordinators);
        let mut nodes: Vec<Running> = (0..coordinators).map(|node| self.start_coordinator(node, folder)).collect();
        for node in coordinators..self.nodes {
            nodes.push(self.start(node, "leaf", folder, None, &[]));
            self.sql(&all, &format!("ADD LEAF '{}'", self.address(node))).unwrap();
        }
        self.sql(&all, "DROP DATABASE IF EXISTS stoa; CREATE DATABASE stoa PARTITIONS 4").unwrap();
        (all, nodes)
    }

    /// Starts a coordinator, of which the first one makes the cluster.
    pub fn start_coordinator(&self, node: usize, folder: &Path) -> Running {
        let first = self.address(0);
        let how: &[&str] = if node == 0 { &["--bootstrap"] } else { &["--join", &first] };
        self.start(node, "coordinator", folder, None, how)
    }

    /// A statement of a client in the hub, through these coordinators.
    pub fn sql(&self, coordinators: &str, sql: &str) -> Result<String, String> {
        let args = ["sql", "--connect", coordinators, "--format", "csv", "-c", sql];
        let most = vec!["timeout".to_owned(), MOST.to_string()];
        let output = self.command(None, most, &args).output().unwrap();
        match output.status.code() {
            Some(0) => Ok(String::from_utf8(output.stdout).unwrap()),
            // What timeout(1) gives.
            Some(124) => panic!("{sql}: no end after {MOST} s"),
            _ => Err(text(&output)),
        }
    }

    /// Waits until a statement says something so often.
    pub fn wait_for(&self, coordinators: &str, sql: &str, what: &str, times: usize, limit: Duration) {
        let began = Instant::now();
        loop {
            let said = self.sql(coordinators, sql);
            if said.as_ref().is_ok_and(|said| said.matches(what).count() >= times) {
                return;
            }
            assert!(began.elapsed() < limit, "{sql}: {said:?} instead of {times} times {what}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if self.cuts() {
            for name in (0..self.nodes).map(|node| self.node(node)).chain([self.hub()]) {
                let _ = ip(&format!("netns del {name}"));
            }
        }
    }
}

/// A process that ends with the test.
pub struct Running(pub Child);

impl Running {
    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").arg(format!("-{signal}")).arg(self.0.id().to_string()).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
