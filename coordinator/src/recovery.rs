//! A catalog from what leaves hold, when every coordinator is lost: a pure function.
//!
//! Users, views, groups and the like come from the newest catalog that a leaf was given to keep; who is the master of a partition comes
//! from the copies themselves. What it keeps true:
//! - the master of a partition is the copy with the last record of the latest term: it has all that was acknowledged, if any copy here has;
//! - another copy gets a role only if its log is certainly the beginning of the master's: its last record is of the same term, and not
//!   behind the master's (log matching, as in [`stoa_columnstore::Replication`]). Others stay where they are, without a role;
//! - terms and numbers of nodes are higher than all before, so that an old master, or an old coordinator's orders, count no more.

use std::collections::{BTreeMap, BTreeSet};

use stoa_columnstore::{TableDef, decode_definition};
use stoa_rpc::leaf::REFERENCE;
use stoa_rpc::replication::{HeldCopy, Holdings};

use crate::catalog::{Catalog, Command, Database, Definition, Leaf, LeafState, NodeId, Partition};
use crate::placement::{Copies, PlacementKind};

/// What would be done, or is to be known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// In a word: what is done with the thing, or `WARNING`.
    pub action: &'static str,
    /// The database.
    pub database: String,
    /// The partition.
    pub ordinal: Option<u32>,
    /// The leaf.
    pub leaf: String,
    /// Term and number of a copy's last record.
    pub position: Option<(u64, u64)>,
    /// In words.
    pub details: String,
}

impl Finding {
    fn of(action: &'static str, details: impl Into<String>) -> Finding {
        let (database, leaf) = (String::new(), String::new());
        Finding { action, database, ordinal: None, leaf, position: None, details: details.into() }
    }

    fn on(self, leaf: &str) -> Finding {
        Finding { leaf: leaf.to_owned(), ..self }
    }

    fn in_database(self, database: &str, ordinal: Option<u32>) -> Finding {
        Finding { database: database.to_owned(), ordinal, ..self }
    }

    fn at(self, position: (u64, u64)) -> Finding {
        Finding { position: Some(position), ..self }
    }
}

/// The catalog of a cluster whose leaves hold this, and what is to be known of it; `current` is the empty one of the new coordinators.
pub(crate) fn recover(current: &Catalog, held: &BTreeMap<String, Holdings>) -> (Catalog, Vec<Finding>) {
    let mut findings = Vec::new();
    let kept = newest(held, &mut findings);
    let mut catalog = renumbered(kept.clone().unwrap_or_default(), current);
    leaves(&mut catalog, held, &mut findings);
    if kept.is_none() {
        catalog.databases = databases(held, &mut findings);
    }
    let ids: BTreeMap<&String, NodeId> =
        held.keys().filter_map(|address| catalog.leaf(address).map(|(id, _)| (address, id))).collect();
    let leaves = catalog.leaves.clone();
    for (key, database) in &mut catalog.databases {
        database.job = None;
        for (ordinal, partition) in (0u32..).zip(&mut database.partitions) {
            let mut found = Vec::new();
            for (address, holdings) in held {
                let copies = holdings.copies.iter().filter(|copy| copy.database == *key && copy.ordinal == ordinal);
                found.extend(copies.map(|copy| Found { leaf: ids[address], address, copy }));
            }
            let place =
                Place { database: &database.name, ordinal, redundancy: database.redundancy, leaves: &leaves, asked: &ids };
            *partition = roles(&place, partition, found, &mut findings);
        }
        tables(key, database, held, &mut findings);
    }
    unknown(&catalog, held, &mut findings);
    (catalog, findings)
}

