//! Rows as often as a column of counts says.

use arrow::array::{Array, AsArray, Int64Array, UInt32Array};
use arrow::datatypes::Int64Type;
use stoa_plan::DataType;

use crate::batch::canonical;
use crate::expression::Expression;
use crate::{Batch, Result};

/// The numbers of the rows to give out, each as often as it is wanted, in lists of a bounded length.
pub(crate) struct Repeats {
    times: Int64Array,
    row: usize,
    /// How often the row has been given out.
    given: i64,
    limit: usize,
}

impl Repeats {
    /// Of the rows of a batch; lists have at most `limit` rows.
    pub fn new(times: &Expression, batch: &Batch, limit: usize) -> Result<Repeats> {
        let times = canonical(&times.evaluate(batch)?, DataType::Int64)?.as_primitive::<Int64Type>().clone();
        Ok(Repeats { times, row: 0, given: 0, limit: limit.max(1) })
    }
}

impl Iterator for Repeats {
    type Item = UInt32Array;

    fn next(&mut self) -> Option<UInt32Array> {
        let mut rows: Vec<u32> = Vec::new();
        while self.row < self.times.len() && rows.len() < self.limit {
            let times = if self.times.is_null(self.row) { 0 } else { self.times.value(self.row) };
            let room = (self.limit - rows.len()) as i64;
            let now = (times - self.given).clamp(0, room);
            rows.resize(rows.len() + now as usize, self.row as u32);
            self.given += now;
            if self.given >= times {
                self.row += 1;
                self.given = 0;
            }
        }
        (!rows.is_empty()).then(|| rows.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(times: Vec<Option<i64>>, limit: usize) -> Vec<Vec<u32>> {
        Repeats { times: times.into(), row: 0, given: 0, limit }.map(|rows| rows.values().to_vec()).collect()
    }

    #[test]
    fn rows_come_as_often_as_they_are_wanted_in_short_lists() {
        let times = vec![Some(2), None, Some(0), Some(-3), Some(5), Some(i64::MIN), Some(1)];
        assert_eq!(lists(times.clone(), 100), [vec![0, 0, 4, 4, 4, 4, 4, 6]]);
        assert_eq!(lists(times, 3), [vec![0, 0, 4], vec![4, 4, 4], vec![4, 6]]);
        assert_eq!(lists(vec![Some(0), None], 3), Vec::<Vec<u32>>::new());
        let mut endless = Repeats { times: vec![i64::MAX].into(), row: 0, given: 0, limit: 2 };
        assert_eq!(endless.next().map(|rows| rows.len()), Some(2));
    }
}
