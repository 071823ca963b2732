//! A region: joins with nothing between them but filters, as a graph.
//!
//! Its *items* are the inputs. Inner items are joined in any order. A *dependent* item is the right side of a semi, anti, mark or
//! left outer join: it is joined on its own, once the items are there whose columns its condition reads. That is legal anywhere
//! above them, since none of these joins changes what an inner join beside it does. Equalities of bare columns make *classes*; in
//! every set of items the members of a class are equal, so one equality a class connects two sets.

use hashbrown::HashMap;

use super::estimate::Estimate;
use super::order;
use super::predicates::{binary, factor, implied, split_conjuncts};
use super::pushdown::{Rewriter, filtered};
use crate::{BinaryOp, ColumnId, DataType, Expr, Join, JoinKind, Node, Plan};

/// A set of items.
pub type Set = u64;

/// Items that a region has at most; further joins below are items themselves.
const MAX_ITEMS: usize = 48;

/// An input of the region.
pub struct Item {
    /// What it reads.
    pub plan: Plan,
    /// What is thought of it.
    pub estimate: Estimate,
    /// How it is joined, if not by inner join.
    pub dependent: Option<Dependent>,
    /// The items that must be there before.
    pub needs: Set,
}

/// How a dependent item is joined.
pub struct Dependent {
    /// One of the left kinds.
    pub kind: JoinKind,
    /// Equalities; the right ones are the item's.
    pub on: Vec<(Expr, Expr)>,
    /// As in [`Join`].
    pub null_equals_null: bool,
    /// As in [`Join`].
    pub residual: Option<Expr>,
}

/// A condition over several items that is not an equality of columns.
pub struct Condition {
    /// What must hold.
    pub expr: Expr,
    /// The items that it reads.
    pub reads: Set,
    /// The two sides, if it is an equality of expressions over disjoint items.
    pub sides: Option<(Set, Set)>,
    /// The fraction of rows that it is thought to keep, if not by its form.
    pub selectivity: Option<f64>,
}

/// The join graph.
#[derive(Default)]
pub struct Region {
    /// Inputs.
    pub items: Vec<Item>,
    /// Columns that are equal: each with its type and item.
    pub classes: Vec<Vec<(ColumnId, DataType, usize)>>,
    /// Other conditions.
    pub conditions: Vec<Condition>,
}

/// What flattening finds, before anything is pushed or estimated.
#[derive(Default)]
struct Parts {
    items: Vec<(Plan, Option<Dependent>)>,
    conjuncts: Vec<Expr>,
}

/// Orders the joins of the region at `plan`, with `predicates` above it; its rows will be grouped by `groups`.
pub fn rewrite(rewriter: &Rewriter<'_>, plan: Plan, predicates: Vec<Expr>, groups: &[(ColumnId, DataType)]) -> Plan {
    let mut parts = Parts { items: vec![], conjuncts: predicates };
    flatten(plan, &mut parts);
    let Parts { items, conjuncts } = parts;
    let conjuncts = factor(conjuncts);
    let owners = owners(&items);
    let mut pushed: Vec<Vec<Expr>> = items.iter().map(|_| vec![]).collect();
    let mut region = Region::default();
    let mut above = Vec::new();
    let inner: Set = items.iter().enumerate().filter(|(_, (_, d))| d.is_none()).map(|(i, _)| bit(i)).sum();
    for conjunct in conjuncts {
        let reads = reads(&conjunct, &owners);
        match reads.count_ones() {
            0 => above.push(conjunct),
            1 if reads & inner == reads => pushed[reads.trailing_zeros() as usize].push(conjunct),
            _ => classify(conjunct, reads, inner, &owners, &mut region, &mut pushed),
        }
    }
    equal_within_items(&mut region, inner, &mut pushed);
    spread_constants(&region, inner, &mut pushed);
    for (at, ((plan, mut dependent), predicates)) in items.into_iter().zip(pushed).enumerate() {
        let mut predicates = predicates;
        if let Some(dependent) = &mut dependent {
            claim(dependent, at, &owners, &mut predicates);
        }
        let plan = rewriter.rewrite(plan, predicates, &[]);
        let estimate = rewriter.estimator.plan(&plan);
        let needs = dependent.as_ref().map_or(0, |d| needs(d, at, &owners));
        region.items.push(Item { plan, estimate, dependent, needs });
    }
    settle_needs(&mut region);
    filtered(order::run(region, rewriter.estimator.leaves, groups), above)
}

