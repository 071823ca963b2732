//! What SHOW tells of a cluster.

use std::collections::BTreeMap;
use std::time::Instant;

use stoa_rpc::leaf::LeafService;
use stoa_rpc::replication::{CopyReport, CopyRole, Report};

use super::{Control, view_of};
use crate::catalog::{Catalog, Leaf, LeafState, NodeId, Partition};
use crate::session::text_table;
use crate::{Outcome, Result};

/// Host and port of an address.
pub(super) fn parts(address: &str) -> (String, String) {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
    (host.to_owned(), port.to_owned())
}

fn state(leaf: &Leaf, answers: bool) -> &'static str {
    match (leaf.state, answers) {
        (LeafState::Detached, _) => "detached",
        (LeafState::Online, true) => "online",
        _ => "offline",
    }
}

/// The columns of a node that was asked through the connection to it, and of the milliseconds that it took to answer.
fn reached(answer: Option<f64>) -> [String; 3] {
    let latency = answer.map(|ms| format!("{ms:.3}")).unwrap_or_default();
    let (connections, runtime) = if answer.is_some() { ("1", "running") } else { ("0", "unreachable") };
    [connections.to_owned(), latency, runtime.to_owned()]
}

impl Control {
    pub(super) fn show_leaves(&self) -> Result<Outcome> {
        let catalog = self.catalog();
        let mut rows = Vec::new();
        let latency = |leaf: &dyn LeafService| {
            let began = Instant::now();
            leaf.status().map(|_| began.elapsed().as_secs_f64() * 1e3)
        };
        for (id, leaf, answer) in self.ask_leaves(|_| true, latency) {
            let (host, port) = parts(&leaf.address);
            let pair = leaf.pair.and_then(|pair| catalog.leaves.get(&pair));
            let (pair_host, pair_port) = pair.map(|pair| parts(&pair.address)).unwrap_or_default();
            let state = state(&leaf, answer.is_some()).to_owned();
            let [connections, latency, runtime] = reached(answer);
            let (group, node) = (leaf.group.to_string(), id.0.to_string());
            rows.push([host, port, group, pair_host, pair_port, state, connections, latency, node, runtime]);
        }
        let columns = [
            "Host",
            "Port",
            "Availability_Group",
            "Pair_Host",
            "Pair_Port",
            "State",
            "Opened_Connections",
            "Average_Roundtrip_Latency_ms",
            "NodeId",
            "Runtime_State",
        ];
        text_table(&columns, &rows)
    }

    /// Asks the other coordinators all at once: whether each answers, and how long that took in milliseconds.
    fn ask_coordinators(&self) -> Vec<(NodeId, String, Option<f64>)> {
        let catalog = self.catalog();
        let ask = |id: NodeId, address: &str| {
            if self.membership.number() == Some(id) {
                return Some(0.0);
            }
            let began = Instant::now();
            self.membership.peers().peer(address).and_then(|peer| peer.status()).ok()?;
            Some(began.elapsed().as_secs_f64() * 1e3)
        };
        std::thread::scope(|scope| {
            let ask = &ask;
            let nodes = catalog.coordinators.iter();
            let threads: Vec<_> =
                nodes.map(|(id, node)| (id, &node.address, scope.spawn(move || ask(*id, &node.address)))).collect();
            threads.into_iter().map(|(id, address, thread)| (*id, address.clone(), thread.join().ok().flatten())).collect()
        })
    }

    pub(super) fn show_aggregators(&self) -> Result<Outcome> {
        let leader = self.membership.consensus()?.leader().map(|member| member.id);
        let row = |(id, address, latency): (NodeId, String, Option<f64>)| {
            let (host, port) = parts(&address);
            let state = if latency.is_some() { "online" } else { "offline" };
            let [connections, latency, runtime] = reached(latency);
            let (master, role) = if leader == Some(id) { ("1", "leader") } else { ("0", "follower") };
            let (master, role, node) = (master.to_owned(), role.to_owned(), id.0.to_string());
            [host, port, state.to_owned(), connections, latency, master, role, node, runtime]
        };
        let rows: Vec<[String; 9]> = self.ask_coordinators().into_iter().map(row).collect();
        let columns = [
            "Host",
            "Port",
            "State",
            "Opened_Connections",
            "Average_Roundtrip_Latency_ms",
            "Master_Aggregator",
            "Role",
            "NodeId",
            "Runtime_State",
        ];
        text_table(&columns, &rows)
    }

    pub(super) fn show_databases(&self) -> Result<Outcome> {
        let catalog = self.catalog();
        let row = |d: &crate::catalog::Database| {
            let durability = if d.asynchronous { "async" } else { "sync" };
            [d.name.clone(), d.partitions.len().to_string(), d.redundancy.to_string(), durability.to_owned()]
        };
        let rows: Vec<[String; 4]> = catalog.databases.values().map(row).collect();
        text_table(&["Database", "Partitions", "Redundancy", "Durability"], &rows)
    }

