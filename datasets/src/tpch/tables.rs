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
        create: "CREATE REFERENCE TABLE region (r_regionkey BIGINT NOT NULL, r_name VARCHAR(25) NOT NULL, r_comment VARCHAR(152) NOT NULL)",
        rows_at_one: 5,
        scales: false,
        generate: generator!(RegionGenerator, RegionArrow),
    },
    Table {
        name: "nation",
        create: "CREATE REFERENCE TABLE nation (n_nationkey BIGINT NOT NULL, n_name VARCHAR(25) NOT NULL, n_regionkey BIGINT NOT NULL, \
                 n_comment VARCHAR(152) NOT NULL)",
        rows_at_one: 25,
        scales: false,
        generate: generator!(NationGenerator, NationArrow),
    },
    Table {
        name: "supplier",
        create: "CREATE TABLE supplier (s_suppkey BIGINT NOT NULL, s_name VARCHAR(25) NOT NULL, s_address VARCHAR(40) NOT NULL, \
                 s_nationkey BIGINT NOT NULL, s_phone VARCHAR(15) NOT NULL, s_acctbal DECIMAL(15,2) NOT NULL, \
                 s_comment VARCHAR(101) NOT NULL, SHARD KEY (s_suppkey))",
        rows_at_one: 10_000,
        scales: true,
        generate: generator!(SupplierGenerator, SupplierArrow),
    },
    Table {
        name: "customer",
        create: "CREATE TABLE customer (c_custkey BIGINT NOT NULL, c_name VARCHAR(25) NOT NULL, c_address VARCHAR(40) NOT NULL, \
                 c_nationkey BIGINT NOT NULL, c_phone VARCHAR(15) NOT NULL, c_acctbal DECIMAL(15,2) NOT NULL, \
                 c_mktsegment VARCHAR(10) NOT NULL, c_comment VARCHAR(117) NOT NULL, SHARD KEY (c_custkey))",
        rows_at_one: 150_000,
        scales: true,
        generate: generator!(CustomerGenerator, CustomerArrow),
    },
    Table {
        name: "part",
        create: "CREATE TABLE part (p_partkey BIGINT NOT NULL, p_name VARCHAR(55) NOT NULL, p_mfgr VARCHAR(25) NOT NULL, \
                 p_brand VARCHAR(10) NOT NULL, p_type VARCHAR(25) NOT NULL, p_size INT NOT NULL, p_container VARCHAR(10) NOT NULL, \
                 p_retailprice DECIMAL(15,2) NOT NULL, p_comment VARCHAR(23) NOT NULL, SHARD KEY (p_partkey))",
        rows_at_one: 200_000,
        scales: true,
        generate: generator!(PartGenerator, PartArrow),
    },
    Table {
        name: "partsupp",
        create: "CREATE TABLE partsupp (ps_partkey BIGINT NOT NULL, ps_suppkey BIGINT NOT NULL, ps_availqty INT NOT NULL, \
                 ps_supplycost DECIMAL(15,2) NOT NULL, ps_comment VARCHAR(199) NOT NULL, SHARD KEY (ps_partkey))",
        rows_at_one: 800_000,
        scales: true,
        generate: generator!(PartSuppGenerator, PartSuppArrow),
    },
    Table {
        name: "orders",
        create: "CREATE TABLE orders (o_orderkey BIGINT NOT NULL, o_custkey BIGINT NOT NULL, o_orderstatus VARCHAR(1) NOT NULL, \
                 o_totalprice DECIMAL(15,2) NOT NULL, o_orderdate DATE NOT NULL, o_orderpriority VARCHAR(15) NOT NULL, \
                 o_clerk VARCHAR(15) NOT NULL, o_shippriority INT NOT NULL, o_comment VARCHAR(79) NOT NULL, SHARD KEY (o_orderkey))",
        rows_at_one: 1_500_000,
        scales: true,
        generate: generator!(OrderGenerator, OrderArrow),
    },
    Table {
        name: "lineitem",
        create: "CREATE TABLE lineitem (l_orderkey BIGINT NOT NULL, l_partkey BIGINT NOT NULL, l_suppkey BIGINT NOT NULL, \
                 l_linenumber INT NOT NULL, l_quantity DECIMAL(15,2) NOT NULL, l_extendedprice DECIMAL(15,2) NOT NULL, \
                 l_discount DECIMAL(15,2) NOT NULL, l_tax DECIMAL(15,2) NOT NULL, l_returnflag VARCHAR(1) NOT NULL, \
                 l_linestatus VARCHAR(1) NOT NULL, l_shipdate DATE NOT NULL, l_commitdate DATE NOT NULL, l_receiptdate DATE NOT NULL, \
                 l_shipinstruct VARCHAR(25) NOT NULL, l_shipmode VARCHAR(10) NOT NULL, l_comment VARCHAR(44) NOT NULL, \
                 SHARD KEY (l_orderkey))",
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
