//! The `stoa` command and the embedded engine behind it.
//!
//! [`engine::Engine`] joins one data directory with the SQL front end, the optimizer and the executor, in one process and without
//! sockets. The commands are thin: arguments in, engine calls, text out.

pub mod args;
pub mod commands;
pub mod config;
pub mod connection;
pub mod engine;
pub mod environment;
mod error;
pub mod operations;
pub mod output;
mod progress;
mod shell;

pub use error::{Error, Result};
