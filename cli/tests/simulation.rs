//! Replication, failover and rebalance over a simulated network and disk, from one seed.
//!
//! What decides is the real thing: the catalog, what the leading coordinator makes of reports, which copies a master waits for. Around it
//! messages are late, lost or come twice, nodes crash and lose what they had not synced, leaves are cut off from the leader or from each
//! other, leaders are replaced, and live leaves are taken for dead. Whatever happens, a write that was acknowledged is in the log of
//! every later master, once.
//!
//! `STOA_SIMULATION_SEEDS` says how many seeds (50), `STOA_SIMULATION_SEED` the first one.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use stoa_coordinator::catalog::{Catalog, Command, Job, LeafState, NodeId};
use stoa_coordinator::placement::PlacementKind;
use stoa_coordinator::supervision::{commands, in_sync, moves, orders, steps};
use stoa_leaf::FedCopies;
use stoa_rpc::replication::{CopyReport, CopyRole, FedReport, Orders, Position, Report, RoleOrder};

const DATABASE: &str = "d";
const PARTITIONS: u32 = 3;
const LEAVES: u64 = 5;
const STEPS: usize = 4000;

/// A record: its term, and the write that it is of.
type Entry = (u64, u64);

/// A message on its way.
#[derive(Clone, Debug)]
enum Message {
    Orders {
        leader: u64,
        to: NodeId,
        orders: Orders,
    },
    Report {
        leader: u64,
        from: NodeId,
        report: Report,
    },
    /// The master of a term wants to feed a copy.
    Open {
        from: NodeId,
        to: NodeId,
        partition: u32,
        term: u64,
        session: u64,
    },
    Opened {
        from: NodeId,
        to: NodeId,
        partition: u32,
        session: u64,
        log: Vec<Entry>,
    },
    /// All records behind a number; or a whole log that takes the place of the copy's.
    Feed {
        from: NodeId,
        to: NodeId,
        partition: u32,
        session: u64,
        after: usize,
        records: Vec<Entry>,
        anew: bool,
    },
    Fed {
        from: NodeId,
        to: NodeId,
        partition: u32,
        session: u64,
        length: usize,
    },
    /// Another feeds the copy.
    Refused {
        from: NodeId,
        to: NodeId,
        partition: u32,
        session: u64,
    },
}

impl Message {
    fn receiver(&self) -> Option<NodeId> {
        match self {
            Message::Orders { to, .. }
            | Message::Open { to, .. }
            | Message::Opened { to, .. }
            | Message::Feed { to, .. }
            | Message::Fed { to, .. }
            | Message::Refused { to, .. } => Some(*to),
            Message::Report { .. } => None,
        }
    }

    fn sender(&self) -> Option<NodeId> {
        match self {
            Message::Report { from, .. }
            | Message::Open { from, .. }
            | Message::Opened { from, .. }
            | Message::Feed { from, .. }
            | Message::Fed { from, .. }
            | Message::Refused { from, .. } => Some(*from),
            Message::Orders { .. } => None,
        }
    }
}

/// A copy on a leaf. The log up to `synced` outlives a crash; `term` is in it.
#[derive(Default)]
struct Copy {
    log: Vec<Entry>,
    synced: usize,
    term: u64,
    role: Role,
    /// Who may feed it.
    feeder: u64,
}

#[derive(Default)]
enum Role {
    #[default]
    None,
    Replica,
    Master(Box<Master>),
}

struct Master {
    term: u64,
    fed: FedCopies,
    /// The session with each copy, and how much of the log was sent; `None`: it is not open.
    sessions: BTreeMap<String, (u64, Option<usize>)>,
    /// Writes that wait to be acknowledged, with the length of the log that they need.
    waiting: Vec<(u64, usize)>,
}

#[derive(Default)]
struct Leaf {
    up: bool,
    incarnation: u64,
    version: u64,
    sequence: u64,
    copies: BTreeMap<u32, Copy>,
}

/// Whoever leads, or thinks so.
struct Leader {
    number: u64,
    processed: BTreeMap<NodeId, (u64, u64)>,
    reports: BTreeMap<NodeId, Report>,
}

