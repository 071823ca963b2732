//! Hash joins of every kind.
//!
//! One side is run to its end and built into a [`table::JoinTable`], whose form is chosen once all its keys are known; the other side
//! probes it inside its own pipeline. What happens to pairs, to probe rows and to build rows is the join's [`Shape`]; it depends on
//! the kind and on which side is built, and nothing below asks for the kind again.

pub(crate) mod build;
pub(crate) mod extremes;
pub(crate) mod index;
pub(crate) mod keys;
pub(crate) mod members;
pub(crate) mod probe;
pub(crate) mod publish;
pub(crate) mod table;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use stoa_plan::{Expr, Join, JoinKind, Node, Plan, Side};

use crate::exchange::{build_side, probe_side};
use crate::executor::{Executor, Scope, address};
use crate::expression::Expression;
use crate::pipeline::{Operator, Pipeline, Stage};
use crate::{Layout, LayoutColumn, Result};
use probe::{Origin, Probe, Residual};
use table::JoinTable;

/// What becomes of pairs and of the rows of both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Pairs are output.
    pub pairs: bool,
    /// What becomes of a probe row once all its pairs are known.
    pub probe: Fate,
    /// What becomes of a build row once all probe rows are seen.
    pub build: Fate,
}

/// What becomes of a row of one side, by whether it has a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing: only its pairs count.
    Drop,
    /// Output if it has none, with NULLs for the other side where that is output (outer and anti joins).
    IfUnmatched,
    /// Output if it has one (semi joins).
    IfMatched,
    /// Output with the mark.
    Mark,
}

impl Shape {
    /// The shape of a join.
    pub fn of(join: &Join) -> Shape {
        let (pairs, left, right) = match &join.kind {
            JoinKind::Inner => (true, Fate::Drop, Fate::Drop),
            JoinKind::Left => (true, Fate::IfUnmatched, Fate::Drop),
            JoinKind::Right => (true, Fate::Drop, Fate::IfUnmatched),
            JoinKind::Full => (true, Fate::IfUnmatched, Fate::IfUnmatched),
            JoinKind::LeftSemi => (false, Fate::IfMatched, Fate::Drop),
            JoinKind::LeftAnti => (false, Fate::IfUnmatched, Fate::Drop),
            JoinKind::RightSemi => (false, Fate::Drop, Fate::IfMatched),
            JoinKind::RightAnti => (false, Fate::Drop, Fate::IfUnmatched),
            JoinKind::LeftMark(_) => (false, Fate::Mark, Fate::Drop),
        };
        match join.build {
            Side::Left => Shape { pairs, probe: right, build: left },
            Side::Right => Shape { pairs, probe: left, build: right },
        }
    }

    /// Whether one match of a probe row is as good as many: pairs are not output and no build row is.
    pub fn first_match_only(self) -> bool {
        !self.pairs && self.build == Fate::Drop
    }
}

/// The pipeline of a join: the probe side's, with a probe stage.
pub(crate) fn open(exec: &Executor<'_>, plan: &Plan, join: &Join, scope: &Scope) -> Result<Pipeline> {
    build_chain(exec, plan, scope)?;
    let table = table_of(exec, plan, join, scope)?;
    let mut pipeline = exec.open(probe_side(join), scope)?;
    let (probe, layout) = probe_stage(exec, plan, join, table, &pipeline.layout)?;
    pipeline.layout = layout;
    pipeline.stages.push(Stage { node: plan.id, operator: Operator::Probe(Box::new(probe)), counted: true });
    pipeline.coalesce(plan);
    Ok(pipeline)
}

/// The table of a join: the one that is there, or a new one.
fn table_of(exec: &Executor<'_>, plan: &Plan, join: &Join, scope: &Scope) -> Result<Arc<JoinTable>> {
    if let Some(table) = exec.table(scope, address(join)) {
        return Ok(table);
    }
    let table = build::build(exec, plan, join, scope)?;
    scope.keep_table(address(join), table.clone());
    Ok(table)
}

