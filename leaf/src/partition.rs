//! A copy of a partition: its data directory, and what it is to the other copies.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use stoa_columnstore::{CopyReceiver, Database, Durability, Options};
use stoa_rpc::replication::{CopyOrder, CopyReport, CopyRole, Position, RoleOrder};
use stoa_rpc::{Failure, FailureKind, Result};

use crate::replication::{Outlet, Shipping, Target, sent};
use crate::storage_failure;

/// How often the files of a copy are counted for reports.
const RECOUNT: Duration = Duration::from_secs(1);

/// Where the copies of a database are on this leaf, and how data directories are opened.
#[derive(Clone)]
pub(crate) struct Home {
    pub database: String,
    pub folder: PathBuf,
    pub options: Options,
}

/// A copy of a partition.
pub(crate) struct Partition {
    home: Home,
    ordinal: u32,
    current: RwLock<Arc<Database>>,
    state: Mutex<State>,
}

struct State {
    /// How often the copy was made anew: part of the name of its folder.
    generation: u64,
    term: u64,
    role: Role,
    /// The last one that came to feed it.
    feeder: u64,
    /// Why it cannot be what it is to be.
    failure: String,
    /// Why it could not take what its master sent last.
    not_taken: String,
    /// Bytes of its files beside the segments, and when they were counted.
    beside: Option<(Instant, u64)>,
}

/// What a copy is.
enum Role {
    /// It waits for orders; `given_up`: and is not in the catalog.
    None {
        given_up: bool,
    },
    Master(Arc<Shipping>),
    Replica,
}

/// Bytes of a data directory.
pub(crate) fn bytes(database: &Database) -> u64 {
    segments(database) + beside(database)
}

/// Bytes of the segments of a data directory.
fn segments(database: &Database) -> u64 {
    database.tables().iter().map(|table| table.bytes_on_disk()).sum()
}

/// Bytes of the files beside the segments: the log, and the manifest, which has the rows that were in memory when it was written.
fn beside(database: &Database) -> u64 {
    let files = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten();
    let all = files(database.root().to_path_buf()).chain(files(database.root().join("log")));
    all.filter_map(|file| file.metadata().ok()).filter(fs::Metadata::is_file).map(|file| file.len()).sum()
}

/// The folder of a generation of a copy.
fn folder(home: &Home, ordinal: u32, generation: u64) -> PathBuf {
    let name = if generation == 0 { ordinal.to_string() } else { format!("{ordinal}-{generation}") };
    home.folder.join(name)
}

/// The folder of a generation that is not whole yet.
fn unfinished(home: &Home, ordinal: u32, generation: u64) -> PathBuf {
    home.folder.join(format!("{ordinal}-{generation}.part"))
}

/// The ordinal and the generation of a folder.
#[must_use]
pub fn parse_folder(name: &str) -> Option<(u32, u64)> {
    match name.split_once('-') {
        None => Some((name.parse().ok()?, 0)),
        Some((ordinal, generation)) => Some((ordinal.parse().ok()?, generation.parse().ok()?)),
    }
}

impl State {
    /// Bytes of the files beside the segments, as they were a moment ago: reports come often.
    fn beside(&mut self, database: &Database) -> u64 {
        let known = self.beside.filter(|(counted, _)| counted.elapsed() < RECOUNT);
        self.beside.insert(known.unwrap_or_else(|| (Instant::now(), beside(database)))).1
    }
}

impl Partition {
    /// Opens a generation of a copy, or makes an empty one.
    pub fn open(home: &Home, ordinal: u32, generation: u64) -> Result<Arc<Partition>> {
        let database =
            Database::open(folder(home, ordinal, generation), home.options.clone()).map_err(|e| storage_failure(&e))?;
        let role = Role::None { given_up: false };
        let state = State {
            generation,
            term: database.position().term,
            role,
            feeder: 0,
            failure: String::new(),
            not_taken: String::new(),
            beside: None,
        };
        Ok(Arc::new(Partition { home: home.clone(), ordinal, current: RwLock::new(database), state: Mutex::new(state) }))
    }

    /// The data directory, whatever the copy is.
    pub fn database(&self) -> Arc<Database> {
        self.current.read().clone()
    }

    /// The data directory of the master.
    pub fn master(&self) -> Result<Arc<Database>> {
        self.if_master()?.ok_or_else(|| self.elsewhere())
    }