struct World {
    random: StdRng,
    catalog: Catalog,
    leader: Leader,
    /// The orders that earlier leaders may still send: what they knew.
    messages: Vec<Message>,
    leaves: BTreeMap<NodeId, Leaf>,
    /// Leaves that the leader, or the other leaves, cannot reach.
    cut_from_leader: BTreeSet<NodeId>,
    cut_from_leaves: BTreeSet<NodeId>,
    next: u64,
    acknowledged: BTreeMap<u32, BTreeSet<u64>>,
    calm: bool,
    promotions: usize,
}

fn address(id: NodeId) -> String {
    format!("127.0.0.1:{}", 1000 + id.0)
}

fn node(address: &str) -> NodeId {
    NodeId(address.rsplit(':').next().unwrap().parse::<u64>().unwrap() - 1000)
}

impl World {
    fn new(seed: u64) -> World {
        let mut catalog = Catalog::default();
        for number in 1..=LEAVES {
            catalog.apply(&Command::AddLeaf { address: address(NodeId(number)), group: None }).unwrap();
        }
        let placement = if seed.is_multiple_of(2) { PlacementKind::LoadBalanced } else { PlacementKind::Paired };
        let made = Command::CreateDatabase { name: DATABASE.into(), partitions: PARTITIONS, redundancy: 2, placement };
        catalog.apply(&made).unwrap();
        let leaf = |number| (NodeId(number), Leaf { up: true, incarnation: 1, ..Leaf::default() });
        World {
            random: StdRng::seed_from_u64(seed),
            catalog,
            leader: Leader { number: 1, processed: BTreeMap::new(), reports: BTreeMap::new() },
            messages: vec![],
            leaves: (1..=LEAVES).map(leaf).collect(),
            cut_from_leader: BTreeSet::new(),
            cut_from_leaves: BTreeSet::new(),
            next: 1,
            acknowledged: BTreeMap::new(),
            calm: false,
            promotions: 0,
        }
    }

    fn chance(&mut self, of: f64) -> bool {
        self.random.random_bool(of)
    }

    fn any_leaf(&mut self) -> NodeId {
        NodeId(self.random.random_range(1..=LEAVES))
    }

    fn step(&mut self) {
        match self.random.random_range(0..100) {
            0..=44 => self.deliver(),
            45..=59 => self.heartbeat(),
            60..=74 => self.write(),
            75..=84 => self.sync(),
            85..=92 => self.talk(),
            93..=95 => self.judge(),
            _ if self.calm => self.deliver(),
            _ => self.trouble(),
        }
        self.acknowledge();
    }

    fn trouble(&mut self) {
        let leaf = self.any_leaf();
        match self.random.random_range(0..14) {
            0 | 1 => self.crash(leaf),
            2..=4 => self.start(leaf),
            5 => drop(self.cut_from_leader.insert(leaf)),
            6 => drop(self.cut_from_leaves.insert(leaf)),
            7 => self.cut_from_leader.clear(),
            8 => self.cut_from_leaves.clear(),
            9 => self.new_leader(),
            10 => {
                let job = [Job::Rebalance, Job::RestoreRedundancy, Job::Drain(leaf)][self.random.random_range(0..3)];
                let _ = self.catalog.apply(&Command::SetJob { database: DATABASE.into(), job: Some(job) });
            }
            11 => drop(self.catalog.apply(&Command::SetJob { database: DATABASE.into(), job: None })),
            12 => drop(self.messages.drain(..self.messages.len() / 2)),
            _ => {
                let count = self.messages.len();
                if count > 0 {
                    let again = self.messages[self.random.random_range(0..count)].clone();
                    self.messages.push(again);
                }
            }
        }
    }

    fn crash(&mut self, leaf: NodeId) {
        let mut lost: Vec<usize> = Vec::new();
        let copies = self.leaves[&leaf].copies.values();
        let unsynced: Vec<usize> = copies.map(|copy| copy.log.len() - copy.synced).collect();
        for count in unsynced {
            lost.push(self.random.random_range(0..=count));
        }
        let leaf = self.leaves.get_mut(&leaf).unwrap();
        leaf.up = false;
        for (copy, lost) in leaf.copies.values_mut().zip(lost) {
            copy.log.truncate(copy.log.len() - lost);
            copy.synced = copy.log.len();
            copy.term = copy.log.last().map_or(0, |entry| entry.0);
            copy.role = Role::None;
        }
    }

