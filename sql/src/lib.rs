//! SQL text to plans.
//!
//! [`parse`] splits a text into [`Statement`]s, and [`prepare`] takes one with parameters; [`bind_query`], [`bind_insert`],
//! [`bind_update`] and [`bind_delete`] turn the ones that read or change rows into a [`stoa_plan::Query`]; an INSERT of plain literals
//! has its rows at once, by [`literal_rows`]. Parsing, name resolution, typing and the logical rewrites (decorrelation,
//! simplification, push-down, pruning) are DataFusion's; this is the only crate that knows it. Join order, statistics and
//! distribution come later, in `stoa-plan`.
//!
//! What it keeps true: no text makes it panic; every error says what is wrong and, where it is known, the line and column;
//! what the plan cannot express is rejected by name, never dropped.

mod bind;
mod catalog;
mod convert;
mod dialect;
mod error;
mod lexeme;
mod literals;
mod parse;
mod prepared;
mod statement;
mod token;
mod types;

pub use bind::{DUPLICATES, bind_delete, bind_duplicate_update, bind_insert, bind_query, bind_query_once, bind_update};
pub use catalog::{Catalog, TableColumn, TableInfo};
pub use error::{Location, SqlError};
pub use literals::literal_rows;
pub use parse::{parse, split};
pub use prepared::{PreparedStatement, prepare};
pub use statement::{
    Alter, AlterTable, BitmapIndex, ClusterStatement, ColumnDef, CreateTable, Delete, Durability, Grant, GrantScope, Insert,
    MoveKind, OnDuplicate, Optimize, QueryText, Statement, Update, UserStatement,
};
