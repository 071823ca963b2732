//! Expressions that keep their names when they are rewritten: the nodes above them know them by those.

use datafusion_common::Result;
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_expr::Expr;

/// Rewrites an expression from its leaves up. What it has become has the name that it had.
pub(super) fn rewrite_named(expr: Expr, each: impl FnMut(Expr) -> Result<Transformed<Expr>>) -> Result<Transformed<Expr>> {
    let name = expr.schema_name().to_string();
    let done = expr.transform_up(each)?;
    if !done.transformed {
        return Ok(done);
    }
    done.map_data(|e| Ok(if e.schema_name().to_string() == name { e } else { e.alias(name) }))
}
