//! The file operations that storage needs, so that a test can put a disk with faults in place of the real one.
//!
//! What a disk promises is little, and storage relies on no more: bytes are there after a crash once [`DiskFile::sync`] has returned,
//! names once [`Disk::sync_folder`] has; a rename is seen wholly or not at all. What was not synced may be there in any part.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;

use arrow::buffer::Buffer;
use memmap2::MmapOptions;

/// Where files are.
pub trait Disk: Send + Sync {
    /// Makes a file that is not there yet.
    ///
    /// # Errors
    /// Those of the disk.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file that is there, to append to it.
    ///
    /// # Errors
    /// Those of the disk.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// All bytes of a file that is not written to any more, aligned to 64 bytes.
    ///
    /// # Errors
    /// Those of the disk.
    fn read(&self, path: &Path) -> io::Result<Buffer>;

    /// The first bytes of a file, of which what comes after them may be written meanwhile; all that there are if it is shorter.
    ///
    /// # Errors
    /// Those of the disk.
    fn read_start(&self, path: &Path, length: u64) -> io::Result<Buffer> {
        let bytes = self.read(path)?;
        Ok(bytes.slice_with_length(0, bytes.len().min(usize::try_from(length).unwrap_or(usize::MAX))))
    }

    /// Gives a file another name; a file that had that one is gone.
    ///
    /// # Errors
    /// Those of the disk.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// Those of the disk.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Removes a folder with all that is in it.
    ///
    /// # Errors
    /// Those of the disk.
    fn remove_folder(&self, path: &Path) -> io::Result<()>;

    /// Makes a folder and those above it, as far as they are not there.
    ///
    /// # Errors
    /// Those of the disk.
    fn create_folder(&self, path: &Path) -> io::Result<()>;

    /// What is in a folder: names, and whether each is a folder itself. None if the folder is not there.
    ///
    /// # Errors
    /// Those of the disk.
    fn list(&self, path: &Path) -> io::Result<Vec<(String, bool)>>;

    /// Makes the names in a folder last.
    ///
    /// # Errors
    /// Those of the disk.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
}

/// A file that is written at its end.
pub trait DiskFile: Send + Sync {
    /// Writes at the end. After an error any part of the bytes may be there.
    ///
    /// # Errors
    /// Those of the disk.
    fn append(&self, bytes: &[u8]) -> io::Result<()>;

    /// Takes room for the file up to a length, so that appending up to there changes nothing but its bytes, which makes syncs cheaper.
    /// Whether it did: the file may be found with that length then, with zeros behind what was appended, until it is truncated.
    fn reserve(&self, _length: u64) -> bool {
        false
    }

    /// Cuts the file to a length.
    ///
    /// # Errors
    /// Those of the disk.
    fn truncate(&self, length: u64) -> io::Result<()>;

    /// Makes all bytes last.
    ///
    /// # Errors
    /// Those of the disk. What was written since the last time may be there in any part then, and trying again proves nothing.
    fn sync(&self) -> io::Result<()>;
}

/// The operating system's files. Reading maps them into memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalDisk;

impl Disk for LocalDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(LocalFile(File::options().write(true).create_new(true).open(path)?)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut file = File::options().write(true).open(path)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Box::new(LocalFile(file)))
    }

    fn read(&self, path: &Path) -> io::Result<Buffer> {
        self.read_start(path, u64::MAX)
    }

    fn read_start(&self, path: &Path, length: u64) -> io::Result<Buffer> {
        let file = File::open(path)?;
        let length = length.min(file.metadata()?.len());
        map(&file, length)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<(String, bool)>> {
        let entries = match fs::read_dir(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
            entries => entries?,
        };
        let entry = |entry: io::Result<fs::DirEntry>| {
            let entry = entry?;
            Ok((entry.file_name().to_string_lossy().into_owned(), entry.file_type()?.is_dir()))
        };
        entries.map(entry).collect()
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

/// What it writes goes to where the last write ended.
struct LocalFile(File);

impl DiskFile for LocalFile {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        (&self.0).write_all(bytes)
    }

    /// Room that is only allocated would have the file system note with each sync which of it was written.
    #[cfg(unix)]
    fn reserve(&self, length: u64) -> bool {
        use std::os::unix::fs::FileExt;
        static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
        let Ok(known) = self.0.metadata() else { return false };
        let fill = |at: u64| self.0.write_all_at(&ZEROS[..ZEROS.len().min((length - at) as usize)], at);
        (known.len()..length).step_by(ZEROS.len()).all(|at| fill(at).is_ok())
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)?;
        (&self.0).seek(SeekFrom::Start(length)).map(drop)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

fn map(file: &File, length: u64) -> io::Result<Buffer> {
    if length == 0 {
        return Ok(Buffer::from_vec(Vec::<u8>::new()));
    }
    let length = usize::try_from(length).map_err(io::Error::other)?;
    // SAFETY: bytes that are read are not written to any more: Stoa writes each once, and holds the directory's lock, so the mapped
    // bytes do not change. (Another program that truncates the file can stop this process, not corrupt it.)
    let map = unsafe { MmapOptions::new().len(length).map(file)? };
    let length = map.len();
    let Some(start) = NonNull::new(map.as_ptr().cast_mut()) else {
        return Ok(Buffer::from_vec(Vec::<u8>::new()));
    };
    // SAFETY: `start` is valid for reads of `length` bytes as long as the map lives, which the buffer keeps alive.
    Ok(unsafe { Buffer::from_custom_allocation(start, length, Arc::new(map)) })
}
