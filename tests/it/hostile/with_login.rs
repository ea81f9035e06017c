//! What a registry does after it asked properly: it is given the secret, or a token server is, and neither
//! gains anything by what it does then.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use purser_tests::{
    Hostile,
    hostile::{Asked, Reply, answer, basic, bearer, json, token},
    percent, scan_for_secret,
    wait::random_hex,
};
use serde_json::json;

use super::{Behaviour, FORGED, expose};

/// Asks for a password, and does this to whoever has one.
fn then(
    name: &'static str,
    verdict: &'static str,
    reply: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
) -> Behaviour {
    let script = move |asked: &Asked| if asked.authorized() { reply(asked) } else { basic().into() };
    Behaviour::new(name, verdict, script).sent()
}

/// [`then`] with an answer.
fn then_says(name: &'static str, verdict: &'static str, text: Vec<u8>) -> Behaviour {
    then(name, verdict, move |_| text.clone().into())
}

/// Asks for a token of its own token server, which does this; the registry takes every token.
fn token_server(
    name: &'static str,
    verdict: &'static str,
    reply: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
) -> Behaviour {
    let script = move |asked: &Asked| match (asked.path(), asked.authorized()) {
        ("/token", _) => reply(asked),
        (_, true) => answer("200 OK", "", "{}").into(),
        (_, false) => bearer(&format!("http://{}/token", asked.address)).into(),
    };
    Behaviour::new(name, verdict, script).sent()
}

fn issues(name: &'static str, verdict: &'static str, text: Vec<u8>) -> Behaviour {
    token_server(name, verdict, move |_| text.clone().into())
}

fn error(status: &str, code: &str, message: &str) -> Vec<u8> {
    json(status, &json!({"errors": [{"code": code, "message": message}]}))
}

/// The password in an `Authorization` header.
fn password(asked: &Asked) -> String {
    let basic = asked.authorization.as_deref().and_then(|value| value.strip_prefix("Basic "));
    let plain = BASE64_STANDARD.decode(basic.unwrap_or_default()).unwrap_or_default();
    String::from_utf8_lossy(&plain)
        .split_once(':')
        .map(|(_, password)| password.to_owned())
        .unwrap_or_default()
}

/// What it was sent, in some of the ways in which servers repeat it.
fn echo(asked: &Asked) -> String {
    let (password, authorization) = (password(asked), asked.authorization.clone().unwrap_or_default());
    let encoded = percent::encode(&password);
    let (form, lower, twice) =
        (encoded.replace("%20", "+"), encoded.to_ascii_lowercase(), percent::encode(&encoded));
    let basic = percent::encode(authorization.trim_start_matches("Basic "));
    let base64 = BASE64_URL_SAFE_NO_PAD.encode(&password);
    format!(
        "you are {authorization} with {password}, {password}, p={encoded}&q={form}&r={lower}&s={twice}, {basic}, {base64}"
    )
}

