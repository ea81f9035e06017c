//! Real registries: Debian's `docker-registry` (distribution 2.8), one per way to log in.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use purser_tests::{
    certificate::Issued,
    process::{Process, tied},
    user::User,
    wait::random_hex,
};

use crate::folder::Folder;

/// A running registry.
pub(crate) struct RunningRegistry {
    /// `127.0.0.1:port`.
    pub(crate) address: String,
    _process: Process,
}

/// How a registry asks who is there.
pub(crate) enum Login<'a> {
    None,
    Htpasswd(&'a Path),
    Token { realm: &'a str, bundle: &'a Path },
}

impl RunningRegistry {
    /// Starts one on a free port, over TLS when there is a certificate.
    pub(crate) fn start(
        folder: &Folder,
        name: &str,
        login: &Login<'_>,
        tls: Option<&Issued>,
    ) -> Result<Self, String> {
        let own = folder.path().join(name);
        let failed = |error: std::io::Error| format!("{name}: {error}");
        fs::create_dir_all(&own).map_err(failed)?;
        let mut http = format!("http:\n  addr: 127.0.0.1:0\n  secret: {}\n", random_hex(16));
        if let Some(issued) = tls {
            issued.write(&own, "tls").map_err(failed)?;
            let file = |name: &str| own.join(name).display().to_string();
            http += &format!("  tls:\n    certificate: {}\n    key: {}\n", file("tls.pem"), file("tls.key"));
        }
        let config = own.join("config.yml");
        let storage = format!(
            "storage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\n",
            own.join("data").display()
        );
        let log = "version: 0.1\nlog:\n  level: info\n  accesslog:\n    disabled: true\n";
        fs::write(&config, format!("{log}{storage}{http}{}", auth(login))).map_err(failed)?;

        let mut command = tied("docker-registry");
        command.arg("serve").arg(&config);
        let process = Process::start(name, command, &folder.log(name)).map_err(failed)?;
        let address = process.await_log(Duration::from_secs(30), listening)?;
        Ok(Self { address, _process: process })
    }
}

fn auth(login: &Login<'_>) -> String {
    match login {
        Login::None => String::new(),
        Login::Htpasswd(file) => {
            format!("auth:\n  htpasswd:\n    realm: purser-testbed\n    path: {}\n", file.display())
        }
        Login::Token { realm, bundle } => format!(
            "auth:\n  token:\n    realm: {realm}\n    service: {service}\n    issuer: {issuer}\n    \
             rootcertbundle: {}\n",
            bundle.display(),
            service = crate::token_server::SERVICE,
            issuer = crate::token_server::ISSUER,
        ),
    }
}

/// `… msg="listening on 127.0.0.1:43289" …`, with `, tls` after the port over TLS.
fn listening(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("listening on ")?;
    let end = rest.find(['"', ',', ' ']).unwrap_or(rest.len());
    Some(rest[..end].to_owned())
}

/// Writes the htpasswd file (bcrypt) of the users whose passwords fit into bcrypt.
pub(crate) fn write_htpasswd(folder: &Folder, users: &[User]) -> Result<PathBuf, String> {
    let file = folder.path().join("htpasswd");
    let mut lines = String::new();
    for user in users.iter().filter(|user| !user.kind.is_long()) {
        lines += &bcrypt_line(user)?;
    }
    fs::write(&file, lines).map_err(|error| error.to_string())?;
    Ok(file)
}

/// By standard input: the passwords stay out of the process list.
fn bcrypt_line(user: &User) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("htpasswd: {error}");
    let mut htpasswd = Command::new("htpasswd")
        .args(["-Bni", &user.username])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    if let Some(mut input) = htpasswd.stdin.take() {
        input.write_all(user.password.as_bytes()).map_err(failed)?;
    }
    let output = htpasswd.wait_with_output().map_err(failed)?;
    let line = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !output.status.success() || !line.contains(":$2") {
        return Err(format!("htpasswd refused the password of {}", user.username));
    }
    Ok(line + "\n")
}