    /// The data directory if this copy is the master; `None` if another is.
    pub fn if_master(&self) -> Result<Option<Arc<Database>>> {
        let state = self.state.lock();
        match &state.role {
            Role::Master(shipping) if state.failure.is_empty() && shipping.serves() => Ok(Some(self.database())),
            Role::Replica | Role::None { given_up: true } => Ok(None),
            _ => Err(self.elsewhere()),
        }
    }

    /// The data directory of a copy that the catalog does not have yet.
    pub fn without_role(&self) -> Result<Arc<Database>> {
        match self.state.lock().role {
            Role::None { .. } => Ok(self.database()),
            _ => Err(Failure::new(FailureKind::User, format!("{} has a role on this leaf", self.name()))),
        }
    }

    /// The transactions that are in doubt here and that nobody resolves elsewhere.
    pub fn in_doubt(&self) -> Vec<(u64, u32)> {
        match &self.state.lock().role {
            Role::Master(_) | Role::None { given_up: false } => self.database().in_doubt(),
            Role::Replica | Role::None { given_up: true } => vec![],
        }
    }

    fn name(&self) -> String {
        format!("partition {} of '{}'", self.ordinal, self.home.database)
    }

    fn elsewhere(&self) -> Failure {
        Failure::new(FailureKind::Retryable, format!("{} does not have its master on this leaf yet, or any more", self.name()))
    }

    /// Keeps to what the catalog says of the copy; `processed` is the number of the last report that was dealt with.
    pub fn order(&self, order: &CopyOrder, processed: u64, outlet: &Arc<Outlet>) {
        let term = order.term;
        let mut state = self.state.lock();
        if term < state.term && !matches!(state.role, Role::None { .. }) {
            return;
        }
        let database = self.database();
        database.set_durability(if order.asynchronous { Durability::Async } else { Durability::Sync });
        let done = match &order.role {
            RoleOrder::Replica => {
                self.become_replica(&mut state, "another copy is the master now");
                database.become_replica()
            }
            RoleOrder::Master { in_sync, feed } => {
                let known = if let Role::Master(shipping) = &state.role { Some(shipping.clone()) } else { None };
                match known.filter(|shipping| shipping.term() == term && state.failure.is_empty()) {
                    Some(shipping) => {
                        shipping.keep(in_sync, feed, processed);
                        Ok(())
                    }
                    None => {
                        let (name, outlet) = (self.home.database.clone(), outlet.clone());
                        let target = Target { database: name, ordinal: self.ordinal, term, outlet };
                        let shipping = Shipping::new(target, database.position().lsn);
                        if let Role::Master(before) = std::mem::replace(&mut state.role, Role::Master(shipping.clone())) {
                            before.end("a new term began");
                        }
                        shipping.keep(in_sync, feed, 0);
                        let done = database.become_master(term, shipping.clone());
                        if done.is_ok() {
                            shipping.begin(&database);
                            tracing::info!(database = self.home.database, ordinal = self.ordinal, term, "master");
                        }
                        done
                    }
                }
            }
        };
        state.term = term;
        state.failure = done.err().map(|e| e.to_string()).unwrap_or_default();
    }

    /// The catalog has no such copy here.
    pub fn give_up(&self) {
        let mut state = self.state.lock();
        self.become_replica(&mut state, "the catalog does not have this copy any more");
        state.role = Role::None { given_up: true };
    }

    /// Ends being the master.
    fn become_replica(&self, state: &mut State, why: &str) {
        if let Role::Master(shipping) = std::mem::replace(&mut state.role, Role::Replica) {
            shipping.end(why);
            if let Err(error) = self.database().become_replica() {
                state.failure = error.to_string();
            }
            tracing::info!(database = self.home.database, ordinal = self.ordinal, why, "not the master any more");
        }
    }

    /// The term that it acts for.
    pub fn term(&self) -> u64 {
        self.state.lock().term
    }

    /// How it stands, for the report of a number: what this says of the copies that a master feeds counts as reported.
    pub fn report(&self, number: u64) -> CopyReport {
        let mut state = self.state.lock();
        let database = self.database();
        let (role, fed) = match &state.role {
            Role::None { .. } => (CopyRole::None, vec![]),
            Role::Replica => (CopyRole::Replica, vec![]),
            Role::Master(shipping) => (CopyRole::Master, shipping.report(number)),
        };
        let not_taken = if role == CopyRole::Replica { state.not_taken.clone() } else { String::new() };
        let failure = if state.failure.is_empty() { database.log_failure().unwrap_or(not_taken) } else { state.failure.clone() };
        let bytes = segments(&database) + state.beside(&database);
        let (term, position) = (state.term, sent(database.position()));
        CopyReport { database: self.home.database.clone(), ordinal: self.ordinal, term, role, position, failure, fed, bytes }
    }

