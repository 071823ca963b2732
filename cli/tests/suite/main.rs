//! Everything together: the engine in this process, the binary, clusters. One program, as each would carry the whole engine along.

mod admin;
mod alter;
mod backup;
mod bad_input;
mod binary;
mod bulk_changes;
mod cancel;
mod changes;
mod check;
mod cluster;
mod cluster_processes;
mod command_line;
mod coordinators;
mod cut_off;
mod durability;
mod encryption;
mod failover;
mod full_disk;
#[path = "../leaves/mod.rs"]
mod leaves;
mod load;
mod mutated_messages;
mod node_failures;
mod nodes;
mod operations;
mod prepared;
mod process_list;
mod progress;
mod python_client;
mod recover;
mod reference;
mod s3;
mod streaming;
mod tpch;
mod transactions;
mod users;
