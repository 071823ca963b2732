//! The data directory: its version, its lock, and what a crash may have left in it.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::database::manifest::{Catalog, MANIFEST, TEMPORARY, sync_folder};
use crate::segment::{corrupt, io_error};
use crate::{Error, Result};

/// Version of the data directory as a whole.
pub const FORMAT_VERSION: u32 = 1;

const VERSION_FILE: &str = "stoa.version";
const LOCK_FILE: &str = "LOCK";
const TABLES: &str = "tables";

/// Checks the version, takes the lock, creates what a new directory needs. The lock lasts as long as the file.
pub(crate) fn open_folder(root: &Path, fsync: bool) -> Result<File> {
    fs::create_dir_all(root).map_err(io_error(root))?;
    let known = check_version(root)?;
    if !known {
        check_empty(root)?;
    }
    let lock = take_lock(root)?;
    let tables = root.join(TABLES);
    fs::create_dir_all(&tables).map_err(io_error(&tables))?;
    // Another process may have made it between the check and the lock.
    if !known && !check_version(root)? {
        if !root.join(MANIFEST).exists() {
            Catalog::default().store(root, fsync).map_err(|e| e.error)?;
        }
        let path = root.join(VERSION_FILE);
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&path)?;
            file.write_all(format!("{FORMAT_VERSION}\n").as_bytes())?;
            file.sync_all()
        };
        write().map_err(io_error(&path))?;
        sync_folder(root)?;
    }
    Ok(lock)
}

/// Whether there is a version, which then is this program's.
fn check_version(root: &Path) -> Result<bool> {
    let path = root.join(VERSION_FILE);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(io_error(&path)(e)),
    };
    let found = std::str::from_utf8(&text).ok().and_then(|t| t.strip_suffix('\n')).and_then(|t| t.parse().ok());
    match found {
        Some(FORMAT_VERSION) => Ok(true),
        Some(found) => Err(Error::Version { path: root.to_path_buf(), found, expected: FORMAT_VERSION }),
        None => Err(corrupt(&path, "it does not hold a version number")),
    }
}

/// A folder without a version may only hold what an interrupted creation left.
fn check_empty(root: &Path) -> Result<()> {
    for entry in fs::read_dir(root).map_err(io_error(root))? {
        let name = entry.map_err(io_error(root))?.file_name();
        if ![LOCK_FILE, MANIFEST, TEMPORARY, TABLES].iter().any(|known| name == *known) {
            let what = format!("{} is not a Stoa data directory, and not empty: it holds {}", root.display(), name.display());
            return Err(Error::Invalid(what));
        }
    }
    Ok(())
}

fn take_lock(root: &Path) -> Result<File> {
    let path = root.join(LOCK_FILE);
    let Some(mut file) = lock_file(&path)? else {
        let pid = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
        return Err(Error::Locked { path: root.to_path_buf(), pid });
    };
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(io_error(&path))?;
    Ok(file)
}

/// Takes the lock that a file stands for, making the file if it is not there: held as long as what this returns, `None` if another
/// process has it.
///
/// # Errors
/// [`Error::Io`].
pub fn lock_file(path: &Path) -> Result<Option<File>> {
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(io_error(path))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(e)) => Err(io_error(path)(e)),
    }
}

/// Removes what the manifest does not name: files of loads that did not commit, folders of dropped tables.
pub(crate) fn remove_leftovers(root: &Path, catalog: &Catalog) -> Result<()> {
    let _ = fs::remove_file(root.join(TEMPORARY));
    let named: BTreeSet<&Path> = catalog.tables.values().flat_map(|t| t.segments()).map(|s| s.path()).collect();
    let tables = root.join(TABLES);
    for table in entries(&tables)? {
        let known = catalog.tables.values().any(|t| table.file_name().is_some_and(|n| n == t.id.to_string().as_str()));
        if !known {
            remove(&table)?;
            continue;
        }
        for partition in entries(&table)? {
            for file in if partition.is_dir() { entries(&partition)? } else { vec![partition] } {
                if !named.contains(file.as_path()) {
                    remove(&file)?;
                }
            }
        }
    }
    Ok(())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(io_error(folder))?;
    entries.map(|entry| entry.map(|e| e.path()).map_err(io_error(folder))).collect()
}

fn remove(path: &Path) -> Result<()> {
    if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.map_err(io_error(path))
}
