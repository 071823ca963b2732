//! The catalog of a coordinator that is alone, in a file.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use stoa_columnstore::lock_file;

use super::{Catalog, Command};
use crate::{Error, Result};

const FILE: &str = "catalog.json";

/// A catalog that is stored before a change of it is told. One process has it at a time.
pub struct CatalogFile {
    path: PathBuf,
    catalog: RwLock<Arc<Catalog>>,
    /// Held during a change.
    changing: Mutex<()>,
    _lock: File,
}

impl CatalogFile {
    /// Opens the catalog in a folder, or makes one if `create` is set.
    ///
    /// # Errors
    /// If it cannot be read, another process has it, or it is not there and not to be made.
    pub fn open(folder: &Path, create: bool) -> Result<CatalogFile> {
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |e: std::io::Error| Error::Invalid(format!("{}: {e}", path.display()))
        };
        let path = folder.join(FILE);
        if !create && !path.exists() {
            let what = format!("there is no cluster in {}: --bootstrap makes one", folder.display());
            return Err(Error::Invalid(what));
        }
        fs::create_dir_all(folder).map_err(failed(folder))?;
        let lock = lock_file(&folder.join("LOCK"))?
            .ok_or_else(|| Error::Invalid(format!("another process has the data directory {} open", folder.display())))?;
        let catalog = match fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map_err(|e| Error::Invalid(format!("{} is damaged: {e}", path.display())))?
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                store(&path, &Catalog::default())?;
                Catalog::default()
            }
            Err(e) => return Err(failed(&path)(e)),
        };
        Ok(CatalogFile { path, catalog: RwLock::new(Arc::new(catalog)), changing: Mutex::default(), _lock: lock })
    }

    /// The catalog as it is now.
    #[must_use]
    pub fn get(&self) -> Arc<Catalog> {
        self.catalog.read().clone()
    }

    /// Changes the catalog: the new one, which is on disk then.
    ///
    /// # Errors
    /// If the command cannot be applied, or the catalog not stored; nothing has changed then.
    pub fn change(&self, command: &Command) -> Result<Arc<Catalog>> {
        let _changing = self.changing.lock();
        let mut catalog = Catalog::clone(&self.get());
        catalog.apply(command).map_err(|e| Error::Invalid(e.to_string()))?;
        store(&self.path, &catalog)?;
        let catalog = Arc::new(catalog);
        *self.catalog.write() = catalog.clone();
        Ok(catalog)
    }
}

/// Replaces the file as a whole; until the rename the old one stands.
fn store(path: &Path, catalog: &Catalog) -> Result<()> {
    let new = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec_pretty(catalog)?)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    };
    write().map_err(|e| Error::Invalid(format!("{}: {e}", path.display())))
}
