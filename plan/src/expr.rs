//! Scalar expressions and aggregate calls.
//!
//! Expressions name columns by [`ColumnId`]. They are typed: the front end inserts every cast, so that both sides of a comparison
//! have one type and the result type of a node follows from its parts. Functions that Stoa has no kernel for are named as
//! DataFusion's function library names them and carry their result type.

use crate::{ColumnId, DataType, Literal, ParameterId};

/// A scalar expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// A column of the input, with its type.
    Column(ColumnId, DataType),
    /// A constant.
    Literal(Literal),
    /// The single value of a scalar subplan that ran before (see [`crate::Subplan`]), with its type.
    Parameter(ParameterId, DataType),
    /// `left op right`. Both sides of a comparison have the same type (decimals: the same scale is not required). The type of
    /// arithmetic is `ty`, as the front end derived it.
    Binary {
        /// The operator.
        op: BinaryOp,
        /// Left operand.
        left: Box<Expr>,
        /// Right operand.
        right: Box<Expr>,
        /// Result type.
        ty: DataType,
    },
    /// `op input`.
    Unary {
        /// The operator.
        op: UnaryOp,
        /// Operand.
        input: Box<Expr>,
    },
    /// `CAST(input AS ty)`; with `safe`, `TRY_CAST`: a value that does not fit is NULL instead of an error.
    Cast {
        /// Operand.
        input: Box<Expr>,
        /// Target type.
        ty: DataType,
        /// Whether a bad value is NULL.
        safe: bool,
    },
    /// `CASE WHEN c1 THEN r1 ... ELSE e END`; the form with an operand is rewritten to this one by the front end.
    Case {
        /// Conditions and results, in order.
        branches: Vec<(Expr, Expr)>,
        /// Result where no condition is true; NULL if absent.
        otherwise: Option<Box<Expr>>,
        /// Result type.
        ty: DataType,
    },
    /// `input [NOT] IN (list)`; the list may hold any expressions.
    InList {
        /// Operand.
        input: Box<Expr>,
        /// Candidates, of the operand's type.
        list: Vec<Expr>,
        /// `NOT IN`.
        negated: bool,
    },
    /// `input [NOT] LIKE pattern [ESCAPE c]`, `ILIKE`.
    Like {
        /// Operand.
        input: Box<Expr>,
        /// Pattern, with `%` and `_`.
        pattern: Box<Expr>,
        /// Escape character.
        escape: Option<char>,
        /// `NOT LIKE`.
        negated: bool,
        /// `ILIKE`.
        case_insensitive: bool,
    },
    /// A scalar function by its name in the function library, e.g. `substr`, `date_part`, `round`, `coalesce`.
    Function {
        /// Lower-case name.
        name: String,
        /// Arguments.
        args: Vec<Expr>,
        /// Result type.
        ty: DataType,
    },
}

/// A binary operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the variants are the operators of SQL")]
pub enum BinaryOp {
    Eq,
    NotEq,
    Lt,
    LtEq,
    Gt,
    GtEq,
    IsDistinctFrom,
    IsNotDistinctFrom,
    And,
    Or,
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    BitAnd,
    BitOr,
    BitXor,
    ShiftLeft,
    ShiftRight,
    /// `||`.
    Concat,
    /// `~`: regular expression match; the `Not` and `I` (case-insensitive) forms are `!~`, `~*`, `!~*`.
    RegexMatch,
    RegexIMatch,
    RegexNotMatch,
    RegexNotIMatch,
}

impl BinaryOp {
    /// The comparison that says the same with its sides exchanged; `None` for an operator that is none.
    #[must_use]
    pub fn mirrored(self) -> Option<BinaryOp> {
        Some(match self {
            BinaryOp::Lt => BinaryOp::Gt,
            BinaryOp::LtEq => BinaryOp::GtEq,
            BinaryOp::Gt => BinaryOp::Lt,
            BinaryOp::GtEq => BinaryOp::LtEq,
            BinaryOp::Eq | BinaryOp::NotEq => self,
            _ => return None,
        })
    }
}

/// A unary operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the variants are the operators of SQL")]
pub enum UnaryOp {
    Not,
    Negate,
    IsNull,
    IsNotNull,
    IsTrue,
    IsNotTrue,
    IsFalse,
    IsNotFalse,
    IsUnknown,
    IsNotUnknown,
}

