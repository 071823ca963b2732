//! INSERT of plain literals: its rows without a plan.
//!
//! What is not exactly covered here (expressions, conversions that round or may fail, names in another case) has no rows here and goes
//! by [`crate::bind_insert`], which decides what it means. Where there are rows here, they are the ones that its plan yields.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, ArrowPrimitiveType, BooleanArray, Decimal64Array, Decimal128Array, PrimitiveArray, RecordBatch, StringViewArray,
    UInt32Array,
};
use arrow::compute::take;
use arrow::datatypes::{
    Date32Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow_schema::{Field, Schema};
use chrono::{Datelike, NaiveDate, NaiveDateTime};
use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::tokenizer::{Token, TokenWithSpan, Word};
use stoa_plan::DataType;

use crate::{Catalog, Insert, TableInfo, token};

/// Numbers of so many digits are exact as DOUBLE.
const MAX_DIGITS: usize = 15;
/// Moments of these years have a form in nanoseconds too, in which the front end may keep them.
const YEARS: std::ops::RangeInclusive<i32> = 1700..=2200;

/// The rows of an INSERT of plain literals, as [`crate::bind_insert`]'s plan would yield them; `None` if that has to decide.
#[must_use]
pub fn literal_rows(insert: &Insert, catalog: &dyn Catalog) -> Option<RecordBatch> {
    let literals = Literals::read(insert.source.tokens())?;
    if !literals.rest.first().is_none_or(|token| is_keyword(&token.token, Keyword::ON)) {
        return None;
    }
    let table = catalog.table(&insert.table)?;
    catalog.may_read(&insert.table).ok()?;
    let from = sources(&table, &literals.columns)?;
    let width = if literals.columns.is_empty() { table.columns.len() } else { literals.columns.len() };
    if literals.rows.iter().any(|row| row.len() != width) {
        return None;
    }
    let mut fields = Vec::with_capacity(from.len());
    let mut arrays = Vec::with_capacity(from.len());
    for (column, from) in table.columns.iter().zip(from) {
        fields.push(Field::new(&column.name, column.ty.to_arrow(), column.nullable));
        if let (None, Some(default)) = (from, &column.default) {
            let rows = UInt32Array::from(vec![0; literals.rows.len()]);
            arrays.push(take(default, &rows, None).ok()?);
            continue;
        }
        let values: Vec<Constant<'_>> = literals.rows.iter().map(|row| from.map_or(Constant::Null, |at| row[at])).collect();
        if !column.nullable && values.contains(&Constant::Null) {
            return None;
        }
        arrays.push(array(column.ty, &values)?);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).ok()
}

/// For each column of the table, which of the given values it takes.
fn sources(table: &TableInfo, columns: &[&Word]) -> Option<Vec<Option<usize>>> {
    if columns.is_empty() {
        return Some((0..table.columns.len()).map(Some).collect());
    }
    let mut from = vec![None; table.columns.len()];
    for (at, word) in columns.iter().enumerate() {
        let name = folded(word)?;
        let column = table.columns.iter().position(|column| column.name == name)?;
        if from[column].replace(at).is_some() {
            return None;
        }
    }
    // Unquoted names may mean a column whose name is not in lower case.
    let lower = |name: &str| !name.contains(|c: char| !c.is_ascii() || c.is_ascii_uppercase());
    table.columns.iter().all(|column| lower(&column.name)).then_some(from)
}

/// The name that a word stands for; `None` where folding it is not for here.
pub(crate) fn folded(word: &Word) -> Option<String> {
    (word.quote_style.is_some() || word.value.is_ascii()).then(|| token::fold(&word.value, word.quote_style))
}

/// The parts of an INSERT or REPLACE of plain literals.
pub(crate) struct Literals<'a> {
    /// It is a REPLACE.
    pub(crate) replace: bool,
    pub(crate) table: &'a Word,
    columns: Vec<&'a Word>,
    rows: Vec<Vec<Constant<'a>>>,
    /// What follows the rows.
    pub(crate) rest: &'a [TokenWithSpan],
}

