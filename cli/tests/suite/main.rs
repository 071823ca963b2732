//! Everything together: the engine in this process, the binary, clusters. One program, as each would carry the whole engine along.

mod admin;
mod alter;
mod bad_input;
mod binary;
mod cancel;
mod changes;
mod check;
mod cluster;
mod cluster_processes;
mod command_line;
mod coordinators;
mod durability;
mod encryption;
mod failover;
#[path = "../leaves/mod.rs"]
mod leaves;
mod mutated_messages;
mod node_failures;
mod nodes;
mod operations;
mod prepared;
mod python_client;
mod tpch;
mod transactions;
mod users;
