//! A simulated leaf: data directories of the real storage on a disk in memory that loses what was not synced.
//!
//! A commit waits for the other copies on a thread of its own, one at a time for each copy. Whoever changes what it waits for waits until
//! it rests again, so that a seed gives the same run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Int64Type};
use parking_lot::{Condvar, Mutex};
use stoa_columnstore::disk::Disk;
use stoa_columnstore::{BitmapIndex, ColumnDef, Database, LogRecord, Options, Position, Replication, Result, RowNames, TableDef};
use stoa_leaf::FedCopies;
use stoa_rpc::replication::{CopyOrder, CopyReport, CopyRole, FedReport};

use crate::DATABASE;
use crate::disk::FaultyDisk;

const ROOT: &str = "/leaf";
const TABLE: &str = "written";

/// What a master's commits wait for, as the leaf's own replication does.
#[derive(Default)]
pub struct Gate {
    state: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    fed: FedCopies,
    /// Another copy is the master.
    over: bool,
    /// The record that a commit waits for.
    parked: Option<u64>,
    /// No commit runs.
    idle: bool,
    /// The machine stops when the next record is written, and not synced.
    stops: Option<Arc<FaultyDisk>>,
    /// What it finds when it is started again.
    stopped: Option<Arc<FaultyDisk>>,
}

impl Waiting {
    fn waits(&self) -> bool {
        self.parked.is_some_and(|lsn| !self.over && !self.fed.all_have(lsn))
    }
}

impl Gate {
    /// Changes what commits wait for; when this returns, what comes of that has come.
    pub fn change<T>(&self, change: impl FnOnce(&mut FedCopies) -> T) -> T {
        let mut state = self.state.lock();
        let changed = change(&mut state.fed);
        self.changed.notify_all();
        while !state.idle && !state.waits() {
            self.changed.wait(&mut state);
        }
        changed
    }

    fn begin(&self, stops: Option<Arc<FaultyDisk>>) {
        let mut state = self.state.lock();
        (state.idle, state.stops) = (false, stops);
    }

    fn finish(&self) {
        self.state.lock().idle = true;
        self.changed.notify_all();
    }

    fn end(&self) {
        self.state.lock().over = true;
        self.change(|_| ());
    }

    fn has_stopped(&self) -> bool {
        self.state.lock().stopped.is_some()
    }

    /// The machine has stopped: its disk when it starts again.
    fn stopped(&self) -> Option<Arc<FaultyDisk>> {
        self.state.lock().stopped.take()
    }

    fn is_idle(&self) -> bool {
        self.state.lock().idle
    }
}

impl Replication for Gate {
    fn written(&self, lsn: u64) {
        let mut state = self.state.lock();
        state.fed.written(lsn);
        if let Some(disk) = state.stops.take() {
            state.stopped = Some(disk.crash());
        }
    }

    fn wait(&self, lsn: u64) -> std::result::Result<(), String> {
        let mut state = self.state.lock();
        loop {
            if state.over {
                return Err("another copy is the master".into());
            }
            if state.fed.all_have(lsn) {
                state.parked = None;
                return Ok(());
            }
            state.parked = Some(lsn);
            self.changed.notify_all();
            self.changed.wait(&mut state);
        }
    }

    fn acknowledged(&self) -> u64 {
        self.state.lock().fed.acknowledged()
    }
}

#[derive(Default)]
pub enum Role {
    #[default]
    None,
    Replica,
    Master(Master),
}

pub struct Master {
    pub term: u64,
    pub gate: Arc<Gate>,
    /// The session with each copy, and up to where records were sent; `None`: it is not open.
    pub sessions: BTreeMap<String, (u64, Option<u64>)>,
    /// The write whose commit runs.
    writing: Option<(u64, JoinHandle<Result<()>>)>,
}

/// A copy of a partition.
pub struct Copy {
    pub database: Arc<Database>,
    generation: u64,
    pub term: u64,
    pub role: Role,
    /// Who may feed it.
    pub feeder: u64,
    failure: String,
}

impl Copy {
    fn open(disk: &Arc<FaultyDisk>, partition: u32, generation: u64) -> Copy {
        let options = Options { default_partitions: 1, ..Options::default() };
        let database = Database::open_on(disk.clone(), &folder(partition, generation), options, Box::new(())).unwrap();
        let term = database.position().term;
        Copy { database, generation, term, role: Role::None, feeder: 0, failure: String::new() }
    }

