//! Expressions against a reference that evaluates one row at a time, on random trees over random columns.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Date32Array, Decimal64Array, Decimal128Array, DictionaryArray, Float64Array,
    Int32Array, StringViewArray, UInt32Array,
};
use arrow::datatypes::UInt32Type;
use stoa_columnstore::{Datum, Predicate};
use stoa_plan::{BinaryOp, ColumnId, DataType, Expr, Field, Literal, ScanColumn, UnaryOp, Value};

use super::value::int_at;
use super::{Expression, Parameters, scan_predicate};
use crate::{Batch, Bounds, Error, Layout, LayoutColumn, Settings};

/// A generator of reproducible choices.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

const fn decimal(precision: u8, scale: i8) -> DataType {
    DataType::Decimal { precision, scale }
}

/// A value of the reference.
#[derive(Clone, Debug, PartialEq)]
enum Cell {
    Null,
    Int(i128),
    Str(String),
}

type Outcome = Result<Cell, ()>;

fn scale(ty: DataType) -> u32 {
    if let DataType::Decimal { scale, .. } = ty { scale as u32 } else { 0 }
}

fn reference(expr: &Expr, row: &[Cell]) -> Outcome {
    match expr {
        Expr::Column(id, _) => Ok(row[id.0 as usize].clone()),
        Expr::Literal(literal) => Ok(match &literal.value {
            Value::Null => Cell::Null,
            Value::Str(v) => Cell::Str(v.clone()),
            other => Cell::Int(super::value::integer(other).unwrap()),
        }),
        Expr::Binary { op: op @ (BinaryOp::And | BinaryOp::Or), left, right, .. } => {
            let decisive = Cell::Int(i128::from(*op == BinaryOp::Or));
            let left = reference(left, row)?;
            if left == decisive {
                return Ok(left);
            }
            let right = reference(right, row)?;
            Ok(if right == decisive || left != Cell::Null { right } else { left })
        }
        Expr::Binary { op, left, right, ty } => {
            let types = (left.data_type(), right.data_type());
            combine(*op, &(reference(left, row)?, types.0), &(reference(right, row)?, types.1), *ty)
        }
        Expr::Unary { op, input } => Ok(unary(*op, &reference(input, row)?)),
        Expr::Case { branches, otherwise, .. } => {
            for (condition, result) in branches {
                if reference(condition, row)? == Cell::Int(1) {
                    return reference(result, row);
                }
            }
            otherwise.as_ref().map_or(Ok(Cell::Null), |o| reference(o, row))
        }
        Expr::InList { input, list, negated } => {
            let value = reference(input, row)?;
            let mut found = Cell::Int(0);
            for item in list {
                let one = combine(
                    BinaryOp::Eq,
                    &(value.clone(), input.data_type()),
                    &(reference(item, row)?, item.data_type()),
                    DataType::Bool,
                )?;
                if one == Cell::Int(1) {
                    found = one;
                    break;
                } else if one == Cell::Null {
                    found = one;
                }
            }
            Ok(if let (Cell::Int(v), true) = (&found, negated) { Cell::Int(1 - v) } else { found })
        }
        Expr::Cast { input, ty, .. } => {
            let Cell::Int(v) = reference(input, row)? else { return Ok(Cell::Null) };
            rescaled(v, input.data_type(), *ty)
        }
        Expr::Function { name, args, .. } if name == "coalesce" => {
            for arg in args {
                let value = reference(arg, row)?;
                if value != Cell::Null {
                    return Ok(value);
                }
            }
            Ok(Cell::Null)
        }
        other => panic!("{other:?}"),
    }
}

fn rescaled(v: i128, from: DataType, ty: DataType) -> Outcome {
    let (a, b) = (scale(from), scale(ty));
    let v = if b >= a {
        v * 10i128.pow(b - a)
    } else if matches!(ty, DataType::Decimal { .. }) {
        super::arithmetic::round_div(v, 10i128.pow(a - b))
    } else {
        v / 10i128.pow(a - b)
    };
    check(v, ty)
}

