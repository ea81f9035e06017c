//! A caller of the control plane: tRPC, plain HTTP, JSON-RPC.

use std::{fmt, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::{
    certificate,
    connection::{Connection, DEADLINE, Endpoint},
    percent,
    socket::RpcSocket,
    stream::Streamed,
};

/// Calls one control plane, with or without a key; clones share connections.
#[derive(Clone)]
pub struct Client {
    connection: Connection,
    key: Option<String>,
}

/// A complete answer.
#[derive(Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The bytes of the body.
    pub body: Bytes,
}

impl Client {
    /// A client without a key for `http://host:port`.
    ///
    /// # Panics
    /// Another scheme.
    pub fn new(url: &str) -> Self {
        let rest = url.strip_prefix("http://").unwrap_or_else(|| panic!("not an http:// URL: {url}"));
        Self::over(Endpoint::Tcp(rest.trim_end_matches('/').into()))
    }

    /// A client without a key that trusts the authorities in `ca` (PEM).
    ///
    /// # Panics
    /// The URL is not `https://host:port`, or `ca` holds no certificate.
    pub fn tls(url: &str, ca: &str) -> Self {
        let rest = url.strip_prefix("https://").unwrap_or_else(|| panic!("not an https:// URL: {url}"));
        Self::over(Endpoint::Tls(rest.trim_end_matches('/').into(), certificate::client_config(ca)))
    }

    /// A client without a key for any endpoint.
    pub fn over(endpoint: Endpoint) -> Self {
        Self { connection: Connection::to(endpoint), key: None }
    }

    /// The same client with that key, sent as `x-api-key`.
    pub fn with_key(&self, key: &str) -> Self {
        Self { connection: self.connection.clone(), key: Some(key.into()) }
    }

    /// The same client over connections of its own.
    #[must_use]
    pub fn afresh(&self) -> Self {
        Self { connection: Connection::to(self.connection.endpoint().clone()), key: self.key.clone() }
    }

    /// The same client without a key.
    pub fn without_key(&self) -> Self {
        Self { connection: self.connection.clone(), key: None }
    }

    /// Its key, where it has one.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Any request; `headers` may replace what would be sent.
    ///
    /// # Errors
    /// In words, when there was no complete answer.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, String> {
        self.send_within(DEADLINE, method, path, headers, body).await
    }

    /// [`send`](Self::send) with a deadline of its own.
    ///
    /// # Errors
    /// As there.
    pub async fn send_within(
        &self,
        deadline: Duration,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, String> {
        let request = self.request(method, path, headers, body)?;
        let (head, body) = self.connection.exchange_within(deadline, request).await?.into_parts();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Request<Full<Bytes>>, String> {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(key) = &self.key
            && !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("x-api-key"))
        {
            request = request.header("x-api-key", key);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Full::new(body.into())).map_err(|error| error.to_string())
    }

    /// Any request whose answer is read while it is being written.
    ///
    /// # Panics
    /// There was no answer.
    pub async fn stream(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Streamed {
        let request = self.request(method, path, headers, body);
        let answer = match request {
            Ok(request) => self.connection.stream(request).await,
            Err(error) => Err(error),
        };
        Streamed::of(answer.unwrap_or_else(|error| panic!("{path} was not answered: {error}")))
    }

    /// `GET path` of a subscription, which has begun: its first event is `connected`, and gone.
    ///
    /// # Panics
    /// It is something else.
    pub async fn subscribe(&self, path: &str, headers: &[(&str, &str)]) -> Streamed {
        let mut stream = self.stream(Method::GET, path, headers, "").await;
        let first = stream.event().await.expect("an event");
        assert_eq!(first.event, "connected", "{first:?}");
        stream
    }

    /// `GET path`.
    pub async fn get(&self, path: &str) -> Answer {
        answered(path, self.send(Method::GET, path, &[], "").await)
    }

    /// `POST path` with a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        let headers = [("content-type", "application/json")];
        answered(path, self.send(Method::POST, path, &headers, body.to_string()).await)
    }

    /// `GET /api/trpc/<procedure>?input=…`; no input when it is null.
    pub async fn trpc_query(&self, procedure: &str, input: &Value) -> Answer {
        let query = match input {
            Value::Null => String::new(),
            input => format!("?input={}", percent::encode(&input.to_string())),
        };
        self.get(&format!("/api/trpc/{procedure}{query}")).await
    }

    /// `POST /api/trpc/<procedure>`.
    pub async fn trpc_mutation(&self, procedure: &str, input: &Value) -> Answer {
        self.post(&format!("/api/trpc/{procedure}"), input).await
    }

    /// A query that must succeed: its data.
    pub async fn query(&self, procedure: &str, input: Value) -> Value {
        self.trpc_query(procedure, &input).await.data()
    }

    /// A mutation that must succeed: its data.
    pub async fn mutate(&self, procedure: &str, input: Value) -> Value {
        self.trpc_mutation(procedure, &input).await.data()
    }

    /// One JSON-RPC call by `POST /rpc`; the answer holds the whole response object.
    pub async fn rpc(&self, method: &str, params: &Value) -> Answer {
        let mut call = json!({"jsonrpc": "2.0", "id": 1, "method": method});
        if !params.is_null() {
            call["params"] = params.clone();
        }
        self.post("/rpc", &call).await
    }

    /// A WebSocket on `/rpc`, with the key at the upgrade.
    ///
    /// # Errors
    /// In words, with the status when the upgrade was refused.
    pub async fn websocket(&self) -> Result<RpcSocket, String> {
        RpcSocket::open(self.connection.endpoint(), "/rpc", self.key.as_deref()).await
    }
}

fn answered(path: &str, result: Result<Answer, String>) -> Answer {
    result.unwrap_or_else(|error| panic!("{path} was not answered: {error}"))
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// It is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// `result.data` of a tRPC answer.
    ///
    /// # Panics
    /// The call failed.
    #[track_caller]
    pub fn data(&self) -> Value {
        let mut json = self.json();
        assert!(self.status.is_success() && json.pointer("/result/data").is_some(), "failed: {self:?}");
        json["result"]["data"].take()
    }

    /// `error` of a tRPC or JSON-RPC answer.
    ///
    /// # Panics
    /// The call succeeded.
    #[track_caller]
    pub fn error(&self) -> Value {
        let error = self.json()["error"].take();
        assert!(error.is_object(), "no error: {self:?}");
        error
    }

    /// The name of the error, e.g. `BAD_REQUEST`.
    ///
    /// # Panics
    /// The call succeeded.
    #[track_caller]
    pub fn code(&self) -> String {
        self.error()["data"]["code"].as_str().unwrap_or_default().to_owned()
    }

    /// `data.diagnosis.code` of a failed registry test, empty when there is none.
    ///
    /// # Panics
    /// The call succeeded.
    #[track_caller]
    pub fn diagnosis(&self) -> String {
        self.error()["data"]["diagnosis"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.status, self.text())
    }
}
