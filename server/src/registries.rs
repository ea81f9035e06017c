//! Registries as the control plane asks them itself: to test, and to look into them. An organization takes half of what
//! may be asked at once and no more, so that registries of one that answer late or never leave room for
//! another's.
//!
//! It is counted in memory: several control planes count each for itself.

use std::time::Duration;

use purser_proto_schema::ids::OrganizationId;
use purser_registry_client::{
    Busy, Credentials, MAX_AT_ONCE, RegistryClient, ScopeProbe, Session, Target, TestError, TestOutcome,
};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout},
};

use crate::shares::Shares;

/// The client, and who may ask how much with it.
#[derive(Debug)]
pub struct Registries {
    client: RegistryClient,
    shares: Shares<OrganizationId>,
}

/// An organization's place among what is asked, given back when this is dropped.
#[derive(Debug)]
pub struct Place(#[allow(dead_code, reason = "it is held, and not looked at")] OwnedSemaphorePermit);

impl Registries {
    /// So many are asked at once, at most [`MAX_AT_ONCE`].
    pub fn new(client: RegistryClient, at_once: usize) -> Self {
        let shares = Shares::of(at_once.min(MAX_AT_ONCE) / 2);
        Self { client: client.at_most(at_once), shares }
    }

    /// As [`RegistryClient::test`], for an organization.
    ///
    /// # Errors
    /// As there; [`Busy`] also where others of the organization take its places.
    pub async fn test(
        &self,
        organization: &OrganizationId,
        target: &Target,
        credentials: Option<&Credentials>,
        scope: Option<&ScopeProbe>,
        deadline: Duration,
    ) -> Result<TestOutcome, TestError> {
        let (_place, left) = self.place(organization, deadline).await?;
        self.client.test(target, credentials, scope, left).await
    }

    /// As [`RegistryClient::open`], for an organization, whose place is to be kept as long as the session.
    ///
    /// # Errors
    /// As there; [`Busy`] also where others of the organization take its places.
    pub async fn open<'a>(
        &'a self,
        organization: &OrganizationId,
        target: &'a Target,
        credentials: Option<&'a Credentials>,
        deadline: Duration,
    ) -> Result<(Session<'a>, Place), Busy> {
        let (place, left) = self.place(organization, deadline).await?;
        Ok((self.client.open(target, credentials, left).await?, place))
    }

    /// Waits for a third of the time, and says what is left of it: half of that the client waits for its own places, and
    /// a third is left to ask in.
    async fn place(
        &self,
        organization: &OrganizationId,
        deadline: Duration,
    ) -> Result<(Place, Duration), Busy> {
        let begun = Instant::now();
        match timeout(deadline / 3, self.shares.share(organization).acquire_owned()).await {
            Ok(Ok(permit)) => Ok((Place(permit), deadline.saturating_sub(begun.elapsed()))),
            Ok(Err(_)) | Err(_) => Err(Busy),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use purser_registry_client::{EgressPolicy, RegistryAddress};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
        task::JoinSet,
    };

    use super::*;

    const SHORT: Duration = Duration::from_millis(200);
    const LONG: Duration = Duration::from_secs(60);

    fn at(address: SocketAddr) -> Target {
        Target::new(RegistryAddress::parse(&address.to_string()).unwrap())
    }

    /// One that answers everybody who asks, once.
    async fn open_registry() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut asked, _)) = listener.accept().await {
                let _ = asked.read(&mut [0; 1024]).await;
                let _ = asked
                    .write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}")
                    .await;
            }
        });
        address
    }

    #[tokio::test]
    async fn registries_of_one_organization_that_hang_leave_room_for_anothers() {
        const AT_ONCE: usize = 4;
        let client = RegistryClient::new(EgressPolicy::default().allow_loopback(true), "purser-test");
        let registries = std::sync::Arc::new(Registries::new(client, AT_ONCE));
        let [one, other] = [(); 2].map(|()| OrganizationId::generate());
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut hanging = JoinSet::new();
        for _ in 0..AT_ONCE {
            let (registries, one) = (std::sync::Arc::clone(&registries), one.clone());
            let target = at(silent.local_addr().unwrap());
            hanging.spawn(async move { registries.test(&one, &target, None, None, LONG).await.is_ok() });
        }
        let mut held = Vec::new();
        for _ in 0..AT_ONCE / 2 {
            held.push(silent.accept().await.unwrap());
        }
        let healthy = at(open_registry().await);
        let full = registries.test(&one, &healthy, None, None, SHORT).await;
        assert_eq!(full.err(), Some(TestError::Busy(Busy)));
        assert!(matches!(registries.open(&one, &healthy, None, SHORT).await, Err(Busy)));
        registries.test(&other, &healthy, None, None, LONG).await.unwrap();
        drop(registries.open(&other, &healthy, None, LONG).await.unwrap());
        hanging.shutdown().await;
        registries.test(&one, &healthy, None, None, LONG).await.unwrap();
    }
}
