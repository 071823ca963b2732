//! Rows of leaves that are read while they come.
//!
//! Between the threads that hear from the leaves and the one that reads stands a [`Basin`]: a few parts of each leaf. When it is full
//! the leaf's thread waits, then its connection, then the leaf itself, which makes no more rows; so that who reads slowly costs no
//! memory anywhere.

use std::collections::VecDeque;
use std::time::Duration;

use arrow::array::RecordBatch;
use parking_lot::{Condvar, Mutex};
use stoa_exec::{CancelToken, Error, Fragment, LeafRows, Profile, QueryContext, Reservation, Result, TakeRows, row_bytes};
use stoa_rpc::leaf::RunProfile;
use stoa_rpc::{Failure, FailureKind};

use super::fragments::{Going, QueryOnLeaves, consequence};

/// Parts of one leaf that wait to be read.
const AHEAD: usize = 2;
/// How often one who waits looks whether the query was cancelled.
const LOOK: Duration = Duration::from_millis(10);

/// Hands on the rows of a fragment as they come, until no more are wanted.
pub(super) fn stream(
    query: &QueryOnLeaves<'_>,
    fragment: &Fragment,
    ctx: &QueryContext,
    each: &mut TakeRows<'_>,
) -> Result<Profile> {
    let going = query.going(fragment)?;
    if going.leaves() != 1 {
        return pull(query, &going, ctx, &mut |basin| {
            while let Some(batches) = basin.any()? {
                if !each(batches)? {
                    break;
                }
            }
            Ok(())
        });
    }
    let mut taken = Ok(true);
    let ran = query.run_on(&going, 0, (ctx, &CancelToken::default()), &mut |batches| {
        taken = each(batches);
        if matches!(taken, Ok(true)) { Ok(()) } else { Err(Failure::cancelled()) }
    });
    match (taken, ran) {
        (Err(error), _) => Err(error),
        (Ok(false), _) => Ok(Profile::default()),
        (Ok(true), Ok(ran)) => Ok(query.profile(&going, vec![(0, ran)])),
        (Ok(true), Err(failure)) => {
            going.cancel(0);
            Err(query.failed(failure))
        }
    }
}

/// Runs a fragment for `read`, which may end before the leaves do.
pub(super) fn pull(
    query: &QueryOnLeaves<'_>,
    going: &Going,
    ctx: &QueryContext,
    read: &mut dyn FnMut(&mut Reader<'_>) -> Result<()>,
) -> Result<Profile> {
    let basin = Basin::new(going.leaves(), ctx);
    let hear = |which: usize| {
        let heard = query.run_on(going, which, (ctx, &basin.over), &mut |batches| basin.put(which, batches));
        if basin.ended(which, heard.is_ok()) {
            // The others need not finish what nobody will read.
            (0..going.leaves()).for_each(|other| going.cancel(other));
        }
        heard
    };
    let hear = &hear;
    let (read, ran) = std::thread::scope(|scope| {
        let closes = Closes(&basin);
        let threads: Vec<_> = (0..going.leaves()).map(|which| scope.spawn(move || hear(which))).collect();
        let read = read(&mut Reader { basin: &basin, next: 0 });
        drop(closes);
        let defect = |_| Err(Failure::new(FailureKind::Fatal, "a defect stopped a call to a leaf"));
        (read, threads.into_iter().map(|thread| thread.join().unwrap_or_else(defect)).collect::<Vec<_>>())
    });
    outcome(query, going, basin.has_failed(), read, ran)
}

/// What came of a fragment. Leaves that were still at work when enough was read say nothing of what they did.
fn outcome(
    query: &QueryOnLeaves<'_>,
    going: &Going,
    failed: bool,
    read: Result<()>,
    ran: Vec<std::result::Result<RunProfile, Failure>>,
) -> Result<Profile> {
    let (mut profiles, mut failures) = (Vec::new(), Vec::new());
    for (which, ran) in ran.into_iter().enumerate() {
        match ran {
            Ok(ran) => profiles.push((which, ran)),
            Err(failure) => failures.push(failure),
        }
    }
    if failed && let Some(failure) = failures.into_iter().min_by_key(consequence) {
        return Err(query.failed(failure));
    }
    read.map(|()| query.profile(going, profiles))
}

/// See the module.
struct Basin<'a> {
    ctx: &'a QueryContext,
    state: Mutex<State>,
    changed: Condvar,
    /// Set when it is closed.
    over: CancelToken,
}

