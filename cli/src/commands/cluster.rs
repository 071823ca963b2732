//! `stoa cluster`: a cluster on this machine, a process a node.

use std::fs::{self, File};
use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use stoa_client::{Client, Login, Options, Security, Tls, TlsFiles};

use super::certificates::Certificates;
use crate::args::ClusterCommand;
use crate::output::{self, text_table};
use crate::{Error, Result};

/// How long a node may take to listen, or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// The coordinator that makes the cluster.
const FIRST: &str = "coordinator1";

/// What a cluster's folder remembers of it.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    secret: String,
    nodes: Vec<Node>,
}

/// A node.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Node {
    /// `coordinator` or `leaf`, with a number: its folder too.
    name: String,
    /// Where it listens, once it has.
    address: Option<String>,
    /// Its process, when it was started last.
    pid: Option<u32>,
}

impl Node {
    fn is_coordinator(&self) -> bool {
        self.name.starts_with("coordinator")
    }

    fn address(&self) -> &str {
        self.address.as_deref().unwrap_or_default()
    }
}

/// Runs the command.
///
/// # Errors
/// If a node does not start or does not end.
pub fn run(command: &ClusterCommand) -> Result<()> {
    match command {
        ClusterCommand::Start { dir, coordinators, leaves, tls, threads } => {
            if *tls && !Record::path(dir).exists() {
                Certificates::make(dir)?;
            }
            start(dir, *coordinators, *leaves, *threads)
        }
        ClusterCommand::Stop { dir } => stop(dir),
        ClusterCommand::Status { dir } => status(dir),
    }
}

impl Record {
    fn path(dir: &Path) -> PathBuf {
        dir.join("cluster.json")
    }

    fn load(dir: &Path) -> Result<Record> {
        let path = Record::path(dir);
        let text = fs::read_to_string(&path).map_err(Error::file(&path))?;
        serde_json::from_str(&text).map_err(|e| Error::Invalid(format!("{}: {e}", path.display())))
    }

    /// The secret is in it: only its owner may read it. Whoever reads meanwhile sees the old one or the new one.
    fn store(&self, dir: &Path) -> Result<()> {
        let (path, new) = (Record::path(dir), dir.join("cluster.json.new"));
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::Invalid(e.to_string()))?;
        let mut options = File::options();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&new).map_err(Error::file(&new))?;
        file.write_all(text.as_bytes()).map_err(Error::file(&new))?;
        fs::rename(&new, &path).map_err(Error::file(&path))
    }

    fn new(coordinators: u32, leaves: u32) -> Result<Record> {
        let mut bytes = [0u8; 16];
        let random = Path::new("/dev/urandom");
        File::open(random).and_then(|mut f| f.read_exact(&mut bytes)).map_err(Error::file(random))?;
        let node = |name: String| Node { name, address: None, pid: None };
        let mut nodes: Vec<Node> = (1..=coordinators).map(|n| node(format!("coordinator{n}"))).collect();
        nodes.extend((1..=leaves).map(|n| node(format!("leaf{n}"))));
        Ok(Record { secret: bytes.iter().map(|b| format!("{b:02x}")).collect(), nodes })
    }

    fn coordinators(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.is_coordinator())
    }

    fn leaves(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| !node.is_coordinator())
    }

    fn client(&self, dir: &Path) -> Result<Client> {
        let addresses = self.coordinators().filter_map(|node| node.address.clone()).collect();
        let tls = Tls::load(&TlsFiles { ca: Certificates::of(dir).map(|files| files.ca), ..TlsFiles::default() })?;
        let security = Security::new(self.secret.clone()).with(tls);
        Ok(Client::connect(&Options { addresses, login: Login::default(), security })?)
    }
}

fn start(dir: &Path, coordinators: u32, leaves: u32, threads: Option<usize>) -> Result<()> {
    fs::create_dir_all(dir).map_err(Error::file(dir))?;
    let new = !Record::path(dir).exists();
    let mut record = if new { Record::new(coordinators, leaves)? } else { Record::load(dir)? };
    let count = record.leaves().count();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.unwrap_or_else(|| cores.div_ceil(count.max(1))).max(1);
    for at in 0..record.nodes.len() {
        if !running(dir, &record.nodes[at]) {
            let started = start_node(dir, &record.nodes[at], &record.secret, threads);
            record.nodes[at] = started?;
            record.store(dir)?;
        }
    }
    let client = record.client(dir)?;
    if new {
        for coordinator in record.coordinators().skip(1) {
            run_statement(&client, &format!("ADD AGGREGATOR '{}'", coordinator.address()))?;
        }
        for leaf in record.leaves() {
            run_statement(&client, &format!("ADD LEAF '{}'", leaf.address()))?;
        }
        run_statement(&client, &format!("CREATE DATABASE stoa PARTITIONS {}", count * threads))?;
    }
    let mut out = std::io::stdout();
    let addresses: Vec<&str> = record.coordinators().map(Node::address).collect();
    let many = |count: usize, one: &str, more: &str| format!("{count} {}", if count == 1 { one } else { more });
    let (coordinators, leaves) = (many(addresses.len(), "coordinator", "coordinators"), many(count, "leaf", "leaves"));
    writeln!(out, "a cluster of {coordinators} and {leaves} runs in {}; connect with", dir.display())?;
    writeln!(out, "  export STOA_SECRET={}", record.secret)?;
    if let Some(files) = Certificates::of(dir) {
        writeln!(out, "  export STOA_TLS_CA={}", files.ca.display())?;
    }
    writeln!(out, "  stoa sql --connect {}", addresses.join(","))?;
    Ok(())
}

