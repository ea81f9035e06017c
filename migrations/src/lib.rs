//! The database's shape, one migration per change, the same for SQLite and PostgreSQL.
//!
//! A migration is never edited after a release; a change is a new file at the end of the list.

use sea_orm_migration::prelude::*;

mod m20261121_000001_tenancy;
mod m20261121_000002_registry;
mod m20261121_000003_server;
mod m20261121_000004_job;
mod m20261121_000005_audit;
mod m20261121_000006_realm_allow;
mod m20261121_000007_session_history;
mod m20261121_000008_job_rounds;
mod m20261121_000009_replicas;
mod m20261121_000010_keys;
mod m20261121_000011_replica_questions;
mod m20261121_000012_registry_events;
mod m20261121_000013_audit_trail;
mod m20261121_000014_request_ids;
mod m20261121_000015_audit_subjects;
mod m20261121_000016_audit_by_subject;

/// Brings a database to the present shape.
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261121_000001_tenancy::Migration),
            Box::new(m20261121_000002_registry::Migration),
            Box::new(m20261121_000003_server::Migration),
            Box::new(m20261121_000004_job::Migration),
            Box::new(m20261121_000005_audit::Migration),
            Box::new(m20261121_000006_realm_allow::Migration),
            Box::new(m20261121_000007_session_history::Migration),
            Box::new(m20261121_000008_job_rounds::Migration),
            Box::new(m20261121_000009_replicas::Migration),
            Box::new(m20261121_000010_keys::Migration),
            Box::new(m20261121_000011_replica_questions::Migration),
            Box::new(m20261121_000012_registry_events::Migration),
            Box::new(m20261121_000013_audit_trail::Migration),
            Box::new(m20261121_000014_request_ids::Migration),
            Box::new(m20261121_000015_audit_subjects::Migration),
            Box::new(m20261121_000016_audit_by_subject::Migration),
        ]
    }
}
