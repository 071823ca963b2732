//! The data directory: its version, its lock, and what a crash may have left in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::catalog::{Catalog, Files};
use super::manifest::{MANIFEST, TEMPORARY};
use crate::disk::Disk;
use crate::log;
use crate::segment::{corrupt, io_error};
use crate::{Error, Result};

/// Version of the data directory as a whole. Version 1 had no log, version 2 had rows in it as Arrow IPC; both are read, and become this
/// one.
pub const FORMAT_VERSION: u32 = 3;
const OLDEST_VERSION: u32 = 1;

const VERSION_FILE: &str = "stoa.version";
const VERSION_TEMPORARY: &str = "stoa.version.new";
const LOCK_FILE: &str = "LOCK";
const TABLES: &str = "tables";
/// How long closing a directory may take.
const CLOSING: std::time::Duration = std::time::Duration::from_secs(2);

/// Refuses a folder that is not ours before a file is made in it.
pub(crate) fn check_before_lock(disk: &dyn Disk, root: &Path) -> Result<()> {
    match version(disk, root)? {
        Some(_) => Ok(()),
        None => check_empty(disk, root),
    }
}

/// Checks the version, and creates what a new directory needs.
pub(crate) fn prepare(files: &Arc<Files>, fsync: bool) -> Result<()> {
    let Files { disk, root } = &**files;
    disk.create_folder(root).map_err(io_error(root))?;
    let known = version(&**disk, root)?;
    if known.is_none() {
        check_empty(&**disk, root)?;
    }
    let tables = files.tables();
    disk.create_folder(&tables).map_err(io_error(&tables))?;
    if known.is_none() && fsync {
        sync_above(&**disk, root)?;
    }
    if known.is_none() && !disk.list(root).map_err(io_error(root))?.iter().any(|(name, _)| name == MANIFEST) {
        Catalog::new(Arc::clone(files)).store(1, fsync)?;
    }
    if known != Some(FORMAT_VERSION) {
        write_version(&**disk, root, fsync)?;
    }
    Ok(())
}

/// Makes the name of a new directory last, and those of the folders above it, which may be new too. One that may not be read is not.
pub(super) fn sync_above(disk: &dyn Disk, root: &Path) -> Result<()> {
    for folder in root.ancestors().skip(1) {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        match disk.sync_folder(folder) {
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {}
            synced => synced.map_err(io_error(folder))?,
        }
    }
    Ok(())
}

pub(super) fn write_version(disk: &dyn Disk, root: &Path, fsync: bool) -> Result<()> {
    let (path, temporary) = (root.join(VERSION_FILE), root.join(VERSION_TEMPORARY));
    let _ = disk.remove(&temporary);
    let write = || -> std::io::Result<()> {
        let file = disk.create(&temporary)?;
        file.append(format!("{FORMAT_VERSION}\n").as_bytes())?;
        if fsync {
            file.sync()?;
        }
        disk.rename(&temporary, &path)?;
        if fsync { disk.sync_folder(root) } else { Ok(()) }
    };
    write().map_err(io_error(&path))
}

/// The version, if there is one; it is one that this program reads.
fn version(disk: &dyn Disk, root: &Path) -> Result<Option<u32>> {
    let path = root.join(VERSION_FILE);
    let text = match disk.read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io_error(&path)(e)),
    };
    let found = std::str::from_utf8(&text).ok().and_then(|t| t.strip_suffix('\n')).and_then(|t| t.parse().ok());
    match found {
        Some(found) if (OLDEST_VERSION..=FORMAT_VERSION).contains(&found) => Ok(Some(found)),
        Some(found) => Err(Error::Version { path: root.to_path_buf(), found, expected: FORMAT_VERSION }),
        None => Err(corrupt(&path, "it does not hold a version number")),
    }
}

/// A folder without a version may only hold what an interrupted creation left.
fn check_empty(disk: &dyn Disk, root: &Path) -> Result<()> {
    let known = [LOCK_FILE, MANIFEST, TEMPORARY, TABLES, VERSION_TEMPORARY];
    for (name, _) in disk.list(root).map_err(io_error(root))? {
        if !known.contains(&name.as_str()) {
            let what = format!("{} is not a Stoa data directory, and not empty: it holds {name}", root.display());
            return Err(Error::Invalid(what));
        }
    }
    Ok(())
}

/// Takes the lock of a data directory: held as long as the file.
pub(crate) fn take_lock(root: &Path) -> Result<File> {
    let path = root.join(LOCK_FILE);
    let holder = || fs::read_to_string(&path).ok().and_then(|text| text.trim().parse::<u32>().ok());
    let mut found = lock_file(&path)?;
    // This process may have closed it and still be about to finish what it did in the background.
    let until = std::time::Instant::now() + CLOSING;
    while found.is_none() && holder() == Some(std::process::id()) && std::time::Instant::now() < until {
        std::thread::sleep(std::time::Duration::from_millis(5));
        found = lock_file(&path)?;
    }
    let Some(mut file) = found else {
        let pid = holder();
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

/// Removes what the catalog does not name: files of loads that did not commit, folders of dropped tables.
pub(crate) fn remove_leftovers(catalog: &Catalog) -> Result<()> {
    let files = &catalog.files;
    let _ = files.disk.remove(&files.root.join(TEMPORARY));
    let named: BTreeSet<&Path> = catalog.segments().map(|s| s.path()).collect();
    let entries = |folder: &Path| -> Result<Vec<(PathBuf, bool)>> {
        let entries = files.disk.list(folder).map_err(io_error(folder))?;
        Ok(entries.into_iter().map(|(name, is_folder)| (folder.join(name), is_folder)).collect())
    };
    let remove = |path: &Path, is_folder: bool| {
        let removed = if is_folder { files.disk.remove_folder(path) } else { files.disk.remove(path) };
        removed.map_err(io_error(path))
    };
    for (table, is_folder) in entries(&files.tables())? {
        let known = catalog.tables.values().any(|t| table.file_name().is_some_and(|n| n == t.id.to_string().as_str()));
        if !known || !is_folder {
            remove(&table, is_folder)?;
            continue;
        }
        for (partition, is_folder) in entries(&table)? {
            for (file, is_folder) in if is_folder { entries(&partition)? } else { vec![(partition, false)] } {
                if !named.contains(file.as_path()) {
                    remove(&file, is_folder)?;
                }
            }
        }
    }
    Ok(())
}

/// A segment that the catalog names and whose file is not there.
pub(crate) fn missing_segment(catalog: &Catalog) -> Result<Option<PathBuf>> {
    let mut known: BTreeMap<&Path, BTreeSet<String>> = BTreeMap::new();
    for path in catalog.segments().map(|segment| segment.path()) {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { continue };
        if !known.contains_key(folder) {
            let entries = catalog.files.disk.list(folder).map_err(io_error(folder))?;
            known.insert(folder, entries.into_iter().map(|(name, _)| name).collect());
        }
        if !known.get(folder).is_some_and(|names| names.contains(&*name.to_string_lossy())) {
            return Ok(Some(path.to_path_buf()));
        }
    }
    Ok(None)
}

/// Removes the files of the log that are done with, by their numbers.
pub(crate) fn remove_logs(files: &Files, done: impl Fn(u64) -> bool) -> Result<()> {
    for number in log::files(&*files.disk, &files.root)?.into_iter().filter(|number| done(*number)) {
        let path = log::file_path(&files.root, number);
        files.disk.remove(&path).map_err(io_error(&path))?;
    }
    Ok(())
}
