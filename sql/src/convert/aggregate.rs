//! Grouping and aggregates.

use datafusion_expr::expr::GroupingSet;
use datafusion_expr::expr::{AggregateFunction as SourceCall, AggregateFunctionParams, NullTreatment};
use datafusion_expr::{Aggregate as Source, Expr as SourceExpr};
use stoa_plan::{
    Aggregate, AggregateCall, AggregateFunction as F, DataType, Expr, Field, Literal, Node, Phase, Plan, SortKey, Value,
};

use super::{Converter, Relation, Scope, expr, literal};
use crate::{SqlError, types};

/// The grouping id has a bit for each key.
const MAX_GROUPING_KEYS: usize = 32;

impl Converter {
    pub(super) fn aggregate(&mut self, aggregate: &Source) -> Result<Relation, SqlError> {
        let input = self.relation(&aggregate.input)?;
        let scope = input.scope(aggregate.input.schema());
        let (group, grouping_sets) = grouping(&aggregate.group_expr)?;
        let fields = aggregate.schema.fields();
        let mut keys = Vec::with_capacity(group.len());
        for (key, output) in group.iter().zip(fields) {
            let key = self.expr(key, scope)?;
            let field = self.field(output.name(), key.data_type(), output.is_nullable() || !grouping_sets.is_empty());
            keys.push((field, key));
        }
        let grouping_id = (!grouping_sets.is_empty()).then(|| self.field(Source::INTERNAL_GROUPING_ID, DataType::UInt32, false));
        let first_call = keys.len() + usize::from(grouping_id.is_some());
        let mut calls: Vec<(Field, AggregateCall)> = Vec::with_capacity(aggregate.aggr_expr.len());
        for (call, output) in aggregate.aggr_expr.iter().zip(fields.iter().skip(first_call)) {
            let ty = types::logical_type(output.data_type())?;
            let call = self.call(call, ty, scope)?;
            calls.push((self.field(output.name(), ty, output.is_nullable()), call));
        }
        let mut columns: Vec<Field> = keys.iter().map(|(f, _)| f.clone()).collect();
        columns.extend(grouping_id.clone());
        columns.extend(calls.iter().map(|(f, _)| f.clone()));
        let node = Aggregate { input: input.plan, keys, grouping_sets, grouping_id, calls, phase: Phase::Single };
        Ok(Relation { plan: Plan::new(Node::Aggregate(Box::new(node))), columns })
    }

    fn call(&mut self, call: &SourceExpr, ty: DataType, scope: Scope<'_>) -> Result<AggregateCall, SqlError> {
        let call = match call {
            SourceExpr::Alias(alias) => return self.call(&alias.expr, ty, scope),
            SourceExpr::AggregateFunction(call) => call,
            other => return Err(SqlError::unsupported(format!("the aggregate {other}"))),
        };
        let SourceCall { func, params } = call;
        let AggregateFunctionParams { args, distinct, filter, order_by, null_treatment } = params;
        let function = function(func.name())?;
        if *null_treatment == Some(NullTreatment::IgnoreNulls) {
            return Err(SqlError::unsupported("IGNORE NULLS"));
        }
        let mut args = args.iter().map(|a| self.expr(a, scope)).collect::<Result<Vec<_>, _>>()?;
        if function == F::Count {
            // A bare NULL has no type; one that has NULLs is expected.
            let null = Expr::Literal(Literal { ty: DataType::Bool, value: Value::Null });
            args.iter_mut().filter(|a| a.data_type() == DataType::Null).for_each(|a| *a = null.clone());
        }
        let filter = filter.as_ref().map(|f| self.expr(f, scope)).transpose()?;
        let order_by = self.sort_keys(order_by, scope)?;
        let call = AggregateCall { function, args, distinct: *distinct, filter, order_by, ty };
        normalize(call, func.name())
    }
}

/// The distinct keys and, with `GROUPING SETS`, `ROLLUP` or `CUBE`, which of them each set keeps.
fn grouping(group: &[SourceExpr]) -> Result<(Vec<SourceExpr>, Vec<Vec<u32>>), SqlError> {
    let [SourceExpr::GroupingSet(set)] = group else {
        if group.iter().any(|e| matches!(e, SourceExpr::GroupingSet(_))) {
            return Err(SqlError::unsupported("this combination of grouping sets"));
        }
        return Ok((group.to_vec(), vec![]));
    };
    let keys: Vec<SourceExpr> = set.distinct_expr().into_iter().cloned().collect();
    if keys.len() > MAX_GROUPING_KEYS {
        return Err(SqlError::new(format!("more than {MAX_GROUPING_KEYS} keys in grouping sets")));
    }
    let index = |e: &SourceExpr| keys.iter().position(|k| k == e).map(|i| i as u32);
    let sets: Vec<Vec<u32>> = match set {
        GroupingSet::Rollup(exprs) => (0..=exprs.len()).rev().map(|n| exprs[..n].iter().filter_map(index).collect()).collect(),
        GroupingSet::Cube(exprs) if exprs.len() <= 12 => (0..1usize << exprs.len())
            .rev()
            .map(|bits| exprs.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1).filter_map(|(_, e)| index(e)).collect())
            .collect(),
        GroupingSet::Cube(_) => return Err(SqlError::new("more than 12 keys in CUBE")),
        GroupingSet::GroupingSets(sets) => sets.iter().map(|set| set.iter().filter_map(index).collect()).collect(),
    };
    Ok((keys, sets))
}

