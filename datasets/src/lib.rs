//! stoa-datasets
