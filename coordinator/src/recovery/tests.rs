//! What a recovered catalog must be, whatever the leaves hold.

use proptest::prelude::*;
use stoa_columnstore::{BitmapIndex, ColumnDef, encode_definition};
use stoa_rpc::replication::Position;

use super::*;
use crate::catalog::PartitionChange;

fn address(leaf: usize) -> String {
    format!("leaf{leaf}:1")
}

fn copy(ordinal: u32, term: u64, lsn: u64, tables: &[TableDef]) -> HeldCopy {
    let tables = tables.iter().filter(|table| table.reference == (ordinal == REFERENCE)).map(encode_definition).collect();
    let position = Position { lsn, term, checksum: lsn };
    HeldCopy { database: "d".into(), ordinal, term, position, bytes: 0, tables }
}

fn table(name: &str) -> TableDef {
    let ty = arrow::datatypes::DataType::Int64;
    let (name_of, bitmap_index) = ("a".into(), BitmapIndex::Auto);
    let column = ColumnDef { name: name_of, ty, nullable: true, sql_type: "BIGINT".into(), bitmap_index };
    TableDef { name: name.into(), columns: vec![column], shard_key: vec![0], ..TableDef::default() }
}

/// A catalog of four leaves and a database of three partitions.
fn catalog() -> Catalog {
    let mut catalog = Catalog::default();
    catalog.apply(&Command::AddCoordinator { address: "old:1".into() }).unwrap();
    for leaf in 0..4 {
        catalog.apply(&Command::AddLeaf { address: address(leaf), group: None }).unwrap();
    }
    let placement = PlacementKind::LoadBalanced;
    catalog
        .apply(&Command::CreateDatabase { name: "D".into(), partitions: 3, redundancy: 2, placement, asynchronous: false })
        .unwrap();
    catalog.apply(&Command::CreateTable { database: "d".into(), definition: Definition::new(table("t")) }).unwrap();
    catalog
        .apply(&Command::CreateView { database: "d".into(), name: "v".into(), sql: "SELECT 1".into(), or_replace: false })
        .unwrap();
    catalog.apply(&Command::CreateUser { name: "ada".into(), password_hash: "x".into() }).unwrap();
    let synced = |(ordinal, partition): (u32, &Partition)| {
        let Copies { master, spares, .. } = partition.copies.clone();
        let copies = Copies { master, replicas: spares, spares: vec![] };
        PartitionChange { database: "d".into(), partition: ordinal, term: partition.term, copies }
    };
    let changes = (0u32..).zip(&catalog.databases["d"].partitions).map(synced).collect();
    catalog.apply(&Command::SetPartitions(changes)).unwrap();
    catalog
}

/// A new cluster with one coordinator.
fn empty() -> Catalog {
    let mut catalog = Catalog::default();
    catalog.apply(&Command::AddCoordinator { address: "new:1".into() }).unwrap();
    catalog
}

/// What the leaves of a catalog hold when every copy has everything.
fn held(catalog: &Catalog, tables: &[TableDef]) -> BTreeMap<String, Holdings> {
    let bytes = serde_json::to_vec(catalog).unwrap();
    let holdings = |(id, leaf): (&NodeId, &Leaf)| {
        let partitions = (0u32..).zip(&catalog.databases["d"].partitions);
        let mine = partitions.filter(|(_, partition)| partition.copies.all().any(|copy| copy == *id));
        let mut copies: Vec<HeldCopy> = mine.map(|(ordinal, partition)| copy(ordinal, partition.term, 10, tables)).collect();
        copies.push(copy(REFERENCE, 1, 5, tables));
        (leaf.address.clone(), Holdings { catalog: bytes.clone(), copies, silent: std::time::Duration::MAX })
    };
    catalog.leaves.iter().map(holdings).collect()
}

fn actions(findings: &[Finding], action: &str) -> usize {
    findings.iter().filter(|finding| finding.action == action).count()
}

