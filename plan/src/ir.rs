//! The nodes of a plan.
//!
//! One tree serves all stages. The front end emits the logical nodes; the optimizer fills the physical fields (build side, run-time
//! filters, estimates); [`crate::distribute`] adds [`Node::Exchange`] and splits aggregates into [`Phase`]s.

use crate::{AggregateCall, DataType, Expr};

/// Names a column within one [`Query`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ColumnId(pub u32);

/// Names the result of a scalar [`Subplan`] in expressions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParameterId(pub u32);

/// Names a run-time filter within one [`Query`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FilterId(pub u32);

/// Names a node within one [`Query`]; profiles refer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct NodeId(pub u32);

/// An output column of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Its identity.
    pub id: ColumnId,
    /// Its name, for people.
    pub name: String,
    /// Its type.
    pub ty: DataType,
    /// Whether it may hold NULLs.
    pub nullable: bool,
}

/// A whole query: subplans that run first, in order, then the root.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// Run before the root, in this order; each may use the ones before it.
    pub subplans: Vec<Subplan>,
    /// The plan whose rows are the result.
    pub root: Plan,
    /// Names and order of the result's columns: ids of the root's fields.
    pub output: Vec<Field>,
}

/// A plan that runs before the root.
#[derive(Clone, Debug, PartialEq)]
pub struct Subplan {
    /// How its rows are used.
    pub kind: SubplanKind,
    /// The plan.
    pub plan: Plan,
}

/// How the rows of a [`Subplan`] are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubplanKind {
    /// A scalar subquery: one column; no row gives NULL, more than one row is a user error.
    Scalar(ParameterId),
    /// A common table expression used more than once: its rows are kept and read by [`Node::SubplanScan`] with this number.
    Shared(u32),
    /// Rows that other fragments sent here under this number, read as those of a shared subplan. The plan only names their columns.
    Received(u32),
    /// The keys of a run-time filter that another fragment published. The plan only names their column.
    Filter(FilterId),
}

/// A node of the plan with its estimate.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Unique within the query once the optimizer has numbered it; 0 before.
    pub id: NodeId,
    /// Estimated output rows; 0 before optimization.
    pub rows: f64,
    /// What it does.
    pub node: Node,
}

/// What a plan node does.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// Reads a table.
    Scan(Scan),
    /// Literal rows.
    Values(Values),
    /// Reads the rows of a shared subplan.
    SubplanScan(SubplanScan),
    /// Keeps the rows for which `predicate` is true.
    Filter {
        /// Input.
        input: Box<Plan>,
        /// Boolean expression.
        predicate: Expr,
    },
    /// Computes expressions; outputs exactly these.
    Project {
        /// Input.
        input: Box<Plan>,
        /// New columns. An expression that is a bare column may keep its id.
        exprs: Vec<(Field, Expr)>,
    },
    /// Joins two inputs.
    Join(Box<Join>),
    /// Groups and aggregates.
    Aggregate(Box<Aggregate>),
    /// Sorts, optionally keeping only the first rows (top-k).
    Sort {
        /// Input.
        input: Box<Plan>,
        /// Keys, most significant first.
        keys: Vec<SortKey>,
        /// Rows to keep after `skip`; all if absent.
        fetch: Option<u64>,
        /// Rows to drop first.
        skip: u64,
    },
    /// Skips and limits.
    Limit {
        /// Input.
        input: Box<Plan>,
        /// Rows to keep after `skip`; all if absent.
        fetch: Option<u64>,
        /// Rows to drop first.
        skip: u64,
    },
    /// All rows of all inputs. Column `i` of each input becomes output column `i`.
    Union {
        /// Inputs; each lists the ids of its columns in output order.
        inputs: Vec<(Plan, Vec<ColumnId>)>,
        /// Output columns.
        fields: Vec<Field>,
    },
    /// Every row as often as `times` says, a BIGINT; not at all where that is NULL or below 1.
    Repeat {
        /// Input.
        input: Box<Plan>,
        /// How often.
        times: Expr,
    },
    /// Window functions: the input's columns plus one per call. Its operator comes with a later release.
    Window {
        /// Input.
        input: Box<Plan>,
        /// Calls.
        calls: Vec<WindowCall>,
    },
    /// Moves rows between the fragments below and above it.
    Exchange {
        /// The fragment below: it runs once a partition.
        input: Box<Plan>,
        /// Where its rows go.
        kind: ExchangeKind,
    },
}

/// Reads a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Scan {
    /// Table name as the catalog knows it.
    pub table: String,
    /// Columns to produce.
    pub columns: Vec<ScanColumn>,
    /// Conjuncts over columns of this table; ids are those of `columns` or of `filter_columns`.
    pub filters: Vec<Expr>,
    /// Columns that only `filters` and `runtime_filters` read; they are not produced.
    pub filter_columns: Vec<ScanColumn>,
    /// Run-time filters that may be applied if they are ready when the scan starts; results are right without them.
    pub runtime_filters: Vec<(FilterId, ColumnId)>,
    /// Whether the table is a REFERENCE table: a copy on every leaf, so that each fragment may read it whole.
    pub reference: bool,
    /// The columns of the table's shard key, as ordinals.
    pub shard_key: Vec<u32>,
    /// Names the definition of the table that the ordinals are of; 0: whichever is there.
    pub revision: u64,
}