    fn start(&mut self, leaf: NodeId) {
        let leaf = self.leaves.get_mut(&leaf).unwrap();
        if !leaf.up {
            (leaf.up, leaf.version, leaf.sequence, leaf.incarnation) = (true, 0, 0, leaf.incarnation + 1);
        }
    }

    /// Another coordinator leads: it knows the catalog, and nothing else.
    fn new_leader(&mut self) {
        let number = self.leader.number + 1;
        self.leader = Leader { number, processed: BTreeMap::new(), reports: BTreeMap::new() };
    }

    fn heartbeat(&mut self) {
        let to = self.any_leaf();
        let processed = self.leader.processed.get(&to).copied().unwrap_or_default();
        let copies = orders(&self.catalog, to);
        let made = Orders { version: self.catalog.version, processed, copies, ..Orders::default() };
        self.messages.push(Message::Orders { leader: self.leader.number, to, orders: made });
    }

    /// The leader takes a leaf for gone, rightly or not.
    fn judge(&mut self) {
        let leaf = self.any_leaf();
        let down = !self.leaves[&leaf].up || self.cut_from_leader.contains(&leaf);
        let wrong = !self.calm && self.chance(0.1);
        if (down || wrong) && self.catalog.leaves[&leaf].state == LeafState::Online {
            self.change(&Command::TakeOut { address: address(leaf), state: LeafState::Offline });
        }
        if let Some(job) = self.catalog.databases[DATABASE].job {
            let left = steps(&self.catalog, &self.catalog.databases[DATABASE], job);
            if !left.is_ok_and(|steps| !steps.is_empty()) {
                self.change(&Command::SetJob { database: DATABASE.into(), job: None });
            }
        }
    }

    fn change(&mut self, command: &Command) {
        let masters = |catalog: &Catalog| -> Vec<Option<NodeId>> {
            catalog.databases[DATABASE].partitions.iter().map(|p| p.copies.master).collect()
        };
        let before = masters(&self.catalog);
        let _ = self.catalog.apply(command);
        self.promotions += masters(&self.catalog).iter().zip(before).filter(|(now, before)| *now != before).count();
    }

    fn deliver(&mut self) {
        if self.messages.is_empty() {
            return;
        }
        // Mostly in order, but not always.
        let count = self.messages.len();
        let at = if self.chance(0.8) { 0 } else { self.random.random_range(0..count) };
        let message = self.messages.remove(at);
        let lossy = !self.calm && self.chance(0.05);
        let nodes = [message.receiver(), message.sender()];
        let dead = nodes.iter().flatten().any(|id| !self.leaves[id].up);
        let from_leaves = nodes.iter().all(Option::is_some);
        let cut = if from_leaves { &self.cut_from_leaves } else { &self.cut_from_leader };
        let cut = nodes.iter().flatten().any(|id| cut.contains(id));
        if !lossy && !dead && !cut {
            self.receive(message);
        }
    }

    fn receive(&mut self, message: Message) {
        match message {
            Message::Orders { leader, to, orders } => self.take_orders(leader, to, &orders),
            Message::Report { leader, from, report } => self.take_report(leader, from, &report),
            Message::Open { from, to, partition, term, session } => self.open(from, to, partition, term, session),
            Message::Opened { from, to, partition, session, log } => self.opened(from, to, partition, session, &log),
            Message::Feed { from, to, partition, session, after, records, anew } => {
                let copy = self.leaves.get_mut(&to).unwrap().copies.entry(partition).or_default();
                if copy.feeder != session || !matches!(copy.role, Role::Replica) {
                    return self.messages.push(Message::Refused { from: to, to: from, partition, session });
                }
                if anew {
                    copy.log.clear();
                }
                if copy.log.len() != after {
                    // An answer was lost: the master learns where the copy stands.
                    let log = copy.log.clone();
                    return self.messages.push(Message::Opened { from: to, to: from, partition, session, log });
                }
                copy.log.extend(records);
                copy.synced = copy.log.len();
                copy.term = copy.term.max(copy.log.last().map_or(0, |entry| entry.0));
                let length = copy.log.len();
                self.messages.push(Message::Fed { from: to, to: from, partition, session, length });
            }
            Message::Refused { from, to, partition, session } => {
                let copy = self.leaves.get_mut(&to).unwrap().copies.entry(partition).or_default();
                let Role::Master(master) = &mut copy.role else { return };
                if master.sessions.get(&address(from)).is_some_and(|(known, _)| *known == session) {
                    master.sessions.remove(&address(from));
                }
            }
            Message::Fed { from, to, partition, session, length } => {
                let copy = self.leaves.get_mut(&to).unwrap().copies.entry(partition).or_default();
                let Role::Master(master) = &mut copy.role else { return };
                if let Some((known, sent)) = master.sessions.get_mut(&address(from))
                    && *known == session
                {
                    *sent = Some(length);
                    master.fed.acknowledge(&address(from), length as u64);
                }
            }
        }
    }