/// The newest catalog that a leaf keeps.
fn newest(held: &BTreeMap<String, Holdings>, findings: &mut Vec<Finding>) -> Option<Catalog> {
    let mut newest: Option<(Catalog, &String)> = None;
    for (address, holdings) in held.iter().filter(|(_, holdings)| !holdings.catalog.is_empty()) {
        match serde_json::from_slice::<Catalog>(&holdings.catalog) {
            Ok(catalog) if newest.as_ref().is_none_or(|(other, _)| other.version < catalog.version) => {
                newest = Some((catalog, address));
            }
            Ok(_) => {}
            Err(error) => findings.push(Finding::of("WARNING", format!("its catalog cannot be read: {error}")).on(address)),
        }
    }
    let Some((catalog, address)) = newest else {
        let what = "no leaf keeps a catalog: users, views and redundancy are lost, definitions come from the partitions";
        findings.push(Finding::of("WARNING", what));
        return None;
    };
    findings.push(Finding::of("CATALOG", format!("version {} is the newest", catalog.version)).on(address));
    Some(catalog)
}

/// A catalog of other coordinators, with numbers of nodes that nobody has had.
fn renumbered(mut catalog: Catalog, current: &Catalog) -> Catalog {
    let mut last = catalog.last_node.max(current.last_node);
    let ids: BTreeMap<NodeId, NodeId> = catalog
        .leaves
        .keys()
        .map(|id| {
            last += 1;
            (*id, NodeId(last))
        })
        .collect();
    let all = |copies: &[NodeId]| copies.iter().filter_map(|id| ids.get(id).copied()).collect();
    for partition in catalog.databases.values_mut().flat_map(|database| &mut database.partitions) {
        let Copies { master, replicas, spares } = &partition.copies;
        let master = master.and_then(|id| ids.get(&id).copied());
        partition.copies = Copies { master, replicas: all(replicas), spares: all(spares) };
    }
    let leaves = std::mem::take(&mut catalog.leaves);
    let leaf = |(id, leaf): (NodeId, Leaf)| (ids[&id], Leaf { pair: leaf.pair.and_then(|pair| ids.get(&pair).copied()), ..leaf });
    catalog.leaves = leaves.into_iter().map(leaf).collect();
    catalog.coordinators.clone_from(&current.coordinators);
    catalog.last_node = last;
    catalog.version = catalog.version.max(current.version);
    catalog
}

/// Which leaves there are: those that were asked, and those that the catalog knows.
fn leaves(catalog: &mut Catalog, held: &BTreeMap<String, Holdings>, findings: &mut Vec<Finding>) {
    for address in held.keys().filter(|address| catalog.leaf(address).is_none()).cloned().collect::<Vec<_>>() {
        let added = catalog.apply(&Command::AddLeaf { address: address.clone(), group: None });
        let what = added.map_or_else(|e| format!("it cannot be added: {e}"), |()| "the catalog did not know it".to_owned());
        findings.push(Finding::of("ADD LEAF", what).on(&address));
    }
    for leaf in catalog.leaves.values_mut().filter(|leaf| !held.contains_key(&leaf.address)) {
        (leaf.state, leaf.behind) = (LeafState::Offline, true);
        let what = "the catalog knows it, and it was not asked: it is off line until it answers";
        findings.push(Finding::of("WARNING", what).on(&leaf.address));
    }
    let asked = |leaf: &&mut Leaf| held.contains_key(&leaf.address) && leaf.state != LeafState::Detached;
    // REFERENCE tables are taken from those that missed nothing, or from the one that has most of them.
    let position = |leaf: &Leaf| {
        let copies = held.get(&leaf.address).into_iter().flat_map(|holdings| &holdings.copies);
        copies.filter(|copy| copy.ordinal == REFERENCE).map(|copy| copy.position.lsn).sum::<u64>()
    };
    let current = |leaf: &Leaf| leaf.state == LeafState::Online && !leaf.behind;
    if !catalog.leaves.values_mut().filter(asked).any(|leaf| current(leaf))
        && let Some(leaf) = catalog.leaves.values_mut().filter(asked).max_by_key(|leaf| position(leaf))
    {
        (leaf.state, leaf.behind) = (LeafState::Online, false);
        let what = "REFERENCE tables are taken from it: no leaf is known to have all of their rows";
        findings.push(Finding::of("WARNING", what).on(&leaf.address));
    }
    for leaf in catalog.leaves.values_mut().filter(asked) {
        // One that was off line gets what it missed of them before it takes part.
        if !current(leaf) {
            (leaf.state, leaf.behind) = (LeafState::Offline, true);
        }
    }
}

