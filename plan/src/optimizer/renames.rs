//! Takes renames out of plans: a projection that only renames or drops columns goes, and a bare column in another projection keeps
//! the identity that it has below. What is above refers to the columns below then.

use hashbrown::{HashMap, HashSet};

use crate::{ColumnId, Expr, Node, Plan, Query};

type Map = HashMap<ColumnId, ColumnId>;

/// Runs the rule on all plans of the query.
pub fn run(query: &mut Query) {
    let mut map = Map::new();
    for plan in query.plans_mut() {
        collect(plan, &mut map);
    }
    if map.is_empty() {
        return;
    }
    for plan in query.plans_mut() {
        rewrite(plan, &map);
    }
    for field in &mut query.output {
        field.id = resolve(field.id, &map);
    }
}

/// Drops trivial projections bottom-up; `map` learns which column stands for which.
fn collect(plan: &mut Plan, map: &mut Map) {
    for input in plan.inputs_mut() {
        collect(input, map);
    }
    let Node::Project { input, exprs } = &mut plan.node else { return };
    let mut seen: HashSet<ColumnId> = HashSet::new();
    exprs.retain_mut(|(field, expr)| {
        let Expr::Column(id, _) = expr else { return true };
        let id = resolve(*id, map);
        if field.id != id {
            map.insert(field.id, id);
            field.id = id;
        }
        seen.insert(id)
    });
    if exprs.iter().all(|(_, e)| e.as_column().is_some()) {
        *plan = input.take();
    }
}

fn resolve(mut id: ColumnId, map: &Map) -> ColumnId {
    while let Some(next) = map.get(&id) {
        id = *next;
    }
    id
}

fn rewrite(plan: &mut Plan, map: &Map) {
    plan.walk_mut(&mut |node| {
        for expr in node.expressions_mut() {
            expr.walk_mut(&mut |e| {
                if let Expr::Column(id, _) = e {
                    *id = resolve(*id, map);
                }
            });
        }
        match &mut node.node {
            Node::Union { inputs, .. } => {
                inputs.iter_mut().flat_map(|(_, ids)| ids).for_each(|id| *id = resolve(*id, map));
            }
            Node::SubplanScan(scan) => scan.columns.iter_mut().for_each(|(id, _)| *id = resolve(*id, map)),
            _ => {}
        }
    });
}
