//! From the front end's logical plan to the plan that runs: rules in a fixed order.
//!
//! What it keeps true: the rows of a query never change, only how they are found. In debug builds the plan is checked after every rule.

mod eager;
mod estimate;
mod order;
mod predicates;
mod prune;
mod pushdown;
mod region;
mod renames;
mod runtime_filters;
mod selectivity;

use crate::{Query, StatisticsSource, SubplanKind};
use estimate::Estimator;

/// What the optimizer refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptimizeError {
    /// The plan is not one that the front end may emit; the text says why.
    #[error("invalid plan: {0}")]
    Invalid(String),
}

/// The optimizer's result.
pub type Result<T> = std::result::Result<T, OptimizeError>;

/// Optimizes a query with the statistics of its tables, for tables that are on so many leaves: between several rows move at a price.
///
/// # Errors
/// [`OptimizeError::Invalid`] if the plan is malformed.
pub fn optimize(mut query: Query, statistics: &dyn StatisticsSource, leaves: usize) -> Result<Query> {
    after("the front end", &mut query)?;
    renames::run(&mut query);
    after("renames", &mut query)?;
    fold(&mut query);
    let mut estimator = Estimator::new(statistics, leaves);
    eager::run(&mut query, &estimator);
    after("eager aggregation", &mut query)?;
    reorder(&mut query, &mut estimator);
    after("join order", &mut query)?;
    prune::run(&mut query);
    after("column pruning", &mut query)?;
    estimator.annotate(&mut query);
    runtime_filters::run(&mut query, &estimator);
    after("run-time filters", &mut query)?;
    query.number();
    Ok(query)
}

fn fold(query: &mut Query) {
    for plan in query.plans_mut() {
        plan.walk_mut(&mut |node| node.expressions_mut().into_iter().for_each(predicates::fold));
    }
}

/// Predicates to the scans, joins by cost; subplans first, for the plans that read them.
fn reorder(query: &mut Query, estimator: &mut Estimator<'_>) {
    for at in 0..query.subplans.len() {
        let plan = query.subplans[at].plan.take();
        let plan = pushdown::Rewriter { estimator }.rewrite(plan, vec![], &[]);
        if let SubplanKind::Shared(number) = query.subplans[at].kind {
            let estimate = estimator.plan(&plan);
            estimator.remember(number, estimate);
        }
        query.subplans[at].plan = plan;
    }
    let root = query.root.take();
    query.root = pushdown::Rewriter { estimator }.rewrite(root, vec![], &[]);
}

/// In debug builds, that a rule left a proper plan.
fn after(rule: &str, query: &mut Query) -> Result<()> {
    if cfg!(debug_assertions) {
        query.number();
        crate::validate::validate(query).map_err(|e| OptimizeError::Invalid(format!("after {rule}: {e}")))?;
    }
    Ok(())
}