    /// The master of a term comes to feed the copy: by which number it is known, and where the copy stands.
    pub fn feed(&self, term: u64) -> Result<(u64, Position)> {
        let mut state = self.state.lock();
        let refused = |what: String| Err(Failure::new(FailureKind::Retryable, what));
        match &state.role {
            Role::None { .. } => return refused(format!("{} waits for orders on this leaf", self.name())),
            Role::Master(shipping) if shipping.term() >= term => {
                return refused(format!("{} has its master for term {} here", self.name(), shipping.term()));
            }
            _ if term < state.term => {
                return refused(format!("{} has a master of term {}, not {term}", self.name(), state.term));
            }
            _ => {}
        }
        self.become_replica(&mut state, "another copy is the master of a later term");
        state.term = term;
        state.feeder += 1;
        let database = self.database();
        database.become_replica().map_err(|e| storage_failure(&e))?;
        Ok((state.feeder, sent(database.position())))
    }

    /// Changes the copy for whoever feeds it.
    pub fn fed<T>(&self, feeder: u64, change: impl FnOnce(&Arc<Database>) -> Result<T>) -> Result<T> {
        let mut state = self.state.lock();
        self.check_feeder(&state, feeder)?;
        let changed = change(&self.database());
        state.not_taken = changed.as_ref().err().map(ToString::to_string).unwrap_or_default();
        changed
    }

    fn check_feeder(&self, state: &State, feeder: u64) -> Result<()> {
        if state.feeder == feeder && matches!(state.role, Role::Replica) {
            return Ok(());
        }
        Err(Failure::new(FailureKind::Retryable, format!("{} has another master", self.name())))
    }

    /// A folder for the copy that is to take the place of this one.
    pub fn begin_copy(&self, feeder: u64) -> Result<CopyReceiver> {
        let state = self.state.lock();
        self.check_feeder(&state, feeder)?;
        let folder = unfinished(&self.home, self.ordinal, state.generation + 1);
        CopyReceiver::begin(&folder, self.home.options.fsync).map_err(|e| storage_failure(&e))
    }

    /// Puts the copy that was begun in the place of this one.
    pub fn finish_copy(&self, feeder: u64) -> Result<Position> {
        let mut state = self.state.lock();
        self.check_feeder(&state, feeder)?;
        let (old, next) = (folder(&self.home, self.ordinal, state.generation), state.generation + 1);
        let new = folder(&self.home, self.ordinal, next);
        fs::rename(unfinished(&self.home, self.ordinal, next), &new).map_err(|e| io(&new, &e))?;
        if self.home.options.fsync {
            let synced = fs::File::open(&self.home.folder).and_then(|folder| folder.sync_all());
            synced.map_err(|e| io(&self.home.folder, &e))?;
        }
        let database = Database::open(&new, self.home.options.clone()).map_err(|e| storage_failure(&e))?;
        database.become_replica().map_err(|e| storage_failure(&e))?;
        state.generation = next;
        *self.current.write() = database.clone();
        // Whoever still reads it has its files open.
        let _ = fs::remove_dir_all(&old);
        Ok(sent(database.position()))
    }

    /// Removes the copy, if the catalog does not have it.
    pub fn remove(&self) -> Result<()> {
        let state = self.state.lock();
        if !matches!(state.role, Role::None { given_up: true }) {
            return Err(Failure::new(FailureKind::User, format!("{} has a role on this leaf", self.name())));
        }
        let folder = folder(&self.home, self.ordinal, state.generation);
        match fs::remove_dir_all(&folder) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io(&folder, &e)),
            _ => Ok(()),
        }
    }

    /// The database goes: nothing waits for the copies elsewhere any more.
    pub fn end(&self) {
        if let Role::Master(shipping) = &self.state.lock().role {
            shipping.end("the database was dropped");
        }
    }
}

fn io(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(FailureKind::Fatal, format!("{}: {error}", path.display()))
}
