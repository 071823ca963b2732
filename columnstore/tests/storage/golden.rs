//! The format pinned: what this program writes is what this version always wrote, and what older ones wrote it reads.
//!
//! `STOA_REGENERATE=1 cargo test -p stoa-columnstore golden` writes the files anew. Files of a released format are not written anew:
//! a change of the format gets a new version and files of its own.

use std::fs;
use std::path::{Path, PathBuf};

use stoa_columnstore::{BitmapIndex, CheckReport, Database, FORMAT_VERSION, Options, RowNames, TableDef};

use crate::tables::{options, read_sorted, wide_rows, wide_table};

const ROWS: i64 = 1500;

fn golden(version: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/v{version}"))
}

fn definition() -> TableDef {
    let mut def = TableDef { sort_key: vec![6], partitions: 2, ..wide_table("wide") };
    def.columns[1].bitmap_index = BitmapIndex::None;
    def
}

/// A directory with two partitions, several segments, every column type, block zones, bitmap indexes, a view, rows in memory and
/// deleted rows in the manifest and in the log.
fn write(root: &Path) {
    let database = Database::open(root, Options { default_partitions: 2, ..options(1 << 20) }).unwrap();
    let def = definition();
    database.create_table(def.clone()).unwrap();
    database.create_view("few", "SELECT * FROM wide WHERE id < 10", false).unwrap();
    for (from, to) in [(0, 1420), (1420, ROWS)] {
        let mut writer = database.writer("wide").unwrap();
        writer.push(&wide_rows(&def, from, to)).unwrap();
        writer.finish().unwrap();
    }
    for from in [ROWS, ROWS + 20] {
        let mut transaction = database.begin();
        transaction.insert("wide", &wide_rows(&def, from, from + 20), RowNames::default()).unwrap();
        transaction.commit().unwrap();
        let table = database.table("wide").unwrap();
        // A row of a segment and one of the first run in memory.
        let scanned = table.scanned(0).unwrap();
        let round = ((from - ROWS) / 20) as usize;
        let addresses = [0, scanned.len() - 1 - round].map(|unit| scanned[unit].address + round as u64);
        let mut transaction = database.begin();
        transaction.delete("wide", &addresses).unwrap();
        transaction.commit().unwrap();
        if from == ROWS {
            database.checkpoint().unwrap();
        }
    }
}

/// Files below a folder, by their path in it. The lock holds a process number.
fn files(root: &Path, folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(root, &path));
        } else if path.file_name().is_some_and(|name| name != "LOCK") {
            found.push((path.strip_prefix(root).unwrap().to_path_buf(), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    for (path, bytes) in files(from, from) {
        let path = to.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

#[test]
fn golden_files_are_written_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path());
    if std::env::var("STOA_REGENERATE").is_ok_and(|v| v == "1") {
        let _ = fs::remove_dir_all(golden(FORMAT_VERSION));
        copy(folder.path(), &golden(FORMAT_VERSION));
    }
    let (written, pinned) = (files(folder.path(), folder.path()), files(&golden(FORMAT_VERSION), &golden(FORMAT_VERSION)));
    let names = |files: &[(PathBuf, Vec<u8>)]| files.iter().map(|f| f.0.clone()).collect::<Vec<_>>();
    assert_eq!(names(&written), names(&pinned));
    for ((path, written), (_, pinned)) in written.iter().zip(&pinned) {
        let differs = written.iter().zip(pinned).position(|(a, b)| a != b);
        assert!(written == pinned, "{} differs, first at {differs:?}", path.display());
    }
}

#[test]
fn golden_files_are_read() {
    for (version, rows) in [(1, ROWS as u64), (2, ROWS as u64 + 36), (3, ROWS as u64 + 36)] {
        let folder = tempfile::tempdir().unwrap();
        copy(&golden(version), folder.path());
        let database = Database::open(folder.path(), options(64)).unwrap();
        let table = database.table("wide").unwrap();
        assert_eq!(*table.def, definition());
        assert_eq!(table.rows(), rows, "version {version}");
        let found = read_sorted(&table).unwrap();
        assert_eq!(found.num_rows() as u64, rows);
        if version == 1 {
            assert_eq!(found, wide_rows(&definition(), 0, ROWS));
        }
        assert_eq!(database.view("few").unwrap(), "SELECT * FROM wide WHERE id < 10");
        drop((table, database));
        let report = CheckReport::of(folder.path(), None, &|_, _| ()).unwrap();
        assert_eq!((report.damages, report.segments), (vec![], 4));
    }
}
