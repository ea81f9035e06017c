//! The password is nowhere: after everything that is done with one, at the most talkative log level.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use purser_tests::{
    Agent, BreakableProxy, Canned, Purser, Road, Testbed, eventually,
    image::{self, Local},
    scan_for_secret, secret, unique,
    user::Kind,
};
use serde_json::{Value, json};

/// What every process of this test shows to anyone on the machine, sampled while it works.
struct Sampled {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<BTreeSet<Vec<u8>>>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Sampled {
    /// Every command line on the machine, and the environment of `own` processes.
    fn start(own: Vec<u32>) -> Self {
        let (stop, seen) = (Arc::<AtomicBool>::default(), Arc::<Mutex<BTreeSet<Vec<u8>>>>::default());
        let (ended, found) = (stop.clone(), seen.clone());
        let thread = thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let mut pieces = Vec::new();
                for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
                    let name = entry.file_name().to_string_lossy().into_owned();
                    if name.bytes().all(|byte| byte.is_ascii_digit()) {
                        pieces.push(fs::read(entry.path().join("cmdline")).unwrap_or_default());
                    }
                }
                let environments = own.iter().map(|pid| fs::read(format!("/proc/{pid}/environ")));
                pieces.extend(environments.map(Result::unwrap_or_default));
                found.lock().unwrap().extend(pieces);
                thread::sleep(Duration::from_millis(20));
            }
        });
        Self { stop, seen, thread: Some(thread) }
    }

    fn end(mut self) -> Vec<u8> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
        let seen = self.seen.lock().unwrap();
        seen.iter().flatten().copied().collect()
    }
}

/// Everything that was answered, whatever the status.
struct Caller<'a> {
    road: &'a Road,
    answers: Vec<u8>,
}

impl Caller<'_> {
    async fn call(&mut self, procedure: &str, input: Value) -> Value {
        let answer = self.road.client.trpc_mutation(procedure, &input).await;
        for (name, value) in &answer.headers {
            self.answers.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\n"].concat());
        }
        self.answers.extend(&answer.body);
        // The same by the other door.
        let other = self.road.client.rpc(procedure, &input).await;
        self.answers.extend(&other.body);
        answer.json()["result"]["data"].clone()
    }

    async fn ended(&mut self, job: &Value) {
        if job["jobId"].is_string() {
            let ended = self.road.ended(job).await;
            self.answers.extend(ended.to_string().into_bytes());
        }
    }
}

/// Everything that Purser does with a password, well and badly.
async fn scenario(road: &Road, wrong: &str, one_time: &str) -> Vec<u8> {
    let bed = Testbed::get();
    let mut caller = Caller { road, answers: Vec::new() };
    let owner = bed.user(Kind::Plain);
    let image = image::in_registry(&bed.host_b(), &bed.registries.token, "secret", 100, Some(owner)).await;
    let local = Local::make(&bed.host_a(), "secret", 100).await;
    for user in bed.users.iter().filter(|user| user.kind != Kind::Reader) {
        let (name, password) = (&user.username, &user.password);
        // One that cannot be reached fails the same for everyone.
        let closed = (user.kind == Kind::Symbols).then_some("127.0.0.1:1");
        for registry in [bed.basic_for(user), &bed.registries.token].into_iter().chain(closed) {
            let fields = json!({"registryUrl": registry, "username": name, "password": password});
            let mut create = fields.clone();
            create["registryName"] = json!(unique("secret"));
            let entry = caller.call("registry.create", create).await["registryId"].clone();
            for server in [Value::Null, json!(road.host())] {
                for password in [password.as_str(), wrong] {
                    let mut test = fields.clone();
                    test["serverId"] = server.clone();
                    test["password"] = json!(password);
                    caller.call("registry.testRegistry", test).await;
                }
                caller
                    .call("registry.testRegistryById", json!({"registryId": entry, "serverId": server}))
                    .await;
            }
            let update = json!({"registryId": entry, "username": name, "password": password});
            caller.call("registry.update", update).await;
            let auth = json!({"username": name, "password": one_time});
            let on = |more: Value| {
                let mut input = json!({"image": image.reference(), "serverId": road.host(), "wait": true});
                input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
                input
            };
            let right = json!({"username": name, "password": password});
            for pull in [json!({"registryId": entry}), json!({"auth": auth}), json!({"auth": right})] {
                let job = caller.call("image.pull", on(pull)).await;
                caller.ended(&job).await;
            }
            let push = on(json!({
                "image": local.repository, "registryId": entry, "repository": unique("secret"),
            }));
            let job = caller.call("image.push", push).await;
            caller.ended(&job).await;
            // Calls that fail on their form, with the password in a wrong place.
            for (procedure, bad) in [
                (
                    "registry.create",
                    json!({"registryName": password, "registryUrl": password, "password": password}),
                ),
                ("registry.create", json!({"registryName": "x", "registryUrl": 7, "secret": password})),
                ("registry.testRegistry", json!({"registryUrl": {"x": password}, "username": [password]})),
                ("registry.testRegistry", json!(password)),
                ("image.pull", json!({"image": password, "auth": password, "serverId": password})),
                ("registry.one", json!({"registryId": password})),
            ] {
                caller.call(procedure, bad).await;
            }
        }
    }
    for (procedure, input) in [("registry.all", Value::Null), ("job.all", json!({"limit": 100}))] {
        let answer = road.client.trpc_query(procedure, &input).await;
        caller.answers.extend(&answer.body);
    }
    bed.host_a().remove(&image.reference()).await;
    caller.answers
}