/// The address of a row in its table, as an ordinal of a scan: a UInt64 that UPDATE and DELETE name their rows by.
pub const ROW_ADDRESS: u32 = u32::MAX;

/// A column that a scan reads.
#[derive(Clone, Debug, PartialEq)]
pub struct ScanColumn {
    /// Position in the table, or [`ROW_ADDRESS`].
    pub ordinal: u32,
    /// Output column.
    pub field: Field,
}

/// Literal rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Values {
    /// Columns.
    pub fields: Vec<Field>,
    /// Rows of constant expressions (no columns).
    pub rows: Vec<Vec<Expr>>,
}

/// Reads a shared subplan.
#[derive(Clone, Debug, PartialEq)]
pub struct SubplanScan {
    /// The number in [`SubplanKind::Shared`].
    pub subplan: u32,
    /// Output columns, with the id each has inside the subplan.
    pub columns: Vec<(ColumnId, Field)>,
}

/// Joins `left` and `right`.
///
/// Output columns: all of both sides, in the order left, right; for semi and anti joins those of the left (right) side only; for
/// mark joins those of the left side and the mark.
#[derive(Clone, Debug, PartialEq)]
pub struct Join {
    /// Kind, as seen from the left.
    pub kind: JoinKind,
    /// Left input.
    pub left: Plan,
    /// Right input.
    pub right: Plan,
    /// Equalities `left expression = right expression`; of one type each.
    pub on: Vec<(Expr, Expr)>,
    /// Whether NULL equals NULL in `on` (INTERSECT, EXCEPT, IS NOT DISTINCT FROM).
    pub null_equals_null: bool,
    /// What else must hold for a pair; over columns of both sides.
    pub residual: Option<Expr>,
    /// Which side is built into a table; the other probes it. The optimizer chooses.
    pub build: Side,
    /// Run-time filters over the build side's keys that are published when the build is complete: filter and index into `on`.
    pub publishes: Vec<(FilterId, u32)>,
}

/// The kinds of join.
#[derive(Clone, Debug, PartialEq)]
pub enum JoinKind {
    /// Matching pairs.
    Inner,
    /// Pairs, and left rows without a match.
    Left,
    /// Pairs, and right rows without a match.
    Right,
    /// Pairs, and rows of either side without a match.
    Full,
    /// Left rows with a match.
    LeftSemi,
    /// Left rows without a match.
    LeftAnti,
    /// Right rows with a match.
    RightSemi,
    /// Right rows without a match.
    RightAnti,
    /// Every left row with a boolean: whether it has a match (`IN`, `EXISTS` under `OR`). NULL where SQL's `IN` says so.
    LeftMark(Field),
}

/// One side of a join.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The left input.
    Left,
    /// The right input.
    Right,
}

/// Groups and aggregates. Output columns: the keys, the grouping id if any, then the aggregates (in [`Phase::Partial`]: the keys
/// and one opaque `Binary` state column per aggregate, in memory an executor may keep better forms).
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    /// Input.
    pub input: Plan,
    /// Group keys; none: one group, also over no rows.
    pub keys: Vec<(Field, Expr)>,
    /// `GROUPING SETS`: each set lists the keys that it keeps, by index; the others are NULL. Empty: one set of all keys.
    pub grouping_sets: Vec<Vec<u32>>,
    /// With grouping sets: the output column (`UInt32`) whose bit `n - 1 - i` is set where key `i` of `n` is rolled up.
    pub grouping_id: Option<Field>,
    /// Aggregates.
    pub calls: Vec<(Field, AggregateCall)>,
    /// Which step this is.
    pub phase: Phase,
}

/// The steps of an aggregation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Input rows to final values, in one node.
    Single,
    /// Input rows to states; runs in a fragment.
    Partial,
    /// States to final values; the input is an [`ExchangeKind::Gather`] over a `Partial` with the same keys and calls.
    Final,
}

/// A sort key.
#[derive(Clone, Debug, PartialEq)]
pub struct SortKey {
    /// What to sort by.
    pub expr: Expr,
    /// `DESC`.
    pub descending: bool,
    /// `NULLS FIRST`.
    pub nulls_first: bool,
}

/// A window function call.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowCall {
    /// Output column.
    pub field: Field,
    /// Name in the function library.
    pub function: String,
    /// Arguments.
    pub args: Vec<Expr>,
    /// `PARTITION BY`.
    pub partition_by: Vec<Expr>,
    /// `ORDER BY`.
    pub order_by: Vec<SortKey>,
    /// Frame, as text of the form `ROWS BETWEEN ... AND ...`.
    pub frame: String,
}

/// Where the rows of a fragment go.
#[derive(Clone, Debug, PartialEq)]
pub enum ExchangeKind {
    /// To the one merging fragment above.
    Gather,
    /// Whole, to every partition's fragment above.
    Broadcast,
    /// By hash of the expressions to the partitions' fragments above.
    Shuffle(Vec<Expr>),
}