    fn take_orders(&mut self, leader: u64, to: NodeId, orders: &Orders) {
        let leaf = self.leaves.get_mut(&to).unwrap();
        if orders.version >= leaf.version.max(1) {
            leaf.version = orders.version;
            let processed = if orders.processed.0 == leaf.incarnation { orders.processed.1 } else { 0 };
            for order in &orders.copies {
                let copy = leaf.copies.entry(order.ordinal).or_default();
                if order.term < copy.term && !matches!(copy.role, Role::None) {
                    continue;
                }
                match &order.role {
                    RoleOrder::Replica => {
                        copy.role = Role::Replica;
                        copy.synced = copy.log.len();
                    }
                    RoleOrder::Master { in_sync, feed } => {
                        if let Role::Master(master) = &mut copy.role
                            && master.term == order.term
                        {
                            master.keep(in_sync, feed, processed);
                        } else if order.term >= copy.log.last().map_or(0, |entry| entry.0) {
                            become_master(copy, order.term, in_sync, feed);
                            let log = &copy.log;
                            let sure = self.acknowledged.entry(order.ordinal).or_default();
                            let there: BTreeSet<u64> = log.iter().map(|entry| entry.1).collect();
                            assert!(sure.is_subset(&there), "partition {} lost writes at {to:?}", order.ordinal);
                        }
                    }
                }
                copy.term = order.term;
            }
            for (partition, copy) in &mut leaf.copies {
                if !orders.copies.iter().any(|order| order.ordinal == *partition) {
                    copy.role = Role::None;
                }
            }
        }
        leaf.sequence += 1;
        let number = leaf.sequence;
        let copies = leaf.copies.iter_mut().map(|(ordinal, copy)| report(*ordinal, copy, number)).collect();
        let report =
            Report { incarnation: leaf.incarnation, sequence: number, version: leaf.version, copies, ..Report::default() };
        self.messages.push(Message::Report { leader, from: to, report });
    }

    /// As the supervisor does: everything that follows from a report is in the catalog before the report counts as dealt with.
    fn take_report(&mut self, leader: u64, from: NodeId, report: &Report) {
        // A leader that was replaced cannot change the catalog any more.
        if leader != self.leader.number {
            return;
        }
        let seen = self.leader.reports.get(&from).map(|r| (r.incarnation, r.sequence));
        if seen >= Some((report.incarnation, report.sequence)) {
            return;
        }
        self.leader.reports.insert(from, report.clone());
        if self.catalog.leaves[&from].state == LeafState::Offline {
            self.change(&Command::SetLeafState { address: address(from), state: LeafState::Online });
            return;
        }
        for command in commands(&self.catalog, from, report) {
            self.change(&command);
        }
        let database = self.catalog.databases[DATABASE].clone();
        if let Some(Ok(steps)) = database.job.map(|job| steps(&self.catalog, &database, job)) {
            let ready = |ordinal: u32, leaf: NodeId| in_sync(&self.catalog, &self.leader.reports, DATABASE, ordinal, leaf);
            let mut next = moves(DATABASE, &database, &steps, &ready);
            next.changes.retain(|change| database.partitions[change.partition as usize].copies.master == Some(from));
            if !next.changes.is_empty() {
                self.change(&Command::SetPartitions(next.changes));
            }
        }
        self.leader.processed.insert(from, (report.incarnation, report.sequence));
    }