fn unary(op: UnaryOp, v: &Cell) -> Cell {
    let yes = |b: bool| Cell::Int(i128::from(b));
    let truth = *v == Cell::Int(1);
    match (op, v) {
        (UnaryOp::Negate, Cell::Int(v)) => Cell::Int(-v),
        (UnaryOp::Not, Cell::Int(v)) => Cell::Int(1 - v),
        (UnaryOp::Negate | UnaryOp::Not, _) => Cell::Null,
        (UnaryOp::IsNull | UnaryOp::IsUnknown, v) => yes(*v == Cell::Null),
        (UnaryOp::IsNotNull | UnaryOp::IsNotUnknown, v) => yes(*v != Cell::Null),
        (UnaryOp::IsTrue, _) => yes(truth),
        (UnaryOp::IsNotTrue, _) => yes(!truth),
        (UnaryOp::IsFalse, v) => yes(*v == Cell::Int(0)),
        (UnaryOp::IsNotFalse, v) => yes(*v != Cell::Int(0)),
    }
}

fn check(v: i128, ty: DataType) -> Outcome {
    let (low, high) = super::bounds::of_type(ty).unwrap();
    if v < low || v > high { Err(()) } else { Ok(Cell::Int(v)) }
}

fn combine(op: BinaryOp, left: &(Cell, DataType), right: &(Cell, DataType), ty: DataType) -> Outcome {
    let ordering = match (&left.0, &right.0) {
        (Cell::Null, _) | (_, Cell::Null) => None,
        (Cell::Str(a), Cell::Str(b)) => Some(a.cmp(b)),
        (Cell::Int(a), Cell::Int(b)) => {
            let work = scale(left.1).max(scale(right.1));
            let (a, b) = (a * 10i128.pow(work - scale(left.1)), b * 10i128.pow(work - scale(right.1)));
            let s = scale(ty);
            match op {
                BinaryOp::Add => return check(a + b, ty),
                BinaryOp::Sub => return check(a - b, ty),
                BinaryOp::Mod if b == 0 => return Err(()),
                BinaryOp::Mod => return check(a % b, ty),
                BinaryOp::Mul => {
                    let (Cell::Int(a), Cell::Int(b)) = (&left.0, &right.0) else { unreachable!() };
                    return a.checked_mul(*b).map_or(Err(()), |v| check(v, ty));
                }
                BinaryOp::Div => {
                    let (Cell::Int(a), Cell::Int(b)) = (&left.0, &right.0) else { unreachable!() };
                    let up = s as i32 - scale(left.1) as i32 + scale(right.1) as i32;
                    return if *b == 0 { Err(()) } else { check(a * 10i128.pow(up as u32) / b, ty) };
                }
                _ => Some(a.cmp(&b)),
            }
        }
        _ => panic!("mixed"),
    };
    let same = left.0 == Cell::Null && right.0 == Cell::Null;
    let Some(ordering) = ordering else {
        return Ok(match op {
            BinaryOp::IsDistinctFrom => Cell::Int(i128::from(!same)),
            BinaryOp::IsNotDistinctFrom => Cell::Int(i128::from(same)),
            _ => Cell::Null,
        });
    };
    let yes = match op {
        BinaryOp::Eq | BinaryOp::IsNotDistinctFrom => ordering.is_eq(),
        BinaryOp::NotEq | BinaryOp::IsDistinctFrom => ordering.is_ne(),
        BinaryOp::Lt => ordering.is_lt(),
        BinaryOp::LtEq => ordering.is_le(),
        BinaryOp::Gt => ordering.is_gt(),
        _ => ordering.is_ge(),
    };
    Ok(Cell::Int(i128::from(yes)))
}

const TYPES: [DataType; 6] = [decimal(12, 2), decimal(38, 4), DataType::Int32, DataType::Bool, DataType::Utf8, DataType::Int64];

fn column(id: usize) -> Expr {
    Expr::Column(ColumnId(id as u32), TYPES[id])
}

