//! `stoa check`: whether everything that a data directory holds is as it was written.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use comfy_table::Cell;
use stoa_columnstore::{CheckReport, Damage, Error as StorageError, lock_file};
use stoa_coordinator::catalog::Catalog;
use stoa_leaf::{kept_catalog, parse_folder};

use crate::args::CheckArgs;
use crate::output::{right, text_table};
use crate::{Error, Result, progress};

/// The file that every data directory has.
const VERSION_FILE: &str = "stoa.version";
/// The folder that a leaf's directory has instead, and its lock.
const DATABASES: &str = "databases";
const LOCK_FILE: &str = "LOCK";

/// Runs the command.
///
/// # Errors
/// [`Error::Damaged`] after all damage was told; otherwise what keeps one from looking.
pub fn run(args: &CheckArgs) -> Result<()> {
    let Found { directories, _lock } = directories(&args.data)?;
    let mut text = text_table(["directory", "tables", "segments", "rows", "bytes", "last LSN", "damages"]);
    let mut damages = Vec::new();
    for (directory, part) in &directories {
        let report = check(directory, *part)?;
        let numbers = [report.tables, report.segments, report.rows, report.bytes, report.lsn, report.damages.len() as u64];
        let name = Cell::new(directory.display());
        text.add_row(std::iter::once(name).chain(numbers.map(right)));
        damages.extend(report.damages);
    }
    let mut out = std::io::stdout();
    writeln!(out, "{text}")?;
    for Damage { path, what } in &damages {
        writeln!(out, "{}: {what}", path.display())?;
    }
    if damages.is_empty() { Ok(()) } else { Err(Error::Damaged(damages.len())) }
}

/// What is looked at.
struct Found {
    /// Data directories; of those that are a partition of a database, its ordinal and how many there are, if that is known.
    directories: Vec<(PathBuf, Option<(u32, u32)>)>,
    /// A leaf's folder is locked as long as this is there.
    _lock: Option<File>,
}

/// The data directories of a directory: itself or those of a leaf's partitions.
fn directories(root: &Path) -> Result<Found> {
    if root.join(VERSION_FILE).exists() {
        return Ok(Found { directories: vec![(root.to_owned(), None)], _lock: None });
    }
    let databases = root.join(DATABASES);
    if !databases.is_dir() {
        let what = "is neither a data directory nor that of a leaf: it has no stoa.version and no folder 'databases'";
        return Err(Error::Invalid(format!("{} {what}", root.display())));
    }
    let Some(lock) = lock_file(&root.join(LOCK_FILE))? else {
        return Err(StorageError::Locked { path: root.to_owned(), pid: None }.into());
    };
    // Without it nobody knows how many partitions a database has.
    let catalog: Catalog = kept_catalog(root).and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let mut found = Vec::new();
    for database in folders(&databases)? {
        let partitions = catalog.database(&name(&database)).map_or(0, |database| database.partitions.len() as u32);
        for folder in folders(&database)? {
            let ordinal = parse_folder(&name(&folder)).map(|(ordinal, _)| ordinal);
            let part = ordinal.filter(|ordinal| *ordinal < partitions).map(|ordinal| (ordinal, partitions));
            found.push((folder, part));
        }
    }
    Ok(Found { directories: found, _lock: Some(lock) })
}

fn name(folder: &Path) -> String {
    folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The folders in a folder, in order.
fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(Error::file(folder))?;
    let paths: std::io::Result<Vec<PathBuf>> = entries.map(|entry| Ok(entry?.path())).collect();
    let mut paths = paths.map_err(Error::file(folder))?;
    paths.retain(|path| path.is_dir());
    paths.sort_by_key(|path| (path.to_string_lossy().len(), path.clone()));
    Ok(paths)
}

fn check(directory: &Path, part: Option<(u32, u32)>) -> Result<CheckReport> {
    let bar = progress::bar(0, "checking", "segments");
    let show = |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    };
    let report = CheckReport::of(directory, part, &show);
    bar.finish_and_clear();
    match report {
        // One that does not say its version properly is damaged too.
        Err(StorageError::Corrupt { path, what }) => {
            Ok(CheckReport { damages: vec![Damage { path, what }], ..CheckReport::default() })
        }
        report => Ok(report?),
    }
}