/// One aggregate of an [`crate::Aggregate`] node.
#[derive(Clone, Debug, PartialEq)]
pub struct AggregateCall {
    /// What it computes.
    pub function: AggregateFunction,
    /// Arguments; none for `COUNT(*)`.
    pub args: Vec<Expr>,
    /// `DISTINCT`.
    pub distinct: bool,
    /// `FILTER (WHERE ...)`.
    pub filter: Option<Expr>,
    /// `ORDER BY` inside the call (`string_agg`, `first_value`, ...).
    pub order_by: Vec<crate::SortKey>,
    /// Result type of the final value.
    pub ty: DataType,
}

/// The aggregate functions, a closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the variants are the functions of SQL")]
pub enum AggregateFunction {
    /// `COUNT(*)` without an argument, `COUNT(x)` with one or several (rows where none is NULL).
    Count,
    Sum,
    Avg,
    Min,
    Max,
    VarPop,
    VarSamp,
    StddevPop,
    StddevSamp,
    CovarPop,
    CovarSamp,
    Corr,
    Median,
    /// `percentile_cont(p)`: arguments are the value and the literal p.
    PercentileCont,
    ApproxDistinct,
    /// `approx_percentile_cont(x, p)`.
    ApproxPercentile,
    BoolAnd,
    BoolOr,
    BitAnd,
    BitOr,
    BitXor,
    /// `string_agg(x, separator)`.
    StringAgg,
    FirstValue,
    LastValue,
    /// Any one value of the group (for keys that are functionally determined by others).
    AnyValue,
    RegrSlope,
    RegrIntercept,
    RegrR2,
    RegrCount,
    RegrAvgx,
    RegrAvgy,
    RegrSxx,
    RegrSyy,
    RegrSxy,
}

impl Expr {
    /// The type of the value that this expression yields.
    #[must_use]
    pub fn data_type(&self) -> DataType {
        match self {
            Expr::Column(_, ty) | Expr::Parameter(_, ty) => *ty,
            Expr::Literal(literal) => literal.ty,
            Expr::Binary { ty, .. } | Expr::Cast { ty, .. } | Expr::Case { ty, .. } | Expr::Function { ty, .. } => *ty,
            Expr::Unary { op: UnaryOp::Negate, input } => input.data_type(),
            Expr::Unary { .. } | Expr::InList { .. } | Expr::Like { .. } => DataType::Bool,
        }
    }

    /// Calls `visit` on this expression and every one below it, parents first.
    pub fn walk(&self, visit: &mut dyn FnMut(&Expr)) {
        visit(self);
        for child in self.children() {
            child.walk(visit);
        }
    }

    /// The direct operands, in evaluation order.
    #[must_use]
    pub fn children(&self) -> Vec<&Expr> {
        match self {
            Expr::Column(..) | Expr::Literal(_) | Expr::Parameter(..) => vec![],
            Expr::Binary { left, right, .. } => vec![left, right],
            Expr::Unary { input, .. } | Expr::Cast { input, .. } => vec![input],
            Expr::Case { branches, otherwise, .. } => {
                let mut all: Vec<&Expr> = branches.iter().flat_map(|(c, r)| [c, r]).collect();
                all.extend(otherwise.as_deref());
                all
            }
            Expr::InList { input, list, .. } => std::iter::once(&**input).chain(list).collect(),
            Expr::Like { input, pattern, .. } => vec![input, pattern],
            Expr::Function { args, .. } => args.iter().collect(),
        }
    }

    /// The direct operands, mutable, in evaluation order.
    pub fn children_mut(&mut self) -> Vec<&mut Expr> {
        match self {
            Expr::Column(..) | Expr::Literal(_) | Expr::Parameter(..) => vec![],
            Expr::Binary { left, right, .. } => vec![left, right],
            Expr::Unary { input, .. } | Expr::Cast { input, .. } => vec![input],
            Expr::Case { branches, otherwise, .. } => {
                let mut all: Vec<&mut Expr> = branches.iter_mut().flat_map(|(c, r)| [c, r]).collect();
                all.extend(otherwise.as_deref_mut());
                all
            }
            Expr::InList { input, list, .. } => std::iter::once(&mut **input).chain(list).collect(),
            Expr::Like { input, pattern, .. } => vec![input, pattern],
            Expr::Function { args, .. } => args.iter_mut().collect(),
        }
    }

    /// The distinct columns that this expression reads, in order of first use.
    #[must_use]
    pub fn columns(&self) -> Vec<ColumnId> {
        let mut found = Vec::new();
        self.walk(&mut |e| {
            if let Expr::Column(id, _) = e
                && !found.contains(id)
            {
                found.push(*id);
            }
        });
        found
    }
}