    /// Ends being the master: the write that waits comes to nothing, as far as anybody knows.
    pub fn leave(&mut self, role: Role) {
        if let Role::Master(mut master) = std::mem::replace(&mut self.role, role) {
            master.gate.end();
            if let Some((_, thread)) = master.writing.take() {
                assert!(thread.join().unwrap().is_err(), "a write is acknowledged by who is not the master");
            }
        }
    }

    pub fn become_replica(&mut self) {
        self.leave(Role::Replica);
        self.database.become_replica().unwrap();
    }

    pub fn become_master(&mut self, term: u64, in_sync: &[String], feed: &[String]) {
        self.leave(Role::None);
        let gate = Arc::new(Gate::default());
        gate.finish();
        gate.change(|fed| {
            *fed = FedCopies::new(self.database.position().lsn);
            fed.keep(in_sync, feed, 0);
        });
        let done = self.database.become_master(term, gate.clone());
        self.failure = done.as_ref().err().map(ToString::to_string).unwrap_or_default();
        if done.is_ok() {
            gate.change(|fed| fed.begin(self.database.position().lsn));
        }
        self.role = Role::Master(Master { term, gate, sessions: BTreeMap::new(), writing: None });
    }

    /// A client writes. `stops`: the machine stops when the record is in the log.
    pub fn write(&mut self, number: u64, stops: Option<Arc<FaultyDisk>>) {
        let Role::Master(master) = &mut self.role else { return };
        if master.writing.is_some() || !self.failure.is_empty() {
            return;
        }
        let (database, gate) = (self.database.clone(), master.gate.clone());
        gate.begin(stops);
        let commit = move || {
            let done = insert(&database, number);
            gate.finish();
            done
        };
        master.writing = Some((number, std::thread::spawn(commit)));
        master.gate.change(|_| ());
    }

    /// The write that was acknowledged since somebody last looked.
    pub fn acknowledged(&mut self) -> Option<u64> {
        let Role::Master(master) = &mut self.role else { return None };
        if !master.gate.is_idle() {
            return None;
        }
        let (number, thread) = master.writing.take()?;
        thread.join().unwrap().ok().map(|()| number)
    }

    /// Whether clients are answered here.
    pub fn serves(&self) -> bool {
        matches!(&self.role, Role::Master(master) if self.failure.is_empty() && master.gate.change(FedCopies::serves))
    }

    /// The writes that readers see here.
    pub fn rows(&self) -> Vec<u64> {
        let Some(table) = self.database.table(TABLE) else { return vec![] };
        let mut rows = Vec::new();
        for scanned in table.scanned(0).unwrap() {
            let values = scanned.segment.values(0, 0, scanned.segment.rows(), None).unwrap();
            rows.extend(values.as_primitive::<Int64Type>().values().iter().map(|row| *row as u64));
        }
        rows
    }

    pub fn report(&mut self, ordinal: u32, number: u64) -> CopyReport {
        let (role, fed): (CopyRole, Vec<FedReport>) = match &self.role {
            Role::None => (CopyRole::None, vec![]),
            Role::Replica => (CopyRole::Replica, vec![]),
            Role::Master(master) => (CopyRole::Master, master.gate.change(|fed| fed.report(number))),
        };
        let failure =
            if self.failure.is_empty() { self.database.log_failure().unwrap_or_default() } else { self.failure.clone() };
        let Position { lsn, term, checksum } = self.database.position();
        let position = stoa_rpc::replication::Position { lsn, term, checksum };
        CopyReport { database: DATABASE.to_owned(), ordinal, term: self.term, role, position, failure, fed, bytes: 0 }
    }
}

fn insert(database: &Arc<Database>, number: u64) -> Result<()> {
    if database.table(TABLE).is_none() {
        let (name, ty, sql_type) = ("number".to_owned(), DataType::Int64, "BIGINT".to_owned());
        let column = ColumnDef { name, ty, nullable: false, bitmap_index: BitmapIndex::None, sql_type };
        database.create_table(TableDef { name: TABLE.into(), columns: vec![column], ..TableDef::default() })?;
    }
    let mut transaction = database.begin();
    let schema = database.table(TABLE).unwrap().def.schema();
    let rows = RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(vec![number as i64]))])?;
    transaction.insert(TABLE, &rows, RowNames::default())?;
    transaction.commit()
}

