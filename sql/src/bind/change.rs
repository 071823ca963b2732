//! UPDATE, DELETE and ON DUPLICATE KEY UPDATE: each is bound as a SELECT from the table that it changes.
//!
//! That table is offered under a name of its own, with one more column, `$row`: the address of the row. Its other uses in the same
//! statement, in subqueries, are those of the catalog and do not have the column. All expressions of SET read the row as it was.

use std::ops::ControlFlow;

use datafusion_common::{Column, Result as PlanResult};
use datafusion_expr::{Expr as PlanExpr, LogicalPlan, LogicalPlanBuilder};
use datafusion_sql::sqlparser::ast::{
    Assignment, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, OnInsert, Query as Select,
    SelectItem, SetExpr, Spanned, Statement as Ast, TableFactor, TableObject, Visit, VisitMut, Visitor, VisitorMut,
};
use stoa_plan::{DataType, Query};

use super::provider::Provider;
use super::rewrite::{self, reject};
use super::unfolded::finish_rows;
use super::{finish, insert, logical_plan, names};
use crate::error::nearest;
use crate::parse::change::{assigned_columns, deleted_from, one_table};
use crate::token::{self, folded, on_deep_stack};
use crate::{Catalog, Delete, Insert, QueryText, SqlError, TableColumn, TableInfo, Update, types};

/// The column that holds the address of a row.
pub(crate) const ROW_COLUMN: &str = "$row";

/// The table that the plan of [`bind_duplicate_update`] scans.
pub const DUPLICATES: &str = "$duplicates";

/// What the changed table is called inside; no text names it by accident.
const TARGET: &str = "\u{1}target";

/// Begins the names of the columns of a row that was to be inserted.
const NEW_PREFIX: &str = "values$";

/// Binds an UPDATE: the plan yields the address of each row that changes, as `$row`, and then every column of the table in its
/// order and type, as it is to be.
///
/// # Errors
/// What is wrong with the statement, with the place where it is known.
pub fn bind_update(update: &Update, catalog: &dyn Catalog) -> Result<Query, SqlError> {
    on_deep_stack(|| {
        let Ast::Update(ast) = statement(&update.source, catalog)? else { return Err(SqlError::new("expected UPDATE")) };
        let target = one_table("UPDATE", &ast.table)?;
        let alias = target.qualifier().cloned().unwrap_or_else(|| quoted(&update.table));
        let info = changed_table(&update.table, &update.source, catalog)?;
        catalog.may_read(&update.table)?;
        let provider = Provider::with_table(catalog, TARGET, with_address(&info), true);
        let change = Change { info: &info, alias: &alias, text: &update.source, provider: &provider };
        change.new_rows(TARGET, &ast.assignments, ast.selection)
    })
}

/// Binds a DELETE: the plan yields the address of each row that goes, as `$row`.
///
/// # Errors
/// What is wrong with the statement, with the place where it is known.
pub fn bind_delete(delete: &Delete, catalog: &dyn Catalog) -> Result<Query, SqlError> {
    on_deep_stack(|| {
        let Ast::Delete(ast) = statement(&delete.source, catalog)? else { return Err(SqlError::new("expected DELETE")) };
        let target = one_table("DELETE", deleted_from(&ast.from)?)?;
        let alias = target.qualifier().cloned().unwrap_or_else(|| quoted(&delete.table));
        let info = changed_table(&delete.table, &delete.source, catalog)?;
        if ast.selection.is_some() {
            catalog.may_read(&delete.table)?;
        }
        let provider = Provider::with_table(catalog, TARGET, with_address(&info), true);
        let change = Change { info: &info, alias: &alias, text: &delete.source, provider: &provider };
        let plan = change.plan(TARGET, vec![column_item(&alias, ROW_COLUMN)], ast.selection)?;
        finish(plan, &delete.source, &provider)
    })
}

/// Binds what `ON DUPLICATE KEY UPDATE` does: the plan scans a table named [`DUPLICATES`], whose columns are `$row`, then those of
/// the row that is there, then, as `values$...`, those of the row that was to be inserted. It yields what [`bind_update`] does.
///
/// # Errors
/// What is wrong with the statement, with the place where it is known.
pub fn bind_duplicate_update(insert: &Insert, catalog: &dyn Catalog) -> Result<Query, SqlError> {
    on_deep_stack(|| {
        let Ast::Insert(ast) = statement(&insert.source, catalog)? else { return Err(SqlError::new("expected INSERT")) };
        let (TableObject::TableName(name), Some(OnInsert::DuplicateKeyUpdate(mut assignments))) = (&ast.table, ast.on) else {
            return Err(SqlError::new("expected ON DUPLICATE KEY UPDATE"));
        };
        let alias = name.0.last().and_then(|part| part.as_ident()).cloned().unwrap_or_else(|| quoted(&insert.table));
        let info = changed_table(&insert.table, &insert.source, catalog)?;
        catalog.may_read(&insert.table)?;
        let mut new_values = NewValues { info: &info, alias: &alias };
        for assignment in &mut assignments {
            broken(VisitMut::visit(&mut assignment.value, &mut new_values))?;
        }
        let provider = Provider::with_table(catalog, DUPLICATES, duplicates(&info), false);
        let change = Change { info: &info, alias: &alias, text: &insert.source, provider: &provider };
        change.new_rows(DUPLICATES, &assignments, None)
    })
}

