//! What a registry does before it was given anything: whatever it is, it is not given the secret.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use purser_tests::{
    Authority,
    certificate::Validity,
    hostile::{Front, Reply, answer, basic, bearer},
};
use serde_json::{Value, json};

use super::{Behaviour, FORGED, expose};

const SECOND: Duration = Duration::from_secs(1);

/// An answer to whatever is asked.
fn says(name: &'static str, verdict: &'static str, text: impl Into<Vec<u8>>) -> Behaviour {
    let text = text.into();
    Behaviour::new(name, verdict, move |_| Reply::from(text.clone()))
}

/// A challenge, and its consequence.
fn challenges(name: &'static str, verdict: &'static str, headers: &str) -> Behaviour {
    says(name, verdict, answer("401 Unauthorized", headers, "{}"))
}

/// Leads to loopback, and is nowhere treated as if it said so.
const NOT_LITERALLY_LOOPBACK: IpAddr = IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped());

#[tokio::test]
async fn a_token_server_that_is_not_the_registrys_own_is_denied() {
    let denied = |name, realm: &str| says(name, "realm_denied", bearer(realm));
    let authority = Authority::new("of this test");
    let tls = Front::Tls(authority.issue(&["127.0.0.1"], Validity::Current));
    let trusted = json!({"caCertificate": authority.pem()});
    expose(vec![
        denied("metadata address", "http://169.254.169.254/latest/meta-data/"),
        denied("metadata address over TLS", "https://169.254.169.254/token"),
        denied("metadata name", "http://metadata.google.internal/computeMetadata/v1/"),
        denied("mapped metadata address", "http://[::ffff:169.254.169.254]/token"),
        denied("mapped loopback address", "http://[::ffff:127.0.0.1]:1/token"),
        denied("decimal IPv4", "http://2130706433/token"),
        denied("hexadecimal IPv4", "http://0x7f.1/token"),
        denied("short IPv4", "http://127.1/token"),
        denied("octal IPv4", "http://0177.0.0.1/token"),
        denied("unspecified IPv4", "http://0.0.0.0/token"),
        denied("unspecified IPv6", "http://[::]/token"),
        denied("another domain", "https://auth.evil.invalid/token"),
        denied("a name that begins like this one", "http://127.0.0.1.evil.invalid/token"),
        denied("user information", "http://127.0.0.1@evil.invalid/token"),
        denied("user information of the right host", "http://evil.invalid@127.0.0.1/token"),
        denied("backslash", "http://127.0.0.1\\\\@evil.invalid/token"),
        denied("a private neighbour", "http://10.0.0.1/token"),
        denied("a file", "file:///etc/passwd"),
        denied("another protocol", "gopher://127.0.0.1:6379/_FLUSHALL"),
        denied("no host", "/token"),
        denied("no scheme", "127.0.0.1/token"),
        denied("a fragment as a host", "http://#@127.0.0.1/token"),
        challenges("empty realm", "other", "WWW-Authenticate: Bearer realm=\"\"\r\n"),
        challenges(
            "Basic, and Bearer of another domain",
            "realm_denied",
            "WWW-Authenticate: Basic realm=\"x\"\r\nWWW-Authenticate: Bearer realm=\"https://evil.invalid/t\"\r\n",
        ),
        challenges(
            "both in one header",
            "realm_denied",
            "WWW-Authenticate: Basic realm=\"x\", Bearer realm=\"https://evil.invalid/t\"\r\n",
        ),
        Behaviour {
            front: tls.clone(),
            more: trusted.clone(),
            ..Behaviour::new("plain realm of a registry with TLS", "realm_denied", |asked| {
                bearer(&format!("http://{}/token", asked.address)).into()
            })
        },
        Behaviour {
            front: tls,
            more: trusted,
            ..Behaviour::new("a realm on loopback is not one elsewhere", "realm_denied", |_| {
                bearer("http://localhost:1/token").into()
            })
        },
        Behaviour {
            ip: NOT_LITERALLY_LOOPBACK,
            more: json!({"insecure": true}),
            ..Behaviour::new("from elsewhere to loopback", "realm_denied", |_| {
                bearer("http://127.0.0.1:1/token").into()
            })
        },
    ])
    .await;
}

