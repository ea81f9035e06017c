//! What an agent is told: where its server, its engine and its state are. Reading it from arguments
//! and environment is the binary's part.

use std::{fmt, net::IpAddr, path::PathBuf, str::FromStr};

use http::Uri;
use purser_proto_schema::agent::{PATH, join_token::JoinToken};
use purser_registry_client::EgressPolicy;

use crate::error::AgentError;

/// Everything that an agent is told.
#[derive(Debug)]
pub struct AgentConfig {
    /// The server to dial.
    pub server: ServerUrl,
    /// Needed at the first start, and to join another server later.
    pub join_token: Option<JoinToken>,
    /// Where the host's key is kept. Made when missing.
    pub state_dir: PathBuf,
    /// The host's Docker Engine. It need not run yet.
    pub docker_host: DockerHost,
    /// Which certificates of the server are good enough, where it is dialled by TLS.
    pub trust: Trust,
    /// Which registries' addresses the agent itself dials.
    pub egress: EgressPolicy,
}

/// Which certificates of the server are good enough. What the agent relies on is the pinned key inside
/// the sealed channel: a certificate guards who talks to whom and when, no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Those of the system's authorities; another is taken all the same, and said once.
    System,
    /// Those of the system's authorities and of the ones in this PEM file, and no other.
    File(PathBuf),
    /// Any: the agent is part of the server's own process.
    Pinned,
}

/// The server's address: `https://host[:port][/base]`, or `http://` where the sealed channel is enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl {
    pub(crate) tls: bool,
    /// Without the brackets of an IPv6 address.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// `ws://` or `wss://`, with the channel's path behind the base path.
    pub(crate) channel: Uri,
}

impl FromStr for ServerUrl {
    type Err = AgentError;

    /// Does not repeat the text in its errors: it could hold a password.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = AgentError::ServerUrl;
        let uri: Uri = text
            .trim()
            .parse()
            .map_err(|_| invalid("is no URL; use a form such as https://purser.example.com"))?;
        let tls = match uri.scheme_str() {
            Some("https" | "wss") => true,
            Some("http" | "ws") => false,
            _ => return Err(invalid("must begin with https:// or http://")),
        };
        let authority = uri.authority().ok_or_else(|| invalid("has no host"))?;
        if authority.as_str().contains('@') {
            return Err(invalid("must not hold a user name or password; the join token enrols this host"));
        }
        if uri.query().is_some() {
            return Err(invalid("must not have a query"));
        }
        let port = match authority.port() {
            None if authority.as_str().ends_with(':') => return Err(invalid("has no valid port")),
            None if tls => 443,
            None => 80,
            Some(port) => port.as_u16(),
        };
        let channel = Uri::builder()
            .scheme(if tls { "wss" } else { "ws" })
            .authority(authority.as_str())
            .path_and_query(format!("{}{PATH}", uri.path().trim_end_matches('/')))
            .build()
            .map_err(|_| invalid("is no URL"))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { tls, host, port, channel })
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.channel)
    }
}

/// Where the Docker Engine listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DockerHost {
    /// A Unix socket.
    Unix(PathBuf),
    /// `host:port`, without TLS.
    Tcp(String),
    /// `host:port`, with TLS and a client's certificate.
    Tls {
        /// `host:port`.
        address: String,
        /// The folder of `ca.pem`, `cert.pem` and `key.pem`.
        certificates: PathBuf,
    },
}

impl DockerHost {
    /// The same engine by TLS, where it is a TCP address and Docker's variables ask for it: by
    /// `DOCKER_TLS_VERIFY`, or by `DOCKER_CERT_PATH` alone. The engine's certificate is verified in any
    /// case. The certificates are in `DOCKER_CERT_PATH`, or else in `.docker` below `home`.
    #[must_use]
    pub fn with_tls(self, verify: Option<&str>, cert_path: Option<&str>, home: Option<&str>) -> Self {
        let given = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(PathBuf::from);
        let asked = given(verify).is_some() || given(cert_path).is_some();
        match self {
            Self::Tcp(address) if asked => {
                let at_home = || given(home).unwrap_or_default().join(".docker");
                Self::Tls { address, certificates: given(cert_path).unwrap_or_else(at_home) }
            }
            other => other,
        }
    }

    /// Whether what is said to the engine, registry credentials among it, passes a network in clear.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        let Self::Tcp(address) = self else { return false };
        let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let loopback = host.parse().map_or(host == "localhost", |ip: IpAddr| ip.is_loopback());
        !loopback
    }
}

