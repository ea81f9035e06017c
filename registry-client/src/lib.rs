//! Talking to container registries the way a Docker Engine does, and explaining what went wrong.
//!
//! | module | holds |
//! | --- | --- |
//! | [`address`] | registry URLs as people type them |
//! | [`reference`](mod@reference) | image references, exactly Docker's grammar |
//! | [`egress`] | which addresses may be dialled |
//! | [`client`] | the probe ladder: resolve, connect, TLS, `/v2/`, challenge, token, login, pull and push access |
//! | [`outcome`] | what the ladder answers |
//! | [`kind`] | whose registry it is, and what that means for a login |
//! | [`session`] | reading from a registry: one caller, one credential, one deadline |
//! | [`browse`] | repositories, tags, search, manifests and the rate limit |
//! | [`diagnosis`] | one table of causes and advice, for probes and for messages of the Engine |
//!
//! Absent on purpose: a database, JSON-RPC, caches of tokens or answers beyond one session (whoever asks sees the registry
//! as it is now), HTTP proxies, and any way to follow a redirect to another place with a secret.
//!
//! Three rules hold everywhere in this crate:
//! - an address is resolved once, every result is judged by [`EgressPolicy`], and only a judged address is dialled;
//! - a secret goes to the registry's own host, or to a token server of the same registrable domain or that the entry's
//!   owner named, and nowhere else;
//! - text from the network is stripped of control characters, bounded, and scrubbed of the secret before it is shown.

mod access;
pub mod address;
mod answer;
pub mod browse;
mod challenge;
pub mod client;
mod connection;
pub mod diagnosis;
mod dial;
mod digest;
pub mod egress;
#[cfg(test)]
mod fake;
mod hub;
pub mod kind;
mod ladder;
mod link;
pub mod outcome;
mod probe;
mod realm;
pub mod reference;
pub mod session;
mod tls;
mod token;
mod transport;

pub use address::{AddressError, RegistryAddress, canonical_registry_host};
pub use challenge::{Challenge, parse_challenge};
pub use client::{Credentials, MAX_AT_ONCE, RegistryClient, ScopeProbe, Target};
pub use diagnosis::{Diagnosis, DiagnosisCode, classify_engine_message};
pub use egress::{EgressDenied, EgressPolicy};
pub use hub::HubEndpoints;
pub use kind::{Preset, RegistryKind, RegistryType, presets};
pub use link::parse_link;
pub use outcome::{
    AccessVerdict, AuthScheme, Busy, CredentialsVerdict, ProbeOutcome, Step, StepName, TestError,
    TestFailure, TestOutcome,
};
pub use realm::check_realm_host;
pub use reference::{Reference, ReferenceError};
pub use session::Session;
pub use tls::{CaCertificateError, certificate_verifier, check_ca_certificate};