fn folder(partition: u32, generation: u64) -> PathBuf {
    Path::new(ROOT).join(format!("{partition}-{generation}"))
}

/// A disk for a leaf.
fn empty(seed: u64) -> Arc<FaultyDisk> {
    let disk = FaultyDisk::new(seed);
    disk.create_folder(Path::new(ROOT)).unwrap();
    disk.sync_folder(Path::new("/")).unwrap();
    disk
}

/// A leaf.
pub struct Leaf {
    disk: Arc<FaultyDisk>,
    pub up: bool,
    pub incarnation: u64,
    pub version: u64,
    pub sequence: u64,
    pub copies: BTreeMap<u32, Copy>,
    /// Masters that are to be here and have lost what they had.
    pub lost: Vec<CopyOrder>,
}

impl Leaf {
    pub fn new(seed: u64) -> Leaf {
        Leaf { disk: empty(seed), up: true, incarnation: 1, version: 0, sequence: 0, copies: BTreeMap::new(), lost: vec![] }
    }

    /// The copy of a partition, which is made if it is not there.
    pub fn made(&mut self, partition: u32) -> &mut Copy {
        let disk = &self.disk;
        self.copies.entry(partition).or_insert_with(|| {
            let copy = Copy::open(disk, partition, 0);
            disk.sync_folder(Path::new(ROOT)).unwrap();
            copy
        })
    }

    /// A client writes; perhaps the machine stops before what it wrote is on disk.
    pub fn write(&mut self, partition: u32, number: u64, stops: bool) {
        let stops = stops.then(|| self.disk.clone());
        if let Some(copy) = self.copies.get_mut(&partition) {
            copy.write(number, stops);
        }
    }

    /// Whether the machine has stopped while a record was written.
    pub fn has_stopped(&self) -> bool {
        self.copies.values().any(|copy| matches!(&copy.role, Role::Master(master) if master.gate.has_stopped()))
    }

    /// The disk of a machine that has stopped while a record was written.
    fn stopped(&self) -> Option<Arc<FaultyDisk>> {
        self.copies.values().find_map(|copy| if let Role::Master(master) = &copy.role { master.gate.stopped() } else { None })
    }

    /// The machine stops: of what was not synced anything may be lost.
    pub fn crash(&mut self) {
        self.disk = self.stopped().unwrap_or_else(|| self.disk.crash());
        self.up = false;
        self.copies.values_mut().for_each(|copy| copy.leave(Role::None));
        self.copies.clear();
    }

    pub fn start(&mut self) {
        if self.up {
            return;
        }
        (self.up, self.version, self.sequence, self.incarnation) = (true, 0, 0, self.incarnation + 1);
        let mut newest: BTreeMap<u32, u64> = BTreeMap::new();
        for (name, _) in self.disk.list(Path::new(ROOT)).unwrap() {
            let (partition, generation) = name.split_once('-').unwrap();
            let newest = newest.entry(partition.parse().unwrap()).or_default();
            *newest = generation.parse::<u64>().unwrap().max(*newest);
        }
        self.copies = newest.into_iter().map(|(p, generation)| (p, Copy::open(&self.disk, p, generation))).collect();
    }

    /// Its machine has another disk, with nothing on it.
    pub fn wipe(&mut self, seed: u64) {
        self.crash();
        self.disk = empty(seed);
    }

    /// Puts a copy with these records, all of a log, in the place of one.
    pub fn copy_anew(&mut self, partition: u32, records: &[LogRecord]) -> Result<Position> {
        let disk = &self.disk;
        let Some(copy) = self.copies.get_mut(&partition) else { return Ok(Position::default()) };
        let new = Copy::open(disk, partition, copy.generation + 1);
        new.database.become_replica()?;
        let position = new.database.replicate(records)?;
        disk.sync_folder(Path::new(ROOT)).unwrap();
        let old = folder(partition, copy.generation);
        (copy.database, copy.generation) = (new.database, new.generation);
        disk.remove_folder(&old).unwrap();
        Ok(position)
    }
}