/// A literal.
#[derive(Clone, Copy, PartialEq)]
enum Constant<'a> {
    Null,
    Bool(bool),
    /// The digits, and whether a minus is before them.
    Number(&'a str, bool),
    Text(&'a str),
    Date(&'a str),
    Timestamp(&'a str),
}

impl<'a> Literals<'a> {
    /// `INSERT INTO table [(columns)] VALUES (literal, ...), ...`; `None` if the tokens begin otherwise.
    pub(crate) fn read(tokens: &'a [TokenWithSpan]) -> Option<Literals<'a>> {
        let mut reader = Reader { rest: tokens };
        let replace = reader.takes_keyword(Keyword::REPLACE);
        if !replace && !reader.takes_keyword(Keyword::INSERT) {
            return None;
        }
        reader.takes_keyword(Keyword::INTO).then_some(())?;
        let table = reader.name()?;
        let mut columns = Vec::new();
        if reader.takes(&Token::LParen) {
            columns = reader.list(Reader::name)?;
        }
        reader.takes_keyword(Keyword::VALUES).then_some(())?;
        let mut rows = Vec::new();
        loop {
            reader.takes(&Token::LParen).then_some(())?;
            rows.push(reader.list(Reader::constant)?);
            if !reader.takes(&Token::Comma) {
                break;
            }
        }
        Some(Literals { replace, table, columns, rows, rest: reader.rest })
    }
}

/// Tokens that are still to be read.
struct Reader<'a> {
    rest: &'a [TokenWithSpan],
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<&'a Token> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(&first.token)
    }

    fn takes_if(&mut self, is_it: impl FnOnce(&Token) -> bool) -> bool {
        let taken = self.rest.first().is_some_and(|token| is_it(&token.token));
        if taken {
            self.rest = &self.rest[1..];
        }
        taken
    }

    fn takes(&mut self, token: &Token) -> bool {
        self.takes_if(|next| next == token)
    }

    fn takes_keyword(&mut self, keyword: Keyword) -> bool {
        self.takes_if(|next| is_keyword(next, keyword))
    }

    /// What follows an opening parenthesis, up to the closing one.
    fn list<T>(&mut self, element: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let mut list = vec![element(self)?];
        while self.takes(&Token::Comma) {
            list.push(element(self)?);
        }
        self.takes(&Token::RParen).then_some(list)
    }

    /// A name that the parser takes for nothing else.
    fn name(&mut self) -> Option<&'a Word> {
        use Keyword::{DEFAULT, DIRECTORY, FROM, FUNCTION, LOCAL, SELECT, TABLE, VALUES, WITH};
        let Token::Word(word) = self.next()? else { return None };
        let other = [DEFAULT, DIRECTORY, FROM, FUNCTION, LOCAL, SELECT, TABLE, VALUES, WITH].contains(&word.keyword);
        (word.quote_style.is_some() || !other).then_some(word)
    }

    fn constant(&mut self) -> Option<Constant<'a>> {
        match self.next()? {
            Token::SingleQuotedString(text) => Some(Constant::Text(text)),
            Token::Number(digits, false) => Some(Constant::Number(digits, false)),
            Token::Minus => match self.next()? {
                Token::Number(digits, false) => Some(Constant::Number(digits, true)),
                _ => None,
            },
            Token::LParen => {
                let negative = self.takes(&Token::Minus);
                let Token::Number(digits, false) = self.next()? else { return None };
                self.takes(&Token::RParen).then_some(Constant::Number(digits, negative))
            }
            Token::Word(word) if word.quote_style.is_none() => self.word(word.keyword),
            _ => None,
        }
    }

    fn word(&mut self, keyword: Keyword) -> Option<Constant<'a>> {
        let constant = match keyword {
            Keyword::NULL => return Some(Constant::Null),
            Keyword::TRUE => return Some(Constant::Bool(true)),
            Keyword::FALSE => return Some(Constant::Bool(false)),
            Keyword::DATE => Constant::Date,
            Keyword::TIMESTAMP => Constant::Timestamp,
            _ => return None,
        };
        match self.next()? {
            Token::SingleQuotedString(text) => Some(constant(text)),
            _ => None,
        }
    }
}

fn is_keyword(token: &Token, keyword: Keyword) -> bool {
    matches!(token, Token::Word(word) if word.quote_style.is_none() && word.keyword == keyword)
}

/// Values as a column of a type; `None` if one is not exactly a value of it.
fn array(ty: DataType, values: &[Constant<'_>]) -> Option<ArrayRef> {
    Some(match ty {
        DataType::Bool => Arc::new(BooleanArray::from(all(values, |value| match value {
            Constant::Bool(value) => Some(value),
            _ => None,
        })?)),
        DataType::Int8 => integers::<Int8Type>(values)?,
        DataType::Int16 => integers::<Int16Type>(values)?,
        DataType::Int32 => integers::<Int32Type>(values)?,
        DataType::Int64 => integers::<Int64Type>(values)?,
        DataType::UInt8 => integers::<UInt8Type>(values)?,
        DataType::UInt16 => integers::<UInt16Type>(values)?,
        DataType::UInt32 => integers::<UInt32Type>(values)?,
        DataType::UInt64 => integers::<UInt64Type>(values)?,
        DataType::Float32 => primitive::<Float32Type>(values, |value| Some(float(value)? as f32).filter(|v| v.is_finite()))?,
        DataType::Float64 => primitive::<Float64Type>(values, float)?,
        DataType::Decimal { precision, scale } => {
            let decimals = all(values, |value| decimal(value, precision, scale))?;
            if precision > 18 {
                Arc::new(Decimal128Array::from(decimals).with_precision_and_scale(precision, scale).ok()?)
            } else {
                let small = |value: Option<i128>| value.map(i64::try_from).transpose().ok();
                let decimals = decimals.into_iter().map(small).collect::<Option<Vec<Option<i64>>>>()?;
                Arc::new(Decimal64Array::from(decimals).with_precision_and_scale(precision, scale).ok()?)
            }
        }
        DataType::Utf8 => Arc::new(StringViewArray::from_iter(all(values, |value| match value {
            Constant::Text(text) => Some(text),
            _ => None,
        })?)),
        DataType::Date => primitive::<Date32Type>(values, |value| match value {
            Constant::Text(text) | Constant::Date(text) => days(date(text)?),
            _ => None,
        })?,
        DataType::Timestamp => primitive::<TimestampMicrosecondType>(values, |value| match value {
            Constant::Text(text) | Constant::Timestamp(text) => Some(moment(text)?.and_utc().timestamp_micros()),
            _ => None,
        })?,
        DataType::Null | DataType::Interval | DataType::Binary => return None,
    })
}

/// The values of what is not NULL; `None` if one has none.
fn all<'a, T>(values: &[Constant<'a>], value: impl Fn(Constant<'a>) -> Option<T>) -> Option<Vec<Option<T>>> {
    let one = |constant: &Constant<'a>| match constant {
        Constant::Null => Some(None),
        constant => value(*constant).map(Some),
    };
    values.iter().map(one).collect()
}

