//! From a parsed query to a plan: names and types by the front end, its logical rewrites, then [`crate::convert`].

mod average;
mod change;
mod common_columns;
mod constant;
mod domains;
mod floats;
mod fold;
mod in_lists;
mod insert;
mod lift;
mod markers;
mod named;
mod names;
mod not_in;
mod output;
mod provider;
mod rewrite;
mod rules;
mod set_operations;
mod single_rows;
mod subqueries;
mod tuples;
mod typing;
mod unfolded;
mod using;

use datafusion_common::DataFusionError;
use datafusion_expr::{DmlStatement, LogicalPlan};
use datafusion_sql::planner::{NullOrdering, ParserOptions, SqlToRel};
use datafusion_sql::sqlparser::ast::Statement as Ast;
use stoa_plan::Query;

use crate::token::{self, on_deep_stack};
use crate::{Catalog, Insert, QueryText, SqlError};
pub(crate) use change::ROW_COLUMN;
pub use change::{DUPLICATES, bind_delete, bind_duplicate_update, bind_update};
pub(crate) use constant::constant;
pub(crate) use in_lists::OPAQUE;
pub(crate) use markers::DIFFERENCE;
pub(crate) use output::display_name;
use provider::Provider;
pub(crate) use provider::Table;
pub(crate) use set_operations::Repeat;

/// Binds a query: its columns and tables are found in `catalog`, everything is typed, subqueries are decorrelated and the result
/// is a plan in the order in which the query was written (the optimizer of `stoa-plan` orders the joins).
///
/// # Errors
/// What is wrong with the query, with the place where it is known.
pub fn bind_query(query: &QueryText, catalog: &dyn Catalog) -> Result<Query, SqlError> {
    Ok(bind_query_once(query, catalog)?.0)
}

/// As [`bind_query`], and whether the plan stays right as long as the catalog is the same: no function in it depends on the moment at
/// which the query is run.
///
/// # Errors
/// As [`bind_query`].
pub fn bind_query_once(query: &QueryText, catalog: &dyn Catalog) -> Result<(Query, bool), SqlError> {
    on_deep_stack(|| {
        let tokens = names::resolve_case(query.tokens(), catalog);
        let ast = Ast::Query(Box::new(token::parse_query(&tokens)?));
        bind(ast, query, catalog)
    })
}

/// Binds the source of an INSERT: the plan yields exactly the columns of the table, in their order and types; columns that the
/// statement does not name are NULL. What becomes of rows whose key is there already is no part of it.
///
/// # Errors
/// What is wrong with the statement, with the place where it is known.
pub fn bind_insert(insert: &Insert, catalog: &dyn Catalog) -> Result<Query, SqlError> {
    on_deep_stack(|| {
        let tokens = names::resolve_case(insert.source.tokens(), catalog);
        let mut ast = token::parse_statement(&tokens)?;
        insert::only_rows(&mut ast);
        let (plan, provider) = planned(ast, &insert.source, catalog)?;
        unfolded::finish_rows(plan, &insert.source, &provider)
    })
}

fn bind(ast: Ast, text: &QueryText, catalog: &dyn Catalog) -> Result<(Query, bool), SqlError> {
    let (plan, provider) = planned(ast, text, catalog)?;
    Ok((finish(plan, text, &provider)?, provider.timeless()))
}

/// The front end's plan of a statement, and what it was made of.
fn planned<'a>(mut ast: Ast, text: &QueryText, catalog: &'a dyn Catalog) -> Result<(LogicalPlan, Provider<'a>), SqlError> {
    rewrite::statement(&mut ast, catalog)?;
    if let Ast::Query(query) = &mut ast {
        output::name_result(query);
    }
    let provider = Provider::new(catalog);
    let plan = logical_plan(ast, &provider).map_err(|error| names::locate(&error, text))?;
    Ok((plan, provider))
}

/// The plan of what the front end has planned.
fn finish(plan: LogicalPlan, text: &QueryText, provider: &Provider<'_>) -> Result<Query, SqlError> {
    let names: Vec<String> = plan.schema().fields().iter().map(|f| output::display_name(f.name())).collect();
    let plan = rules::rewrite(plan, provider).map_err(|error| names::locate(&error, text))?;
    crate::convert::query(&plan, &names).map_err(|error| names::locate_own(error, text))
}

/// The front end's plan of a statement, before any rewrite.
fn logical_plan(ast: Ast, provider: &Provider<'_>) -> Result<LogicalPlan, DataFusionError> {
    if let Some((insert, query)) = insert::query_of(&ast) {
        return insert::plan(insert, query, provider);
    }
    if matches!(ast, Ast::Insert(_)) {
        // The front end looks it up before all that the rows are made of.
        provider.fill_next();
    }
    let planner = SqlToRel::new_with_options(provider, parser_options());
    match planner.sql_statement_to_plan(ast)? {
        LogicalPlan::Dml(DmlStatement { input, .. }) => Ok(std::sync::Arc::unwrap_or_clone(input)),
        plan => Ok(plan),
    }
}

fn parser_options() -> ParserOptions {
    ParserOptions::new()
        .with_parse_float_as_decimal(true)
        .with_collect_spans(true)
        .with_default_null_ordering(NullOrdering::NullsMax)
}
