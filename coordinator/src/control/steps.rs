//! What EXPLAIN and SHOW tell of the steps by which copies move, and whether there is room for them.

use std::collections::BTreeMap;

use stoa_rpc::replication::{FedReport, FedState, Report};
use stoa_sql::MoveKind;

use super::moves::{is_online, job};
use super::{Control, invalid};
use crate::catalog::{Catalog, Database, NodeId};
use crate::placement::{Action, Step};
use crate::session::text_table;
use crate::supervision::{Progress, in_sync, progress, steps};
use crate::{Error, Outcome, Result};

impl Control {
    /// EXPLAIN REBALANCE PARTITIONS, EXPLAIN RESTORE REDUNDANCY.
    pub(super) fn explain_move(&self, kind: MoveKind, database: Option<&str>) -> Result<Outcome> {
        let catalog = self.catalog();
        let reports = self.ask_reports(is_online);
        let mut rows = Vec::new();
        for name in self.databases_named(database)? {
            let found = catalog.database(&name).map_err(invalid)?;
            for step in steps(&catalog, found, job(kind)).map_err(invalid)? {
                let [action, ordinal, host, port, phase] = described(&catalog, &step);
                let bytes = bytes(&reports, found, &name.to_lowercase(), &step);
                let time = estimate(&reports, bytes);
                rows.push([name.clone(), action, ordinal, host, port, phase, time, bytes.to_string()]);
            }
        }
        let columns =
            ["Database", "Action", "Ordinal", "Target_Host", "Target_Port", "Phase", "Estimated_Time_Remaining_Ms", "Bytes"];
        table_of(database, &columns, &rows)
    }

    /// SHOW REBALANCE STATUS: the steps that are left of what runs.
    pub(super) fn show_moves(&self, database: Option<&str>) -> Result<Outcome> {
        let catalog = self.catalog();
        let reports = self.ask_reports(is_online);
        let mut rows = Vec::new();
        for name in self.databases_named(database)? {
            let found = catalog.database(&name).map_err(invalid)?;
            let Some(job) = found.job else { continue };
            let key = name.to_lowercase();
            let left = steps(&catalog, found, job).map_err(invalid)?;
            let all = progress(found, &left, &|ordinal, leaf| in_sync(&catalog, &reports, &key, ordinal, leaf));
            for (step, progress) in left.iter().zip(all) {
                let [action, ordinal, host, port, phase] = described(&catalog, step);
                let fed = fed(&catalog, &reports, &key, step);
                let (status, reason) = status(progress, fed);
                let (copied, total) = match fed {
                    // One that is made from the log alone has everything to come.
                    Some(fed) if fed.lsn == 0 && fed.copied.1 == 0 => (0, size(&reports, found, &key, step.partition)),
                    Some(fed) => fed.copied,
                    None => (0, bytes(&reports, found, &key, step)),
                };
                let left = estimate(&reports, total.saturating_sub(copied));
                let time = fed.and_then(|_| self.supervision().copied_for(&key, step.partition, step.target));
                let time = time.unwrap_or_default().as_millis().to_string();
                let (status, copied, total) = (status.to_owned(), copied.to_string(), total.to_string());
                rows.push([name.clone(), action, ordinal, host, port, phase, status, time, left, copied, total, reason]);
            }
        }
        let columns = [
            "Database",
            "Action",
            "Ordinal",
            "Target_Host",
            "Target_Port",
            "Phase",
            "Status",
            "Running_Time",
            "Estimated_Time_Remaining_Ms",
            "Bytes_Copied",
            "Bytes_To_Copy",
            "Reason",
        ];
        table_of(database, &columns, &rows)
    }
}

/// A table whose first column is the database: it has that where all of them are meant.
fn table_of<const N: usize>(database: Option<&str>, columns: &[&str; N], rows: &[[String; N]]) -> Result<Outcome> {
    let mut table = text_table(columns, rows)?;
    if database.is_some()
        && let Outcome::Rows { schema, batches } = &mut table
    {
        for batch in batches {
            batch.remove_column(0);
            *schema = batch.schema();
        }
    }
    Ok(table)
}

