//! Promises of browsing, kept against small registries on 127.0.0.1.

mod hub;
mod images;
mod lists;
mod refusals;
mod search;
mod sessions;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::client::{Credentials, RegistryClient, Target};
use crate::egress::EgressPolicy;
use crate::fake::{Asked, Fake, answer};
use crate::{HubEndpoints, RegistryAddress};

const DEADLINE: Duration = Duration::from_secs(10);

fn client() -> RegistryClient {
    RegistryClient::new(EgressPolicy::default().allow_loopback(true), "purser-test")
}

/// A target at a fake, with a namespace where it isn't empty.
fn at(address: SocketAddr, namespace: &str) -> Target {
    Target::new(RegistryAddress::parse(&format!("http://{address}/{namespace}")).unwrap())
}

fn bob() -> Credentials {
    Credentials { username: "bob".into(), password: "corréct-horse".to_owned().into() }
}

fn basic() -> String {
    format!("Basic {}", STANDARD.encode("bob:corréct-horse"))
}

fn path_of(asked: &Asked) -> &str {
    asked.line.split(' ').nth(1).unwrap()
}

/// Open at `/v2/`; everything else as told.
async fn open_registry(tell: impl Fn(&str) -> String + Send + Sync + 'static) -> Fake {
    Fake::start(move |asked| match path_of(asked) {
        "/v2/" => answer("200 OK", &[], "{}"),
        path => tell(path),
    })
    .await
}

/// Wants bob's password everywhere.
async fn basic_registry(tell: impl Fn(&str) -> String + Send + Sync + 'static) -> Fake {
    Fake::start(move |asked| match path_of(asked) {
        _ if asked.authorization != Some(basic()) => {
            answer("401 Unauthorized", &["WWW-Authenticate: Basic realm=\"x\""], "")
        }
        "/v2/" => answer("200 OK", &[], "{}"),
        path => tell(path),
    })
    .await
}

/// A registry that is its own token server; tokens are the scope that was asked for.
async fn bearer_registry(tell: impl Fn(&Asked) -> String + Send + Sync + 'static) -> Fake {
    let own = Arc::new(OnceLock::<SocketAddr>::new());
    let known = Arc::clone(&own);
    let fake = Fake::start(move |asked| match path_of(asked) {
        path if path.starts_with("/token?") => match &asked.authorization {
            Some(given) if *given != basic() => {
                answer("401 Unauthorized", &[], r#"{"details":"incorrect username or password"}"#)
            }
            _ => {
                let scope = path.split("scope=").nth(1).unwrap_or("login");
                answer("200 OK", &[], &format!(r#"{{"token":"{scope}"}}"#))
            }
        },
        path if path != "/v2/" && asked.authorization.is_some() => tell(asked),
        _ if asked.authorization.is_some() => answer("200 OK", &[], "{}"),
        _ => {
            let realm = format!(
                "WWW-Authenticate: Bearer realm=\"http://{}/token\",service=\"fake\"",
                known.get().unwrap()
            );
            answer("401 Unauthorized", &[&realm], "")
        }
    })
    .await;
    own.set(fake.address).unwrap();
    fake
}

fn names(key: &str, names: &[String]) -> String {
    serde_json::json!({ key: names }).to_string()
}

fn numbered(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}{n:04}")).collect()
}

fn failed(error: BrowseError) -> Diagnosis {
    match error {
        BrowseError::Failed(diagnosis) => diagnosis,
        other => panic!("{other:?}"),
    }
}
