//! The wires of Purser, as types.
//!
//! Two wires are kept here and nothing else:
//!
//! * the **public** one: every procedure with its name, kind, permission, input, output and docs
//!   ([`procedure`], one module per namespace), their schemas ([`schema`]) and what they are in [`typescript`], the
//!   public errors ([`error`]), and with the feature `client` a typed client of all that (`client`);
//! * the **agent** one: the handshake, the sealed frames, the calls of both directions and the
//!   commands that travel inside them ([`agent`]).
//!
//! A type here knows how it looks on the wire and which inputs are malformed. It knows no rule of
//! the domain, no database and no engine; `tests/it/tidy.rs` holds that.
//!
//! Versioning: the public wire rejects unknown input fields and only ever gains optional ones. The
//! agent wire ignores unknown fields, and a change of meaning raises [`agent::PROTOCOL`].

pub mod agent;
pub mod api_key;
pub mod audit;
#[cfg(feature = "client")]
pub mod client;
pub mod error;
pub mod ids;
pub mod image;
pub mod job;
pub mod limits;
pub mod organization;
pub mod patch;
pub mod permission;
pub mod procedure;
pub mod registry;
pub mod schema;
pub mod secret;
pub mod server;
pub mod stack;
mod strict;
pub mod time;
pub mod typescript;