/// The set of one item.
pub fn bit(item: usize) -> Set {
    1 << item
}

fn owners(items: &[(Plan, Option<Dependent>)]) -> HashMap<ColumnId, usize> {
    let mut owners = HashMap::new();
    for (at, (plan, dependent)) in items.iter().enumerate() {
        owners.extend(plan.fields().iter().map(|f| (f.id, at)));
        if let Some(Dependent { kind: JoinKind::LeftMark(mark), .. }) = dependent {
            owners.insert(mark.id, at);
        }
    }
    owners
}

fn reads(expr: &Expr, owners: &HashMap<ColumnId, usize>) -> Set {
    expr.columns().iter().filter_map(|id| owners.get(id)).fold(0, |set, item| set | bit(*item))
}

fn flatten(plan: Plan, parts: &mut Parts) {
    match plan.node {
        Node::Filter { input, predicate } => {
            split_conjuncts(predicate, &mut parts.conjuncts);
            flatten(*input, parts);
        }
        Node::Join(join) if parts.items.len() < MAX_ITEMS && is_flat(&join) => flatten_join(*join, parts),
        node => parts.items.push((Plan { id: plan.id, rows: plan.rows, node }, None)),
    }
}

fn is_flat(join: &Join) -> bool {
    match join.kind {
        JoinKind::Full => false,
        JoinKind::Inner => !join.null_equals_null,
        _ => true,
    }
}

fn flatten_join(join: Join, parts: &mut Parts) {
    let Join { kind, left, right, on, null_equals_null, residual, .. } = turned(join);
    if kind == JoinKind::Inner {
        flatten(left, parts);
        flatten(right, parts);
        parts.conjuncts.extend(on.into_iter().map(|(l, r)| binary(BinaryOp::Eq, l, r)));
        residual.into_iter().for_each(|r| split_conjuncts(r, &mut parts.conjuncts));
        return;
    }
    flatten(left, parts);
    parts.items.push((right, Some(Dependent { kind, on, null_equals_null, residual })));
}

/// The join with a right kind turned into the left kind.
fn turned(join: Join) -> Join {
    let kind = match join.kind {
        JoinKind::Right => JoinKind::Left,
        JoinKind::RightSemi => JoinKind::LeftSemi,
        JoinKind::RightAnti => JoinKind::LeftAnti,
        kind => return Join { kind, ..join },
    };
    let on = join.on.into_iter().map(|(l, r)| (r, l)).collect();
    Join { kind, on, left: join.right, right: join.left, ..join }
}

/// Puts a conjunct over several items (or over a dependent one) into the graph.
fn classify(
    conjunct: Expr,
    reads_set: Set,
    inner: Set,
    owners: &HashMap<ColumnId, usize>,
    region: &mut Region,
    pushed: &mut [Vec<Expr>],
) {
    let mut sides = None;
    if let Expr::Binary { op: BinaryOp::Eq, left, right, .. } = &conjunct
        && left.data_type() == right.data_type()
    {
        let (l, r) = (reads(left, owners), reads(right, owners));
        if let (Expr::Column(a, ty), Expr::Column(b, _)) = (&**left, &**right)
            && l != r
        {
            return join_classes(region, (*a, *ty, l.trailing_zeros() as usize), (*b, *ty, r.trailing_zeros() as usize));
        }
        if l & r == 0 && l != 0 && r != 0 {
            sides = Some((l, r));
        }
    }
    let mut selectivity = None;
    for (item, predicates) in pushed.iter_mut().enumerate().filter(|(item, _)| bit(*item) & reads_set & inner != 0) {
        if let Some(own) = implied(&conjunct, &|id| owners.get(&id) == Some(&item)) {
            selectivity = Some(0.4);
            split_conjuncts(own, predicates);
        }
    }
    region.conditions.push(Condition { expr: conjunct, reads: reads_set, sides, selectivity });
}

