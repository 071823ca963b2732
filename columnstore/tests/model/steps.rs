//! The steps of a run, and what each makes of the model.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::DataType;
use rand::Rng;
use stoa_columnstore::{AlterTable, BitmapIndex, ColumnDef, RowNames, TableWriter, Transaction};

use crate::run::{Expected, Run};
use crate::state::{KINDS, ModelColumn, ModelTable, Row, Rows, State};
use crate::state::{batch, clash, definition, random_row, random_values, read};

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
/// The kind of tables that loads find altered.
const REFERENCE: usize = 2;
/// Tables with more rows than this get none.
const MOST_ROWS: usize = 700;

/// A transaction and what it should see and do.
pub struct OpenTransaction {
    transaction: Transaction,
    view: State,
    /// Tables that it emptied.
    truncated: BTreeSet<u64>,
    /// By table, the rows of others that it deleted.
    deleted: BTreeMap<u64, BTreeSet<i64>>,
    /// By table, the rows that it added and did not delete again.
    inserted: BTreeMap<u64, Rows>,
}

/// A table and some of its rows with their addresses.
type Picked = (String, Arc<ModelTable>, Vec<(u64, Row)>);

impl OpenTransaction {
    fn tables(&self) -> BTreeSet<u64> {
        self.deleted.keys().chain(self.inserted.keys()).chain(&self.truncated).copied().collect()
    }

    /// What a commit makes of a state, and how it must end.
    fn apply(&self, state: &State) -> (State, Expected) {
        let (mut after, mut expected) = (state.clone(), Expected::new());
        for uid in self.tables() {
            let Some(table) = after.by_uid_mut(uid) else {
                expected.push("NoSuchTable");
                continue;
            };
            if self.view.by_uid(uid).is_none_or(|seen| seen.version != table.version) {
                expected.push("Conflict");
                continue;
            }
            if self.truncated.contains(&uid) {
                table.rows.clear();
            }
            for serial in self.deleted.get(&uid).into_iter().flatten() {
                if table.rows.remove(serial).is_none() {
                    expected.push("Conflict");
                }
            }
            table.rows.extend(self.inserted.get(&uid).cloned().unwrap_or_default());
            if clash(table.kind, table.rows.values()) {
                expected.push("Conflict");
            }
        }
        (after, expected)
    }
}

/// Rows that are loaded into a table.
pub struct Load {
    writer: TableWriter,
    name: String,
    table: ModelTable,
    creates: bool,
}

/// The change that adds a column.
fn added_column(column: ModelColumn) -> AlterTable {
    let default = column.default.map(|value| Arc::new(Int64Array::from(vec![value])) as ArrayRef);
    let (name, ty) = (column.name, DataType::Int64);
    let column = ColumnDef { name, ty, nullable: column.nullable, bitmap_index: BitmapIndex::Auto, sql_type: "BIGINT".into() };
    AlterTable::AddColumn { column, default }
}

impl Run {
    pub fn step(&mut self) {
        match self.rng.random_range(0..200) {
            0..8 => self.create_table(),
            8..11 => self.drop_table(),
            11..14 => self.truncate_table(),
            14..16 => self.change_view(),
            16..18 => self.alter_table(),
            18..50 => self.insert_somewhere(),
            50..62 => self.begin(),
            62..105 => self.change_in_transaction(),
            105..125 => self.commit_transaction(),
            125..130 => self.drop_transaction(),
            130..138 => self.start_load(),
            138..152 => self.push_load(),
            152..158 => self.finish_load(),
            158..160 => drop(self.loads.pop()),
            160..166 => self.flush(),
            166..172 => self.optimize(),
            172..174 => self.checkpoint(),
            174..176 => self.sync(),
            176..180 => self.take_snapshot(),
            180..183 => self.verify_snapshots(),
            183..187 => self.verify(),
            187..189 => self.reopen(),
            189..193 => self.crash(true),
            193..195 => self.crash(false),
            _ => self.turn_faults(),
        }
    }