#[test]
fn all_is_back_where_it_was() {
    let before = catalog();
    let (after, findings) = recover(&empty(), &held(&before, &[table("t")]));
    let (old, new) = (&before.databases["d"], &after.databases["d"]);
    assert_eq!((&old.tables, &old.views, old.redundancy, &old.name), (&new.tables, &new.views, new.redundancy, &new.name));
    assert_eq!(before.users, after.users);
    assert_eq!(after.coordinators, empty().coordinators);
    assert!(after.leaves.keys().all(|id| id.0 > before.last_node) && after.last_node >= 9 && after.version >= before.version);
    let addresses = |catalog: &Catalog, copies: &Copies| -> Vec<String> {
        copies.all().map(|id| catalog.leaves[&id].address.clone()).collect()
    };
    for (old, new) in old.partitions.iter().zip(&new.partitions) {
        assert!(new.term > old.term);
        assert_eq!(addresses(&before, &old.copies), addresses(&after, &new.copies));
    }
    let group = |catalog: &Catalog, leaf| catalog.leaf(&address(leaf)).map(|(_, leaf)| (leaf.group, leaf.state));
    (0..4).for_each(|leaf| assert_eq!(group(&before, leaf), group(&after, leaf)));
    assert_eq!((actions(&findings, "WARNING"), actions(&findings, "MASTER"), actions(&findings, "REPLICA")), (0, 3, 3));
    // It takes the place of an empty catalog, and of no other.
    let mut new = empty();
    new.apply(&Command::Recover(Box::new(after.clone()))).unwrap();
    assert_eq!(Catalog { version: 0, ..new.clone() }, Catalog { version: 0, ..after.clone() });
    assert!(new.version > before.version);
    assert!(new.apply(&Command::Recover(Box::new(after))).is_err());
}

#[test]
fn the_newest_catalog_counts_and_a_damaged_one_does_not() {
    let before = catalog();
    let mut held = held(&before, &[table("t")]);
    let mut older = before.clone();
    (older.version, older.users) = (before.version - 1, BTreeMap::new());
    held.get_mut(&address(0)).unwrap().catalog = serde_json::to_vec(&older).unwrap();
    held.get_mut(&address(1)).unwrap().catalog = b"{".to_vec();
    let (after, findings) = recover(&empty(), &held);
    assert_eq!((after.users, actions(&findings, "WARNING")), (before.users, 1));
}

#[test]
fn without_a_catalog_definitions_come_from_the_partitions() {
    let reference = TableDef { shard_key: vec![], reference: true, ..table("r") };
    let mut held = held(&catalog(), &[table("t"), reference.clone()]);
    held.values_mut().for_each(|holdings| holdings.catalog = vec![]);
    let (after, findings) = recover(&empty(), &held);
    let database = &after.databases["d"];
    assert_eq!((database.redundancy, database.partitions.len()), (2, 3));
    assert_eq!(database.tables.keys().collect::<Vec<_>>(), ["r", "t"]);
    assert!(database.partitions.iter().all(|partition| partition.copies.master.is_some()));
    assert_eq!(
        (actions(&findings, "CREATE DATABASE"), actions(&findings, "ADD TABLE"), actions(&findings, "ADD LEAF")),
        (1, 2, 4)
    );
}

#[test]
fn tables_that_are_not_everywhere_are_only_told_of() {
    let before = catalog();
    let mut held = held(&before, &[table("t"), table("new")]);
    assert!(recover(&empty(), &held).0.databases["d"].tables.contains_key("new"));
    for holdings in held.values_mut() {
        for copy in holdings.copies.iter_mut().filter(|copy| copy.ordinal == 2) {
            copy.tables.pop();
        }
    }
    let (after, findings) = recover(&empty(), &held);
    assert!(!after.databases["d"].tables.contains_key("new") && actions(&findings, "WARNING") == 1);
}

