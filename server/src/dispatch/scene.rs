//! For tests of this room: a dispatch over a database of its own (SQLite, in a temporary folder) with one
//! server. What a session says is played by calling what it would call, or by an [`agent`] that dials.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{TimeDelta, Utc};
use purser_proto_schema::{
    agent::{noise::StaticKey, wire::Ration},
    ids::{JobId, JoinTokenId, OrganizationId, ServerId, TargetId},
    job::JobKind,
};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Dispatch, Name, Session, Shared, Told,
    plan::{Plan, PlannedRegistry, Work},
};
use crate::{
    metrics::Metrics,
    refusals::Refusals,
    secret_hash,
    store::{
        Admission, Admittance, AuditEntry, Claim, Fence, JobRow, NewJob, NewJoinToken, ServerRow, Store,
        TargetRow,
    },
    traces::Traces,
    vault::Vault,
};

pub(super) mod agent;

const JOIN_SECRET: &str = "secret of the join token";

/// Sockets in their handshake at once: a large fleet's.
pub(super) const PLACES: usize = 4_000;

/// A dispatch, its server, and how many targets were made.
pub(super) struct Scene {
    pub(super) shared: Arc<Shared>,
    pub(super) organization: OrganizationId,
    pub(super) server: ServerId,
    /// The agent's.
    key: StaticKey,
    /// What the last reader was told to take.
    pub(super) ration: watch::Sender<Ration>,
    stop: CancellationToken,
    _folder: TempDir,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Scene {
    pub(super) async fn set() -> Self {
        let folder = TempDir::new().unwrap();
        let store = Store::open(None, folder.path()).await.unwrap();
        let vault = Vault::from_new_file(&folder.path().join("master.key")).unwrap();
        let organization = store.organization_first("default").await.unwrap();
        let server = ServerId::generate();
        let row = ServerRow {
            server_id: server.to_string(),
            organization_id: organization.to_string(),
            name: "host".into(),
            description: None,
            labels: "{}".into(),
            agent_key: None,
            agent_version: None,
            engine: None,
            session_epoch: 0,
            last_seen_at: None,
            revoked_at: None,
            holder: None,
            created_at: Utc::now(),
            updated_at: Utc::now(),
            session_history: None,
        };
        let token = NewJoinToken {
            join_token_id: JoinTokenId::generate().into(),
            secret_hash: secret_hash::of_random(JOIN_SECRET),
            expires_at: Utc::now() + TimeDelta::minutes(5),
        };
        let event = AuditEntry::by_nobody(&organization, "test");
        store.server_insert(row, token, &event).await.unwrap();
        let (stop, ration) = (CancellationToken::new(), watch::Sender::new(Ration::Endless));
        let (channel_key, key) = (StaticKey::generate().unwrap(), StaticKey::generate().unwrap());
        let name = Name::new(None);
        let (metrics, tasks) = (Metrics::new().unwrap(), TaskTracker::new());
        let told = Told {
            refusals: Refusals::start(store.clone(), Arc::clone(&metrics), &tasks, stop.clone()),
            traces: Traces::start(None, Arc::clone(&metrics), &tasks, stop.clone()),
            metrics,
        };
        let dispatch = Dispatch::start(store, Arc::new(vault), channel_key, name, told, PLACES, stop.clone())
            .await
            .unwrap();
        Self {
            shared: Arc::clone(&dispatch.shared),
            organization,
            server,
            key,
            ration,
            stop,
            _folder: folder,
        }
    }

    /// An agent is let in: its session is the newest from now on.
    pub(super) async fn session(&self) -> Fence {
        let admission = Admission {
            server_id: &self.server,
            agent_key: &URL_SAFE_NO_PAD.encode(self.key.public()),
            join_secret_hash: Some(&secret_hash::of_random(JOIN_SECRET)),
            agent_version: "0",
            instance: None,
            engine: None,
            request_id: None,
        };
        match self.shared.store.server_admit(admission).await.unwrap() {
            Admittance::Admitted(admitted) => {
                Fence { server_id: self.server.clone(), epoch: admitted.row.session_epoch }
            }
            other => panic!("{other:?}"),
        }
    }

    /// A target as it is accepted.
    pub(super) fn target(&self, kind: &str) -> TargetRow {
        let now = Utc::now();
        TargetRow {
            target_id: TargetId::generate().into(),
            job_id: JobId::generate().into(),
            organization_id: self.organization.to_string(),
            server_id: self.server.to_string(),
            kind: kind.into(),
            image: None,
            plan: self.plan(kind),
            registry_id: None,
            credentials: "anonymous".into(),
            sealed_auth: None,
            status: "queued".into(),
            attempt: 0,
            cancel_requested: false,
            queue_deadline: now + TimeDelta::minutes(15),
            run_limit_ms: 60 * 60 * 1000,
            run_deadline: None,
            finished_at: None,
            verdict: None,
            progress: None,
            not_before: None,
            attempts_before: 0,
            queue_limit_ms: 15 * 60 * 1000,
            stall_limit_ms: 60_000,
            max_parallel: None,
            fail_fast: false,
            request_id: None,
        }
    }

    /// What a target of a kind is to do, without a credential.
    fn plan(&self, kind: &str) -> String {
        let (image, platform) = ("registry.test/image:1".to_owned(), None);
        let work = match kind {
            "testRegistry" => Work::TestRegistry { scope: None },
            "pull" => Work::Pull { image, platform },
            "push" => Work::Push { source: image.clone(), target: image },
            other => panic!("{other}"),
        };
        let address = "registry.test".to_owned();
        let registry =
            PlannedRegistry { address, insecure: false, ca_certificate: None, realm_allow: Vec::new() };
        serde_json::to_string(&Plan { work, registry }).unwrap()
    }

    /// Accepts a job with this one target.
    pub(super) async fn accept(&self, target: TargetRow) {
        assert!(self.accept_by(target, None).await.is_none(), "nobody took it");
    }

    /// Accepts a job with this one target, which a session is to take at once; gives it if it did.
    /// An event of whatever is done.
    pub(super) fn event(&self) -> AuditEntry<'_> {
        AuditEntry::by_nobody(&self.organization, "test")
    }