    fn some_name(&mut self) -> String {
        NAMES[self.rng.random_range(0..NAMES.len())].to_owned()
    }

    /// A table of a state.
    fn some_table(&mut self, state: &State) -> Option<(String, Arc<ModelTable>)> {
        let count = state.tables.len();
        let at = self.rng.random_range(0..count.max(1));
        state.tables.iter().nth(at).map(|(name, table)| (name.clone(), Arc::clone(table)))
    }

    fn new_table(&mut self) -> ModelTable {
        let kind = self.rng.random_range(0..KINDS);
        ModelTable::new(self.number() as u64, kind)
    }

    fn new_rows(&mut self, table: &ModelTable, most: usize) -> Vec<Row> {
        let crowded = self.chance(0.4);
        let count = if self.chance(0.3) { most } else { most.min(5) };
        (0..self.rng.random_range(1..=count))
            .map(|_| {
                let serial = self.number();
                random_row(&mut self.rng, table, serial, crowded)
            })
            .collect()
    }

    fn create_table(&mut self) {
        let (name, table) = (self.some_name(), self.new_table());
        self.note(format!("create table {name} of kind {}", table.kind));
        let result = self.database().create_table(definition(table.kind, &name));
        let mut after = self.model.clone();
        let there = after.tables.insert(name, Arc::new(table)).is_some();
        self.commit(result, &there.then_some("AlreadyExists").into_iter().collect(), after);
    }

    fn drop_table(&mut self) {
        let name = self.some_name();
        self.note(format!("drop table {name}"));
        let result = self.database().drop_table(&name.to_uppercase(), false);
        let mut after = self.model.clone();
        let there = after.tables.remove(&name).is_some();
        self.commit(result, &(!there).then_some("NoSuchTable").into_iter().collect(), after);
    }

    fn truncate_table(&mut self) {
        let name = self.some_name();
        self.note(format!("truncate table {name}"));
        let result = self.database().truncate_table(&name);
        let mut after = self.model.clone();
        let there = after.tables.get_mut(&name).map(|table| Arc::make_mut(table).rows.clear()).is_some();
        self.commit(result, &(!there).then_some("NoSuchTable").into_iter().collect(), after);
    }

    fn alter_table(&mut self) {
        let model = self.model.clone();
        let Some((name, table)) = self.some_table(&model) else { return };
        let (mut altered, added) = (ModelTable::clone(&table), table.added().len());
        altered.version += 1;
        let change = match self.rng.random_range(0..4) {
            0 if added > 0 => {
                let at = self.rng.random_range(0..added);
                altered.drop_added(at);
                AlterTable::DropColumn(table.added()[at].name.clone())
            }
            0 | 1 => {
                let column = self.rng.random_range(0..table.columns.len());
                let column = &mut altered.columns[column];
                let (from, to) = (column.name.to_uppercase(), format!("c{}", self.number()));
                column.name.clone_from(&to);
                AlterTable::RenameColumn { from, to }
            }
            _ if added < 4 => {
                let (uid, nullable) = (self.number(), self.chance(0.5));
                let default = (!nullable || self.chance(0.5)).then(|| self.rng.random_range(-5..5));
                let column = ModelColumn { uid, name: format!("x{uid}"), nullable, default };
                altered.add(column.clone());
                added_column(column)
            }
            _ => return,
        };
        self.note(format!("alter table {name}: {change:?}"));
        let result = self.database().alter_table(&name, &change);
        let mut after = self.model.clone();
        after.tables.insert(name, Arc::new(altered));
        self.commit(result, &vec![], after);
    }

    fn change_view(&mut self) {
        let (name, mut after) = (format!("view_{}", self.some_name()), self.model.clone());
        if self.chance(0.7) {
            let text = format!("SELECT {}", self.number());
            self.note(format!("create view {name}"));
            let result = self.database().create_view(&name, &text, true);
            after.views.insert(name, text);
            self.commit(result, &vec![], after);
        } else {
            self.note(format!("drop view {name}"));
            let result = self.database().drop_view(&name, true);
            after.views.remove(&name);
            self.commit(result, &vec![], after);
        }
    }

