//! Cardinality: how many rows a node yields, and how many distinct values its columns hold.
//!
//! Base facts are the tables' statistics; predicates are in [`super::selectivity`]. Joins assume that the side with fewer distinct
//! keys is contained in the other. Everything here is a guess that only speed depends on.

use std::cell::RefCell;

use hashbrown::HashMap;

use super::selectivity;
use crate::{
    Aggregate, AggregateCall, AggregateFunction, ColumnId, DataType, Expr, Join, JoinKind, Node, Plan, Query, Scan,
    StatisticsSource, SubplanKind, TableStatistics, Value,
};

/// Rows of a table that nothing is known of.
const UNKNOWN_ROWS: f64 = 1000.0;

/// What is thought of a column.
#[derive(Clone, Debug)]
pub struct ColumnEstimate {
    /// Distinct values here.
    pub distinct: f64,
    /// Distinct values in the whole table: the domain that keys are drawn from.
    pub domain: f64,
    /// Least value, as a number.
    pub min: Option<f64>,
    /// Greatest value, as a number.
    pub max: Option<f64>,
    /// Fraction of NULLs.
    pub nulls: f64,
    /// Mean of an aggregate's result, where it can be guessed.
    pub mean: Option<f64>,
}

impl ColumnEstimate {
    /// A column with `distinct` values of which nothing else is known.
    pub fn of(distinct: f64) -> ColumnEstimate {
        let distinct = distinct.max(1.0);
        ColumnEstimate { distinct, domain: distinct, min: None, max: None, nulls: 0.0, mean: None }
    }
}

/// What is thought of a node's output.
#[derive(Clone, Debug, Default)]
pub struct Estimate {
    /// Rows.
    pub rows: f64,
    /// Rows if nothing had been filtered out.
    pub unfiltered: f64,
    /// Columns.
    pub columns: HashMap<ColumnId, ColumnEstimate>,
}

impl Estimate {
    /// Distinct values of an expression.
    pub fn distinct(&self, expr: &Expr) -> f64 {
        let own = match expr {
            Expr::Column(id, _) => self.columns.get(id).map_or(self.rows, |c| c.distinct),
            Expr::Literal(_) | Expr::Parameter(..) => 1.0,
            Expr::Function { name, args, .. } if name == "date_part" => {
                let years = args.iter().flat_map(Expr::columns).filter_map(|id| self.columns.get(&id));
                years.map(|c| (c.distinct / 365.0).max(1.0)).fold(12.0, f64::min)
            }
            other => other.columns().iter().map(|id| self.columns.get(id).map_or(self.rows, |c| c.distinct)).product(),
        };
        own.clamp(1.0, self.rows.max(1.0))
    }

    /// The domain of an expression: distinct values where nothing is filtered out.
    pub fn domain(&self, expr: &Expr) -> f64 {
        match expr {
            Expr::Column(id, _) => self.columns.get(id).map_or(self.unfiltered, |c| c.domain).max(1.0),
            other => self.distinct(other),
        }
    }

    /// Keeps the fraction `kept` of the rows: fewer values of each column survive.
    pub fn reduce(&mut self, kept: f64) {
        let before = self.rows;
        self.rows = (self.rows * kept).max(if before >= 1.0 { 1.0 } else { before });
        for column in self.columns.values_mut() {
            column.distinct = surviving(column.distinct, before, self.rows);
        }
    }

    /// Adds the columns of another estimate.
    pub fn absorb(&mut self, other: &Estimate) {
        for (id, column) in &other.columns {
            self.columns.insert(*id, column.clone());
        }
    }

    /// Caps the number of distinct values at the number of rows.
    pub fn cap(&mut self) {
        let rows = self.rows.max(1.0);
        self.columns.values_mut().for_each(|c| c.distinct = c.distinct.min(rows));
    }
}

/// How many of `distinct` values are left if `after` of `before` rows are, drawn at random (Yao).
pub fn surviving(distinct: f64, before: f64, after: f64) -> f64 {
    if after >= before || before <= 0.0 {
        return distinct.min(after.max(1.0));
    }
    let per_value = (before / distinct.max(1.0)).max(1.0);
    let left = distinct * (1.0 - (1.0 - after / before).powf(per_value));
    left.clamp(1.0, after.max(1.0))
}

