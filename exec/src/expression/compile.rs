//! From plan expressions to physical nodes.

use stoa_plan::{BinaryOp, DataType, Expr, Literal, UnaryOp, Value};

use super::arithmetic::{Arithmetic, FloatArithmetic};
use super::bits::Bits;
use super::calendar::{DatePart, IntervalArithmetic, Part};
use super::case::{Case, Coalesce};
use super::cast::Cast;
use super::compare::Compare;
use super::entries::PerEntry;
use super::function::Call;
use super::list::{InList, Set};
use super::logic::{Is, Logic};
use super::node::{Compiled, Node};
use super::pattern::{Language, Matcher, Pattern};
use super::text::{Concat, Substring};
use super::value::{int_at, literal};
use super::{Parameters, bounds};
use crate::{Batch, Bounds, Error, Layout, Result, Settings};

/// What a compilation needs.
pub(crate) struct Compiler<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) parameters: &'a Parameters,
    pub(crate) settings: &'a Settings,
}

/// Deepest expression: evaluation recurses.
const MAX_DEPTH: usize = 500;

impl Compiler<'_> {
    /// Compiles a whole expression.
    pub(crate) fn root(&self, expr: &Expr) -> Result<Compiled> {
        let mut compiled = self.compile(expr, 0)?;
        if !self.settings.no_fast_paths {
            self.wrap(&mut compiled);
        }
        Ok(compiled)
    }

    fn compile(&self, expr: &Expr, depth: usize) -> Result<Compiled> {
        if depth > MAX_DEPTH {
            return Err(Error::Unsupported("an expression nested this deep".into()));
        }
        let compiled = self.node(expr, depth)?;
        Ok(fold(compiled))
    }

    fn node(&self, expr: &Expr, depth: usize) -> Result<Compiled> {
        let below = |e: &Expr| self.compile(e, depth + 1);
        match expr {
            Expr::Column(id, ty) => {
                let position = self.layout.position(*id)?;
                let column = &self.layout.columns[position];
                if column.field.ty != *ty {
                    return Err(Error::Internal(format!("column {} is {:?}, not {ty:?}", column.field.name, column.field.ty)));
                }
                Ok(leaf(Node::Column(position), *ty, column.bounds, vec![position]))
            }
            Expr::Literal(value) => constant(value),
            Expr::Parameter(id, ty) => {
                let value = self.parameters.get(id).ok_or_else(|| Error::Internal(format!("parameter {} has no value", id.0)))?;
                coerced(constant(value)?, *ty)
            }
            Expr::Binary { op, left, right, ty } => {
                if let BinaryOp::And | BinaryOp::Or = op {
                    let mut parts = Vec::new();
                    self.chain(*op, expr, depth, &mut parts)?;
                    return Ok(inner(parts, DataType::Bool, 1, |parts| {
                        Node::Logic(Box::new(Logic { and: *op == BinaryOp::And, parts }))
                    }));
                }
                self.binary(*op, below(left)?, below(right)?, *ty)
            }
            Expr::Unary { op, input } => unary(*op, below(input)?),
            Expr::Cast { input, ty, safe } => cast(below(input)?, *ty, *safe),
            Expr::Case { branches, otherwise, ty } => self.case(branches, otherwise.as_deref(), *ty, depth),
            Expr::InList { input, list, negated } => {
                let list = list.iter().map(below).collect::<Result<Vec<_>>>()?;
                in_list(below(input)?, list, *negated, &|| below(input))
            }
            Expr::Like { input, pattern, escape, negated, case_insensitive } => {
                let language = Language::Like { escape: *escape, case_insensitive: *case_insensitive };
                pattern_match(below(input)?, below(pattern)?, language, *negated)
            }
            Expr::Function { name, args, ty } => {
                let args = args.iter().map(below).collect::<Result<Vec<_>>>()?;
                function(name, args, *ty)
            }
        }
    }

    /// The operands of nested ANDs (ORs), left to right, without deep recursion on the left.
    fn chain(&self, op: BinaryOp, expr: &Expr, depth: usize, parts: &mut Vec<Compiled>) -> Result<()> {
        let mut rights = Vec::new();
        let mut at = expr;
        while let Expr::Binary { op: found, left, right, .. } = at
            && *found == op
        {
            rights.push(&**right);
            at = left;
        }
        parts.push(self.compile(at, depth + 1)?);
        for right in rights.into_iter().rev() {
            match right {
                Expr::Binary { op: found, .. } if *found == op && depth < MAX_DEPTH => self.chain(op, right, depth + 1, parts)?,
                _ => parts.push(self.compile(right, depth + 1)?),
            }
        }
        Ok(())
    }

    fn binary(&self, op: BinaryOp, left: Compiled, right: Compiled, ty: DataType) -> Result<Compiled> {
        use BinaryOp as B;
        match op {
            B::Eq | B::NotEq | B::Lt | B::LtEq | B::Gt | B::GtEq | B::IsDistinctFrom | B::IsNotDistinctFrom => {
                try_inner(vec![left, right], DataType::Bool, 1, |parts| {
                    let [left, right] = two(parts)?;
                    Compare::compile(op, left, right)
                })
            }
            B::Add | B::Sub | B::Mul | B::Div | B::Mod => arithmetic(op, left, right, ty),
            B::BitAnd | B::BitOr | B::BitXor | B::ShiftLeft | B::ShiftRight => {
                let mut node = try_inner(vec![left, right], ty, 2, |parts| {
                    let [left, right] = two(parts)?;
                    Ok(Node::Bits(Box::new(Bits { op, left, right, ty })))
                })?;
                node.fallible |= matches!(op, B::ShiftLeft | B::ShiftRight);
                Ok(node)
            }
            B::Concat => try_inner(vec![left, right], DataType::Utf8, 40, |parts| {
                let [left, right] = two(parts)?;
                Ok(Node::Concat(Box::new(Concat { left, right })))
            }),
            B::RegexMatch | B::RegexNotMatch | B::RegexIMatch | B::RegexNotIMatch => {
                let language = Language::Regex { case_insensitive: matches!(op, B::RegexIMatch | B::RegexNotIMatch) };
                pattern_match(left, right, language, matches!(op, B::RegexNotMatch | B::RegexNotIMatch))
            }
            B::And | B::Or => Err(Error::Internal("a chain that is none".into())),
        }
    }

    fn case(&self, branches: &[(Expr, Expr)], otherwise: Option<&Expr>, ty: DataType, depth: usize) -> Result<Compiled> {
        let mut parts = Vec::new();
        for (condition, result) in branches {
            parts.push(self.compile(condition, depth + 1)?);
            parts.push(coerced(self.compile(result, depth + 1)?, ty)?);
        }
        parts.push(match otherwise {
            Some(otherwise) => coerced(self.compile(otherwise, depth + 1)?, ty)?,
            None => constant(&Literal { ty, value: Value::Null })?,
        });
        let results = || parts.iter().skip(1).step_by(2).chain(parts.last());
        let mut range = None;
        let mut blend = !self.settings.no_fast_paths && ty != DataType::Bool && branches.len() <= 4;
        for result in results().filter(|r| r.constant().is_none_or(|c| c.null_count() == 0)) {
            let Some(known) = bounds::effective(result.bounds, ty) else {
                (blend, range) = (false, None);
                break;
            };
            range = Some(range.map_or(known, |r| bounds::union(r, known)));
            blend &= bounds::narrow(ty, known) && (bounds::fits_i64(known));
        }
        blend &= bounds::of_type(ty).is_some() && range.is_some_and(|r| bounds::narrow(ty, r));
        blend &= parts.iter().all(|p| !p.fallible && !p.volatile && p.cost <= 60);
        let mut node = inner(parts, ty, 3, |mut parts| {
            let otherwise = parts.pop().unwrap_or_else(|| leaf(Node::Column(0), ty, Bounds::default(), vec![]));
            let mut branches = Vec::new();
            let mut parts = parts.into_iter();
            while let (Some(condition), Some(result)) = (parts.next(), parts.next()) {
                branches.push((condition, result));
            }
            Node::Case(Box::new(Case { branches, otherwise, ty, blend }))
        });
        node.bounds = Bounds { range };
        Ok(node)
    }

    /// Wraps the highest nodes that read one string column only.
    fn wrap(&self, compiled: &mut Compiled) {
        if let [column] = compiled.columns[..]
            && self.layout.columns[column].field.ty == DataType::Utf8
            && !compiled.volatile
            && !matches!(compiled.node, Node::Column(_))
        {
            let placeholder = leaf(Node::Column(column), DataType::Utf8, Bounds::default(), vec![column]);
            let inner = std::mem::replace(compiled, placeholder);
            let fallible = inner.fallible;
            *compiled = leaf(Node::Column(column), inner.ty, inner.bounds, vec![column]);
            compiled.fallible = fallible;
            compiled.cost = 3;
            compiled.node = Node::PerEntry(Box::new(PerEntry::new(column, inner)));
            return;
        }
        for child in compiled.node.children_mut() {
            self.wrap(child);
        }
    }
}