/// A copy of a partition that was found.
struct Found<'a> {
    leaf: NodeId,
    address: &'a String,
    copy: &'a HeldCopy,
}

impl Found<'_> {
    fn position(&self) -> (u64, u64) {
        (self.copy.position.term, self.copy.position.lsn)
    }
}

/// Which partition it is about.
struct Place<'a> {
    database: &'a str,
    ordinal: u32,
    redundancy: u8,
    leaves: &'a BTreeMap<NodeId, Leaf>,
    /// Those that said what they hold.
    asked: &'a BTreeMap<&'a String, NodeId>,
}

impl Place<'_> {
    fn note(&self, findings: &mut Vec<Finding>, action: &'static str, found: &Found<'_>, details: &str) {
        let finding = Finding::of(action, details).on(found.address).at(found.position());
        findings.push(finding.in_database(self.database, Some(self.ordinal)));
    }

    fn warn(&self, findings: &mut Vec<Finding>, action: &'static str, details: String) {
        findings.push(Finding::of(action, details).in_database(self.database, Some(self.ordinal)));
    }

    fn group(&self, leaf: NodeId) -> Option<u8> {
        self.leaves.get(&leaf).map(|leaf| leaf.group)
    }

    fn addresses(&self, ids: impl Iterator<Item = NodeId>) -> String {
        let addresses: Vec<&str> = ids.filter_map(|id| self.leaves.get(&id)).map(|leaf| leaf.address.as_str()).collect();
        addresses.join(", ")
    }
}

/// The roles of the copies of a partition that were found; `before` is the partition as the catalog had it.
fn roles(place: &Place<'_>, before: &Partition, mut found: Vec<Found<'_>>, findings: &mut Vec<Finding>) -> Partition {
    let seen = found.iter().map(|f| f.copy.term.max(f.copy.position.term)).max().unwrap_or(0);
    let term = before.term.max(seen) + 1;
    let rank = |leaf: NodeId| {
        let Copies { master, replicas, .. } = &before.copies;
        (*master == Some(leaf), replicas.contains(&leaf))
    };
    found.sort_by_key(|f| std::cmp::Reverse((f.position(), rank(f.leaf))));
    let mut found = found.into_iter();
    let Some(master) = found.next() else { return Partition { term, copies: absent(place, before, findings) } };
    place.note(findings, "MASTER", &master, "");
    let roles: BTreeSet<NodeId> = before.copies.roles().collect();
    if !roles.is_empty() && !roles.contains(&master.leaf) {
        let away = place.addresses(roles.into_iter());
        place.warn(findings, "WARNING", format!("the copies that had everything are on {away}: the last rows may be missing"));
    }
    let mut copies = Copies { master: Some(master.leaf), ..Copies::default() };
    let mut left = usize::from(place.redundancy.saturating_sub(1));
    for other in found {
        let why = if other.copy.position.term != master.copy.position.term {
            "an orphan: its log ends in another term and may not be the beginning of the master's"
        } else if place.group(other.leaf) == place.group(master.leaf) {
            "an orphan: it is in the same availability group as the master"
        } else if left == 0 {
            "an orphan: there are copies enough"
        } else {
            left -= 1;
            copies.spares.push(other.leaf);
            place.note(findings, "REPLICA", &other, "once it has caught up");
            continue;
        };
        place.note(findings, "KEEP", &other, why);
    }
    Partition { term, copies }
}

/// The copies of a partition of which none was found: those on leaves that were not asked have everything, if the catalog says so.
fn absent(place: &Place<'_>, before: &Partition, findings: &mut Vec<Finding>) -> Copies {
    let away = |id: &NodeId| place.leaves.contains_key(id) && !place.asked.values().any(|asked| asked == id);
    let mut roles = before.copies.roles().filter(away);
    let copies = Copies { master: roles.next(), replicas: vec![], spares: roles.collect() };
    let leaves = place.addresses(copies.all());
    let what = match leaves.is_empty() {
        true => "no leaf has a copy: DROP DATABASE and RESTORE it, or start the leaf that has one".to_owned(),
        false => format!("off line until {leaves} answers"),
    };
    place.warn(findings, "OFFLINE", what);
    copies
}

