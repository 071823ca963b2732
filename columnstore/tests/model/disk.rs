//! A disk in memory that keeps only what [`Disk`] promises, and fails as it is told to.
//!
//! Faults are drawn from the seed, the path and how often the path was used, so that threads that come in another order meet the
//! same ones. After [`FaultyDisk::crash`] what was not synced is there in any part: pages of a file, its length, names in folders,
//! each on its own. Handles of before fail from then on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use arrow::buffer::{Buffer, MutableBuffer};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use stoa_columnstore::disk::{Disk, DiskFile};

/// What is written or lost as one. Small, so that records and segments have many.
const PAGE: usize = 96;
const ROOT: u64 = 0;

/// How often calls fail: probabilities.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// No space: creating and appending, of which a part may have been written.
    pub full: f64,
    /// Appending, of which a part or all may have been written, and truncating.
    pub write: f64,
    /// Syncing a file: unsynced pages may be lost then, whatever a later sync says.
    pub sync: f64,
    /// Renaming (which may have happened), removing, making and syncing folders.
    pub name: f64,
    /// Reading and listing.
    pub read: f64,
    /// A bit of a segment is read wrong.
    pub flip: f64,
    /// A bit of the manifest or of a file of the log is read wrong.
    pub flip_log: f64,
}

/// The disk as one process sees it.
pub struct FaultyDisk {
    shared: Arc<Mutex<Shared>>,
    process: u64,
}

struct Shared {
    seed: u64,
    process: u64,
    faults: Faults,
    uses: HashMap<PathBuf, u64>,
    nodes: BTreeMap<u64, Node>,
    next_node: u64,
    /// Manifests and files of the log that were read wrong.
    flipped: Vec<PathBuf>,
}

enum Node {
    File(Content),
    Folder(Folder),
}

#[derive(Default)]
struct Content {
    bytes: Vec<u8>,
    synced: Vec<u8>,
    /// What was there before each truncation since the last sync.
    older: Vec<Vec<u8>>,
    /// Pages that a failed sync dropped.
    lost: BTreeSet<usize>,
    /// Up to where room was taken: zeros behind the bytes.
    reserved: usize,
}

#[derive(Default)]
struct Folder {
    names: BTreeMap<String, u64>,
    synced: BTreeMap<String, u64>,
    /// What was done since the last sync.
    pending: Vec<NameChange>,
}

#[derive(Clone)]
enum NameChange {
    Set(String, u64),
    Remove(String),
    Rename(String, String, u64),
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            NameChange::Set(name, node) => drop(names.insert(name.clone(), *node)),
            NameChange::Remove(name) => drop(names.remove(name)),
            NameChange::Rename(from, to, node) => {
                names.remove(from);
                names.insert(to.clone(), *node);
            }
        }
    }
}

impl Folder {
    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending.push(change);
    }

    fn sync(&mut self) {
        self.synced = self.names.clone();
        self.pending.clear();
    }

    fn crash(&mut self, rng: &mut StdRng) {
        let kept = survival(rng);
        for change in std::mem::take(&mut self.pending) {
            if rng.random_bool(kept) {
                change.apply(&mut self.synced);
            }
        }
        self.names = self.synced.clone();
    }
}

impl Content {
    /// The bytes with what they were at the last sync, or zeros, where pages are lost.
    fn written(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        for page in &self.lost {
            for at in page * PAGE..bytes.len().min((page + 1) * PAGE) {
                bytes[at] = self.synced.get(at).copied().unwrap_or(0);
            }
        }
        bytes
    }

    fn sync(&mut self) {
        self.synced = self.written();
        self.older.clear();
    }

    fn fail_sync(&mut self, rng: &mut StdRng) {
        let dirty = self.synced.len() / PAGE..self.bytes.len().div_ceil(PAGE);
        let lost = dirty.filter(|_| rng.random_bool(0.5)).collect::<Vec<_>>();
        self.lost.extend(lost);
    }

    fn truncate(&mut self, length: usize) {
        self.older.push(self.written());
        self.reserved = 0;
        self.bytes.truncate(length);
        self.lost.retain(|page| page * PAGE < length);
    }