    fn open(&mut self, from: NodeId, to: NodeId, partition: u32, term: u64, session: u64) {
        let copy = self.leaves.get_mut(&to).unwrap().copies.entry(partition).or_default();
        let refused = match &copy.role {
            Role::None => true,
            Role::Master(master) => master.term >= term,
            Role::Replica => term < copy.term,
        };
        if refused {
            return;
        }
        (copy.role, copy.term, copy.feeder, copy.synced) = (Role::Replica, term, session, copy.log.len());
        let log = copy.log.clone();
        self.messages.push(Message::Opened { from: to, to: from, partition, session, log });
    }

    /// The copy stands somewhere: it goes on from there, or is made anew.
    fn opened(&mut self, from: NodeId, to: NodeId, partition: u32, session: u64, log: &[Entry]) {
        let copy = self.leaves.get_mut(&to).unwrap().copies.entry(partition).or_default();
        let Role::Master(master) = &mut copy.role else { return };
        let Some((known, sent)) = master.sessions.get_mut(&address(from)) else { return };
        if *known != session {
            return;
        }
        // Log matching: the last record says it all.
        let length = log.len();
        let prefix = length <= copy.log.len() && (length == 0 || copy.log[length - 1] == log[length - 1]);
        if prefix {
            *sent = Some(length);
            master.fed.acknowledge(&address(from), length as u64);
            return;
        }
        *sent = None;
        let records: Vec<Entry> = copy.log.clone();
        master.fed.copy_anew(&address(from), 0, (0, 1));
        self.messages.push(Message::Feed { from: to, to: from, partition, session, after: 0, records, anew: true });
    }

    /// A master sends what a copy lacks, or finds out that it is not there.
    fn talk(&mut self) {
        let from = self.any_leaf();
        let session = self.next;
        self.next += 1;
        let fails = !self.calm && self.chance(0.15);
        // An answer that does not come is waited for, a while.
        let patient = self.chance(0.8);
        let leaf = self.leaves.get_mut(&from).unwrap();
        if !leaf.up {
            return;
        }
        for (partition, copy) in &mut leaf.copies {
            let (log, Role::Master(master)) = (&copy.log, &mut copy.role) else { continue };
            master.sessions.retain(|address, _| master.fed.has(address));
            let (partition, term) = (*partition, master.term);
            for fed in master.fed.clone().report(0) {
                let to = node(&fed.address);
                match master.sessions.get(&fed.address) {
                    Some((open, Some(sent))) if !fails => {
                        let (after, session) = (*sent, *open);
                        let records = log[after..].to_vec();
                        self.messages.push(Message::Feed { from, to, partition, session, after, records, anew: false });
                    }
                    Some((_, None)) if patient => {}
                    _ => {
                        if fails {
                            master.fed.fail(&fed.address, "lost".into(), true);
                        }
                        master.sessions.insert(fed.address.clone(), (session, None));
                        self.messages.push(Message::Open { from, to, partition, term, session });
                    }
                }
            }
        }
    }

    /// A client writes to whom it takes for the master.
    fn write(&mut self) {
        let partition = self.random.random_range(0..PARTITIONS);
        let leaf = self.any_leaf();
        let write = self.next;
        self.next += 1;
        let leaf = self.leaves.get_mut(&leaf).unwrap();
        let up = leaf.up;
        let Some(copy) = leaf.copies.get_mut(&partition).filter(|_| up) else { return };
        if let Role::Master(master) = &mut copy.role {
            copy.log.push((master.term, write));
            master.fed.written(copy.log.len() as u64);
            master.waiting.push((write, copy.log.len()));
        }
    }

    fn sync(&mut self) {
        let leaf = self.any_leaf();
        self.leaves.get_mut(&leaf).unwrap().copies.values_mut().for_each(|copy| copy.synced = copy.log.len());
    }

    /// Masters acknowledge what is on disk here and wherever it has to be.
    fn acknowledge(&mut self) {
        for leaf in self.leaves.values_mut().filter(|leaf| leaf.up) {
            for (partition, copy) in &mut leaf.copies {
                let (synced, Role::Master(master)) = (copy.synced, &mut copy.role) else { continue };
                let acknowledged = self.acknowledged.entry(*partition).or_default();
                master.waiting.retain(|(write, length)| {
                    let sure = *length <= synced && master.fed.all_have(*length as u64);
                    if sure {
                        acknowledged.insert(*write);
                    }
                    !sure
                });
            }
        }
    }

