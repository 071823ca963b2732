//! Aggregate calls compiled to slots and to the expressions that feed them.

use arrow::compute::SortOptions;
use stoa_plan::{
    Aggregate, AggregateCall, AggregateFunction as F, ColumnId, DataType, Expr, Field, Literal, Phase, UnaryOp, Value,
};

use super::folds::Fold;
use super::slot::SlotKind;
use crate::expression::{Expression, Parameters, bounds};
use crate::{Bounds, Error, Layout, LayoutColumn, Result, Settings};

/// A slot and where its arguments come from.
#[derive(Debug)]
pub(crate) struct SlotPlan {
    pub(crate) kind: SlotKind,
    /// Indices into [`Calls::computed`].
    pub(crate) args: Vec<usize>,
    pub(crate) arg_types: Vec<(DataType, Bounds)>,
    /// Index into [`Calls::filters`].
    pub(crate) filter: Option<usize>,
}

/// One aggregate call.
#[derive(Debug)]
pub(crate) struct CallPlan {
    pub(crate) function: F,
    pub(crate) ty: DataType,
    /// Types of the arguments as the slots see them, then of the order keys.
    pub(crate) arg_types: Vec<DataType>,
    pub(crate) slots: Vec<usize>,
    /// With DISTINCT: the slots that the distinct rows feed at the end, each with its arguments' positions in the row.
    pub(crate) inner: Option<Vec<(SlotKind, Vec<usize>)>>,
    pub(crate) order: Vec<SortOptions>,
    /// The percentile or the separator.
    pub(crate) constant: Option<Value>,
}

/// An expression evaluated once a batch.
#[derive(Debug)]
pub(crate) struct Computed {
    /// `None` in the final phase, where nothing is evaluated.
    pub(crate) expression: Option<Expression>,
    pub(crate) filter: Option<usize>,
    expr: Expr,
    nullable: bool,
}

/// All that a batch feeds.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    pub(crate) computed: Vec<Computed>,
    pub(crate) filters: Vec<Expression>,
    pub(crate) slots: Vec<SlotPlan>,
    pub(crate) calls: Vec<CallPlan>,
    /// Positions of the keys in `computed`.
    pub(crate) keys: Vec<usize>,
}

/// Compiles the keys and calls of an aggregation.
pub(crate) struct Builder<'a> {
    pub(crate) calls: Calls,
    layout: Layout,
    input: &'a Layout,
    parameters: &'a Parameters,
    settings: &'a Settings,
    evaluates: bool,
    filters: Vec<Expr>,
}

/// The first id of columns that stand for computed expressions.
const SYNTHETIC: u32 = u32::MAX - 100_000;

impl<'a> Builder<'a> {
    pub(crate) fn build(
        aggregate: &Aggregate,
        input: &'a Layout,
        parameters: &'a Parameters,
        settings: &'a Settings,
    ) -> Result<Calls> {
        let evaluates = aggregate.phase != Phase::Final;
        let layout = input.clone();
        let mut builder = Builder { calls: Calls::default(), layout, input, parameters, settings, evaluates, filters: vec![] };
        for (_, expr) in &aggregate.keys {
            let key = builder.compute(expr, None)?;
            builder.calls.keys.push(key);
        }
        for (_, call) in &aggregate.calls {
            builder.call(call)?;
        }
        Ok(builder.calls)
    }

    /// The index of an expression among those computed. One that contains an earlier one reads its result.
    fn compute(&mut self, expr: &Expr, filter: Option<usize>) -> Result<usize> {
        if let Some(at) = self.calls.computed.iter().position(|c| c.expr == *expr && c.filter == filter) {
            return Ok(at);
        }
        let index = self.calls.computed.len();
        if !self.evaluates {
            self.calls.computed.push(Computed { expression: None, filter, expr: expr.clone(), nullable: true });
            return Ok(index);
        }
        let mut reduced = expr.clone();
        let layout = if filter.is_none() {
            self.reduce(&mut reduced);
            &self.layout
        } else {
            self.input
        };
        let expression = Expression::compile(&reduced, layout, self.parameters, self.settings)?;
        let nullable = nullable(expr, self.input);
        if filter.is_none() {
            let name = expression.description().to_owned();
            let field = Field { id: ColumnId(SYNTHETIC + index as u32), name, ty: expression.data_type(), nullable };
            self.layout.columns.push(LayoutColumn { field, bounds: expression.bounds() });
        }
        self.calls.computed.push(Computed { expression: Some(expression), filter, expr: expr.clone(), nullable });
        Ok(index)
    }

    fn reduce(&self, expr: &mut Expr) {
        if matches!(expr, Expr::Column(..) | Expr::Literal(_) | Expr::Parameter(..)) {
            return;
        }
        let known = self.calls.computed.iter().position(|c| {
            c.filter.is_none()
                && c.expr == *expr
                && c.expression.as_ref().is_some_and(|e| !e.is_volatile() && e.constant().is_none())
        });
        if let Some(index) = known {
            *expr = Expr::Column(ColumnId(SYNTHETIC + index as u32), expr.data_type());
            return;
        }
        expr.children_mut().into_iter().for_each(|child| self.reduce(child));
    }