/// Estimates plans of one query.
pub struct Estimator<'a> {
    /// On which the tables are.
    pub leaves: usize,
    statistics: &'a dyn StatisticsSource,
    tables: RefCell<HashMap<String, Option<std::rc::Rc<TableStatistics>>>>,
    shared: HashMap<u32, Estimate>,
}

impl<'a> Estimator<'a> {
    /// An estimator over the statistics of tables.
    pub fn new(statistics: &'a dyn StatisticsSource, leaves: usize) -> Estimator<'a> {
        Estimator { leaves, statistics, tables: RefCell::new(HashMap::new()), shared: HashMap::new() }
    }

    /// Statistics of a table; asked for once.
    pub fn table(&self, name: &str) -> Option<std::rc::Rc<TableStatistics>> {
        let mut tables = self.tables.borrow_mut();
        if let Some(known) = tables.get(name) {
            return known.clone();
        }
        let found = self.statistics.table(name).map(std::rc::Rc::new);
        tables.insert(name.to_owned(), found.clone());
        found
    }

    /// Writes the estimated rows into every node of the query.
    pub fn annotate(&mut self, query: &mut Query) {
        for at in 0..query.subplans.len() {
            let estimate = self.fill(&mut query.subplans[at].plan);
            if let SubplanKind::Shared(number) = query.subplans[at].kind {
                self.shared.insert(number, estimate);
            }
        }
        self.fill(&mut query.root);
    }

    /// Remembers the estimate of a shared subplan for the plans that read it.
    pub fn remember(&mut self, number: u32, estimate: Estimate) {
        self.shared.insert(number, estimate);
    }

    fn fill(&self, plan: &mut Plan) -> Estimate {
        let inputs: Vec<Estimate> = plan.inputs_mut().into_iter().map(|input| self.fill(input)).collect();
        let estimate = self.node(plan, inputs);
        plan.rows = estimate.rows;
        estimate
    }

    /// The estimate of a plan.
    pub fn plan(&self, plan: &Plan) -> Estimate {
        let inputs = plan.inputs().into_iter().map(|input| self.plan(input)).collect();
        self.node(plan, inputs)
    }

    fn node(&self, plan: &Plan, mut inputs: Vec<Estimate>) -> Estimate {
        let first = if inputs.is_empty() { Estimate::default() } else { inputs.remove(0) };
        match &plan.node {
            Node::Scan(scan) => self.scan(scan),
            Node::Values(values) => {
                let rows = values.rows.len() as f64;
                let columns = values.fields.iter().map(|f| (f.id, ColumnEstimate::of(rows))).collect();
                Estimate { rows, unfiltered: rows, columns }
            }
            Node::SubplanScan(scan) => {
                let below =
                    self.shared.get(&scan.subplan).cloned().unwrap_or(Estimate { rows: UNKNOWN_ROWS, ..Default::default() });
                let column = |inner| below.columns.get(inner).cloned().unwrap_or(ColumnEstimate::of(below.rows));
                let columns = scan.columns.iter().map(|(inner, field)| (field.id, column(inner))).collect();
                Estimate { rows: below.rows, unfiltered: below.unfiltered.max(below.rows), columns }
            }
            Node::Filter { predicate, .. } => {
                let mut out = first;
                let mut conjuncts = Vec::new();
                super::predicates::split_conjuncts(predicate.clone(), &mut conjuncts);
                selectivity::apply(&conjuncts, &mut out);
                out
            }
            Node::Project { exprs, .. } => project(&first, exprs),
            Node::Join(join) => match inputs.pop() {
                Some(right) => joined(&JoinShape::of(join), &first, &right),
                None => first,
            },
            Node::Aggregate(aggregate) => aggregate_estimate(aggregate, &first),
            Node::Sort { fetch, .. } | Node::Limit { fetch, .. } => {
                let mut out = first;
                if let Some(fetch) = fetch {
                    out.rows = out.rows.min(*fetch as f64);
                    out.cap();
                }
                out
            }
            Node::Union { inputs: parts, fields } => {
                let all: Vec<&Estimate> = std::iter::once(&first).chain(&inputs).collect();
                let rows = all.iter().map(|e| e.rows).sum();
                let mut columns = HashMap::new();
                for (at, field) in fields.iter().enumerate() {
                    let ids = parts.iter().zip(&all).filter_map(|((_, ids), e)| e.columns.get(ids.get(at)?));
                    columns.insert(field.id, ColumnEstimate::of(ids.map(|c| c.distinct).fold(1.0, f64::max)));
                }
                Estimate { rows, unfiltered: rows, columns }
            }
            Node::Window { calls, .. } => {
                let mut out = first;
                let rows = out.rows;
                out.columns.extend(calls.iter().map(|call| (call.field.id, ColumnEstimate::of(rows))));
                out
            }
            Node::Repeat { .. } | Node::Exchange { .. } => first,
        }
    }

    fn scan(&self, scan: &Scan) -> Estimate {
        let table = self.table(&scan.table);
        let rows = table.as_ref().map_or(UNKNOWN_ROWS, |t| t.rows as f64);
        let mut columns = HashMap::new();
        for column in scan.columns.iter().chain(&scan.filter_columns) {
            let known = table.as_ref().and_then(|t| t.columns.get(column.ordinal as usize));
            let ty = column.field.ty;
            let min = known.and_then(|c| c.min.as_ref()).and_then(|v| number(v, ty));
            let max = known.and_then(|c| c.max.as_ref()).and_then(|v| number(v, ty));
            let span = match (min, max, ty) {
                (Some(_), Some(_), DataType::Float32 | DataType::Float64 | DataType::Utf8 | DataType::Binary) => rows,
                (Some(min), Some(max), DataType::Decimal { scale, .. }) => (max - min) * 10f64.powi(i32::from(scale)) + 1.0,
                (Some(min), Some(max), _) => max - min + 1.0,
                _ => rows / 10.0,
            };
            let distinct = known.and_then(|c| c.distinct).unwrap_or(span).min(span.max(1.0)).clamp(1.0, rows.max(1.0));
            let nulls = known.map_or(0.0, |c| c.nulls as f64 / rows.max(1.0));
            columns.insert(column.field.id, ColumnEstimate { distinct, domain: distinct, min, max, nulls, mean: None });
        }
        let mut out = Estimate { rows, unfiltered: rows, columns };
        selectivity::apply(&scan.filters, &mut out);
        out
    }
}

/// A value as a number that keeps the order; strings by their first bytes.
pub fn number(value: &Value, ty: DataType) -> Option<f64> {
    match value {
        Value::Int(v) => Some(*v as f64),
        Value::UInt(v) => Some(*v as f64),
        Value::Float(v) => Some(*v),
        Value::Bool(v) => Some(f64::from(u8::from(*v))),
        Value::Decimal(v) => {
            let scale = if let DataType::Decimal { scale, .. } = ty { scale } else { 0 };
            Some(*v as f64 / 10f64.powi(i32::from(scale)))
        }
        Value::Str(text) => Some(prefix_number(text.as_bytes())),
        Value::Bytes(bytes) => Some(prefix_number(bytes)),
        Value::Null | Value::Interval { .. } => None,
    }
}

fn prefix_number(bytes: &[u8]) -> f64 {
    (0..6).fold(0.0, |sum, at| sum * 256.0 + f64::from(bytes.get(at).copied().unwrap_or(0)))
}

fn project(input: &Estimate, exprs: &[(crate::Field, Expr)]) -> Estimate {
    let columns = exprs
        .iter()
        .map(|(field, expr)| {
            let column = match expr {
                Expr::Column(id, _) => input.columns.get(id).cloned().unwrap_or(ColumnEstimate::of(input.rows)),
                other => ColumnEstimate { mean: mean(other, input), ..ColumnEstimate::of(input.distinct(other)) },
            };
            (field.id, column)
        })
        .collect();
    Estimate { rows: input.rows, unfiltered: input.unfiltered, columns }
}

/// The mean of an expression, from the middle of ranges.
fn mean(expr: &Expr, input: &Estimate) -> Option<f64> {
    match expr {
        Expr::Column(id, _) => {
            let column = input.columns.get(id)?;
            column.mean.or_else(|| Some((column.min? + column.max?) / 2.0))
        }
        Expr::Literal(literal) => number(&literal.value, literal.ty),
        Expr::Cast { input: inner, .. } => mean(inner, input),
        Expr::Binary { op, left, right, .. } => {
            let (left, right) = (mean(left, input)?, mean(right, input)?);
            match op {
                crate::BinaryOp::Add => Some(left + right),
                crate::BinaryOp::Sub => Some(left - right),
                crate::BinaryOp::Mul => Some(left * right),
                crate::BinaryOp::Div if right != 0.0 => Some(left / right),
                _ => None,
            }
        }
        _ => None,
    }
}

fn aggregate_estimate(aggregate: &Aggregate, input: &Estimate) -> Estimate {
    let mut distincts: Vec<f64> = aggregate.keys.iter().map(|(_, e)| input.distinct(e)).collect();
    distincts.sort_by(|a, b| b.total_cmp(a));
    // Keys are correlated: each further one counts less.
    let mut exponent = 1.0;
    let mut groups = 1.0;
    for (at, distinct) in distincts.iter().enumerate() {
        groups *= distinct.powf(exponent);
        if at > 0 {
            exponent *= 0.8;
        }
    }
    let sets = aggregate.grouping_sets.len().max(1) as f64;
    let rows = if aggregate.keys.is_empty() { 1.0 } else { groups.min(input.rows).max(input.rows.min(1.0)) } * sets;
    let mut columns = HashMap::new();
    for (field, expr) in &aggregate.keys {
        let mut column =
            expr.as_column().and_then(|id| input.columns.get(&id)).cloned().unwrap_or(ColumnEstimate::of(input.distinct(expr)));
        column.distinct = column.distinct.min(rows);
        columns.insert(field.id, column);
    }
    for (field, call) in &aggregate.calls {
        let mean = call_mean(call, input, rows);
        columns.insert(field.id, ColumnEstimate { mean, ..ColumnEstimate::of(rows) });
    }
    Estimate { rows, unfiltered: rows, columns }
}

fn call_mean(call: &AggregateCall, input: &Estimate, groups: f64) -> Option<f64> {
    let per_group = input.rows / groups.max(1.0);
    let arg = call.args.first();
    match call.function {
        AggregateFunction::Count => Some(per_group),
        AggregateFunction::Sum => Some(mean(arg?, input)? * per_group),
        AggregateFunction::Avg | AggregateFunction::Median | AggregateFunction::AnyValue => mean(arg?, input),
        _ => None,
    }
}

/// The fraction of all pairs that agree on the equalities.
pub fn equalities(on: &[(Expr, Expr)], left: &Estimate, right: &Estimate) -> f64 {
    let mut product = 1.0;
    let (mut left_key, mut right_key) = (1.0, 1.0);
    for (l, r) in on {
        product /= left.distinct(l).max(right.distinct(r)).max(1.0);
        left_key *= left.domain(l);
        right_key *= right.domain(r);
    }
    if on.len() < 2 {
        return product;
    }
    // A key of several columns has no more values than its table has rows.
    let key = left_key.min(left.unfiltered).min(right_key.min(right.unfiltered)).max(1.0);
    product.max(1.0 / key)
}

/// The fraction of the left rows that have a match.
pub fn matching(on: &[(Expr, Expr)], left: &Estimate, right: &Estimate) -> f64 {
    if on.is_empty() {
        return if right.rows >= 1.0 { 1.0 } else { 0.5 };
    }
    let shares = on.iter().map(|(l, r)| (right.distinct(r) / left.domain(l)).min(1.0));
    let least = shares.fold(1.0, f64::min);
    let domain: f64 = on.iter().map(|(l, _)| left.domain(l)).product::<f64>().min(left.unfiltered).max(1.0);
    if on.len() > 1 { least.min(right.rows / domain) } else { least }
}

/// What a join's estimate depends on, apart from its inputs.
pub struct JoinShape<'a> {
    /// Kind.
    pub kind: &'a JoinKind,
    /// Equalities.
    pub on: &'a [(Expr, Expr)],
    /// The fraction of the pairs that the rest of the condition keeps; 1 if there is none.
    pub residual: Option<&'a Expr>,
}

