//! INSERT with a query: the query is planned on its own, then its columns are cast to the table's.
//!
//! The front end would take every VALUES in the query for rows of the table.

use arrow_schema::DataType as Arrow;
use datafusion_common::{Column, DFSchema, DataFusionError, Result, ScalarValue};
use datafusion_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, cast};
use datafusion_sql::planner::SqlToRel;
use datafusion_sql::sqlparser::ast::{Insert, ObjectName, Query, SetExpr, Statement, TableObject};

use super::{output, parser_options, provider::Provider};
use crate::SqlError;
use crate::token::folded;

/// The query of an INSERT, unless that is nothing but VALUES.
pub(super) fn query_of(ast: &Statement) -> Option<(&Insert, &Query)> {
    let Statement::Insert(insert) = ast else { return None };
    let source = insert.source.as_deref()?;
    (!matches!(&*source.body, SetExpr::Values(_))).then_some((insert, source))
}

/// The plan that yields the table's columns.
pub(super) fn plan(insert: &Insert, query: &Query, provider: &Provider<'_>) -> Result<LogicalPlan> {
    let TableObject::TableName(name) = &insert.table else {
        return Err(SqlError::new("INSERT into a table function is not supported").into());
    };
    let table = provider.source(&last_part(name)?)?;
    let schema = table.schema();
    let mut query = query.clone();
    output::name_result(&mut query);
    let planner = SqlToRel::new_with_options(provider, parser_options());
    let source = planner.sql_statement_to_plan(Statement::Query(Box::new(query)))?;
    let names = insert.columns.iter().map(last_part).collect::<Result<Vec<_>>>()?;
    let given = if names.is_empty() { schema.fields().len() } else { names.len() };
    let found = source.schema().fields().len();
    if given != found {
        return Err(SqlError::new(format!("INSERT names {given} columns, its query yields {found}")).into());
    }
    let mut from: Vec<Option<usize>> = (0..schema.fields().len()).map(|i| names.is_empty().then_some(i)).collect();
    for (at, name) in names.iter().enumerate() {
        let Some((column, _)) = schema.column_with_name(name) else {
            return Err(SqlError::new(format!("there is no column '{name}'")).into());
        };
        if from[column].replace(at).is_some() {
            return Err(SqlError::new(format!("INSERT names column '{name}' twice")).into());
        }
    }
    let empty = DFSchema::empty();
    let exprs = schema.fields().iter().zip(from).map(|(field, from)| {
        let value = match from {
            Some(at) => cast_column(&source, at, field.data_type())?,
            None => {
                let default = table.get_column_default(field.name()).cloned();
                default.unwrap_or(Expr::Literal(ScalarValue::Null, None)).cast_to(field.data_type(), &empty)?
            }
        };
        Ok(value.alias(field.name()))
    });
    let exprs = exprs.collect::<Result<Vec<Expr>>>()?;
    LogicalPlanBuilder::from(source).project(exprs)?.build()
}

/// A column of a plan as a value of a table's column; cast even where the types agree: the plan's may still widen.
pub(super) fn cast_column(plan: &LogicalPlan, at: usize, ty: &Arrow) -> Result<Expr> {
    let column = Expr::Column(Column::from(plan.schema().qualified_field(at)));
    Ok(cast(column.cast_to(ty, plan.schema())?, ty.clone()))
}

/// Takes off what says what becomes of rows whose key is there already.
pub(super) fn only_rows(ast: &mut Statement) {
    if let Statement::Insert(insert) = ast {
        insert.on = None;
        insert.replace_into = false;
    }
}

/// The name as the catalog has it.
fn last_part(name: &ObjectName) -> Result<String, DataFusionError> {
    let ident = match &name.0[..] {
        [part] => part.as_ident(),
        _ => None,
    };
    Ok(folded(ident.ok_or_else(|| SqlError::new(format!("'{name}' is no plain name")))?))
}
