//! What a running query shares: settings, cancellation, memory, profile.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::{Error, Result};

/// Settings of a query. Tests set hostile values through `STOA_*` variables ([`Settings::from_env`]).
#[derive(Clone, Debug)]
pub struct Settings {
    /// Rows that an operator aims to have in a batch. `STOA_VECTOR_SIZE`.
    pub vector_size: usize,
    /// All hashes are zero, so that every collision path runs. `STOA_HASH_ZERO=1`.
    pub hash_zero: bool,
    /// Aggregate states are serialized and read back after every step. `STOA_SERIALIZE_STATES=1`.
    pub serialize_states: bool,
    /// Fast paths on encoded data decline. `STOA_NO_FAST_PATHS=1`.
    pub no_fast_paths: bool,
    /// Joins and groups are shuffled between leaves wherever that is possible. `STOA_ALWAYS_SHUFFLE=1`.
    pub always_shuffle: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { vector_size: 4096, hash_zero: false, serialize_states: false, no_fast_paths: false, always_shuffle: false }
    }
}

impl Settings {
    /// The defaults, overridden by the environment.
    #[must_use]
    pub fn from_env() -> Settings {
        let on = |name: &str| std::env::var(name).is_ok_and(|v| v == "1");
        let vector_size = std::env::var("STOA_VECTOR_SIZE").ok().and_then(|v| v.parse().ok()).filter(|n| *n > 0);
        Settings {
            vector_size: vector_size.unwrap_or(Settings::default().vector_size),
            hash_zero: on("STOA_HASH_ZERO"),
            serialize_states: on("STOA_SERIALIZE_STATES"),
            no_fast_paths: on("STOA_NO_FAST_PATHS"),
            always_shuffle: on("STOA_ALWAYS_SHUFFLE"),
        }
    }
}

/// Rows of whole columns between two looks at the cancel token: well below a millisecond each for the slowest operators.
pub(crate) const PIECE: usize = 16 * 1024;

/// Cancels a query from another thread.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<AtomicBool>);

/// A token that others may set.
impl From<Arc<AtomicBool>> for CancelToken {
    fn from(flag: Arc<AtomicBool>) -> CancelToken {
        CancelToken(flag)
    }
}

impl CancelToken {
    /// The flag that cancels, for those who know no token.
    #[must_use]
    pub fn flag(&self) -> &Arc<AtomicBool> {
        &self.0
    }

    /// Asks the query to stop; it does so at its next batch.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// An error if the query was asked to stop. Operators call it once a batch.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    #[inline]
    pub fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// The rows below `rows` in pieces, with a look before each whether the query was asked to stop: for work on whole columns.
    pub fn pieces(&self, rows: usize) -> impl DoubleEndedIterator<Item = Result<Range<usize>>> {
        (0..rows).step_by(PIECE).map(move |start| {
            self.check()?;
            Ok(start..rows.min(start + PIECE))
        })
    }
}

/// The memory that a query may hold, or all queries of a node together.
#[derive(Debug)]
pub struct MemoryBudget {
    /// The budget of which this one is a part.
    whole: Option<Arc<MemoryBudget>>,
    limit: usize,
    used: AtomicUsize,
    peak: AtomicUsize,
}

impl MemoryBudget {
    /// A budget of `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Arc<MemoryBudget> {
        Arc::new(MemoryBudget { whole: None, limit, used: AtomicUsize::new(0), peak: AtomicUsize::new(0) })
    }

    /// A budget of `limit` bytes within this one: what it holds, this one holds too.
    #[must_use]
    pub fn part(self: &Arc<Self>, limit: usize) -> Arc<MemoryBudget> {
        let whole = Some(self.clone());
        Arc::new(MemoryBudget { whole, limit, used: AtomicUsize::new(0), peak: AtomicUsize::new(0) })
    }

    /// The bytes that may be held.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// The bytes that are held.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes bytes; the limit that stands against it, if there is one, and then nothing was taken.
    fn take(&self, bytes: usize) -> std::result::Result<(), usize> {
        let used = self.used.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let taken =
            if used > self.limit { Err(self.limit) } else { self.whole.as_ref().map_or(Ok(()), |whole| whole.take(bytes)) };
        match taken {
            Ok(()) => drop(self.peak.fetch_max(used, Ordering::Relaxed)),
            Err(_) => drop(self.used.fetch_sub(bytes, Ordering::Relaxed)),
        }
        taken
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(whole) = &self.whole {
            whole.give_back(bytes);
        }
    }

    /// The most bytes that were held at once.
    #[must_use]
    pub fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }

    /// An empty reservation for `operator`; grow it before allocating, drop it to give the memory back.
    #[must_use]
    pub fn reserve(self: &Arc<Self>, operator: &str) -> Reservation {
        Reservation { budget: self.clone(), operator: operator.to_owned(), bytes: 0 }
    }
}

/// Memory held by one operator; given back on drop.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<MemoryBudget>,
    operator: String,
    bytes: usize,
}

impl Reservation {
    /// Sets the bytes held.
    ///
    /// # Errors
    /// [`Error::Memory`] if the budget does not have them; the reservation is unchanged then.
    pub fn resize(&mut self, bytes: usize) -> Result<()> {
        if bytes <= self.bytes {
            self.budget.give_back(self.bytes - bytes);
            self.bytes = bytes;
            return Ok(());
        }
        let taken = self.budget.take(bytes - self.bytes);
        taken.map_err(|limit| Error::Memory { limit, operator: self.operator.clone() })?;
        self.bytes = bytes;
        Ok(())
    }

    /// Holds `more` bytes more.
    ///
    /// # Errors
    /// As [`Reservation::resize`].
    pub fn grow(&mut self, more: usize) -> Result<()> {
        self.resize(self.bytes.saturating_add(more))
    }

    /// The bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

/// What a running query shares.
#[derive(Clone, Debug)]
pub struct QueryContext {
    /// Settings.
    pub settings: Settings,
    /// Cancellation.
    pub cancel: CancelToken,
    /// Memory.
    pub memory: Arc<MemoryBudget>,
}
