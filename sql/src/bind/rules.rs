//! The front end's rewrites, chosen so that [`crate::convert`] can express what comes out.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use datafusion_common::Result;
use datafusion_common::alias::AliasGenerator;
use datafusion_common::config::ConfigOptions;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_expr::registry::{FunctionRegistry, MemoryFunctionRegistry};
use datafusion_expr::utils::split_conjunction;
use datafusion_expr::{Expr, LogicalPlan};
use datafusion_optimizer::analyzer::resolve_grouping_function::ResolveGroupingFunction;
use datafusion_optimizer::common_subexpr_eliminate::CommonSubexprEliminate;
use datafusion_optimizer::decorrelate_predicate_subquery::DecorrelatePredicateSubquery;
use datafusion_optimizer::eliminate_cross_join::EliminateCrossJoin;
use datafusion_optimizer::eliminate_duplicated_expr::EliminateDuplicatedExpr;
use datafusion_optimizer::eliminate_filter::EliminateFilter;
use datafusion_optimizer::eliminate_group_by_constant::EliminateGroupByConstant;
use datafusion_optimizer::eliminate_join::EliminateJoin;
use datafusion_optimizer::eliminate_limit::EliminateLimit;
use datafusion_optimizer::eliminate_outer_join::EliminateOuterJoin;
use datafusion_optimizer::extract_equijoin_predicate::ExtractEquijoinPredicate;
use datafusion_optimizer::optimize_projections::OptimizeProjections;
use datafusion_optimizer::optimize_unions::OptimizeUnions;
use datafusion_optimizer::optimizer::{ApplyOrder, Optimizer, OptimizerConfig, OptimizerContext, OptimizerRule};
use datafusion_optimizer::propagate_empty_relation::PropagateEmptyRelation;
use datafusion_optimizer::push_down_filter::PushDownFilter;
use datafusion_optimizer::push_down_limit::PushDownLimit;
use datafusion_optimizer::replace_distinct_aggregate::ReplaceDistinctWithAggregate;
use datafusion_optimizer::rewrite_set_comparison::RewriteSetComparison;
use datafusion_optimizer::scalar_subquery_to_join::ScalarSubqueryToJoin;
use datafusion_optimizer::simplify_expressions::SimplifyExpressions;
use datafusion_optimizer::{Analyzer, AnalyzerRule};

use super::domains::Domains;
use super::fold::CheckedFold;
use super::in_lists::ThreeValuedLists;
use super::lift::LiftSubqueries;
use super::not_in::ThreeValuedIn;
use super::provider::Provider;
use super::set_operations::CountedRows;
use super::single_rows::SingleRows;
use super::subqueries::CheckSubqueries;
use super::typing::Typing;

/// Types every expression, then rewrites the plan until nothing changes.
pub(crate) fn rewrite(plan: LogicalPlan, provider: &Provider<'_>) -> Result<LogicalPlan> {
    let config = provider.config();
    let rules: Vec<Arc<dyn AnalyzerRule + Send + Sync>> = vec![
        Arc::new(ResolveGroupingFunction::new()),
        Arc::new(LiftSubqueries),
        Arc::new(SingleRows),
        Arc::new(Domains),
        Arc::new(CheckSubqueries),
        Arc::new(CountedRows),
        Arc::new(Typing),
        Arc::new(ThreeValuedIn),
        Arc::new(ThreeValuedLists),
    ];
    let typed = Analyzer::with_rules(rules).execute_and_check(plan, config, |_, _| {})?;
    let context = Context::new(config)?;
    let mut rules = rewrites();
    if has_set_comparison(&typed)? {
        rules.insert(0, Arc::new(RewriteSetComparison::new()));
    }
    Optimizer::with_rules(rules).optimize(typed, &context, |_, _| {})
}

/// Whether `> ALL (query)` or its like is anywhere: the rule that rewrites them walks every subquery at every node, so that it
/// runs for queries alone that have one.
fn has_set_comparison(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            found |= expr.exists(|e| Ok(matches!(e, Expr::SetComparison(_))))?;
            Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })
    })?;
    Ok(found)
}

/// The optimizer's own context, and the one function that its rules look up by name.
struct Context {
    inner: OptimizerContext,
    registry: MemoryFunctionRegistry,
}

impl Context {
    fn new(config: &Arc<ConfigOptions>) -> Result<Self> {
        let mut registry = MemoryFunctionRegistry::new();
        registry.register_udaf(datafusion_functions_aggregate::first_last::first_value_udaf())?;
        Ok(Context { inner: OptimizerContext::new_with_config_options(Arc::clone(config)), registry })
    }
}

impl OptimizerConfig for Context {
    fn query_execution_start_time(&self) -> Option<DateTime<Utc>> {
        self.inner.query_execution_start_time()
    }

    fn alias_generator(&self) -> &Arc<AliasGenerator> {
        self.inner.alias_generator()
    }

    fn options(&self) -> Arc<ConfigOptions> {
        self.inner.options()
    }

    fn function_registry(&self) -> Option<&dyn FunctionRegistry> {
        Some(&self.registry)
    }
}

/// The front end's filter push-down, which would push a condition that reads no column below an aggregate that yields a row for
/// no rows: it stays above, and `stoa-plan` pushes what goes further.
#[derive(Debug)]
struct PushDown(PushDownFilter);

impl OptimizerRule for PushDown {
    fn name(&self) -> &'static str {
        "push_down"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        if let LogicalPlan::Filter(filter) = &plan
            && let LogicalPlan::Aggregate(aggregate) = &*filter.input
            && (aggregate.group_expr.is_empty() || matches!(aggregate.group_expr[..], [Expr::GroupingSet(_)]))
            && split_conjunction(&filter.predicate).iter().any(|e| e.column_refs().is_empty())
        {
            return Ok(Transformed::no(plan));
        }
        self.0.rewrite(plan, config)
    }
}

/// Left out on purpose: rules that make nested types, that split DISTINCT aggregates (the executor has them), or that add
/// IS NOT NULL filters below joins (the executor's joins skip NULL keys).
fn rewrites() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    vec![
        Arc::new(OptimizeUnions::new()),
        Arc::new(CheckedFold),
        Arc::new(SimplifyExpressions::new()),
        Arc::new(ReplaceDistinctWithAggregate::new()),
        Arc::new(EliminateJoin::new()),
        Arc::new(DecorrelatePredicateSubquery::new()),
        Arc::new(ScalarSubqueryToJoin::new()),
        Arc::new(ExtractEquijoinPredicate::new()),
        Arc::new(EliminateDuplicatedExpr::new()),
        Arc::new(EliminateFilter::new()),
        Arc::new(EliminateCrossJoin::new()),
        Arc::new(EliminateLimit::new()),
        Arc::new(PropagateEmptyRelation::new()),
        Arc::new(EliminateOuterJoin::new()),
        Arc::new(PushDownLimit::new()),
        Arc::new(PushDown(PushDownFilter::new())),
        Arc::new(EliminateGroupByConstant::new()),
        Arc::new(CommonSubexprEliminate::new()),
        Arc::new(OptimizeProjections::new()),
    ]
}
