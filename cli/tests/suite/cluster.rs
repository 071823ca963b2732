//! A cluster gives the answers of one machine: TPC-H on 1, 2 and 4 leaves, 1 to 16 partitions.

use crate::leaves::Leaves;
use stoa_columnstore::Options;
use stoa_coordinator::Outcome;
use stoa_datasets::tpch;
use stoa_exec::{CancelToken, Progress, Settings};

const SCALE: f64 = 0.01;

fn check_all(leaves: usize, partitions: u32, settings: &Settings) {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Leaves::start(folder.path(), leaves, partitions, settings, &Options { fsync: false, ..Options::default() });
    for table in &tpch::TABLES {
        let run = cluster
            .session
            .run(table.create, &CancelToken::default(), &Progress::default(), &mut |_| Ok::<(), stoa_coordinator::Error>(()));
        run.unwrap();
        let mut rows = cluster.session.store().rows(table.name).unwrap();
        for batch in table.generate(SCALE, 1, 1) {
            rows.push(&batch.unwrap()).unwrap();
        }
        assert!(rows.finish().unwrap() > 0);
    }
    let mut wrong = Vec::new();
    for number in 1..=tpch::QUERY_COUNT {
        let mut rows = vec![];
        let mut each = |outcome| {
            match outcome {
                Outcome::Rows { batches, .. } | Outcome::More(batches) => rows.extend(batches),
                Outcome::Plan(_) | Outcome::Done(_) => {}
            }
            Ok::<(), stoa_coordinator::Error>(())
        };
        let ran = cluster.session.run(tpch::query(number).unwrap(), &CancelToken::default(), &Progress::default(), &mut each);
        match ran {
            Ok(()) => {
                if let Err(mismatch) = tpch::check(tpch::answer(number, SCALE).unwrap(), &rows) {
                    wrong.push(format!("query {number}: {mismatch}"));
                }
            }
            Err(error) => wrong.push(format!("query {number}: {error}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn right_on_one_leaf() {
    check_all(1, 1, &Settings::default());
}

#[test]
fn right_on_two_leaves() {
    check_all(2, 5, &Settings::default());
}

#[test]
fn right_on_four_leaves_with_tiny_vectors() {
    check_all(4, 16, &Settings { vector_size: 100, no_fast_paths: true, ..Settings::default() });
}

#[test]
fn right_with_more_leaves_than_partitions() {
    check_all(4, 2, &Settings { hash_zero: false, serialize_states: true, ..Settings::default() });
}

#[test]
fn right_when_all_joins_and_groups_are_shuffled() {
    check_all(3, 7, &Settings { always_shuffle: true, ..Settings::default() });
}