fn leaf(node: Node, ty: DataType, bounds: Bounds, columns: Vec<usize>) -> Compiled {
    Compiled { node, ty, bounds, fallible: false, cost: 0, columns, volatile: false }
}

/// A constant.
pub(crate) fn constant(value: &Literal) -> Result<Compiled> {
    let range = super::value::integer(&value.value).map(|v| (v, v));
    Ok(leaf(Node::Constant(literal(value)?), value.ty, Bounds { range }, vec![]))
}

fn two(parts: Vec<Compiled>) -> Result<[Compiled; 2]> {
    parts.try_into().map_err(|_| Error::Internal("two operands expected".into()))
}

fn try_inner(
    parts: Vec<Compiled>,
    ty: DataType,
    cost: u32,
    build: impl FnOnce(Vec<Compiled>) -> Result<Node>,
) -> Result<Compiled> {
    let mut failure = None;
    let compiled = inner(parts, ty, cost, |parts| {
        build(parts).unwrap_or_else(|error| {
            failure = Some(error);
            Node::Column(0)
        })
    });
    failure.map_or(Ok(compiled), Err)
}

/// A node over `parts`, with what follows from them.
fn inner(parts: Vec<Compiled>, ty: DataType, cost: u32, build: impl FnOnce(Vec<Compiled>) -> Node) -> Compiled {
    let mut columns: Vec<usize> = parts.iter().flat_map(|p| p.columns.iter().copied()).collect();
    columns.sort_unstable();
    columns.dedup();
    let fallible = parts.iter().any(|p| p.fallible);
    let volatile = parts.iter().any(|p| p.volatile);
    let cost = parts.iter().fold(cost, |sum, p| sum.saturating_add(p.cost));
    Compiled { node: build(parts), ty, bounds: Bounds::default(), fallible, cost, columns, volatile }
}