/// Builds the tables of all joins down the probe side, smallest first: the run-time filters of each help the next.
fn build_chain(exec: &Executor<'_>, plan: &Plan, scope: &Scope) -> Result<()> {
    let mut chain = Vec::new();
    let mut at = plan;
    loop {
        match &at.node {
            Node::Join(join) => {
                chain.push((at, &**join));
                at = probe_side(join);
            }
            Node::Filter { input, .. } | Node::Project { input, .. } => at = input,
            _ => break,
        }
    }
    chain.sort_by(|a, b| build_side(a.1).rows.total_cmp(&build_side(b.1).rows));
    for (plan, join) in chain {
        table_of(exec, plan, join, scope)?;
    }
    Ok(())
}

/// The probe stage of a join over batches of `input`, and the layout behind it.
fn probe_stage(exec: &Executor<'_>, plan: &Plan, join: &Join, table: Arc<JoinTable>, input: &Layout) -> Result<(Probe, Layout)> {
    let mut origins = Vec::new();
    let mut columns = Vec::new();
    for field in join.fields() {
        if !exec.required.wants(plan, field.id) {
            continue;
        }
        let (origin, bounds) = match (&join.kind, origin(&table.layout, input, field.id)?) {
            (JoinKind::LeftMark(mark), _) if mark.id == field.id => (Origin::Mark, crate::Bounds::default()),
            (_, Some((origin, bounds))) => (origin, bounds),
            _ => return Err(crate::Error::Internal(format!("a join lacks column {}", field.id.0))),
        };
        origins.push(origin);
        columns.push(LayoutColumn { field, bounds });
    }
    let layout = Layout { columns };
    let keys = probe_keys(exec, join, input)?;
    let residual = join.residual.as_ref().map(|e| residual(exec, e, &table.layout, input)).transpose()?;
    let nullable_mark = matches!(&join.kind, JoinKind::LeftMark(mark) if mark.nullable);
    let probe = Probe::new(exec, Shape::of(join), table, keys, residual, origins, &layout, nullable_mark);
    Ok((probe, layout))
}

/// Where a column comes from.
fn origin(build: &Layout, probe: &Layout, id: stoa_plan::ColumnId) -> Result<Option<(Origin, crate::Bounds)>> {
    if let Some(i) = probe.columns.iter().position(|c| c.field.id == id) {
        return Ok(Some((Origin::Probe(i), probe.columns[i].bounds)));
    }
    let found = build.columns.iter().position(|c| c.field.id == id);
    Ok(found.map(|i| (Origin::Build(i), build.columns[i].bounds)))
}

fn probe_keys(exec: &Executor<'_>, join: &Join, input: &Layout) -> Result<Vec<Expression>> {
    join.on.iter().map(|pair| exec.compile(&side_key(join, pair, other(join.build)), input)).collect()
}

fn other(side: Side) -> Side {
    match side {
        Side::Left => Side::Right,
        Side::Right => Side::Left,
    }
}

/// The key expression of one side of an equality, cast so that both sides have one type.
pub(crate) fn side_key(join: &Join, pair: &(Expr, Expr), side: Side) -> Expr {
    let _ = join;
    let (mine, theirs) = match side {
        Side::Left => (&pair.0, &pair.1),
        Side::Right => (&pair.1, &pair.0),
    };
    let ty = keys::common_type(mine.data_type(), theirs.data_type());
    if ty == mine.data_type() { mine.clone() } else { Expr::Cast { input: Box::new(mine.clone()), ty, safe: false } }
}

/// Compiles a residual over the columns of both sides that it reads.
fn residual(exec: &Executor<'_>, expr: &Expr, build: &Layout, probe: &Layout) -> Result<Residual> {
    let mut origins = Vec::new();
    let mut layout = Layout::default();
    for id in expr.columns() {
        let Some((origin, _)) = origin(build, probe, id)? else {
            return Err(crate::Error::Internal(format!("a join condition reads column {}, which no side has", id.0)));
        };
        let column = match origin {
            Origin::Probe(i) => &probe.columns[i],
            Origin::Build(i) => &build.columns[i],
            Origin::Mark => continue,
        };
        layout.columns.push(column.clone());
        origins.push(origin);
    }
    Ok(Residual { expression: exec.compile(expr, &layout)?, origins })
}
