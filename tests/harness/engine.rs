//! A Docker Engine, or a Podman that serves its API, driven past Purser by plain HTTP.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::{
    client::Answer,
    connection::{Connection, Endpoint},
    image, percent,
    user::User,
    wait::eventually,
};

/// Pushes with a wrong password take an engine 50 s: it retries.
const DEADLINE: Duration = Duration::from_secs(100);

/// One engine.
#[derive(Clone)]
pub struct Engine {
    socket: PathBuf,
    connection: Connection,
}

impl Engine {
    /// The engine that listens on `socket`.
    pub fn at(socket: &Path) -> Self {
        Self { socket: socket.into(), connection: Connection::to(Endpoint::Unix(socket.into())) }
    }

    /// Its Unix socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What `DOCKER_HOST` and `--docker-host` want.
    pub fn docker_host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Any request to the engine.
    ///
    /// # Panics
    /// It did not answer.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).expect("a request of the tests is well-formed");
        let answer = self.connection.exchange_within(DEADLINE, request).await;
        let (head, body) = answer.unwrap_or_else(|error| panic!("engine, {path}: {error}")).into_parts();
        Answer { status: head.status, headers: head.headers, body }
    }

    /// `POST /auth`: the engine's own test of credentials.
    pub async fn auth(&self, registry: &str, username: &str, password: &str) -> Answer {
        let body = json!({"username": username, "password": password, "serveraddress": registry});
        self.request(Method::POST, "/auth", &[("content-type", "application/json")], body.to_string()).await
    }

    /// Makes an image of one layer that holds `payload` random bytes and nothing another image
    /// holds; gives its id.
    ///
    /// # Panics
    /// The engine refused.
    pub async fn make_image(&self, repository: &str, tag: &str, payload: usize) -> String {
        // Named afterwards: Podman takes no notice of a tag here.
        let answer =
            self.request(Method::POST, "/images/create?fromSrc=-", &[], image::archive(payload)).await;
        let made = last_status(&answer);
        assert!(answer.status.is_success() && made.starts_with("sha256:"), "no image was made: {answer:?}");
        self.tag(&made, repository, tag).await;
        made
    }

    /// `docker tag`.
    ///
    /// # Panics
    /// The engine refused.
    pub async fn tag(&self, image: &str, repository: &str, tag: &str) {
        let path = format!("/images/{image}/tag?repo={}&tag={tag}", percent::encode(repository));
        let answer = self.request(Method::POST, &path, &[], "").await;
        assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    }

    /// `docker push repository:tag`, `repository` with its registry; gives the digest.
    ///
    /// # Errors
    /// The engine's message.
    pub async fn push(&self, repository: &str, tag: &str, user: Option<&User>) -> Result<String, String> {
        let path = format!("/images/{repository}/push?tag={tag}");
        let answer = self.request(Method::POST, &path, &auth_header(user).as_headers(), "").await;
        succeeded(&answer)?;
        let status = last_status(&answer);
        let digest = status.split_whitespace().find(|word| word.starts_with("sha256:"));
        digest.map(str::to_owned).ok_or_else(|| format!("no digest in {status:?}"))
    }

    /// `docker pull repository:tag`.
    ///
    /// # Errors
    /// The engine's message.
    pub async fn pull(&self, repository: &str, tag: &str, user: Option<&User>) -> Result<(), String> {
        let path = format!("/images/create?fromImage={}&tag={tag}", percent::encode(repository));
        let answer = self.request(Method::POST, &path, &auth_header(user).as_headers(), "").await;
        succeeded(&answer)
    }

    /// `docker inspect`; `None` when there is no such image.
    pub async fn inspect(&self, image: &str) -> Option<Value> {
        let answer = self.request(Method::GET, &format!("/images/{image}/json"), &[], "").await;
        answer.status.is_success().then(|| answer.json())
    }

    /// `docker images --all`, as the API gives it. Podman cannot list them in the moment in which one is removed.
    pub async fn images(&self) -> Vec<Value> {
        eventually(DEADLINE, async || {
            let answer = self.request(Method::GET, "/images/json?all=true", &[], "").await;
            answer.status.is_success().then(|| answer.json().as_array().cloned().unwrap_or_default())
        })
        .await
    }

    /// Tags that the engine holds of `repository` (with its registry), sorted.
    pub async fn tags_of(&self, repository: &str) -> Vec<String> {
        let images = self.images().await;
        let names = images.iter().filter_map(|image| image["RepoTags"].as_array()).flatten();
        let prefix = format!("{repository}:");
        let tags = names.filter_map(|name| name.as_str()?.strip_prefix(&prefix).map(str::to_owned));
        let mut tags: Vec<_> = tags.collect();
        tags.sort();
        tags
    }

    /// `docker rmi --force`; false when there was no such image.
    pub async fn remove(&self, image: &str) -> bool {
        let path = format!("/images/{image}?force=true");
        self.request(Method::DELETE, &path, &[], "").await.status.is_success()
    }
}

struct AuthHeader(Option<String>);

impl AuthHeader {
    fn as_headers(&self) -> Vec<(&str, &str)> {
        self.0.iter().map(|value| ("x-registry-auth", value.as_str())).collect()
    }
}

/// `X-Registry-Auth` in the URL-safe alphabet, which is the one the Engine decodes. A push needs
/// the header even without credentials.
fn auth_header(user: Option<&User>) -> AuthHeader {
    let login = user.map_or(json!({}), |user| json!({"username": user.username, "password": user.password}));
    AuthHeader(Some(BASE64_URL_SAFE.encode(login.to_string())))
}

/// An engine reports failures before its stream as a status, and later ones inside it.
fn succeeded(answer: &Answer) -> Result<(), String> {
    if !answer.status.is_success() {
        return Err(answer.json()["message"].as_str().unwrap_or_default().to_owned());
    }
    let failed = lines(answer).find_map(|line| line["error"].as_str().map(str::to_owned));
    failed.map_or(Ok(()), Err)
}

fn last_status(answer: &Answer) -> String {
    let statuses = lines(answer).filter_map(|line| line["status"].as_str().map(str::to_owned));
    statuses.last().unwrap_or_default()
}

fn lines(answer: &Answer) -> impl Iterator<Item = Value> {
    let text = answer.text();
    let lines: Vec<_> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    lines.into_iter()
}
