//! The interfaces as others see them: clients and nodes of other programs and versions, on real connections.

mod golden;
mod leaves;
#[path = "../messages/mod.rs"]
mod messages;
mod previous_minor;
mod raw;
mod sessions;
mod silence;
