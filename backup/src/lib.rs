//! Where backups are: a folder, or an object store.
//!
//! ```text
//! PLACE/segments/<name>                    segment files of all backups in this place
//! PLACE/backups/<time>-<lsn>/begun         of a cluster: by it the leaves know the place for the same
//! PLACE/backups/<time>-<lsn>/<ordinal>     of a cluster: the manifest of a partition; `reference`: that of the REFERENCE tables
//! PLACE/backups/<time>-<lsn>/cluster       of a cluster: its definitions
//! PLACE/backups/<time>-<lsn>/manifest      of a data directory
//! ```
//!
//! The last of `cluster` and `manifest` is written when all else is there: a backup that has it is whole. A segment never changes, and
//! its name says what it holds: one that is there is not copied again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path as Folder;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use stoa_columnstore::{BackupSource, Database};

/// The file that makes a backup of a data directory whole.
pub const MANIFEST: &str = "manifest";
/// The file that makes a backup of a cluster whole.
pub const CLUSTER: &str = "cluster";
/// The file by which the nodes of a cluster know that they see the same place.
pub const BEGUN: &str = "begun";

/// Why a backup cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The place, or what is in it, is the reason.
    #[error("backup place '{place}': {why}")]
    Place {
        /// As it was named.
        place: String,
        /// The reason.
        why: String,
    },
    /// The data directory is.
    #[error(transparent)]
    Storage(#[from] stoa_columnstore::Error),
    /// Somebody wanted it to end.
    #[error("the copy was cancelled")]
    Cancelled,
}

/// What a call gives that may fail so.
pub type Result<T> = std::result::Result<T, Error>;

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Segment files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Segment files that were there from earlier backups.
    pub kept: u64,
}

impl std::ops::AddAssign for Copied {
    fn add_assign(&mut self, other: Copied) {
        self.files += other.files;
        self.bytes += other.bytes;
        self.kept += other.kept;
    }
}

/// A place for backups: `s3://bucket/prefix`, whose access the AWS_* variables of the environment describe, or a folder.
pub struct Place {
    name: String,
    store: Box<dyn ObjectStore>,
    prefix: Path,
    runtime: tokio::runtime::Runtime,
}

impl Place {
    /// Opens a place; `create`: a folder that is not there is made.
    ///
    /// # Errors
    /// If it is no place, or cannot be reached.
    pub fn open(place: &str, create: bool) -> Result<Place> {
        let failed = |why: &dyn std::fmt::Display| Error::Place { place: place.to_owned(), why: why.to_string() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| failed(&e))?;
        let name = place.to_owned();
        if place.contains("://") {
            // Whoever was first has done the same.
            let _ = rustls::crypto::ring::default_provider().install_default();
            let url = url::Url::parse(place).map_err(|e| failed(&e))?;
            let (store, prefix) = object_store::parse_url_opts(&url, std::env::vars().filter(|(k, _)| k.starts_with("AWS_")))
                .map_err(|e| failed(&e))?;
            return Ok(Place { name, store, prefix, runtime });
        }
        let folder = Folder::new(place);
        if create {
            std::fs::create_dir_all(folder).map_err(|e| failed(&e))?;
        }
        let store = object_store::local::LocalFileSystem::new_with_prefix(folder).map_err(|e| failed(&e))?;
        Ok(Place { name, store: Box::new(store.with_fsync(true)), prefix: Path::default(), runtime })
    }

    fn failed(&self, why: impl std::fmt::Display) -> Error {
        Error::Place { place: self.name.clone(), why: why.to_string() }
    }

    fn path(&self, parts: &[&str]) -> Path {
        parts.iter().fold(self.prefix.clone(), |path, part| path.join(*part))
    }

    /// The names and lengths below a folder.
    fn list(&self, folder: &str) -> Result<Vec<object_store::ObjectMeta>> {
        let found = self.runtime.block_on(self.store.list(Some(&self.path(&[folder]))).try_collect());
        found.map_err(|e| self.failed(e))
    }

    fn put(&self, path: &Path, bytes: Vec<u8>) -> Result<()> {
        let put = self.runtime.block_on(self.store.put(path, PutPayload::from(bytes)));
        put.map(drop).map_err(|e| self.failed(e))
    }

    fn get(&self, path: &Path) -> object_store::Result<Vec<u8>> {
        self.runtime.block_on(async { Ok(self.store.get(path).await?.bytes().await?.to_vec()) })
    }