#[test]
fn what_only_absent_leaves_have_waits_for_them() {
    let before = catalog();
    let all = held(&before, &[table("t")]);
    let copies = &before.databases["d"].partitions[0].copies;
    let away: Vec<&String> = copies.roles().map(|id| &before.leaves[&id].address).collect();
    let held = all.into_iter().filter(|(address, _)| !away.contains(&address)).collect();
    let (after, findings) = recover(&empty(), &held);
    let partition = &after.databases["d"].partitions[0];
    let master = partition.copies.master.map(|id| &after.leaves[&id]).unwrap();
    assert!(away.contains(&&master.address) && master.state == LeafState::Offline && partition.copies.spares.len() == 1);
    assert_eq!(actions(&findings, "OFFLINE"), 1);
    // A leaf that was asked and has nothing is not waited for.
    let mut empty_leaf = BTreeMap::from([(away[0].clone(), Holdings::default())]);
    empty_leaf.extend(held);
    let (after, _) = recover(&empty(), &empty_leaf);
    let master = after.databases["d"].partitions[0].copies.master.map(|id| &after.leaves[&id].address);
    assert_eq!(master, Some(away[1]));
}

fn copies() -> impl Strategy<Value = Vec<(usize, u32, u64, u64)>> {
    prop::collection::vec((0usize..6, 0u32..4, 1u64..4, 0u64..4), 0..16)
}

proptest! {
    #[test]
    fn nothing_is_lost_and_nobody_is_ahead_of_the_master(found in copies(), asked in 1usize..6, known in any::<bool>()) {
        let mut held: BTreeMap<String, Holdings> = (0..asked).map(|leaf| (address(leaf), Holdings::default())).collect();
        let mut seen = BTreeSet::new();
        for (leaf, ordinal, term, lsn) in found {
            if let Some(holdings) = held.get_mut(&address(leaf)) && seen.insert((leaf, ordinal)) {
                holdings.copies.push(copy(ordinal, term, lsn, &[table("t")]));
            }
        }
        if known {
            held.get_mut(&address(0)).unwrap().catalog = serde_json::to_vec(&catalog()).unwrap();
        }
        let (after, findings) = recover(&empty(), &held);
        prop_assert_eq!(&recover(&empty(), &held).0, &after, "the same again");
        let mut new = empty();
        prop_assert!(new.apply(&Command::Recover(Box::new(after.clone()))).is_ok());
        let position = |id: NodeId, ordinal: u32| {
            let holdings = held.get(&after.leaves[&id].address)?;
            holdings.copies.iter().find(|copy| copy.ordinal == ordinal).map(|copy| (copy.position.term, copy.position.lsn))
        };
        for (key, database) in &after.databases {
            for (ordinal, partition) in (0u32..).zip(&database.partitions) {
                let all: Vec<(u64, u64)> = held.values().flat_map(|h| &h.copies).filter(|c| c.ordinal == ordinal)
                    .map(|c| (c.position.term, c.position.lsn)).collect();
                prop_assert!(all.iter().all(|(term, _)| partition.term > *term));
                if all.is_empty() {
                    continue;
                }
                let master = partition.copies.master.and_then(|id| position(id, ordinal));
                prop_assert_eq!(master, all.iter().max().copied());
                for spare in &partition.copies.spares {
                    let (theirs, masters) = (position(*spare, ordinal).unwrap(), master.unwrap());
                    prop_assert!(theirs.0 == masters.0 && theirs.1 <= masters.1);
                    let group = |id: NodeId| after.leaves[&id].group;
                    prop_assert_ne!(group(*spare), group(partition.copies.master.unwrap()));
                }
                prop_assert!(partition.copies.replicas.is_empty() && partition.copies.all().count() <= database.redundancy.into());
            }
            prop_assert_eq!(key, "d");
        }
        // Every copy is spoken of once.
        let copies = held.values().map(|holdings| holdings.copies.len()).sum::<usize>();
        let spoken = ["MASTER", "REPLICA", "KEEP"].iter().map(|action| actions(&findings, action)).sum::<usize>();
        prop_assert_eq!(copies, spoken);
    }
}