fn join_classes(region: &mut Region, a: (ColumnId, DataType, usize), b: (ColumnId, DataType, usize)) {
    let find = |region: &Region, id| region.classes.iter().position(|c| c.iter().any(|(other, ..)| *other == id));
    match (find(region, a.0), find(region, b.0)) {
        (Some(x), Some(y)) if x == y => {}
        (Some(x), Some(y)) => {
            let moved = region.classes.remove(x.max(y));
            region.classes[x.min(y)].extend(moved);
        }
        (Some(x), None) => region.classes[x].push(b),
        (None, Some(y)) => region.classes[y].push(a),
        (None, None) => region.classes.push(vec![a, b]),
    }
}

/// Columns of one item that are equal by way of another item's (`a.x = b.z AND a.y = b.z`): no join of two sets compares them.
fn equal_within_items(region: &mut Region, inner: Set, pushed: &mut [Vec<Expr>]) {
    for class in &region.classes {
        for (at, (id, ty, item)) in class.iter().enumerate() {
            let Some((first, ..)) = class[..at].iter().find(|(.., other)| other == item) else { continue };
            let expr = binary(BinaryOp::Eq, Expr::Column(*first, *ty), Expr::Column(*id, *ty));
            if bit(*item) & inner != 0 {
                pushed[*item].push(expr);
            } else {
                // Not below an outer join: above it.
                region.conditions.push(Condition { expr, reads: bit(*item), sides: None, selectivity: None });
            }
        }
    }
}

/// A comparison of a column with a constant holds for every column of its class.
fn spread_constants(region: &Region, inner: Set, pushed: &mut [Vec<Expr>]) {
    for class in &region.classes {
        let mut found: Vec<(ColumnId, Expr)> = Vec::new();
        for (id, _, item) in class.iter().filter(|(.., item)| bit(*item) & inner != 0) {
            found.extend(pushed[*item].iter().filter(|p| is_constant_test(p, *id)).map(|p| (*id, p.clone())));
        }
        for (from, predicate) in found {
            for (to, ty, item) in class.iter().filter(|(to, _, item)| *to != from && bit(*item) & inner != 0) {
                let mut copy = predicate.clone();
                let map = [(from, Expr::Column(*to, *ty))].into_iter().collect();
                super::predicates::substitute(&mut copy, &map);
                if !pushed[*item].contains(&copy) {
                    pushed[*item].push(copy);
                }
            }
        }
    }
}

fn is_constant_test(predicate: &Expr, id: ColumnId) -> bool {
    let constant = |e: &Expr| matches!(e, Expr::Literal(_) | Expr::Parameter(..));
    match predicate {
        Expr::Binary { op, left, right, .. } => {
            let compares = matches!(op, BinaryOp::Eq | BinaryOp::Lt | BinaryOp::LtEq | BinaryOp::Gt | BinaryOp::GtEq);
            compares && left.as_column() == Some(id) && constant(right)
        }
        Expr::InList { input, list, negated: false } => input.as_column() == Some(id) && list.iter().all(constant),
        _ => false,
    }
}

/// Conjuncts of a dependent's condition that read the item alone go into it; equalities among the rest become keys.
fn claim(dependent: &mut Dependent, at: usize, owners: &HashMap<ColumnId, usize>, pushed: &mut Vec<Expr>) {
    let Some(residual) = dependent.residual.take() else { return };
    let mut conjuncts = Vec::new();
    split_conjuncts(residual, &mut conjuncts);
    let mark = matches!(dependent.kind, JoinKind::LeftMark(_));
    let mut rest = Vec::new();
    for conjunct in factor(conjuncts) {
        let all = reads(&conjunct, owners);
        if all == bit(at) && !super::predicates::is_volatile(&conjunct) {
            pushed.push(conjunct);
            continue;
        }
        if let Some(pair) = key_pair(&conjunct, at, owners)
            && !mark
            && !dependent.null_equals_null
        {
            dependent.on.push(pair);
            continue;
        }
        if let Some(own) = implied(&conjunct, &|id| owners.get(&id) == Some(&at))
            && !mark
        {
            split_conjuncts(own, pushed);
        }
        rest.push(conjunct);
    }
    dependent.residual = super::predicates::conjunction(rest);
}

