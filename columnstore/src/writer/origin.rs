//! Where loaded rows came from, so that an error that is found when they are in segments can still name them.

use std::sync::Arc;

use arrow::array::UInt32Array;
use roaring::RoaringBitmap;

use super::RowNames;
use crate::definition::TableDef;

/// Where some rows of a batch came from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The file; empty if there is none.
    file: Arc<str>,
    /// Of the batch.
    names: RowNames,
    /// Which of its rows these are, if not all.
    picked: Option<Arc<RoaringBitmap>>,
    /// So many of them are elsewhere, before these.
    skipped: usize,
}

impl Origin {
    /// That of all rows of a batch that is of a file, or of none if its name is empty.
    #[must_use]
    pub fn new(file: &Arc<str>, names: RowNames) -> Origin {
        Origin { file: Arc::clone(file), names, picked: None, skipped: 0 }
    }

    /// That of some of these rows, ascending.
    #[must_use]
    pub fn picked(&self, rows: &[u32]) -> Origin {
        let picked = rows.iter().filter_map(|row| self.place(*row as usize)).collect();
        Origin { picked: Some(Arc::new(picked)), skipped: 0, ..self.clone() }
    }

    /// That of the rows from one on.
    #[must_use]
    pub fn after(&self, row: usize) -> Origin {
        Origin { skipped: self.skipped.saturating_add(row), ..self.clone() }
    }

    /// Which row of the batch one of these is.
    fn place(&self, row: usize) -> Option<u32> {
        let row = u32::try_from(self.skipped.checked_add(row)?).ok()?;
        self.picked.as_ref().map_or(Some(row), |picked| picked.select(row))
    }

    fn number(&self, row: usize) -> u64 {
        self.names.first.saturating_add(self.place(row).unwrap_or(0).into())
    }
}

/// Where the rows of a segment came from.
pub(crate) struct Origins {
    /// One after the other, each with its number of rows.
    parts: Vec<(usize, Origin)>,
    /// The order of the rows in the segment, if it is another.
    order: Option<UInt32Array>,
}

impl Origins {
    /// Of rows that were put in an order; none if of some nobody knows.
    pub fn new(parts: Vec<Option<(usize, Origin)>>, order: Option<UInt32Array>) -> Option<Origins> {
        Some(Origins { parts: parts.into_iter().collect::<Option<_>>()?, order })
    }

    /// How many numbers these keep in memory.
    pub fn numbers(&self) -> usize {
        self.order.as_ref().map_or(0, |order| order.values().len())
    }

    /// How an error about a row of the segment begins.
    pub fn name(&self, def: &TableDef, row: usize) -> Option<String> {
        let mut row = self.order.as_ref().map_or(Some(row), |order| order.values().get(row).map(|row| *row as usize))?;
        for (rows, origin) in &self.parts {
            if row < *rows {
                let file = if origin.file.is_empty() { String::new() } else { format!("{}: ", origin.file) };
                return Some(format!("{file}table '{}', {} {}", def.name, origin.names.unit, origin.number(row)));
            }
            row -= rows;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_named_wherever_they_went() {
        let def = TableDef { name: "t".into(), ..TableDef::default() };
        let (file, nothing): (Arc<str>, Arc<str>) = ("a.csv".into(), "".into());
        let first = Origin::new(&file, RowNames { unit: "line", first: 2 });
        let second = Origin::new(&nothing, RowNames { unit: "row", first: 10 }).picked(&[1, 4, 6]).after(1);
        let parts = vec![Some((3, first)), Some((2, second))];
        let named = |origins: &Origins| (0..6).map_while(|row| origins.name(&def, row)).collect::<Vec<_>>();
        let lines = ["a.csv: table 't', line 2", "a.csv: table 't', line 3", "a.csv: table 't', line 4"];
        let rows = ["table 't', row 14", "table 't', row 16"];
        let as_they_came = Origins::new(parts.clone(), None).expect("known");
        assert_eq!(named(&as_they_came), [&lines[..], &rows].concat());
        assert_eq!(as_they_came.numbers(), 0);
        let order = UInt32Array::from(vec![4, 0, 3, 1, 2]);
        let sorted = Origins::new(parts.clone(), Some(order)).expect("known");
        assert_eq!(named(&sorted), [rows[1], lines[0], rows[0], lines[1], lines[2]]);
        assert_eq!(sorted.numbers(), 5);
        assert!(Origins::new(vec![parts[0].clone(), None], None).is_none());
        let (_, last) = parts[1].clone().expect("known");
        assert_eq!((last.picked(&[1]).number(0), last.after(1).number(0), last.after(usize::MAX).number(9)), (16, 16, 10));
    }
}