/// How a step stands in a word, and why the last try failed. What fails is tried again, so it is not over.
fn status(progress: Progress, fed: Option<&FedReport>) -> (&'static str, String) {
    match progress {
        Progress::Scheduled => ("scheduled", String::new()),
        Progress::Done => ("success", String::new()),
        Progress::Running => {
            let failed = |fed: &&FedReport| matches!(fed.state, FedState::Failed | FedState::Copying) && !fed.failure.is_empty();
            fed.filter(failed).map_or(("running", String::new()), |fed| ("failed", fed.failure.clone()))
        }
    }
}

/// A step in words: action, ordinal, host, port, phase.
fn described(catalog: &Catalog, step: &Step) -> [String; 5] {
    let address = catalog.leaves.get(&step.target).map(|leaf| super::show::parts(&leaf.address));
    let (host, port) = address.unwrap_or_default();
    [step.action.to_string(), step.partition.to_string(), host, port, step.phase.to_string()]
}

/// What the master of a step's partition says of the copy that the step makes.
fn fed<'a>(catalog: &Catalog, reports: &'a BTreeMap<NodeId, Report>, name: &str, step: &Step) -> Option<&'a FedReport> {
    if step.action != Action::Copy {
        return None;
    }
    let master = catalog.databases.get(name)?.partitions.get(step.partition as usize)?.copies.master?;
    let copies = &reports.get(&master)?.copies;
    let copy = copies.iter().find(|copy| (copy.database.as_str(), copy.ordinal) == (name, step.partition))?;
    let address = &catalog.leaves.get(&step.target)?.address;
    copy.fed.iter().find(|fed| fed.address == *address)
}

/// How long it takes to copy so many bytes, in milliseconds, at the pace of the last copies; empty: nobody has made one.
fn estimate(reports: &BTreeMap<NodeId, Report>, bytes: u64) -> String {
    let rates = reports.values().map(|report| u128::from(report.rate)).filter(|rate| *rate > 0);
    let (sum, known) = rates.fold((0, 0), |(sum, known), rate| (sum + rate, known + 1));
    match sum.checked_div(known) {
        _ if bytes == 0 => "0".to_owned(),
        None => String::new(),
        Some(rate) => (u128::from(bytes) * 1000 / rate).to_string(),
    }
}

/// Whether the disks of the leaves have room for the copies that they would get, with a tenth to spare.
pub(super) fn check_room(
    catalog: &Catalog,
    reports: &BTreeMap<NodeId, Report>,
    database: &Database,
    steps: &[Step],
) -> Result<()> {
    let key = database.name.to_lowercase();
    let mut wanted: BTreeMap<NodeId, u64> = BTreeMap::new();
    for step in steps {
        let copied = wanted.entry(step.target).or_default();
        *copied = copied.saturating_add(bytes(reports, database, &key, step));
    }
    for (leaf, wanted) in wanted {
        // What is not known stops nobody.
        let Some(free) = reports.get(&leaf).and_then(|report| report.free) else { continue };
        if wanted > free - free / 10 {
            let address = catalog.leaves.get(&leaf).map_or("", |leaf| &leaf.address);
            let what = format!("leaf {address} would get copies of {wanted} bytes, and its disk has {free} free");
            return Err(Error::Invalid(format!(
                "{what}: make room there, or add a leaf. Nothing of '{}' was moved",
                database.name
            )));
        }
    }
    Ok(())
}

/// Bytes that a step copies.
fn bytes(reports: &BTreeMap<NodeId, Report>, database: &Database, name: &str, step: &Step) -> u64 {
    let copies = database.partitions.get(step.partition as usize).map(|partition| &partition.copies);
    let fresh = copies.is_some_and(|copies| !copies.all().any(|copy| copy == step.target));
    if step.action == Action::Copy && fresh { size(reports, database, name, step.partition) } else { 0 }
}

