//! Replication, failover and rebalance over a simulated network and disk, from one seed.
//!
//! What decides is the real thing: the catalog, what the leading coordinator makes of reports, which copies a master waits for. So is
//! what stores: each copy is a data directory, whose commits, records and terms are those of a leaf ([`leaf`]). Around it messages are
//! late, lost or come twice, machines stop and lose what they had not synced, some lose their disks, leaves are cut off from the leader
//! or from each other, leaders are replaced, and live leaves are taken for dead. Whatever happens, a write that was acknowledged, or that somebody has
//! read, is in the log of every later master, once.
//!
//! `STOA_SIMULATION_SEEDS` says how many seeds (50), `STOA_SIMULATION_SEED` the first one.

#[allow(dead_code, reason = "others use the rest")]
#[path = "../../../columnstore/tests/model/disk.rs"]
mod disk;
mod leaf;
mod message;

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use stoa_columnstore::{LogRecord, Position};
use stoa_coordinator::catalog::{Catalog, Command, Job, LeafState, NodeId, Partition};
use stoa_coordinator::placement::PlacementKind;
use stoa_coordinator::supervision::{commands, in_sync, moves, orders, steps};
use stoa_leaf::{is_lost, report_lost};
use stoa_rpc::replication::{Orders, Report, RoleOrder};

use leaf::{Leaf, Role};
use message::Message;