    pub(super) fn show_partitions(&self, database: &str) -> Result<Outcome> {
        let catalog = self.catalog();
        view_of(&catalog, database)?;
        let mut rows = Vec::new();
        for (ordinal, partition) in catalog.databases.get(&database.to_lowercase()).iter().flat_map(|d| &d.partitions).enumerate()
        {
            let master = partition.copies.master.map(|id| (id, "Master"));
            // One that is lost is shown as little as one that is behind, whether it is still waited for or not.
            let online = |id: &&NodeId| catalog.leaves.get(id).is_some_and(|leaf| leaf.state == LeafState::Online);
            let replicas = partition.copies.replicas.iter().filter(online).map(|id| (*id, "Slave"));
            for (id, role) in master.into_iter().chain(replicas) {
                let (host, port) = catalog.leaves.get(&id).map(|leaf| parts(&leaf.address)).unwrap_or_default();
                rows.push([ordinal.to_string(), host, port, role.into(), "0".into(), partition.term.to_string()]);
            }
            if master.is_none() {
                rows.push([
                    ordinal.to_string(),
                    String::new(),
                    String::new(),
                    "Offline".into(),
                    "0".into(),
                    partition.term.to_string(),
                ]);
            }
        }
        text_table(&["Ordinal", "Host", "Port", "Role", "Locked", "Term"], &rows)
    }

    /// What each leaf has, beside what the catalog says that it has.
    pub(super) fn show_cluster_status(&self) -> Result<Outcome> {
        let catalog = self.catalog();
        let reports = self.ask_reports(|_| true);
        let acting = masters(&reports);
        let address_of = |id: Option<&NodeId>| id.and_then(|id| catalog.leaves.get(id)).map(|leaf| parts(&leaf.address));
        let mut rows = Vec::new();
        for (id, leaf) in &catalog.leaves {
            let (host, port) = parts(&leaf.address);
            let report = reports.get(id);
            for ((database, ordinal), (metadata, there)) in copies_of(&catalog, *id, report) {
                let position = there.map(|copy| format!("{}:{}", copy.position.term, copy.position.lsn)).unwrap_or_default();
                let details = there.map(|copy| copy.failure.clone()).unwrap_or_default();
                let name = format!("{database}_{ordinal}");
                let (master_host, master_port) = address_of(acting.get(&(&*database, ordinal))).unwrap_or_default();
                let partition = catalog.databases.get(&database).and_then(|d| d.partitions.get(ordinal as usize));
                let expected = partition.and_then(|p| p.copies.master);
                let (expected_host, expected_port) = address_of(expected.as_ref()).unwrap_or_default();
                rows.push([
                    id.0.to_string(),
                    host.clone(),
                    port.clone(),
                    name,
                    role(metadata, there).to_owned(),
                    state(leaf, report.is_some()).to_owned(),
                    position,
                    master_host,
                    master_port,
                    expected.map(|id| id.0.to_string()).unwrap_or_default(),
                    expected_host,
                    expected_port,
                    metadata.to_owned(),
                    details,
                ]);
            }
        }
        text_table(&CLUSTER_STATUS, &rows)
    }
}

/// The columns of SHOW CLUSTER STATUS: the master that acts, and the one that the catalog has.
const CLUSTER_STATUS: [&str; 14] = [
    "Node_ID",
    "Host",
    "Port",
    "Database_Name",
    "Role",
    "State",
    "Position",
    "Master_Host",
    "Master_Port",
    "Metadata_Master_Node_ID",
    "Metadata_Master_Host",
    "Metadata_Master_Port",
    "Metadata_Role",
    "Details",
];

/// Who says that it is the master of a partition; of several the one of the latest term.
fn masters(reports: &BTreeMap<NodeId, Report>) -> BTreeMap<(&str, u32), NodeId> {
    let mut masters: BTreeMap<(&str, u32), (u64, NodeId)> = BTreeMap::new();
    let all = reports.iter().flat_map(|(id, report)| report.copies.iter().map(move |copy| (*id, copy)));
    for (id, copy) in all.filter(|(_, copy)| copy.role == CopyRole::Master) {
        let found = masters.entry((&copy.database, copy.ordinal)).or_insert((copy.term, id));
        *found = (*found).max((copy.term, id));
    }
    masters.into_iter().map(|(partition, (_, id))| (partition, id)).collect()
}

/// What a copy is, beside the role that the catalog gives it.
fn role(metadata: &str, there: Option<&CopyReport>) -> &'static str {
    match (there, metadata) {
        (None, _) => "Missing",
        (Some(_), "Non-existent") => "Orphan",
        (Some(copy), _) => match copy.role {
            CopyRole::Master => "Master",
            CopyRole::Replica => "Slave",
            CopyRole::None => "Waiting",
        },
    }
}

/// By database and ordinal: the role that the catalog gives a leaf, and what the leaf says of its copy.
fn copies_of<'a>(
    catalog: &Catalog,
    leaf: NodeId,
    report: Option<&'a Report>,
) -> BTreeMap<(String, u32), (&'static str, Option<&'a CopyReport>)> {
    let mut copies = BTreeMap::new();
    for (name, database) in &catalog.databases {
        for (ordinal, Partition { copies: of, .. }) in (0u32..).zip(&database.partitions) {
            let role = if of.master == Some(leaf) {
                "Master"
            } else if of.replicas.contains(&leaf) {
                "Slave"
            } else if of.spares.contains(&leaf) {
                "Async Slave"
            } else {
                continue;
            };
            copies.insert((name.clone(), ordinal), (role, None));
        }
    }
    for copy in report.iter().flat_map(|report| &report.copies) {
        copies.entry((copy.database.clone(), copy.ordinal)).or_insert(("Non-existent", None)).1 = Some(copy);
    }
    copies
}
