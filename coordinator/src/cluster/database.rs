//! What a statement knows of its database.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use stoa_columnstore::TableDef;
use stoa_rpc::{Failure, FailureKind};

use crate::{Error, Result};

/// What the catalog knows of one database at one moment.
#[derive(Clone, Debug, Default)]
pub struct Database {
    /// Its name.
    pub name: String,
    /// The address of the master of each partition, by ordinal; `None` where it is offline.
    pub masters: Vec<Option<String>>,
    /// The leaves with copies of partitions that are offline, by ordinal.
    pub away: BTreeMap<u32, Vec<String>>,
    /// The addresses of all leaves that are online: each has a copy of the REFERENCE tables.
    pub leaves: Vec<String>,
    /// The addresses of all leaves whose copies of the REFERENCE tables count when these are changed: those that are online, and those
    /// that were lost a moment ago.
    pub reference: Vec<String>,
    /// The leaf that is given the REFERENCE tables: nobody changes them meanwhile.
    pub held: Option<String>,
    /// Tables, by name in lower case.
    pub tables: BTreeMap<String, Arc<TableDef>>,
    /// Views, by name in lower case: name as written and text.
    pub views: BTreeMap<String, (String, String)>,
    /// The partitions that a query reads; `None`: all.
    pub read: Option<BTreeSet<usize>>,
}

impl Database {
    /// The database for a query that reads these partitions alone.
    pub(super) fn only(&self, read: &BTreeSet<usize>) -> Database {
        Database { read: Some(read.clone()), ..self.clone() }
    }

    /// How many leaves have its partitions. Those that are away now may be there when a query runs.
    pub(super) fn spread(&self) -> usize {
        let all: BTreeSet<&String> = self.masters.iter().flatten().chain(self.away.values().flatten()).collect();
        all.len()
    }

    /// The leaves that are masters, with the ordinals of each, in the order of the addresses.
    ///
    /// # Errors
    /// If a partition has no master that is online.
    pub fn placement(&self) -> Result<BTreeMap<String, Vec<u32>>> {
        let (mut leaves, mut offline) = (BTreeMap::<String, Vec<u32>>::new(), Vec::new());
        let all = (0u32..).zip(&self.masters);
        for (ordinal, master) in
            all.filter(|(ordinal, _)| self.read.as_ref().is_none_or(|read| read.contains(&(*ordinal as usize))))
        {
            match master {
                Some(master) => leaves.entry(master.clone()).or_default().push(ordinal),
                None => offline.push(ordinal),
            }
        }
        if offline.is_empty() { Ok(leaves) } else { Err(self.offline(&offline)) }
    }

    /// REFERENCE tables can be changed.
    pub(super) fn check_held(&self) -> std::result::Result<(), Failure> {
        let what = |leaf| format!("the REFERENCE tables are being copied to leaf {leaf}: try again");
        self.held.as_ref().map_or(Ok(()), |leaf| Err(Failure::new(FailureKind::Retryable, what(leaf))))
    }

    /// The leaves that have a table, if it changes.
    pub(super) fn homes(&self, def: &TableDef) -> &[String] {
        if def.reference { &self.reference } else { &self.leaves }
    }

    /// The leaf that is the master of a partition.
    ///
    /// # Errors
    /// If there is none that is online.
    pub fn master(&self, ordinal: u32) -> Result<String> {
        self.masters.get(ordinal as usize).cloned().flatten().ok_or_else(|| self.offline(&[ordinal]))
    }

    /// What to tell those who need partitions that are offline.
    fn offline(&self, ordinals: &[u32]) -> Error {
        let list = |all: Vec<String>| all.join(", ");
        let which = list(ordinals.iter().map(u32::to_string).collect());
        let what = if ordinals.len() == 1 { format!("partition {which}") } else { format!("partitions {which}") };
        let leaves: BTreeSet<&String> = ordinals.iter().filter_map(|ordinal| self.away.get(ordinal)).flatten().collect();
        let way_out = match list(leaves.into_iter().cloned().collect()) {
            none if none.is_empty() => "no leaf has a copy: DROP DATABASE, and load it again".to_owned(),
            leaves => format!("copies are on {leaves}: start what SHOW LEAVES does not call online"),
        };
        Error::retryable(format!("{what} of database '{}' is offline; {way_out}", self.name))
    }
}
