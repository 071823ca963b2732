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
    Definition::new(TableDef {
        name: name.into(),
        columns,
        shard_key: vec![0],
        sort_key: vec![],
        reference: false,
        partitions: 0,
    })
}

fn command() -> impl Strategy<Value = Command> {
    let address = || (0..6u16).prop_map(|port| format!("leaf:{port}"));
    let database = || prop_oneof![Just("d".to_owned()), Just("D".to_owned()), Just("e".to_owned())];
    let name = || prop_oneof![Just("t".to_owned()), Just("T".to_owned()), Just("u".to_owned())];
    prop_oneof![
        (address(), proptest::option::of(0..4u8)).prop_map(|(address, group)| Command::AddLeaf { address, group }),
        (address(), any::<bool>()).prop_map(|(address, force)| Command::RemoveLeaf { address, force }),
        (database(), 0..20u32, 1..3u8).prop_map(|(name, partitions, redundancy)| Command::CreateDatabase {
            name,
            partitions,
            redundancy,
            placement: PlacementKind::Paired
        }),
        database().prop_map(Command::DropDatabase),
        (database(), name()).prop_map(|(database, name)| Command::CreateTable { database, definition: definition(&name) }),
        (database(), name()).prop_map(|(database, table)| Command::DropTable { database, table }),
        (database(), name(), any::<bool>()).prop_map(|(database, name, or_replace)| Command::CreateView {
            database,
            name,
            sql: "SELECT 1".into(),
            or_replace
        }),
        (database(), name()).prop_map(|(database, name)| Command::DropView { database, name }),
    ]
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
                    prop_assert!(partition.copies.all().all(|copy| catalog.leaves.contains_key(&copy)));
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

#[test]
fn a_catalog_lasts_and_has_one_owner() {
    let folder = tempfile::tempdir().unwrap();
    assert!(CatalogFile::open(folder.path(), false).is_err());
    let file = CatalogFile::open(folder.path(), true).unwrap();
    file.change(&Command::AddLeaf { address: "a:1".into(), group: Some(2) }).unwrap();
    assert!(file.change(&Command::DropDatabase("d".into())).is_err());
    assert!(CatalogFile::open(folder.path(), false).is_err());
    let before = file.get();
    drop(file);
    assert_eq!(*CatalogFile::open(folder.path(), false).unwrap().get(), *before);
    std::fs::write(folder.path().join("catalog.json"), "{").unwrap();
    assert!(CatalogFile::open(folder.path(), false).err().unwrap().to_string().contains("catalog.json is damaged"));
}
