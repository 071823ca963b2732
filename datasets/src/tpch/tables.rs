//! The eight tables: their definition in SQL and their rows from the generator crate `tpchgen-arrow`.

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use tpchgen::generators as rows;
use tpchgen_arrow as arrays;

/// The rows of a table, in the generator's order.
pub type Batches = Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>> + Send>;

/// One table of the data set.
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// The `CREATE TABLE` statement.
    pub create: &'static str,
    /// Rows at scale 1; the rows of `nation` and `region` do not depend on the scale.
    rows_at_one: u64,
    scales: bool,
    generate: fn(f64, i32, i32) -> Batches,
}

/// Rows of a generated batch.
const BATCH_ROWS: usize = 32 * 1024;

macro_rules! generator {
    ($generator:ident, $arrays:ident) => {
        |scale, part, parts| {
            let generator = rows::$generator::new(scale, part, parts);
            Box::new(arrays::$arrays::new(generator).with_batch_size(BATCH_ROWS))
        }
    };
}

/// The tables, small ones first.
pub const TABLES: [Table; 8] = [
    Table {
        name: "region",
        create: include_str!("../../tpch/tables/region.sql"),
        rows_at_one: 5,
        scales: false,
        generate: generator!(RegionGenerator, RegionArrow),
    },
    Table {
        name: "nation",
        create: include_str!("../../tpch/tables/nation.sql"),
        rows_at_one: 25,
        scales: false,
        generate: generator!(NationGenerator, NationArrow),
    },
    Table {
        name: "supplier",
        create: include_str!("../../tpch/tables/supplier.sql"),
        rows_at_one: 10_000,
        scales: true,
        generate: generator!(SupplierGenerator, SupplierArrow),
    },
    Table {
        name: "customer",
        create: include_str!("../../tpch/tables/customer.sql"),
        rows_at_one: 150_000,
        scales: true,
        generate: generator!(CustomerGenerator, CustomerArrow),
    },
    Table {
        name: "part",
        create: include_str!("../../tpch/tables/part.sql"),
        rows_at_one: 200_000,
        scales: true,
        generate: generator!(PartGenerator, PartArrow),
    },
    Table {
        name: "partsupp",
        create: include_str!("../../tpch/tables/partsupp.sql"),
        rows_at_one: 800_000,
        scales: true,
        generate: generator!(PartSuppGenerator, PartSuppArrow),
    },
    Table {
        name: "orders",
        create: include_str!("../../tpch/tables/orders.sql"),
        rows_at_one: 1_500_000,
        scales: true,
        generate: generator!(OrderGenerator, OrderArrow),
    },
    Table {
        name: "lineitem",
        create: include_str!("../../tpch/tables/lineitem.sql"),
        rows_at_one: 6_001_215,
        scales: true,
        generate: generator!(LineItemGenerator, LineItemArrow),
    },
];

/// The table of this name.
#[must_use]
pub fn table(name: &str) -> Option<&'static Table> {
    TABLES.iter().find(|t| t.name == name)
}

impl Table {
    /// About how many rows the table has at `scale`; exact for all but lineitem.
    #[must_use]
    pub fn rows(&self, scale: f64) -> u64 {
        if self.scales { (self.rows_at_one as f64 * scale) as u64 } else { self.rows_at_one }
    }

    /// Part `part` (from 1) of `parts` of the table's rows at `scale`; the parts in order are the table.
    #[must_use]
    pub fn generate(&self, scale: f64, part: i32, parts: i32) -> Batches {
        (self.generate)(scale, part, parts)
    }

    /// Into how many parts generating the table is best cut: of about a quarter million rows each.
    #[must_use]
    pub fn parts(&self, scale: f64) -> i32 {
        if self.scales { (self.rows(scale) / 250_000).clamp(1, 10_000) as i32 } else { 1 }
    }
}
