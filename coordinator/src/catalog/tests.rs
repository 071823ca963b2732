//! Tests of the catalog.

use proptest::prelude::*;
use stoa_columnstore::{BitmapIndex, ColumnDef, TableDef};

use super::*;

fn definition(name: &str) -> Definition {
    let column = ColumnDef {
        name: "a".into(),
        ty: arrow::datatypes::DataType::Decimal64(15, 2),
        nullable: true,
        bitmap_index: BitmapIndex::Declared,
        sql_type: "DECIMAL(15,2)".into(),
    };
    let columns = vec![column];
    Definition::new(TableDef { name: name.into(), columns, shard_key: vec![0], ..TableDef::default() })
}

fn command() -> impl Strategy<Value = Command> {
    let address = || (0..6u16).prop_map(|port| format!("leaf:{port}"));
    let database = || prop_oneof![Just("d".to_owned()), Just("D".to_owned()), Just("e".to_owned())];
    let name = || prop_oneof![Just("t".to_owned()), Just("T".to_owned()), Just("u".to_owned())];
    prop_oneof![
        4 => (address(), proptest::option::of(0..4u8)).prop_map(|(address, group)| Command::AddLeaf { address, group }),
        1 => (address(), any::<bool>()).prop_map(|(address, force)| Command::RemoveLeaf { address, force }),
        1 => (database(), 0..20u32, 1..3u8).prop_map(|(name, partitions, redundancy)| Command::CreateDatabase {
            name,
            partitions,
            redundancy,
            placement: PlacementKind::Paired,
            asynchronous: partitions % 2 == 0
        }),
        1 => database().prop_map(Command::DropDatabase),
        1 => (database(), name()).prop_map(|(database, name)| Command::CreateTable { database, definition: definition(&name) }),
        1 => (database(), name()).prop_map(|(database, table)| Command::DropTable { database, table }),
        1 => (database(), name(), any::<bool>()).prop_map(|(database, name, or_replace)| Command::CreateView {
            database,
            name,
            sql: "SELECT 1".into(),
            or_replace
        }),
        1 => (database(), name()).prop_map(|(database, name)| Command::DropView { database, name }),
        1 => (address(), any::<bool>()).prop_map(|(address, online)| Command::SetLeafState {
            address,
            state: if online { LeafState::Online } else { LeafState::Detached }
        }),
        1 => address().prop_map(|address| Command::AddCoordinator { address }),
        1 => address().prop_map(|address| Command::RemoveCoordinator { address }),
        4 => proptest::collection::vec(change(), 1..3).prop_map(Command::SetPartitions),
        2 => user_command(),
    ]
}

fn change() -> impl Strategy<Value = PartitionChange> {
    let database = prop_oneof![Just("d".to_owned()), Just("E".to_owned())];
    let leaves = proptest::collection::vec((1..12u64).prop_map(NodeId), 0..4);
    (database, 0..6u32, 1..4u64, leaves, 0..3usize).prop_map(|(database, partition, term, mut leaves, roles)| {
        let spares = leaves.split_off(roles.min(leaves.len()));
        let replicas = leaves.split_off(1.min(leaves.len()));
        PartitionChange { database, partition, term, copies: Copies { master: leaves.pop(), replicas, spares } }
    })
}

fn user_command() -> impl Strategy<Value = Command> {
    let name = || prop_oneof![Just("t".to_owned()), Just("T".to_owned()), Just("d".to_owned()), Just(String::new())];
    let scope = || {
        prop_oneof![
            Just(Scope::Everywhere),
            name().prop_map(Scope::Database),
            (name(), name()).prop_map(|(database, table)| Scope::Table(database, table)),
        ]
    };
    let any_of = || proptest::sample::subsequence(Privilege::ALL.to_vec(), 0..=Privilege::ALL.len());
    let set = || any_of().prop_map(|list| list.into_iter().collect::<BTreeSet<Privilege>>());
    prop_oneof![
        name().prop_map(|name| Command::CreateUser { name, password_hash: "x".into() }),
        name().prop_map(|name| Command::SetPassword { name, password_hash: "y".into() }),
        name().prop_map(Command::DropUser),
        (name(), set(), scope()).prop_map(|(user, privileges, scope)| Command::Grant { user, privileges, scope }),
        (name(), set(), scope()).prop_map(|(user, privileges, scope)| Command::Revoke { user, privileges, scope }),
    ]
}

/// What is true of the copies of a partition.
fn check_copies(catalog: &Catalog, copies: &Copies) -> Result<(), TestCaseError> {
    let distinct: BTreeSet<NodeId> = copies.all().collect();
    prop_assert!(distinct.iter().all(|copy| catalog.leaves.contains_key(copy)), "a copy is on no leaf: {copies:?}");
    prop_assert_eq!(copies.all().count(), distinct.len());
    let groups: BTreeSet<u8> = copies.roles().map(|copy| catalog.leaves[&copy].group).collect();
    prop_assert_eq!(groups.len(), copies.roles().count(), "two copies in one group: {:?}", copies);
    prop_assert!(copies.master.is_some() || copies.replicas.is_empty());
    Ok(())
}

