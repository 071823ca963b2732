//! The databases of a leaf: a data directory for each copy of a partition, one for the REFERENCE tables.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use stoa_columnstore::{Database, Options, Snapshot, Table, TableDef, decode_definition, encode_definition};
use stoa_plan::codec::TableSummary;
use stoa_rpc::leaf::{DatabaseStatus, InDoubt, MergeStatus, OptimizeHow, REFERENCE};
use stoa_rpc::replication::{CopyOrder, CopyReport, HeldCopy, Orders};
use stoa_rpc::{Failure, FailureKind, Result};

use crate::partition::{Home, Partition, bytes, parse_folder};
use crate::replication::{Outlet, is_lost, report_lost, sent};
use crate::storage_failure;
use crate::transaction::Part;

const REFERENCE_FOLDER: &str = "reference";
/// How long states stay for queries that come late to see them: longer than it takes a query to begin on all of its leaves.
const KEEP_STATES: Duration = Duration::from_secs(1);
/// How long a query waits for transactions in doubt before its coordinator looks again where the partitions are.
pub(crate) const SETTLE: Duration = Duration::from_secs(2);

/// All databases.
pub(crate) struct Databases {
    root: PathBuf,
    options: Options,
    open: RwLock<BTreeMap<String, Parts>>,
    /// Masters that are to be here and are not, as the last orders had them.
    lost: Mutex<Vec<CopyOrder>>,
    /// Copies that are to be here and could not be made, and why.
    unmade: Mutex<BTreeMap<(String, u32), String>>,
}

/// The parts of a database that are here.
#[derive(Clone)]
pub(crate) struct Parts {
    pub reference: Arc<Database>,
    partitions: BTreeMap<u32, Arc<Partition>>,
}

impl Databases {
    /// Opens every database in a folder.
    pub fn open(root: &Path, options: &Options) -> Result<Databases> {
        std::fs::create_dir_all(root).map_err(|e| io(root, &e))?;
        // A partition is one partition, whatever the default of data directories is.
        let options = Options { default_partitions: 1, keep_shown: KEEP_STATES, ..options.clone() };
        let databases = Databases {
            root: root.to_path_buf(),
            options,
            open: RwLock::default(),
            lost: Mutex::default(),
            unmade: Mutex::default(),
        };
        for name in names(root)? {
            let home = databases.home(&name);
            let mut newest: BTreeMap<u32, u64> = BTreeMap::new();
            let found = names(&home.folder)?;
            for (ordinal, generation) in found.iter().filter_map(|name| parse_folder(name)) {
                newest.entry(ordinal).and_modify(|n| *n = generation.max(*n)).or_insert(generation);
            }
            // Copies that took another's place, or were not whole when the leaf ended.
            for left in found.iter().filter(|name| *name != REFERENCE_FOLDER) {
                if parse_folder(left).is_none_or(|(ordinal, generation)| newest[&ordinal] != generation) {
                    std::fs::remove_dir_all(home.folder.join(left)).map_err(|e| io(&home.folder, &e))?;
                }
            }
            let open = |(ordinal, generation): (u32, u64)| Ok((ordinal, Partition::open(&home, ordinal, generation)?));
            let partitions = newest.into_iter().map(open).collect::<Result<_>>()?;
            let reference = databases.directory(&home.folder.join(REFERENCE_FOLDER))?;
            databases.open.write().insert(name, Parts { reference, partitions });
        }
        Ok(databases)
    }

    fn home(&self, name: &str) -> Home {
        Home { database: name.to_owned(), folder: self.root.join(name), options: self.options.clone() }
    }

