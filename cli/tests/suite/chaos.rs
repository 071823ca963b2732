//! Chaos: clients read and write while nodes are killed, frozen and cut off and disks fill up. Whatever happens, no read sees half a
//! transfer or fewer rows than were acknowledged before, and at the end everything that was acknowledged is there, once, in both copies.
//!
//! `STOA_CHAOS_SEED` chooses other faults; how they meet with what clients do is another matter every time. `STOA_CHAOS_SECONDS` says for
//! how long they go on. One node at a time suffers: more of them may put a partition off line, which tells nothing.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use crate::network::{Network, Running};
use crate::small_disk::SmallDisk;

const SECONDS: u64 = 12;
const SEED: u64 = 1;
const COORDINATORS: usize = 3;
const LEAVES: usize = 4;
const PARTITIONS: usize = 4;
const ACCOUNTS: u64 = 12;
const AMOUNT: u64 = 1000;
/// Megabytes of a leaf's disk.
const DISK: u32 = 96;
/// Within so long everything works again, however slow the machine is.
const LIMIT: Duration = Duration::from_secs(150);
/// So many changes of a kind at least are acknowledged.
const ENOUGH: usize = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The process ends at once, and is started again.
    Kill,
    /// It does not run for a while.
    Freeze,
    /// Nobody reaches it for a while.
    Cut,
    /// Its disk has no room for a while.
    Fill,
}

/// What happens to a coordinator (true) or a leaf, in an order that changes every time round.
const FAULTS: [(Fault, bool); 7] = [
    (Fault::Kill, false),
    (Fault::Freeze, false),
    (Fault::Cut, false),
    (Fault::Fill, false),
    (Fault::Kill, true),
    (Fault::Freeze, true),
    (Fault::Cut, true),
];

/// Coordinators, then leaves.
struct Nodes<'a> {
    network: &'a Network,
    folder: &'a Path,
    running: Vec<Running>,
    /// Of the leaves, where there may be some.
    disks: Vec<Option<SmallDisk>>,
}

impl<'a> Nodes<'a> {
    fn start(network: &'a Network, folder: &'a Path) -> Nodes<'a> {
        let disk = |leaf: usize| SmallDisk::new(&folder.join((COORDINATORS + leaf).to_string()), DISK);
        let disks = (0..LEAVES).map(|leaf| if network.cuts() { disk(leaf) } else { None }).collect();
        let mut nodes = Nodes { network, folder, running: vec![], disks };
        nodes.running.extend((0..COORDINATORS).map(|node| network.start_coordinator(node, folder)));
        for node in COORDINATORS..COORDINATORS + LEAVES {
            nodes.running.push(nodes.start_again(node));
            nodes.sql(&format!("ADD LEAF '{}'", network.address(node))).unwrap();
        }
        nodes.sql(&format!("DROP DATABASE IF EXISTS stoa; CREATE DATABASE stoa PARTITIONS {PARTITIONS} REDUNDANCY 2")).unwrap();
        nodes
    }

    fn sql(&self, sql: &str) -> Result<String, String> {
        self.network.sql(&self.network.addresses(COORDINATORS), sql)
    }

    /// Starts a node with the folder that it had.
    fn start_again(&self, node: usize) -> Running {
        match node.checked_sub(COORDINATORS) {
            None => self.network.start(node, "coordinator", self.folder, None, &[]),
            Some(leaf) => self.network.start(node, "leaf", self.folder, self.disks[leaf].as_ref(), &[]),
        }
    }

    fn kill(&mut self, node: usize) {
        let process = &mut self.running[node].0;
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Has a node suffer for some time, if it can.
    fn strike(&mut self, fault: Fault, node: usize, time: Duration) {
        let disk = node.checked_sub(COORDINATORS).and_then(|leaf| self.disks[leaf].as_ref());
        let pause = || std::thread::sleep(time);
        match fault {
            Fault::Kill => {
                self.kill(node);
                pause();
                self.running[node] = self.start_again(node);
            }
            Fault::Freeze => {
                self.running[node].signal("STOP");
                pause();
                self.running[node].signal("CONT");
            }
            Fault::Cut if self.network.cuts() => {
                self.network.cut(node);
                pause();
                self.network.heal(node);
            }
            Fault::Fill if disk.is_some() => {
                disk.iter().for_each(|disk| disk.fill());
                pause();
                disk.iter().for_each(|disk| disk.make_room());
            }
            Fault::Cut | Fault::Fill => {}
        }
    }

    fn wait_until_whole(&self) {
        let all = self.network.addresses(COORDINATORS);
        self.network.wait_for(&all, "SHOW AGGREGATORS", ",online,", COORDINATORS, LIMIT);
        self.network.wait_for(&all, "SHOW PARTITIONS", ",Slave,", PARTITIONS, LIMIT);
    }

    /// The last lines of all logs.
    fn logs(&self) -> String {
        let tail = |node: usize| {
            let text = fs::read_to_string(self.folder.join(format!("{node}.log"))).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            format!("{}:\n{}\n", self.network.address(node), lines[lines.len().saturating_sub(25)..].join("\n"))
        };
        (0..COORDINATORS + LEAVES).map(tail).collect()
    }
}