fn binary(op: BinaryOp, left: Expr, right: Expr, ty: DataType) -> Expr {
    Expr::Binary { op, left: Box::new(left), right: Box::new(right), ty }
}

fn number(random: &mut Random, depth: u32) -> Expr {
    if depth == 0 || random.below(5) == 0 {
        return match random.below(6) {
            0 => column(0),
            1 => column(1),
            2 => column(2),
            3 => column(5),
            4 => Expr::Literal(Literal { ty: decimal(5, 2), value: Value::Decimal(random.below(2000) as i128 - 1000) }),
            _ => Expr::Literal(Literal { ty: DataType::Int64, value: Value::Int(random.below(5) as i64) }),
        };
    }
    match random.below(9) {
        n @ 0..=4 => {
            let (left, right) = (number(random, depth - 1), number(random, depth - 1));
            let (a, b) = (scale(left.data_type()), scale(right.data_type()));
            let exact = |ty| matches!(ty, DataType::Decimal { .. });
            let integers = !exact(left.data_type()) && !exact(right.data_type());
            let (op, s) = match n {
                0 | 1 => ([BinaryOp::Add, BinaryOp::Sub][n as usize], a.max(b)),
                2 => (BinaryOp::Mul, a + b),
                3 => (BinaryOp::Div, if integers { 0 } else { a + 4 }),
                _ => (BinaryOp::Mod, a.max(b)),
            };
            if s > 12 {
                return left;
            }
            let ty = if integers { DataType::Int64 } else { decimal(if random.below(2) == 0 { 38 } else { 18 }, s as i8) };
            binary(op, left, right, ty)
        }
        5 => Expr::Unary { op: UnaryOp::Negate, input: Box::new(number(random, depth - 1)) },
        6 => {
            let ty = [decimal(38, 3), decimal(10, 1), DataType::Int64, DataType::Int32][random.below(4) as usize];
            Expr::Cast { input: Box::new(number(random, depth - 1)), ty, safe: false }
        }
        7 => {
            let branches = (0..=random.below(2)).map(|_| (condition(random, depth - 1), of_type(random, depth - 1))).collect();
            let otherwise = (random.below(3) > 0).then(|| Box::new(of_type(random, depth - 1)));
            Expr::Case { branches, otherwise, ty: decimal(38, 4) }
        }
        _ => {
            let args = vec![of_type(random, depth - 1), of_type(random, depth - 1)];
            Expr::Function { name: "coalesce".into(), args, ty: decimal(38, 4) }
        }
    }
}

/// A number of one type, `DECIMAL(38,4)`.
fn of_type(random: &mut Random, depth: u32) -> Expr {
    let input = number(random, depth);
    let ty = decimal(38, 4);
    if input.data_type() == ty { input } else { Expr::Cast { input: Box::new(input), ty, safe: false } }
}

fn condition(random: &mut Random, depth: u32) -> Expr {
    if depth == 0 {
        return column(3);
    }
    let word = |random: &mut Random| {
        let words = ["", "a", "ab", "b", "a long string that is not inlined"];
        Expr::Literal(Literal { ty: DataType::Utf8, value: Value::Str(words[random.below(5) as usize].into()) })
    };
    let comparisons = [
        BinaryOp::Eq,
        BinaryOp::NotEq,
        BinaryOp::Lt,
        BinaryOp::LtEq,
        BinaryOp::Gt,
        BinaryOp::GtEq,
        BinaryOp::IsDistinctFrom,
        BinaryOp::IsNotDistinctFrom,
    ];
    let op = comparisons[random.below(8) as usize];
    match random.below(7) {
        0 => binary(op, number(random, depth - 1), number(random, depth - 1), DataType::Bool),
        1 => binary(op, column(4), word(random), DataType::Bool),
        2 => Expr::InList { input: Box::new(column(4)), list: vec![word(random), word(random)], negated: random.below(2) == 0 },
        3 => {
            let list = (0..3).map(|_| number(random, 0)).collect();
            Expr::InList { input: Box::new(number(random, depth - 1)), list, negated: random.below(2) == 0 }
        }
        4 => {
            let ops = [UnaryOp::Not, UnaryOp::IsNull, UnaryOp::IsNotNull, UnaryOp::IsTrue, UnaryOp::IsNotTrue];
            let more = [UnaryOp::IsFalse, UnaryOp::IsNotFalse, UnaryOp::IsUnknown, UnaryOp::IsNotUnknown];
            let n = random.below(9) as usize;
            Expr::Unary { op: if n < 5 { ops[n] } else { more[n - 5] }, input: Box::new(condition(random, depth - 1)) }
        }
        n => {
            let op = if n == 5 { BinaryOp::And } else { BinaryOp::Or };
            binary(op, condition(random, depth - 1), condition(random, depth - 1), DataType::Bool)
        }
    }
}