/// Evaluates what has no columns once. What fails is left: it may never be evaluated.
fn fold(compiled: Compiled) -> Compiled {
    if !compiled.columns.is_empty() || compiled.volatile || compiled.constant().is_some() {
        return compiled;
    }
    let batch = Batch { columns: vec![], rows: 1 };
    let Ok(array) = compiled.evaluate(&batch).and_then(|v| v.into_array(1)) else { return compiled };
    let range = if array.is_null(0) { None } else { int_at(&array, 0).ok().map(|v| (v, v)) };
    leaf(Node::Constant(array), compiled.ty, Bounds { range }, vec![])
}

fn coerced(compiled: Compiled, ty: DataType) -> Result<Compiled> {
    if compiled.ty == ty { Ok(compiled) } else { cast(compiled, ty, false).map(fold) }
}

fn cast(input: Compiled, ty: DataType, safe: bool) -> Result<Compiled> {
    let numbers = bounds::of_type(input.ty).is_some() && bounds::of_type(ty).is_some();
    let (mut known, mut fails) = (Bounds::default(), false);
    let mut compiled = try_inner(vec![input], ty, if numbers { 1 } else { 30 }, |mut parts| {
        let input = parts.pop().ok_or_else(|| Error::Internal("a cast of nothing".into()))?;
        let (node, bounds, fallible) = Cast::compile(input, ty, safe);
        (known, fails) = (bounds, fallible);
        Ok(node)
    })?;
    compiled.bounds = known;
    compiled.fallible |= fails;
    Ok(compiled)
}

