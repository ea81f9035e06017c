//! From a name to an open TCP connection, through the egress policy.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::address::Host;
use crate::diagnosis::{Diagnosis, DiagnosisCode as Code};
use crate::egress::EgressPolicy;

/// How long one address may take before the next is tried beside it (RFC 8305's delay).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// How many addresses of one name are tried.
const MAX_ADDRESSES: usize = 8;

/// Looks a host up, once, and judges every address. One that is refused refuses the name: who answers with a public and
/// an internal address has something in mind.
pub(crate) async fn resolve(
    policy: &EgressPolicy,
    host: &Host,
    port: u16,
) -> Result<Vec<SocketAddr>, Diagnosis> {
    let mut addresses: Vec<SocketAddr> = match host {
        Host::Ip(ip) => vec![SocketAddr::new(*ip, port)],
        Host::Name(name) => {
            tokio::net::lookup_host((name.as_str(), port)).await.map_err(|_| no_address(host))?.collect()
        }
    };
    if addresses.is_empty() {
        return Err(no_address(host));
    }
    for address in &addresses {
        policy.judge(address.ip()).map_err(|reason| {
            Diagnosis::new(
                Code::EgressDenied,
                format!("{host} is not dialled: {reason}"),
                "An operator can permit the network with --egress-allow; a metadata address only by itself, as /32 or /128.",
            )
        })?;
    }
    addresses.truncate(MAX_ADDRESSES);
    Ok(addresses)
}

fn no_address(host: &Host) -> Diagnosis {
    Diagnosis::new(
        Code::Dns,
        format!("{host} has no address here"),
        "Check the spelling, and the DNS settings of the machine that tested.",
    )
}

/// Connects to the first address that answers; a slow one doesn't hold up the next.
pub(crate) async fn connect(host: &Host, addresses: &[SocketAddr]) -> Result<TcpStream, Diagnosis> {
    let stream = match addresses {
        [address] => TcpStream::connect(address).await,
        addresses => race(addresses).await,
    };
    let failed = |error: io::Error| {
        let port = addresses.first().map_or(0, SocketAddr::port);
        let why = match error.kind() {
            io::ErrorKind::ConnectionRefused => "the connection was refused",
            io::ErrorKind::TimedOut => "nothing answered",
            _ => "no connection could be made",
        };
        Diagnosis::new(
            if error.kind() == io::ErrorKind::TimedOut { Code::Timeout } else { Code::Connect },
            format!("{host}, port {port}: {why}"),
            "Check that the registry is up, its port, and the firewalls on the way.",
        )
    };
    let stream = stream.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    Ok(stream)
}

async fn race(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut attempts = JoinSet::new();
    let mut last_error = io::Error::from(io::ErrorKind::AddrNotAvailable);
    let mut waiting = addresses.iter().copied();
    loop {
        if let Some(address) = waiting.next() {
            attempts.spawn(TcpStream::connect(address));
        }
        let more = waiting.len() > 0;
        tokio::select! {
            ended = attempts.join_next() => match ended {
                Some(Ok(Ok(stream))) => return Ok(stream),
                Some(Ok(Err(error))) => last_error = error,
                Some(Err(error)) => last_error = io::Error::other(error),
                None if more => {}
                None => return Err(last_error),
            },
            () = tokio::time::sleep(NEXT_ADDRESS_AFTER), if more => {}
        }
    }
}
