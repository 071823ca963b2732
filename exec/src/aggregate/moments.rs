//! Means, variances and covariances: one pass, mergeable (Chan, Golub, LeVeque).

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::Float64Type;

use super::slot::Ids;
use super::values::{Cursor, put_float};
use crate::Result;

/// The moments of pairs `(x, y)`; for one variable both are the same.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moments {
    pub(crate) n: f64,
    pub(crate) mean_x: f64,
    pub(crate) mean_y: f64,
    pub(crate) xx: f64,
    pub(crate) yy: f64,
    pub(crate) xy: f64,
}

impl Moments {
    fn add(&mut self, x: f64, y: f64) {
        self.n += 1.0;
        let (dx, dy) = (x - self.mean_x, y - self.mean_y);
        self.mean_x += dx / self.n;
        self.mean_y += dy / self.n;
        self.xx += dx * (x - self.mean_x);
        self.yy += dy * (y - self.mean_y);
        self.xy += dx * (y - self.mean_y);
    }

    fn merge(&mut self, other: &Moments) {
        if other.n == 0.0 {
            return;
        }
        if self.n == 0.0 {
            *self = *other;
            return;
        }
        let n = self.n + other.n;
        let (dx, dy) = (other.mean_x - self.mean_x, other.mean_y - self.mean_y);
        let weight = self.n * other.n / n;
        self.mean_x += dx * other.n / n;
        self.mean_y += dy * other.n / n;
        self.xx += other.xx + dx * dx * weight;
        self.yy += other.yy + dy * dy * weight;
        self.xy += other.xy + dx * dy * weight;
        self.n = n;
    }
}

/// Moments per group.
#[derive(Debug, Default)]
pub(crate) struct MomentFold(pub(crate) Vec<Moments>);

impl MomentFold {
    /// Adds the rows where all arguments are valid floats.
    pub(crate) fn update(&mut self, ids: &Ids<'_>, args: &[ArrayRef]) {
        let Some(x) = args.first().and_then(|a| a.as_primitive_opt::<Float64Type>()) else { return };
        let y = args.get(1).and_then(|a| a.as_primitive_opt::<Float64Type>()).unwrap_or(x);
        for row in 0..x.len() {
            if x.is_valid(row) && y.is_valid(row) {
                self.0[ids.at(row)].add(x.value(row), y.value(row));
            }
        }
    }

    pub(crate) fn merge(&mut self, other: &MomentFold, pairs: &[(u32, u32)]) {
        for (from, to) in pairs {
            self.0[*to as usize].merge(&other.0[*from as usize]);
        }
    }

    pub(crate) fn write(&self, group: usize, out: &mut Vec<u8>) {
        let m = &self.0[group];
        [m.n, m.mean_x, m.mean_y, m.xx, m.yy, m.xy].iter().for_each(|v| put_float(*v, out));
    }

    pub(crate) fn read(&mut self, group: usize, from: &mut Cursor<'_>) -> Result<()> {
        let (n, mean_x, mean_y) = (from.float()?, from.float()?, from.float()?);
        let (xx, yy, xy) = (from.float()?, from.float()?, from.float()?);
        self.0[group].merge(&Moments { n, mean_x, mean_y, xx, yy, xy });
        Ok(())
    }
}