struct State {
    leaves: Vec<Waiting>,
    closed: bool,
    failed: bool,
}

/// What came from a leaf and was not read.
#[derive(Default)]
struct Waiting {
    parts: VecDeque<(Vec<RecordBatch>, Reservation)>,
    ended: bool,
}

impl Basin<'_> {
    fn new(leaves: usize, ctx: &QueryContext) -> Basin<'_> {
        let leaves = (0..leaves).map(|_| Waiting::default()).collect();
        let state = Mutex::new(State { leaves, closed: false, failed: false });
        Basin { ctx, state, changed: Condvar::new(), over: CancelToken::default() }
    }

    /// Adds a part; waits while there are too many of the leaf.
    fn put(&self, which: usize, batches: Vec<RecordBatch>) -> std::result::Result<(), Failure> {
        let mut memory = self.ctx.memory.reserve("rows that leaves sent");
        memory.grow(batches.iter().map(row_bytes).sum()).map_err(|e| Failure::new(FailureKind::Memory, e.to_string()))?;
        let mut state = self.state.lock();
        while !state.closed && state.leaves[which].parts.len() >= AHEAD {
            if self.ctx.cancel.check().is_err() {
                return Err(Failure::cancelled());
            }
            self.changed.wait_for(&mut state, LOOK);
        }
        if state.closed {
            return Err(Failure::cancelled());
        }
        state.leaves[which].parts.push_back((batches, memory));
        self.changed.notify_all();
        Ok(())
    }

    /// A leaf has no more to say. Whether by that all others have to end too.
    fn ended(&self, which: usize, well: bool) -> bool {
        let mut state = self.state.lock();
        state.leaves[which].ended = true;
        let fails = !well && !state.closed;
        state.failed |= fails;
        drop(state);
        if fails {
            self.close();
        }
        self.changed.notify_all();
        fails
    }

    /// Nothing is read any more.
    fn close(&self) {
        self.state.lock().closed = true;
        self.over.cancel();
        self.changed.notify_all();
    }

    fn has_failed(&self) -> bool {
        self.state.lock().failed
    }

    /// Takes what `choose` finds; waits for it. `None`: it says that nothing will come.
    fn take(&self, choose: impl Fn(&[Waiting]) -> Choice) -> Result<Option<(usize, Vec<RecordBatch>)>> {
        let mut state = self.state.lock();
        loop {
            self.ctx.cancel.check()?;
            if state.failed {
                return Err(Error::Cancelled);
            }
            match choose(&state.leaves) {
                Choice::Of(which) => {
                    let part = state.leaves[which].parts.pop_front();
                    self.changed.notify_all();
                    return Ok(part.map(|(batches, _)| (which, batches)));
                }
                Choice::Nothing => return Ok(None),
                Choice::Wait => drop(self.changed.wait_for(&mut state, LOOK)),
            }
        }
    }
}

/// Which leaf's part is read next.
enum Choice {
    Of(usize),
    Wait,
    Nothing,
}

/// Closes a basin, whatever happens to who reads from it.
struct Closes<'a>(&'a Basin<'a>);

impl Drop for Closes<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Reads from a basin.
pub(super) struct Reader<'a> {
    basin: &'a Basin<'a>,
    /// The leaf whose turn it is.
    next: usize,
}

impl Reader<'_> {
    /// The next part of any leaf, in turns.
    fn any(&mut self) -> Result<Option<Vec<RecordBatch>>> {
        let first = self.next;
        let taken = self.basin.take(|leaves| {
            let mut turns = (first..leaves.len()).chain(0..first.min(leaves.len()));
            match turns.find(|which| !leaves[*which].parts.is_empty()) {
                Some(which) => Choice::Of(which),
                None if leaves.iter().all(|leaf| leaf.ended) => Choice::Nothing,
                None => Choice::Wait,
            }
        })?;
        Ok(taken.map(|(which, batches)| {
            self.next = which + 1;
            batches
        }))
    }
}

impl LeafRows for Reader<'_> {
    fn leaves(&self) -> usize {
        self.basin.state.lock().leaves.len()
    }

    fn next(&mut self, leaf: usize) -> Result<Option<Vec<RecordBatch>>> {
        let taken = self.basin.take(|leaves| match leaves.get(leaf) {
            Some(waiting) if !waiting.parts.is_empty() => Choice::Of(leaf),
            Some(waiting) if !waiting.ended => Choice::Wait,
            _ => Choice::Nothing,
        })?;
        Ok(taken.map(|(_, batches)| batches))
    }
}