    fn crash(&mut self, rng: &mut StdRng) {
        let mut versions = std::mem::take(&mut self.older);
        versions.push(self.synced.clone());
        versions.push(self.written());
        let shortest = versions.iter().map(Vec::len).min().unwrap_or(0);
        let longest = versions.iter().map(Vec::len).max().unwrap_or(0);
        let length = match rng.random_range(0..4) {
            0 => self.synced.len(),
            1 => rng.random_range(shortest..=longest),
            _ => self.bytes.len(),
        };
        let kept = survival(rng);
        let mut bytes = vec![0; length];
        for (page, to) in bytes.chunks_mut(PAGE).enumerate() {
            let newest = versions.len() - 1;
            let from = if rng.random_bool(kept) { newest } else { rng.random_range(0..newest) };
            let from = versions[from].get(page * PAGE..).unwrap_or_default();
            let count = from.len().min(to.len());
            to[..count].copy_from_slice(&from[..count]);
        }
        self.bytes.clone_from(&bytes);
        self.synced = bytes;
        self.reserved = if rng.random_bool(0.5) { self.reserved } else { 0 };
        self.lost.clear();
    }
}

/// How likely each unsynced thing survives a crash: often all do, or none.
fn survival(rng: &mut StdRng) -> f64 {
    [0.0, 0.3, 0.5, 0.7, 1.0][rng.random_range(0..5)]
}

fn failure(kind: ErrorKind, what: &str) -> io::Error {
    io::Error::new(kind, format!("{what} (injected)"))
}

fn names(path: &Path) -> Vec<String> {
    let normal = |c: Component<'_>| matches!(c, Component::Normal(_)).then(|| c.as_os_str().to_string_lossy().into_owned());
    path.components().filter_map(normal).collect()
}

impl Shared {
    fn rng(&mut self, path: &Path) -> StdRng {
        let uses = self.uses.entry(path.to_path_buf()).or_default();
        *uses += 1;
        let mut hasher = DefaultHasher::new();
        (self.seed, path, *uses).hash(&mut hasher);
        StdRng::seed_from_u64(hasher.finish())
    }

    fn find(&self, path: &Path) -> io::Result<u64> {
        let mut at = ROOT;
        for name in names(path) {
            let Some(Node::Folder(folder)) = self.nodes.get(&at) else { return Err(ErrorKind::NotADirectory.into()) };
            at = *folder.names.get(&name).ok_or(ErrorKind::NotFound)?;
        }
        Ok(at)
    }

    fn folder(&mut self, path: &Path) -> io::Result<&mut Folder> {
        let node = self.find(path)?;
        match self.nodes.get_mut(&node) {
            Some(Node::Folder(folder)) => Ok(folder),
            _ => Err(ErrorKind::NotADirectory.into()),
        }
    }

    /// The folder that a path is in, and its name there.
    fn parent(&mut self, path: &Path) -> io::Result<(&mut Folder, String)> {
        let name = names(path).pop().ok_or(ErrorKind::InvalidInput)?;
        Ok((self.folder(path.parent().unwrap_or(Path::new("")))?, name))
    }

    fn content(&mut self, node: u64) -> io::Result<&mut Content> {
        match self.nodes.get_mut(&node) {
            Some(Node::File(content)) => Ok(content),
            _ => Err(ErrorKind::IsADirectory.into()),
        }
    }

    fn add(&mut self, path: &Path, node: Node) -> io::Result<u64> {
        let id = self.next_node;
        let (folder, name) = self.parent(path)?;
        if folder.names.contains_key(&name) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        folder.change(NameChange::Set(name, id));
        self.next_node += 1;
        self.nodes.insert(id, node);
        Ok(id)
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        let (folder, name) = self.parent(path)?;
        if !folder.names.contains_key(&name) {
            return Err(ErrorKind::NotFound.into());
        }
        folder.change(NameChange::Remove(name));
        Ok(())
    }

    fn remove_folder(&mut self, path: &Path) -> io::Result<()> {
        let names: Vec<String> = self.folder(path)?.names.keys().cloned().collect();
        for name in names {
            let path = path.join(name);
            if self.folder(&path).is_ok() { self.remove_folder(&path)? } else { self.remove(&path)? }
        }
        self.remove(path)
    }

    /// Everything below a node, which is at `path`.
    fn crash(&mut self, node: u64, path: &Path) {
        let mut rng = self.rng(path);
        let names = match self.nodes.get_mut(&node) {
            Some(Node::File(content)) => return content.crash(&mut rng),
            Some(Node::Folder(folder)) => {
                folder.crash(&mut rng);
                folder.names.clone()
            }
            None => return,
        };
        names.iter().for_each(|(name, node)| self.crash(*node, &path.join(name)));
    }
}