/// The engine's own state: metadata below its data root, without the layers.
fn engine_state(server_socket: &std::path::Path) -> Vec<PathBuf> {
    let root = server_socket.parent().unwrap().join("data");
    let entries = fs::read_dir(&root).into_iter().flatten().flatten();
    let paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    assert!(paths.iter().any(|path| path.ends_with("image")), "no engine's state in {}", root.display());
    paths.into_iter().filter(|path| !path.ends_with("vfs") && !path.ends_with("overlay2")).collect()
}

#[tokio::test]
async fn a_password_is_nowhere_after_all_that_was_done_with_it() {
    let bed = Testbed::get();
    let purser = Purser::builder().rust_log("trace").start().await;
    let created = purser.client().mutate("server.create", json!({"name": "secretive"})).await;
    let (server, token) = (created["serverId"].as_str().unwrap(), created["joinToken"].as_str().unwrap());
    let agent = Agent::builder(&purser, &bed.host_a(), Some(token)).rust_log("trace").start();
    agent.await_online(&purser.client(), server).await;
    let sampled = Sampled::start(vec![purser.pid(), agent.pid()]);
    let key = purser.admin_key();
    let road = Road { client: purser.client(), servers: vec![server.into()], agents: vec![agent], purser };
    let (wrong, one_time) = (unique("wrong~>?ü"), unique("once~>?ü"));
    let answers = scenario(&road, &wrong, &one_time).await;
    let shown = sampled.end();
    let (purser, agent) = (&road.purser, &road.agents[0]);
    assert!(
        purser.logs().contains("DEBUG") && agent.logs().contains("DEBUG"),
        "no talkative logs to look at"
    );
    assert!(answers.len() > 100_000 && shown.windows(12).any(|text| text == b"purser-agent"));

    let passwords = bed.users.iter().filter(|user| user.kind != Kind::Reader);
    let mut secrets: Vec<_> =
        passwords.map(|user| (format!("{:?}", user.kind), user.password.clone())).collect();
    secrets.extend([("wrong".to_owned(), wrong), ("one-time".to_owned(), one_time)]);
    let dump = purser.database().map(purser_tests::database::Database::dump).unwrap_or_default();
    let mut leaks = Vec::new();
    for (what, secret) in &secrets {
        let mut look = |place: &str, found: Vec<purser_tests::secret::Finding>| {
            leaks.extend(found.into_iter().map(|finding| format!("{what} in {place}: {finding}")));
        };
        look("answers", scan_for_secret(&answers, secret));
        look("/proc", scan_for_secret(&shown, secret));
        look("the server's log", scan_for_secret(purser.log_file(), secret));
        look("the agent's log", scan_for_secret(agent.log_file(), secret));
        // The database with its WAL, the key files; HOME with .docker.
        look("the data folder", scan_for_secret(&purser.data_dir(), secret));
        look("the database", scan_for_secret(&dump, secret));
        look("the server's home", scan_for_secret(&purser.home(), secret));
        look("the agent's state", scan_for_secret(&agent.state_dir(), secret));
        look("the agent's home", scan_for_secret(&agent.home(), secret));
        for path in engine_state(bed.host_a().socket()) {
            look("the engine's state", scan_for_secret(&path, secret));
        }
    }
    // Logs are collected and read by others: what opens the control plane is not in them either.
    for (what, needle) in [("the API key", secret::of_key(&key)), ("the join token", token)] {
        for (place, log) in [("server's", purser.log_file()), ("agent's", agent.log_file())] {
            let found = scan_for_secret(log, needle);
            leaks.extend(found.into_iter().map(|finding| format!("{what} in the {place} log: {finding}")));
        }
        let found = scan_for_secret(&dump, needle);
        leaks.extend(found.into_iter().map(|finding| format!("{what} in the database: {finding}")));
    }
    assert!(!agent.home().join(".docker").exists() && !purser.home().join(".docker").exists());
    assert!(leaks.is_empty(), "{} leaks:\n{}", leaks.len(), leaks.join("\n"));
}

