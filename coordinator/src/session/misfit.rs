//! Rows of a query that are to be a table's: where a value does not fit its column, the error names column and row.
//!
//! The query casts its columns to the table's types, and fails with the first value that cannot be. It is run once more then, with NULL
//! instead of such values and their texts beside them: the first row that has one without the other is the one at fault.

use arrow::array::{Array, ArrayRef, AsArray};
use stoa_columnstore::TableDef;
use stoa_exec::QueryResult;
use stoa_plan::{ColumnId, DataType, Expr, Field, Node, Plan, Query};
use stoa_rpc::FailureKind;

use super::Session;
use crate::{Error, Result};

/// A query whose last columns are those of a table.
pub(super) struct RowsOf {
    bound: Query,
    plan: Query,
}

impl RowsOf {
    /// Plans the query of a statement that changes a table.
    pub fn plan(session: &Session, bound: Query) -> Result<RowsOf> {
        let plan = session.physical(bound.clone())?;
        Ok(RowsOf { bound, plan })
    }

    /// Runs it; `run` executes a plan.
    pub fn run(&self, session: &Session, def: &TableDef, run: &dyn Fn(&Query) -> Result<QueryResult>) -> Result<QueryResult> {
        run(&self.plan).map_err(|error| {
            let named = if is_users(&error) { self.misfit(session, def, run) } else { None };
            named.map_or(error, Error::Invalid)
        })
    }

    /// What to say of the first value that does not fit; `None` if that is not what is wrong.
    fn misfit(&self, session: &Session, def: &TableDef, run: &dyn Fn(&Query) -> Result<QueryResult>) -> Option<String> {
        let mut query = self.bound.clone();
        let first = query.output.len().checked_sub(def.columns.len())?;
        let wanted: Vec<ColumnId> = query.output[first..].iter().map(|field| field.id).collect();
        let mut next = query.next_column();
        let texts = loosen(&mut query.root, &wanted, &mut next)?;
        query.output.extend(texts.iter().flatten().cloned());
        let result = run(&session.physical(query).ok()?).ok()?;
        let mut before = 0;
        for batch in &result.batches {
            let mut found: Option<(usize, usize, ArrayRef)> = None;
            let cast = texts.iter().enumerate().filter(|(_, text)| text.is_some());
            for ((at, _), text) in cast.zip(first + def.columns.len()..) {
                let (value, said) = (batch.column(first + at), batch.column(text));
                let row = (0..batch.num_rows()).find(|row| value.is_null(*row) && said.is_valid(*row));
                if let Some(row) = row.filter(|row| found.as_ref().is_none_or(|(first, ..)| row < first)) {
                    found = Some((row, at, said.clone()));
                }
            }
            if let Some((row, at, said)) = found {
                let (column, said) = (&def.columns[at], said.as_string_view_opt()?.value(row).to_owned());
                let place = format!("table '{}', column '{}', row {}", def.name, column.name, before + row + 1);
                return Some(format!("{place}: '{said}' does not fit {}", column.sql_type));
            }
            before += batch.num_rows();
        }
        None
    }
}

/// The statement or its values are at fault.
fn is_users(error: &Error) -> bool {
    match error {
        Error::Exec(error) => error.severity() == stoa_exec::error::Severity::User,
        Error::Node(failure) => failure.kind == FailureKind::User,
        _ => false,
    }
}

/// Makes NULLs of what does not fit, in the columns that are wanted; for each of them that is cast, the column with the texts of its
/// values. `None` if there is none.
fn loosen(plan: &mut Plan, wanted: &[ColumnId], next: &mut ColumnId) -> Option<Vec<Option<Field>>> {
    let mut fresh = |name: &str| {
        let id = *next;
        next.0 += 1;
        Field { id, name: format!("{name} as text"), ty: DataType::Utf8, nullable: true }
    };
    match &mut plan.node {
        Node::Project { input, exprs } => {
            let from = |id: &ColumnId| exprs.iter().position(|(field, _)| field.id == *id);
            let from: Vec<Option<usize>> = wanted.iter().map(from).collect();
            let mut texts = vec![None; wanted.len()];
            for (text, at) in texts.iter_mut().zip(&from) {
                let Some((field, expr)) = at.and_then(|at| exprs.get_mut(at)) else { continue };
                let Some(said) = loosened(expr) else { continue };
                field.nullable = true;
                let added = fresh(&field.name);
                exprs.push((added.clone(), said));
                *text = Some(added);
            }
            // Columns of literal rows are cast where the rows are.
            let below = |at: &Option<usize>| match at.map(|at| &exprs[at].1) {
                Some(Expr::Column(id, _)) => *id,
                _ => ColumnId(u32::MAX),
            };
            let below: Vec<ColumnId> = from.iter().map(below).collect();
            for (text, added) in texts.iter_mut().zip(loosen(input, &below, next).unwrap_or_default()) {
                if let Some(added) = added {
                    exprs.push((added.clone(), Expr::Column(added.id, added.ty)));
                    *text = text.take().or(Some(added));
                }
            }
            texts.iter().any(Option::is_some).then_some(texts)
        }
        Node::Values(values) => {
            let mut texts = vec![None; wanted.len()];
            for (text, id) in texts.iter_mut().zip(wanted) {
                let Some(at) = values.fields.iter().position(|field| field.id == *id) else { continue };
                values.fields[at].nullable = true;
                let added = fresh(&values.fields[at].name);
                for row in &mut values.rows {
                    let said = row.get_mut(at).map(|expr| loosened(expr).unwrap_or_else(|| as_text(expr.clone())))?;
                    row.push(said);
                }
                values.fields.push(added.clone());
                *text = Some(added);
            }
            texts.iter().any(Option::is_some).then_some(texts)
        }
        _ => None,
    }
}

/// Makes a cast give NULL where it would fail; the text of what is cast. `None` if it is no such cast.
fn loosened(expr: &mut Expr) -> Option<Expr> {
    let Expr::Cast { input, safe: safe @ false, ty } = expr else { return None };
    *safe = true;
    // The front end may cast twice.
    let inner = matches!(&**input, Expr::Cast { ty: inner, .. } if inner == ty);
    let said = if inner { loosened(input) } else { None };
    Some(said.unwrap_or_else(|| as_text(Expr::clone(input))))
}

fn as_text(expr: Expr) -> Expr {
    if expr.data_type() == DataType::Utf8 {
        return expr;
    }
    Expr::Cast { input: Box::new(expr), ty: DataType::Utf8, safe: true }
}