    /// Keeps to what the catalog says of every copy, which was made when the report `processed` had been dealt with.
    pub fn order(&self, orders: &Orders, processed: u64, outlet: &Arc<Outlet>) {
        let (mut lost, mut unmade) = (Vec::new(), BTreeMap::new());
        let before = self.unmade.lock().clone();
        for order in &orders.copies {
            let copy = self.parts(&order.database).map(|parts| parts.partitions.get(&order.ordinal).cloned());
            let position = copy.as_ref().ok().and_then(|copy| copy.as_ref()).map(|copy| copy.database().position().lsn);
            if is_lost(order, position) {
                lost.push(order.clone());
                continue;
            }
            match copy.and_then(|copy| copy.map_or_else(|| self.made(&order.database, order.ordinal), Ok)) {
                Ok(copy) => copy.order(order, processed, outlet),
                Err(failure) => {
                    let place = (order.database.clone(), order.ordinal);
                    if before.get(&place) != Some(&failure.message) {
                        tracing::error!(database = order.database, ordinal = order.ordinal, %failure, "no copy");
                    }
                    unmade.insert(place, failure.message);
                }
            }
        }
        (*self.lost.lock(), *self.unmade.lock()) = (lost, unmade);
        for (name, parts) in &*self.open.read() {
            for (ordinal, copy) in &parts.partitions {
                if !orders.copies.iter().any(|order| (&order.database, order.ordinal) == (name, *ordinal)) {
                    copy.give_up();
                }
            }
        }
    }

    /// A copy of a partition, which was not there.
    fn made(&self, name: &str, ordinal: u32) -> Result<Arc<Partition>> {
        self.create(name, &[ordinal])?;
        let missing = || Failure::new(FailureKind::Retryable, format!("there is no partition {ordinal} of '{name}' here"));
        self.parts(name)?.partitions.get(&ordinal).cloned().ok_or_else(missing)
    }

    /// How every copy stands, for the report of a number.
    pub fn report(&self, number: u64) -> Vec<CopyReport> {
        let copies: Vec<Arc<Partition>> =
            self.open.read().values().flat_map(|parts| parts.partitions.values().cloned()).collect();
        let references: Vec<Arc<Database>> = self.open.read().values().map(|parts| parts.reference.clone()).collect();
        // Heartbeats come for it: what nobody writes any more does not keep old states.
        copies.iter().map(|copy| copy.database()).chain(references).for_each(|database| database.prune_states());
        let lost: Vec<CopyReport> = self.lost.lock().iter().map(report_lost).collect();
        copies.iter().map(|copy| copy.report(number)).chain(lost).collect()
    }

    /// Every copy with its tables, those of REFERENCE tables included.
    pub fn held(&self) -> Vec<HeldCopy> {
        let open = self.open.read();
        let mut all = Vec::new();
        for (name, parts) in &*open {
            let copies = parts.partitions.iter().map(|(ordinal, copy)| (*ordinal, copy.term(), copy.database()));
            let reference = (REFERENCE, 0, parts.reference.clone());
            all.extend(copies.chain([reference]).map(|(ordinal, term, database)| held(name, ordinal, term, &database)));
        }
        all
    }

    /// Free bytes of the disk; `None`: not known.
    pub fn free(&self) -> Option<u64> {
        fs4::available_space(&self.root).ok()
    }

    /// A copy of a partition, whatever it is to the others.
    pub fn copy(&self, name: &str, ordinal: u32) -> Result<Arc<Partition>> {
        let missing = || {
            let why = self.unmade.lock().get(&(name.to_owned(), ordinal)).cloned();
            let why = why.map_or_else(|| "is not here yet".to_owned(), |why| format!("could not be made here: {why}"));
            Failure::new(FailureKind::Retryable, format!("the copy of partition {ordinal} of '{name}' {why}"))
        };
        self.parts(name)?.partitions.get(&ordinal).cloned().ok_or_else(missing)
    }

    /// The data directory of a partition that the catalog does not have here yet, or that of the REFERENCE tables.
    pub fn without_role(&self, name: &str, ordinal: u32) -> Result<Arc<Database>> {
        if ordinal == REFERENCE { Ok(self.parts(name)?.reference) } else { self.copy(name, ordinal)?.without_role() }
    }

    /// Gives a copy up, if the catalog does not have it.
    pub fn drop_partition(&self, name: &str, ordinal: u32) -> Result<()> {
        let mut open = self.open.write();
        let Some(parts) = open.get_mut(name) else { return Ok(()) };
        let Some(copy) = parts.partitions.get(&ordinal) else { return Ok(()) };
        copy.remove()?;
        parts.partitions.remove(&ordinal);
        Ok(())
    }

    pub fn status(&self) -> Vec<DatabaseStatus> {
        let status = |(name, parts): (&String, &Parts)| DatabaseStatus {
            name: name.clone(),
            ordinals: parts.partitions.keys().copied().collect(),
            bytes: parts.partitions.values().map(|p| bytes(&p.database())).chain([bytes(&parts.reference)]).sum(),
        };
        self.open.read().iter().map(status).collect()
    }

