//! Definitions of tables in the catalog.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use stoa_columnstore::{TableDef, decode_definition, encode_definition};

/// A table's definition. Written as the message that leaves get, in hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition(Arc<TableDef>);

impl Definition {
    /// The definition of a table; the number of its partitions is the database's.
    #[must_use]
    pub fn new(def: TableDef) -> Definition {
        Definition(Arc::new(TableDef { partitions: 0, ..def }))
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> &Arc<TableDef> {
        &self.0
    }
}

impl Serialize for Definition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut digits = String::new();
        for byte in encode_definition(&self.0) {
            digits.extend([byte >> 4, byte & 15].map(|d| char::from_digit(d.into(), 16).unwrap_or('0')));
        }
        serializer.serialize_str(&digits)
    }
}

impl<'de> Deserialize<'de> for Definition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let digits = String::deserialize(deserializer)?;
        let byte = |pair: &[u8]| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
        let bytes: Option<Vec<u8>> = digits.as_bytes().chunks(2).map(byte).collect();
        let bytes = bytes.ok_or_else(|| de::Error::custom("a table's definition is not in hexadecimal digits"))?;
        decode_definition(&bytes).map(Definition::new).map_err(de::Error::custom)
    }
}
