//! stoa-schema