/// A registry may put what it was given into its answers; engines pass that on.
#[tokio::test]
async fn a_registry_that_repeats_the_password_gets_it_into_no_answer_and_no_log() {
    let (bed, purser) = (Testbed::get(), Purser::builder().rust_log("trace").start().await);
    let road = Road::over(purser, &[bed.host_a()]).await;
    for kind in [Kind::Plain, Kind::Symbols, Kind::NonAscii] {
        let user = bed.user(kind);
        let ascii = if user.password.is_ascii() { user.password.as_str() } else { "x" };
        let headers = format!(
            "WWW-Authenticate: Basic realm=\"{}\"\r\nContent-Type: application/json\r\nX-Echo: {}\r\n",
            ascii.replace(['"', '\\'], ""),
            user.basic(),
        );
        let error = json!({"code": "UNAUTHORIZED", "message": user.password, "detail": user.basic()});
        let body = json!({"errors": [error], "message": user.password}).to_string();
        for status in ["401 Unauthorized", "403 Forbidden", "500 Internal Server Error"] {
            let echo = Canned::start(status, &headers, &body).await;
            let registry = echo.address().to_string();
            let entry = road.entry(&registry, user).await;
            let mut answers = String::new();
            for server in [None, Some(road.host())] {
                answers.push_str(&road.test(&entry, server).await.text());
            }
            let job = road.pull(&format!("{registry}/app:v1"), Value::Null).await;
            assert_eq!(job["status"], "failed", "{job:#}");
            answers.push_str(&job.to_string());
            assert_eq!(scan_for_secret(&answers, &user.password), [], "{kind:?}, {status}: {answers}");
            assert!(!echo.requests().is_empty());
        }
        for log in [road.purser.log_file(), road.agents[0].log_file()] {
            assert_eq!(scan_for_secret(log, &user.password), [], "{kind:?}");
        }
        assert_eq!(scan_for_secret(&road.purser.data_dir(), &user.password), [], "{kind:?}");
    }
}

/// While the server cannot be told, the agent's verdicts wait on its disk.
#[tokio::test]
async fn a_verdict_that_waits_on_the_hosts_disk_holds_no_password() {
    let (bed, purser) = (Testbed::get(), Purser::start().await);
    let link = BreakableProxy::start(purser.address()).await;
    let builder = Agent::builder(&purser, &bed.host_a(), None).server(&format!("http://{}", link.address()));
    let (agent, server) = Agent::join_by(&purser, builder).await;
    let user = bed.user(Kind::Symbols);
    let headers = "WWW-Authenticate: Basic realm=\"x\"\r\nContent-Type: application/json\r\n";
    let error = json!({"code": "UNAUTHORIZED", "message": user.password, "detail": user.basic()});
    let echo = Canned::start("401 Unauthorized", headers, &json!({"errors": [error]}).to_string()).await;
    let registry = BreakableProxy::start(&echo.address().to_string()).await;
    registry.allow(0);
    let auth = json!({"username": user.username, "password": user.password});
    let asked = json!({"serverId": server, "image": format!("{}/app:v1", registry.address()), "auth": auth});
    purser.client().mutate("image.pull", asked).await;
    let soon = Duration::from_secs(20);
    eventually(soon, async || (registry.accepted() > 0).then_some(())).await;
    link.stall(true);
    registry.allow(usize::MAX);
    let file = agent.state_dir().join("verdicts.jsonl");
    let kept = eventually(soon, async || fs::read_to_string(&file).ok()).await;
    assert!(
        kept.contains("\"failed\"") && kept.contains("[redacted]"),
        "not the verdict in question: {kept}"
    );
    assert_eq!(scan_for_secret(&agent.state_dir(), &user.password), []);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
}
