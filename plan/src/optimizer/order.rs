//! Join order by cost: dynamic programming over sets of items, greedy where there are too many.
//!
//! The cost of a join is what it reads and makes, and twice what it builds; rows that must leave their partition cost more. The
//! cheapest plan of every set is kept; cross products only where nothing else connects a set. Between several leaves rows cost by the
//! bytes that move, and where the joined rows are counts: groups that are whole where their rows are do not move.

mod greedy;

use hashbrown::HashMap;

use super::estimate::{Estimate, JoinShape, joined};
use super::predicates::{binary, conjunction};
use super::pushdown::filtered;
use super::region::{Dependent, Region, Set, bit};
use super::selectivity;
use crate::distribute::joins::row_bytes;
use crate::distribute::{Place, partitioning};
use crate::{BinaryOp, ColumnId, DataType, Expr, Join, JoinKind, Node, Plan, Side};

/// Items up to which all orders are tried.
const EXHAUSTIVE: usize = 11;
/// Cost of a row that is built, if the table stays in cache and if not; of one probed is 1.
const BUILD: f64 = 2.0;
const BUILD_LARGE: f64 = 4.0;
/// Rows above which a table does not stay in cache.
const LARGE: f64 = 1e6;
/// Cost of a row that a join makes.
const OUTPUT: f64 = 0.5;
/// Cost of a row that is broadcast, and of one that leaves the parallel part of the plan.
const BROADCAST: f64 = 0.3;
const MERGED: f64 = 3.0;
/// Cost of a byte that is written, sent to another leaf, and read.
const SENT: f64 = 0.1;
/// Bytes of the states of a group, about.
const STATES: f64 = 24.0;

/// The keys by which a set's rows are partitioned, as classes; `None`: they are everywhere or merged.
type Keys = Option<Vec<Vec<usize>>>;

/// How a set of items is joined.
#[derive(Clone)]
struct Entry {
    cost: f64,
    estimate: Estimate,
    /// Bytes of a row, about.
    width: f64,
    keys: Keys,
    /// Left and right set, build side; `None` for a single item.
    split: Option<(Set, Set, Side)>,
}

struct Search<'a> {
    region: &'a Region,
    leaves: f64,
    /// By which the joined rows are grouped.
    groups: &'a [(ColumnId, DataType)],
    /// The items whose rows are apart.
    apart: Set,
    /// Class of each column that takes part in an equality or a shard key.
    classes: HashMap<ColumnId, usize>,
    entries: HashMap<Set, Entry>,
}

/// The region as a plan, of tables on so many leaves. Its rows will be grouped by `groups`.
pub fn run(mut region: Region, leaves: usize, groups: &[(ColumnId, DataType)]) -> Plan {
    let count = region.items.len();
    if count == 0 {
        return Plan::empty();
    }
    let all: Set = (0..count).map(bit).sum();
    let entries = {
        let classes = classes(&region, groups);
        let mut search = Search { region: &region, leaves: leaves as f64, groups, apart: 0, classes, entries: HashMap::new() };
        search.singles();
        if count <= EXHAUSTIVE {
            search.exhaustive(all);
        } else {
            search.greedy();
        }
        search.entries
    };
    let mut plans: Vec<Plan> = region.items.iter_mut().map(|item| item.plan.take()).collect();
    build(&region, &entries, &mut plans, all)
}

fn classes(region: &Region, groups: &[(ColumnId, DataType)]) -> HashMap<ColumnId, usize> {
    let mut classes = HashMap::new();
    for (number, class) in region.classes.iter().enumerate() {
        classes.extend(class.iter().map(|(id, ..)| (*id, number)));
    }
    let mut next = region.classes.len();
    let dependents = region.items.iter().filter_map(|item| item.dependent.as_ref());
    let joined = dependents.flat_map(|dependent| &dependent.on).flat_map(|(left, right)| [left, right]);
    let joined = joined.filter_map(Expr::as_column);
    for id in joined.chain(groups.iter().map(|(id, _)| *id)) {
        classes.entry(id).or_insert_with(|| {
            next += 1;
            next
        });
    }
    classes
}