/// Random rows; `encoded` gives dictionaries and narrow decimals.
fn table(random: &mut Random, rows: usize, encoded: bool) -> (Vec<Vec<Cell>>, Batch) {
    let words = ["", "a", "ab", "b", "a long string that is not inlined"];
    let mut cells = Vec::new();
    for _ in 0..rows {
        let mut row = Vec::new();
        for ty in TYPES {
            let value = match ty {
                DataType::Bool => random.below(2) as i128,
                _ => random.below(4000) as i128 - 2000,
            };
            row.push(match ty {
                _ if random.below(5) == 0 => Cell::Null,
                DataType::Utf8 => Cell::Str(words[random.below(5) as usize].into()),
                _ => Cell::Int(value),
            });
        }
        cells.push(row);
    }
    let ints = |c: usize| cells.iter().map(move |row| if let Cell::Int(v) = row[c] { Some(v as i64) } else { None });
    let wide: ArrayRef = if encoded {
        Arc::new(ints(1).collect::<Decimal64Array>().with_precision_and_scale(18, 4).unwrap())
    } else {
        Arc::new(ints(1).map(|v| v.map(i128::from)).collect::<Decimal128Array>().with_precision_and_scale(38, 4).unwrap())
    };
    let position = |row: &Vec<Cell>| words.iter().position(|w| Cell::Str((*w).into()) == row[4]);
    let strings: ArrayRef = if encoded {
        let keys: UInt32Array = cells.iter().map(|row| position(row).map(|p| p as u32)).collect();
        Arc::new(DictionaryArray::<UInt32Type>::new(keys, Arc::new(StringViewArray::from(words.to_vec()))))
    } else {
        Arc::new(cells.iter().map(|row| position(row).map(|p| words[p])).collect::<StringViewArray>())
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(ints(0).collect::<Decimal64Array>().with_precision_and_scale(12, 2).unwrap()),
        wide,
        Arc::new(ints(2).map(|v| v.map(|v| v as i32)).collect::<Int32Array>()),
        Arc::new(ints(3).map(|v| v.map(|v| v != 0)).collect::<BooleanArray>()),
        strings,
        Arc::new(ints(5).collect::<arrow::array::Int64Array>()),
    ];
    (cells, Batch { columns, rows })
}

fn layout(bounded: bool) -> Layout {
    let range = |ty| (bounded && ty != DataType::Utf8 && ty != DataType::Bool).then_some((-2000, 2000));
    let field = |(i, ty): (usize, &DataType)| Field { id: ColumnId(i as u32), name: format!("c{i}"), ty: *ty, nullable: true };
    let columns =
        TYPES.iter().enumerate().map(|(i, ty)| LayoutColumn { field: field((i, ty)), bounds: Bounds { range: range(*ty) } });
    Layout { columns: columns.collect() }
}

fn cell(array: &ArrayRef, row: usize, ty: DataType) -> Cell {
    let array = crate::batch::canonical(array, ty).unwrap();
    if array.is_null(row) {
        Cell::Null
    } else if ty == DataType::Utf8 {
        Cell::Str(array.as_string_view().value(row).into())
    } else {
        Cell::Int(int_at(&array, row).unwrap())
    }
}