/// Bytes of a partition, as its master says.
fn size(reports: &BTreeMap<NodeId, Report>, database: &Database, name: &str, ordinal: u32) -> u64 {
    let master = database.partitions.get(ordinal as usize).and_then(|partition| partition.copies.master);
    let copies = master.and_then(|master| reports.get(&master)).map(|report| &report.copies);
    let copy = copies.and_then(|copies| copies.iter().find(|c| (c.database.as_str(), c.ordinal) == (name, ordinal)));
    copy.map_or(0, |copy| copy.bytes)
}

#[cfg(test)]
mod tests {
    use stoa_rpc::replication::{CopyReport, CopyRole};

    use super::*;
    use crate::catalog::{Command, Job};
    use crate::placement::PlacementKind;

    /// Two leaves, the first of which has everything, and what is left to do until the other has half of it.
    fn planned() -> (Catalog, BTreeMap<NodeId, Report>, Vec<Step>) {
        let mut catalog = Catalog::default();
        let mut apply = |command: Command| catalog.apply(&command).unwrap();
        apply(Command::AddLeaf { address: "a:1".into(), group: Some(1) });
        let placement = PlacementKind::LoadBalanced;
        apply(Command::CreateDatabase { name: "D".into(), partitions: 2, redundancy: 1, placement, asynchronous: false });
        apply(Command::AddLeaf { address: "b:1".into(), group: Some(1) });
        let (a, _) = catalog.leaf("a:1").unwrap();
        let (b, _) = catalog.leaf("b:1").unwrap();
        let copy =
            |ordinal| CopyReport { database: "d".into(), ordinal, role: CopyRole::Master, bytes: 1000, ..CopyReport::default() };
        let full = Report { copies: vec![copy(0), copy(1)], rate: 100, ..Report::default() };
        let reports = BTreeMap::from([(a, full), (b, Report { free: Some(1112), ..Report::default() })]);
        let left = steps(&catalog, catalog.database("d").unwrap(), Job::Rebalance).unwrap();
        (catalog, reports, left)
    }

    #[test]
    fn copies_need_room_and_time() {
        let (catalog, mut reports, steps) = planned();
        let database = catalog.database("d").unwrap();
        check_room(&catalog, &reports, database, &steps).unwrap();
        let (b, _) = catalog.leaf("b:1").unwrap();
        for free in [1110, 1, 0] {
            reports.get_mut(&b).unwrap().free = Some(free);
            let error = check_room(&catalog, &reports, database, &steps).unwrap_err().to_string();
            assert!(error.contains("b:1") && error.contains("1000 bytes") && error.contains(&format!("{free} free")), "{error}");
        }
        // What is not known stops nobody.
        reports.get_mut(&b).unwrap().free = None;
        check_room(&catalog, &reports, database, &steps).unwrap();

        assert_eq!(estimate(&reports, 1000), "10000");
        reports.get_mut(&b).unwrap().rate = 300;
        assert_eq!((estimate(&reports, 1000).as_str(), estimate(&reports, 0).as_str()), ("5000", "0"));
        assert_eq!(estimate(&BTreeMap::new(), 1000), "");
    }

    #[test]
    fn a_copy_that_fails_says_why_while_it_is_tried_again() {
        let fed = |state, failure: &str| {
            let failure = failure.to_owned();
            FedReport { address: "b:1".into(), state, lsn: 0, failure, copied: (10, 1000) }
        };
        let said = |progress, fed: Option<FedReport>| status(progress, fed.as_ref());
        for state in [FedState::Failed, FedState::Copying] {
            assert_eq!(said(Progress::Running, Some(fed(state, "no space"))), ("failed", "no space".to_owned()));
        }
        // One failure alone is nothing yet.
        assert_eq!(said(Progress::Running, Some(fed(FedState::Connecting, "it waits"))), ("running", String::new()));
        assert_eq!(said(Progress::Running, Some(fed(FedState::Copying, ""))), ("running", String::new()));
        assert_eq!(said(Progress::Running, None), ("running", String::new()));
        assert_eq!(said(Progress::Scheduled, Some(fed(FedState::Failed, "no space"))), ("scheduled", String::new()));
    }
}