/// `other = own` or `own = other` as a pair.
fn key_pair(conjunct: &Expr, at: usize, owners: &HashMap<ColumnId, usize>) -> Option<(Expr, Expr)> {
    let Expr::Binary { op: BinaryOp::Eq, left, right, .. } = conjunct else { return None };
    let (l, r) = (reads(left, owners), reads(right, owners));
    if left.data_type() != right.data_type() || l == 0 || r == 0 {
        return None;
    }
    if r == bit(at) && l & bit(at) == 0 {
        return Some(((**left).clone(), (**right).clone()));
    }
    (l == bit(at) && r & bit(at) == 0).then(|| ((**right).clone(), (**left).clone()))
}

fn needs(dependent: &Dependent, at: usize, owners: &HashMap<ColumnId, usize>) -> Set {
    let exprs = dependent.on.iter().map(|(l, _)| l).chain(&dependent.residual);
    exprs.fold(0, |set, e| set | reads(e, owners)) & !bit(at)
}

/// A dependent needs something; what it needs may need something in turn; conditions on it need all that.
fn settle_needs(region: &mut Region) {
    let first = region.items.iter().position(|i| i.dependent.is_none()).map_or(0, bit);
    for at in 0..region.items.len() {
        if region.items[at].dependent.is_none() {
            continue;
        }
        let mut needs = if region.items[at].needs == 0 { first } else { region.items[at].needs };
        // Dependents come after the items to their left, so that those are settled.
        for before in 0..at {
            if needs & bit(before) != 0 {
                needs |= region.items[before].needs;
            }
        }
        region.items[at].needs = needs;
    }
    let needs: Vec<Set> = region.items.iter().map(|i| i.needs).collect();
    for condition in &mut region.conditions {
        for (at, needs) in needs.iter().enumerate() {
            if condition.reads & bit(at) != 0 {
                condition.reads |= needs;
            }
        }
    }
}

impl Region {
    /// The equalities between two sets of items: one pair a class, and expressions.
    pub fn equalities(&self, left: Set, right: Set) -> Vec<(Expr, Expr)> {
        let mut on = Vec::new();
        for class in &self.classes {
            let pick = |set: Set| class.iter().find(|(.., item)| bit(*item) & set != 0).map(|(id, ty, _)| Expr::Column(*id, *ty));
            if let (Some(l), Some(r)) = (pick(left), pick(right)) {
                on.push((l, r));
            }
        }
        for condition in &self.conditions {
            let (Some((a, b)), Expr::Binary { left: x, right: y, .. }) = (condition.sides, &condition.expr) else { continue };
            if a & !left == 0 && b & !right == 0 {
                on.push(((**x).clone(), (**y).clone()));
            } else if b & !left == 0 && a & !right == 0 {
                on.push(((**y).clone(), (**x).clone()));
            }
        }
        on
    }

    /// The conditions that can be tested first where `left` and `right` come together, apart from their equalities.
    pub fn conditions(&self, left: Set, right: Set) -> impl Iterator<Item = &Condition> {
        let both = left | right;
        self.conditions.iter().filter(move |c| {
            let complete = c.reads & !both == 0 && c.reads & !left != 0 && c.reads & !right != 0;
            let key = c.sides.is_some_and(|(a, b)| (a & !left == 0 && b & !right == 0) || (b & !left == 0 && a & !right == 0));
            complete && !key
        })
    }

    /// Whether every dependent item of the set has what it needs in the set.
    pub fn is_closed(&self, set: Set) -> bool {
        self.items.iter().enumerate().all(|(at, item)| set & bit(at) == 0 || item.needs & !set == 0)
    }

    /// The dependent that is alone in the set.
    pub fn lone_dependent(&self, set: Set) -> Option<usize> {
        let at = set.trailing_zeros() as usize;
        (set.count_ones() == 1 && self.items[at].dependent.is_some()).then_some(at)
    }
}