    /// Makes partitions of a database, empty; those that are there stay as they are.
    pub fn create(&self, name: &str, ordinals: &[u32]) -> Result<()> {
        check_name(name)?;
        if let Some(ordinal) = ordinals.iter().find(|o| **o >= stoa_columnstore::MAX_PARTITIONS) {
            return Err(Failure::new(FailureKind::User, format!("database '{name}' cannot have a partition {ordinal}")));
        }
        let mut open = self.open.write();
        let folder = self.root.join(name);
        let mut parts = match open.get(name) {
            Some(parts) => parts.clone(),
            None => Parts { reference: self.directory(&folder.join(REFERENCE_FOLDER))?, partitions: BTreeMap::new() },
        };
        let home = self.home(name);
        let before = (open.contains_key(name), parts.partitions.len());
        for ordinal in ordinals {
            if !parts.partitions.contains_key(ordinal) {
                parts.partitions.insert(*ordinal, Partition::open(&home, *ordinal, 0)?);
            }
        }
        if self.options.fsync && before != (true, parts.partitions.len()) {
            // What has a place in the catalog is not to be gone after a crash.
            for folder in [&folder, &self.root] {
                std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| io(folder, &e))?;
            }
        }
        open.insert(name.to_owned(), parts);
        Ok(())
    }

    fn directory(&self, folder: &Path) -> Result<Arc<Database>> {
        Database::open(folder, self.options.clone()).map_err(|e| storage_failure(&e))
    }

    /// Drops a database, if it is here. Queries that read it finish with what they have open.
    pub fn drop_database(&self, name: &str) -> Result<()> {
        check_name(name)?;
        let mut open = self.open.write();
        if let Some(parts) = open.remove(name) {
            parts.partitions.values().for_each(|copy| copy.end());
        }
        let folder = self.root.join(name);
        match std::fs::remove_dir_all(&folder) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io(&folder, &e)),
            _ => Ok(()),
        }
    }

    /// Makes a table wherever it belongs. Done again with the same definition, it finishes what an earlier try left.
    pub fn create_table(&self, name: &str, definition: &[u8]) -> Result<()> {
        let def = decode_definition(definition).map_err(|e| storage_failure(&e))?;
        let parts = self.parts(name)?;
        for database in parts.homes(def.reference)? {
            let own = TableDef { partitions: 1, ..def.clone() };
            match database.table(&def.name) {
                Some(table) if *table.def == own => {}
                _ => drop(database.create_table(own).map_err(|e| storage_failure(&e))?),
            }
        }
        Ok(())
    }

    pub fn drop_table(&self, name: &str, table: &str) -> Result<()> {
        let parts = self.parts(name)?;
        for database in parts.homes(false)?.iter().chain([&parts.reference]) {
            database.drop_table(table, true).map_err(|e| storage_failure(&e))?;
        }
        Ok(())
    }

    pub fn truncate_table(&self, name: &str, table: &str) -> Result<()> {
        let truncate = |database: &Arc<Database>| database.truncate_table(table).map_err(|e| storage_failure(&e));
        self.homes(name, table)?.iter().try_for_each(truncate)
    }

    /// Gives a table a later version of its definition wherever it belongs.
    pub fn alter_table(&self, name: &str, definition: &[u8]) -> Result<()> {
        let def = decode_definition(definition).map_err(|e| storage_failure(&e))?;
        let alter = |database: &Arc<Database>| database.redefine_table(&def).map_err(|e| storage_failure(&e));
        self.parts(name)?.homes(def.reference)?.iter().try_for_each(alter)
    }

    /// Flushes or merges a table.
    pub fn optimize(&self, name: &str, table: &str, how: OptimizeHow) -> Result<()> {
        let optimize = |database: &Arc<Database>| match how {
            OptimizeHow::Merge => database.optimize_table(table, false),
            OptimizeHow::Full => database.optimize_table(table, true),
            OptimizeHow::Flush => database.flush_table(table),
        };
        self.homes(name, table)?.iter().try_for_each(optimize).map_err(|e| storage_failure(&e))
    }

    /// The data directories that have a part of a table that is there.
    fn homes(&self, name: &str, table: &str) -> Result<Vec<Arc<Database>>> {
        let parts = self.parts(name)?;
        parts.homes(parts.reference.table(table).is_some())
    }

    /// How each partition of each table stands.
    pub fn merge_status(&self, name: &str) -> Result<Vec<MergeStatus>> {
        let of = |(ordinal, database): (u32, Arc<Database>)| {
            let status = move |status: stoa_columnstore::MergeStatus| MergeStatus {
                table: status.table,
                ordinal,
                segments: status.segments,
                to_merge: status.to_merge,
                rows_in_memory: status.rows_in_memory,
                deleted_rows: status.deleted_rows,
                state: status.state.map_or(String::new(), |state| state.name().to_owned()),
                error: status.error.unwrap_or_default(),
            };
            database.merge_status().into_iter().map(status).collect::<Vec<_>>()
        };
        Ok(self.parts(name)?.all().flat_map(of).collect())
    }

    /// Transactions that are prepared here.
    pub fn in_doubt(&self) -> Vec<InDoubt> {
        let mut all = Vec::new();
        for (name, parts) in &*self.open.read() {
            let copies = parts.partitions.iter().map(|(ordinal, copy)| (*ordinal, copy.in_doubt()));
            for (ordinal, found) in copies.chain([(REFERENCE, parts.reference.in_doubt())]) {
                let one = |(transaction, decider)| InDoubt { database: name.clone(), ordinal, transaction, decider };
                all.extend(found.into_iter().map(one));
            }
        }
        all
    }

    /// The data directory of a partition, or that of the REFERENCE tables.
    pub fn partition(&self, name: &str, ordinal: u32) -> Result<Arc<Database>> {
        let parts = self.parts(name)?;
        if ordinal == REFERENCE { Ok(parts.reference) } else { parts.get(name, ordinal) }
    }

    /// The tables of a database over some of its partitions, as they were at a moment; 0: as they are now.
    pub fn tables(&self, name: &str, ordinals: &[u32], moment: u64) -> Result<Tables> {
        let parts = self.parts(name)?;
        let at =
            |database: &Database| Ok(Source::Committed(database.snapshot_at(moment, SETTLE).map_err(|e| storage_failure(&e))?));
        let partition = |ordinal: &u32| at(&*parts.get(name, *ordinal)?);
        let partitions = ordinals.iter().map(partition).collect::<Result<_>>()?;
        let reference = at(&parts.reference)?;
        Ok(Tables { reference, partitions, ordinals: ordinals.to_vec(), seen: Mutex::default() })
    }

    /// The parts of a database.
    pub fn parts(&self, name: &str) -> Result<Parts> {
        let found = self.open.read().get(name).cloned();
        found.ok_or_else(|| Failure::new(FailureKind::Retryable, format!("there is no database '{name}' on this leaf")))
    }
}