    /// A transaction of its own with a few inserts; without faults, this must work.
    pub fn insert_somewhere(&mut self) {
        self.begin_with("begin for one insert");
        let last = self.transactions.len() - 1;
        for _ in 0..self.rng.random_range(1..3) {
            self.insert(last);
        }
        if self.chance(0.3) {
            self.delete(last);
        }
        self.commit_at(last);
    }

    fn begin(&mut self) {
        if self.transactions.len() < 4 {
            self.begin_with("begin");
        }
    }

    fn begin_with(&mut self, what: &str) {
        let transaction = self.database().begin();
        let view = self.model.clone();
        self.note(format!("{what} ({})", self.transactions.len()));
        let (truncated, deleted, inserted) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
        self.transactions.push(OpenTransaction { transaction, view, truncated, deleted, inserted });
    }

    fn some_transaction(&mut self) -> Option<usize> {
        let count = self.transactions.len();
        (count > 0).then(|| self.rng.random_range(0..count))
    }

    fn change_in_transaction(&mut self) {
        let Some(at) = self.some_transaction() else { return self.begin() };
        match self.rng.random_range(0..40) {
            0..20 => self.insert(at),
            20..31 => self.delete(at),
            31..35 => self.replace(at),
            35 => self.truncate_in(at),
            _ => self.verify_transaction(at),
        }
    }

    fn insert(&mut self, at: usize) {
        let view = self.transactions[at].view.clone();
        let Some((name, table)) = self.some_table(&view) else { return };
        if table.rows.len() < MOST_ROWS {
            let rows = if self.chance(0.3) { self.rival_rows(at, &table) } else { self.new_rows(&table, 40) };
            self.insert_rows(at, &name, &table, &rows);
        }
    }

    /// Rows with the keys of some that another transaction added, if one did.
    fn rival_rows(&mut self, at: usize, table: &ModelTable) -> Vec<Row> {
        let others = self.transactions.iter().enumerate().filter(|(other, _)| *other != at);
        let theirs = others.filter_map(|(_, open)| open.inserted.get(&table.uid)).flat_map(Rows::values);
        let theirs: Vec<Row> = theirs.take(1).cloned().collect();
        let (serial, more) = (self.number(), random_values(&mut self.rng, table));
        let rows: Vec<Row> = theirs.into_iter().map(|row| Row { serial, more: more.clone(), ..row }).collect();
        if rows.is_empty() { self.new_rows(table, 40) } else { rows }
    }

    fn insert_rows(&mut self, at: usize, name: &str, table: &ModelTable, rows: &[Row]) {
        self.note(format!("insert {} rows into {name} ({at})", rows.len()));
        let names = RowNames::default();
        let result = self.transactions[at].transaction.insert(name, &batch(table, rows.iter()), names);
        let duplicate = clash(table.kind, table.rows.values().chain(rows));
        if self.statement(result, &duplicate.then_some("DuplicateKey").into_iter().collect()) {
            let of = rows.iter().map(|row| (row.serial, row.clone()));
            let open = &mut self.transactions[at];
            open.view.by_uid_mut(table.uid).expect("seen").rows.extend(of.clone());
            open.inserted.entry(table.uid).or_default().extend(of);
        }
    }

    /// The table, and some of its rows with their addresses.
    fn picked(&mut self, at: usize, most: usize) -> Option<Picked> {
        let view = self.transactions[at].view.clone();
        let (name, table) = self.some_table(&view)?;
        let found = self.transactions[at].transaction.table(&name).expect("seen");
        let found = self.read(read(&found))?;
        assert_eq!(found.len(), table.rows.len(), "rows of '{name}' in transaction {at}");
        let share = [0.02, 0.1, 0.5, 1.0][self.rng.random_range(0..4)];
        let picked: Vec<_> = found.into_iter().filter(|_| self.rng.random_bool(share)).take(most).collect();
        assert!(picked.iter().all(|(_, row)| table.rows.get(&row.serial) == Some(row)), "rows of '{name}'");
        Some((name, table, picked))
    }