proptest! {
    #[test]
    fn whatever_is_asked_the_catalog_stays_sound(commands in proptest::collection::vec(command(), 0..60)) {
        let mut catalog = Catalog::default();
        for command in &commands {
            let before = catalog.clone();
            if catalog.apply(command).is_err() {
                prop_assert_eq!(&catalog, &before);
                continue;
            }
            prop_assert_eq!(catalog.version, before.version + 1);
            for (name, database) in &catalog.databases {
                prop_assert!(!database.partitions.is_empty());
                prop_assert!(database.tables.keys().all(|name| !database.views.contains_key(name)));
                for (ordinal, partition) in database.partitions.iter().enumerate() {
                    check_copies(&catalog, &partition.copies)?;
                    let older = before.databases.get(name).and_then(|d| d.partitions.get(ordinal));
                    if let Some(older) = older {
                        prop_assert!(partition.term >= older.term);
                        prop_assert!(partition.copies.master == older.copies.master || partition.term > older.term);
                    }
                }
            }
            for leaf in catalog.leaves.values() {
                let pair = leaf.pair.and_then(|id| catalog.leaves.get(&id));
                prop_assert!(leaf.pair.is_none() || pair.is_some_and(|pair| pair.group != leaf.group));
            }
            let administers = |user: &User| user.grants.everywhere.contains(&Privilege::Cluster);
            prop_assert!(catalog.users.is_empty() || catalog.users.values().any(administers));
            let sent = serde_json::from_str::<Command>(&serde_json::to_string(command).unwrap()).unwrap();
            prop_assert_eq!(command, &sent);
        }
        let text = serde_json::to_string(&catalog).unwrap();
        prop_assert_eq!(serde_json::from_str::<Catalog>(&text).unwrap(), catalog);
    }
}

#[test]
fn errors_say_the_way_out() {
    let mut catalog = Catalog::default();
    let create = |partitions, redundancy| Command::CreateDatabase {
        name: "d".into(),
        partitions,
        redundancy,
        placement: PlacementKind::Paired,
        asynchronous: false,
    };
    let add = Command::AddLeaf { address: "a:1".into(), group: None };
    assert!(catalog.apply(&create(4, 1)).unwrap_err().to_string().contains("ADD LEAF"));
    catalog.apply(&add).unwrap();
    assert!(catalog.apply(&add).unwrap_err().to_string().contains("is there already"));
    assert!(catalog.apply(&create(0, 1)).unwrap_err().to_string().contains("1 to"));
    assert!(catalog.apply(&create(4, 2)).unwrap_err().to_string().contains("REDUNDANCY 1"));
    catalog.apply(&create(4, 1)).unwrap();
    let remove = |force| Command::RemoveLeaf { address: "a:1".into(), force };
    assert!(catalog.apply(&remove(false)).unwrap_err().to_string().contains("has 4 partitions"));
    catalog.apply(&remove(true)).unwrap();
    assert!(catalog.database("D").unwrap().partitions.iter().all(|p| p.copies.master.is_none() && p.term == 2));
}

/// Leaves a:1, a:2, ... and a database d with one partition on the first.
fn cluster(leaves: u16) -> Catalog {
    let mut catalog = Catalog::default();
    for port in 1..=leaves {
        catalog.apply(&Command::AddLeaf { address: format!("a:{port}"), group: None }).unwrap();
    }
    let placement = PlacementKind::Paired;
    catalog
        .apply(&Command::CreateDatabase { name: "d".into(), partitions: 1, redundancy: 1, placement, asynchronous: false })
        .unwrap();
    catalog
}

fn refused(catalog: &mut Catalog, command: &Command) -> String {
    let before = catalog.clone();
    let error = catalog.apply(command).unwrap_err();
    assert_eq!(*catalog, before);
    error.to_string()
}

#[test]
fn terms_fence_decisions() {
    let mut catalog = cluster(3);
    let change = |term: u64, copies: &Copies| {
        let copies = copies.clone();
        Command::SetPartitions(vec![PartitionChange { database: "D".into(), partition: 0, term, copies }])
    };
    let [first, second, third] = [1, 2, 3].map(NodeId);
    let with_replica = Copies { master: Some(first), replicas: vec![second], spares: vec![third] };
    catalog.apply(&change(1, &with_replica)).unwrap();
    let promoted = Copies { master: Some(second), replicas: vec![], spares: vec![first] };
    catalog.apply(&change(1, &promoted)).unwrap();
    assert_eq!(catalog.database("d").unwrap().partitions[0], Partition { term: 2, copies: promoted.clone() });
    assert!(refused(&mut catalog, &change(1, &with_replica)).contains("term 2"));
    assert!(refused(&mut catalog, &change(2, &Copies { master: Some(third), ..Copies::default() })).contains("no copy"));
    assert!(refused(&mut catalog, &change(2, &Copies { spares: vec![NodeId(9)], ..promoted.clone() })).contains("no leaf"));
    assert!(refused(&mut catalog, &change(2, &Copies { replicas: vec![second], ..promoted.clone() })).contains("twice"));
    let in_one_group = Copies { master: Some(first), replicas: vec![third], spares: vec![] };
    assert!(refused(&mut catalog, &change(2, &in_one_group)).contains("group 1"));
    // Of two changes the second is wrong: neither is made.
    let Command::SetPartitions(mut two) = change(2, &with_replica) else { unreachable!() };
    two.push(PartitionChange { partition: 7, ..two[0].clone() });
    assert!(refused(&mut catalog, &Command::SetPartitions(two)).contains("partition '7"));
}

