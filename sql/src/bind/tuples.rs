//! Comparisons of rows, `(a, b) = (1, 2)` and `(a, b) IN ((1, 2), (3, 4))`, as comparisons of their columns.
//!
//! `(a, b) IN (SELECT x, y ...)` becomes `row(a, b) IN (SELECT row(x, y) ...)` with a marker for `row`; [`super::not_in`] takes
//! both rows apart when their columns have types.

use datafusion_sql::sqlparser::ast::{
    BinaryOperator, Distinct, Expr, GroupByExpr, Query, Select, SelectItem, SetExpr, Spanned, TableFactor, UnaryOperator,
};

use super::markers::ROW;
use super::rewrite::{binary, call};
use crate::{SqlError, token};

/// Rewrites one comparison; everything else is left as it is. The truth values are those of the standard: `AND` and `OR` have them.
pub(super) fn compare_columns(expr: &mut Expr) -> Result<(), SqlError> {
    let (rewritten, negated) = match expr {
        Expr::BinaryOp { left, op: op @ (BinaryOperator::Eq | BinaryOperator::NotEq), right } => {
            let (Expr::Tuple(a), Expr::Tuple(b)) = (&**left, &**right) else { return Ok(()) };
            (equal(a, b, right)?, *op == BinaryOperator::NotEq)
        }
        Expr::InList { expr: row, list, negated } => {
            let Expr::Tuple(a) = &**row else { return Ok(()) };
            let equal = |item: &Expr| match item {
                Expr::Tuple(b) => equal(a, b, item),
                other => Err(SqlError::at(format!("{other} is no row of {} values", a.len()), other.span().start)),
            };
            let any = list.iter().map(equal).collect::<Result<Vec<_>, _>>()?;
            let Some(any) = balanced(any, &BinaryOperator::Or) else { return Ok(()) };
            (any, *negated)
        }
        Expr::InSubquery { expr: row, subquery, .. } => {
            if let Expr::Tuple(columns) = &**row {
                **subquery = query_of_rows(subquery, columns.len())?;
                **row = call(ROW, columns.clone());
            }
            return Ok(());
        }
        _ => return Ok(()),
    };
    *expr = if negated { Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(rewritten) } } else { rewritten };
    Ok(())
}

fn equal(a: &[Expr], b: &[Expr], place: &Expr) -> Result<Expr, SqlError> {
    if a.len() != b.len() {
        return Err(SqlError::at(format!("a row of {} values is compared with one of {}", a.len(), b.len()), place.span().start));
    }
    let columns = a.iter().zip(b).map(|(a, b)| binary(Box::new(a.clone()), BinaryOperator::Eq, Box::new(b.clone())));
    balanced(columns.collect(), &BinaryOperator::And).ok_or_else(|| SqlError::at("an empty row", place.span().start))
}

/// The operands under one operator, as a tree that is not deeper than it must be.
fn balanced(mut operands: Vec<Expr>, op: &BinaryOperator) -> Option<Expr> {
    if operands.len() < 2 {
        return operands.pop();
    }
    let right = operands.split_off(operands.len() / 2);
    Some(binary(Box::new(balanced(operands, op)?), op.clone(), Box::new(balanced(right, op)?)))
}

/// The query with one row marker in the place of its `width` columns.
fn query_of_rows(query: &Query, width: usize) -> Result<Query, SqlError> {
    if let SetExpr::Select(select) = &*query.body
        && query.order_by.is_none()
        && query.limit_clause.is_none()
        && query.fetch.is_none()
        && let Some(columns) = plain_columns(select)
    {
        if columns.len() != width {
            let message = format!("a row of {width} values is compared with one of {}", columns.len());
            return Err(SqlError::at(message, query.span().start));
        }
        let mut select = select.clone();
        select.projection = vec![SelectItem::UnnamedExpr(call(ROW, columns))];
        return Ok(Query { body: Box::new(SetExpr::Select(select)), ..query.clone() });
    }
    let names = (0..width).map(|i| format!("c{i}")).collect::<Vec<_>>().join(", ");
    let mut outer =
        token::parse_query(&token::tokenize(&format!("SELECT \"{ROW}\"({names}) FROM (SELECT 1) AS rows({names})"))?)?;
    if let SetExpr::Select(select) = &mut *outer.body
        && let Some(TableFactor::Derived { subquery, .. }) = select.from.first_mut().map(|table| &mut table.relation)
    {
        **subquery = query.clone();
    }
    Ok(outer)
}

/// What a SELECT yields, if it has no wildcards and nothing else in it may mean an item by its name or position.
fn plain_columns(select: &Select) -> Option<Vec<Expr>> {
    let grouped = !matches!(&select.group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty());
    if grouped || select.having.is_some() || matches!(select.distinct, Some(Distinct::On(_))) {
        return None;
    }
    let column = |item: &SelectItem| match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr.clone()),
        _ => None,
    };
    select.projection.iter().map(column).collect()
}