    fn delete(&mut self, at: usize) {
        // A delete of no rows would count as a change.
        let most = if self.chance(0.2) { usize::MAX } else { 10 };
        if let Some((name, table, rows)) = self.picked(at, most)
            && !rows.is_empty()
        {
            self.delete_rows(at, &name, &table, &rows);
        }
    }

    fn delete_rows(&mut self, at: usize, name: &str, table: &ModelTable, rows: &[(u64, Row)]) -> bool {
        self.note(format!("delete {} rows of {} from {name} ({at})", rows.len(), table.rows.len()));
        let addresses: Vec<u64> = rows.iter().map(|(address, _)| *address).collect();
        let result = self.transactions[at].transaction.delete(name, &addresses);
        if !self.statement(result, &vec![]) {
            return false;
        }
        let open = &mut self.transactions[at];
        let view = open.view.by_uid_mut(table.uid).expect("seen");
        for (_, row) in rows {
            view.rows.remove(&row.serial);
            if open.inserted.get_mut(&table.uid).and_then(|rows| rows.remove(&row.serial)).is_none() {
                open.deleted.entry(table.uid).or_default().insert(row.serial);
            }
        }
        true
    }

    fn truncate_in(&mut self, at: usize) {
        let view = self.transactions[at].view.clone();
        let Some((name, table)) = self.some_table(&view) else { return };
        self.note(format!("truncate {name} ({at})"));
        let open = &mut self.transactions[at];
        let result = open.transaction.truncate(&name);
        open.view.by_uid_mut(table.uid).expect("seen").rows.clear();
        open.truncated.insert(table.uid);
        open.deleted.remove(&table.uid);
        open.inserted.remove(&table.uid);
        self.statement(result, &vec![]);
    }

    /// Deletes rows and adds others with the same keys.
    fn replace(&mut self, at: usize) {
        let Some((name, table, rows)) = self.picked(at, 5) else { return };
        if rows.is_empty() || !self.delete_rows(at, &name, &table, &rows) {
            return;
        }
        let new: Vec<Row> = rows.into_iter().map(|(_, row)| Row { serial: self.number(), ..row }).collect();
        let table = Arc::clone(self.transactions[at].view.by_uid(table.uid).expect("seen"));
        self.insert_rows(at, &name, &table, &new);
    }

    fn verify_transaction(&mut self, at: usize) {
        let tables = self.transactions[at].view.tables.clone();
        for (name, expected) in tables {
            let table = self.transactions[at].transaction.table(&name).expect("seen");
            self.verify_table(&table, &expected, "in a transaction");
        }
    }

    fn commit_transaction(&mut self) {
        if let Some(at) = self.some_transaction() {
            self.commit_at(at);
        }
    }

    fn commit_at(&mut self, at: usize) {
        let open = self.transactions.remove(at);
        self.note(format!("commit ({at})"));
        let (after, expected) = open.apply(&self.model);
        // Who prepares knows what came of it only without faults.
        if !self.has_faults() && self.chance(0.3) {
            return self.commit_in_two(open.transaction, &expected, after);
        }
        let result = open.transaction.commit();
        self.commit(result, &expected, after);
    }

    /// Prepares, now and then loses the process, and then commits or gives up.
    fn commit_in_two(&mut self, transaction: Transaction, expected: &Expected, after: State) {
        let number = self.number() as u64;
        self.note(format!("  prepare {number}"));
        let prepared = transaction.prepare(number, 0).map(drop);
        let before = self.model.clone();
        if !self.commit(prepared, expected, before) {
            return;
        }
        self.in_two = true;
        match self.rng.random_range(0..4) {
            0 => self.crash(true),
            1 => self.reopen(),
            2 => self.verify(),
            _ => {}
        }
        self.in_two = false;
        let commit = self.chance(0.7);
        self.note(format!("  resolve {number} ({commit})"));
        // One that changed nothing is not there.
        let after = if commit && !self.database().in_doubt().is_empty() { after } else { self.model.clone() };
        let resolved = self.database().resolve(number, commit.then_some(1));
        self.commit(resolved, &vec![], after);
    }