    /// The backups in it that are whole or were to be, the newest first: names, and of each the files.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn backups(&self) -> Result<Vec<(String, BTreeSet<String>)>> {
        let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for file in self.list("backups")? {
            let mut parts = file.location.parts().rev().map(|part| part.as_ref().to_owned());
            if let (Some(file), Some(backup)) = (parts.next(), parts.next()) {
                found.entry(backup).or_default().insert(file);
            }
        }
        Ok(found.into_iter().rev().collect())
    }

    /// Writes a file of a backup.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, backup: &str, file: &str, bytes: Vec<u8>) -> Result<()> {
        self.put(&self.path(&["backups", backup, file]), bytes)
    }

    /// Reads a file of a backup; `None` if there is none.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(&self, backup: &str, file: &str) -> Result<Option<Vec<u8>>> {
        match self.get(&self.path(&["backups", backup, file])) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(self.failed(e)),
        }
    }

    /// Copies a state into a backup: its segments, unless they are there already or all are to be copied `anew`, and its manifest
    /// last, as `file`.
    ///
    /// # Errors
    /// If it cannot be read, or written here; [`Error::Cancelled`].
    pub fn copy(
        &self,
        source: &BackupSource,
        (backup, file): (&str, &str),
        anew: bool,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Copied> {
        let name = |found: object_store::ObjectMeta| Some((found.location.filename()?.to_owned(), found.size));
        let there: HashMap<String, u64> = self.list("segments")?.into_iter().filter_map(name).collect();
        let mut copied = Copied::default();
        for segment in source.files() {
            if cancelled() {
                return Err(Error::Cancelled);
            }
            if !anew && there.get(&segment.name) == Some(&segment.length) {
                copied.kept += 1;
                continue;
            }
            let bytes = std::fs::read(segment.path()).map_err(|e| self.failed(format!("{}: {e}", segment.path().display())))?;
            self.put(&self.path(&["segments", &segment.name]), bytes)?;
            copied.files += 1;
            copied.bytes += segment.length;
        }
        self.write(backup, file, source.manifest()?)?;
        Ok(copied)
    }

    /// Makes an empty data directory what it was in a backup; how many tables it has.
    ///
    /// # Errors
    /// If it is not empty, or the backup cannot be read: nothing has changed then; [`Error::Cancelled`].
    pub fn restore(&self, database: &Arc<Database>, (backup, file): (&str, &str), cancelled: &dyn Fn() -> bool) -> Result<usize> {
        let missing = || self.failed(format!("backup {backup} has no file '{file}' in it, as far as this node sees"));
        let manifest = self.read(backup, file)?.ok_or_else(missing)?;
        let restored = database.restore(&manifest, &mut |segment| {
            if cancelled() {
                return Err(stoa_columnstore::Error::Invalid("the restore was cancelled".into()));
            }
            let lost = |e| stoa_columnstore::Error::Invalid(format!("backup {backup}, file {segment}: {e}"));
            self.get(&self.path(&["segments", segment])).map_err(lost)
        });
        match restored {
            Err(_) if cancelled() => Err(Error::Cancelled),
            restored => Ok(restored?),
        }
    }
}

/// The name of a backup that is made now, of a state of this LSN: a later one sorts behind an earlier one.
#[must_use]
pub fn new_name(lsn: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    format!("{now:015}-{lsn}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_backup_stay_in_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::open(folder.path().join("place").to_str().unwrap(), true).unwrap();
        place.write("../../up", "../file", b"1".to_vec()).unwrap();
        assert_eq!(place.read("../../up", "../file").unwrap().as_deref(), Some(&b"1"[..]));
        assert_eq!(place.read("up", "file").unwrap(), None);
        let outside: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(outside, ["place"]);
    }

    #[test]
    fn the_newest_backup_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::open(folder.path().to_str().unwrap(), true).unwrap();
        assert_eq!(place.backups().unwrap(), []);
        for (backup, file) in [("2-1", "b"), ("1-7", "a"), ("2-1", "a")] {
            place.write(backup, file, vec![]).unwrap();
        }
        let files = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(place.backups().unwrap(), [("2-1".to_owned(), files(&["a", "b"])), ("1-7".to_owned(), files(&["a"]))]);
    }

    #[test]
    fn what_is_no_place_is_named() {
        let missing = Place::open("/nowhere/at/all", false).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(missing.starts_with("backup place '/nowhere/at/all': "), "{missing}");
        assert!(Place::open("gopher://a/b", true).is_err());
    }
}
