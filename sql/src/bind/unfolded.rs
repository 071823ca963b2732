//! Values for the columns of a table that do not fit them. The front end folds casts of constants, and fails without a word of the column
//! and the row; a plan that keeps such casts fails where both are known.

use datafusion_common::Result;
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_expr::{Expr, LogicalPlan};
use stoa_plan::Query;

use super::in_lists::unfoldable;
use super::{Provider, finish};
use crate::{QueryText, SqlError};

/// As [`finish`] for the rows of a statement that changes a table; what only a constant makes impossible is left to its run.
pub(super) fn finish_rows(plan: LogicalPlan, text: &QueryText, provider: &Provider<'_>) -> Result<Query, SqlError> {
    finish(plan.clone(), text, provider).or_else(|error| {
        let kept = keep_casts(plan).map_err(|_| error.clone())?;
        finish(kept, text, provider).map_err(|_| error)
    })
}

fn keep_casts(plan: LogicalPlan) -> Result<LogicalPlan> {
    let each = |node: LogicalPlan| {
        let named = matches!(node, LogicalPlan::Projection(_));
        if !named && !matches!(node, LogicalPlan::Values(_)) {
            return Ok(Transformed::no(node));
        }
        node.map_expressions(|expr| {
            let name = expr.schema_name().to_string();
            let kept = expr.transform_up(keep)?;
            kept.map_data(|e| Ok(if !named || e.schema_name().to_string() == name { e } else { e.alias(&name) }))
        })
    };
    Ok(plan.transform_up(each)?.data)
}

fn keep(expr: Expr) -> Result<Transformed<Expr>> {
    let Expr::Cast(mut cast) = expr else { return Ok(Transformed::no(expr)) };
    if matches!(*cast.expr, Expr::Cast(_)) {
        return Ok(Transformed::no(Expr::Cast(cast)));
    }
    cast.expr = Box::new(unfoldable(*cast.expr));
    Ok(Transformed::yes(Expr::Cast(cast)))
}
