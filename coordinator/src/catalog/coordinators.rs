//! The coordinators of a cluster.

use serde::{Deserialize, Serialize};

use super::{Catalog, CatalogError, NodeId, missing};

/// A coordinator. Whether it votes and who leads is known to [`crate::consensus`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coordinator {
    /// Where it listens, HOST:PORT.
    pub address: String,
}

impl Catalog {
    /// The coordinator that listens at an address.
    #[must_use]
    pub fn coordinator(&self, address: &str) -> Option<(NodeId, &Coordinator)> {
        self.coordinators.iter().find(|(_, node)| node.address == address).map(|(id, node)| (*id, node))
    }

    pub(super) fn add_coordinator(&mut self, address: &str) -> Result<(), CatalogError> {
        if self.coordinator(address).is_some() {
            return Err(CatalogError::Exists { kind: "coordinator", name: address.to_owned() });
        }
        if self.leaf(address).is_some() {
            return Err(CatalogError::Refused(format!("{address} is a leaf of this cluster")));
        }
        self.last_node += 1;
        self.coordinators.insert(NodeId(self.last_node), Coordinator { address: address.to_owned() });
        Ok(())
    }

    pub(super) fn remove_coordinator(&mut self, address: &str) -> Result<(), CatalogError> {
        let (id, _) = self.coordinator(address).ok_or_else(|| missing("coordinator", address))?;
        if self.coordinators.len() == 1 {
            return Err(CatalogError::Refused(format!("{address} is the last coordinator: add another one first")));
        }
        self.coordinators.remove(&id);
        Ok(())
    }
}
