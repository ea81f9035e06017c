use super::*;

/// Every row of registry-protocol.md §4, as the messages really read.
const MESSAGES: [(&str, Code); 64] = [
    ("Get \"https://r.test/v2/\": unauthorized: authentication required", Code::Unauthorized),
    ("unauthorized: incorrect username or password", Code::Unauthorized),
    ("denied: requested access to the resource is denied", Code::Forbidden),
    ("pull access denied for a/b, repository does not exist or may require 'docker login'", Code::Forbidden),
    (
        "pull access denied, repository does not exist or may require authorization: server message: \
         insufficient_scope: authorization failed",
        Code::InsufficientScope,
    ),
    ("unauthorized: access token has insufficient scopes", Code::InsufficientScope),
    ("denied: access forbidden", Code::Forbidden),
    ("no basic auth credentials", Code::Unauthorized),
    (
        "login attempt to https://1.dkr.ecr.eu.amazonaws.com/v2/ failed with status: 400 Bad Request",
        Code::TokenExpired,
    ),
    ("denied: Your Authorization Token has expired. Please run 'aws ecr get-login'", Code::TokenExpired),
    ("unauthorized: personal access token is expired", Code::TokenExpired),
    ("manifest unknown: manifest unknown", Code::NotFound),
    ("manifest for nginx:nope not found", Code::NotFound),
    ("name unknown: The repository does not exist", Code::NotFound),
    ("repository registry.test/a not found", Code::NotFound),
    ("no matching manifest for linux/arm64/v8 in the manifest list entries", Code::NotFound),
    ("toomanyrequests: You have reached your unauthenticated pull rate limit", Code::RateLimited),
    ("You have reached your pull rate limit", Code::RateLimited),
    ("x509: certificate signed by unknown authority", Code::TlsUnknownAuthority),
    ("tls: failed to verify certificate: x509: certificate is valid for a.test, not b.test", Code::TlsName),
    ("x509: certificate is not valid for any names, but wanted to match b.test", Code::TlsName),
    ("x509: cannot validate certificate for 10.0.0.1 because it doesn't contain any IP SANs", Code::TlsName),
    ("x509: certificate has expired or is not yet valid: current time 2026 is after 2025", Code::TlsExpired),
    ("http: server gave HTTP response to HTTPS client", Code::HttpOnHttps),
    ("dial tcp: lookup r.test on 127.0.0.53:53: no such host", Code::Dns),
    ("dial tcp: lookup r.test on 10.0.0.1:53: read udp 1->2: i/o timeout", Code::Dns),
    ("dial tcp 10.0.0.1:5000: connect: connection refused", Code::Connect),
    ("dial tcp 10.0.0.1:5000: i/o timeout", Code::Timeout),
    ("net/http: request canceled (Client.Timeout exceeded while awaiting headers)", Code::Timeout),
    ("net/http: TLS handshake timeout", Code::Timeout),
    ("Get \"https://r.test/v2/\": EOF", Code::Connect),
    ("EOF", Code::Connect),
    ("read tcp 1->2: read: connection reset by peer", Code::Connect),
    ("received unexpected HTTP status: 413 Request Entity Too Large", Code::Other),
    ("write /var/lib/docker/x: no space left on device", Code::EngineError),
    ("invalid reference format", Code::Other),
    ("invalid reference format: repository name (library/A) must be lowercase", Code::Other),
    ("manifest version 2, schema 1 support has been removed", Code::Other),
    ("unsupported media type application/vnd.cncf.helm", Code::Other),
    (
        "error parsing HTTP 403 response body: invalid character '<' looking for beginning of value",
        Code::Forbidden,
    ),
    ("tag does not exist: a/b:c", Code::NotFound),
    ("blob upload unknown", Code::Other),
    ("unsupported: The operation is unsupported.", Code::Other),
    ("client version 1.24 is too old. Minimum supported API version is 1.44", Code::EngineError),
    ("denied: denied", Code::Unauthorized),
    ("denied", Code::Forbidden),
    ("error from registry: unauthorized", Code::Unauthorized),
    ("denied: Permission \"artifactregistry.repositories.downloadArtifacts\" denied", Code::Forbidden),
    // What Docker 26 says of the behaviours of tests/it/hostile.
    ("login attempt to http://r.test/v2/ failed with status: 500 Internal Server Error", Code::Other),
    ("Get \"http://r.test/v2/\": received unexpected HTTP status: 503 Service Unavailable", Code::Other),
    ("Get \"/v2/\": stopped after 10 redirects", Code::NotARegistry),
    (
        "Get \"http://r.test/v2/\": net/http: HTTP/1.x transport connection broken: malformed HTTP response \"SSH-2.0\"",
        Code::NotARegistry,
    ),
    ("Get \"http://r.test/v2/\": authorization server did not include a token in the response", Code::Other),
    ("Get \"http://r.test/v2/\": unable to decode token response: EOF", Code::Other),
    ("Get \"http://r.test/v2/\": unable to decode token response: unexpected EOF", Code::Connect),
    (
        "Get \"http://r.test/v2/\": unable to decode token response: invalid character '<' looking for beginning of value",
        Code::Other,
    ),
    (
        "Get \"http://r.test/v2/\": unable to decode token response: json: cannot unmarshal array into Go value",
        Code::Other,
    ),
    ("Get \"http://r.test/v2/\": net/http: invalid header field value for \"Authorization\"", Code::Other),
    (
        "Get \"http://r.test/v2/\": error parsing HTTP 429 response body: unexpected end of JSON input: \"\"",
        Code::RateLimited,
    ),
    (
        "error parsing HTTP 502 response body: invalid character '<' looking for beginning of value",
        Code::Other,
    ),
    ("received unexpected HTTP status: 500 Internal Server Error", Code::Other),
    ("http: server gave HTTP response to HTTPS client: EOF", Code::HttpOnHttps),
    ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock", Code::EngineError),
    ("permission denied while trying to connect to the docker API", Code::EngineError),
];