/// Changes of a kind, by their numbers.
#[derive(Default)]
struct Changes {
    next: AtomicU64,
    acknowledged: Mutex<BTreeSet<u64>>,
    /// What came of them is not known: they are there, once, or not at all.
    open: Mutex<BTreeSet<u64>>,
}

impl Changes {
    fn count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    /// Those that are there; what was acknowledged must be, once.
    fn check(&self, what: &str, listed: &str) -> BTreeSet<u64> {
        let mut there = BTreeSet::new();
        for number in listed.lines().skip(1).map(|line| line.parse().unwrap()) {
            assert!(there.insert(number), "{what} {number} is there twice");
        }
        let (acknowledged, open) = (self.acknowledged.lock().unwrap(), self.open.lock().unwrap());
        let lost: Vec<_> = acknowledged.difference(&there).collect();
        assert!(lost.is_empty(), "{what} {lost:?} are lost");
        let strange: Vec<_> = there.iter().filter(|n| !acknowledged.contains(n) && !open.contains(n)).collect();
        assert!(strange.is_empty(), "{what} {strange:?} are there and nobody wrote them");
        there
    }
}

/// From which account to which, and how much.
fn transfer(number: u64) -> (u64, u64, u64) {
    let from = number % ACCOUNTS;
    (from, (from + 1 + number / ACCOUNTS % (ACCOUNTS - 1)) % ACCOUNTS, number % 9 + 1)
}

struct Clients<'a> {
    network: &'a Network,
    ended: AtomicBool,
    rows: Changes,
    transfers: Changes,
    reads: AtomicU64,
}