    /// All troubles end: every partition gets its master and its replica, and nothing that was acknowledged is missing or twice.
    fn settle(&mut self) {
        self.calm = true;
        self.cut_from_leader.clear();
        self.cut_from_leaves.clear();
        let ids: Vec<NodeId> = self.leaves.keys().copied().collect();
        ids.iter().for_each(|id| self.start(*id));
        self.change(&Command::SetJob { database: DATABASE.into(), job: None });
        (0..STEPS).for_each(|_| self.step());
        self.change(&Command::SetJob { database: DATABASE.into(), job: Some(Job::Rebalance) });
        (0..3 * STEPS).for_each(|_| self.step());
        let database = &self.catalog.databases[DATABASE];
        assert_eq!(database.job, None, "the rebalance does not end: {:?}", database.partitions);
        for (ordinal, partition) in (0u32..).zip(&database.partitions) {
            let master = partition.copies.master.expect("a partition has a master");
            assert_eq!(partition.copies.replicas.len(), 1, "partition {ordinal}: {:?}", partition.copies);
            let copy = &self.leaves[&master].copies[&ordinal];
            assert!(matches!(&copy.role, Role::Master(m) if m.term == partition.term), "partition {ordinal} is not led");
            let writes: Vec<u64> = copy.log.iter().map(|entry| entry.1).filter(|write| *write > 0).collect();
            let once: BTreeSet<u64> = writes.iter().copied().collect();
            assert_eq!(writes.len(), once.len(), "partition {ordinal} has writes twice");
            assert!(self.acknowledged[&ordinal].is_subset(&once), "partition {ordinal} lost writes");
        }
    }
}

impl Master {
    fn keep(&mut self, in_sync: &[String], feed: &[String], processed: u64) {
        self.fed.keep(in_sync, feed, processed);
    }
}

/// What was not acknowledged before counts, and a record of the new term says nothing.
fn become_master(copy: &mut Copy, term: u64, in_sync: &[String], feed: &[String]) {
    if copy.log.last().map_or(0, |entry| entry.0) < term {
        copy.log.push((term, 0));
    }
    copy.synced = copy.log.len();
    let mut master = Master { term, fed: FedCopies::new(copy.log.len() as u64), sessions: BTreeMap::new(), waiting: vec![] };
    master.keep(in_sync, feed, 0);
    copy.role = Role::Master(Box::new(master));
}

fn report(ordinal: u32, copy: &mut Copy, number: u64) -> CopyReport {
    let (role, fed): (CopyRole, Vec<FedReport>) = match &mut copy.role {
        Role::None => (CopyRole::None, vec![]),
        Role::Replica => (CopyRole::Replica, vec![]),
        Role::Master(master) => (CopyRole::Master, master.fed.report(number)),
    };
    let position = Position { lsn: copy.log.len() as u64, term: copy.term, checksum: 0 };
    let database = DATABASE.to_owned();
    CopyReport { database, ordinal, term: copy.term, role, position, failure: String::new(), fed, bytes: 0 }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn nothing_acknowledged_is_lost_or_doubled() {
    let (first, count) = (number("STOA_SIMULATION_SEED", 1), number("STOA_SIMULATION_SEEDS", 50));
    let (mut writes, mut promotions) = (0, 0);
    for seed in first..first + count {
        let run = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            (0..STEPS).for_each(|_| world.step());
            let writes: usize = world.acknowledged.values().map(BTreeSet::len).sum();
            world.settle();
            (writes, world.promotions)
        });
        let Ok((some, changed)) = run else { panic!("seed {seed}: STOA_SIMULATION_SEED={seed} STOA_SIMULATION_SEEDS=1") };
        (writes, promotions) = (writes + some, promotions + changed);
    }
    println!("{count} seeds: {writes} writes acknowledged in trouble, {promotions} promotions");
    assert!(writes as u64 > 5 * count && promotions as u64 > 2 * count, "{writes} writes, {promotions} promotions");
}