fn arithmetic(op: BinaryOp, left: Compiled, right: Compiled, ty: DataType) -> Result<Compiled> {
    if left.ty == DataType::Null || right.ty == DataType::Null {
        return constant(&Literal { ty, value: Value::Null });
    }
    if IntervalArithmetic::applies(left.ty, right.ty) && matches!(op, BinaryOp::Add | BinaryOp::Sub) {
        let mut node = try_inner(vec![left, right], ty, 8, |parts| {
            let [left, right] = two(parts)?;
            let node = IntervalArithmetic { left, right, subtract: op == BinaryOp::Sub, ty };
            Ok(Node::Interval(Box::new(node)))
        })?;
        node.fallible = true;
        return Ok(node);
    }
    if matches!(ty, DataType::Float32 | DataType::Float64) {
        let mut node = try_inner(vec![left, right], ty, 1, |parts| {
            let [left, right] = two(parts)?;
            Ok(Node::Float(Box::new(FloatArithmetic { op, left, right, ty })))
        })?;
        node.fallible |= matches!(op, BinaryOp::Div | BinaryOp::Mod);
        return Ok(node);
    }
    let exact = |c: Compiled| if bounds::of_type(c.ty).is_some() { Ok(c) } else { cast(c, ty, false) };
    let (mut known, mut fails) = (Bounds::default(), false);
    let mut node = try_inner(vec![exact(left)?, exact(right)?], ty, 1, |parts| {
        let [left, right] = two(parts)?;
        let (node, bounds, fallible) = Arithmetic::compile(op, left, right, ty)?;
        (known, fails) = (bounds, fallible);
        Ok(node)
    })?;
    node.bounds = known;
    node.fallible |= fails;
    node.cost += if fails { 8 } else { 0 };
    Ok(node)
}

fn unary(op: UnaryOp, input: Compiled) -> Result<Compiled> {
    if op != UnaryOp::Negate {
        return try_inner(vec![input], DataType::Bool, 1, |mut parts| {
            let input = parts.pop().ok_or_else(|| Error::Internal("no operand".into()))?;
            Ok(Node::Is(Box::new(Is { op, input })))
        });
    }
    let ty = input.ty;
    let (op, zero) = match ty {
        DataType::Float32 | DataType::Float64 => (BinaryOp::Mul, Value::Float(-1.0)),
        DataType::Interval => (BinaryOp::Sub, Value::Interval { months: 0, days: 0, nanos: 0 }),
        DataType::Null => (BinaryOp::Sub, Value::Null),
        _ => (BinaryOp::Sub, Value::Int(0)),
    };
    arithmetic(op, constant(&Literal { ty, value: zero })?, input, ty)
}

fn in_list(input: Compiled, list: Vec<Compiled>, negated: bool, again: &dyn Fn() -> Result<Compiled>) -> Result<Compiled> {
    if let Some((set, has_null)) = Set::of(&input, &list) {
        return try_inner(vec![input], DataType::Bool, 2, |mut parts| {
            let input = parts.pop().ok_or_else(|| Error::Internal("no operand".into()))?;
            Ok(Node::InList(Box::new(InList { input, set, has_null, negated })))
        });
    }
    let mut parts = Vec::new();
    let mut input = Some(input);
    for candidate in list {
        let left = input.take().map_or_else(again, Ok)?;
        parts.push(try_inner(vec![left, candidate], DataType::Bool, 1, |parts| {
            let [left, right] = two(parts)?;
            Compare::compile(BinaryOp::Eq, left, right)
        })?);
    }
    let any = inner(parts, DataType::Bool, 1, |parts| Node::Logic(Box::new(Logic { and: false, parts })));
    if negated { unary(UnaryOp::Not, any) } else { Ok(any) }
}

fn pattern_match(input: Compiled, pattern: Compiled, language: Language, negated: bool) -> Result<Compiled> {
    use arrow::array::{Array, AsArray};
    let constant =
        pattern.constant().and_then(|c| c.as_string_view_opt()).filter(|c| c.is_valid(0)).map(|c| c.value(0).to_owned());
    let compiled = constant.map(|text| Matcher::new(&text, language)).transpose()?;
    let fallible = compiled.is_none();
    let mut node = try_inner(vec![input, pattern], DataType::Bool, 40, |parts| {
        let [input, pattern] = two(parts)?;
        Ok(Node::Pattern(Box::new(Pattern { input, pattern, language, negated, compiled })))
    })?;
    node.fallible |= fallible;
    Ok(node)
}

