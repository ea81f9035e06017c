//! What the integration suite is built from: real engines, real registries, real databases, real
//! processes, and faults as fixtures.
//!
//! Two halves:
//!
//! * the **testbed** (the binary in `bin/`) starts the expensive parts once and leaves their
//!   addresses in a file; [`Testbed::get`] reads it;
//! * everything else belongs to one test and is gone when its value is dropped, also when the
//!   test panics: [`Purser`] and [`Agent`] (the built programs), [`BreakableProxy`], images.
//!
//! | to … | use |
//! | --- | --- |
//! | reach the shared parts and the users with nasty passwords | [`testbed`] |
//! | run, kill, restart `purser-server` / `purser-agent` | [`purser`], [`agent`], [`process`] |
//! | walk the road: control plane, agents, jobs | [`road`] |
//! | call the doors | [`client`], [`socket`] (WebSocket), [`stream`] (SSE, lines), [`connection`] (any HTTP endpoint) |
//! | have a second organization, or a key that may less | [`tenant`] |
//! | drive an engine past Purser | [`engine`], [`image`] |
//! | speak the agent protocol by hand: a clone, an attacker | [`double`] |
//! | break, stall and record a connection | [`proxy`], [`certificate`] |
//! | kill an engine or a registry, fill a disk, at random | [`daemon`], [`faults`] |
//! | answer like something that is no registry | [`canned`] |
//! | answer like a registry that means harm | [`hostile`] |
//! | have a Docker Hub | [`hub`] |
//! | prove that a secret is nowhere | [`secret`] |
//! | use the published tRPC clients and the TypeScript compiler | [`npm`] |
//! | wait for a state, never for a time | [`wait`] |
//!
//! Nothing here can outlive the test run: children die with the process that started them
//! ([`process`]), test processes die with the testbed ([`Testbed::get`]), and every folder lies
//! in the testbed's own, which a janitor removes even after `kill -9`.

pub mod agent;
pub mod canned;
pub mod certificate;
pub mod client;
pub mod connection;
pub mod daemon;
pub mod database;
pub mod double;
pub mod engine;
pub mod faults;
pub mod hostile;
pub mod hub;
pub mod image;
pub mod npm;
pub mod percent;
pub mod process;
pub mod proxy;
pub mod purser;
pub mod road;
pub mod secret;
pub mod socket;
pub mod source;
pub mod stream;
pub mod tenant;
pub mod testbed;
pub mod user;
pub mod wait;

pub use agent::Agent;
pub use canned::Canned;
pub use certificate::Authority;
pub use client::{Answer, Client};
pub use engine::Engine;
pub use hostile::Hostile;
pub use hub::Hub;
pub use proxy::BreakableProxy;
pub use purser::Purser;
pub use road::Road;
pub use secret::scan_for_secret;
pub use socket::RpcSocket;
pub use stream::{ServerSent, Streamed};
pub use testbed::Testbed;
pub use user::User;
pub use wait::{eventually, unique};
