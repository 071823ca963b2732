//! What maintenance does at the moment, and what it could not do.
//!
//! Each partition is flushed and merged for itself: what fails in one is tried again after a while, and keeps nobody else waiting.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::Error;

/// What failed is tried again after this, and then after twice as long each time, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A piece of maintenance; of a partition, the table's number and the partition in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Task {
    /// Rows in memory go to segments.
    Flush(u64, usize),
    /// Segments become fewer.
    Merge(u64, usize),
    /// A manifest takes the place of the log.
    Checkpoint,
}

/// The tasks that run, and those that failed when they were last tried.
#[derive(Default)]
pub(super) struct Tasks {
    running: BTreeSet<Task>,
    failed: BTreeMap<Task, Failure>,
}

struct Failure {
    error: String,
    /// The same for errors that differ only in the file that was about to be written.
    sort: String,
    pause: Duration,
    again: Instant,
}

impl Tasks {
    pub fn begin(&mut self, task: Task) {
        self.running.insert(task);
    }

    /// A task has ended, well or with an error; whether that is news.
    pub fn end(&mut self, task: Task, error: Option<&Error>, now: Instant) -> bool {
        self.running.remove(&task);
        let Some(error) = error else { return self.failed.remove(&task).is_some() };
        let sort = sort_of(error);
        let before = self.failed.get(&task);
        let is_news = before.is_none_or(|before| before.sort != sort);
        let pause = before.map_or(FIRST_PAUSE, |before| (before.pause * 2).min(LONGEST_PAUSE));
        self.failed.insert(task, Failure { error: error.to_string(), sort, pause, again: now + pause });
        is_news
    }

    pub fn is_running(&self, task: Task) -> bool {
        self.running.contains(&task)
    }

    /// Whether a task has not failed, or long enough ago.
    pub fn may_begin(&self, task: Task, now: Instant) -> bool {
        self.failed.get(&task).is_none_or(|failure| failure.again <= now)
    }

    /// When the next one that failed is tried again.
    pub fn next(&self, now: Instant) -> Option<Instant> {
        self.failed.values().map(|failure| failure.again).filter(|again| *again > now).min()
    }

    /// How a task failed when it was last tried, if it did.
    pub fn error(&self, task: Task) -> Option<&str> {
        self.failed.get(&task).map(|failure| failure.error.as_str())
    }

    /// What fails now, if anything does.
    pub fn any_error(&self) -> Option<&str> {
        self.failed.values().next().map(|failure| failure.error.as_str())
    }

    /// Forgets failures that concern nobody any more.
    pub fn retain(&mut self, concerns: impl Fn(Task) -> bool) {
        self.failed.retain(|task, _| concerns(*task));
    }
}

/// A new segment has another file each time, on the same full disk.
fn sort_of(error: &Error) -> String {
    match error {
        Error::Io { source, .. } => source.to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(file: u64) -> Error {
        Error::Io { path: format!("{file}.segment").into(), source: std::io::ErrorKind::StorageFull.into() }
    }

    #[test]
    fn what_fails_is_told_once_and_tried_again_more_and_more_rarely() {
        let (mut tasks, task, mut now) = (Tasks::default(), Task::Flush(1, 0), Instant::now());
        assert!(tasks.end(task, Some(&full(1)), now), "news");
        for (file, pause) in [(2, 1), (3, 2), (4, 4), (5, 8), (6, 16), (7, 32), (8, 60), (9, 60)] {
            let again = now + Duration::from_secs(pause);
            assert_eq!(tasks.next(now), Some(again));
            assert!(!tasks.may_begin(task, again - Duration::from_millis(1)) && tasks.may_begin(task, again));
            assert!(tasks.may_begin(Task::Flush(1, 1), now), "others go on");
            now = again;
            tasks.begin(task);
            assert!(tasks.is_running(task));
            assert!(!tasks.end(task, Some(&full(file)), now), "the same again");
        }
        assert!(tasks.error(task).is_some_and(|error| error.starts_with("9.segment")));
        assert!(tasks.end(task, Some(&Error::Invalid("another".into())), now), "another error is news");
        assert!(tasks.end(task, None, now), "so is the end of it");
        assert!(!tasks.end(task, None, now));
        assert_eq!((tasks.error(task), tasks.next(now)), (None, None));
    }
}
