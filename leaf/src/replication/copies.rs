//! Which copies a master waits for: pure, so that it can be simulated.

use std::collections::BTreeMap;

use stoa_rpc::replication::{CopyOrder, CopyReport, CopyRole, FedReport, FedState, RoleOrder};

/// A copy that lacks no more than so many records is waited for: it would not catch up with writers that do not wait.
const CLOSE: u64 = 256;

/// Whether a copy that is to be the master has lost what it had, by the last record that it has, if it is there. An empty master would
/// have the other copies made anew from it. In the first term nothing may have been written yet; every term begins with a record.
#[must_use]
pub fn is_lost(order: &CopyOrder, lsn: Option<u64>) -> bool {
    matches!(order.role, RoleOrder::Master { .. }) && (lsn.is_none() || lsn == Some(0) && order.term > 1)
}

/// What a leaf reports of a copy that is to be the master and has lost what it had.
#[must_use]
pub fn report_lost(order: &CopyOrder) -> CopyReport {
    CopyReport {
        database: order.database.clone(),
        ordinal: order.ordinal,
        term: order.term,
        role: CopyRole::Master,
        failure: "its data is gone from this leaf".to_owned(),
        ..CopyReport::default()
    }
}

/// The copies that the master of a term feeds, as it knows them.
#[derive(Clone, Debug, Default)]
pub struct FedCopies {
    /// The last record of the log.
    head: u64,
    /// The last one when the term began, once it has.
    begin: Option<u64>,
    /// Every copy in sync had that one.
    serves: bool,
    /// By address.
    copies: BTreeMap<String, Copy>,
}

/// A copy that is fed.
#[derive(Clone, Debug)]
struct Copy {
    /// No commit is acknowledged without it.
    must: bool,
    /// It is waited for and is in sync once it has this record.
    joining: Option<u64>,
    /// It is not to be fed any more, but still counts.
    leaving: bool,
    /// The last report that said that it is in sync.
    reported: u64,
    acknowledged: u64,
    state: FedState,
    /// Of the last try, until one gets further.
    failure: String,
    copied: (u64, u64),
    /// Bytes that the last try had copied when it failed.
    reached: u64,
}

impl Copy {
    fn new() -> Copy {
        Copy {
            must: false,
            joining: None,
            leaving: false,
            reported: 0,
            acknowledged: 0,
            state: FedState::Connecting,
            failure: String::new(),
            copied: (0, 0),
            reached: 0,
        }
    }

    /// It does not do what a copy in sync does.
    fn is_out(&self) -> bool {
        self.leaving || self.state != FedState::InSync && self.joining.is_none()
    }
}

impl FedCopies {
    /// None yet, behind a record.
    #[must_use]
    pub fn new(head: u64) -> FedCopies {
        FedCopies { head, begin: None, serves: false, copies: BTreeMap::new() }
    }

    /// The last record of the log.
    #[must_use]
    pub fn head(&self) -> u64 {
        self.head
    }

    /// Records up to this one are in the log.
    pub fn written(&mut self, lsn: u64) {
        self.head = self.head.max(lsn);
    }

    /// The term has begun behind this record.
    pub fn begin(&mut self, lsn: u64) {
        self.begin = Some(lsn);
        self.written(lsn);
    }

    /// Whether what the master had when its term began is on every copy in sync. Until then the catalog may go back to one of them,
    /// which need not have what was never acknowledged: nobody may see it.
    pub fn serves(&mut self) -> bool {
        self.serves |= self.begin.is_some_and(|lsn| self.all_have(lsn));
        self.serves
    }

    /// Whether a copy is fed.
    #[must_use]
    pub fn has(&self, address: &str) -> bool {
        self.copies.contains_key(address)
    }

    /// Whether no commit is acknowledged without a copy. One that comes with nothing then must not be fed before the catalog knows: with
    /// some of the records it would pass for one that has them all.
    #[must_use]
    pub fn counts(&self, address: &str) -> bool {
        self.copies.get(address).is_some_and(|copy| copy.must)
    }

    /// Whether a commit up to a record may be acknowledged.
    #[must_use]
    pub fn all_have(&self, lsn: u64) -> bool {
        self.copies.values().all(|copy| !copy.must || copy.acknowledged >= lsn)
    }

