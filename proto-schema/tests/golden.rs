//! The wire form of the agent channel, a file per message.
//!
//! A file of the present protocol says how the message is written. If this fails, neighbouring versions
//! may not understand each other any more: either the change is undone, or it is one that the protocol
//! allows (a new optional field; then `PURSER_GOLDEN=write` writes the files anew), or `PROTOCOL` is
//! raised, which makes a new folder and keeps the one before, whose files must still be understood.

#![allow(clippy::unwrap_used, reason = "everything here is a test")]

use std::{collections::BTreeSet, env, fs, path::PathBuf};

use purser_proto_schema::{
    agent::{
        PROTOCOL, PROTOCOLS,
        calls::{
            AgentCallsClient as _, AgentStatus, Attempt, ProgressReport, ServerCallsClient as _, StartReply,
            StartTarget, VerdictReceipt, VerdictReport,
        },
        command::{ChannelCredentials, Command, Failure, Outcome, RegistryAccess, TestReport, Verdict},
        handshake::{Answer, Hello, Limits, ProtocolRange, RefusalCode, Refused, Resume, Welcome},
        outbound::Outbound,
        outgoing::{Next, Outgoing},
    },
    ids::{ServerId, TargetId},
    image::Image,
    job::Progress,
    server::Engine,
};
use purser_registry_client::{
    AccessVerdict, AuthScheme, CredentialsVerdict, Diagnosis, DiagnosisCode, RegistryKind, ScopeProbe, Step,
    StepName,
};
use secrecy::SecretString;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// Checks one message after the other, and that every file belongs to one.
#[derive(Default)]
struct Golden {
    seen: BTreeSet<String>,
    differences: Vec<String>,
}

fn folder(protocol: u32) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{protocol}"))
}

fn file(protocol: u32, name: &str) -> Option<Value> {
    let text = fs::read_to_string(folder(protocol).join(format!("{name}.json"))).ok()?;
    Some(serde_json::from_str(&text).unwrap())
}

/// What a newer neighbour may send: a field more in every object.
fn with_unknown_fields(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut members: serde_json::Map<_, _> =
                members.iter().map(|(name, value)| (name.clone(), with_unknown_fields(value))).collect();
            members.insert("unknownToThisVersion".to_owned(), json!({"x": [1]}));
            Value::Object(members)
        }
        Value::Array(items) => items.iter().map(with_unknown_fields).collect(),
        other => other.clone(),
    }
}

impl Golden {
    /// The written form is the file's.
    fn written(&mut self, name: &str, written: &Value) {
        assert!(self.seen.insert(name.to_owned()), "{name} twice");
        if env::var_os("PURSER_GOLDEN").is_some_and(|what| what == "write") {
            fs::create_dir_all(folder(PROTOCOL)).unwrap();
            let text = serde_json::to_string_pretty(written).unwrap() + "\n";
            fs::write(folder(PROTOCOL).join(format!("{name}.json")), text).unwrap();
        }
        match file(PROTOCOL, name) {
            None => self.differences.push(format!("{name}: no file")),
            Some(golden) if golden != *written => {
                self.differences.push(format!("{name}: is written {written}, and its file says {golden}"));
            }
            Some(_) => {}
        }
    }

    /// A message that is written so, and read so from every protocol that is served.
    fn message<T: Serialize + DeserializeOwned>(&mut self, name: &str, message: &T) {
        let written = serde_json::to_value(message).unwrap();
        self.written(name, &written);
        for protocol in PROTOCOLS.min..=PROTOCOLS.max {
            let Some(golden) = file(protocol, name) else { continue };
            for received in [golden.clone(), with_unknown_fields(&golden)] {
                match serde_json::from_value::<T>(received) {
                    Err(error) => self.differences.push(format!("{name} of protocol {protocol}: {error}")),
                    Ok(read) if protocol == PROTOCOL && serde_json::to_value(&read).unwrap() != golden => {
                        self.differences.push(format!("{name}: something was lost in reading"));
                    }
                    Ok(_) => {}
                }
            }
        }
    }

    fn end(self) {
        let files = fs::read_dir(folder(PROTOCOL)).unwrap();
        let files = files.map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned());
        assert_eq!(files.collect::<BTreeSet<_>>(), self.seen, "each file is a message's");
        assert!(self.differences.is_empty(), "{}", self.differences.join("\n"));
    }
}