#[test]
fn random_trees_are_as_the_reference_says() {
    let mut random = Random(7);
    let mut good = 0;
    for round in 0..3000 {
        let expr = if round % 2 == 0 { number(&mut random, 3) } else { condition(&mut random, 3) };
        let encoded = round % 4 < 2;
        let rows = [0, 1, 3, 70][random.below(4) as usize];
        let (cells, batch) = table(&mut random, rows, encoded);
        let bounded = encoded || random.below(2) == 0;
        let settings = Settings { no_fast_paths: random.below(3) == 0, ..Settings::default() };
        let expected: Result<Vec<Cell>, ()> = cells.iter().map(|row| reference(&expr, row)).collect();
        let compiled = Expression::compile(&expr, &layout(bounded), &Parameters::new(), &settings).unwrap();
        match (compiled.evaluate(&batch), expected) {
            (Ok(array), Ok(expected)) => {
                good += 1;
                assert_eq!(array.len(), rows);
                let found: Vec<Cell> = (0..rows).map(|row| cell(&array, row, expr.data_type())).collect();
                assert_eq!(found, expected, "{} bounded {bounded} encoded {encoded}", compiled.description());
                if let Some((low, high)) = compiled.bounds().range {
                    let inside = |c: &Cell| !matches!(c, Cell::Int(v) if *v < low || *v > high);
                    assert!(found.iter().all(inside), "{} leaves {low}..{high}", compiled.description());
                }
            }
            (Err(Error::User(_)), Err(())) => {}
            (found, expected) => panic!("{}: {found:?}, expected {expected:?}", compiled.description()),
        }
    }
    assert!(good > 1000, "{good}");
}

#[test]
fn scan_predicates_keep_the_rows_that_the_expression_keeps() {
    let mut random = Random(11);
    let columns: Vec<ScanColumn> =
        layout(false).columns.iter().enumerate().map(|(i, c)| ScanColumn { ordinal: i as u32, field: c.field.clone() }).collect();
    let (mut native, mut functions) = (0, 0);
    for _ in 0..3000 {
        let expr = condition(&mut random, 2);
        let Some((id, predicate)) = scan_predicate(&expr, &columns, &Parameters::new(), &Settings::default()).unwrap() else {
            continue;
        };
        let (cells, batch) = table(&mut random, 50, false);
        let array = &batch.columns[id.0 as usize];
        let expected: Result<Vec<bool>, ()> = cells.iter().map(|row| Ok(reference(&expr, row)? == Cell::Int(1))).collect();
        let found: Result<Vec<bool>, ()> = match &predicate {
            Predicate::Function(f) => {
                functions += 1;
                let wanted = |b: arrow::array::BooleanArray| b.iter().map(|v| v == Some(true)).collect();
                (f.function)(array).map(wanted).map_err(|e| assert!(matches!(Error::from(e), Error::User(_))))
            }
            other => {
                native += 1;
                Ok((0..50).map(|row| passes(other, array, row)).collect())
            }
        };
        assert_eq!(found, expected, "{expr:?} {predicate:?}");
    }
    assert!(native > 50 && functions > 50, "{native} {functions}");
}

fn passes(predicate: &Predicate, array: &ArrayRef, row: usize) -> bool {
    if array.is_null(row) {
        return matches!(predicate, Predicate::IsNull);
    }
    let order = |datum: &Datum| match datum {
        Datum::Int(v) => int_at(array, row).unwrap().cmp(v),
        Datum::Bytes(v) => array.as_string_view().value(row).as_bytes().cmp(v),
        Datum::Float(_) => panic!("float"),
    };
    match predicate {
        Predicate::IsNull => false,
        Predicate::IsNotNull => true,
        Predicate::NotEqual(v) => order(v).is_ne(),
        Predicate::In(values) => values.iter().any(|v| order(v).is_eq()),
        Predicate::Range { low, high } => {
            low.as_ref().is_none_or(|(v, inclusive)| order(v).is_gt() || (*inclusive && order(v).is_eq()))
                && high.as_ref().is_none_or(|(v, inclusive)| order(v).is_lt() || (*inclusive && order(v).is_eq()))
        }
        other => panic!("{other:?}"),
    }
}