#[tokio::test]
async fn a_registry_that_was_given_a_password_gains_nothing_by_what_it_does() {
    let thief = Arc::new(Hostile::start(|_| answer("200 OK", "", "{}").into()).await);
    let redirects = |name, place: &str| {
        let place = place.replace("THIEF", &thief.address().to_string());
        let place = place.replace("LOCALHOST", &thief.as_localhost());
        then(name, "not_a_registry", move |_| {
            answer("307 Temporary Redirect", &format!("Location: {place}\r\n"), "").into()
        })
    };
    let ok = |headers: &str, body: &str| answer("200 OK", headers, body);
    expose(vec![
        then_says("takes it", "verified", ok("", "{}")),
        redirects("redirect to another port", "http://THIEF/v2/")
            .and_from_host("verified|other|not_a_registry"),
        redirects("redirect to another host", "http://LOCALHOST/v2/")
            .and_from_host("verified|other|not_a_registry"),
        redirects("redirect to itself", "/v2/"),
        then_says("401 for ever", "unauthorized", basic()),
        then_says("another challenge", "unauthorized", bearer("http://169.254.169.254/token")),
        then_says(
            "403 in HTML",
            "forbidden",
            answer("403 Forbidden", "Content-Type: text/html\r\n", "<html>"),
        ),
        then_says("429", "rate_limited", answer("429 Too Many Requests", "", "")),
        then_says(
            "429 in JSON",
            "rate_limited",
            error("429 Too Many Requests", "TOOMANYREQUESTS", "slow down"),
        ),
        then_says("500", "other", answer("500 Internal Server Error", "", "")),
        then_says("a page", "not_a_registry", ok("Content-Type: text/html\r\n", "<html>"))
            .and_from_host("verified"),
        then("cut", "connect", |_| Reply::last("HTTP/1.1 200 O")),
        then("no HTTP", "not_a_registry", |_| Reply::last("SSH-2.0\r\n")),
        then("endless body", "not_a_registry", |_| {
            Reply::endless("HTTP/1.1 200 OK\r\n\r\n{\"a\":\"", [b'x'; 8192])
        })
        .and_from_host("verified"),
        then("never answers", "timeout", |_| Reply::silence("")),
        then("repeats it", "unauthorized", |asked| {
            error("401 Unauthorized", "UNAUTHORIZED", &echo(asked)).into()
        }),
        then("repeats it as text", "other", |asked| answer("500 Oh", "", echo(asked)).into()),
        then("repeats it in a header", "not_a_registry", |asked| {
            answer("302 Found", &format!("Location: /{}\r\n", echo(asked)), "").into()
        })
        .and_from_host("unauthorized"),
        then("repeats it beyond what is shown", "other", |asked| {
            let filler = "x".repeat(400);
            answer("500 Oh", "", format!("{filler} {}", echo(asked))).into()
        }),
        then("repeats it beyond what is shown, in JSON", "unauthorized", |asked| {
            let filler = "x".repeat(1_900);
            error("401 Unauthorized", "UNAUTHORIZED", &format!("{filler} {}", echo(asked))).into()
        }),
        then_says("writes a log line", "unauthorized", error("401 Unauthorized", "UNAUTHORIZED", FORGED)),
    ])
    .await;
    assert_eq!(thief.authorized(), 0, "{:?}", thief.requests());
}

#[tokio::test]
async fn a_token_server_gains_nothing_by_what_it_does() {
    let thief = Arc::new(Hostile::start(|_| token("stolen").into()).await);
    let place = format!("http://{}/token", thief.as_localhost());
    let redirect = answer("307 Temporary Redirect", &format!("Location: {place}\r\n"), "");
    let number =
        |expires: &str| answer("200 OK", "", format!("{{\"token\":\"t\",\"expires_in\":{expires}}}"));
    let deep = format!("{}1{}", "{\"token\":".repeat(5_000), "}".repeat(5_000));
    let megabyte = "t".repeat(1 << 20);
    expose(vec![
        issues("gives one", "verified", token("t")),
        issues("gives the other kind", "verified", json("200 OK", &json!({"access_token": "t"}))),
        issues("redirects", "other", redirect).and_from_host("verified|other"),
        issues("gives none", "other", json("200 OK", &json!({}))),
        issues("gives an empty one", "other", token("")),
        issues("gives null", "other", json("200 OK", &json!({"token": null}))),
        issues("gives a list", "other", json("200 OK", &json!([["token", "t"]]))),
        issues("gives a page", "other", answer("200 OK", "Content-Type: text/html\r\n", "<html>")),
        issues("gives nothing", "other", answer("200 OK", "", "")),
        issues("deep JSON", "other", answer("200 OK", "", deep)),
        issues("a megabyte", "other", token(&megabyte)).and_from_host("verified|other|connect"),
        issues("a header in a token", "other", token("t\r\nX-Forged: yes")),
        issues("control characters in a token", "other", token(FORGED)),
        issues("expires in the past", "verified", number("-1")),
        issues("expires in an age", "verified", number("9223372036854775807")),
        issues("expires beyond all numbers", "verified", number("1e400")).and_from_host("other"),
        issues("expires in words", "verified", number("\"soon\"")).and_from_host("other"),
        token_server("gives the password as a token", "verified", |asked| token(&password(asked)).into()),
        token_server("repeats the password", "unauthorized", |asked| {
            error("401 Unauthorized", "UNAUTHORIZED", &echo(asked)).into()
        }),
        token_server("repeats the password as text", "unauthorized", |asked| {
            answer("401 Unauthorized", "Content-Type: text/plain\r\n", echo(asked)).into()
        }),
        issues("401", "unauthorized", error("401 Unauthorized", "UNAUTHORIZED", "authentication required")),
        issues("403", "unauthorized|forbidden", error("403 Forbidden", "DENIED", "denied")),
        issues("429", "rate_limited", answer("429 Too Many Requests", "Retry-After: -5\r\n", "")),
        issues("500", "other", answer("500 Internal Server Error", "", "")),
        token_server("endless", "other", |_| {
            Reply::endless("HTTP/1.1 200 OK\r\n\r\n{\"token\":\"", [b't'; 8192])
        })
        .and_from_host("timeout|other"),
        token_server("a byte a second", "timeout", |_| {
            Reply::slow("HTTP/1.1 200 OK\r\n\r\n", " ", Duration::from_secs(1))
        }),
        token_server("cut", "connect", |_| Reply::last("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{")),
        issues(
            "compressed",
            "not_a_registry",
            answer("200 OK", "Content-Encoding: gzip\r\n", [0x1f, 0x8b, 8]),
        )
        .and_from_host("connect"),
    ])
    .await;
    assert_eq!(thief.authorized(), 0, "{:?}", thief.requests());
}