fn primitive<T: ArrowPrimitiveType>(
    values: &[Constant<'_>],
    value: impl Fn(Constant<'_>) -> Option<T::Native>,
) -> Option<ArrayRef> {
    Some(Arc::new(all(values, value)?.into_iter().collect::<PrimitiveArray<T>>()))
}

fn integers<T: ArrowPrimitiveType<Native: TryFrom<i128>>>(values: &[Constant<'_>]) -> Option<ArrayRef> {
    primitive::<T>(values, |value| T::Native::try_from(integer(value)?).ok())
}

fn integer(value: Constant<'_>) -> Option<i128> {
    let Constant::Number(digits, negative) = value else { return None };
    if !is_digits(digits) {
        return None;
    }
    let number = i128::from(digits.parse::<u64>().ok()?);
    Some(if negative { -number } else { number })
}

/// A number of few digits: without its point, and how many digits follow that.
fn scaled(value: Constant<'_>) -> Option<(i64, u32)> {
    let Constant::Number(digits, negative) = value else { return None };
    let (whole, fraction) = match digits.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (digits, None),
    };
    if !is_digits(whole) || !fraction.is_none_or(is_digits) {
        return None;
    }
    let fraction = fraction.unwrap_or_default();
    if whole.len() + fraction.len() > MAX_DIGITS {
        return None;
    }
    let number = whole.bytes().chain(fraction.bytes()).fold(0, |number, digit| number * 10 + i64::from(digit - b'0'));
    Some((if negative { -number } else { number }, fraction.len() as u32))
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The number that is written at a place of a text.
fn number_at(text: &str, place: std::ops::Range<usize>) -> Option<u32> {
    text.get(place).filter(|part| is_digits(part))?.parse().ok()
}

/// A number with an exponent is a DOUBLE. Of others, both parts are exact, so that the quotient is the nearest DOUBLE.
fn float(value: Constant<'_>) -> Option<f64> {
    if let Constant::Number(digits, negative) = value
        && digits.contains(['e', 'E'])
    {
        let number = digits.parse::<f64>().ok().filter(|number| number.is_finite())?;
        return Some(if negative { -number } else { number });
    }
    let (number, scale) = scaled(value)?;
    Some(number as f64 / 10i64.pow(scale) as f64)
}

fn decimal(value: Constant<'_>, precision: u8, scale: i8) -> Option<i128> {
    let (number, given) = scaled(value)?;
    let more = u32::try_from(scale).ok()?.checked_sub(given)?;
    let number = i128::from(number).checked_mul(10i128.checked_pow(more)?)?;
    (number.unsigned_abs() < 10u128.checked_pow(precision.into())?).then_some(number)
}

/// `YYYY-MM-DD`.
fn date(text: &str) -> Option<NaiveDate> {
    let bytes = text.as_bytes();
    if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    let year = number_at(text, 0..4)?.try_into().ok()?;
    let date = NaiveDate::from_ymd_opt(year, number_at(text, 5..7)?, number_at(text, 8..10)?)?;
    YEARS.contains(&date.year()).then_some(date)
}

fn days(date: NaiveDate) -> Option<i32> {
    i32::try_from(date.signed_duration_since(NaiveDate::from_ymd_opt(1970, 1, 1)?).num_days()).ok()
}

/// `YYYY-MM-DD HH:MM:SS`, with up to six digits of a second.
fn moment(text: &str) -> Option<NaiveDateTime> {
    let bytes = text.as_bytes();
    if bytes.len() < 19 || bytes[10] != b' ' || bytes[13] != b':' || bytes[16] != b':' {
        return None;
    }
    let micros = match text.get(19..)? {
        "" => 0,
        rest => {
            let fraction = rest.strip_prefix('.').filter(|digits| is_digits(digits) && digits.len() <= 6)?;
            fraction.parse::<u32>().ok()? * 10u32.pow(6 - u32::try_from(fraction.len()).ok()?)
        }
    };
    let (hour, minute, second) = (number_at(text, 11..13)?, number_at(text, 14..16)?, number_at(text, 17..19)?);
    date(text.get(..10)?)?.and_hms_micro_opt(hour, minute, second, micros)
}