fn text(value: &str) -> Expr {
    Expr::Literal(Literal { ty: DataType::Utf8, value: Value::Str(value.into()) })
}

fn int(value: i64) -> Expr {
    Expr::Literal(Literal { ty: DataType::Int64, value: Value::Int(value) })
}

fn call(name: &str, args: Vec<Expr>, ty: DataType) -> Expr {
    Expr::Function { name: name.into(), args, ty }
}

/// The value of an expression without columns.
fn value_of(expr: &Expr) -> crate::Result<ArrayRef> {
    let settings = Settings::default();
    Expression::compile(expr, &Layout::default(), &Parameters::new(), &settings)?.evaluate(&Batch { columns: vec![], rows: 1 })
}

#[test]
fn library_functions_and_fast_paths() {
    let shown = |expr: &Expr| arrow::util::display::array_value_to_string(&value_of(expr).unwrap(), 0).unwrap();
    let upper = |e: Expr| call("upper", vec![e], DataType::Utf8);
    assert_eq!(shown(&upper(text("größe"))), "GRÖSSE");
    let substr = |args: Vec<Expr>| call("substr", args, DataType::Utf8);
    assert_eq!(shown(&substr(vec![text("größe"), int(3), int(2)])), "öß");
    assert_eq!(shown(&substr(vec![text("abc"), int(-1), int(3)])), "a");
    assert_eq!(shown(&substr(vec![text("abc"), int(2)])), "bc");
    assert_eq!(shown(&binary(BinaryOp::Concat, text("a"), text("b"), DataType::Utf8)), "ab");
    let date = |days| Expr::Literal(Literal { ty: DataType::Date, value: Value::Int(days) });
    let interval = Expr::Literal(Literal { ty: DataType::Interval, value: Value::Interval { months: 3, days: 0, nanos: 0 } });
    assert_eq!(shown(&binary(BinaryOp::Add, date(0), interval, DataType::Date)), "1970-04-01");
    assert_eq!(shown(&call("date_part", vec![text("YEAR"), date(10_000)], DataType::Int32)), "1997");
    assert_eq!(
        shown(&call("round", vec![Expr::Literal(Literal { ty: decimal(5, 2), value: Value::Decimal(155) })], DataType::Float64)),
        "2.0"
    );
    let cast = |e: Expr, ty, safe| Expr::Cast { input: Box::new(e), ty, safe };
    assert_eq!(shown(&cast(text("12.345"), decimal(10, 2), false)), "12.35");
    assert_eq!(shown(&cast(text("x"), DataType::Int32, true)), "");
    assert!(matches!(value_of(&cast(text("x"), DataType::Int32, false)), Err(Error::User(_))));
    assert!(
        matches!(value_of(&call("no_such", vec![], DataType::Int32)), Err(Error::Unsupported(what)) if what.contains("no_such"))
    );
    let zero = binary(BinaryOp::Div, int(1), int(0), DataType::Int64);
    assert!(matches!(value_of(&zero), Err(Error::User(what)) if what.contains("division by zero")));
    let huge = binary(BinaryOp::Add, int(i64::MAX), int(1), DataType::Int64);
    assert!(matches!(value_of(&huge), Err(Error::User(what)) if what.contains("overflow")));
}

#[test]
fn a_part_that_may_fail_is_evaluated_only_where_needed() {
    let layout = layout(false);
    let zero = |op| binary(op, column(5), int(0), DataType::Bool);
    let quotient = binary(BinaryOp::Div, int(10), column(5), DataType::Int64);
    let guarded = binary(
        BinaryOp::And,
        zero(BinaryOp::NotEq),
        binary(BinaryOp::Gt, quotient.clone(), int(1), DataType::Bool),
        DataType::Bool,
    );
    let case =
        Expr::Case { branches: vec![(zero(BinaryOp::Eq), int(-1))], otherwise: Some(Box::new(quotient)), ty: DataType::Int64 };
    let mut columns = table(&mut Random(1), 4, false).1.columns;
    columns[5] = Arc::new(arrow::array::Int64Array::from(vec![Some(0), Some(2), Some(10), None]));
    let batch = Batch { columns, rows: 4 };
    let run = |expr: &Expr| {
        let compiled = Expression::compile(expr, &layout, &Parameters::new(), &Settings::default()).unwrap();
        let array = compiled.evaluate(&batch).unwrap();
        (0..4).map(|row| cell(&array, row, expr.data_type())).collect::<Vec<_>>()
    };
    assert_eq!(run(&guarded), [Cell::Int(0), Cell::Int(1), Cell::Int(0), Cell::Null]);
    assert_eq!(run(&case), [Cell::Int(-1), Cell::Int(5), Cell::Int(1), Cell::Null]);
}

