//! The procedure table as types for `@trpc/client`: what is served is what is committed, and the compiler takes with
//! them what callers may write and refuses what they may not (`tests/clients/v10`, `v11` and `v11.4`).

use std::{fs, process::Command};

use http::{Method, StatusCode, header};
use purser_proto_schema::typescript::Version;
use purser_tests::{Purser, npm, source};

#[tokio::test]
async fn what_is_served_without_a_key_is_what_is_committed() {
    let purser = Purser::start().await;
    let nobody = purser.anonymous();
    for version in [Version::V11, Version::V10] {
        let path = format!("/api/{}", version.file());
        let committed =
            fs::read_to_string(source::workspace().join("proto-schema").join(version.file())).unwrap();
        let served = nobody.get(&path).await;
        assert_eq!(served.status, StatusCode::OK, "{path}");
        assert_eq!(served.headers[header::CONTENT_TYPE], "text/plain; charset=utf-8");
        assert!(served.text() == committed, "{path} is not proto-schema/{}", version.file());

        let tag = served.headers[header::ETAG].to_str().unwrap();
        for known in [tag, &format!("\"other\", W/{tag}"), "*"] {
            let again = nobody.send(Method::GET, &path, &[("if-none-match", known)], "").await.unwrap();
            assert_eq!((again.status, again.body.len()), (StatusCode::NOT_MODIFIED, 0), "{path} {known}");
        }
        let other = nobody.send(Method::GET, &path, &[("if-none-match", "\"other\"")], "").await.unwrap();
        assert_eq!(other.status, StatusCode::OK);
        let wrong = nobody.post(&path, &serde_json::json!({})).await;
        assert_eq!(wrong.status, StatusCode::METHOD_NOT_ALLOWED, "{path} is only read");
    }
}

/// `tsc --strict` of a folder of `tests/clients`. A mistake that the compiler does not refuse fails it, too.
fn compiles(folder: &str) {
    npm::install();
    let mut compiler = Command::new("node");
    compiler.args(["node_modules/typescript/bin/tsc", "--strict", "--project", folder]);
    let output = compiler.current_dir(npm::folder()).output().expect("node can be started");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "tsc, in tests/clients:\n{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn version_11_takes_what_is_right_and_refuses_what_is_wrong() {
    compiles("v11");
}

/// The oldest one that has the types.
#[test]
fn version_11_4_takes_what_is_right_and_refuses_what_is_wrong() {
    compiles("v11.4");
}

#[test]
fn version_10_takes_what_is_right_and_refuses_what_is_wrong() {
    compiles("v10");
}
