//! A coordinator: sessions that plan, scatter, gather and merge; the catalog of the cluster; placement of partitions.
//!
//! A [`Session`] runs statements over a [`Store`]. There are two: [`Embedded`] is one data directory in this process; [`Cluster`] is
//! leaves elsewhere. Everything above the trait is the same code for both.

mod access;
mod backup;
pub mod catalog;
pub mod cluster;
pub mod consensus;
mod control;
mod embedded;
mod error;
mod membership;
pub mod placement;
mod prepared;
mod processes;
mod recovery;
mod retry;
mod service;
mod session;
mod statements;
mod store;
pub mod supervision;

pub use cluster::Cluster;
pub use control::Control;
pub use embedded::Embedded;
pub use error::{Error, Result};
pub use membership::Membership;
pub use processes::Processes;
pub use retry::RetryLimit;
pub use service::{Coordinator, DEFAULT_DATABASE};
pub use session::{Outcome, PlanBasis, Plans, Prepared, Session, definition, sql_type_name};
pub use store::{Rows, Store, Transaction};
pub use supervision::{Patience, Supervisor};
