//! Vectorized, morsel-driven execution of plans in rayon pools.
//!
//! [`execute`](query::execute) runs a distributed [`stoa_plan::Query`]: fragments once a partition, each ending in partial states or
//! rows, then the merge above them. Operators pass [`Batch`]es; a column of a batch is an Arrow array, canonical for its logical type
//! or one of the encodings that [`batch`] names.

mod admission;
pub mod aggregate;
pub mod batch;
mod columns;
pub mod context;
pub mod error;
mod exchange;
mod executor;
pub mod expression;
mod flow;
mod join;
mod merge;
mod merge_stream;
mod order;
mod pipeline;
pub mod profile;
pub mod query;
pub mod remote;
mod repeat;
mod required;
mod rounds;
mod scan;
mod selected;
mod sink;
mod sort;
mod statistics;
mod stream;

pub use admission::{Admission, AdmissionLimits, Pass};
pub use batch::{Batch, Bounds, Layout, LayoutColumn};
pub use columns::row_bytes;
pub use context::{CancelToken, MemoryBudget, QueryContext, Reservation, Settings};
pub use error::{Error, Result};
pub use expression::literal;
pub use flow::{TakeResult, stream_on_leaves, stream_query};
pub use profile::{HowFar, Profile, Progress};
pub use query::{QueryResult, Storage, execute, execute_with};
pub use remote::{
    Destination, Fragment, Fragments, LeafRows, ReadLeaves, Received, TakeRows, execute_fragment, execute_on_leaves,
};
pub use statistics::table_statistics;
pub use stream::stream_fragment;