fn attempt() -> Attempt {
    Attempt { target_id: TargetId::from_stored("tgt_1".to_owned()), attempt: 2 }
}

fn engine() -> Engine {
    let text = |text: &str| text.to_owned();
    Engine {
        name: text("Docker"),
        version: text("20.10.24"),
        api_version: text("1.41"),
        os: text("linux"),
        arch: text("amd64"),
    }
}

fn access() -> RegistryAccess {
    RegistryAccess {
        address: "registry.test:5000".to_owned(),
        insecure: true,
        ca_certificate: Some("PEM".to_owned()),
        realm_allow: vec!["auth.test".to_owned()],
        credentials: Some(ChannelCredentials {
            username: "me".to_owned(),
            password: SecretString::from("ä~>?\"").into(),
        }),
    }
}

fn anonymous() -> RegistryAccess {
    RegistryAccess {
        insecure: false,
        ca_certificate: None,
        realm_allow: Vec::new(),
        credentials: None,
        ..access()
    }
}

fn commands() -> Vec<(&'static str, Command)> {
    let scope = ScopeProbe { repository: "team/app".to_owned(), pull: true, push: false };
    vec![
        ("command.testRegistry", Command::TestRegistry { registry: access(), scope: Some(scope) }),
        ("command.testRegistry.anonymous", Command::TestRegistry { registry: anonymous(), scope: None }),
        (
            "command.pull",
            Command::Pull {
                image: "registry.test:5000/team/app:v1".to_owned(),
                platform: Some("linux/arm64".to_owned()),
                registry: access(),
            },
        ),
        (
            "command.push",
            Command::Push {
                source: "app:v1".to_owned(),
                target: "registry.test:5000/team/app:v1".to_owned(),
                registry: access(),
            },
        ),
    ]
}

fn steps() -> Vec<Step> {
    vec![Step { step: StepName::EngineLogin, ok: true, duration_ms: 12, detail: "logged in".to_owned() }]
}

fn verdicts() -> Vec<(&'static str, Verdict)> {
    let tested = TestReport {
        auth: AuthScheme::Bearer,
        credentials: CredentialsVerdict::Verified,
        kind: RegistryKind::Harbor,
        access: Some(AccessVerdict { pull: Some(true), push: Some(false) }),
        steps: steps(),
        warnings: vec!["plain HTTP".to_owned()],
    };
    let image = Outcome::Image { digest: "sha256:00".to_owned(), size_bytes: Some(7) };
    let diagnosis = Diagnosis::new(DiagnosisCode::Unauthorized, "refused", "Correct the password.")
        .with_engine_message("unauthorized");
    let failure =
        Failure { steps: steps(), warnings: vec!["a warning".to_owned()], ..Failure::from(diagnosis) };
    vec![
        ("verdict.tested", Verdict::Succeeded { outcome: Outcome::Tested(tested), duration_ms: 3 }),
        ("verdict.image", Verdict::Succeeded { outcome: image, duration_ms: 3 }),
        ("verdict.failed", Verdict::Failed { failure, duration_ms: 4 }),
        ("verdict.cancelled", Verdict::Cancelled),
    ]
}

fn progress() -> Progress {
    Progress {
        phase: "downloading".to_owned(),
        percent: Some(50),
        downloaded_bytes: 12,
        ..Progress::default()
    }
}

fn handshake(golden: &mut Golden) {
    let hello = Hello {
        protocol: ProtocolRange { min: 1, max: 1 },
        agent_version: "1.2.3".to_owned(),
        instance: Some("run".to_owned()),
        server_id: ServerId::from_stored("srv_1".to_owned()),
        join_secret: Some(SecretString::from("join").into()),
        engine: Some(engine()),
        resume: Resume { running_targets: vec![attempt()], unacknowledged_verdicts: vec![attempt()] },
    };
    golden.message("hello", &hello);
    let member =
        Hello { instance: None, join_secret: None, engine: None, resume: Resume::default(), ..hello };
    golden.message("hello.member", &member);
    let welcome = Welcome {
        session_epoch: 7,
        protocol: 1,
        heartbeat_ms: 15_000,
        limits: Limits { tests: 16, transfers: 3, text_bytes: 1024 },
        drop: vec![attempt()],
    };
    golden.message("welcome", &Answer::Welcome(welcome));
    for (name, code) in [
        ("refused.unknownKey", RefusalCode::UnknownKey),
        ("refused.invalidJoinToken", RefusalCode::InvalidJoinToken),
        ("refused.unsupportedProtocol", RefusalCode::UnsupportedProtocol),
        ("refused.busy", RefusalCode::Busy),
        ("refused.unavailable", RefusalCode::Unavailable),
    ] {
        golden.message(
            name,
            &Answer::Refused(Refused { code, message: "no".to_owned(), retry_after_ms: 5000 }),
        );
    }
}