impl FaultyDisk {
    /// An empty disk without faults.
    pub fn new(seed: u64) -> Arc<FaultyDisk> {
        let nodes = BTreeMap::from([(ROOT, Node::Folder(Folder::default()))]);
        let (faults, uses) = (Faults::default(), HashMap::new());
        let shared = Shared { seed, process: 0, faults, uses, nodes, next_node: 1, flipped: vec![] };
        Arc::new(FaultyDisk { shared: Arc::new(Mutex::new(shared)), process: 0 })
    }

    /// From now on calls fail as often as this.
    pub fn set_faults(&self, faults: Faults) {
        self.shared.lock().faults = faults;
    }

    /// The manifests and files of the log that were read wrong since it was last asked.
    pub fn take_flipped(&self) -> Vec<PathBuf> {
        std::mem::take(&mut self.shared.lock().flipped)
    }

    /// The process ends, and all that was written stays, synced or not.
    pub fn kill(&self) -> Arc<FaultyDisk> {
        let mut shared = self.shared.lock();
        shared.process += 1;
        Arc::new(FaultyDisk { shared: Arc::clone(&self.shared), process: shared.process })
    }

    /// What failed syncs dropped is not read any more either. Real disks may go on showing it until they are mounted anew, and no
    /// process that begins meanwhile can tell.
    pub fn drop_lost(&self) {
        for node in self.shared.lock().nodes.values_mut() {
            if let Node::File(content) = node {
                content.bytes = content.written();
                content.lost.clear();
            }
        }
    }

    /// The machine stops: of what was not synced anything may stay.
    pub fn crash(&self) -> Arc<FaultyDisk> {
        let mut shared = self.shared.lock();
        shared.process += 1;
        shared.crash(ROOT, Path::new(""));
        Arc::new(FaultyDisk { shared: Arc::clone(&self.shared), process: shared.process })
    }

    /// The state, faults and chance of a call on a path.
    fn call<T>(&self, path: &Path, run: impl FnOnce(&mut Shared, Faults, &mut StdRng) -> io::Result<T>) -> io::Result<T> {
        call(&self.shared, self.process, path, run)
    }
}

fn call<T>(
    shared: &Mutex<Shared>,
    process: u64,
    path: &Path,
    run: impl FnOnce(&mut Shared, Faults, &mut StdRng) -> io::Result<T>,
) -> io::Result<T> {
    let mut shared = shared.lock();
    if shared.process != process {
        return Err(failure(ErrorKind::Other, "the process has ended"));
    }
    let (faults, mut rng) = (shared.faults, shared.rng(path));
    run(&mut shared, faults, &mut rng)
}