impl Clients<'_> {
    /// A statement through the coordinators, of which this client asks one first.
    fn sql(&self, client: usize, sql: &str) -> Result<String, String> {
        let addresses: Vec<String> = (0..COORDINATORS).map(|n| self.network.address((client + n) % COORDINATORS)).collect();
        let said = self.network.sql(&addresses.join(","), sql);
        if said.is_err() {
            std::thread::sleep(Duration::from_millis(50));
        }
        said
    }

    fn write(&self, client: usize, changes: &Changes, statement: impl Fn(u64) -> String) {
        while !self.ended.load(Ordering::Relaxed) {
            let number = changes.next.fetch_add(1, Ordering::Relaxed);
            let done = self.sql(client, &statement(number)).is_ok();
            let kept = if done { &changes.acknowledged } else { &changes.open };
            kept.lock().unwrap().insert(number);
        }
    }

    fn read(&self, client: usize) {
        let sql = "SELECT count(*) AS n, count(DISTINCT id) AS d FROM rows; SELECT sum(amount) AS s, count(*) AS n FROM accounts";
        let mut seen = 0;
        while !self.ended.load(Ordering::Relaxed) {
            let sure = self.rows.count() as u64;
            let Ok(said) = self.sql(client, sql) else { continue };
            let numbers: Vec<u64> = said.lines().flat_map(|line| line.split(',')).filter_map(|n| n.parse().ok()).collect();
            let [count, distinct, sum, accounts] = numbers[..] else { panic!("{said}") };
            assert_eq!(count, distinct, "rows are there twice");
            assert!(count >= sure.max(seen), "{count} rows after {seen} were seen and {sure} acknowledged");
            assert_eq!((sum, accounts), (ACCOUNTS * AMOUNT, ACCOUNTS), "half a transfer is seen");
            seen = count;
            self.reads.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Runs all of them; whatever one finds ends the others.
    fn run(&self, meanwhile: impl FnOnce()) {
        let ends = |work: &dyn Fn()| {
            let done = catch_unwind(AssertUnwindSafe(work));
            self.ended.store(true, Ordering::Relaxed);
            done.unwrap_or_else(|why| resume_unwind(why));
        };
        let ends = &ends;
        std::thread::scope(|scope| {
            scope.spawn(move || ends(&|| self.write(0, &self.rows, |id| format!("INSERT INTO rows VALUES ({id})"))));
            for client in [1, 2] {
                scope.spawn(move || {
                    ends(&|| {
                        self.write(client, &self.transfers, |number| {
                            let (from, to, amount) = transfer(number);
                            format!(
                                "BEGIN; UPDATE accounts SET amount = amount - {amount} WHERE id = {from}; INSERT INTO transfers \
                                 VALUES ({number}); UPDATE accounts SET amount = amount + {amount} WHERE id = {to}; COMMIT"
                            )
                        });
                    });
                });
                scope.spawn(move || ends(&|| self.read(client)));
            }
            let done = catch_unwind(AssertUnwindSafe(meanwhile));
            let began = Instant::now();
            let enough = || self.rows.count() > ENOUGH && self.transfers.count() > ENOUGH;
            while done.is_ok() && !self.ended.load(Ordering::Relaxed) && !enough() && began.elapsed() < LIMIT {
                std::thread::sleep(Duration::from_millis(50));
            }
            self.ended.store(true, Ordering::Relaxed);
            done.unwrap_or_else(|why| resume_unwind(why));
        });
        assert!(self.rows.count() > ENOUGH && self.transfers.count() > ENOUGH, "the clients hardly wrote anything");
    }

    /// Everything that was acknowledged is there, once.
    fn check(&self) {
        let ok = |sql: &str| self.sql(0, sql).unwrap_or_else(|said| panic!("{sql}: {said}"));
        self.rows.check("row", &ok("SELECT id FROM rows"));
        let mut accounts = vec![AMOUNT; ACCOUNTS as usize];
        for (from, to, amount) in self.transfers.check("transfer", &ok("SELECT id FROM transfers")).into_iter().map(transfer) {
            accounts[from as usize] = accounts[from as usize].wrapping_sub(amount);
            accounts[to as usize] = accounts[to as usize].wrapping_add(amount);
        }
        let line = |(id, amount): (usize, &u64)| format!("{id},{}\n", *amount as i64);
        let expected: String = accounts.iter().enumerate().map(line).collect();
        assert_eq!(ok("SELECT id, amount FROM accounts ORDER BY id"), format!("id,amount\n{expected}"));
    }
}

/// Faults of a seed for so many seconds, and what is true then.
fn run(nodes: &mut Nodes<'_>, seed: u64, seconds: u64) {
    let accounts: Vec<String> = (0..ACCOUNTS).map(|id| format!("({id}, {AMOUNT})")).collect();
    let tables = "CREATE TABLE rows (id BIGINT NOT NULL, SHARD KEY (id)); CREATE TABLE transfers (id BIGINT NOT NULL, SHARD KEY (id)); \
                  CREATE TABLE accounts (id BIGINT PRIMARY KEY, amount BIGINT NOT NULL)";
    nodes.sql(&format!("{tables}; INSERT INTO accounts VALUES {}", accounts.join(", "))).unwrap();
    nodes.wait_until_whole();
    let clients = Clients {
        network: nodes.network,
        ended: AtomicBool::new(false),
        rows: Changes::default(),
        transfers: Changes::default(),
        reads: AtomicU64::new(0),
    };
    let (mut random, began, mut faults) = (StdRng::seed_from_u64(seed), Instant::now(), 0);
    clients.run(|| {
        let mut order = FAULTS;
        while began.elapsed().as_secs() < seconds {
            order.shuffle(&mut random);
            for (fault, coordinator) in order {
                let some = if coordinator { 0..COORDINATORS } else { COORDINATORS..COORDINATORS + LEAVES };
                let (node, time) = (random.random_range(some), Duration::from_millis(random.random_range(50..4500)));
                std::thread::sleep(Duration::from_millis(random.random_range(100..1200)));
                if began.elapsed().as_secs() >= seconds || clients.ended.load(Ordering::Relaxed) {
                    return;
                }
                eprintln!("{:?}: {fault:?} of {} for {time:?}", began.elapsed(), nodes.network.address(node));
                nodes.strike(fault, node, time);
                faults += 1;
                if coordinator {
                    // One that was away may not know yet which leaf has which master.
                    let all = nodes.network.addresses(COORDINATORS);
                    nodes.network.wait_for(&all, "SHOW AGGREGATORS", ",online,", COORDINATORS, LIMIT);
                }
            }
        }
    });
    let (rows, transfers, reads) = (clients.rows.count(), clients.transfers.count(), clients.reads.load(Ordering::Relaxed));
    println!("{faults} faults: {rows} rows, {transfers} transfers, {reads} reads");
    nodes.wait_until_whole();
    clients.check();
    // The other copies have the same. Leaves join the groups in turn.
    for leaf in (0..LEAVES).step_by(2) {
        nodes.kill(COORDINATORS + leaf);
    }
    clients.check();
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

#[test]
fn nothing_is_lost_whatever_fails() {
    let seconds = number("STOA_CHAOS_SECONDS").unwrap_or(SECONDS);
    let seed = number("STOA_CHAOS_SEED").unwrap_or(SEED);
    let how = format!("STOA_CHAOS_SEED={seed} STOA_CHAOS_SECONDS={seconds}");
    eprintln!("{how}");
    let count = COORDINATORS + LEAVES;
    // Without namespaces nodes are killed and frozen.
    let network = Network::new("x", count).unwrap_or_else(|| Network::on_loopback(count));
    let folder = tempfile::tempdir().unwrap();
    let mut nodes = Nodes::start(&network, folder.path());
    if let Err(why) = catch_unwind(AssertUnwindSafe(|| run(&mut nodes, seed, seconds))) {
        let why = why.downcast_ref::<String>().cloned().unwrap_or_else(|| "a client found it".to_owned());
        panic!("{how}: {why}\n{}", nodes.logs());
    }
}
