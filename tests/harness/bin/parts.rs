//! All shared parts, started together.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use purser_tests::{
    certificate::{Authority, Validity},
    testbed::{Registries, Testbed},
    user::User,
};
use tokio::runtime::Runtime;

use crate::{
    auth_proxy,
    engine::{ByTls, RunningEngine},
    folder::Folder,
    lifeline,
    postgres::Cluster,
    registry::{Login, RunningRegistry, write_htpasswd},
    token_server::TokenServer,
};

/// Everything that runs; ends on drop.
pub(crate) struct Parts {
    file: PathBuf,
    // Held for their Drop.
    _engines: Vec<RunningEngine>,
    _registries: Vec<RunningRegistry>,
    _cluster: Cluster,
}

impl Parts {
    /// Starts everything in parallel and writes the addresses down. The servers that are part of
    /// this process run on `runtime`.
    pub(crate) fn start(runtime: &Runtime, folder: &Folder) -> Result<Self, String> {
        let users: Arc<[User]> = User::one_of_each_kind().into();
        let path = folder.path();
        lifeline::start(runtime, &path.join("lifeline.sock"))?;
        let tokens = TokenServer::start(runtime, folder, users.clone())?;
        let authority = Authority::new("purser testbed authority");
        let htpasswd = write_htpasswd(folder, &users)?;
        let by_tls = ByTls::prepare(folder, &authority)?;

        let (engines, cluster, registries) = thread::scope(|scope| {
            let a = scope.spawn(|| RunningEngine::start(folder, "host-a", None));
            let b = scope.spawn(|| RunningEngine::start(folder, "host-b", Some(&by_tls)));
            let podman = scope.spawn(|| RunningEngine::start_podman(folder, "podman"));
            let cluster = scope.spawn(|| Cluster::start(folder));
            let registries = start_registries(folder, &htpasswd, &tokens, &authority);
            // Each is joined before any failure is passed on: what did start has to end.
            let (a, b, podman, cluster) = (joined(a), joined(b), joined(podman), joined(cluster));
            Ok::<_, String>((vec![a?, b?, podman?], cluster?, registries?))
        })?;

        let [basic, open, token, tls] = &registries;
        let bed = Testbed {
            pid: std::process::id(),
            folder: path.into(),
            lifeline: path.join("lifeline.sock"),
            engines: engines.iter().map(|engine| engine.address.clone()).collect(),
            docker_by_tls: by_tls.address.clone(),
            docker_certificates: by_tls.folder.clone(),
            registries: Registries {
                basic: basic.address.clone(),
                open: open.address.clone(),
                token: token.address.clone(),
                long: auth_proxy::start(runtime, open.address.clone(), users.clone())?,
                tls: tls.address.clone(),
                realm: tokens.realm.clone(),
            },
            users: users.to_vec(),
            token_log: tokens.log.clone(),
            ca_certificate: authority.pem(),
            postgres: cluster.url.clone(),
        };
        let file = write(path, &bed)?;
        Ok(Self { file, _engines: engines, _registries: registries.into(), _cluster: cluster })
    }

    /// The file with the addresses.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }
}

fn start_registries(
    folder: &Folder,
    htpasswd: &Path,
    tokens: &TokenServer,
    authority: &Authority,
) -> Result<[RunningRegistry; 4], String> {
    let certificate = authority.issue(&["127.0.0.1"], Validity::Current);
    let by_token = Login::Token { realm: &tokens.realm, bundle: &tokens.bundle };
    Ok([
        RunningRegistry::start(folder, "registry-basic", &Login::Htpasswd(htpasswd), None)?,
        RunningRegistry::start(folder, "registry-open", &Login::None, None)?,
        RunningRegistry::start(folder, "registry-token", &by_token, None)?,
        RunningRegistry::start(folder, "registry-tls", &Login::Htpasswd(htpasswd), Some(&certificate))?,
    ])
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, Result<T, String>>) -> Result<T, String> {
    thread.join().unwrap_or_else(|_| Err("a part panicked at its start".into()))
}

fn write(folder: &Path, bed: &Testbed) -> Result<PathBuf, String> {
    let file = folder.join("testbed.json");
    let text = serde_json::to_vec_pretty(bed).map_err(|error| error.to_string())?;
    fs::write(&file, text).map_err(|error| error.to_string())?;
    Ok(file)
}
