//! Where Docker Hub is.

use crate::address::{DOCKER_HUB, RegistryAddress};

/// The two places that Docker Hub consists of here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubEndpoints {
    /// The registry; `docker.io`, which means `registry-1.docker.io`.
    pub registry: RegistryAddress,
    /// The website with the search API; `hub.docker.com`. It never sees credentials.
    pub website: RegistryAddress,
}

impl Default for HubEndpoints {
    fn default() -> Self {
        let at = |host: &str| RegistryAddress { host: host.to_owned(), namespace: None, plain_http: false };
        Self { registry: at(DOCKER_HUB), website: at("hub.docker.com") }
    }
}
