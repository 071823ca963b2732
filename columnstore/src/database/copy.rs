//! A data directory is made anew from another copy: the segment files of a state, and its manifest last.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::catalog::Files;
use super::folder::{sync_above, write_version};
use super::replication::LogRecord;
use super::{Catalog, Database};
use crate::disk::{Disk, DiskFile, LocalDisk};
use crate::segment::{Segment, corrupt, io_error};
use crate::{Error, Result};

/// A segment's file; it stays as long as this does.
pub struct SegmentFile {
    /// Its name in the data directory.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Its bytes.
    pub length: u64,
    _segment: Arc<Segment>,
}

impl SegmentFile {
    fn of(segment: &Arc<Segment>) -> SegmentFile {
        let path = segment.path().to_path_buf();
        // tables/<table>/<partition>/<segment>.segment
        let parts: Vec<_> = path.iter().rev().take(4).map(|part| part.to_string_lossy()).collect();
        let name = parts.iter().rev().map(|part| &**part).collect::<Vec<_>>().join("/");
        SegmentFile { name, path, length: segment.written().length, _segment: Arc::clone(segment) }
    }
}

impl LogRecord {
    /// The files of the segments that it brings.
    #[must_use]
    pub fn files(&self) -> Vec<SegmentFile> {
        self.segments.iter().map(SegmentFile::of).collect()
    }
}

/// A state that a copy is made of.
pub struct CopySource(Arc<Catalog>);

impl CopySource {
    /// The number of its last record.
    #[must_use]
    pub fn lsn(&self) -> u64 {
        self.0.sequence
    }

    /// Its manifest.
    ///
    /// # Errors
    /// If rows in memory cannot be encoded.
    pub fn manifest(&self) -> Result<Vec<u8>> {
        self.0.encode(1)
    }

    /// The files that the manifest names.
    #[must_use]
    pub fn files(&self) -> Vec<SegmentFile> {
        self.0.segments().map(SegmentFile::of).collect()
    }
}

impl Database {
    /// The state that is shown, to make a copy of.
    #[must_use]
    pub fn copy_source(&self) -> CopySource {
        CopySource(self.catalog())
    }

    /// A place for the file of a segment that a record will bring.
    ///
    /// # Errors
    /// [`Error::Invalid`] if that is no name of one, [`Error::Io`].
    pub fn receive_file(&self, name: &str) -> Result<FileReceiver> {
        FileReceiver::begin(&self.files, name, self.options.fsync)
    }
}

/// A file that comes in parts.
pub struct FileReceiver {
    disk: Arc<dyn Disk>,
    file: Box<dyn DiskFile>,
    temporary: PathBuf,
    path: PathBuf,
    /// Folders whose names must last with the file.
    folders: Vec<PathBuf>,
    fsync: bool,
}

impl FileReceiver {
    fn begin(files: &Files, name: &str, fsync: bool) -> Result<FileReceiver> {
        let (table, partition, segment) =
            parse(name).ok_or_else(|| Error::Invalid(format!("'{name}' is not the name of a segment's file")))?;
        let (path, folder) = (files.segment_path(table, partition, segment), files.partition_folder(table, partition));
        let temporary = path.with_extension("part");
        files.disk.create_folder(&folder).map_err(io_error(&folder))?;
        // One that an earlier try left.
        let _ = files.disk.remove(&temporary);
        let file = files.disk.create(&temporary).map_err(io_error(&temporary))?;
        let tables = files.tables();
        let folders = vec![folder, tables.join(table.to_string()), tables];
        Ok(FileReceiver { disk: Arc::clone(&files.disk), file, temporary, path, folders, fsync })
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.append(bytes).map_err(io_error(&self.temporary))
    }

    /// The file is whole; it lasts when this returns.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn finish(self) -> Result<()> {
        if self.fsync {
            self.file.sync().map_err(io_error(&self.temporary))?;
        }
        self.disk.rename(&self.temporary, &self.path).map_err(io_error(&self.path))?;
        for folder in self.folders.iter().filter(|_| self.fsync) {
            self.disk.sync_folder(folder).map_err(io_error(folder))?;
        }
        Ok(())
    }
}

/// Table, partition and segment of a file's name: numbers as this program writes them, so that no other file can be meant.
fn parse(name: &str) -> Option<(u64, usize, u64)> {
    let mut parts = name.strip_prefix("tables/")?.strip_suffix(".segment")?.split('/');
    let mut number = || parts.next()?.parse::<u64>().ok();
    let (table, partition, segment) = (number()?, number()?, number()?);
    (name == format!("tables/{table}/{partition}/{segment}.segment")).then_some((
        table,
        usize::try_from(partition).ok()?,
        segment,
    ))
}

/// A new data directory that is being filled with a copy.
pub struct CopyReceiver {
    files: Arc<Files>,
    fsync: bool,
}

impl CopyReceiver {
    /// Begins with an empty folder; what an earlier try left there goes.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn begin(root: &Path, fsync: bool) -> Result<CopyReceiver> {
        let disk: Arc<dyn Disk> = Arc::new(LocalDisk);
        if root.exists() {
            disk.remove_folder(root).map_err(io_error(root))?;
        }
        let files = Arc::new(Files { disk, root: root.to_path_buf() });
        let tables = files.tables();
        files.disk.create_folder(&tables).map_err(io_error(&tables))?;
        Ok(CopyReceiver { files, fsync })
    }

    /// A place for a segment's file.
    ///
    /// # Errors
    /// As [`Database::receive_file`].
    pub fn file(&self, name: &str) -> Result<FileReceiver> {
        FileReceiver::begin(&self.files, name, self.fsync)
    }

    /// The manifest comes last: it is a data directory now, and lasts when this returns.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the manifest is none or a file that it names is not here whole, [`Error::Io`].
    pub fn finish(self, manifest: &[u8]) -> Result<()> {
        let Files { disk, root } = &*self.files;
        let (catalog, _) = Catalog::decode(manifest, &self.files).map_err(|what| corrupt(root, &what))?;
        for segment in catalog.segments() {
            let (path, length) = (segment.path(), segment.written().length);
            let found = disk.read(path).map_err(io_error(path))?;
            if found.len() as u64 != length {
                return Err(corrupt(path, &format!("it has {} bytes instead of {length}", found.len())));
            }
        }
        catalog.store(1, self.fsync)?;
        write_version(&**disk, root, self.fsync)?;
        if self.fsync { sync_above(&**disk, root) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_segments_are_taken() {
        assert_eq!(parse("tables/3/0/17.segment"), Some((3, 0, 17)));
        for name in ["tables/3/0/017.segment", "tables/../0/1.segment", "tables/3/0/1", "manifest", "/tables/3/0/1.segment"] {
            assert_eq!(parse(name), None, "{name}");
        }
    }
}