#[tokio::test]
async fn what_is_no_challenge_or_no_answer_of_a_registry_is_told() {
    let redirects = |name, place: &'static str| {
        Behaviour::new(name, "not_a_registry", move |asked| {
            let place = place.replace("HERE", &asked.address.to_string());
            let place = place.replace("PORT", &asked.address.port().to_string());
            answer("302 Found", &format!("Location: {place}\r\n"), "").into()
        })
    };
    let long = "x".repeat(9 * 1024);
    let ok = |headers: &str, body: &[u8]| answer("200 OK", headers, body);
    let deep = "[".repeat(60_000);
    let unreadable = |name, value: &str| challenges(name, "other", &format!("WWW-Authenticate: {value}\r\n"));
    expose(vec![
        redirects("redirect on this host", "/elsewhere"),
        redirects("redirect to another name of it", "http://localhost:PORT/v2/"),
        redirects("redirect to the metadata service", "http://169.254.169.254/"),
        redirects("redirect to itself", "http://HERE/v2/"),
        challenges("401 without a challenge", "not_a_registry", ""),
        unreadable("a scheme alone", "Bearer"),
        unreadable("no realm", "Bearer service=\"x\""),
        unreadable("an end that is missing", "Bearer realm=\"http://127.0.0.1"),
        unreadable("punctuation", "\"\",,=="),
        unreadable("another scheme", "Negotiate"),
        unreadable("9 KiB", &format!("Bearer realm=\"http://127.0.0.1/{long}\"")),
        unreadable("9 KiB of schemes", &"Basic ".repeat(1_600)),
        challenges("other than ASCII", "not_a_registry", "WWW-Authenticate: B\u{e4}sic realm=\"x\"\r\n"),
        says("200 to everything, in HTML", "not_a_registry", ok("Content-Type: text/html\r\n", b"<html>")),
        says(
            "200 with an image",
            "not_a_registry",
            ok("Content-Type: image/png\r\n", b"\x89PNG\r\n\x1a\n\0\0"),
        ),
        says("deep JSON", "not_a_registry", ok("Content-Type: application/json\r\n", deep.as_bytes())),
        says("200 to everything", "notRequired", ok("Content-Type: application/json\r\n", b"{}")),
        says(
            "gzip bomb",
            "not_a_registry",
            ok(
                "Content-Type: application/json\r\nContent-Encoding: gzip\r\n",
                &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0],
            ),
        ),
        says(
            "HTML 403",
            "forbidden",
            answer("403 Forbidden", "Content-Type: text/html\r\n", "<html><h1>Blocked</h1></html>"),
        ),
        says("404", "not_a_registry", answer("404 Not Found", "", "")),
        says("429", "rate_limited", answer("429 Too Many Requests", "", "")),
        says("429, later", "rate_limited", answer("429 Too Many Requests", "Retry-After: 3600\r\n", "")),
        says("429, negative", "rate_limited", answer("429 Too Many Requests", "Retry-After: -1\r\n", "")),
        says(
            "429, in an age",
            "rate_limited",
            answer("429 Too Many Requests", "Retry-After: 99999999999999999999999999\r\n", ""),
        ),
        says("500", "other", answer("500 Internal Server Error", "", "")),
        says("503", "other", answer("503 Service Unavailable", "Retry-After: 1\r\n", "")),
        says(
            "101",
            "not_a_registry",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        ),
        says("status 999", "not_a_registry", "HTTP/1.1 999 What\r\nContent-Length: 0\r\n\r\n"),
        says("status 99999", "not_a_registry", "HTTP/1.1 99999 What\r\nContent-Length: 0\r\n\r\n"),
        says(
            "control characters in a message",
            "forbidden",
            answer("403 Forbidden", "Content-Type: application/json\r\n", json_error(FORGED)),
        ),
        says("control characters in a body", "forbidden", answer("403 Forbidden", "", FORGED)),
        says(
            "control characters in a challenge",
            "realm_denied",
            answer("401 Unauthorized", "WWW-Authenticate: Bearer realm=\"http://e\u{9b}vil/\t\"\r\n", ""),
        )
        .control_realm(),
        says("a forged place", "not_a_registry", answer("302 Found", "Location: /a\t[31m forged\r\n", "")),
        says(
            "NUL in a header",
            "not_a_registry",
            b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n".to_vec(),
        ),
        says("NUL in a header's name", "not_a_registry", b"HTTP/1.1 200 OK\r\nX\0: a\r\n\r\n".to_vec()),
        says(
            "escapes in the reason",
            "not_a_registry",
            b"HTTP/1.1 200 \x1b[31mOK\r\nContent-Length: 0\r\n\r\n".to_vec(),
        ),
    ])
    .await;
}

fn json_error(message: &str) -> String {
    json!({"errors": [{"code": "DENIED", "message": message}]}).to_string()
}

