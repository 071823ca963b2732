//! RECOVER: the catalog of a cluster that lost all of its coordinators, from its leaves.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Control;
use super::show::parts;
use crate::catalog::{Catalog, Command};
use crate::recovery::{Finding, recover};
use crate::session::text_table;
use crate::{Error, Outcome, Result};

/// A leaf that got orders within this time has a coordinator.
const ORPHANED: Duration = Duration::from_secs(5);

impl Control {
    /// Makes the catalog of what these leaves hold.
    pub(super) fn recover(&self, addresses: &[String]) -> Result<String> {
        let _changing = self.changing.lock();
        let (catalog, findings) = self.recovered(addresses)?;
        let (leaves, databases) = (catalog.leaves.len(), catalog.databases.len());
        let warnings = findings.iter().filter(|finding| matches!(finding.action, "WARNING" | "OFFLINE")).count();
        self.membership.change(&Command::Recover(Box::new(catalog)))?;
        self.order(addresses)?;
        Ok(format!("{databases} databases on {leaves} leaves recovered, {warnings} warnings"))
    }

    /// What [`Control::recover`] would do.
    pub(super) fn explain_recover(&self, addresses: &[String]) -> Result<Outcome> {
        table(&self.recovered(addresses)?.1)
    }

    fn recovered(&self, addresses: &[String]) -> Result<(Catalog, Vec<Finding>)> {
        let current = self.catalog();
        check_empty(&current)?;
        let mut held = BTreeMap::new();
        for address in addresses {
            let holdings = self.leaves.leaf(address)?.holdings()?;
            if holdings.silent < ORPHANED {
                let what = format!("leaf {address} got orders {:.1} s ago", holdings.silent.as_secs_f64());
                let way_out = "its cluster has a coordinator that leads: connect to that one, or stop it for good first";
                return Err(Error::Invalid(format!("{what}: {way_out}")));
            }
            held.insert(address.clone(), holdings);
        }
        Ok(recover(&current, &held))
    }
}

/// RECOVER adds nothing to a catalog, and takes nothing from it.
fn check_empty(catalog: &Catalog) -> Result<()> {
    if catalog.leaves.is_empty() && catalog.databases.is_empty() {
        return Ok(());
    }
    let what = format!("the catalog has {} leaves and {} databases", catalog.leaves.len(), catalog.databases.len());
    let way_out = "RECOVER is for new coordinators in place of lost ones; ADD LEAF adds a leaf";
    Err(Error::Invalid(format!("{what}: {way_out}")))
}

fn table(findings: &[Finding]) -> Result<Outcome> {
    let row = |finding: &Finding| {
        let (host, port) = parts(&finding.leaf);
        let position = finding.position.map(|(term, lsn)| format!("{term}:{lsn}")).unwrap_or_default();
        let ordinal = finding.ordinal.map(|ordinal| ordinal.to_string()).unwrap_or_default();
        [finding.action.to_owned(), finding.database.clone(), ordinal, host, port, position, finding.details.clone()]
    };
    let rows: Vec<_> = findings.iter().map(row).collect();
    text_table(&["Action", "Database", "Ordinal", "Host", "Port", "Position", "Details"], &rows)
}