/// As Podman 4.3 puts them.
const PODMAN_MESSAGES: [(&str, Code); 9] = [
    (
        "initializing source docker://127.0.0.1:5000/a:v9: reading manifest v9 in 127.0.0.1:5000/a: manifest unknown: \
         manifest unknown",
        Code::NotFound,
    ),
    (
        "initializing source docker://127.0.0.1:5000/a:v1: reading manifest v1 in 127.0.0.1:5000/a: unauthorized: \
         authentication required",
        Code::Unauthorized,
    ),
    (
        "trying to reuse blob sha256:e3b0 at destination: checking whether a blob sha256:e3b0 exists in \
         127.0.0.1:5000/a: unauthorized: authentication required",
        Code::Unauthorized,
    ),
    (
        "initializing source docker://127.0.0.1:1/a:v9: pinging container registry 127.0.0.1:1: Get \
         \"https://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused",
        Code::Connect,
    ),
    (
        "initializing source docker://r.test/a:v9: pinging container registry r.test: Get \"https://r.test/v2/\": dial \
         tcp: lookup r.test on 10.0.0.1:53: no such host",
        Code::Dns,
    ),
    (
        "login attempt to 127.0.0.1:5000 failed with status: pinging container registry 127.0.0.1:5000: Get \
         \"https://127.0.0.1:5000/v2/\": http: server gave HTTP response to HTTPS client",
        Code::HttpOnHttps,
    ),
    ("login attempt to localhost:5000 failed with status: 401 Unauthorized", Code::Unauthorized),
    ("failed to find image 127.0.0.1:5000/a:v1: 127.0.0.1:5000/a:v1: image not known", Code::NotFound),
    (
        "choosing an image from manifest list docker://r.test/a:v1: no image found in manifest list for architecture \
         arm64, variant \"\", OS linux",
        Code::NotFound,
    ),
];

#[test]
fn what_podman_says_means_the_same() {
    for (message, code) in PODMAN_MESSAGES {
        assert_eq!(classify_engine_message(message).code, code, "{message}");
    }
}

#[test]
fn every_known_message_is_recognised_in_any_letter_case() {
    for (message, code) in MESSAGES {
        for text in
            [message.to_owned(), message.to_uppercase(), format!("Error response from daemon: {message}")]
        {
            // A lone `EOF` after a prefix is `: eof`, and so still known.
            let diagnosis = classify_engine_message(&text);
            assert_eq!(diagnosis.code, code, "{text}");
            assert!(!diagnosis.advice.is_empty() && diagnosis.engine_message.is_some(), "{text}");
        }
    }
}

#[test]
fn known_causes_are_told_apart_from_merely_other_ones() {
    for (message, code) in MESSAGES.iter().filter(|(_, code)| *code == Code::Other) {
        assert!(recognise(message).is_some_and(|cause| cause.code == *code), "{message}");
    }
}

#[test]
fn an_unknown_message_speaks_for_itself() {
    let diagnosis = classify_engine_message("the flux\u{1b}[0m capacitor\nbroke");
    assert_eq!(diagnosis.code, Code::Other);
    assert_eq!(diagnosis.message, "the flux[0m capacitor broke");
    assert_eq!(diagnosis.engine_message.as_deref(), Some("the flux[0m capacitor broke"));
    assert!(!classify_engine_message("").message.is_empty());
}

#[test]
fn a_message_of_any_length_is_bounded() {
    let diagnosis = classify_engine_message(&"x".repeat(1 << 20));
    assert!(diagnosis.message.len() <= 2048 && diagnosis.engine_message.unwrap().len() <= 2048);
}

#[test]
fn only_what_may_pass_by_itself_is_said_to() {
    for passing in [
        "received unexpected HTTP status: 503 Service Unavailable",
        "login attempt to http://r.test/v2/ failed with status: 502 Bad Gateway",
        "dial tcp 10.0.0.1:5000: connect: connection refused",
        "dial tcp: lookup r.test on 127.0.0.53:53: no such host",
        "toomanyrequests: You have reached your pull rate limit",
        "read tcp 1->2: read: connection reset by peer",
    ] {
        assert!(classify_engine_message(passing).passes_after.is_some(), "{passing}");
    }
    for lasting in [
        "unauthorized: authentication required",
        "denied: requested access to the resource is denied",
        "manifest unknown: manifest unknown",
        "x509: certificate signed by unknown authority",
        "received unexpected HTTP status: 413 Request Entity Too Large",
        "no space left on device",
        "something nobody has heard of",
    ] {
        assert!(classify_engine_message(lasting).passes_after.is_none(), "{lasting}");
    }
}
