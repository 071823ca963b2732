//! A plan as text for people: one line a node, the last step first, inputs indented below.

mod expression;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use hashbrown::HashMap;

use crate::distribute::sorted_below;
use crate::{
    Aggregate, AggregateCall, ColumnId, ExchangeKind, Expr, Field, Join, JoinKind, Node, NodeId, Phase, Plan, Query, Scan, Side,
    SortKey, SubplanKind,
};

/// The names of a query's columns. A name that several columns have is followed by the column's number.
struct Names {
    names: HashMap<ColumnId, String>,
}

/// The plan as text. `annotate` gives more lines for a node, e.g. what it did when the query ran.
#[must_use]
pub fn explain(query: &Query, annotate: Option<&dyn Fn(NodeId) -> Vec<String>>) -> String {
    let names = Names::new(query);
    let mut out = String::new();
    for subplan in &query.subplans {
        let _ = match &subplan.kind {
            SubplanKind::Scalar(id) => writeln!(out, "Scalar subplan ${}:", id.0),
            SubplanKind::Shared(number) => writeln!(out, "Shared subplan {number}:"),
            SubplanKind::Filter(id) => writeln!(out, "Keys of run-time filter f{}:", id.0),
            SubplanKind::Received(number) => writeln!(out, "Received rows {number}:"),
        };
        names.plan(&subplan.plan, 1, annotate, &mut out);
    }
    names.plan(&query.root, 0, annotate, &mut out);
    out
}

/// An expression as text, with the names that `fields` give to its columns.
#[must_use]
pub fn expression(expr: &Expr, fields: &[Field]) -> String {
    let names = Names { names: fields.iter().map(|f| (f.id, f.name.clone())).collect() };
    names.expr(expr)
}

impl Names {
    fn new(query: &Query) -> Names {
        let mut all: HashMap<ColumnId, String> = HashMap::new();
        for plan in query.plans() {
            plan.walk(&mut |node| {
                for field in node.defines() {
                    all.entry(field.id).or_insert(field.name);
                }
            });
        }
        let mut uses: HashMap<String, usize> = HashMap::new();
        for name in all.values() {
            *uses.entry(name.clone()).or_default() += 1;
        }
        for (id, name) in &mut all {
            if uses.get(name).is_some_and(|n| *n > 1) {
                let _ = write!(name, "#{}", id.0);
            }
        }
        Names { names: all }
    }

    fn column(&self, id: ColumnId) -> String {
        self.names.get(&id).cloned().unwrap_or_else(|| format!("#{}", id.0))
    }

    fn plan(&self, plan: &Plan, depth: usize, annotate: Option<&dyn Fn(NodeId) -> Vec<String>>, out: &mut String) {
        let pad = "  ".repeat(depth);
        let (title, details) = self.node(&plan.node);
        let _ = writeln!(out, "{pad}{title}  [{}, ~{} rows]", plan.id.0, rounded(plan.rows));
        let more = annotate.map(|f| f(plan.id)).unwrap_or_default();
        for line in details.iter().chain(&more) {
            let _ = writeln!(out, "{pad}    {line}");
        }
        for input in plan.inputs() {
            self.plan(input, depth + 1, annotate, out);
        }
    }

    /// A node's title and the lines below it.
    fn node(&self, node: &Node) -> (String, Vec<String>) {
        match node {
            Node::Scan(scan) => self.scan(scan),
            Node::Values(values) => (format!("Values {} rows", values.rows.len()), vec![]),
            Node::SubplanScan(scan) => (format!("Scan of shared subplan {}", scan.subplan), vec![]),
            Node::Filter { predicate, .. } => (format!("Filter {}", self.expr(predicate)), vec![]),
            Node::Project { exprs, .. } => {
                let list = exprs.iter().map(|(field, e)| self.named(field, e));
                (format!("Project {}", joined(list)), vec![])
            }
            Node::Join(join) => self.join(join),
            Node::Aggregate(aggregate) => self.aggregate(aggregate),
            Node::Sort { input, keys, fetch, skip } => {
                let what = if sorted_below(input, keys).is_some() { "Merge sorted" } else { "Sort" };
                let by = joined(keys.iter().map(|k| self.sort_key(k)));
                (format!("{what} by {by}{}", window(*fetch, *skip)), vec![])
            }
            Node::Limit { fetch, skip, .. } => (format!("Limit{}", window(*fetch, *skip)), vec![]),
            Node::Union { inputs, .. } => (format!("Union of {}", inputs.len()), vec![]),
            Node::Repeat { times, .. } => (format!("Repeat {} times", self.expr(times)), vec![]),
            Node::Window { calls, .. } => {
                let lines = calls.iter().map(|c| format!("{} = {}({})", c.field.name, c.function, self.list(&c.args)));
                ("Window".to_owned(), lines.collect())
            }
            Node::Exchange { kind, .. } => match kind {
                ExchangeKind::Gather => ("Gather".to_owned(), vec![]),
                ExchangeKind::Broadcast => ("Broadcast".to_owned(), vec![]),
                ExchangeKind::Shuffle(keys) => (format!("Shuffle by {}", self.list(keys)), vec![]),
            },
        }
    }