    pub(super) async fn accept_by(&self, target: TargetRow, taker: Option<&Fence>) -> Option<TargetRow> {
        let job = JobRow {
            job_id: target.job_id.clone(),
            organization_id: self.organization.to_string(),
            kind: target.kind.clone(),
            status: "queued".into(),
            created_by: "nobody".into(),
            request: "{}".into(),
            created_at: Utc::now(),
            started_at: None,
            finished_at: None,
        };
        let asked = AuditEntry { outcome: "accepted", ..self.event() };
        let new = NewJob { job, targets: vec![target] };
        self.shared.store.job_insert(new, vec![asked], taker).await.unwrap().taken
    }

    /// Accepts a job with one target, which the session takes.
    pub(super) async fn given(&self, fence: &Fence, kind: &str) -> TargetRow {
        let target = self.target(kind);
        let wanted = target.job_kind().unwrap();
        self.accept(target).await;
        self.claimed(fence, wanted).await
    }

    /// The session takes the next target of a kind.
    pub(super) async fn claimed(&self, fence: &Fence, kind: JobKind) -> TargetRow {
        match self.shared.store.target_claim(fence, &[kind]).await.unwrap() {
            Claim::Target(target) => *target,
            other => panic!("{other:?}"),
        }
    }

    /// A target as it is now.
    pub(super) async fn now(&self, target: &TargetRow) -> TargetRow {
        let (_, mut targets) = self.shared.store.job_one(&self.organization, &target.job()).await.unwrap();
        targets.remove(0)
    }
}
