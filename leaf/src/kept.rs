//! The catalog that the leading coordinator gives a leaf to keep: of no use to the leaf, and all there is when every coordinator is lost.
//!
//! ```text
//! DIR/catalog    u64 version, the catalog as the coordinator writes it, u64 checksum of all before; only its owner may read it
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use stoa_columnstore::checksum;

/// Its name in the leaf's folder.
const FILE: &str = "catalog";

/// What is kept.
pub(crate) struct Kept {
    path: PathBuf,
    fsync: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// 0: nothing is kept.
    version: u64,
    writing: bool,
}

impl Kept {
    /// What an earlier process kept in a folder. A file that is damaged counts as none.
    pub fn open(folder: &Path, fsync: bool) -> Arc<Kept> {
        let path = folder.join(FILE);
        let version = read(&path).map_or(0, |(version, _)| version);
        Arc::new(Kept { path, fsync, state: Mutex::new(State { version, writing: false }) })
    }

    /// The version of the catalog that is kept; 0: none.
    pub fn version(&self) -> u64 {
        self.state.lock().version
    }

    /// The catalog that is kept; empty: none.
    pub fn catalog(&self) -> Vec<u8> {
        read(&self.path).map(|(_, catalog)| catalog).unwrap_or_default()
    }

    /// Keeps a catalog, unless one is being written: nobody waits for the disk, and who gave it gives it again until it is here.
    pub fn keep(self: &Arc<Self>, version: u64, catalog: Vec<u8>) {
        {
            let mut state = self.state.lock();
            if state.writing || state.version == version {
                return;
            }
            state.writing = true;
        }
        let kept = Arc::clone(self);
        let write = move || {
            let written = kept.write(version, &catalog);
            let mut state = kept.state.lock();
            state.writing = false;
            match written {
                Ok(()) => state.version = version,
                Err(error) => tracing::warn!(path = %kept.path.display(), %error, "the catalog cannot be kept"),
            }
        };
        if std::thread::Builder::new().name("stoa-keep".into()).spawn(write).is_err() {
            self.state.lock().writing = false;
        }
    }

    fn write(&self, version: u64, catalog: &[u8]) -> io::Result<()> {
        let mut bytes = version.to_le_bytes().to_vec();
        bytes.extend(catalog);
        bytes.extend(checksum(&bytes).to_le_bytes());
        let new = self.path.with_extension("new");
        match fs::remove_file(&new) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = private(&new)?;
        file.write_all(&bytes)?;
        if self.fsync {
            file.sync_all()?;
        }
        fs::rename(&new, &self.path)?;
        match self.path.parent().filter(|_| self.fsync) {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    }
}

/// A new file for its owner alone: the hashes of passwords are in it.
fn private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// The catalog that the leaf in a folder keeps, as the coordinator wrote it, if there is one.
#[must_use]
pub fn kept_catalog(folder: &Path) -> Option<Vec<u8>> {
    read(&folder.join(FILE)).map(|(_, catalog)| catalog)
}

fn read(path: &Path) -> Option<(u64, Vec<u8>)> {
    let bytes = fs::read(path).ok()?;
    let (body, sum) = bytes.split_last_chunk::<8>()?;
    let (version, catalog) = body.split_first_chunk::<8>()?;
    (checksum(body) == u64::from_le_bytes(*sum)).then(|| (u64::from_le_bytes(*version), catalog.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits until a version is kept.
    fn wait(kept: &Kept, version: u64) {
        let began = std::time::Instant::now();
        while kept.version() != version {
            assert!(began.elapsed() < std::time::Duration::from_secs(10));
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    #[test]
    fn the_last_catalog_is_there_after_a_start() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::open(folder.path(), false);
        assert_eq!((kept.version(), kept.catalog()), (0, vec![]));
        kept.keep(7, b"seven".to_vec());
        wait(&kept, 7);
        kept.keep(8, b"eight".to_vec());
        wait(&kept, 8);
        let again = Kept::open(folder.path(), false);
        assert_eq!((again.version(), again.catalog()), (8, b"eight".to_vec()));
    }

    #[test]
    fn a_damaged_file_counts_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("catalog");
        let kept = Kept::open(folder.path(), false);
        kept.write(3, b"three").unwrap();
        let whole = fs::read(&path).unwrap();
        for damaged in [&whole[..whole.len() - 1], &whole[..3], &[]] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(Kept::open(folder.path(), false).version(), 0);
        }
        let mut flipped = whole.clone();
        flipped[9] ^= 1;
        fs::write(&path, flipped).unwrap();
        assert_eq!(Kept::open(folder.path(), false).catalog(), b"");
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_reads_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        Kept::open(folder.path(), false).write(1, b"one").unwrap();
        assert_eq!(fs::metadata(folder.path().join("catalog")).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
