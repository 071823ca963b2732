//! Nodes that the network cuts off: each is in a network namespace of its own, on a bridge that the test makes and takes away.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::binary::stoa;
use crate::load::under_load;
use crate::nodes::text;

const SECRET: &str = "a secret of this test";

/// Namespaces that see each other and nothing else; their names carry the number of this process.
struct Network {
    name: String,
    nodes: usize,
}

fn ip(args: &str) -> Result<(), String> {
    let output = Command::new("ip").args(args.split(' ')).output().map_err(|e| e.to_string())?;
    if output.status.success() { Ok(()) } else { Err(format!("ip {args}: {}", text(&output))) }
}

impl Network {
    /// One hub, where the clients are, and so many nodes around it. `None` where that is not permitted.
    fn new(test: &str, nodes: usize) -> Option<Network> {
        let network = Network { name: format!("st{test}{}", std::process::id()), nodes };
        let made = network.make();
        if let Err(why) = &made {
            eprintln!("NOT TESTED: network namespaces need root and ip(8) here: {why}");
        }
        made.ok().map(|()| network)
    }

    fn hub(&self) -> String {
        format!("{}h", self.name)
    }

    fn node(&self, node: usize) -> String {
        format!("{}n{node}", self.name)
    }

    /// The address of a node.
    fn address(&self, node: usize) -> String {
        format!("10.77.0.{}:7000", node + 1)
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
    fn cut(&self, node: usize) {
        ip(&format!("-n {} link set to{node} down", self.hub())).unwrap();
    }

    fn heal(&self, node: usize) {
        ip(&format!("-n {} link set to{node} up", self.hub())).unwrap();
    }

    /// `stoa` in a namespace.
    fn within(&self, namespace: &str, args: &[&str]) -> Command {
        let program = stoa(&[]);
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).arg(program.get_program()).args(args);
        command.env("STOA_SECRET", SECRET).stdin(Stdio::null());
        command
    }

    /// Starts a node, and waits until it listens.
    fn start(&self, node: usize, kind: &str, folder: &Path, more: &[&str]) -> Running {
        let (data, address) = (folder.join(node.to_string()), self.address(node));
        let log = std::fs::File::create(folder.join(format!("{node}.log"))).unwrap();
        let all = [&[kind, "--data", data.to_str().unwrap(), "--listen", &address, "--insecure"], more].concat();
        let mut process = self.within(&self.node(node), &all).stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let running = Running(process);
        let why = || std::fs::read_to_string(folder.join(format!("{node}.log"))).unwrap_or_default();
        assert!(line.contains(" listening on "), "{line}{}", why());
        running
    }

    /// A statement of a client in the hub, through these coordinators.
    fn sql(&self, coordinators: &str, sql: &str) -> Result<String, String> {
        let args = ["sql", "--connect", coordinators, "--format", "csv", "-c", sql];
        let output = self.within(&self.hub(), &args).output().unwrap();
        if output.status.success() { Ok(String::from_utf8(output.stdout).unwrap()) } else { Err(text(&output)) }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in (0..self.nodes).map(|node| self.node(node)).chain([self.hub()]) {
            let _ = ip(&format!("netns del {name}"));
        }
    }
}

/// A node that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Coordinators first, then leaves, of one cluster.
fn start(network: &Network, coordinators: usize, folder: &Path) -> (String, Vec<Running>) {
    let first = network.address(0);
    let mut nodes = vec![network.start(0, "coordinator", folder, &["--bootstrap"])];
    for node in 1..coordinators {
        nodes.push(network.start(node, "coordinator", folder, &["--join", &first]));
    }
    let all: Vec<String> = (0..coordinators).map(|node| network.address(node)).collect();
    let all = all.join(",");
    for node in coordinators..network.nodes {
        nodes.push(network.start(node, "leaf", folder, &[]));
        network.sql(&all, &format!("ADD LEAF '{}'", network.address(node))).unwrap();
    }
    network.sql(&all, "DROP DATABASE IF EXISTS stoa; CREATE DATABASE stoa PARTITIONS 4").unwrap();
    (all, nodes)
}

/// Waits until a statement says something so often.
fn wait_for(network: &Network, coordinators: &str, sql: &str, what: &str, times: usize) {
    let began = Instant::now();
    loop {
        let said = network.sql(coordinators, sql);
        if said.as_ref().is_ok_and(|said| said.matches(what).count() >= times) {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(40), "{sql}: {said:?} instead of {times} times {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_leaf_that_is_cut_off_costs_time_and_nothing_else() {
    let Some(network) = Network::new("l", 3) else { return };
    let folder = tempfile::tempdir().unwrap();
    let (coordinators, _nodes) = start(&network, 1, folder.path());
    let ok = |sql: &str| network.sql(&coordinators, sql).unwrap_or_else(|said| panic!("{sql}: {said}"));
    let whole = || wait_for(&network, &coordinators, "SHOW PARTITIONS", ",Slave,", 4);
    whole();
    let mut took = Vec::new();
    under_load(&ok, || {
        for node in [1, 2] {
            std::thread::sleep(Duration::from_millis(700));
            network.cut(node);
            let cut = Instant::now();
            ok("SELECT count(*) FROM rows");
            took.push(cut.elapsed());
            std::thread::sleep(Duration::from_millis(500));
            network.heal(node);
            whole();
        }
    });
    assert!(took.iter().all(|took| *took < Duration::from_secs(15)), "first answers after {took:?}");
}

#[test]
fn the_coordinators_go_on_without_a_leader_that_is_cut_off() {
    let Some(network) = Network::new("c", 4) else { return };
    let folder = tempfile::tempdir().unwrap();
    let (coordinators, _nodes) = start(&network, 3, folder.path());
    network.sql(&coordinators, "CREATE TABLE t (a INT); INSERT INTO t VALUES (1)").unwrap();
    wait_for(&network, &coordinators, "SHOW AGGREGATORS", "online", 3);
    // The first one leads. A client that knows it finds the next one.
    network.cut(0);
    let began = Instant::now();
    wait_for(
        &network,
        &coordinators,
        "CREATE OR REPLACE VIEW v AS SELECT 1 AS one; INSERT INTO t VALUES (2); SELECT one FROM v",
        "one\n1\n",
        1,
    );
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    let written = network.sql(&coordinators, "SELECT count(*) AS n FROM t WHERE a = 2").unwrap();
    // Alone it decides nothing.
    let alone = network.within(&network.node(0), &["sql", "--connect", &network.address(0), "-c", "CREATE TABLE u (a INT)"]);
    let mut alone = Running({ alone }.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    std::thread::sleep(Duration::from_millis(500));
    assert!(alone.0.try_wait().unwrap().is_none_or(|status| !status.success()));
    drop(alone);
    network.heal(0);
    wait_for(&network, &coordinators, "SHOW AGGREGATORS", "online", 3);
    // It has what the others decided.
    wait_for(&network, &network.address(0), "SELECT one FROM v", "one\n1\n", 1);
    assert_eq!(network.sql(&network.address(0), "SELECT count(*) AS n FROM t WHERE a = 2").unwrap(), written);
    assert!(network.sql(&network.address(0), "SELECT * FROM u").is_err());
}