    fn call(&mut self, call: &AggregateCall) -> Result<()> {
        let filter = call.filter.as_ref().map(|f| self.filter(f)).transpose()?;
        let constant = match call.function {
            F::PercentileCont | F::ApproxPercentile | F::StringAgg => Some(self.constant(call)?),
            _ => None,
        };
        let used = if constant.is_some() { 1 } else { call.args.len() };
        let mut args: Vec<Expr> = call.args.iter().take(used).map(|a| for_function(call.function, a)).collect();
        let real = args.len();
        let ordered = matches!(call.function, F::StringAgg | F::FirstValue | F::LastValue);
        let order_by = if ordered { call.order_by.as_slice() } else { &[] };
        args.extend(order_by.iter().map(|k| k.expr.clone()));
        let order = order_by.iter().map(|k| SortOptions { descending: k.descending, nulls_first: k.nulls_first }).collect();
        let arg_types: Vec<DataType> = args.iter().map(Expr::data_type).collect();
        let kinds = kinds(call.function, &arg_types, real, !order_by.is_empty())?;
        let mut slots = Vec::new();
        let distinct = call.distinct && !indifferent(call.function);
        if distinct {
            let required = if call.function == F::Count { real } else { 1 };
            slots.push(self.slot(SlotKind::Distinct { required }, &args, filter)?);
        } else {
            for (kind, positions) in &kinds {
                let args: Vec<Expr> = positions.iter().map(|p| args[*p].clone()).collect();
                slots.push(self.slot(kind.clone(), &args, filter)?);
            }
        }
        let inner = distinct.then_some(kinds);
        self.calls.calls.push(CallPlan { function: call.function, ty: call.ty, arg_types, slots, inner, order, constant });
        Ok(())
    }

    fn filter(&mut self, expr: &Expr) -> Result<usize> {
        if let Some(at) = self.filters.iter().position(|f| f == expr) {
            return Ok(at);
        }
        if self.evaluates {
            self.calls.filters.push(Expression::compile(expr, self.input, self.parameters, self.settings)?);
        }
        self.filters.push(expr.clone());
        Ok(self.filters.len() - 1)
    }

    fn slot(&mut self, kind: SlotKind, args: &[Expr], filter: Option<usize>) -> Result<usize> {
        let mut indices = Vec::new();
        for arg in args {
            let index = self.compute(arg, filter)?;
            // Rows whose argument cannot be NULL count whole.
            if kind != SlotKind::Count || self.calls.computed[index].nullable {
                indices.push(index);
            }
        }
        let same = |s: &SlotPlan| s.kind == kind && s.args == indices && s.filter == filter;
        if let Some(at) = self.calls.slots.iter().position(same) {
            return Ok(at);
        }
        let known = |index: &usize| {
            let computed = &self.calls.computed[*index];
            (computed.expr.data_type(), computed.expression.as_ref().map_or(Bounds::default(), Expression::bounds))
        };
        let arg_types = indices.iter().map(known).collect();
        self.calls.slots.push(SlotPlan { kind, args: indices, arg_types, filter });
        Ok(self.calls.slots.len() - 1)
    }

    fn constant(&self, call: &AggregateCall) -> Result<Value> {
        let wrong = || Error::Unsupported(format!("{:?} with a second argument that is no constant", call.function));
        let Some(expr) = call.args.get(1) else {
            return if call.function == F::StringAgg { Ok(Value::Str(String::new())) } else { Err(wrong()) };
        };
        let ty = if call.function == F::StringAgg { DataType::Utf8 } else { DataType::Float64 };
        let expr = Expr::Cast { input: Box::new(expr.clone()), ty, safe: false };
        let compiled = Expression::compile(&expr, &Layout::default(), self.parameters, self.settings)?;
        let array = compiled.constant().ok_or_else(wrong)?;
        use arrow::array::{Array, AsArray};
        if array.is_null(0) {
            return Ok(Value::Null);
        }
        if ty == DataType::Utf8 {
            return Ok(Value::Str(array.as_string_view().value(0).to_owned()));
        }
        let p = array.as_primitive::<arrow::datatypes::Float64Type>().value(0);
        if (0.0..=1.0).contains(&p) {
            Ok(Value::Float(p))
        } else {
            Err(Error::User(format!("a percentile must be from 0 to 1, not {p}")))
        }
    }
}

/// Whether DISTINCT changes nothing.
fn indifferent(function: F) -> bool {
    matches!(
        function,
        F::Min
            | F::Max
            | F::BoolAnd
            | F::BoolOr
            | F::BitAnd
            | F::BitOr
            | F::AnyValue
            | F::ApproxDistinct
            | F::FirstValue
            | F::LastValue
    )
}

