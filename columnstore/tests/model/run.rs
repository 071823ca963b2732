//! One run: the data directory, what should be in it, and how calls may end.

use std::any::Any;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use stoa_columnstore::{ColumnDef, Database, Durability, Error, Options, Result, Table};

use crate::disk::{Faults, FaultyDisk};
use crate::state::{ModelColumn, ModelTable, State, rows_of};
use crate::steps::{Load, OpenTransaction};

const ROOT: &str = "/data/stoa";
/// Steps that a failure prints.
const TAIL: usize = 40;

/// How a call must end: well, or with one of these kinds of errors.
pub type Expected = Vec<&'static str>;

/// The lock of the directory, which says when it is let go.
struct Lock(Arc<AtomicBool>);

impl Drop for Lock {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Tables as they were, and what is in them.
type Snapshot = Vec<(Arc<Table>, Arc<ModelTable>)>;

pub struct Run {
    seed: u64,
    pub rng: StdRng,
    disk: Arc<FaultyDisk>,
    database: Option<Arc<Database>>,
    closed: Arc<AtomicBool>,
    options: Options,
    pub model: State,
    /// What may be there after a crash instead: commits that failed since the last one that did not.
    doubts: Vec<State>,
    /// What the end of the machine may go back to: states before commits that count and may not be on disk.
    unsynced: Vec<State>,
    /// States before commits of which no later record of the log says that they had been synced: a bit that flips in such a record looks
    /// like the end of a log that was being written.
    unproven: Vec<State>,
    /// So many of those were synced: the next record says so.
    provable: usize,
    /// A transaction is prepared.
    pub in_two: bool,
    pub transactions: Vec<OpenTransaction>,
    pub loads: Vec<Load>,
    snapshots: Vec<Snapshot>,
    faults: Option<Faults>,
    /// There were faults since the directory was opened.
    failed: bool,
    steps: Vec<String>,
    pub next_number: i64,
}

impl Drop for Run {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let tail = &self.steps[self.steps.len().saturating_sub(TAIL)..];
            eprintln!("STOA_MODEL_SEED={} after {} steps: {:?}\n{}", self.seed, self.steps.len(), self.options, tail.join("\n"));
        }
    }
}

impl Run {
    pub fn new(seed: u64) -> Run {
        let mut rng = StdRng::seed_from_u64(seed);
        let options = Options {
            segment_rows: [16, 64, 64][rng.random_range(0..3)],
            default_partitions: 2,
            flush_rows: [8, 30, 1000][rng.random_range(0..3)],
            checkpoint_bytes: [4_000, 100_000][rng.random_range(0..2)],
            eager_maintenance: seed.is_multiple_of(3),
            durability: if seed % 4 == 1 { Durability::Async } else { Durability::Sync },
            ..Options::default()
        };
        let mut run = Run {
            seed,
            rng,
            disk: FaultyDisk::new(seed),
            database: None,
            closed: Arc::default(),
            options,
            model: State::default(),
            doubts: vec![],
            unsynced: vec![],
            unproven: vec![],
            provable: 0,
            in_two: false,
            transactions: vec![],
            loads: vec![],
            snapshots: vec![],
            faults: None,
            failed: false,
            steps: vec![],
            next_number: 0,
        };
        run.open();
        run
    }

    pub fn note(&mut self, step: String) {
        if std::env::var("STOA_MODEL_SEED").is_ok() && std::env::var("STOA_MODEL_STEPS").is_err() {
            eprintln!("{step}");
        }
        self.steps.push(step);
    }

    pub fn number(&mut self) -> i64 {
        self.next_number += 1;
        self.next_number
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        self.rng.random_bool(probability)
    }

    pub fn database(&self) -> Arc<Database> {
        Arc::clone(self.database.as_ref().expect("open"))
    }

    /// Whether the disk fails now.
    pub fn has_faults(&self) -> bool {
        self.faults.is_some()
    }