fn statement(text: &QueryText, catalog: &dyn Catalog) -> Result<Ast, SqlError> {
    token::parse_statement(&names::resolve_case(text.tokens(), catalog))
}

/// The table that a statement changes.
fn changed_table(name: &str, text: &QueryText, catalog: &dyn Catalog) -> Result<TableInfo, SqlError> {
    if let Some(info) = catalog.table(name) {
        return Ok(info);
    }
    let error = match catalog.view(name) {
        Some(_) => SqlError::new(format!("'{name}' is a view: it has no rows of its own to change")),
        None => SqlError::from_front_end(&Provider::new(catalog).missing(name)),
    };
    Err(names::locate_own(error, text))
}

fn address() -> TableColumn {
    TableColumn { name: ROW_COLUMN.to_owned(), ty: DataType::UInt64, nullable: false, default: None }
}

/// A table with the address of the row behind its columns.
fn with_address(info: &TableInfo) -> TableInfo {
    let mut info = info.clone();
    info.columns.push(address());
    info
}

/// The table of rows that are there, beside those that were to be inserted.
fn duplicates(info: &TableInfo) -> TableInfo {
    // Whether a new row may have its NULLs is not checked yet.
    let new = |c: &TableColumn| TableColumn { name: format!("{NEW_PREFIX}{}", c.name), ty: c.ty, nullable: true, default: None };
    let new: Vec<TableColumn> = info.columns.iter().map(new).collect();
    let columns = std::iter::once(address()).chain(info.columns.iter().cloned()).chain(new).collect();
    TableInfo { name: DUPLICATES.to_owned(), columns, shard_key: vec![], reference: false, revision: info.revision }
}

/// A statement that changes a table.
struct Change<'a> {
    info: &'a TableInfo,
    alias: &'a Ident,
    text: &'a QueryText,
    provider: &'a Provider<'a>,
}

impl Change<'_> {
    /// The address and the new columns of the rows of the table `from`.
    fn new_rows(&self, from: &str, assignments: &[Assignment], condition: Option<Expr>) -> Result<Query, SqlError> {
        let assigned = self.assigned(assignments)?;
        let mut items = vec![column_item(self.alias, ROW_COLUMN)];
        for (at, column) in self.info.columns.iter().enumerate() {
            items.push(match assigned.iter().find(|(column, _)| *column == at) {
                Some((_, value)) => SelectItem::ExprWithAlias { expr: (*value).clone(), alias: quoted(&column.name) },
                None => column_item(self.alias, &column.name),
            });
        }
        let plan = self.plan(from, items, condition)?;
        let columns: Vec<usize> = assigned.iter().map(|(column, _)| *column).collect();
        let plan = self.cast(plan, &columns).map_err(|error| names::locate(&error, self.text))?;
        finish_rows(plan, self.text, self.provider)
    }

    /// The assigned columns, as ordinals, and their values.
    fn assigned<'v>(&self, assignments: &'v [Assignment]) -> Result<Vec<(usize, &'v Expr)>, SqlError> {
        let known = quoted(&self.info.name);
        let columns = assigned_columns(assignments, &[self.alias, &known])?;
        let mut found = Vec::with_capacity(columns.len());
        for (name, assignment) in columns.into_iter().zip(assignments) {
            let column = self.info.columns.iter().position(|c| c.name == folded(name));
            let column = column.ok_or_else(|| missing_column(name, self.info))?;
            broken(Visit::visit(&assignment.value, &mut OneRow { provider: self.provider, depth: 0 }))?;
            found.push((column, &assignment.value));
        }
        Ok(found)
    }

    /// The front end's plan of a SELECT from the table `from`.
    fn plan(&self, from: &str, items: Vec<SelectItem>, condition: Option<Expr>) -> Result<LogicalPlan, SqlError> {
        let mut ast = Ast::Query(Box::new(select(items, Some((from, self.alias)), condition)?));
        rewrite::statement(&mut ast, self.provider.catalog())?;
        logical_plan(ast, self.provider).map_err(|error| names::locate(&error, self.text))
    }

    /// Casts the assigned columns to the types of the table's.
    fn cast(&self, plan: LogicalPlan, assigned: &[usize]) -> PlanResult<LogicalPlan> {
        let schema = plan.schema();
        let mut exprs = vec![PlanExpr::Column(Column::from(schema.qualified_field(0)))];
        for (at, column) in self.info.columns.iter().enumerate() {
            // The address is before them.
            exprs.push(match assigned.contains(&at) {
                true => insert::cast_column(&plan, at + 1, &types::front_end_type(column.ty))?.alias(&column.name),
                false => PlanExpr::Column(Column::from(schema.qualified_field(at + 1))),
            });
        }
        LogicalPlanBuilder::from(plan).project(exprs)?.build()
    }
}