impl<'a> JoinShape<'a> {
    /// The shape of a join.
    pub fn of(join: &'a Join) -> JoinShape<'a> {
        JoinShape { kind: &join.kind, on: &join.on, residual: join.residual.as_ref() }
    }
}

fn semi(shape: &JoinShape<'_>, on: &[(Expr, Expr)], kept: &Estimate, other: &Estimate, anti: bool) -> Estimate {
    let mut share = matching(on, kept, other).min(1.0);
    if let Some(residual) = shape.residual {
        let mut both = kept.clone();
        both.absorb(other);
        share *= selectivity::of(residual, &both).max(0.5);
    }
    let mut out = kept.clone();
    out.reduce(if anti { (1.0 - share).max(0.05) } else { share });
    out
}

/// The estimate of a join.
pub fn joined(join: &JoinShape<'_>, left: &Estimate, right: &Estimate) -> Estimate {
    let swapped = || join.on.iter().map(|(l, r)| (r.clone(), l.clone())).collect::<Vec<_>>();
    match join.kind {
        JoinKind::LeftSemi | JoinKind::LeftAnti => return semi(join, join.on, left, right, *join.kind == JoinKind::LeftAnti),
        JoinKind::RightSemi | JoinKind::RightAnti => {
            return semi(join, &swapped(), right, left, *join.kind == JoinKind::RightAnti);
        }
        JoinKind::LeftMark(mark) => {
            let mut out = left.clone();
            out.columns.insert(mark.id, ColumnEstimate::of(2.0));
            return out;
        }
        JoinKind::Inner | JoinKind::Left | JoinKind::Right | JoinKind::Full => {}
    }
    pairs(join, left, right)
}

fn pairs(join: &JoinShape<'_>, left: &Estimate, right: &Estimate) -> Estimate {
    let mut both = left.clone();
    both.absorb(right);
    both.unfiltered = left.unfiltered.max(right.unfiltered);
    let inner = left.rows * right.rows * equalities(join.on, left, right);
    both.rows = inner;
    let residual = join.residual.map_or(1.0, |r| selectivity::of(r, &both));
    let pairs = (inner * residual).max(inner.min(1.0));
    let mut out = match join.kind {
        JoinKind::Left => Estimate { rows: pairs.max(left.rows), ..both },
        JoinKind::Right => Estimate { rows: pairs.max(right.rows), ..both },
        JoinKind::Full => Estimate { rows: pairs.max(left.rows).max(right.rows), ..both },
        _ => Estimate { rows: pairs, ..both },
    };
    if *join.kind == JoinKind::Inner {
        for (l, r) in join.on.iter().filter_map(|(l, r)| l.as_column().zip(r.as_column())) {
            let least = [l, r].iter().filter_map(|id| out.columns.get(id)).map(|c| c.distinct).fold(f64::INFINITY, f64::min);
            for id in [l, r] {
                if let Some(column) = out.columns.get_mut(&id) {
                    column.distinct = least;
                }
            }
        }
    }
    // Columns of a side whose rows became fewer lose values as a filter would take them.
    let rows = out.rows;
    for (side, kept) in [(left, rows / left.rows.max(1.0)), (right, rows / right.rows.max(1.0))] {
        if kept < 1.0 {
            for id in side.columns.keys() {
                if let Some(column) = out.columns.get_mut(id) {
                    column.distinct = surviving(column.distinct, side.rows, rows);
                }
            }
        }
    }
    out.cap();
    out
}
