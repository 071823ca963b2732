//! The data directory from outside: rows in are rows out, commits are whole or not at all, damage is named.

mod alter;
mod checked;
mod damage;
mod directory;
mod golden;
mod maintenance;
mod moments;
mod prepared;
mod replication;
mod rows;
mod tables;