/// Fails with a probability.
fn maybe(rng: &mut StdRng, probability: f64, kind: ErrorKind, what: &str) -> io::Result<()> {
    if rng.random_bool(probability) { Err(failure(kind, what)) } else { Ok(()) }
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let node = self.call(path, |shared, faults, rng| {
            maybe(rng, faults.full, ErrorKind::StorageFull, "no space for a file")?;
            shared.add(path, Node::File(Content::default()))
        })?;
        Ok(Box::new(FaultyFile { shared: Arc::clone(&self.shared), process: self.process, node, path: path.to_path_buf() }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let node = self.call(path, |shared, faults, rng| {
            maybe(rng, faults.read, ErrorKind::Other, "open fails")?;
            let node = shared.find(path)?;
            shared.content(node).map(|_| node)
        })?;
        Ok(Box::new(FaultyFile { shared: Arc::clone(&self.shared), process: self.process, node, path: path.to_path_buf() }))
    }

    fn read(&self, path: &Path) -> io::Result<Buffer> {
        self.call(path, |shared, faults, rng| {
            maybe(rng, faults.read, ErrorKind::Other, "read fails")?;
            let node = shared.find(path)?;
            let mut bytes = MutableBuffer::new(0);
            let content = shared.content(node)?;
            bytes.extend_from_slice(&content.bytes);
            bytes.extend_zeros(content.reserved.saturating_sub(content.bytes.len()));
            let is_segment = path.extension().is_some_and(|e| e == "segment");
            let of_log = path.extension().is_some_and(|e| e == "log") || path.ends_with("manifest");
            let probability = if is_segment {
                faults.flip
            } else if of_log {
                faults.flip_log
            } else {
                0.0
            };
            if !bytes.is_empty() && rng.random_bool(probability) {
                if of_log {
                    shared.flipped.push(path.to_path_buf());
                }
                let at = rng.random_range(0..bytes.len());
                bytes.as_slice_mut()[at] ^= 1 << rng.random_range(0..8);
            }
            Ok(bytes.into())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call(to, |shared, faults, rng| {
            let fails = rng.random_bool(faults.name);
            if !fails || rng.random_bool(0.5) {
                let node = shared.find(from)?;
                let (_, from) = shared.parent(from)?;
                let (folder, to) = shared.parent(to)?;
                folder.change(NameChange::Rename(from, to, node));
            }
            if fails { Err(failure(ErrorKind::Other, "rename fails")) } else { Ok(()) }
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call(path, |shared, faults, rng| {
            maybe(rng, faults.name, ErrorKind::Other, "remove fails")?;
            shared.remove(path)
        })
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.call(path, |shared, faults, rng| {
            maybe(rng, faults.name, ErrorKind::Other, "remove fails")?;
            shared.remove_folder(path)
        })
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.call(path, |shared, faults, rng| {
            maybe(rng, faults.name, ErrorKind::Other, "making a folder fails")?;
            let mut at = PathBuf::new();
            for name in names(path) {
                at.push(name);
                match shared.add(&at, Node::Folder(Folder::default())) {
                    Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(e),
                    _ => {}
                }
            }
            Ok(())
        })
    }

    fn list(&self, path: &Path) -> io::Result<Vec<(String, bool)>> {
        self.call(path, |shared, faults, rng| {
            maybe(rng, faults.read, ErrorKind::Other, "list fails")?;
            let names = match shared.folder(path) {
                Err(e) if e.kind() == ErrorKind::NotFound => return Ok(vec![]),
                folder => folder?.names.clone(),
            };
            let is_folder = |node: &u64| matches!(shared.nodes.get(node), Some(Node::Folder(_)));
            Ok(names.iter().map(|(name, node)| (name.clone(), is_folder(node))).collect())
        })
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.call(path, |shared, faults, rng| {
            maybe(rng, faults.name, ErrorKind::Other, "sync of a folder fails")?;
            shared.folder(path)?.sync();
            Ok(())
        })
    }
}

struct FaultyFile {
    shared: Arc<Mutex<Shared>>,
    process: u64,
    node: u64,
    path: PathBuf,
}

impl FaultyFile {
    fn call(&self, run: impl FnOnce(&mut Content, Faults, &mut StdRng) -> io::Result<()>) -> io::Result<()> {
        call(&self.shared, self.process, &self.path, |shared, faults, rng| run(shared.content(self.node)?, faults, rng))
    }
}

impl DiskFile for FaultyFile {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        self.call(|content, faults, rng| {
            let (full, fails) = (rng.random_bool(faults.full), rng.random_bool(faults.write));
            let count = match (full, fails) {
                (true, _) => rng.random_range(0..bytes.len().max(1)),
                (_, true) if rng.random_bool(0.5) => rng.random_range(0..=bytes.len()),
                _ => bytes.len(),
            };
            content.bytes.extend_from_slice(&bytes[..count]);
            match (full, fails) {
                (true, _) => Err(failure(ErrorKind::StorageFull, "no space")),
                (_, true) => Err(failure(ErrorKind::Other, "write fails")),
                _ => Ok(()),
            }
        })
    }

    fn reserve(&self, length: u64) -> bool {
        let reserve = |content: &mut Content, faults: Faults, rng: &mut StdRng| {
            maybe(rng, faults.full, ErrorKind::StorageFull, "no space")?;
            // Less than was asked for, so that it is used up.
            content.reserved = (content.bytes.len() + rng.random_range(0..8 * PAGE)).min(length as usize);
            Ok(())
        };
        self.call(reserve).is_ok()
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.call(|content, faults, rng| {
            maybe(rng, faults.write, ErrorKind::Other, "truncate fails")?;
            content.truncate(length as usize);
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.call(|content, faults, rng| {
            if rng.random_bool(faults.sync) {
                content.fail_sync(rng);
                return Err(failure(ErrorKind::Other, "sync fails"));
            }
            content.sync();
            Ok(())
        })
    }
}