impl Search<'_> {
    fn singles(&mut self) {
        for (at, item) in self.region.items.iter().enumerate() {
            let keys = match partitioning(&item.plan) {
                Place::Partitioned(keys) | Place::Spread(keys) => {
                    let known = |key: &Vec<ColumnId>| key.iter().map(|id| self.classes.get(id).copied()).collect();
                    Some(keys.iter().filter_map(known).collect())
                }
                Place::Everywhere | Place::Merged => None,
            };
            self.apart |= if keys.is_some() { bit(at) } else { 0 };
            let width = row_bytes(item.plan.fields().iter().map(|field| field.ty));
            let entry = Entry { cost: 0.0, estimate: item.estimate.clone(), width, keys, split: None };
            self.entries.insert(bit(at), entry);
        }
    }

    fn exhaustive(&mut self, all: Set) {
        for set in 1..=all {
            if set.count_ones() < 2 || !self.region.is_closed(set) {
                continue;
            }
            for cross in [false, true] {
                let mut left = (set - 1) & set;
                while left != 0 {
                    self.try_split(left, set & !left, cross);
                    left = (left - 1) & set;
                }
                if self.entries.contains_key(&set) {
                    break;
                }
            }
        }
    }

    /// Considers joining two sets; the right one is built, or is a dependent.
    fn try_split(&mut self, left: Set, right: Set, cross: bool) {
        if let Some(entry) = self.joined(left, right, cross) {
            let set = left | right;
            let price = |entry: &Entry| entry.cost + self.regrouped(set, entry);
            if self.entries.get(&set).is_none_or(|known| price(&entry) < price(known)) {
                self.entries.insert(set, entry);
            }
        }
    }

    /// What it costs to bring the groups of a set together whose rows are all the rows that are apart.
    fn regrouped(&self, set: Set, entry: &Entry) -> f64 {
        let Some(keys) = entry.keys.as_ref().filter(|_| self.leaves > 1.0 && set & self.apart == self.apart) else { return 0.0 };
        let has = |class: &usize| self.groups.iter().any(|(id, _)| self.classes.get(id) == Some(class));
        if self.groups.is_empty() || keys.iter().any(|key| !key.is_empty() && key.iter().all(has)) {
            return 0.0;
        }
        let distinct = self.groups.iter().map(|(id, ty)| entry.estimate.distinct(&Expr::Column(*id, *ty)));
        let groups = (distinct.fold(1.0, f64::max) * self.leaves).min(entry.estimate.rows);
        groups * (MERGED + SENT * (STATES + row_bytes(self.groups.iter().map(|(_, ty)| *ty))))
    }

    fn joined(&self, left: Set, right: Set, cross: bool) -> Option<Entry> {
        let region = self.region;
        if region.lone_dependent(left).is_some() {
            return None;
        }
        let dependent = region.lone_dependent(right);
        match dependent {
            Some(at) if region.items[at].needs & !left != 0 => return None,
            Some(_) => {}
            None if !region.is_closed(left) || !region.is_closed(right) => return None,
            None => {}
        }
        let (l, r) = (self.entries.get(&left)?, self.entries.get(&right)?);
        let on = region.equalities(left, right);
        if dependent.is_none() && on.is_empty() && !cross {
            return None;
        }
        let estimate = match self.entries.get(&(left | right)) {
            // One estimate a set, whatever the order.
            Some(known) => known.estimate.clone(),
            None => estimate(region, dependent, &on, (left, right), (&l.estimate, &r.estimate)),
        };
        let split = (left, right);
        let dependent = dependent.and_then(|at| region.items[at].dependent.as_ref());
        let (cost, keys, side) = match dependent {
            None => self.inner_cost(&on, l, r, &estimate),
            Some(dependent) => self.dependent_cost(dependent, l, r, &estimate),
        };
        let adds = dependent.is_none_or(|dependent| dependent.kind == JoinKind::Left);
        let width = l.width + if adds { r.width } else { 0.0 };
        Some(Entry { cost, estimate, width, keys, split: Some((split.0, split.1, side)) })
    }

    fn inner_cost(&self, on: &[(Expr, Expr)], l: &Entry, r: &Entry, out: &Estimate) -> (f64, Keys, Side) {
        let mut cost = l.cost + r.cost + work(l.estimate.rows, r.estimate.rows, out.rows);
        if on.is_empty() {
            cost += l.estimate.rows * r.estimate.rows;
        }
        let keys = match (&l.keys, &r.keys) {
            (Some(left), Some(right)) => {
                if !self.collocated(on, left, right) {
                    cost += self.moved(on, l, r);
                }
                Some(left.clone())
            }
            (Some(left), None) => Some(left.clone()),
            (None, Some(right)) => Some(right.clone()),
            (None, None) => None,
        };
        (cost, keys, Side::Right)
    }

    /// The better of building the dependent item and of building what is there and marking its rows.
    fn dependent_cost(&self, dependent: &Dependent, l: &Entry, r: &Entry, out: &Estimate) -> (f64, Keys, Side) {
        let (left, right) = (l.estimate.rows, r.estimate.rows);
        let collocated = match (&l.keys, &r.keys) {
            (Some(a), Some(b)) => self.collocated(&dependent.on, a, b),
            _ => false,
        };
        let spread = |keys: &Keys| keys.is_some();
        let base = l.cost + r.cost;
        let moved = if spread(&l.keys) && spread(&r.keys) && !collocated { self.moved(&dependent.on, l, r) } else { 0.0 };
        // Rows of the left side that every fragment has cannot be emitted by each of them.
        let merge = if !spread(&l.keys) && spread(&r.keys) { MERGED * right } else { 0.0 };
        let build_right = base + work(left, right, out.rows) + moved + merge;
        let merge = if collocated || !spread(&r.keys) { 0.0 } else { MERGED * (left + self.reduced(dependent, l, r)) };
        let build_left = base + work(right, left, out.rows) + merge;
        if build_left < build_right && !dependent.on.is_empty() {
            let keys = if merge > 0.0 { None } else { l.keys.clone() };
            return (build_left, keys, Side::Left);
        }
        (build_right, l.keys.clone(), Side::Right)
    }

    /// What it costs to bring the rows of the right side to those of the left side, where the keys of that one are known, or to all of
    /// them; or those of both sides to other places.
    fn moved(&self, on: &[(Expr, Expr)], l: &Entry, r: &Entry) -> f64 {
        if self.leaves < 2.0 {
            return BROADCAST * r.estimate.rows;
        }
        let (left, right) = (l.estimate.rows * l.width, r.estimate.rows * r.width);
        let others = (self.leaves - 1.0) / self.leaves;
        let joined = |class: &usize| on.iter().any(|(l, _)| self.class(l) == Some(*class));
        if l.keys.iter().flatten().any(|key| !key.is_empty() && key.iter().all(joined)) {
            return SENT * right * others;
        }
        let all = right * (self.leaves - 1.0);
        SENT * if on.is_empty() { all } else { all.min(2.0 * (left + right) * others) }
    }

    fn class(&self, e: &Expr) -> Option<usize> {
        self.classes.get(&e.as_column()?).copied()
    }

    /// Rows of the right side that are left once the left side's keys have filtered it.
    fn reduced(&self, dependent: &Dependent, l: &Entry, r: &Entry) -> f64 {
        if matches!(dependent.kind, JoinKind::LeftMark(_)) {
            return r.estimate.rows;
        }
        let share = |(a, b): &(Expr, Expr)| (l.estimate.distinct(a) / r.estimate.domain(b)).min(1.0);
        r.estimate.rows * dependent.on.iter().map(share).fold(1.0, f64::min)
    }

    /// Whether equalities connect the two sides' shard keys, in order.
    fn collocated(&self, on: &[(Expr, Expr)], left: &[Vec<usize>], right: &[Vec<usize>]) -> bool {
        let pairs: Vec<(usize, usize)> = on.iter().filter_map(|(l, r)| self.class(l).zip(self.class(r))).collect();
        let matches = |l: &Vec<usize>, r: &Vec<usize>| {
            !l.is_empty() && l.len() == r.len() && l.iter().zip(r).all(|(l, r)| pairs.contains(&(*l, *r)))
        };
        left.iter().any(|l| right.iter().any(|r| matches(l, r)))
    }
}