    fn scan(&self, scan: &Scan) -> (String, Vec<String>) {
        let columns = joined(scan.columns.iter().map(|c| self.column(c.field.id)));
        let kind = if scan.reference { " (reference)" } else { "" };
        let mut lines = Vec::new();
        if !scan.filters.is_empty() {
            lines.push(format!("filter: {}", scan.filters.iter().map(|f| self.expr(f)).collect::<Vec<_>>().join(" AND ")));
        }
        if !scan.runtime_filters.is_empty() {
            let list = scan.runtime_filters.iter().map(|(id, column)| format!("f{} on {}", id.0, self.column(*column)));
            lines.push(format!("run-time filters: {}", joined(list)));
        }
        (format!("Scan {}{kind}: {columns}", scan.table), lines)
    }

    fn join(&self, join: &Join) -> (String, Vec<String>) {
        let kind = match &join.kind {
            JoinKind::Inner => "Inner",
            JoinKind::Left => "Left",
            JoinKind::Right => "Right",
            JoinKind::Full => "Full",
            JoinKind::LeftSemi => "Left semi",
            JoinKind::LeftAnti => "Left anti",
            JoinKind::RightSemi => "Right semi",
            JoinKind::RightAnti => "Right anti",
            JoinKind::LeftMark(_) => "Left mark",
        };
        let equal = if join.null_equals_null { "<=>" } else { "=" };
        let on = join.on.iter().map(|(l, r)| format!("{} {equal} {}", self.expr(l), self.expr(r)));
        let side = if join.build == Side::Left { "left" } else { "right" };
        let on = if join.on.is_empty() {
            "without equalities".to_owned()
        } else {
            format!("on {}", on.collect::<Vec<_>>().join(" AND "))
        };
        let mut lines = Vec::new();
        if let JoinKind::LeftMark(mark) = &join.kind {
            lines.push(format!("mark: {}", self.column(mark.id)));
        }
        if let Some(residual) = &join.residual {
            lines.push(format!("residual: {}", self.expr(residual)));
        }
        if !join.publishes.is_empty() {
            let list = join.publishes.iter().map(|(id, on)| {
                let pair = join.on.get(*on as usize);
                let key = pair.map(|(l, r)| self.expr(if join.build == Side::Left { l } else { r }));
                format!("f{} of {}", id.0, key.unwrap_or_default())
            });
            lines.push(format!("publishes: {}", joined(list)));
        }
        (format!("{kind} join {on}, build {side}, {}", movement(join)), lines)
    }

    fn aggregate(&self, aggregate: &Aggregate) -> (String, Vec<String>) {
        let phase = match aggregate.phase {
            Phase::Single => "",
            Phase::Partial => " (partial)",
            Phase::Final => " (final)",
        };
        let mut title = format!("Aggregate{phase}");
        if !aggregate.keys.is_empty() {
            let _ = write!(title, " by {}", joined(aggregate.keys.iter().map(|(field, e)| self.named(field, e))));
        }
        let mut lines: Vec<String> =
            aggregate.calls.iter().map(|(f, c)| format!("{} = {}", self.column(f.id), self.call(c))).collect();
        if !aggregate.grouping_sets.is_empty() {
            let sets = aggregate.grouping_sets.iter().map(|set| {
                let keys = set.iter().filter_map(|i| aggregate.keys.get(*i as usize));
                format!("({})", joined(keys.map(|(f, _)| self.column(f.id))))
            });
            lines.push(format!("grouping sets: {}", joined(sets)));
        }
        (title, lines)
    }

    fn call(&self, call: &AggregateCall) -> String {
        let name = snake(&format!("{:?}", call.function));
        let distinct = if call.distinct { "DISTINCT " } else { "" };
        let args = if call.args.is_empty() { "*".to_owned() } else { self.list(&call.args) };
        let order = if call.order_by.is_empty() {
            String::new()
        } else {
            format!(" ORDER BY {}", joined(call.order_by.iter().map(|k| self.sort_key(k))))
        };
        let filter = call.filter.as_ref().map(|f| format!(" FILTER (WHERE {})", self.expr(f))).unwrap_or_default();
        format!("{name}({distinct}{args}{order}){filter}")
    }

    fn named(&self, field: &Field, expr: &Expr) -> String {
        let (name, expr) = (self.column(field.id), self.expr(expr));
        if name == expr { name } else { format!("{name} = {expr}") }
    }

    fn sort_key(&self, key: &SortKey) -> String {
        let direction = if key.descending { " DESC" } else { "" };
        let nulls = match (key.descending, key.nulls_first) {
            (false, true) => " NULLS FIRST",
            (true, false) => " NULLS LAST",
            _ => "",
        };
        format!("{}{direction}{nulls}", self.expr(&key.expr))
    }

    fn list(&self, exprs: &[Expr]) -> String {
        joined(exprs.iter().map(|e| self.expr(e)))
    }
}

fn joined(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

fn window(fetch: Option<u64>, skip: u64) -> String {
    let fetch = fetch.map(|n| format!(", first {n}")).unwrap_or_default();
    let skip = if skip > 0 { format!(", after {skip}") } else { String::new() };
    fetch + &skip
}

/// How a join's inputs come together.
fn movement(join: &Join) -> &'static str {
    if matches!(join.side(join.build).node, Node::Exchange { kind: ExchangeKind::Broadcast, .. }) {
        return "broadcast";
    }
    let left = crate::distribute::runs_per_partition(&join.left);
    let right = crate::distribute::runs_per_partition(&join.right);
    if left && right { "collocated" } else { "local" }
}

fn rounded(rows: f64) -> String {
    if rows.is_finite() { format!("{rows:.0}") } else { "?".to_owned() }
}

/// `CountStar` as `count_star`.
fn snake(camel: &str) -> String {
    let mut out = String::new();
    for (i, c) in camel.chars().enumerate() {
        if c.is_uppercase() && i > 0 {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}
