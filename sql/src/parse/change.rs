//! INSERT, REPLACE, UPDATE and DELETE: their syntax is the parser's, their clauses are checked here.

use datafusion_sql::sqlparser::ast::{
    Assignment, AssignmentTarget, FromTable, Ident, Insert as InsertAst, ObjectName, OnInsert, Spanned, Statement as Ast,
    TableFactor, TableObject, TableWithJoins,
};
use datafusion_sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan};

use super::cursor::{Cursor, plain_name};
use crate::lexeme::Lexemes;
use crate::literals::Literals;
use crate::token::{self, Lines, folded};
use crate::{Delete, Insert, OnDuplicate, QueryText, SqlError, Statement, Update};

/// As [`insert`], if all there is are rows of plain literals.
pub(super) fn insert_of_literals(tokens: &[TokenWithSpan], lines: &Lines<'_>) -> Option<Statement> {
    let mut found = Literals::read(Lexemes::Tokens(tokens))?;
    if found.rest.next().is_some() {
        return None;
    }
    statement_of(&found, text(tokens, lines))
}

/// As [`insert_of_literals`], of a text that is nothing else and needs no tokens to see that.
pub(super) fn insert_in_text(sql: &str) -> Option<(Statement, String)> {
    let sql = sql.trim_end_matches([' ', '\t', '\n', '\r', ';']);
    let mut found = Literals::read(Lexemes::Text(sql))?;
    // Places in the text are counted from its beginning.
    if found.rest.next().is_some() || !sql.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return None;
    }
    Some((statement_of(&found, QueryText::of_text(sql))?, sql.to_owned()))
}

fn statement_of(found: &Literals<'_>, source: QueryText) -> Option<Statement> {
    let on_duplicate = if found.replace { OnDuplicate::Replace } else { OnDuplicate::Refuse };
    let table = found.table.folded()?.into_owned();
    Some(Statement::Insert(Insert { table, on_duplicate, assigned: vec![], source }))
}

/// `INSERT INTO ...`, `REPLACE INTO ...`.
pub(super) fn insert(tokens: &[TokenWithSpan], lines: &Lines<'_>) -> Result<Statement, SqlError> {
    let place = tokens[0].span.start;
    let Ast::Insert(insert) = token::parse_statement(tokens)? else {
        return Err(SqlError::at("expected INSERT INTO", place));
    };
    let word = if insert.replace_into { "REPLACE" } else { "INSERT" };
    let plain = insert.or.is_none()
        && !insert.ignore
        && insert.returning.is_none()
        && insert.assignments.is_empty()
        && !insert.overwrite
        && insert.partitioned.is_none()
        && insert.insert_alias.is_none();
    if !plain {
        return Err(SqlError::at(format!("{word} takes VALUES or a query, without further clauses"), place));
    }
    if insert.source.is_none() {
        return Err(SqlError::at(format!("{word} without VALUES or a query is not supported"), place));
    }
    let TableObject::TableName(name) = &insert.table else {
        return Err(SqlError::at(format!("{word} into a table function is not supported"), place));
    };
    let table = plain_name(name, place)?;
    let (on_duplicate, assigned) = on_duplicate(&insert, name, place)?;
    Ok(Statement::Insert(Insert { table, on_duplicate, assigned, source: text(tokens, lines) }))
}

fn on_duplicate(insert: &InsertAst, table: &ObjectName, place: Location) -> Result<(OnDuplicate, Vec<String>), SqlError> {
    match &insert.on {
        None if insert.replace_into => Ok((OnDuplicate::Replace, vec![])),
        None => Ok((OnDuplicate::Refuse, vec![])),
        Some(OnInsert::DuplicateKeyUpdate(_)) if insert.replace_into => {
            Err(SqlError::at("REPLACE takes no ON DUPLICATE KEY UPDATE", place))
        }
        Some(OnInsert::DuplicateKeyUpdate(assignments)) => {
            let names: Vec<&Ident> = table.0.last().and_then(|part| part.as_ident()).into_iter().collect();
            let columns = assigned_columns(assignments, &names)?;
            Ok((OnDuplicate::Update, columns.into_iter().map(folded).collect()))
        }
        Some(_) => Err(SqlError::at("ON CONFLICT is not supported (write ON DUPLICATE KEY UPDATE)", place)),
    }
}

/// `UPDATE t [AS a] SET c = e, ... [WHERE p]`.
pub(super) fn update(tokens: &[TokenWithSpan], lines: &Lines<'_>) -> Result<Statement, SqlError> {
    refuse_list(tokens, "UPDATE", "SET")?;
    let place = tokens[0].span.start;
    let Ast::Update(update) = token::parse_statement(tokens)? else {
        return Err(SqlError::at("expected UPDATE", place));
    };
    let clauses = [
        ("OR", update.or.is_some()),
        ("FROM", update.from.is_some()),
        ("RETURNING", update.returning.is_some() || update.output.is_some()),
        ("ORDER BY", !update.order_by.is_empty()),
        ("LIMIT", update.limit.is_some()),
    ];
    refuse("UPDATE", &clauses, place)?;
    let target = one_table("UPDATE", &update.table)?;
    let table = plain_name(target.name, place)?;
    let assigned = assigned_columns(&update.assignments, &target.names())?.into_iter().map(folded).collect();
    Ok(Statement::Update(Update { table, assigned, source: text(tokens, lines) }))
}