    fn drop_transaction(&mut self) {
        if let Some(at) = self.some_transaction() {
            self.note(format!("roll back ({at})"));
            self.transactions.remove(at);
        }
    }

    fn start_load(&mut self) {
        if self.loads.len() >= 3 {
            return;
        }
        if self.chance(0.3) {
            let (name, table) = (self.some_name(), self.new_table());
            self.note(format!("load new table {name} of kind {}", table.kind));
            let expected = self.model.tables.contains_key(&name).then_some("AlreadyExists").into_iter().collect();
            let result = self.database().create_table_writer(definition(table.kind, &name));
            match result {
                Ok(writer) => self.loads.push(Load { writer, name, table, creates: true }),
                refused => drop(self.statement(refused, &expected)),
            }
            return;
        }
        let model = self.model.clone();
        let Some((name, table)) = self.some_table(&model) else { return };
        if table.rows.len() < MOST_ROWS {
            self.note(format!("load table {name}"));
            let writer = self.database().writer(&name).expect("there");
            let table = ModelTable { rows: Rows::new(), ..ModelTable::clone(&table) };
            self.loads.push(Load { writer, name, table, creates: false });
        }
    }

    fn push_load(&mut self) {
        let Some(mut load) = self.loads.pop() else { return self.start_load() };
        let rows = self.new_rows(&load.table, 150);
        self.note(format!("push {} rows to {}", rows.len(), load.name));
        let result = load.writer.push(&batch(&load.table, rows.iter()));
        if self.read(result).is_some() {
            load.table.rows.extend(rows.into_iter().map(|row| (row.serial, row)));
            self.loads.insert(0, load);
        }
    }

    fn finish_load(&mut self) {
        let Some(Load { writer, name, table, creates }) = self.loads.pop() else { return };
        self.note(format!("finish the load of {name}"));
        let (mut after, mut expected) = (self.model.clone(), Expected::new());
        if creates {
            if after.tables.insert(name, Arc::new(table.clone())).is_some() {
                expected.push("AlreadyExists");
            }
        } else if let Some(now) = after.by_uid_mut(table.uid) {
            if now.kind == REFERENCE && now.version != table.version {
                expected.push("Altered");
            }
            let rows: Rows = table.rows.iter().map(|(serial, row)| (*serial, now.altered(row, &table))).collect();
            now.rows.extend(rows);
        } else {
            expected.push("NoSuchTable");
        }
        let whole = after.by_uid(table.uid).map_or(&table.rows, |now| &now.rows);
        if clash(table.kind, whole.values()) {
            expected.push("DuplicateKey");
        }
        let gone = expected.contains(&"NoSuchTable");
        let result = writer.finish();
        // The table that is gone had rows that may have had these keys.
        if gone && matches!(result, Err(stoa_columnstore::Error::DuplicateKey(_))) {
            return;
        }
        self.commit(result, &expected, after);
    }

    fn flush(&mut self) {
        let name = self.some_name();
        self.note(format!("flush {name}"));
        let expected = (!self.model.tables.contains_key(&name)).then_some("NoSuchTable").into_iter().collect();
        let result = self.database().flush_table(&name);
        self.statement(result, &expected);
    }

    fn optimize(&mut self) {
        let (name, full) = (self.some_name(), self.chance(0.5));
        self.note(format!("optimize {name} (full: {full})"));
        let expected = (!self.model.tables.contains_key(&name)).then_some("NoSuchTable").into_iter().collect();
        let result = self.database().optimize_table(&name, full);
        self.statement(result, &expected);
    }
}
