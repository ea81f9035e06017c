//! What every procedure may reach: the rooms below the domain, and nothing of transport.

use std::sync::Arc;

use crate::{
    dispatch::Dispatch,
    domain::{caller::KnownKeys, operations::CountedJobs, registry::CatalogCache, subscribers::Subscribers},
    metrics::Metrics,
    one_by_one::OneByOne,
    refusals::Refusals,
    registries::Registries,
    store::Store,
    traces::Traces,
    unattended::Unattended,
    vault::Vault,
};

/// The control plane's shared parts. One per process, behind an `Arc`.
pub struct App {
    /// The database.
    pub store: Store,
    /// The secrets.
    pub vault: Arc<Vault>,
    /// The hosts.
    pub dispatch: Dispatch,
    /// For tests from the control plane, and for browsing.
    pub registries: Registries,
    /// Tests from the control plane take turns.
    pub tests: OneByOne,
    /// Catalogs as registries answered them lately.
    pub catalogs: CatalogCache,
    /// API keys that were valid a moment ago.
    pub known_keys: KnownKeys,
    /// Subscriptions under way.
    pub subscribers: Subscribers,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Where spans go.
    pub traces: Traces,
    /// Open jobs as they were last counted.
    pub counted_jobs: CountedJobs,
    /// What was refused, on its way to the audit.
    pub refusals: Refusals,
    /// What a stop waits for, though its callers may not.
    pub unattended: Unattended,
    /// What agents dial, for join commands.
    pub agent_url: String,
}
