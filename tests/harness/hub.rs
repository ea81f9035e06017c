//! A Docker Hub of one test's own. There is none here, so it is a fake; but whoever talks to it runs as it is delivered:
//! by the Hub's real names (an `/etc/hosts` of the process's own), its real port, and TLS by an authority that the
//! process takes for one of the system's (`SSL_CERT_FILE`). What it answers has the documented shapes.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::json;
use tempfile::TempDir;

use crate::{
    certificate::{Authority, Validity},
    hostile::{Asked, Front, Hostile, Reply, answer, json, token},
    testbed::Testbed,
    wait::random_bytes,
};

const REGISTRY: &str = "registry-1.docker.io";
const TOKENS: &str = "auth.docker.io";
const WEBSITE: &str = "hub.docker.com";

/// The registry, its token server and the website; gone when dropped.
pub struct Hub {
    serving: Hostile,
    folder: TempDir,
}

impl Hub {
    /// Starts one that knows a user by the value of its `Authorization`, `Basic …`.
    ///
    /// # Panics
    /// Port 443 of a random loopback address is taken, or this is not root.
    pub async fn start(known: &str) -> Self {
        let folder = Testbed::get().scratch("hub");
        let authority = Authority::new("of a fake Docker Hub");
        let bytes = random_bytes(3);
        // Not 127.0.0.1, where others listen.
        let ip = IpAddr::from(Ipv4Addr::new(127, 1 + bytes[0] % 250, bytes[1], 1 + bytes[2] % 250));
        let hosts = format!("127.0.0.1 localhost\n{ip} {REGISTRY} {TOKENS} {WEBSITE}\n");
        fs::write(folder.path().join("hosts"), hosts).expect("a folder of the testbed is writable");
        fs::write(folder.path().join("ca.pem"), authority.pem())
            .expect("a folder of the testbed is writable");
        let front = Front::Tls(authority.issue(&[REGISTRY, TOKENS, WEBSITE], Validity::Current));
        let known = known.to_owned();
        let script = Arc::new(move |asked: &Asked| match asked.host.as_str() {
            REGISTRY => registry(asked),
            TOKENS => tokens(asked, &known),
            _ => website(asked),
        });
        Self { serving: Hostile::on(SocketAddr::new(ip, 443), front, script).await, folder }
    }

    /// The `/etc/hosts` in which the Hub is here.
    pub fn hosts(&self) -> PathBuf {
        self.folder.path().join("hosts")
    }

    /// What `SSL_CERT_FILE` is to name.
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A folder for the test's own files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The requests so far to the registry, the token server and the website.
    pub fn requests(&self) -> Vec<Asked> {
        self.serving.requests()
    }

    /// Those to the website.
    pub fn searches(&self) -> Vec<Asked> {
        self.requests().into_iter().filter(|asked| asked.host == WEBSITE).collect()
    }
}

fn error(status: &str, headers: &str, code: &str, message: &str) -> Reply {
    let body = json!({"errors": [{"code": code, "message": message, "detail": null}]});
    let headers = format!(
        "Content-Type: application/json\r\nDocker-Distribution-Api-Version: registry/2.0\r\n{headers}"
    );
    answer(status, &headers, body.to_string()).into()
}

fn registry(asked: &Asked) -> Reply {
    if !asked.authorized() {
        let challenge = format!(
            "WWW-Authenticate: Bearer realm=\"https://{TOKENS}/token\",service=\"registry.docker.io\"\r\n"
        );
        return error("401 Unauthorized", &challenge, "UNAUTHORIZED", "authentication required");
    }
    match asked.path() {
        "/v2/" => answer("200 OK", "Docker-Distribution-Api-Version: registry/2.0\r\n", "{}").into(),
        "/v2/ratelimitpreview/test/manifests/latest" if asked.method == "HEAD" => {
            let limits = "ratelimit-limit: 100;w=21600\r\nratelimit-remaining: 76;w=21600\r\n\
                          docker-ratelimit-source: 192.0.2.1\r\n";
            answer("200 OK", limits, "").into()
        }
        _ => error("404 Not Found", "", "MANIFEST_UNKNOWN", "manifest unknown"),
    }
}

fn tokens(asked: &Asked, known: &str) -> Reply {
    match asked.authorization.as_deref() {
        Some(given) if given != known => {
            json("401 Unauthorized", &json!({"details": "incorrect username or password"})).into()
        }
        _ => token("a-token-of-docker-hub").into(),
    }
}

fn website(asked: &Asked) -> Reply {
    if asked.path() != "/v2/search/repositories/" {
        return answer("404 Not Found", "", "").into();
    }
    let hit = |name: &str, official: bool| {
        json!({"repo_name": name, "short_description": "Of a fake Hub", "star_count": 20_000,
            "pull_count": 12_345_678_901_u64, "repo_owner": "", "is_automated": false, "is_official": official})
    };
    let body = json!({"count": 2, "next": "", "previous": "",
        "results": [hit("nginx", true), hit("bitnami/nginx", false)]});
    json("200 OK", &body).into()
}
