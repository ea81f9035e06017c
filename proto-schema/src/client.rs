//! A typed client of the public wire: one method for every procedure of the table.
//!
//! It speaks JSON-RPC at `/rpc`, where calls are POSTs and subscriptions are WebSockets. It holds a pool of connections
//! and a key, and knows no procedure by name: whatever is in the table can be called. It never follows a redirect, so
//! the key goes to the host that was named and nowhere else, and it tries nothing twice. Timers and connections are
//! tokio's.
//!
//! ```no_run
//! use purser_proto_schema::{
//!     client::{Client, ClientError, SecretString},
//!     registry::{Create, CreateInput, TestRegistryById, TestRegistryByIdInput},
//! };
//!
//! async fn keep(key: SecretString, password: SecretString) -> Result<(), ClientError> {
//!     let purser = Client::new("https://purser.example.com:3000", key)?;
//!     let input = CreateInput::builder().registry_name("GHCR").registry_url("ghcr.io/myorg");
//!     let entry = purser.call::<Create>(input.username("me").password(password.into()).build()).await?;
//!
//!     let input = TestRegistryByIdInput::builder().registry_id(entry.registry_id).build();
//!     if let Err(error) = purser.call::<TestRegistryById>(input).await {
//!         match error.diagnosis() {
//!             Some(failed) => eprintln!("{}: {}", failed.diagnosis.code, failed.diagnosis.advice),
//!             None => return Err(error),
//!         }
//!     }
//!     Ok(())
//! }
//! ```

use std::{fmt, future::Future, time::Duration};

use http::StatusCode;
pub use secrecy::SecretString;
use serde_json::value::RawValue;
use tokio::time::timeout;

use crate::procedure::{Kind, Procedure};

mod connection;
mod error;
mod message;
mod watch;

use connection::Connection;
pub use error::ClientError;
pub use watch::{Event, Watch};

/// How long a call may take, unless [`Client::with_timeout`] says otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(30);
/// The largest answer or event that is taken, in bytes.
pub const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// Calls one control plane with one key. Clones share their connections.
#[derive(Clone)]
pub struct Client {
    connection: Connection,
    timeout: Duration,
}

impl fmt::Debug for Client {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("url", &self.connection.url()).finish_non_exhaustive()
    }
}

impl Client {
    /// A client for `https://host:port`, whose certificate the system's authorities must vouch for. With `http://` the
    /// key passes the network in clear: for loopback, and for a proxy on the same machine.
    ///
    /// # Errors
    /// [`ClientError::Url`], [`ClientError::Key`], or [`ClientError::Tls`]. Nothing is dialled yet.
    pub fn new(url: &str, key: SecretString) -> Result<Self, ClientError> {
        Ok(Self { connection: Connection::new(url, key, None)?, timeout: TIMEOUT })
    }

    /// The same, and the authorities in `ca` (PEM) may vouch, too. A self-signed certificate, such as the one that a
    /// Purser makes for itself, stands for itself.
    ///
    /// # Errors
    /// As of [`new`](Self::new), and [`ClientError::Tls`] where `ca` holds no certificate.
    pub fn trusting(url: &str, key: SecretString, ca: &str) -> Result<Self, ClientError> {
        Ok(Self { connection: Connection::new(url, key, Some(ca))?, timeout: TIMEOUT })
    }

    /// The same client, whose calls may take that long: from the dial to the answer's last byte. A call with `wait` may
    /// take 15 minutes.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Calls a query or a mutation. A subscription does not compile here: see [`watch`](Self::watch).
    ///
    /// ```compile_fail,E0080
    /// # use purser_proto_schema::{client::{Client, SecretString}, ids::JobId, job};
    /// # fn main() {
    /// # let purser = Client::new("http://127.0.0.1", SecretString::from("key")).unwrap();
    /// let input = job::WatchInput { job_id: JobId::generate(), last_event_id: None };
    /// let job: Box<dyn Future<Output = _>> = Box::new(purser.call::<job::Watch>(input));
    /// # drop(job);
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ClientError::Refused`] is the procedure's own answer, with its code and its diagnosis. After any other error
    /// the call may have been carried out or not.
    pub async fn call<P: Procedure>(&self, input: P::Input) -> Result<P::Output, ClientError> {
        const { assert!(!matches!(P::INFO.kind, Kind::Subscription), "a subscription is watched") };
        let body = message::call(P::INFO.name, &input)?;
        let (status, answer) = self.within(self.connection.post(body)).await?;
        read::<P>(status, &message::result(status, &answer)?)
    }

    /// Begins a subscription, on a connection of its own. The timeout is for its beginning only.
    ///
    /// # Errors
    /// As of [`call`](Self::call).
    pub async fn watch<P: Procedure>(&self, input: P::Input) -> Result<Watch<P>, ClientError> {
        const { assert!(matches!(P::INFO.kind, Kind::Subscription), "only a subscription is watched") };
        let call = message::call(P::INFO.name, &input)?;
        self.within(async { Watch::begin(self.connection.upgrade().await?, call).await }).await
    }

    async fn within<T>(&self, work: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
        timeout(self.timeout, work).await.unwrap_or(Err(ClientError::Timeout(self.timeout)))
    }
}

fn read<P: Procedure>(status: StatusCode, result: &RawValue) -> Result<P::Output, ClientError> {
    serde_json::from_str(result.get()).map_err(|error| ClientError::unreadable(status, error))
}

/// The README's example is compiled with those of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

#[cfg(test)]
mod tests;