fn missing_column(name: &Ident, info: &TableInfo) -> SqlError {
    let mut message = format!("there is no column '{}'", name.value);
    if let Some(near) = nearest(&name.value, info.columns.iter().map(|c| c.name.as_str())) {
        message.push_str(&format!("; did you mean '{near}'?"));
    }
    SqlError::at(message, name.span.start)
}

fn quoted(name: &str) -> Ident {
    Ident::with_quote('"', name)
}

fn column_item(table: &Ident, name: &str) -> SelectItem {
    let expr = Expr::CompoundIdentifier(vec![table.clone(), quoted(name)]);
    SelectItem::ExprWithAlias { expr, alias: quoted(name) }
}

fn broken(flow: ControlFlow<SqlError>) -> Result<(), SqlError> {
    match flow {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// `SELECT items [FROM table AS alias] [WHERE condition]`.
pub(super) fn select(items: Vec<SelectItem>, from: Option<(&str, &Ident)>, condition: Option<Expr>) -> Result<Select, SqlError> {
    let frame = if from.is_some() { "SELECT 1 FROM t AS a" } else { "SELECT 1" };
    let mut query = token::parse_query(&token::tokenize(frame)?)?;
    if let SetExpr::Select(select) = &mut *query.body {
        select.projection = items;
        select.selection = condition;
        let factor = select.from.first_mut().map(|table| &mut table.relation);
        if let (Some(TableFactor::Table { name, alias: Some(alias), .. }), Some(from)) = (factor, from) {
            *name = ObjectName::from(vec![quoted(from.0)]);
            alias.name = from.1.clone();
        }
    }
    Ok(query)
}

/// Refuses what makes one value of many rows, outside of subqueries.
struct OneRow<'a> {
    provider: &'a Provider<'a>,
    depth: usize,
}

impl Visitor for OneRow<'_> {
    type Break = SqlError;

    fn pre_visit_query(&mut self, _query: &Select) -> ControlFlow<SqlError> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &Select) -> ControlFlow<SqlError> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<SqlError> {
        match expr {
            Expr::Function(function) if self.depth == 0 => {
                let name = function.name.to_string().to_lowercase();
                if function.over.is_some() || name == "group_concat" || self.provider.is_aggregate(&name) {
                    return reject("an aggregate or window function outside of a subquery, in SET,", expr.span());
                }
                ControlFlow::Continue(())
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

/// `VALUES(c)` becomes the column of the row that was to be inserted.
struct NewValues<'a> {
    info: &'a TableInfo,
    alias: &'a Ident,
}

impl VisitorMut for NewValues<'_> {
    type Break = SqlError;

    fn pre_visit_query(&mut self, query: &mut Select) -> ControlFlow<SqlError> {
        reject("a subquery in ON DUPLICATE KEY UPDATE", query.span())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<SqlError> {
        let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
        if !function.name.to_string().eq_ignore_ascii_case("values") {
            return ControlFlow::Continue(());
        }
        let Some(name) = values_column(function) else {
            let message = "VALUES takes the name of a column in ON DUPLICATE KEY UPDATE";
            return ControlFlow::Break(SqlError::at(message, expr.span().start));
        };
        if !self.info.columns.iter().any(|c| c.name == folded(name)) {
            return ControlFlow::Break(missing_column(name, self.info));
        }
        let column = quoted(&format!("{NEW_PREFIX}{}", folded(name)));
        *expr = Expr::CompoundIdentifier(vec![self.alias.clone(), column]);
        ControlFlow::Continue(())
    }
}

fn values_column(function: &Function) -> Option<&Ident> {
    let FunctionArguments::List(list) = &function.args else { return None };
    match &list.args[..] {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Identifier(name)))] => Some(name),
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::CompoundIdentifier(parts)))] => parts.last(),
        _ => None,
    }
}