impl Parts {
    /// The data directory of a partition whose master is here.
    pub fn get(&self, name: &str, ordinal: u32) -> Result<Arc<Database>> {
        let missing = || Failure::new(FailureKind::Retryable, format!("partition {ordinal} of '{name}' is not on this leaf"));
        self.partitions.get(&ordinal).ok_or_else(missing)?.master()
    }

    /// Every data directory that takes changes, with its ordinal.
    fn all(&self) -> impl Iterator<Item = (u32, Arc<Database>)> {
        let masters = self.partitions.iter().filter_map(|(ordinal, copy)| Some((*ordinal, copy.master().ok()?)));
        masters.chain([(REFERENCE, self.reference.clone())])
    }

    /// The data directories that have a part of a table and take changes.
    fn homes(&self, reference: bool) -> Result<Vec<Arc<Database>>> {
        if reference {
            return Ok(vec![self.reference.clone()]);
        }
        self.partitions.values().filter_map(|copy| copy.if_master().transpose()).collect()
    }
}

/// Where a query finds the tables of a data directory.
enum Source {
    /// What was committed at its moment.
    Committed(Snapshot),
    /// What its transaction sees.
    Changed(Arc<Part>),
}

impl Source {
    fn table(&self, name: &str) -> Option<Arc<Table>> {
        match self {
            Source::Committed(snapshot) => snapshot.table(name),
            Source::Changed(part) => part.table(name),
        }
    }

    fn names(&self) -> Vec<String> {
        match self {
            Source::Committed(snapshot) => snapshot.tables().iter().map(|t| t.name().to_owned()).collect(),
            Source::Changed(_) => vec![],
        }
    }
}