const DATABASE: &str = "d";
const PARTITIONS: u32 = 3;
const LEAVES: u64 = 5;
const STEPS: usize = 4000;

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
    wiped: usize,
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
        let made = Command::CreateDatabase {
            name: DATABASE.into(),
            partitions: PARTITIONS,
            redundancy: 2,
            placement,
            asynchronous: false,
        };
        catalog.apply(&made).unwrap();
        let mut leaves: BTreeMap<NodeId, Leaf> = (1..=LEAVES).map(|n| (NodeId(n), Leaf::new(seed << 8 | n))).collect();
        for (ordinal, partition) in (0..).zip(&catalog.databases[DATABASE].partitions) {
            leaves.get_mut(&partition.copies.master.unwrap()).unwrap().made(ordinal);
        }
        World {
            random: StdRng::seed_from_u64(seed),
            catalog,
            leader: Leader { number: 1, processed: BTreeMap::new(), reports: BTreeMap::new() },
            messages: vec![],
            leaves,
            cut_from_leader: BTreeSet::new(),
            cut_from_leaves: BTreeSet::new(),
            next: 1,
            acknowledged: BTreeMap::new(),
            calm: false,
            promotions: 0,
            wiped: 0,
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
            0..=51 => self.deliver(),
            52..=66 => self.heartbeat(),
            67..=81 => self.write(),
            82..=84 => self.read(),
            85..=92 => self.talk(),
            93..=95 => self.judge(),
            _ if self.calm => self.deliver(),
            _ => self.trouble(),
        }
        self.acknowledge();
    }

    fn trouble(&mut self) {
        let leaf = self.any_leaf();
        match self.random.random_range(0..15) {
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
            13 => self.wipe(leaf),
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
        self.leaf(leaf).crash();
        // Connections end with the process.
        self.messages.retain(|message| message.receiver() != Some(leaf));
    }

    fn start(&mut self, leaf: NodeId) {
        self.leaf(leaf).start();
    }

    /// A leaf loses its disk and is back at once, unless nobody else has what was acknowledged.
    fn wipe(&mut self, id: NodeId) {
        let has_all = |(ordinal, partition): (u32, &Partition)| {
            let acknowledged = self.acknowledged.get(&ordinal).cloned().unwrap_or_default();
            partition.copies.roles().filter(|other| *other != id).any(|other| {
                let copy = self.leaves[&other].copies.get(&ordinal);
                let whole = |copy: &leaf::Copy| acknowledged.is_subset(&copy.rows().into_iter().collect());
                copy.is_some_and(|copy| copy.database.position().lsn > 0 && whole(copy))
            })
        };
        if (0..).zip(&self.catalog.databases[DATABASE].partitions).all(has_all) {
            self.crash(id);
            // What it said before may tell that who has everything is out of sync: then two have failed.
            self.messages.retain(|message| message.sender() != Some(id));
            self.wiped += 1;
            let seed = self.random.random();
            self.leaf(id).wipe(seed);
            self.start(id);
        }
    }

    fn leaf(&mut self, leaf: NodeId) -> &mut Leaf {
        self.leaves.get_mut(&leaf).unwrap()
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
            Message::Opened { from, to, partition, session, position } => self.opened(from, to, partition, session, position),
            Message::Feed { from, to, partition, session, after, records, anew } => {
                let answer = self.feed(to, partition, session, after, &records, anew);
                let (from, to) = (to, from);
                self.messages.push(match answer {
                    None => Message::Refused { from, to, partition, session },
                    // An answer was lost: the master learns where the copy stands.
                    Some((false, position)) => Message::Opened { from, to, partition, session, position },
                    Some((true, position)) => Message::Fed { from, to, partition, session, lsn: position.lsn },
                });
            }
            Message::Refused { from, to, partition, session } => {
                let Some(Role::Master(master)) = self.role(to, partition) else { return };
                if master.sessions.get(&address(from)).is_some_and(|(known, _)| *known == session) {
                    master.sessions.remove(&address(from));
                }
            }
            Message::Fed { from, to, partition, session, lsn } => {
                let Some(Role::Master(master)) = self.role(to, partition) else { return };
                if let Some((known, sent)) = master.sessions.get_mut(&address(from))
                    && *known == session
                {
                    *sent = Some(lsn);
                    master.gate.change(|fed| fed.acknowledge(&address(from), lsn));
                }
            }
        }
    }

    fn role(&mut self, leaf: NodeId, partition: u32) -> Option<&mut Role> {
        self.leaf(leaf).copies.get_mut(&partition).map(|copy| &mut copy.role)
    }

    /// A copy takes records: where it stands then, and whether it took them. `None`: another feeds it.
    fn feed(
        &mut self,
        leaf: NodeId,
        partition: u32,
        session: u64,
        after: u64,
        records: &[LogRecord],
        anew: bool,
    ) -> Option<(bool, Position)> {
        let copy = self.leaf(leaf).copies.get_mut(&partition)?;
        if copy.feeder != session || !matches!(copy.role, Role::Replica) {
            return None;
        }
        if anew {
            return self.leaf(leaf).copy_anew(partition, records).ok().map(|position| (true, position));
        }
        let stands = copy.database.position();
        if stands.lsn != after {
            return Some((false, stands));
        }
        let sent: Vec<LogRecord> = records.iter().map(|r| LogRecord::new(r.lsn, r.term, r.body.clone())).collect();
        let taken = if sent.is_empty() { Ok(stands) } else { copy.database.replicate(&sent) };
        taken.ok().map(|position| (true, position))
    }

    fn take_orders(&mut self, leader: u64, to: NodeId, orders: &Orders) {
        let leaf = self.leaves.get_mut(&to).unwrap();
        if orders.version >= leaf.version.max(1) {
            leaf.version = orders.version;
            let processed = if orders.processed.0 == leaf.incarnation { orders.processed.1 } else { 0 };
            leaf.lost.clear();
            for order in &orders.copies {
                if is_lost(order, leaf.copies.get(&order.ordinal).map(|copy| copy.database.position().lsn)) {
                    leaf.lost.push(order.clone());
                    continue;
                }
                let copy = leaf.made(order.ordinal);
                if order.term < copy.term && !matches!(copy.role, Role::None) {
                    continue;
                }
                match (&order.role, &copy.role) {
                    (RoleOrder::Replica, _) => copy.become_replica(),
                    (RoleOrder::Master { in_sync, feed }, Role::Master(master)) if master.term == order.term => {
                        drop(master.gate.change(|fed| fed.keep(in_sync, feed, processed)));
                    }
                    (RoleOrder::Master { in_sync, feed }, _) => copy.become_master(order.term, in_sync, feed),
                }
                copy.term = order.term;
            }
            for (partition, copy) in &mut leaf.copies {
                if !orders.copies.iter().any(|order| order.ordinal == *partition) {
                    copy.leave(Role::None);
                }
            }
        }
        leaf.sequence += 1;
        let number = leaf.sequence;
        let lost = leaf.lost.iter().map(report_lost);
        let copies = leaf.copies.iter_mut().map(|(ordinal, copy)| copy.report(*ordinal, number)).chain(lost).collect();
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
        let leaf = &self.catalog.leaves[&from];
        if leaf.state == LeafState::Offline {
            let others = self.catalog.leaves.values().any(|leaf| leaf.state == LeafState::Online);
            if leaf.behind && !others {
                return;
            }
            self.change(&Command::Receive { address: address(from) });
            self.change(&Command::SetLeafState { address: address(from), state: LeafState::Online });
            return;
        }
        for command in commands(&self.catalog, from, report) {
            self.change(&command);
        }
        let database = self.catalog.databases[DATABASE].clone();
        if let Some(Ok(steps)) = database.job.map(|job| steps(&self.catalog, &database, job)) {
            let ready = |ordinal: u32, leaf: NodeId| in_sync(&self.catalog, &self.leader.reports, DATABASE, ordinal, leaf);
            let mut next = moves(&self.catalog, DATABASE, &steps, &ready);
            next.changes.retain(|change| database.partitions[change.partition as usize].copies.master == Some(from));
            if !next.changes.is_empty() {
                self.change(&Command::SetPartitions(next.changes));
            }
        }
        self.leader.processed.insert(from, (report.incarnation, report.sequence));
    }

    fn open(&mut self, from: NodeId, to: NodeId, partition: u32, term: u64, session: u64) {
        let Some(copy) = self.leaf(to).copies.get_mut(&partition) else { return };
        let refused = match &copy.role {
            Role::None => true,
            Role::Master(master) => master.term >= term,
            Role::Replica => false,
        };
        if refused || term < copy.term {
            return;
        }
        copy.become_replica();
        (copy.term, copy.feeder) = (term, session);
        let position = copy.database.position();
        self.messages.push(Message::Opened { from: to, to: from, partition, session, position });
    }

    /// The copy stands somewhere: it goes on from there, or is made anew.
    fn opened(&mut self, from: NodeId, to: NodeId, partition: u32, session: u64, position: Position) {
        let Some(copy) = self.leaf(to).copies.get_mut(&partition) else { return };
        let Role::Master(master) = &mut copy.role else { return };
        let Some((known, sent)) = master.sessions.get_mut(&address(from)) else { return };
        if *known != session {
            return;
        }
        if position.lsn == 0 && master.gate.change(|fed| fed.counts(&address(from))) {
            master.sessions.remove(&address(from));
            return master.gate.change(|fed| fed.fail(&address(from), "it has lost what it had".into(), true));
        }
        if copy.database.has(position).unwrap() {
            *sent = Some(position.lsn);
            return master.gate.change(|fed| fed.acknowledge(&address(from), position.lsn));
        }
        *sent = None;
        let records = copy.database.records_after(0, usize::MAX).unwrap().unwrap();
        master.gate.change(|fed| fed.copy_anew(&address(from), 0, (0, 1)));
        self.messages.push(Message::Feed { from: to, to: from, partition, session, after: 0, records, anew: true });
    }

    /// A master sends what a copy lacks, or finds out that it is not there.
    fn talk(&mut self) {
        let from = self.any_leaf();
        let fails = !self.calm && self.chance(0.15);
        // An answer that does not come is waited for, a while.
        let patient = self.chance(0.8);
        self.send(from, fails, patient);
    }

    fn send(&mut self, from: NodeId, fails: bool, patient: bool) {
        let session = self.next;
        self.next += 1;
        let leaf = self.leaves.get_mut(&from).unwrap();
        if !leaf.up {
            return;
        }
        for (partition, copy) in &mut leaf.copies {
            let (database, Role::Master(master)) = (&copy.database, &mut copy.role) else { continue };
            let (partition, term) = (*partition, master.term);
            let fed = master.gate.change(|fed| fed.clone().report(0));
            master.sessions.retain(|address, _| fed.iter().any(|fed| fed.address == *address));
            for fed in fed {
                let to = node(&fed.address);
                match master.sessions.get(&fed.address) {
                    Some((open, Some(sent))) if !fails => {
                        let (after, session) = (*sent, *open);
                        // A machine that stops may not read its log any more.
                        if let Ok(records) = database.records_after(after, usize::MAX) {
                            let (records, anew) = (records.unwrap(), false);
                            self.messages.push(Message::Feed { from, to, partition, session, after, records, anew });
                        }
                    }
                    Some((_, None)) if patient => {}
                    _ => {
                        if fails {
                            master.gate.change(|of| of.fail(&fed.address, "lost".into(), true));
                        }
                        master.sessions.insert(fed.address.clone(), (session, None));
                        self.messages.push(Message::Open { from, to, partition, term, session });
                    }
                }
            }
        }
    }

    /// A client writes to whom it takes for the master. The machine may stop before the record is on disk, and after others have it.
    fn write(&mut self) {
        let partition = self.random.random_range(0..PARTITIONS);
        let id = self.any_leaf();
        let write = self.next;
        self.next += 1;
        let stops = !self.calm && self.chance(0.02);
        if self.leaves[&id].up {
            self.leaf(id).write(partition, write, stops);
        }
        if stops && self.leaves[&id].has_stopped() {
            if self.chance(0.5) {
                self.send(id, false, true);
            }
            self.crash(id);
        }
    }

    /// A client reads: what it has seen stays.
    fn read(&mut self) {
        let partition = self.random.random_range(0..PARTITIONS);
        let id = self.any_leaf();
        if let Some(copy) = self.leaves[&id].copies.get(&partition).filter(|copy| copy.serves()) {
            let rows = copy.rows();
            let there: BTreeSet<u64> = rows.iter().copied().collect();
            assert_eq!(there.len(), rows.len(), "partition {partition} has writes twice at {id:?}");
            // One that does not know yet that another is the master may have less.
            let term = self.catalog.databases[DATABASE].partitions[partition as usize].term;
            let sure = self.acknowledged.entry(partition).or_default();
            assert!(copy.term < term || sure.is_subset(&there), "partition {partition} lost writes at {id:?}");
            sure.extend(there);
        }
    }

    /// Masters have acknowledged what is on disk here and wherever it has to be.
    fn acknowledge(&mut self) {
        for leaf in self.leaves.values_mut().filter(|leaf| leaf.up) {
            for (partition, copy) in &mut leaf.copies {
                self.acknowledged.entry(*partition).or_default().extend(copy.acknowledged());
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
        (0..2 * STEPS).for_each(|_| self.step());
        let database = &self.catalog.databases[DATABASE];
        assert_eq!(database.job, None, "the rebalance does not end: {:?}", database.partitions);
        for (ordinal, partition) in (0u32..).zip(&database.partitions) {
            let master = partition.copies.master.expect("a partition has a master");
            assert_eq!(partition.copies.replicas.len(), 1, "partition {ordinal}: {:?}", partition.copies);
            let copy = &self.leaves[&master].copies[&ordinal];
            assert!(matches!(&copy.role, Role::Master(m) if m.term == partition.term), "partition {ordinal} is not led");
            let writes = copy.rows();
            let once: BTreeSet<u64> = writes.iter().copied().collect();
            assert_eq!(writes.len(), once.len(), "partition {ordinal} has writes twice");
            assert!(self.acknowledged[&ordinal].is_subset(&once), "partition {ordinal} lost writes");
        }
    }

    /// Both copies of a partition die at once, and are found to be gone in any order: the first that is back serves, alone.
    fn lose_both(&mut self) {
        let partition = self.random.random_range(0..PARTITIONS);
        let copies = |world: &World| world.catalog.databases[DATABASE].partitions[partition as usize].copies.clone();
        let mut both: Vec<NodeId> = copies(self).roles().collect();
        both.iter().for_each(|leaf| self.crash(*leaf));
        for turned in [self.chance(0.5), self.chance(0.5)] {
            if turned {
                both.reverse();
            }
            let gone = |leaf: &NodeId| Command::TakeOut { address: address(*leaf), state: LeafState::Offline };
            both.iter().map(gone).for_each(|gone| self.change(&gone));
        }
        let before = self.acknowledged[&partition].clone();
        self.start(both[0]);
        (0..STEPS).for_each(|_| self.step());
        assert_eq!(copies(self).master, Some(both[0]), "partition {partition} is not led by whoever is back first");
        let now = &self.acknowledged[&partition];
        assert!(now.is_superset(&before) && now.len() > before.len(), "partition {partition} takes no writes");
        self.start(both[1]);
        (0..STEPS).for_each(|_| self.step());
        assert_eq!(copies(self).replicas, [both[1]], "partition {partition} has no replica");
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn nothing_acknowledged_is_lost_or_doubled() {
    let (first, count) = (number("STOA_SIMULATION_SEED", 1), number("STOA_SIMULATION_SEEDS", 50));
    let (mut writes, mut promotions, mut wiped) = (0, 0, 0);
    for seed in first..first + count {
        let run = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            (0..STEPS).for_each(|_| world.step());
            let writes: usize = world.acknowledged.values().map(BTreeSet::len).sum();
            world.settle();
            world.lose_both();
            (writes, world.promotions, world.wiped)
        });
        let Ok((some, changed, lost)) = run else { panic!("seed {seed}: STOA_SIMULATION_SEED={seed} STOA_SIMULATION_SEEDS=1") };
        (writes, promotions, wiped) = (writes + some, promotions + changed, wiped + lost);
    }
    let done = format!("{writes} writes acknowledged in trouble, {promotions} promotions, {wiped} disks lost");
    println!("{count} seeds: {done}");
    assert!(writes as u64 > 5 * count && promotions as u64 > 2 * count && wiped as u64 > count / 4, "{done}");
}
