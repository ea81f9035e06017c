//! The shared parts: what the `testbed` program started, as it wrote it into `PURSER_TESTBED`.

use std::{
    env, fs,
    io::Read as _,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process, str,
    sync::OnceLock,
    thread,
};

use serde::{Deserialize, Serialize};

use crate::{
    engine::Engine,
    user::{Kind, User},
};

/// Environment variable that names the file [`Testbed`] is read from.
pub const VARIABLE: &str = "PURSER_TESTBED";

/// Addresses of everything that is shared by the tests of one run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Testbed {
    /// Process id of the `testbed` program.
    pub pid: u32,
    /// The folder that everything lives in; removed at the end.
    pub folder: PathBuf,
    /// A socket that closes when the testbed dies.
    pub lifeline: PathBuf,
    /// The engines: `host-a` and `host-b` are Docker, `podman` is Podman.
    pub engines: Vec<EngineAddress>,
    /// `127.0.0.1:port` where `host-b` listens by TLS, too, for clients of its authority.
    pub docker_by_tls: String,
    /// The folder of `ca.pem`, `cert.pem` and `key.pem` of such a client.
    pub docker_certificates: PathBuf,
    /// The registries.
    pub registries: Registries,
    /// Who may log in at the registries with authentication.
    pub users: Vec<User>,
    /// JSON lines, one [`TokenRequest`] per request to the token server.
    pub token_log: PathBuf,
    /// Certificate (PEM) of the authority behind [`Registries::tls`].
    pub ca_certificate: String,
    /// `postgres://…` of the cluster's maintenance database.
    pub postgres: String,
}

/// Where an engine listens.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EngineAddress {
    /// `host-a`, `host-b`, `podman`.
    pub name: String,
    /// Its Unix socket.
    pub socket: PathBuf,
}

/// `127.0.0.1:port` of each registry; engines speak plain HTTP to loopback without being told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Registries {
    /// htpasswd (bcrypt), for users whose kind is not long.
    pub basic: String,
    /// No authentication.
    pub open: String,
    /// Token authentication; repositories under `public/` can be pulled anonymously.
    pub token: String,
    /// Basic authentication for all users: a proxy that compares the whole password, in front of
    /// the registry [`open`](Self::open), which therefore holds the same images.
    pub long: String,
    /// TLS by [`Testbed::ca_certificate`] for the address 127.0.0.1 only (`localhost` gives a
    /// name mismatch), htpasswd as in [`basic`](Self::basic).
    pub tls: String,
    /// URL of the token server behind [`token`](Self::token).
    pub realm: String,
}

/// One request to the token server. It never holds a password.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenRequest {
    /// `GET`, or `POST` for the OAuth2 form.
    pub method: String,
    /// Who asked, when credentials were sent.
    pub username: Option<String>,
    /// Whether credentials were sent, in `Authorization` or in the form.
    pub credentials_sent: bool,
    /// The scopes asked for.
    pub scopes: Vec<String>,
    /// The answer's HTTP status.
    pub status: u16,
}

impl Testbed {
    /// The testbed of this run. Ties this process to it: when the testbed dies, so does the test.
    ///
    /// # Panics
    /// Outside `testbed -- …`.
    pub fn get() -> &'static Self {
        static BED: OnceLock<Testbed> = OnceLock::new();
        BED.get_or_init(|| {
            let Some(file) = env::var_os(VARIABLE) else {
                panic!("{VARIABLE} is not set: these tests need the shared parts, run them with tests/run");
            };
            let bed = Self::read(Path::new(&file)).unwrap_or_else(|error| {
                panic!("the testbed's file {} is unusable ({error}): run tests/run", file.display())
            });
            bed.die_with_it();
            bed
        })
    }

    fn read(file: &Path) -> Result<Self, String> {
        let text = fs::read(file).map_err(|error| error.to_string())?;
        serde_json::from_slice(&text).map_err(|error| error.to_string())
    }

    fn die_with_it(&self) {
        let mut line = UnixStream::connect(&self.lifeline)
            .unwrap_or_else(|error| panic!("the testbed (pid {}) is gone: {error}; run tests/run", self.pid));
        thread::spawn(move || {
            let _ = line.read(&mut [0]);
            eprintln!("the testbed died; so does this test");
            process::exit(70);
        });
    }

    /// The engine of that name.
    ///
    /// # Panics
    /// There is none.
    pub fn engine(&self, name: &str) -> Engine {
        let found = self.engines.iter().find(|engine| engine.name == name);
        Engine::at(&found.unwrap_or_else(|| panic!("no engine {name}")).socket)
    }

    /// Engine `host-a`.
    pub fn host_a(&self) -> Engine {
        self.engine("host-a")
    }

    /// Engine `host-b`.
    pub fn host_b(&self) -> Engine {
        self.engine("host-b")
    }

    /// The Podman, which speaks plain HTTP to loopback because its `registries.conf` says so.
    pub fn podman(&self) -> Engine {
        self.engine("podman")
    }

    /// The user with that kind of password.
    ///
    /// # Panics
    /// Never in a testbed of this version.
    pub fn user(&self, kind: Kind) -> &User {
        self.users.iter().find(|user| user.kind == kind).expect("one user of each kind")
    }

    /// The registry with Basic authentication that knows `user`.
    pub fn basic_for(&self, user: &User) -> &str {
        if user.kind.is_long() { &self.registries.long } else { &self.registries.basic }
    }

    /// Requests to the token server so far that mention `repository` in a scope.
    pub fn token_requests(&self, repository: &str) -> Vec<TokenRequest> {
        let log = fs::read_to_string(&self.token_log).unwrap_or_default();
        let all = log.lines().filter_map(|line| serde_json::from_str::<TokenRequest>(line).ok());
        let scope = format!("repository:{repository}:");
        all.filter(|request| request.scopes.iter().any(|asked| asked.starts_with(&scope))).collect()
    }

    /// A fresh folder inside the testbed's, removed on drop.
    ///
    /// # Panics
    /// It cannot be made.
    pub fn scratch(&self, name: &str) -> tempfile::TempDir {
        let made =
            tempfile::Builder::new().prefix(&format!("{name}-")).tempdir_in(self.folder.join("scratch"));
        made.unwrap_or_else(|error| panic!("no scratch folder: {error}"))
    }
}
