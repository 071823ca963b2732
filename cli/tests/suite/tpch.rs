//! The 22 TPC-H queries at scale 0.01 give the known answers on every shape of the engine.

use std::path::Path;

use stoa::commands::tpch::load_missing;
use stoa::connection::Connection;
use stoa::engine::{Engine, Setup};
use stoa_datasets::tpch;

const SCALE: f64 = 0.01;

fn setup() -> Setup {
    Setup { threads: 2, memory_limit: 2 << 30, ..Setup::from_env() }
}

fn check_all(folder: &Path, setup: &Setup) {
    let connection = Connection::Embedded(Engine::with_setup(folder, setup).unwrap());
    load_missing(&connection, SCALE).unwrap();
    let mut wrong = Vec::new();
    for number in 1..=tpch::QUERY_COUNT {
        match connection.query(tpch::query(number).unwrap()) {
            Ok((batches, _)) => {
                if let Err(mismatch) = tpch::check(tpch::answer(number, SCALE).unwrap(), &batches) {
                    wrong.push(format!("query {number}: {mismatch}"));
                }
            }
            Err(error) => wrong.push(format!("query {number}: {error}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn right_as_shipped() {
    let folder = tempfile::tempdir().unwrap();
    check_all(folder.path(), &setup());
    // And again after a restart, from what is on disk.
    check_all(folder.path(), &setup());
}

#[test]
fn right_with_many_small_partitions_and_segments() {
    let folder = tempfile::tempdir().unwrap();
    let mut setup = setup();
    setup.storage.default_partitions = 7;
    setup.storage.segment_rows = 2048;
    setup.settings.vector_size = 100;
    check_all(folder.path(), &setup);
}

#[test]
fn right_with_equal_hashes_and_serialized_states() {
    let folder = tempfile::tempdir().unwrap();
    let mut setup = setup();
    setup.settings.serialize_states = true;
    setup.settings.no_fast_paths = true;
    check_all(folder.path(), &setup);
}

#[test]
fn right_on_one_partition_and_thread() {
    let folder = tempfile::tempdir().unwrap();
    let mut setup = setup();
    setup.threads = 1;
    setup.storage.default_partitions = 1;
    check_all(folder.path(), &setup);
}
