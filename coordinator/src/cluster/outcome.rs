//! What came of transactions, asked of those that decided.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use stoa_exec::CancelToken;
use stoa_rpc::leaf::REFERENCE;
use stoa_rpc::session::StatementOutcome;

use super::Shared;
use super::fragments::in_parallel;
use super::in_doubt::master;
use super::witness::{FENCED, KEPT};
use crate::Result;
use crate::retry::wait;

/// The pause between two calls to a partition that does not answer and must.
pub(super) const ASK: Duration = Duration::from_millis(100);
/// How many partitions are asked at once for a client: when a coordinator is lost all of its clients ask.
const AT_ONCE: usize = 8;

impl Shared {
    /// Asks a partition for the outcome of a transaction until it is known, for a while, or until `over`; `None`: it did not answer. One
    /// that is asked has decided then, if it had not: what it does not know never commits.
    pub(super) fn ask(
        &self,
        (database, ordinal): (&str, u32),
        transaction: u64,
        cancel: &CancelToken,
        over: &dyn Fn() -> bool,
    ) -> Option<Option<u64>> {
        let began = Instant::now();
        loop {
            let leaf = master(self, database, ordinal).and_then(|address| self.leaves.leaf(&address).ok());
            let outcome = leaf.and_then(|leaf| leaf.outcome(database, ordinal, transaction).ok());
            if outcome.is_some() || over() || began.elapsed() > self.retry_limit.0 || wait(ASK, cancel).is_err() {
                return outcome;
            }
        }
    }

    /// What came of a change of a database that has been, or would be, decided under one of these numbers. Nobody but its coordinator
    /// knows which partition decides: all of them are asked. Who had prepared its part is told, and keeps nobody waiting any more.
    pub(super) fn outcome(&self, database: &str, transactions: &[u64], cancel: &CancelToken) -> Result<StatementOutcome> {
        let partitions: Vec<u32> = (0u32..).zip(&self.control.database(database)?.masters).map(|(ordinal, _)| ordinal).collect();
        let (committed, began) = (OnceLock::new(), Instant::now());
        let over = || committed.get().is_some() || began.elapsed() > self.retry_limit.0;
        let some: Vec<&[u32]> = partitions.chunks(partitions.len().div_ceil(AT_ONCE).max(1)).collect();
        let silent = in_parallel(&some, |some| {
            let mut silent = None;
            for (ordinal, transaction) in some.iter().flat_map(|ordinal| transactions.iter().map(move |t| (*ordinal, *t))) {
                let outcome = self.ask((database, ordinal), transaction, cancel, &over);
                let kept = if let Some(Some(moment)) = outcome {
                    // Who asks this coordinator from now on sees it.
                    self.clock.hear(moment);
                    // One of them at most is committed.
                    let _ = committed.set((transaction, moment));
                    KEPT
                } else {
                    FENCED
                };
                self.transactions.forget(database, ordinal, transaction, kept);
                silent = silent.or(outcome.is_none().then_some(ordinal));
            }
            Ok(silent)
        })?;
        let outcome = match (committed.into_inner(), silent.into_iter().flatten().next()) {
            (Some((transaction, moment)), _) => {
                self.settle(database, &[transaction], Some(moment));
                StatementOutcome::Committed
            }
            (None, None) => {
                self.settle(database, transactions, None);
                StatementOutcome::Never
            }
            (None, Some(ordinal)) => {
                StatementOutcome::Unknown(format!("partition {ordinal} of database '{database}' does not answer"))
            }
        };
        tracing::info!(
            database,
            ?transactions,
            ?outcome,
            "the coordinator of a statement was lost: its client asks what came of it"
        );
        Ok(outcome)
    }

    /// Tells all who may have prepared them what came of transactions. Who is not reached now is told later ([`super::in_doubt`]).
    fn settle(&self, database: &str, transactions: &[u64], commit: Option<u64>) {
        let Ok(now) = self.control.database(database) else { return };
        let masters = (0u32..).zip(&now.masters).filter_map(|(ordinal, master)| Some((master.clone()?, ordinal)));
        let copies = now.reference.iter().map(|address| (address.clone(), REFERENCE));
        let places: Vec<(String, u32)> = masters.chain(copies).collect();
        let some: Vec<&[(String, u32)]> = places.chunks(places.len().div_ceil(AT_ONCE).max(1)).collect();
        let told = in_parallel(&some, |some| {
            for ((address, ordinal), transaction) in some.iter().flat_map(|place| transactions.iter().map(move |t| (place, *t))) {
                let leaf = self.leaves.leaf(address);
                if let Err(failure) = leaf.and_then(|leaf| leaf.resolve(database, *ordinal, transaction, commit)) {
                    tracing::debug!(transaction, ordinal, %failure, "a partition was not told what came of a transaction");
                }
            }
            Ok(())
        });
        if let Err(failure) = told {
            tracing::warn!(%failure, "partitions were not told what came of transactions");
        }
    }
}