fn function(name: &str, args: Vec<Compiled>, ty: DataType) -> Result<Compiled> {
    use arrow::array::{Array, AsArray};
    match (name, args.as_slice()) {
        ("coalesce" | "ifnull" | "nvl", [_, ..]) => {
            let parts = args.into_iter().map(|a| coerced(a, ty)).collect::<Result<Vec<_>>>()?;
            return Ok(inner(parts, ty, 4, |parts| Node::Coalesce(Box::new(Coalesce { parts, ty }))));
        }
        ("date_part" | "datepart", [part, input]) if matches!(input.ty, DataType::Date | DataType::Timestamp) => {
            let name =
                part.constant().and_then(|c| c.as_string_view_opt()).filter(|c| c.is_valid(0)).map(|c| c.value(0).to_owned());
            if let Some(part) = name.and_then(|n| Part::parse(&n)) {
                return date_part(part, args, ty);
            }
        }
        ("substr" | "substring", [input, start, rest @ ..]) if input.ty == DataType::Utf8 && rest.len() <= 1 => {
            let int = |c: &Compiled| {
                c.constant().filter(|c| c.is_valid(0)).and_then(|c| int_at(c, 0).ok()).and_then(|v| i64::try_from(v).ok())
            };
            let length = rest.first().map(int);
            if let Some(start) = int(start)
                && length.is_none_or(|n| n.is_some_and(|n| n >= 0))
            {
                return try_inner(args, ty, 10, |parts| {
                    let input = parts.into_iter().next().ok_or_else(|| Error::Internal("no operand".into()))?;
                    Ok(Node::Substring(Box::new(Substring { input, start, length: length.flatten() })))
                });
            }
        }
        _ => {}
    }
    let mut is_volatile = false;
    let mut node = try_inner(args, ty, 60, |parts| {
        let (call, volatile) = Call::compile(name, parts, ty)?;
        is_volatile = volatile;
        Ok(Node::Call(Box::new(call)))
    })?;
    node.fallible = true;
    node.volatile |= is_volatile;
    Ok(node)
}

fn date_part(part: Part, args: Vec<Compiled>, ty: DataType) -> Result<Compiled> {
    let mut range = None;
    let mut node = try_inner(args, ty, 4, |mut parts| {
        let input = parts.pop().ok_or_else(|| Error::Internal("no operand".into()))?;
        if input.ty == DataType::Date {
            range = input.bounds.range.map(|r| part.range(r)).filter(|_| bounds::of_type(ty).is_some());
        }
        Ok(Node::DatePart(Box::new(DatePart::new(part, input, ty))))
    })?;
    node.bounds = Bounds { range };
    Ok(node)
}

impl Node {
    fn children_mut(&mut self) -> Vec<&mut Compiled> {
        match self {
            Node::Column(_) | Node::Constant(_) | Node::PerEntry(_) => vec![],
            Node::Arithmetic(node) => node.operands_mut(),
            Node::Float(node) => vec![&mut node.left, &mut node.right],
            Node::Bits(node) => vec![&mut node.left, &mut node.right],
            Node::Interval(node) => vec![&mut node.left, &mut node.right],
            Node::Compare(node) => node.operands_mut(),
            Node::Logic(node) => node.parts.iter_mut().collect(),
            Node::Is(node) => vec![&mut node.input],
            Node::Case(node) => {
                let mut all: Vec<&mut Compiled> = node.branches.iter_mut().flat_map(|(c, r)| [c, r]).collect();
                all.push(&mut node.otherwise);
                all
            }
            Node::Coalesce(node) => node.parts.iter_mut().collect(),
            Node::Cast(node) => vec![node.input_mut()],
            Node::InList(node) => vec![&mut node.input],
            Node::Pattern(node) => vec![&mut node.input, &mut node.pattern],
            Node::DatePart(node) => vec![&mut node.input],
            Node::Substring(node) => vec![&mut node.input],
            Node::Concat(node) => vec![&mut node.left, &mut node.right],
            Node::Call(node) => node.args_mut().iter_mut().collect(),
        }
    }
}