    /// Whether an error may come of the disk's faults.
    fn is_fault(&self, error: &Error) -> bool {
        match error {
            Error::Io { .. } => self.faults.is_some(),
            Error::Corrupt { .. } => self.faults.is_some_and(|faults| faults.flip > 0.0),
            _ => false,
        }
    }

    /// The value of a call that changes nothing; `None` after a fault.
    pub fn read<T>(&mut self, result: Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) if self.is_fault(&error) => {
                self.note(format!("  failed: {error}"));
                None
            }
            Err(error) => panic!("unexpected error: {error:?}"),
        }
    }

    /// Checks how a commit ended that makes `after` of the model; whether it did.
    pub fn commit<T>(&mut self, result: Result<T>, expected: &Expected, after: State) -> bool {
        match result {
            Ok(_) => {
                assert!(expected.is_empty(), "a commit should have failed: {expected:?}");
                let before = std::mem::replace(&mut self.model, after);
                // What changed nothing may have left no record.
                if !same(&before, &self.model) {
                    self.unproven.drain(..self.provable);
                    self.unproven.push(before.clone());
                    self.provable = if self.options.durability == Durability::Sync { self.unproven.len() } else { 0 };
                }
                if self.options.durability == Durability::Async {
                    self.unsynced.push(before);
                }
                self.doubts.clear();
                true
            }
            Err(error) if expected.contains(&kind(&error)) => {
                self.note(format!("  refused: {error}"));
                false
            }
            Err(error) => {
                if self.read::<()>(Err(error)).is_none() && expected.is_empty() {
                    self.doubts.push(after);
                    self.unproven.push(self.model.clone());
                }
                false
            }
        }
    }

    /// Checks how a statement ended that changes nothing that lasts; whether it was done.
    pub fn statement<T>(&mut self, result: Result<T>, expected: &Expected) -> bool {
        match result {
            Err(error) if expected.contains(&kind(&error)) => {
                self.note(format!("  refused: {error}"));
                false
            }
            Err(error) => self.read::<()>(Err(error)).is_some(),
            Ok(_) => {
                assert!(expected.is_empty(), "a statement should have failed: {expected:?}");
                true
            }
        }
    }

    pub fn checkpoint(&mut self) {
        self.note("checkpoint".into());
        let result = self.database().checkpoint();
        if self.read(result).is_some() {
            self.doubts.clear();
            self.unsynced.clear();
            self.forget_unproven();
        }
    }

    /// The manifest has everything.
    fn forget_unproven(&mut self) {
        (self.unproven, self.provable) = (vec![], 0);
    }

    /// Makes everything last that counts.
    pub fn sync(&mut self) {
        self.note("sync".into());
        let result = self.database().sync();
        if self.read(result).is_some() {
            self.unsynced.clear();
            self.provable = self.unproven.len();
        }
    }

    /// Every table holds what it should.
    pub fn verify(&mut self) {
        let snapshot = self.database().snapshot();
        let tables: Vec<_> = self.database().tables().iter().map(|t| t.name().to_owned()).collect();
        assert_eq!(tables, self.model.tables.keys().cloned().collect::<Vec<_>>(), "tables");
        let views = self.database().views().into_iter().collect();
        assert_eq!(self.model.views, views, "views");
        for (name, expected) in self.model.tables.clone() {
            self.verify_table(&snapshot.table(&name).expect("there"), &expected, "table");
        }
    }

    pub fn verify_table(&mut self, table: &Table, expected: &ModelTable, what: &str) {
        let names: Vec<&str> = table.def.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names, expected.names(), "columns of {what} '{}'", table.name());
        if let Some(found) = self.read(rows_of(table))
            && found != expected.rows
        {
            let missing: Vec<_> = expected.rows.values().filter(|row| found.get(&row.serial) != Some(row)).collect();
            let extra: Vec<_> = found.values().filter(|row| expected.rows.get(&row.serial) != Some(row)).collect();
            panic!("{what} '{}': missing {missing:?}, extra {extra:?}", table.name());
        }
    }

    pub fn take_snapshot(&mut self) {
        self.note("take a snapshot".into());
        let snapshot = self.database().snapshot();
        let pairs = self.model.tables.iter().map(|(name, model)| (snapshot.table(name).expect("there"), Arc::clone(model)));
        self.snapshots.push(pairs.collect());
        if self.snapshots.len() > 4 {
            let old = self.rng.random_range(0..4);
            self.snapshots.remove(old);
        }
    }

    pub fn verify_snapshots(&mut self) {
        for snapshot in self.snapshots.clone() {
            for (table, expected) in snapshot {
                self.verify_table(&table, &expected, "snapshot of");
            }
        }
    }

    /// Drops what hangs on the open directory, and it.
    fn forget(&mut self) {
        let database = self.database();
        let error = database.maintenance_error();
        // What the thread was about to do when the process ended could not be done.
        let ended = error.as_ref().is_none_or(|error| error.contains("the process has ended"));
        assert!(ended || self.failed, "background maintenance: {error:?}");
        self.transactions.clear();
        self.loads.clear();
        self.snapshots.clear();
        self.database = None;
    }

    pub fn reopen(&mut self) {
        self.note("close and open".into());
        self.forget();
        self.wait_closed();
        self.open();
    }

    /// The background thread may still be about to finish.
    fn wait_closed(&self) {
        let until = Instant::now() + Duration::from_secs(20);
        while !self.closed.load(Ordering::Acquire) {
            assert!(Instant::now() < until, "the directory is not closed");
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    pub fn crash(&mut self, power: bool) {
        self.note(if power { "crash" } else { "kill" }.into());
        self.disk = if power { self.disk.crash() } else { self.disk.kill() };
        if !power && self.faults.is_none() {
            self.unsynced.clear();
        }
        self.forget();
        self.open();
    }

    /// Opens the directory, now and then with faults first, and finds which of the commits in doubt are there.
    fn open(&mut self) {
        self.failed = false;
        let faults = self.faults;
        if faults.is_some() {
            match self.try_open() {
                Ok(()) => {}
                Err(Error::Io { .. }) => self.note("  opening failed".into()),
                Err(error) => panic!("unexpected error while opening: {error:?}"),
            }
            if self.chance(0.3) {
                self.note("  crash right after opening".into());
                self.disk = self.disk.crash();
                self.database = None;
            }
            self.disk.set_faults(Faults::default());
        }
        // A transaction that is prepared hangs on more records than the last one.
        let flips = self.database.is_none() && faults.is_none() && !self.in_two && self.chance(0.2);
        let flipped = flips && self.open_flipped();
        if self.database.is_none() {
            self.try_open().expect("opens without faults");
        }
        self.faults = None;
        self.resolve(flipped);
        self.set_faults(faults);
    }

    /// Opens with a bit wrong in the manifest or the log, or finds that it is. Whether it opened: with all that is proven to be there.
    fn open_flipped(&mut self) -> bool {
        self.note("  opening with flipped bits".into());
        self.disk.set_faults(Faults { flip_log: 0.5, ..Faults::default() });
        let opened = self.try_open();
        self.disk.set_faults(Faults::default());
        let flipped = self.disk.take_flipped();
        match opened {
            Ok(()) => !flipped.is_empty(),
            Err(Error::Corrupt { path, what }) => {
                assert!(flipped.contains(&path), "{} is said to be damaged ({what}), and {flipped:?} are", path.display());
                self.note(format!("  found: {}: {what}", path.display()));
                false
            }
            Err(error) => panic!("unexpected error while opening with flipped bits: {error:?}"),
        }
    }

    fn try_open(&mut self) -> Result<()> {
        self.disk.drop_lost();
        self.closed = Arc::default();
        let lock: Box<dyn Any + Send + Sync> = Box::new(Lock(Arc::clone(&self.closed)));
        let disk: Arc<FaultyDisk> = Arc::clone(&self.disk);
        self.database = Some(Database::open_on(disk, Path::new(ROOT), self.options.clone(), lock)?);
        Ok(())
    }

    /// The state that is there is the committed one, or one with a commit that failed just before, or one before commits that may not
    /// have been on disk; or, if bits of the log were flipped, one before commits that nothing proves.
    fn resolve(&mut self, flipped: bool) {
        let found = self.found();
        // Opening has synced what it found.
        self.provable = self.unproven.len();
        let (doubts, unsynced) = (std::mem::take(&mut self.doubts), std::mem::take(&mut self.unsynced));
        let mut others = doubts.into_iter().map(|state| (state, "  a commit in doubt is there"));
        let mut earlier = unsynced.into_iter().rev().map(|state| (state, "  commits that were not on disk are lost"));
        let is_there = |(state, _): &(State, &str)| same(state, &found);
        if !same(&self.model, &found)
            && let Some((state, what)) = others.find(is_there).or_else(|| earlier.find(is_there))
        {
            self.note(what.into());
            self.model = state;
        }
        if flipped && !same(&self.model, &found) {
            let lost = std::mem::take(&mut self.unproven).into_iter().find(|state| same(state, &found));
            self.model = lost.expect("nothing that is proven to have been there is lost");
            self.note("  commits that nothing proves are lost".into());
        }
        if flipped {
            // That it was resolved may be what is lost.
            for (transaction, _) in self.database().in_doubt() {
                self.database().resolve(transaction, None).expect("in doubt");
            }
            // What lost records proved is in the manifest now.
            self.checkpoint();
        }
        self.verify();
    }

    fn found(&self) -> State {
        let table = |table: Arc<Table>| {
            let rows = rows_of(&table).expect("can be read");
            let column = |column: &ColumnDef| ModelColumn { uid: 0, name: column.name.clone(), nullable: true, default: None };
            let columns = table.def.columns.iter().map(column).collect();
            (table.name().to_owned(), Arc::new(ModelTable { columns, rows, ..ModelTable::new(0, 0) }))
        };
        let tables = self.database().tables().into_iter().map(table).collect();
        State { tables, views: self.database().views().into_iter().collect() }
    }

    fn set_faults(&mut self, faults: Option<Faults>) {
        self.faults = faults;
        self.failed |= faults.is_some();
        self.disk.set_faults(faults.unwrap_or_default());
    }

    /// Begins a time of faults, or ends it: then everything works again and nothing is lost.
    pub fn turn_faults(&mut self) {
        if let Some(faults) = self.faults {
            self.note("faults end".into());
            // Some of their segments may have failed in the background.
            self.loads.clear();
            self.set_faults(None);
            if faults.flip > 0.0 {
                // Bytes that were read wrong stay in memory.
                self.reopen();
            }
            self.insert_somewhere();
            self.verify();
            return;
        }
        let mut of = |most: f64| if self.rng.random_bool(0.4) { most } else { 0.0 };
        let faults = Faults { full: of(0.5), write: of(0.2), sync: of(0.3), name: of(0.1), read: of(0.05), ..Faults::default() };
        let faults = if self.chance(0.2) { Faults { flip: 0.3, ..Faults::default() } } else { faults };
        self.note(format!("{faults:?}"));
        self.set_faults(Some(faults));
    }

    /// Checks everything once more after the last step.
    pub fn end(&mut self) {
        self.set_faults(None);
        self.crash(true);
        self.verify();
        self.forget();
    }
}

/// Whether two states hold the same rows.
fn same(a: &State, b: &State) -> bool {
    let alike = |name: &String, table: &ModelTable| {
        b.tables.get(name).is_some_and(|other| table.names() == other.names() && table.rows == other.rows)
    };
    a.views == b.views && a.tables.len() == b.tables.len() && a.tables.iter().all(|(name, table)| alike(name, table))
}

/// The name of an error's kind.
fn kind(error: &Error) -> &'static str {
    match error {
        Error::NoSuchTable(_) => "NoSuchTable",
        Error::AlreadyExists(_) => "AlreadyExists",
        Error::DuplicateKey(_) => "DuplicateKey",
        Error::Conflict(_) => "Conflict",
        Error::Altered(_) => "Altered",
        _ => "",
    }
}
