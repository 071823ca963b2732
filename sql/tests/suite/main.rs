//! The front end: statements in, plans or errors out. One program, as each would carry the whole front end along.

mod catalog;
mod changes;
mod codec;
mod errors;
mod features;
mod hostile;
mod mutated;
mod prepared;
mod statements;
mod tpch;
