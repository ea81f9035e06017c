//! Promises of the ladder, kept against small registries on 127.0.0.1.

mod limits;
mod login;
mod scope;
mod transport;

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::outcome::{AuthScheme, TestFailure};

const DEADLINE: Duration = Duration::from_secs(10);
const PASSWORD: &str = "corréct ~>? horse";

fn client() -> RegistryClient {
    RegistryClient::new(EgressPolicy::default().allow_loopback(true), "purser-test")
}

fn target(address: &str) -> Target {
    Target::new(RegistryAddress::parse(address).unwrap())
}

fn at(address: SocketAddr) -> Target {
    target(&address.to_string())
}

fn bob(password: &str) -> Credentials {
    Credentials { username: "bob".into(), password: password.to_owned().into() }
}

fn basic_of(password: &str) -> Option<String> {
    Some(format!("Basic {}", STANDARD.encode(format!("bob:{password}"))))
}

/// Why it failed; there was room for it.
fn failed(error: TestError) -> TestFailure {
    match error {
        TestError::Failed(failure) => failure,
        TestError::Busy(Busy) => panic!("there was room"),
    }
}

/// A challenge to fetch a token from `address`.
fn bearer_challenge(address: SocketAddr) -> String {
    format!("WWW-Authenticate: Bearer realm=\"http://{address}/token\",service=\"fake\"")
}
