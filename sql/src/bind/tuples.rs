//! Comparisons of rows, `(a, b) = (1, 2)` and `(a, b) IN ((1, 2), (3, 4))`, as comparisons of their columns.

use datafusion_sql::sqlparser::ast::{BinaryOperator, Expr, Spanned, UnaryOperator};

use super::rewrite::binary;
use crate::SqlError;

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