/// The databases that partitions speak of, where no catalog does.
fn databases(held: &BTreeMap<String, Holdings>, findings: &mut Vec<Finding>) -> BTreeMap<String, Database> {
    let mut copies: BTreeMap<String, BTreeMap<u32, usize>> = BTreeMap::new();
    for copy in held.values().flat_map(|holdings| &holdings.copies) {
        let ordinals = copies.entry(copy.database.clone()).or_default();
        if copy.ordinal != REFERENCE {
            *ordinals.entry(copy.ordinal).or_default() += 1;
        }
    }
    let mut databases = BTreeMap::new();
    for (name, ordinals) in copies {
        let Some(last) = ordinals.keys().max().filter(|last| **last < stoa_columnstore::MAX_PARTITIONS) else { continue };
        let redundancy = if ordinals.values().any(|copies| *copies > 1) { 2 } else { 1 };
        let partitions = vec![Partition::default(); *last as usize + 1];
        let what = format!("{} partitions, redundancy {redundancy}: if it had more, their rows are missing", partitions.len());
        findings.push(Finding::of("CREATE DATABASE", what).in_database(&name, None));
        let (tables, views, placement) = (BTreeMap::new(), BTreeMap::new(), PlacementKind::LoadBalanced);
        let (job, asynchronous) = (None, false);
        databases.insert(name.clone(), Database { name, redundancy, placement, partitions, tables, views, job, asynchronous });
    }
    databases
}

/// Tables that every partition, or every leaf, has and the catalog does not: they were made after it was written.
fn tables(key: &str, database: &mut Database, held: &BTreeMap<String, Holdings>, findings: &mut Vec<Finding>) {
    let mut everywhere: BTreeMap<String, (TableDef, BTreeSet<u32>, usize)> = BTreeMap::new();
    for copy in held.values().flat_map(|holdings| &holdings.copies).filter(|copy| copy.database == key) {
        for def in copy.tables.iter().filter_map(|table| decode_definition(table).ok()) {
            let (first, ordinals, count) =
                everywhere.entry(def.name.to_lowercase()).or_insert_with(|| (def.clone(), BTreeSet::new(), 0));
            if *first == def && def.reference == (copy.ordinal == REFERENCE) {
                ordinals.insert(copy.ordinal);
                *count += 1;
            }
        }
    }
    for (name, (def, ordinals, count)) in everywhere {
        if database.tables.contains_key(&name) || database.views.contains_key(&name) {
            continue;
        }
        let whole = if def.reference { count == held.len() } else { ordinals.len() == database.partitions.len() };
        let finding = if whole {
            let finding = Finding::of("ADD TABLE", format!("{}: all leaves have it, the catalog did not", def.name));
            database.tables.insert(name, Definition::new(def));
            finding
        } else {
            Finding::of(
                "WARNING",
                format!("table {} is on some leaves alone: it was being made or dropped, and is not seen", def.name),
            )
        };
        findings.push(finding.in_database(&database.name, None));
    }
}

/// Copies of what the catalog does not have.
fn unknown(catalog: &Catalog, held: &BTreeMap<String, Holdings>, findings: &mut Vec<Finding>) {
    for (address, holdings) in held {
        for copy in holdings.copies.iter().filter(|copy| copy.ordinal != REFERENCE) {
            let database = catalog.databases.get(&copy.database);
            if database.is_none_or(|database| database.partitions.len() <= copy.ordinal as usize) {
                let finding = Finding::of("KEEP", "an orphan: the catalog does not know it").on(address);
                let position = (copy.position.term, copy.position.lsn);
                findings.push(finding.in_database(&copy.database, Some(copy.ordinal)).at(position));
            }
        }
    }
}

#[cfg(test)]
mod tests;
