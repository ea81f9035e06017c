use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_tungstenite::{accept_async, tungstenite::Message};

use super::*;
use crate::{
    error::Code,
    ids::{JobId, RegistryId},
    job,
    procedure::NoInput,
    registry::{All, CreateInput, One, OneInput},
};

const KEY: &str = "purser_hunter2";

fn client(url: &str) -> Result<Client, ClientError> {
    Client::new(url, SecretString::from(KEY))
}

/// Answers one request with these bytes, then holds the connection open; gives what was asked.
async fn answering(answer: Vec<u8>) -> (Client, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
    let asked = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = vec![0; 64 * 1024];
        let length = stream.read(&mut asked).await.unwrap();
        stream.write_all(&answer).await.unwrap();
        let asked = String::from_utf8_lossy(&asked[..length]).into_owned();
        // Until the client hangs up.
        let _ = stream.read(&mut [0]).await;
        asked
    });
    (client, asked)
}

fn http(status: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

#[tokio::test]
async fn the_key_goes_out_as_a_header_and_an_absent_field_not_at_all() {
    let (client, asked) = answering(http("200 OK", r#"{"jsonrpc":"2.0","id":1,"result":[]}"#)).await;
    assert!(client.call::<All>(NoInput {}).await.unwrap().is_empty());
    drop(client);
    let asked = asked.await.unwrap();
    assert!(asked.starts_with("POST /rpc HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains(&format!("\r\nx-api-key: {KEY}\r\n")), "{asked}");
    assert!(asked.ends_with(r#"{"jsonrpc":"2.0","id":1,"method":"registry.all","params":{}}"#), "{asked}");
    let input = CreateInput::builder().registry_name("a").registry_url("b").build();
    assert_eq!(serde_json::to_string(&input).unwrap(), r#"{"registryName":"a","registryUrl":"b"}"#);
}

#[tokio::test]
async fn an_error_is_typed_whatever_its_http_status() {
    let error = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32004,"message":"no such registry entry",
        "data":{"code":"NOT_FOUND","httpStatus":404,"path":"registry.one"}}}"#;
    for status in ["200 OK", "404 Not Found"] {
        let (client, _asked) = answering(http(status, error)).await;
        let input = OneInput { registry_id: RegistryId::generate() };
        let refused = client.call::<One>(input).await.unwrap_err();
        assert_eq!(refused.code(), Some(Code::NotFound));
        assert_eq!(refused.public().and_then(|error| error.data.path.as_deref()), Some("registry.one"));
        assert_eq!(refused.to_string(), "NOT_FOUND: no such registry entry");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed_with_the_key() {
    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let location = format!("302 Found\r\nlocation: http://{}/rpc", other.local_addr().unwrap());
    let (client, _asked) = answering(http(&location, "")).await;
    let error = client.call::<All>(NoInput {}).await.unwrap_err();
    assert!(matches!(error, ClientError::Unreadable { status: 302, .. }), "{error:?}");
    let dialled = other.accept().now_or_never();
    assert!(dialled.is_none(), "the key went elsewhere");
}

#[tokio::test]
async fn an_answer_without_end_is_cut() {
    let mut endless = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    endless.resize(endless.len() + MAX_ANSWER + 1, b' ');
    let (client, _asked) = answering(endless).await;
    let error = client.call::<All>(NoInput {}).await.unwrap_err();
    assert!(matches!(error, ClientError::TooLarge), "{error:?}");
}

#[tokio::test]
async fn who_never_answers_is_not_waited_for() {
    let (client, _asked) = answering(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{".to_vec()).await;
    let client = client.with_timeout(Duration::from_millis(200));
    let error = client.call::<All>(NoInput {}).await.unwrap_err();
    assert!(matches!(error, ClientError::Timeout(_)), "{error:?}");
}

#[test]
fn a_url_is_http_or_https_and_a_host() {
    for good in ["http://127.0.0.1:3000", "https://purser.example.com/", "https://example.com/purser/"] {
        client(good).unwrap_or_else(|error| panic!("{good}: {error}"));
    }
    for bad in ["", "127.0.0.1:3000", "/rpc", "ftp://host", "https://me:secret@host", "http://host/?a=b"] {
        assert!(matches!(client(bad), Err(ClientError::Url)), "{bad}");
    }
    assert!(
        format!("{:?}", client("https://example.com/purser/")).contains("https://example.com/purser/rpc")
    );
}

#[test]
fn neither_the_key_nor_a_password_shows() {
    assert!(!format!("{:?}", client("http://127.0.0.1").unwrap()).contains("hunter2"));
    let bad = Client::new("http://127.0.0.1", SecretString::from("hunter2\n")).unwrap_err();
    assert!(matches!(bad, ClientError::Key) && !format!("{bad:?} {bad}").contains("hunter2"), "{bad:?}");
    assert!(matches!(Client::new("http://127.0.0.1", SecretString::from("")), Err(ClientError::Key)));
    let password = SecretString::from("hunter2");
    let input = CreateInput::builder().registry_name("a").registry_url("b").password(password.into()).build();
    assert!(!format!("{input:?}").contains("hunter2"), "{input:?}");
}

/// Begins a subscription, number 7, that tells these texts and then holds still.
async fn watching(texts: Vec<String>) -> Watch<job::Watch> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut socket = accept_async(stream).await.unwrap();
        let call = socket.next().await.unwrap().unwrap().into_text().unwrap();
        assert!(call.contains(r#""method":"job.watch","params":{"jobId":"job_"#), "{call}");
        let begun = r#"{"jsonrpc":"2.0","id":1,"result":7}"#.to_owned();
        for text in std::iter::once(begun).chain(texts) {
            // A client that has had enough hangs up.
            let _ = socket.send(Message::text(text)).await;
        }
        while let Some(Ok(_)) = socket.next().await {}
    });
    let job_id = JobId::from_stored("job_1".to_owned());
    client.watch::<job::Watch>(job::WatchInput { job_id, last_event_id: None }).await.unwrap()
}

fn told(subscription: u64, event: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"job.watch","params":{{"subscription":{subscription},{event}}}}}"#)
}

#[tokio::test]
async fn an_event_is_told_with_its_id_and_another_subscriptions_is_not() {
    let example: serde_json::Value = serde_json::from_str(job::Watch::INFO.example).unwrap();
    let event = format!(r#""id":"12","result":{}"#, example["output"]);
    let mut watch = watching(vec![told(8, r#""result":{}"#), told(7, &event)]).await;
    let event = watch.next().await.unwrap();
    assert_eq!(event.id.as_deref(), Some("12"));
    assert_eq!(serde_json::to_value(event.data).unwrap(), example["output"]);
}

#[tokio::test]
async fn an_error_ends_a_stream() {
    let error = r#""error":{"code":-32004,"message":"gone","data":{"code":"NOT_FOUND","httpStatus":404}}"#;
    let events: Vec<_> = watching(vec![told(7, error), told(7, error)]).await.into_stream().collect().await;
    let codes: Vec<_> = events.into_iter().map(|event| event.map(|_| ()).unwrap_err().code()).collect();
    assert_eq!(codes, [Some(Code::NotFound)]);
}

#[tokio::test]
async fn an_event_without_end_is_cut() {
    let mut watch = watching(vec![" ".repeat(MAX_ANSWER + 1)]).await;
    let error = watch.next().await.unwrap_err();
    assert!(matches!(error, ClientError::TooLarge), "{error:?}");
}

#[tokio::test]
async fn a_watch_without_a_sign_of_life_is_given_up() {
    let mut watch = watching(Vec::new()).await;
    // From here on time passes whenever nobody has anything to do.
    tokio::time::pause();
    let error = watch.next().await.unwrap_err();
    assert!(matches!(error, ClientError::Timeout(_)), "{error:?}");
}

#[tokio::test]
async fn what_upgrades_without_proof_is_no_websocket() {
    let upgraded = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    let (client, _asked) = answering(upgraded.into()).await;
    let job_id = JobId::from_stored("job_1".to_owned());
    let error =
        client.watch::<job::Watch>(job::WatchInput { job_id, last_event_id: None }).await.unwrap_err();
    assert!(matches!(error, ClientError::Unreadable { status: 101, .. }), "{error:?}");
}