impl FromStr for DockerHost {
    type Err = AgentError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = AgentError::DockerHost;
        match text.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') => Ok(Self::Unix(PathBuf::from(path))),
            Some(("unix", _)) => {
                Err(invalid("the socket's path must be absolute, such as unix:///var/run/docker.sock"))
            }
            Some(("tcp" | "http", address)) => {
                let address = address.trim_end_matches('/');
                match address.rsplit_once(':') {
                    Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                        Ok(Self::Tcp(address.to_owned()))
                    }
                    _ => Err(invalid("a TCP address needs host and port, such as tcp://127.0.0.1:2375")),
                }
            }
            Some(("https" | "ssh" | "npipe" | "fd", _)) => Err(invalid(
                "this agent speaks unix:// and tcp:// only; tcp:// with TLS where DOCKER_TLS_VERIFY is set",
            )),
            _ => Err(invalid("use a form such as unix:///var/run/docker.sock")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_channel_is_below_the_base_path() {
        for (text, channel, host, port) in [
            ("https://purser.test", "wss://purser.test/agent", "purser.test", 443),
            ("http://127.0.0.1:3000/", "ws://127.0.0.1:3000/agent", "127.0.0.1", 3000),
            ("wss://h.test:8443/base/", "wss://h.test:8443/base/agent", "h.test", 8443),
            ("http://[::1]:3000", "ws://[::1]:3000/agent", "::1", 3000),
        ] {
            let url: ServerUrl = text.parse().unwrap();
            assert_eq!(
                (url.channel.to_string().as_str(), url.host.as_str(), url.port),
                (channel, host, port)
            );
        }
    }

    #[test]
    fn other_servers_are_refused_without_being_repeated() {
        for text in
            ["", "purser.test", "ftp://purser.test", "https://u:hunter2@h.test", "https://h.test/?k=hunter2"]
        {
            let error = text.parse::<ServerUrl>().unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn engines_are_named_as_docker_names_them() {
        let unix = "unix:///var/run/docker.sock".parse::<DockerHost>().unwrap();
        assert_eq!(unix, DockerHost::Unix("/var/run/docker.sock".into()));
        assert_eq!(
            "tcp://127.0.0.1:2375".parse::<DockerHost>().unwrap(),
            DockerHost::Tcp("127.0.0.1:2375".into())
        );
        for text in ["", "/var/run/docker.sock", "unix://docker.sock", "tcp://h", "ssh://h", "https://h:2376"]
        {
            assert!(text.parse::<DockerHost>().is_err(), "{text}");
        }
    }
    #[test]
    fn dockers_variables_ask_for_tls_on_tcp() {
        let tcp = || "tcp://192.0.2.1:2376".parse::<DockerHost>().unwrap();
        let tls = |certificates: &str| DockerHost::Tls {
            address: "192.0.2.1:2376".to_owned(),
            certificates: certificates.into(),
        };
        assert_eq!(tcp().with_tls(Some("1"), Some("/certs"), Some("/root")), tls("/certs"));
        assert_eq!(tcp().with_tls(None, Some("/certs"), Some("/root")), tls("/certs"));
        assert_eq!(tcp().with_tls(Some("1"), None, Some("/root")), tls("/root/.docker"));
        assert_eq!(tcp().with_tls(Some(""), Some(""), Some("/root")), tcp());
        let unix = || "unix:///run/docker.sock".parse::<DockerHost>().unwrap();
        assert_eq!(unix().with_tls(Some("1"), Some("/certs"), None), unix());
    }

    #[test]
    fn only_plain_tcp_to_elsewhere_is_exposed() {
        let exposed = |host: &str| host.parse::<DockerHost>().unwrap().is_exposed();
        for host in ["tcp://192.0.2.1:2375", "tcp://docker.test:2375", "tcp://[2001:db8::1]:2375"] {
            assert!(exposed(host), "{host}");
        }
        for host in
            ["tcp://127.0.0.1:2375", "tcp://localhost:2375", "tcp://[::1]:2375", "unix:///run/docker.sock"]
        {
            assert!(!exposed(host), "{host}");
        }
        let tls = "tcp://192.0.2.1:2376".parse::<DockerHost>().unwrap().with_tls(Some("1"), None, None);
        assert!(!tls.is_exposed());
    }
}