/// `DELETE FROM t [AS a] [WHERE p]`.
pub(super) fn delete(tokens: &[TokenWithSpan], lines: &Lines<'_>) -> Result<Statement, SqlError> {
    let mut cursor = Cursor::new(tokens);
    cursor.next();
    cursor.expect("FROM")?;
    let place = tokens[0].span.start;
    let Ast::Delete(delete) = token::parse_statement(tokens)? else {
        return Err(SqlError::at("expected DELETE FROM", place));
    };
    let clauses = [
        ("USING", delete.using.is_some()),
        ("RETURNING", delete.returning.is_some() || delete.output.is_some()),
        ("ORDER BY", !delete.order_by.is_empty()),
        ("LIMIT", delete.limit.is_some()),
    ];
    refuse("DELETE", &clauses, place)?;
    let table = plain_name(one_table("DELETE", deleted_from(&delete.from)?)?.name, place)?;
    Ok(Statement::Delete(Delete { table, source: text(tokens, lines) }))
}

fn text(tokens: &[TokenWithSpan], lines: &Lines<'_>) -> QueryText {
    QueryText::new(tokens.to_vec(), lines.slice(tokens))
}

/// An error if there is a comma before the word `end`.
fn refuse_list(tokens: &[TokenWithSpan], statement: &str, end: &str) -> Result<(), SqlError> {
    let is_end = |t: &Token| matches!(t, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(end));
    match tokens.iter().take_while(|t| !is_end(&t.token)).find(|t| t.token == Token::Comma) {
        Some(comma) => Err(several_tables(statement, comma.span.start)),
        None => Ok(()),
    }
}

fn several_tables(statement: &str, place: Location) -> SqlError {
    SqlError::at(format!("{statement} of several tables is not supported"), place)
}

/// An error that names the first of `clauses` that is there.
fn refuse(statement: &str, clauses: &[(&str, bool)], place: Location) -> Result<(), SqlError> {
    match clauses.iter().find(|(_, there)| *there) {
        Some((clause, _)) => Err(SqlError::at(format!("{clause} is not supported in {statement}"), place)),
        None => Ok(()),
    }
}

/// The FROM of a DELETE.
pub(crate) fn deleted_from(from: &FromTable) -> Result<&TableWithJoins, SqlError> {
    let (FromTable::WithFromKeyword(tables) | FromTable::WithoutKeyword(tables)) = from;
    match &tables[..] {
        [table] => Ok(table),
        [] => Err(SqlError::new("DELETE takes a table")),
        [_, second, ..] => Err(several_tables("DELETE", second.span().start)),
    }
}

/// The table that a statement changes.
pub(crate) struct Target<'a> {
    pub(crate) name: &'a ObjectName,
    alias: Option<&'a Ident>,
}

impl Target<'_> {
    /// What its columns may be qualified with.
    fn names(&self) -> Vec<&Ident> {
        self.qualifier().into_iter().collect()
    }

    /// Its alias, or else its name.
    pub(crate) fn qualifier(&self) -> Option<&Ident> {
        self.alias.or_else(|| self.name.0.last()?.as_ident())
    }
}

/// The table that a statement changes: one, by its name, perhaps with an alias.
pub(crate) fn one_table<'a>(statement: &str, table: &'a TableWithJoins) -> Result<Target<'a>, SqlError> {
    if let Some(join) = table.joins.first() {
        return Err(several_tables(statement, join.relation.span().start));
    }
    let plain = |args: bool, alias: &Option<datafusion_sql::sqlparser::ast::TableAlias>| {
        !args && alias.as_ref().is_none_or(|alias| alias.columns.is_empty() && alias.at.is_none())
    };
    match &table.relation {
        TableFactor::Table {
            name,
            alias,
            args,
            with_hints,
            version: None,
            with_ordinality: false,
            partitions,
            json_path: None,
            sample: None,
            index_hints,
        } if plain(args.is_some(), alias) && with_hints.is_empty() && partitions.is_empty() && index_hints.is_empty() => {
            Ok(Target { name, alias: alias.as_ref().map(|alias| &alias.name) })
        }
        other => Err(SqlError::at(format!("{statement} takes the name of a table, and an alias"), other.span().start)),
    }
}

/// The columns that are assigned, each once; `qualifiers` may stand before them.
pub(crate) fn assigned_columns<'a>(assignments: &'a [Assignment], qualifiers: &[&Ident]) -> Result<Vec<&'a Ident>, SqlError> {
    let mut columns: Vec<&Ident> = Vec::new();
    for assignment in assignments {
        let name = match &assignment.target {
            AssignmentTarget::ColumnName(name) => name,
            AssignmentTarget::Tuple(_) => {
                let place = assignment.target.span().start;
                return Err(SqlError::at("an assignment to several columns is not supported: assign each", place));
            }
        };
        let parts: Vec<&Ident> = name.0.iter().filter_map(|part| part.as_ident()).collect();
        let column = match parts[..] {
            [column] => column,
            [table, column] if qualifiers.iter().any(|q| folded(q) == folded(table)) => column,
            _ => return Err(SqlError::at(format!("'{name}' is not a column of the table that is changed"), name.span().start)),
        };
        if columns.iter().any(|c| c.value.eq_ignore_ascii_case(&column.value)) {
            return Err(SqlError::at(format!("column '{}' is assigned twice", column.value), column.span.start));
        }
        columns.push(column);
    }
    Ok(columns)
}
