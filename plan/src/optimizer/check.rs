//! What must be true of every plan: each column has one definition and is read above it only.

use hashbrown::HashSet;

use super::{OptimizeError, Result};
use crate::{ColumnId, Join, Node, Plan, Query, SubplanKind};

/// Checks a query.
///
/// # Errors
/// Names the first column that is defined twice or not at all.
pub fn check(query: &Query) -> Result<()> {
    let mut defined = HashSet::new();
    for plan in query.plans() {
        visible(plan, query, &mut defined)?;
    }
    let fields: HashSet<ColumnId> = query.root.fields().iter().map(|f| f.id).collect();
    match query.output.iter().find(|f| !fields.contains(&f.id)) {
        Some(field) => invalid(format!("output column {} is not a column of the root", field.name)),
        None => Ok(()),
    }
}

fn invalid<T>(text: String) -> Result<T> {
    Err(OptimizeError::Invalid(text))
}

/// The columns that `plan` yields, after checking it.
fn visible(plan: &Plan, query: &Query, defined: &mut HashSet<ColumnId>) -> Result<HashSet<ColumnId>> {
    let mut below: Vec<HashSet<ColumnId>> = Vec::new();
    for input in plan.inputs() {
        below.push(visible(input, query, defined)?);
    }
    let all: HashSet<ColumnId> = match &plan.node {
        Node::Scan(_) => plan.defines().iter().map(|f| f.id).collect(),
        _ => below.iter().flatten().copied().collect(),
    };
    for id in plan.expressions().iter().flat_map(|e| e.columns()) {
        if !all.contains(&id) {
            return invalid(format!("column #{} is read where it is not defined, in {}", id.0, name(plan)));
        }
    }
    match &plan.node {
        Node::Join(join) => sides(join, &below)?,
        Node::SubplanScan(scan) => shared(scan, query)?,
        Node::Union { inputs, fields } => {
            let fits = |(ids, below): (&Vec<ColumnId>, &HashSet<ColumnId>)| {
                ids.len() == fields.len() && ids.iter().all(|id| below.contains(id))
            };
            if !inputs.iter().map(|(_, ids)| ids).zip(&below).all(fits) {
                return invalid("an input of a union lacks a column".to_owned());
            }
        }
        _ => {}
    }
    for field in plan.defines() {
        // A projection may pass a column on under its own name.
        if !all.contains(&field.id) | matches!(plan.node, Node::Scan(_)) && !defined.insert(field.id) {
            return invalid(format!("column {} (#{}) is defined twice", field.name, field.id.0));
        }
    }
    Ok(plan.fields().iter().map(|f| f.id).collect())
}

fn sides(join: &Join, below: &[HashSet<ColumnId>]) -> Result<()> {
    let [left, right] = below else { return invalid("a join has two inputs".to_owned()) };
    for (l, r) in &join.on {
        let misplaced = l.columns().iter().any(|id| !left.contains(id)) || r.columns().iter().any(|id| !right.contains(id));
        if misplaced || l.data_type() != r.data_type() {
            return invalid("an equality of a join has its sides or types mixed up".to_owned());
        }
    }
    Ok(())
}

fn shared(scan: &crate::SubplanScan, query: &Query) -> Result<()> {
    let subplan = query.subplans.iter().find(|s| s.kind == SubplanKind::Shared(scan.subplan));
    let Some(subplan) = subplan else { return invalid(format!("there is no shared subplan {}", scan.subplan)) };
    let fields = subplan.plan.fields();
    match scan.columns.iter().find(|(inner, _)| !fields.iter().any(|f| f.id == *inner)) {
        Some((_, field)) => invalid(format!("shared subplan {} lacks column {}", scan.subplan, field.name)),
        None => Ok(()),
    }
}

fn name(plan: &Plan) -> String {
    let text = format!("{:?}", plan.node);
    text.split(['(', ' ', '{']).next().unwrap_or_default().to_owned()
}