    /// Every copy has all records up to this one.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.copies.values().map(|copy| copy.acknowledged).min().unwrap_or(u64::MAX)
    }

    /// Keeps to orders that were made when the report of the number `processed` had been dealt with; the copies that are new.
    pub fn keep(&mut self, in_sync: &[String], feed: &[String], processed: u64) -> Vec<String> {
        let new: Vec<String> = in_sync.iter().chain(feed).filter(|address| !self.has(address)).cloned().collect();
        for address in &new {
            self.copies.insert(address.clone(), Copy::new());
        }
        self.copies.retain(|address, copy| {
            let wanted = in_sync.contains(address) || feed.contains(address);
            copy.leaving = !wanted;
            if in_sync.contains(address) {
                copy.must = true;
            } else if copy.must && copy.is_out() && processed >= copy.reported {
                // The catalog does not count it, and no report is on its way that could make it.
                copy.must = false;
            }
            wanted || copy.must
        });
        new
    }

    /// How the copies stand, for the report of a number.
    pub fn report(&mut self, number: u64) -> Vec<FedReport> {
        let one = |(address, copy): (&String, &mut Copy)| {
            let counts = copy.state == FedState::InSync && copy.must && !copy.leaving;
            if counts {
                copy.reported = number;
            }
            let state = if copy.state == FedState::InSync && !counts { FedState::Following } else { copy.state };
            let (lsn, failure, copied) = (copy.acknowledged, copy.failure.clone(), copy.copied);
            FedReport { address: address.clone(), state, lsn, failure, copied }
        };
        self.copies.iter_mut().map(one).collect()
    }

    /// A copy has everything up to a record. When it is close to the end no commit is acknowledged without it any more, and it is in
    /// sync once it has what there was then.
    pub fn acknowledge(&mut self, address: &str, lsn: u64) {
        let Some(copy) = self.copies.get_mut(address) else { return };
        copy.acknowledged = lsn;
        if copy.state == FedState::InSync {
            return;
        }
        copy.state = FedState::Following;
        if !copy.leaving && lsn + CLOSE >= self.head {
            copy.must = true;
            copy.joining.get_or_insert(self.head);
        }
        if copy.joining.is_some_and(|end| lsn >= end) {
            (copy.state, copy.joining) = (FedState::InSync, None);
            copy.failure.clear();
        }
    }

    /// A copy could not be fed; `told`: so often that others are to know.
    pub fn fail(&mut self, address: &str, failure: String, told: bool) {
        if let Some(copy) = self.copies.get_mut(address) {
            copy.state = if told { FedState::Failed } else { FedState::Connecting };
            (copy.failure, copy.joining, copy.reached) = (failure, None, copy.copied.0);
        }
    }

    /// A copy is made anew from the state behind a record, and has so many bytes, of so many.
    pub fn copy_anew(&mut self, address: &str, lsn: u64, copied: (u64, u64)) {
        if let Some(copy) = self.copies.get_mut(address) {
            // What was not told is no failure of this try, nor is what this one has got over.
            if copy.state == FedState::Connecting || copied.0 > copy.reached {
                copy.failure.clear();
            }
            // It has lost what it had: it does not count before it has everything again, and the catalog must know.
            copy.state = if copy.must { FedState::Failed } else { FedState::Copying };
            (copy.copied, copy.acknowledged, copy.joining) = (copied, lsn, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a report says of the one copy.
    fn reported(copies: &mut FedCopies) -> (FedState, String, (u64, u64)) {
        let FedReport { state, failure, copied, .. } = copies.report(1).remove(0);
        (state, failure, copied)
    }

    #[test]
    fn a_failure_is_told_until_a_try_gets_further() {
        let (mut copies, at) = (FedCopies::new(9), "a:1");
        copies.keep(&[], &[at.to_owned()], 0);
        copies.fail(at, "it waits for orders".into(), false);
        copies.copy_anew(at, 9, (0, 100));
        assert_eq!(reported(&mut copies), (FedState::Copying, String::new(), (0, 100)));
        copies.copy_anew(at, 9, (40, 100));
        for _ in 0..2 {
            copies.fail(at, "no space".into(), true);
            assert_eq!(reported(&mut copies), (FedState::Failed, "no space".into(), (40, 100)));
            for copied in [0, 20, 40] {
                copies.copy_anew(at, 9, (copied, 100));
                assert_eq!(reported(&mut copies), (FedState::Copying, "no space".into(), (copied, 100)));
            }
        }
        copies.copy_anew(at, 9, (41, 100));
        assert_eq!(reported(&mut copies), (FedState::Copying, String::new(), (41, 100)));
    }
}