fn function(name: &str) -> Result<F, SqlError> {
    Ok(match name {
        "count" => F::Count,
        "sum" => F::Sum,
        "avg" | "mean" => F::Avg,
        "min" => F::Min,
        "max" => F::Max,
        "var" | "var_samp" => F::VarSamp,
        "var_pop" => F::VarPop,
        "stddev" | "stddev_samp" => F::StddevSamp,
        "stddev_pop" => F::StddevPop,
        "covar_pop" => F::CovarPop,
        "covar" | "covar_samp" => F::CovarSamp,
        "corr" => F::Corr,
        "median" => F::Median,
        "percentile_cont" => F::PercentileCont,
        "approx_distinct" => F::ApproxDistinct,
        "approx_percentile_cont" | "approx_median" => F::ApproxPercentile,
        "bool_and" => F::BoolAnd,
        "bool_or" => F::BoolOr,
        "bit_and" => F::BitAnd,
        "bit_or" => F::BitOr,
        "bit_xor" => F::BitXor,
        "string_agg" => F::StringAgg,
        "first_value" => F::FirstValue,
        "last_value" => F::LastValue,
        "any_value" => F::AnyValue,
        "regr_slope" => F::RegrSlope,
        "regr_intercept" => F::RegrIntercept,
        "regr_r2" => F::RegrR2,
        "regr_count" => F::RegrCount,
        "regr_avgx" => F::RegrAvgx,
        "regr_avgy" => F::RegrAvgy,
        "regr_sxx" => F::RegrSxx,
        "regr_syy" => F::RegrSyy,
        "regr_sxy" => F::RegrSxy,
        "array_agg" => return Err(SqlError::new("array_agg: nested types (arrays, structs, maps) are not supported")),
        other => return Err(SqlError::unsupported(format!("the aggregate function '{other}'"))),
    })
}

/// Forms that the front end spells differently.
fn normalize(mut call: AggregateCall, name: &str) -> Result<AggregateCall, SqlError> {
    match call.function {
        F::Count if call.args.iter().all(|a| matches!(a, Expr::Literal(l) if l.value != Value::Null)) && !call.distinct => {
            call.args.clear();
        }
        F::ApproxPercentile if name == "approx_median" => {
            call.args.push(Expr::Literal(Literal { ty: DataType::Float64, value: Value::Float(0.5) }));
        }
        F::ApproxPercentile | F::PercentileCont => percentile(&mut call)?,
        F::Min | F::Max | F::BoolAnd | F::BoolOr | F::BitAnd | F::BitOr => call.distinct = false,
        _ => {}
    }
    if matches!(call.function, F::Count | F::Sum | F::Avg | F::Min | F::Max) {
        call.order_by.clear();
    }
    Ok(call)
}

/// `1 - p`, without the noise of binary fractions: 0.1 for 0.9.
fn descending_share(share: f64) -> f64 {
    ((1.0 - share) * 1e15).round() / 1e15
}

/// `percentile_cont(p) WITHIN GROUP (ORDER BY x DESC)` is the one of `1 - p` in ascending order.
fn percentile(call: &mut AggregateCall) -> Result<(), SqlError> {
    let order: Vec<SortKey> = std::mem::take(&mut call.order_by);
    if let [key] = &order[..]
        && call.args.len() == 1
    {
        call.args.insert(0, key.expr.clone());
    }
    call.args.truncate(2);
    let Some(share) = call.args.get(1).and_then(literal::as_f64) else {
        return Err(SqlError::new("the share of a percentile must be a constant from 0 to 1"));
    };
    if !(0.0..=1.0).contains(&share) {
        return Err(SqlError::new(format!("the share of a percentile must be from 0 to 1, not {share}")));
    }
    let share = if order.iter().any(|k| k.descending) { descending_share(share) } else { share };
    call.args[1] = expr::cast(Expr::Literal(Literal { ty: DataType::Float64, value: Value::Float(share) }), DataType::Float64);
    Ok(())
}
