//! How a query runs on the leaves, from here.

use std::sync::Arc;
use std::time::Instant;

use stoa_exec::{CancelToken, Profile, Progress, QueryContext, QueryResult, TakeResult, execute_on_leaves, stream_on_leaves};
use stoa_plan::Query;

use super::fragments::QueryOnLeaves;
use super::transaction::Participants;
use super::{Database, Shared, routing};
use crate::Result;

impl Shared {
    pub(super) fn context(&self, cancel: &CancelToken) -> QueryContext {
        QueryContext {
            settings: self.settings.clone(),
            cancel: cancel.clone(),
            memory: self.admission.memory().part(self.query_memory),
        }
    }

    /// Runs a query, within a transaction or over what is committed.
    pub(super) fn run(
        &self,
        database: Arc<Database>,
        query: &Query,
        within: Option<&Participants>,
        cancel: &CancelToken,
        progress: &Progress,
    ) -> Result<QueryResult> {
        let _pass = self.admission.enter(cancel)?;
        let context = self.context(cancel);
        self.on_leaves((database, within), query, progress, |leaves| execute_on_leaves(query, leaves, &context, progress))
    }

    /// As [`Shared::run`], and hands the rows on as they come. A query that waits until they are taken does not count as one that runs.
    pub(super) fn stream(
        &self,
        over: (Arc<Database>, Option<&Participants>),
        query: &Query,
        cancel: &CancelToken,
        progress: &Progress,
        take: &mut TakeResult<'_>,
    ) -> Result<Profile> {
        let pass = self.admission.enter(cancel)?;
        let context = self.context(cancel);
        let mut delivered = false;
        let mut take = |schema: &_, batches| {
            delivered = true;
            pass.lend(|| take(schema, batches))
        };
        let run = |leaves: &QueryOnLeaves<'_>| stream_on_leaves(query, leaves, &context, progress, &mut take);
        let ran = self.on_leaves(over, query, progress, run);
        ran.map_err(|error| if delivered && cancel.check().is_ok() { error.after_delivery() } else { error })
    }

    /// Begins a query and ends it.
    fn on_leaves<T>(
        &self,
        (mut database, within): (Arc<Database>, Option<&Participants>),
        query: &Query,
        progress: &Progress,
        run: impl FnOnce(&QueryOnLeaves<'_>) -> stoa_exec::Result<T>,
    ) -> Result<T> {
        // In a transaction addresses of REFERENCE tables must be of the same leaf, whatever else is read.
        let anywhere = within.is_none() || !routing::reads_reference(query);
        if let Some(read) = routing::partitions_read(query, database.masters.len()).filter(|_| anywhere) {
            database = Arc::new(database.only(&read));
        }
        let (number, began) = (self.numbers.next(self.control.node()), Instant::now());
        let leaves = QueryOnLeaves::new(database, self, number, within);
        progress.follow(leaves.how_far());
        let result = run(&leaves).map_err(|error| leaves.explained(error));
        // The leaves log the same number.
        match &result {
            Ok(_) => tracing::debug!(query = number, wall = ?began.elapsed(), "query done"),
            Err(error) => tracing::debug!(query = number, %error, "query failed"),
        }
        result
    }
}