impl Behaviour {
    /// A header with bytes beyond ASCII counts as none.
    fn control_realm(mut self) -> Self {
        self.verdicts = ["not_a_registry"; 2];
        self
    }
}

#[tokio::test]
async fn a_connection_that_is_not_used_as_it_should_be_is_no_trap() {
    let authority = Authority::new("of this test");
    let trusted = json!({"caCertificate": authority.pem()});
    let tls = |name, verdict, names: &[&str], validity, more: &Value| Behaviour {
        front: Front::Tls(authority.issue(names, validity)),
        more: more.clone(),
        ..Behaviour::new(name, verdict, |_| basic().into())
    };
    let endless = |name, verdict, text: &'static [u8], piece: &'static [u8]| {
        Behaviour::new(name, verdict, move |_| Reply::endless(text, piece))
    };
    let last = |name, verdict, text: &'static [u8]| Behaviour::new(name, verdict, move |_| Reply::last(text));
    expose(vec![
        endless("endless body", "not_a_registry", b"HTTP/1.1 200 OK\r\n\r\n{\"a\":\"", &[b'x'; 8192]),
        endless(
            "endless chunks",
            "not_a_registry",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"8\r\nxxxxxxxx\r\n8\r\nxxxxxxxx\r\n8\r\nxxxxxxxx\r\n8\r\nxxxxxxxx\r\n",
        ),
        endless("endless headers", "not_a_registry", b"HTTP/1.1 200 OK\r\n", b"X-A: yes\r\n"),
        endless("an endless header", "not_a_registry", b"HTTP/1.1 200 OK\r\nX-A: ", &[b'x'; 8192]),
        endless("an endless status line", "not_a_registry", b"HTTP/1.1 200 ", &[b'x'; 8192]),
        endless("a 1xx flood", "timeout", b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
        endless(
            "endless extensions of a chunk",
            "not_a_registry",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;",
            &[b'x'; 8192],
        ),
        endless(
            "endless trailers",
            "not_a_registry",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
            b"X-A: yes\r\n",
        ),
        Behaviour::new("a byte a second", "timeout", |_| Reply::slow("HTTP/1.1 200 ", "x", SECOND)),
        Behaviour::new("a byte of the body a second", "timeout", |_| {
            Reply::slow(
                "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nContent-Length: 99\r\n\r\n",
                "x",
                SECOND,
            )
        }),
        Behaviour::new("a body that never comes", "timeout", |_| {
            Reply::silence(
                "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nContent-Length: 99\r\n\r\n",
            )
        }),
        last("no answer", "connect", b""),
        last("the middle of a header", "connect", b"HTTP/1.1 401 Unauth"),
        last("the middle of a body", "connect", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}"),
        last("a negative length", "not_a_registry", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{}"),
        last(
            "a length beyond all numbers",
            "not_a_registry",
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n{}",
        ),
        last(
            "a length of exabytes",
            "connect",
            b"HTTP/1.1 200 OK\r\nContent-Length: 4611686018427387904\r\n\r\n{}",
        ),
        last(
            "two lengths",
            "not_a_registry",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{} ",
        ),
        last(
            "chunks of nonsense",
            "not_a_registry",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n",
        ),
        last(
            "a chunk of exabytes",
            "not_a_registry",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\nx",
        ),
        last("no HTTP", "not_a_registry", b"220 mail.example.com ESMTP\r\n"),
        Behaviour::front(
            "speaks first",
            "not_a_registry|connect",
            Front::Says(b"SSH-2.0-OpenSSH_9.9\r\n".to_vec()),
        ),
        Behaviour::front("closes at once", "connect", Front::Closes),
        Behaviour::front("never says a word", "timeout", Front::Silent),
        Behaviour {
            more: trusted.clone(),
            ..Behaviour::front("TLS without end", "not_a_registry", Front::TlsWithoutEnd)
        },
        tls(
            "a certificate for another name",
            "tls_name",
            &["registry.example.com"],
            Validity::Current,
            &trusted,
        ),
        tls("an expired certificate", "tls_expired", &["127.0.0.1"], Validity::Expired, &trusted),
        tls(
            "an authority that nobody knows",
            "tls_unknown_authority",
            &["127.0.0.1"],
            Validity::Current,
            &Value::Null,
        ),
        Behaviour {
            ip: NOT_LITERALLY_LOOPBACK,
            ..Behaviour::new("HTTP on the TLS port", "http_on_https", |_| basic().into())
        },
        Behaviour {
            ip: NOT_LITERALLY_LOOPBACK,
            ..Behaviour::front("TLS without end, elsewhere", "timeout", Front::TlsWithoutEnd)
        },
    ])
    .await;
}