/// The argument in the type that the function works in.
fn for_function(function: F, arg: &Expr) -> Expr {
    let ty = arg.data_type();
    let number = bounds::of_type(ty).is_some();
    let target = match function {
        F::Sum | F::Avg | F::Min | F::Max if ty == DataType::Float32 => DataType::Float64,
        F::Median | F::PercentileCont | F::ApproxPercentile if ty == DataType::Float32 => DataType::Float64,
        F::Sum | F::Avg if !number => DataType::Float64,
        F::StringAgg => DataType::Utf8,
        F::VarPop
        | F::VarSamp
        | F::StddevPop
        | F::StddevSamp
        | F::CovarPop
        | F::CovarSamp
        | F::Corr
        | F::RegrSlope
        | F::RegrIntercept
        | F::RegrR2
        | F::RegrCount
        | F::RegrAvgx
        | F::RegrAvgy
        | F::RegrSxx
        | F::RegrSyy
        | F::RegrSxy => DataType::Float64,
        _ => ty,
    };
    if ty == target { arg.clone() } else { Expr::Cast { input: Box::new(arg.clone()), ty: target, safe: false } }
}

/// The slots of a function with the positions of their arguments.
fn kinds(function: F, types: &[DataType], args: usize, ordered: bool) -> Result<Vec<(SlotKind, Vec<usize>)>> {
    let wrong = || Error::Unsupported(format!("{function:?} of {types:?}"));
    let ty = types.first().copied();
    let needed = match function {
        F::Count => 0,
        F::CovarPop | F::CovarSamp | F::Corr => 2,
        F::RegrSlope
        | F::RegrIntercept
        | F::RegrR2
        | F::RegrCount
        | F::RegrAvgx
        | F::RegrAvgy
        | F::RegrSxx
        | F::RegrSyy
        | F::RegrSxy => 2,
        _ => 1,
    };
    if args < needed {
        return Err(wrong());
    }
    let number = ty.is_some_and(|ty| bounds::of_type(ty).is_some());
    let float = ty == Some(DataType::Float64);
    let with_count = |kind| Ok(vec![(kind, vec![0]), (SlotKind::Count, vec![0])]);
    let int_or_float = |fold| match () {
        () if number => with_count(SlotKind::Ints(fold)),
        () if float => with_count(SlotKind::Floats(fold)),
        () => Err(wrong()),
    };
    let all: Vec<usize> = (0..types.len()).collect();
    match function {
        F::Count => Ok(vec![(SlotKind::Count, all)]),
        F::Sum | F::Avg => int_or_float(Fold::Sum),
        F::Min | F::Max => match ty {
            Some(DataType::Utf8 | DataType::Binary) => Ok(vec![(SlotKind::Bytes { max: function == F::Max }, vec![0])]),
            Some(DataType::Null) => Ok(vec![(SlotKind::Pick { last: false, skip_nulls: false }, vec![0])]),
            _ => int_or_float(if function == F::Max { Fold::Max } else { Fold::Min }),
        },
        F::BoolAnd if number => with_count(SlotKind::Ints(Fold::Min)),
        F::BoolOr if number => with_count(SlotKind::Ints(Fold::Max)),
        F::BitAnd if number => with_count(SlotKind::Ints(Fold::And)),
        F::BitOr if number => with_count(SlotKind::Ints(Fold::Or)),
        F::BitXor if number => with_count(SlotKind::Ints(Fold::Xor)),
        F::BoolAnd | F::BoolOr | F::BitAnd | F::BitOr | F::BitXor => Err(wrong()),
        F::Median | F::PercentileCont | F::ApproxPercentile if number || float => Ok(vec![(SlotKind::Collect, vec![0])]),
        F::Median | F::PercentileCont | F::ApproxPercentile => Err(wrong()),
        F::ApproxDistinct => Ok(vec![(SlotKind::Sketch, vec![0])]),
        F::StringAgg => Ok(vec![(SlotKind::Collect, all)]),
        F::FirstValue | F::LastValue if ordered => Ok(vec![(SlotKind::Collect, all)]),
        F::FirstValue | F::LastValue => Ok(vec![(SlotKind::Pick { last: function == F::LastValue, skip_nulls: false }, vec![0])]),
        F::AnyValue => Ok(vec![(SlotKind::Pick { last: false, skip_nulls: true }, vec![0])]),
        F::VarPop | F::VarSamp | F::StddevPop | F::StddevSamp => Ok(vec![(SlotKind::Moments, vec![0])]),
        _ => Ok(vec![(SlotKind::Moments, vec![0, 1])]),
    }
}

/// Whether an expression may be NULL, as far as its form tells.
fn nullable(expr: &Expr, layout: &Layout) -> bool {
    let any = |list: Vec<&Expr>| list.into_iter().any(|e| nullable(e, layout));
    match expr {
        Expr::Column(id, _) => layout.columns.iter().find(|c| c.field.id == *id).is_none_or(|c| c.field.nullable),
        Expr::Literal(Literal { value, .. }) => *value == Value::Null,
        Expr::Binary { .. } | Expr::InList { .. } | Expr::Like { .. } | Expr::Cast { safe: false, .. } => any(expr.children()),
        Expr::Unary { op: UnaryOp::Not | UnaryOp::Negate, input } => nullable(input, layout),
        Expr::Unary { .. } => false,
        Expr::Case { branches, otherwise, .. } => {
            otherwise.as_ref().is_none_or(|o| nullable(o, layout)) || branches.iter().any(|(_, r)| nullable(r, layout))
        }
        _ => true,
    }
}