/// The work of a hash join.
fn work(probe: f64, build: f64, out: f64) -> f64 {
    let factor = if build > LARGE { BUILD_LARGE } else { BUILD };
    probe + factor * build + OUTPUT * out
}

fn estimate(
    region: &Region,
    dependent: Option<usize>,
    on: &[(Expr, Expr)],
    sets: (Set, Set),
    inputs: (&Estimate, &Estimate),
) -> Estimate {
    let dependent = dependent.and_then(|at| region.items[at].dependent.as_ref());
    let mut out = match dependent {
        None => joined(&JoinShape { kind: &JoinKind::Inner, on, residual: None }, inputs.0, inputs.1),
        Some(d) => joined(&JoinShape { kind: &d.kind, on: &d.on, residual: d.residual.as_ref() }, inputs.0, inputs.1),
    };
    if dependent.is_some() {
        on.iter().for_each(|(l, r)| {
            let share = 1.0 / out.distinct(l).max(out.distinct(r));
            out.reduce(share);
        });
    }
    for condition in region.conditions(sets.0, sets.1) {
        match condition.selectivity {
            Some(share) => out.reduce(share),
            None => {
                let share = selectivity::of(&condition.expr, &out);
                out.reduce(share);
            }
        }
    }
    out
}

/// The plan of a set.
fn build(region: &Region, entries: &HashMap<Set, Entry>, plans: &mut [Plan], set: Set) -> Plan {
    let Some((left_set, right_set, side)) = entries.get(&set).and_then(|e| e.split) else {
        return plans[set.trailing_zeros() as usize].take();
    };
    let left = build(region, entries, plans, left_set);
    let right = build(region, entries, plans, right_set);
    let equalities = region.equalities(left_set, right_set);
    let conditions = region.conditions(left_set, right_set).map(|c| c.expr.clone());
    let join = |kind, on, null_equals_null, residual| {
        let (left, right) = (left, right);
        Plan::new(Node::Join(Box::new(Join {
            kind,
            left,
            right,
            on,
            null_equals_null,
            residual,
            build: side,
            publishes: vec![],
        })))
    };
    match region.lone_dependent(right_set).and_then(|at| region.items[at].dependent.as_ref()) {
        None => join(JoinKind::Inner, equalities, false, conjunction(conditions)),
        Some(d) => {
            let above = equalities.into_iter().map(|(l, r)| binary(BinaryOp::Eq, l, r)).chain(conditions).collect();
            filtered(join(d.kind.clone(), d.on.clone(), d.null_equals_null, d.residual.clone()), above)
        }
    }
}