#[test]
fn prices_stay_narrow() {
    let money = decimal(15, 2);
    let field = |i: u32, ty| Field { id: ColumnId(i), name: format!("c{i}"), ty, nullable: false };
    let layout = Layout {
        columns: vec![
            LayoutColumn { field: field(0, money), bounds: Bounds { range: Some((90_000, 10_500_000)) } },
            LayoutColumn { field: field(1, money), bounds: Bounds { range: Some((0, 10)) } },
        ],
    };
    let one = Expr::Literal(Literal { ty: decimal(20, 0), value: Value::Decimal(1) });
    let c = |i| Expr::Column(ColumnId(i), money);
    let expr = binary(BinaryOp::Mul, c(0), binary(BinaryOp::Sub, one, c(1), decimal(23, 2)), decimal(38, 4));
    let compiled = Expression::compile(&expr, &layout, &Parameters::new(), &Settings::default()).unwrap();
    let array = |v: Vec<i64>| -> ArrayRef { Arc::new(Decimal64Array::from(v).with_precision_and_scale(15, 2).unwrap()) };
    let batch = Batch { columns: vec![array(vec![100_000, 90_001]), array(vec![5, 0])], rows: 2 };
    let found = compiled.evaluate(&batch).unwrap();
    assert_eq!(*found.data_type(), arrow::datatypes::DataType::Decimal64(18, 4));
    assert_eq!(found.as_primitive::<arrow::datatypes::Decimal64Type>().values(), &[9_500_000, 9_000_100]);
    assert_eq!(compiled.bounds().range, Some((90_000 * 90, 10_500_000 * 100)));
}

#[test]
fn floats_and_dates() {
    let field = |i: u32, ty| Field { id: ColumnId(i), name: format!("c{i}"), ty, nullable: true };
    let bounds = Bounds { range: Some((8000, 12_000)) };
    let layout = Layout {
        columns: vec![
            LayoutColumn { field: field(0, DataType::Float64), bounds: Bounds::default() },
            LayoutColumn { field: field(1, DataType::Date), bounds },
        ],
    };
    let batch = Batch {
        columns: vec![
            Arc::new(Float64Array::from(vec![Some(1.5), None, Some(-2.0)])),
            Arc::new(Date32Array::from(vec![Some(8000), Some(12_000), None])),
        ],
        rows: 3,
    };
    let run = |expr: &Expr| {
        Expression::compile(expr, &layout, &Parameters::new(), &Settings::default()).unwrap().evaluate(&batch).unwrap()
    };
    let year = call("date_part", vec![text("year"), Expr::Column(ColumnId(1), DataType::Date)], DataType::Int32);
    assert_eq!(run(&year).as_ref(), &Int32Array::from(vec![Some(1991), Some(2002), None]) as &dyn Array);
    let double = binary(BinaryOp::Mul, Expr::Column(ColumnId(0), DataType::Float64), int(2), DataType::Float64);
    assert_eq!(run(&double).as_ref(), &Float64Array::from(vec![Some(3.0), None, Some(-4.0)]) as &dyn Array);
    let sqrt = call("abs", vec![double], DataType::Float64);
    assert_eq!(run(&sqrt).as_ref(), &Float64Array::from(vec![Some(3.0), None, Some(4.0)]) as &dyn Array);
}