fn run_statement(client: &Client, sql: &str) -> Result<()> {
    Ok(client.execute(sql, &stoa_client::Cancelled::default(), &mut |_| Ok(()))?)
}

/// Starts a node and waits until it listens.
fn start_node(dir: &Path, node: &Node, secret: &str, threads: usize) -> Result<Node> {
    let program = std::env::current_exe()?;
    let log_path = dir.join(format!("{}.log", node.name));
    let log = File::create(&log_path).map_err(Error::file(&log_path))?;
    let errors = log.try_clone().map_err(Error::file(&log_path))?;
    let mut command = Command::new(program);
    command.arg(if node.is_coordinator() { "coordinator" } else { "leaf" });
    command.arg("--data").arg(dir.join(&node.name)).arg("--listen").arg(node.address.as_deref().unwrap_or("127.0.0.1:0"));
    command.env("STOA_SECRET", secret).env("STOA_THREADS", threads.to_string());
    if let Some(files) = Certificates::of(dir) {
        command.env("STOA_TLS_CA", files.ca).env("STOA_TLS_CERT", files.cert).env("STOA_TLS_KEY", files.key);
    }
    if node.name == FIRST {
        command.arg("--bootstrap");
    }
    command.stdin(Stdio::null()).stdout(log).stderr(errors);
    // Ctrl-C in this terminal is not meant for the nodes.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.spawn()?;
    let address = wait_for_address(&mut child, &log_path, &node.name)?;
    Ok(Node { name: node.name.clone(), address: Some(address), pid: Some(child.id()) })
}

fn wait_for_address(child: &mut Child, log: &Path, name: &str) -> Result<String> {
    let began = Instant::now();
    loop {
        let text = fs::read_to_string(log).map_err(Error::file(log))?;
        let line = text.lines().find_map(|line| line.split_once(" listening on "));
        if let Some((_, address)) = line.filter(|_| text.ends_with('\n')) {
            return Ok(address.to_owned());
        }
        if let Some(status) = child.try_wait()? {
            return Err(Error::Invalid(format!("{name} ended with {status}: {}", text.trim())));
        }
        if began.elapsed() > PATIENCE {
            let _ = child.kill();
            return Err(Error::Invalid(format!("{name} does not listen after {PATIENCE:?}: see {}", log.display())));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether the process of a node still is that node: its number may belong to another one by now.
fn running(dir: &Path, node: &Node) -> bool {
    let Some(pid) = node.pid else { return false };
    let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let data = dir.join(&node.name);
    line.split(|b| *b == 0).any(|arg| arg == data.as_os_str().as_encoded_bytes())
}

fn stop(dir: &Path) -> Result<()> {
    let record = Record::load(dir)?;
    // The coordinators first, so that they see no leaf go.
    for node in record.nodes.iter().filter(|node| running(dir, node)) {
        let pid = node.pid.unwrap_or_default();
        let told = Command::new("kill").arg("-TERM").arg(pid.to_string()).status()?;
        if !told.success() {
            return Err(Error::Invalid(format!("cannot tell {} (process {pid}) to end", node.name)));
        }
        let began = Instant::now();
        while running(dir, node) {
            if began.elapsed() > PATIENCE {
                return Err(Error::Invalid(format!("{} (process {pid}) does not end", node.name)));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        writeln!(std::io::stdout(), "{} stopped", node.name)?;
    }
    Ok(())
}

fn status(dir: &Path) -> Result<()> {
    let record = Record::load(dir)?;
    let mut table = text_table(["node", "address", "process", "state"]);
    for node in &record.nodes {
        let address = node.address.clone().unwrap_or_default();
        let listens = || address.parse().is_ok_and(|a| TcpStream::connect_timeout(&a, Duration::from_secs(1)).is_ok());
        let state = match running(dir, node) {
            false => "stopped",
            true if listens() => "listening",
            true => "does not answer",
        };
        table.add_row([node.name.clone(), address, node.pid.map(|p| p.to_string()).unwrap_or_default(), state.into()]);
    }
    let mut out = std::io::stdout();
    writeln!(out, "{table}")?;
    if let Ok(client) = record.client(dir) {
        for show in ["SHOW AGGREGATORS", "SHOW LEAVES"] {
            let nodes = client.query(show)?;
            output::write(&mut out, crate::args::Format::Table, &nodes.schema, &nodes.batches)?;
        }
    }
    Ok(())
}
