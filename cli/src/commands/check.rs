//! `stoa check`: whether everything that a data directory holds is as it was written.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use comfy_table::Cell;
use stoa_columnstore::{CheckReport, Damage, Error as StorageError, lock_file};

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
    let (_lock, directories) = directories(&args.data)?;
    let mut text = text_table(["directory", "tables", "segments", "rows", "bytes", "last LSN", "damages"]);
    let mut damages = Vec::new();
    for directory in &directories {
        let report = check(directory)?;
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

/// The data directories of a directory, itself or those of a leaf's partitions; locked as long as the file is there.
fn directories(root: &Path) -> Result<(Option<File>, Vec<PathBuf>)> {
    if root.join(VERSION_FILE).exists() {
        return Ok((None, vec![root.to_owned()]));
    }
    let databases = root.join(DATABASES);
    if !databases.is_dir() {
        let what = "is neither a data directory nor that of a leaf: it has no stoa.version and no folder 'databases'";
        return Err(Error::Invalid(format!("{} {what}", root.display())));
    }
    let Some(lock) = lock_file(&root.join(LOCK_FILE))? else {
        return Err(StorageError::Locked { path: root.to_owned(), pid: None }.into());
    };
    let mut found = Vec::new();
    for database in folders(&databases)? {
        found.extend(folders(&database)?);
    }
    Ok((Some(lock), found))
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

fn check(directory: &Path) -> Result<CheckReport> {
    let bar = progress::bar(0, "checking", "segments");
    let show = |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    };
    let report = CheckReport::of(directory, &show);
    bar.finish_and_clear();
    match report {
        // One that does not say its version properly is damaged too.
        Err(StorageError::Corrupt { path, what }) => {
            Ok(CheckReport { damages: vec![Damage { path, what }], ..CheckReport::default() })
        }
        report => Ok(report?),
    }
}
