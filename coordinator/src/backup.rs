//! BACKUP and RESTORE of a data directory, to and from a folder or an object store.
//!
//! ```text
//! PLACE/segments/<name>                    segment files of all backups in this place
//! PLACE/backups/<time>-<lsn>/manifest      a backup; written last, so that a backup that is there is whole
//! ```

use std::path::Path as Folder;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use stoa_columnstore::{BackupSource, Database};
use stoa_exec::CancelToken;

use crate::{Error, Result};

/// What a backup did.
pub(crate) struct Copied {
    /// Segment files that were copied, and their bytes.
    pub files: u64,
    pub bytes: u64,
    /// Segment files that were there from earlier backups.
    pub kept: u64,
    /// The name of the backup.
    pub name: String,
}

/// Where backups are: `s3://bucket/prefix`, whose access the AWS_* variables of the environment describe, or a folder.
struct Place {
    store: Box<dyn ObjectStore>,
    prefix: Path,
    runtime: tokio::runtime::Runtime,
}

impl Place {
    fn open(place: &str, create: bool) -> Result<Place> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| Error::Invalid(format!("cannot copy: {e}")))?;
        if place.contains("://") {
            // Whoever was first has done the same.
            let _ = rustls::crypto::ring::default_provider().install_default();
            let url = url::Url::parse(place).map_err(|e| Error::Invalid(format!("'{place}' is no place for backups: {e}")))?;
            let (store, prefix) = object_store::parse_url_opts(&url, std::env::vars().filter(|(k, _)| k.starts_with("AWS_")))
                .map_err(|e| failed(place, &e))?;
            return Ok(Place { store, prefix, runtime });
        }
        let folder = Folder::new(place);
        if create {
            std::fs::create_dir_all(folder).map_err(|e| failed(place, &e))?;
        }
        let store = object_store::local::LocalFileSystem::new_with_prefix(folder).map_err(|e| failed(place, &e))?;
        Ok(Place { store: Box::new(store.with_fsync(true)), prefix: Path::default(), runtime })
    }

    fn path(&self, parts: &[&str]) -> Path {
        parts.iter().fold(self.prefix.clone(), |path, part| path.join(*part))
    }

    /// The names and lengths below a folder.
    fn list(&self, folder: &Path) -> object_store::Result<Vec<object_store::ObjectMeta>> {
        self.runtime.block_on(self.store.list(Some(folder)).try_collect())
    }

    fn put(&self, path: &Path, bytes: Vec<u8>) -> object_store::Result<()> {
        self.runtime.block_on(self.store.put(path, PutPayload::from(bytes))).map(drop)
    }

    fn get(&self, path: &Path) -> object_store::Result<Vec<u8>> {
        self.runtime.block_on(async { Ok(self.store.get(path).await?.bytes().await?.to_vec()) })
    }
}

fn failed(place: &str, why: &dyn std::fmt::Display) -> Error {
    Error::Invalid(format!("backup place '{place}': {why}"))
}

/// Copies the state of a database; segments that are there already are not copied again, unless `anew`.
pub(crate) fn backup(database: &Arc<Database>, to: &str, anew: bool, cancel: &CancelToken) -> Result<Copied> {
    let place = Place::open(to, true)?;
    let source: BackupSource = database.backup_source()?;
    let there = place.list(&place.path(&["segments"])).map_err(|e| failed(to, &e))?;
    let there: std::collections::HashMap<String, u64> =
        there.into_iter().filter_map(|found| Some((found.location.filename()?.to_owned(), found.size))).collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let mut copied = Copied { files: 0, bytes: 0, kept: 0, name: format!("{now:015}-{}", source.lsn()) };
    for file in source.files() {
        cancel.check()?;
        if !anew && there.get(&file.name) == Some(&file.length) {
            copied.kept += 1;
            continue;
        }
        let bytes = std::fs::read(file.path()).map_err(|e| failed(&file.path().display().to_string(), &e))?;
        place.put(&place.path(&["segments", &file.name]), bytes).map_err(|e| failed(to, &e))?;
        copied.files += 1;
        copied.bytes += file.length;
    }
    let manifest = source.manifest()?;
    place.put(&place.path(&["backups", &copied.name, "manifest"]), manifest).map_err(|e| failed(to, &e))?;
    Ok(copied)
}

/// Makes the tables of the newest backup in a place; its name, and how many tables.
pub(crate) fn restore(database: &Arc<Database>, from: &str, cancel: &CancelToken) -> Result<(String, usize)> {
    let place = Place::open(from, false)?;
    let all = place.list(&place.path(&["backups"])).map_err(|e| failed(from, &e))?;
    let manifests = all.into_iter().map(|found| found.location).filter(|path| path.filename() == Some("manifest"));
    let newest = manifests.max().ok_or_else(|| failed(from, &"there is no backup in it"))?;
    let name = newest.parts().rev().nth(1).map(|part| part.as_ref().to_owned()).unwrap_or_default();
    let manifest = place.get(&newest).map_err(|e| failed(from, &e))?;
    let tables = database.restore(&manifest, &mut |segment| {
        let cancelled = |_| stoa_columnstore::Error::Invalid("the restore was cancelled".into());
        cancel.check().map_err(cancelled)?;
        let lost = |e| stoa_columnstore::Error::Invalid(format!("backup {name}, file {segment}: {e}"));
        place.get(&place.path(&["segments", segment])).map_err(lost)
    })?;
    Ok((name, tables))
}