/// The tables of a database as one query sees them: every table is opened once, and stays as it was then.
pub(crate) struct Tables {
    reference: Source,
    partitions: Vec<Source>,
    ordinals: Vec<u32>,
    seen: Mutex<HashMap<String, Arc<Table>>>,
}

impl Tables {
    /// The tables as a transaction sees them, over some of its partitions.
    pub fn seen_by(reference: &Arc<Part>, partitions: &BTreeMap<u32, Arc<Part>>, ordinals: &[u32]) -> Result<Tables> {
        let missing = || Failure::new(FailureKind::Fatal, "a query reads a partition that is not in its transaction");
        let partition = |ordinal| partitions.get(ordinal).cloned().map(Source::Changed).ok_or_else(missing);
        let partitions = ordinals.iter().map(partition).collect::<Result<_>>()?;
        let reference = Source::Changed(reference.clone());
        Ok(Tables { reference, partitions, ordinals: ordinals.to_vec(), seen: Mutex::default() })
    }

    /// A table over all partitions, or the whole REFERENCE table.
    pub fn table(&self, name: &str) -> stoa_columnstore::Result<Arc<Table>> {
        let key = name.to_lowercase();
        let mut seen = self.seen.lock();
        if let Some(table) = seen.get(&key) {
            return Ok(table.clone());
        }
        let table = match self.reference.table(name) {
            Some(table) => table,
            None => Arc::new(assemble(&self.partitions, &self.ordinals, name)?),
        };
        seen.insert(key, table.clone());
        Ok(table)
    }

    /// What the optimizer asks for, of every table.
    pub fn summaries(&self) -> Vec<TableSummary> {
        let some = self.partitions.first().into_iter().chain([&self.reference]);
        let names: Vec<String> = some.flat_map(Source::names).collect();
        let summary = |name: String| {
            let table = self.table(&name).ok()?;
            let statistics = stoa_exec::table_statistics(&table);
            Some(TableSummary { name, bytes: table.bytes_on_disk(), statistics })
        };
        names.into_iter().filter_map(summary).collect()
    }
}

impl stoa_exec::Storage for Tables {
    fn table(&self, name: &str) -> stoa_exec::Result<Arc<Table>> {
        Ok(Tables::table(self, name)?)
    }
}

/// The partitions of a table as one.
fn assemble(sources: &[Source], ordinals: &[u32], name: &str) -> stoa_columnstore::Result<Table> {
    let missing = || stoa_columnstore::Error::NoSuchTable(name.to_owned());
    let tables: Vec<Arc<Table>> =
        sources.iter().map(|source| source.table(name).ok_or_else(missing)).collect::<stoa_columnstore::Result<_>>()?;
    let first = tables.first().ok_or_else(missing)?;
    // Some partitions may have been altered before others.
    tables.iter().try_for_each(|table| table.def.check_revision(first.def.revision()))?;
    let partitions: Vec<_> = tables.iter().flat_map(|t| t.partitions.iter().cloned()).collect();
    let def = TableDef { partitions: partitions.len() as u32, ..TableDef::clone(&first.def) };
    Ok(Table::of_partitions(Arc::new(def), partitions, ordinals.to_vec()))
}

/// A name becomes a folder: nothing but lower-case letters, digits and underscores may be in it.
fn check_name(name: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if !name.is_empty() && name.len() <= 64 && name.chars().all(fits) {
        return Ok(());
    }
    let rule = "lower-case letters, digits and underscores, at most 64";
    Err(Failure::new(FailureKind::User, format!("'{name}' cannot be the name of a database: {rule}")))
}

/// A copy that acts for a term, with its tables.
fn held(name: &str, ordinal: u32, term: u64, database: &Database) -> HeldCopy {
    let tables = database.tables().iter().map(|table| encode_definition(&table.def)).collect();
    let (position, bytes) = (sent(database.position()), bytes(database));
    HeldCopy { database: name.to_owned(), ordinal, term, position, bytes, tables }
}

/// The folders in a folder.
fn names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| io(folder, &e))? {
        let entry = entry.map_err(|e| io(folder, &e))?;
        if entry.path().is_dir() {
            names.extend(entry.file_name().into_string());
        }
    }
    Ok(names)
}

fn io(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(FailureKind::Fatal, format!("{}: {error}", path.display()))
}