impl Plan {
    /// A node without number and estimate.
    #[must_use]
    pub fn new(node: Node) -> Plan {
        Plan { id: NodeId::default(), rows: 0.0, node }
    }

    /// A plan without rows or columns.
    #[must_use]
    pub fn empty() -> Plan {
        Plan::new(Node::Values(Values { fields: vec![], rows: vec![] }))
    }

    /// Takes the plan out of its place and leaves an empty one.
    #[must_use]
    pub fn take(&mut self) -> Plan {
        std::mem::replace(self, Plan::empty())
    }

    /// The inputs, left to right.
    #[must_use]
    pub fn inputs(&self) -> Vec<&Plan> {
        match &self.node {
            Node::Scan(_) | Node::Values(_) | Node::SubplanScan(_) => vec![],
            Node::Filter { input, .. }
            | Node::Project { input, .. }
            | Node::Sort { input, .. }
            | Node::Limit { input, .. }
            | Node::Repeat { input, .. }
            | Node::Window { input, .. }
            | Node::Exchange { input, .. } => vec![input],
            Node::Join(join) => vec![&join.left, &join.right],
            Node::Aggregate(aggregate) => vec![&aggregate.input],
            Node::Union { inputs, .. } => inputs.iter().map(|(plan, _)| plan).collect(),
        }
    }

    /// The inputs, left to right, mutable.
    pub fn inputs_mut(&mut self) -> Vec<&mut Plan> {
        match &mut self.node {
            Node::Scan(_) | Node::Values(_) | Node::SubplanScan(_) => vec![],
            Node::Filter { input, .. }
            | Node::Project { input, .. }
            | Node::Sort { input, .. }
            | Node::Limit { input, .. }
            | Node::Repeat { input, .. }
            | Node::Window { input, .. }
            | Node::Exchange { input, .. } => vec![input],
            Node::Join(join) => vec![&mut join.left, &mut join.right],
            Node::Aggregate(aggregate) => vec![&mut aggregate.input],
            Node::Union { inputs, .. } => inputs.iter_mut().map(|(plan, _)| plan).collect(),
        }
    }

    /// The output columns, in order.
    #[must_use]
    pub fn fields(&self) -> Vec<Field> {
        match &self.node {
            Node::Scan(scan) => scan.columns.iter().map(|c| c.field.clone()).collect(),
            Node::Values(values) => values.fields.clone(),
            Node::SubplanScan(scan) => scan.columns.iter().map(|(_, f)| f.clone()).collect(),
            Node::Filter { input, .. }
            | Node::Sort { input, .. }
            | Node::Limit { input, .. }
            | Node::Repeat { input, .. }
            | Node::Exchange { input, .. } => input.fields(),
            Node::Project { exprs, .. } => exprs.iter().map(|(f, _)| f.clone()).collect(),
            Node::Join(join) => join.fields(),
            Node::Aggregate(aggregate) => aggregate.fields(),
            Node::Union { fields, .. } => fields.clone(),
            Node::Window { input, calls } => {
                let mut fields = input.fields();
                fields.extend(calls.iter().map(|c| c.field.clone()));
                fields
            }
        }
    }
}

impl Join {
    /// One of its inputs.
    #[must_use]
    pub fn side(&self, side: Side) -> &Plan {
        if side == Side::Left { &self.left } else { &self.right }
    }

    /// One of its inputs, mutable.
    pub fn side_mut(&mut self, side: Side) -> &mut Plan {
        if side == Side::Left { &mut self.left } else { &mut self.right }
    }

    /// The output columns, in order.
    #[must_use]
    pub fn fields(&self) -> Vec<Field> {
        let nullable = |mut fields: Vec<Field>, yes: bool| {
            fields.iter_mut().for_each(|f| f.nullable |= yes);
            fields
        };
        match &self.kind {
            JoinKind::LeftSemi | JoinKind::LeftAnti => self.left.fields(),
            JoinKind::RightSemi | JoinKind::RightAnti => self.right.fields(),
            JoinKind::LeftMark(mark) => {
                let mut fields = self.left.fields();
                fields.push(mark.clone());
                fields
            }
            JoinKind::Inner | JoinKind::Left | JoinKind::Right | JoinKind::Full => {
                let left_null = matches!(self.kind, JoinKind::Right | JoinKind::Full);
                let right_null = matches!(self.kind, JoinKind::Left | JoinKind::Full);
                let mut fields = nullable(self.left.fields(), left_null);
                fields.extend(nullable(self.right.fields(), right_null));
                fields
            }
        }
    }
}

impl Aggregate {
    /// The output columns, in order.
    #[must_use]
    pub fn fields(&self) -> Vec<Field> {
        let mut fields: Vec<Field> = self.keys.iter().map(|(f, _)| f.clone()).collect();
        if !self.grouping_sets.is_empty() {
            fields.iter_mut().for_each(|f| f.nullable = true);
        }
        fields.extend(self.grouping_id.clone());
        for (field, _) in &self.calls {
            let mut field = field.clone();
            if self.phase == Phase::Partial {
                field.ty = DataType::Binary;
            }
            fields.push(field);
        }
        fields
    }
}