fn commands_verdicts_and_answers(golden: &mut Golden) {
    for (name, command) in commands() {
        golden.message(name, &command);
    }
    for (name, verdict) in verdicts() {
        golden.message(name, &verdict);
    }
    let verdict = Verdict::Cancelled;
    for (name, reply) in [
        ("answer.target.start.accepted", StartReply::Accepted),
        ("answer.target.start.duplicate", StartReply::Duplicate { verdict }),
        ("answer.target.start.busy", StartReply::Busy),
        ("answer.target.start.unsupported", StartReply::Unsupported),
    ] {
        golden.message(name, &reply);
    }
    golden.message("answer.target.verdict.stored", &VerdictReceipt::Stored);
    golden.message("answer.target.verdict.stale", &VerdictReceipt::Stale);
    let image = json!({"imageId": "sha256:00", "tags": ["app:v1"], "digests": ["app@sha256:00"], "sizeBytes": 7,
        "createdAt": "2026-11-21T00:00:00.000Z"});
    let image: Image = serde_json::from_value(image).unwrap();
    golden.message("answer.engine.images", &vec![image]);
    golden.message("answer.none", &());
}

/// The calls as they go over the wire: name, and parameters by name.
async fn calls(golden: &mut Golden) {
    let client = std::sync::Arc::new(Outbound::new(Outgoing::new(1)));
    macro_rules! call {
        ($name:literal, $call:ident($($argument:expr)?)) => {{
            let caller = client.clone();
            let call = tokio::spawn(async move { caller.$call($($argument)?).await.map(|_| ()) });
            let Next::Text(text) = client.texts().next().await else { panic!("nobody closes") };
            let mut text: Value = serde_json::from_str(&text).unwrap();
            call.abort();
            text["id"] = json!(1);
            golden.written($name, &text);
        }};
    }
    let (_, pull) = commands().swap_remove(2);
    let start = StartTarget {
        attempt: attempt(),
        job_id: "job_1".to_owned(),
        request_id: Some("request-1".to_owned()),
        deadline_ms: 60_000,
        stall_ms: Some(30_000),
        command: pull,
    };
    golden.message("target", &start);
    call!("call.target.start", target_start(start));
    call!("call.target.cancel", target_cancel(attempt()));
    call!("call.engine.images", engine_images());
    let report = ProgressReport { attempt: attempt(), seq: 9, snapshot: progress() };
    golden.message("progress", &report);
    call!("call.target.progress", target_progress(report));
    let (_, failed) = verdicts().swap_remove(2);
    let report = VerdictReport { attempt: attempt(), verdict: failed };
    golden.message("report", &report);
    call!("call.target.verdict", target_verdict(report));
    let status = AgentStatus { engine: Some(engine()) };
    golden.message("status", &status);
    call!("call.agent.status", agent_status(status));
}

#[tokio::test]
async fn every_message_is_written_and_read_as_before() {
    let mut golden = Golden::default();
    handshake(&mut golden);
    commands_verdicts_and_answers(&mut golden);
    calls(&mut golden).await;
    golden.end();
}

/// Of a newer server: not understood, and answered so.
#[test]
fn a_command_of_a_newer_version_is_no_broken_message() {
    let newer = json!({"type": "build", "context": {"x": 1}});
    assert!(matches!(serde_json::from_value(newer).unwrap(), Command::Unknown));
}

#[test]
fn there_are_files_for_every_protocol_that_is_served_and_no_other() {
    let folders = fs::read_dir(folder(PROTOCOL).parent().unwrap()).unwrap();
    let mut found: Vec<u32> =
        folders.map(|folder| folder.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
    found.sort_unstable();
    assert_eq!(found, (PROTOCOLS.min..=PROTOCOLS.max).collect::<Vec<_>>());
}
