//! stoa-sql