/// A registry that was given the password once has its next token server named after it.
#[tokio::test]
async fn a_secret_in_a_token_servers_name_is_shown_to_nobody() {
    let road = super::talkative().await;
    let given = Mutex::new(None);
    let registry = Hostile::start(move |asked| {
        let mut given = given.lock().unwrap();
        match (asked.authorized(), &*given) {
            (true, _) => {
                *given = Some(password(asked));
                answer("200 OK", "", "{}").into()
            }
            (false, None) => basic().into(),
            (false, Some(password)) => bearer(&format!("https://{password}.evil.invalid/token")).into(),
        }
    })
    .await;
    // Fit for a host's name, which is lower case.
    let secret = random_hex(20);
    let address = registry.address().to_string();
    let (answer, _) = super::test(&road, &address, &secret, None, &json!(null)).await;
    assert_eq!(super::verdict(&answer), "verified", "{answer:?}");
    let id = road.entry_with(&address, "somebody", &secret).await;
    let tags = json!({"registryId": id, "repository": "a/b"});
    let answers = [
        super::test(&road, &address, &secret, None, &json!(null)).await.0,
        super::test(&road, &address, &secret, Some(road.host()), &json!(null)).await.0,
        road.client.trpc_query("registry.tags", &tags).await,
    ];
    for answer in answers {
        assert_eq!(super::verdict(&answer), "realm_denied", "{answer:?}");
        assert!(answer.text().contains("[redacted]"), "{}", answer.text());
        assert_eq!(scan_for_secret(&answer.text(), &secret), [], "{}", answer.text());
    }
    let job = road.pull(&format!("{address}/a/b:1"), json!({"registryId": id})).await;
    assert_eq!(job["targets"][0]["error"]["code"], "realm_denied", "{job:#}");
    assert_eq!(scan_for_secret(&job.to_string(), &secret), [], "{job:#}");
    for log in [road.purser.log_file(), road.agents[0].log_file()] {
        assert_eq!(scan_for_secret(log, &secret), []);
    }
    assert_eq!(scan_for_secret(&road.purser.data_dir(), &secret), []);
}

/// A server error is one for the moment: the next test says otherwise.
#[tokio::test]
async fn five_hundreds_that_pass_are_forgotten() {
    let road = super::talkative().await;
    for server in [None, Some(road.host())] {
        let registry = Hostile::start(|asked| {
            let status = if asked.before == 0 { "503 Service Unavailable" } else { "200 OK" };
            answer(status, "", "{}").into()
        })
        .await;
        let address = registry.address().to_string();
        let verdicts = ["other", "notRequired"];
        for expected in verdicts {
            let (answer, _) = super::test(&road, &address, "not sent", server, &json!(null)).await;
            assert_eq!(super::verdict(&answer), expected, "{answer:?}");
        }
        assert_eq!(registry.authorized(), 0);
    }
}