#[test]
fn a_leaf_that_is_forced_out_leaves_its_partitions_to_replicas_and_its_pair_to_others() {
    let mut catalog = cluster(3);
    let copies = Copies { master: Some(NodeId(1)), replicas: vec![NodeId(2)], spares: vec![] };
    catalog
        .apply(&Command::SetPartitions(vec![PartitionChange { database: "d".into(), partition: 0, term: 1, copies }]))
        .unwrap();
    assert_eq!(catalog.leaves[&NodeId(2)].pair, Some(NodeId(1)));
    catalog.apply(&Command::RemoveLeaf { address: "a:1".into(), force: true }).unwrap();
    let partition = &catalog.database("d").unwrap().partitions[0];
    assert_eq!((partition.copies.master, partition.term), (Some(NodeId(2)), 2));
    assert_eq!(catalog.leaves[&NodeId(2)].pair, Some(NodeId(3)));
}

#[test]
fn coordinators_share_numbers_with_leaves_and_one_stays() {
    let mut catalog = cluster(1);
    let add = |address: &str| Command::AddCoordinator { address: address.into() };
    let remove = |address: &str| Command::RemoveCoordinator { address: address.into() };
    assert!(refused(&mut catalog, &add("a:1")).contains("is a leaf"));
    catalog.apply(&add("c:1")).unwrap();
    assert!(refused(&mut catalog, &Command::AddLeaf { address: "c:1".into(), group: None }).contains("is a coordinator"));
    assert_eq!(catalog.coordinator("c:1").map(|(id, _)| id), Some(NodeId(2)));
    assert!(refused(&mut catalog, &remove("c:1")).contains("last coordinator"));
    catalog.apply(&add("c:2")).unwrap();
    catalog.apply(&remove("c:1")).unwrap();
    let detach = Command::SetLeafState { address: "a:1".into(), state: LeafState::Detached };
    catalog.apply(&detach).unwrap();
    assert_eq!(catalog.leaves[&NodeId(1)].state, LeafState::Detached);
}

#[test]
fn grants_go_down_and_not_up() {
    let mut catalog = cluster(1);
    catalog.apply(&Command::CreateTable { database: "d".into(), definition: definition("t") }).unwrap();
    let user = |name: &str| Command::CreateUser { name: name.into(), password_hash: "h".into() };
    catalog.apply(&user("admin")).unwrap();
    catalog.apply(&user("ann")).unwrap();
    let database = Scope::Database("D".into());
    let table = Scope::Table("d".into(), "T".into());
    assert!(catalog.allows("ADMIN", Privilege::Cluster, &Scope::Everywhere));
    assert!(!catalog.allows("ann", Privilege::Select, &table) && !catalog.allows("nobody", Privilege::Select, &table));
    let select = BTreeSet::from([Privilege::Select]);
    let grant = |scope: &Scope| Command::Grant { user: "ann".into(), privileges: select.clone(), scope: scope.clone() };
    let revoke = |scope: &Scope| Command::Revoke { user: "ann".into(), privileges: select.clone(), scope: scope.clone() };
    catalog.apply(&grant(&table)).unwrap();
    assert!(catalog.allows("ann", Privilege::Select, &table) && !catalog.allows("ann", Privilege::Select, &database));
    catalog.apply(&grant(&database)).unwrap();
    catalog.apply(&revoke(&table)).unwrap();
    assert!(catalog.allows("ann", Privilege::Select, &table));
    assert!(refused(&mut catalog, &revoke(&table)).contains("wider scope"));
    assert!(refused(&mut catalog, &grant(&Scope::Database("e".into()))).contains("no database"));
    let cluster = Command::Grant { user: "ann".into(), privileges: [Privilege::Cluster].into(), scope: database.clone() };
    assert!(refused(&mut catalog, &cluster).contains("*.*"));
    assert_eq!(catalog.user("ANN").unwrap().grants.list(), [(Scope::Database("d".into()), select.clone())]);
    catalog.apply(&Command::DropDatabase("d".into())).unwrap();
    assert!(!catalog.allows("ann", Privilege::Select, &database));
    assert!(refused(&mut catalog, &Command::DropUser("admin".into())).contains("last who may administer"));
    assert!(!format!("{:?}", catalog.user("ann")).contains("password"));
}
