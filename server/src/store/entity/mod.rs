//! The tables, one entity each. Only [`crate::store`] names them.

pub(super) mod api_key;
pub(super) mod audit_event;
pub(super) mod installation;
pub(super) mod job;
pub(super) mod job_target;
pub(super) mod join_token;
pub(super) mod organization;
pub(super) mod registry;
pub(super) mod registry_event;
pub(super) mod registry_event_head;
pub(super) mod replica;
pub(super) mod replica_question;
pub(super) mod server;
