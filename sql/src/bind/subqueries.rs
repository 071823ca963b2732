//! Correlated subqueries that the front end would decorrelate into something else than they say, rejected by name.

use datafusion_common::Result;
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_expr::logical_plan::Subquery;
use datafusion_expr::{Expr, FetchType, LogicalPlan, SkipType};
use datafusion_optimizer::AnalyzerRule;

use crate::SqlError;

/// See the module.
#[derive(Debug)]
pub(crate) struct CheckSubqueries;

impl AnalyzerRule for CheckSubqueries {
    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.apply_with_subqueries(|node| {
            node.apply_expressions(|expr| {
                expr.apply(|e| {
                    match e {
                        Expr::Exists(exists) => check(&exists.subquery, "EXISTS")?,
                        Expr::InSubquery(found) => check(&found.subquery, "IN")?,
                        _ => {}
                    }
                    Ok(TreeNodeRecursion::Continue)
                })
            })
        })?;
        Ok(plan)
    }

    fn name(&self) -> &'static str {
        "check_subqueries"
    }
}

/// An aggregate without GROUP BY yields a row over no rows, which a semi join forgets; a semi join has no OFFSET.
fn check(subquery: &Subquery, what: &str) -> Result<()> {
    let correlated = !subquery.outer_ref_columns.is_empty();
    let mut node = subquery.subquery.as_ref();
    loop {
        node = match node {
            LogicalPlan::Limit(limit) => {
                let skips = !matches!(limit.get_skip_type()?, SkipType::Literal(0));
                let empty = matches!(limit.get_fetch_type()?, FetchType::Literal(Some(0)));
                if (skips || empty) && (correlated || what == "EXISTS") {
                    return Err(SqlError::unsupported(format!("OFFSET or LIMIT 0 in a subquery of {what}")).into());
                }
                &limit.input
            }
            LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.is_empty() => {
                if correlated {
                    let message = format!(
                        "{what} over a correlated subquery with an aggregate and no GROUP BY is not supported; compare with = instead"
                    );
                    return Err(SqlError::new(message).into());
                }
                return Ok(());
            }
            LogicalPlan::Projection(node) => &node.input,
            LogicalPlan::Filter(node) => &node.input,
            LogicalPlan::Sort(node) => &node.input,
            LogicalPlan::SubqueryAlias(node) => &node.input,
            LogicalPlan::Distinct(node) => node.input(),
            LogicalPlan::Window(node) => &node.input,
            _ => return Ok(()),
        };
    }
}
