//! Checks that a plan means something, so that whoever runs it need not.
//!
//! A query passes when every column, parameter, shared subplan and run-time filter that it uses is defined where it is used and
//! has one type everywhere, when operators get operands of types that they have a meaning for, and when the nodes fit together
//! (numbers of columns, indexes into lists, a final aggregate over its partial one). Names of tables and functions are not looked
//! up: that is for the catalog and the function library. `nullable` is a hint here and everywhere.
//!
//! [`crate::codec::decode`] runs it on every message; debug builds run it on plans of the front end and the optimizer too.

mod expression;
mod node;
#[cfg(test)]
mod tests;

use hashbrown::{HashMap, HashSet};

use crate::{ColumnId, DataType, Field, FilterId, NodeId, ParameterId, Plan, Query, SubplanKind};

/// Why a plan cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem} ({place})")]
pub struct ValidateError {
    /// The node, e.g. `node 7, join`.
    pub place: String,
    /// What is wrong.
    pub problem: String,
}

/// What is wrong, before its place is known.
type Problem = String;
type Check<T = ()> = Result<T, Problem>;

/// The columns that a node produces.
type Columns = HashMap<ColumnId, DataType>;

/// What is known of the query around a node.
#[derive(Default)]
struct Context {
    parameters: HashMap<ParameterId, DataType>,
    shared: HashMap<u32, Columns>,
    /// The run-time filters that joins publish and the types of their keys.
    published: HashMap<FilterId, DataType>,
    nodes: HashSet<NodeId>,
}

/// Checks a whole query.
///
/// # Errors
/// The first thing that is wrong.
pub fn validate(query: &Query) -> Result<(), ValidateError> {
    let mut context = Context::default();
    for plan in query.subplans.iter().map(|s| &s.plan).chain([&query.root]) {
        publications(plan, &mut context.published)?;
    }
    for (i, subplan) in query.subplans.iter().enumerate() {
        let columns = node::check(&subplan.plan, &mut context)?;
        define(&subplan.kind, columns, &mut context)
            .map_err(|problem| ValidateError { place: format!("subplan {i}"), problem })?;
    }
    let columns = node::check(&query.root, &mut context)?;
    let output = || -> Check {
        for field in &query.output {
            same_type(find(&columns, field.id)?, field)?;
        }
        Ok(())
    };
    output().map_err(|problem| ValidateError { place: "output of the query".into(), problem })
}

/// Collects the run-time filters that the joins of a plan publish.
fn publications(plan: &Plan, published: &mut HashMap<FilterId, DataType>) -> Result<(), ValidateError> {
    if let crate::Node::Join(join) = &plan.node {
        for (filter, on) in &join.publishes {
            let problem = match join.on.get(*on as usize) {
                None => format!("run-time filter {} is over equality {on} of {}", filter.0, join.on.len()),
                Some((left, _)) => match published.insert(*filter, left.data_type()) {
                    None => continue,
                    Some(_) => format!("run-time filter {} is published twice", filter.0),
                },
            };
            return Err(ValidateError { place: node::place(plan), problem });
        }
    }
    plan.inputs().into_iter().try_for_each(|input| publications(input, published))
}

/// Makes the result of a subplan known to the plans after it.
fn define(kind: &SubplanKind, columns: Columns, context: &mut Context) -> Check {
    let fresh = match kind {
        SubplanKind::Scalar(id) => match columns.values().copied().collect::<Vec<_>>()[..] {
            [ty] => context.parameters.insert(*id, ty).is_none(),
            _ => return Err(format!("a scalar subplan has {} columns", columns.len())),
        },
        SubplanKind::Filter(id) => match columns.values().copied().collect::<Vec<_>>()[..] {
            [ty] => context.published.insert(*id, ty).is_none(),
            _ => return Err(format!("a run-time filter has {} columns", columns.len())),
        },
        SubplanKind::Shared(number) | SubplanKind::Received(number) => context.shared.insert(*number, columns).is_none(),
    };
    if fresh { Ok(()) } else { Err("two subplans have one number".into()) }
}

fn find(columns: &Columns, id: ColumnId) -> Check<DataType> {
    columns.get(&id).copied().ok_or_else(|| format!("column {} is not defined here", id.0))
}

fn same_type(found: DataType, field: &Field) -> Check {
    if found == field.ty {
        Ok(())
    } else {
        Err(format!("column {} ({}) is declared {:?} and is {found:?}", field.id.0, field.name, field.ty))
    }
}

/// Columns of distinct numbers and valid types.
fn columns<'a>(fields: impl IntoIterator<Item = &'a Field>) -> Check<Columns> {
    let mut columns = Columns::new();
    fields.into_iter().try_for_each(|field| add(&mut columns, field))?;
    Ok(columns)
}

fn add(columns: &mut Columns, field: &Field) -> Check {
    expression::valid_type(field.ty)?;
    match columns.insert(field.id, field.ty) {
        None => Ok(()),
        Some(_) => Err(format!("column {} is defined twice", field.id.0)),
    }
}
