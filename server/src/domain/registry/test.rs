//! `registry.testRegistry` and `registry.testRegistryById`: does this credential work, seen from there?

use std::{sync::Arc, time::Duration};

use purser_proto_schema::{
    agent::command::{Outcome, TestReport, Verdict},
    error::TestDiagnosis,
    ids::ServerId,
    job::{CredentialSource, JobKind},
    permission::Permission,
    registry::{
        Access, AccessList, LastTest, TestRegistryByIdInput, TestRegistryInput, TestResult, TestedFrom,
    },
    secret::Secret,
    time::Timestamp,
};
use purser_registry_client::{
    Busy, Credentials, Diagnosis, DiagnosisCode, Reference, RegistryKind, ScopeProbe, TestError,
};
use serde_json::json;

use super::{BUSY, fields, open_password};
use crate::{
    app::App,
    dispatch::plan::{self, Plan, PlannedRegistry, Work},
    domain::{
        audit,
        caller::Call,
        job::{self, FanOut, Limits, NewTarget, Request},
        server,
    },
    error::{Error, Issues, Result, chain},
    store::{RegistryRow, ServerRow},
};

/// How long a test may take. A caller is promised a verdict within 15 s, and a busy machine needs time, too.
const DEADLINE: Duration = Duration::from_secs(13);
/// How long the answer waits for an agent, whose own deadline is shorter: one that hangs gets its caller
/// a verdict within 15 s, too.
const PATIENCE: Duration = Duration::from_secs(14);
const STOPPING: Error = Error::Unavailable("the control plane is stopping");
/// What `serverId` may say for the control plane besides being absent.
const CONTROL_PLANE: [&str; 2] = ["", "none"];

/// From where a test runs.
pub(super) enum Site {
    /// From this process.
    ControlPlane,
    /// From a Docker host.
    Server(Arc<ServerRow>),
}

impl Site {
    /// What `serverId` means: absent, null, `""` and `"none"` are the control plane.
    pub(super) async fn choose(app: &App, call: &Call, server_id: Option<&str>) -> Result<Self> {
        let Some(id) = server_id.filter(|id| !CONTROL_PLANE.contains(id)) else {
            return Ok(Self::ControlPlane);
        };
        let id = ServerId::from_received(id.to_owned()).map_err(|rule| Error::field("serverId", rule))?;
        let row = app.store.server_one(call.organization(), &id).await?;
        call.about_server(&id);
        server::require_live(&row)?;
        Ok(Self::Server(row))
    }

    fn tested_from(&self) -> TestedFrom {
        match self {
            Self::ControlPlane => TestedFrom { server_id: None, server_name: "control plane".to_owned() },
            Self::Server(row) => TestedFrom {
                server_id: Some(ServerId::from_stored(row.server_id.clone())),
                server_name: row.name.clone(),
            },
        }
    }
}

/// What to test.
struct Subject<'a> {
    registry: PlannedRegistry,
    host: String,
    /// The stored entry, whose credential the agent is to be given.
    entry: Option<&'a RegistryRow>,
    credentials: Option<(String, Secret)>,
    scope: Option<ScopeProbe>,
    /// Whether the call is to store it: the test is then not all that is asked for.
    is_candidate: bool,
}

impl Subject<'_> {
    /// A warning where the user name can't be right. An entry's is known here even where only the agent is
    /// given its secret.
    fn doubt(&self) -> Option<&'static str> {
        let given = self.credentials.as_ref().map(|(username, _)| username.as_str());
        let username = given.or_else(|| self.entry?.username.as_deref())?;
        RegistryKind::of_host(&self.host).doubts_username(username)
    }
}

/// `registry.testRegistry`
pub async fn test_registry(app: Arc<App>, call: Arc<Call>, input: TestRegistryInput) -> Result<TestResult> {
    let site = Site::choose(&app, &call, input.server_id.as_deref()).await?;
    let mut issues = Issues::default();
    let address = fields::address(&mut issues, &input.registry_url);
    let username = fields::username(&mut issues, input.username.as_deref());
    fields::pair(&mut issues, username.is_some(), input.password.is_some());
    let ca_certificate = fields::ca_certificate(&mut issues, input.ca_certificate.as_deref());
    let realm_allow = fields::realm_allow(&mut issues, input.realm_allow.as_deref());
    let scope = scope(&mut issues, input.repository.as_deref(), input.access.as_ref());
    let Some(address) = issues.into_result(address)? else { return Err(Error::NotFound("Registry")) };
    let subject = Subject {
        registry: PlannedRegistry {
            address: plan::address_text(&address.host, address.plain_http),
            insecure: input.insecure.unwrap_or_default(),
            ca_certificate,
            realm_allow,
        },
        host: address.host,
        entry: None,
        credentials: username.zip(input.password),
        scope,
        is_candidate: false,
    };
    run(&app, &call, &site, subject).await
}

/// `registry.testRegistryById`
pub async fn test_registry_by_id(
    app: Arc<App>,
    call: Arc<Call>,
    input: TestRegistryByIdInput,
) -> Result<TestResult> {
    let row = app.store.registry_one(call.organization(), &input.registry_id).await?;
    call.about_registry(&input.registry_id);
    let site = Site::choose(&app, &call, input.server_id.as_deref()).await?;
    let mut issues = Issues::default();
    let scope = scope(&mut issues, input.repository.as_deref(), input.access.as_ref());
    issues.into_result(())?;
    // A host is given it at its dispatch.
    let credentials = match site {
        Site::ControlPlane => row.username.clone().zip(open_password(&app.vault, call.organization(), &row)?),
        Site::Server(_) => None,
    };
    let subject = Subject {
        registry: plan::planned(&row),
        host: row.registry_host.clone(),
        entry: Some(&row),
        credentials,
        scope,
        is_candidate: false,
    };
    let tested = run(&app, &call, &site, subject).await;
    if let Some(test) = last_test(&site, &tested) {
        let asked = (test.ok && !call.is_audited()).then(|| call.audit_entry(audit::OK));
        let audited = asked.is_some();
        match app.store.registry_record_test(&row, test, asked).await {
            Ok(()) if audited => call.mark_audited(),
            Ok(()) => {}
            // The verdict is what was asked for.
            Err(error) => {
                tracing::error!(registry = row.registry_id, error = %chain(&error), "a test could not be noted");
            }
        }
    }
    tested
}

/// Whether a change asks for a test first, which takes the permission for one. To be asked before anything else: whoever
/// may not is to learn nothing by it, and is noted like a key that may not make the call.
pub(super) fn wanted(app: &App, call: &Call, test: Option<bool>) -> Result<bool> {
    let is_wanted = test.unwrap_or_default();
    if is_wanted && let Err(forbidden) = call.caller.require(Permission::RegistryTest) {
        audit::record_forbidden(app, &call.caller, call.action);
        call.mark_audited();
        return Err(forbidden);
    }
    Ok(is_wanted)
}

/// Tests an entry that is about to be stored. A failed test is the error.
pub(super) async fn candidate(
    app: &App,
    call: &Call,
    site: &Site,
    row: &RegistryRow,
    new_password: Option<&Secret>,
) -> Result<LastTest> {
    let password = match new_password {
        Some(password) => Some(password.clone()),
        None => open_password(&app.vault, call.organization(), row)?,
    };
    let subject = Subject {
        registry: plan::planned(row),
        host: row.registry_host.clone(),
        entry: None,
        credentials: row.username.clone().zip(password),
        scope: None,
        is_candidate: true,
    };
    let tested = run(app, call, site, subject).await;
    let test = last_test(site, &tested);
    tested?;
    Ok(test.unwrap_or(LastTest { at: Timestamp::now(), ok: true, code: None, server_id: None }))
}

/// What is noted of a test; nothing where the registry was never asked.
fn last_test(site: &Site, tested: &Result<TestResult>) -> Option<LastTest> {
    let (ok, code) = match tested {
        Ok(_) => (true, None),
        Err(Error::TestFailed(failed)) => (false, Some(failed.diagnosis.code.as_str().to_owned())),
        Err(_) => return None,
    };
    Some(LastTest { at: Timestamp::now(), ok, code, server_id: site.tested_from().server_id })
}

fn scope(issues: &mut Issues, repository: Option<&str>, access: Option<&AccessList>) -> Option<ScopeProbe> {
    let Some(repository) = repository else {
        if access.is_some() {
            issues.add("repository", "is needed with access");
        }
        return None;
    };
    // A repository is what may stand between a registry and a tag.
    let parsed = Reference::parse(&format!("registry.invalid/{repository}"));
    if !parsed.is_ok_and(|reference| reference.repository() == repository) {
        issues.add("repository", "must be a repository path such as `myorg/app`, without registry and tag");
    }
    Some(ScopeProbe {
        repository: repository.to_owned(),
        pull: access.is_none_or(|access| access.contains(Access::Pull)),
        push: access.is_some_and(|access| access.contains(Access::Push)),
    })
}

async fn run(app: &App, call: &Call, site: &Site, subject: Subject<'_>) -> Result<TestResult> {
    let host = subject.host.clone();
    let doubt = subject.doubt();
    let (tested, from_host) = match site {
        Site::ControlPlane => (app.tests.take(from_here(app, call, subject)).await, false),
        Site::Server(server) => (from_host(app, call, server, subject).await, true),
    };
    match &tested {
        Ok(_) => app.metrics.tested(from_host, None),
        Err(Error::TestFailed(failed) | Error::ServerOffline(failed)) => {
            app.metrics.tested(from_host, Some(failed.diagnosis.code.as_str()));
        }
        // Nobody was asked.
        Err(_) => {}
    }
    let mut report = tested?;
    report.warnings.extend(doubt.map(ToOwned::to_owned));
    Ok(TestResult {
        success: true,
        tested_from: site.tested_from(),
        credentials: report.credentials,
        // An earlier agent doesn't say.
        kind: if report.kind == RegistryKind::Other { RegistryKind::of_host(&host) } else { report.kind },
        registry_host: host,
        auth: report.auth,
        access: report.access,
        steps: report.steps,
        warnings: report.warnings,
    })
}

async fn from_here(app: &App, call: &Call, subject: Subject<'_>) -> Result<TestReport> {
    let target = subject.registry.target()?;
    let credentials = subject
        .credentials
        .map(|(username, password)| Credentials { username, password: password.into_inner() });
    let (organization, scope) = (call.organization(), subject.scope.as_ref());
    let test = app.registries.test(organization, &target, credentials.as_ref(), scope, DEADLINE);
    match app.unattended.ask(test).await.ok_or(STOPPING)? {
        Ok(outcome) => Ok(TestReport {
            auth: outcome.auth,
            credentials: outcome.credentials,
            kind: outcome.kind,
            access: outcome.access,
            steps: outcome.steps,
            warnings: outcome.warnings,
        }),
        Err(TestError::Busy(Busy)) => Err(BUSY),
        Err(TestError::Failed(failure)) => Err(Error::TestFailed(Box::new(TestDiagnosis {
            diagnosis: failure.diagnosis,
            steps: failure.steps,
        }))),
    }
}

/// The one road: a job with one target, and somebody waiting for it.
async fn from_host(app: &App, call: &Call, server: &ServerRow, subject: Subject<'_>) -> Result<TestReport> {
    let server_id = ServerId::from_stored(server.server_id.clone());
    if !app.dispatch.is_online(server) {
        return Err(plan::offline(&server.name));
    }
    let with_entry = subject.entry.is_some_and(|entry| entry.sealed_password.is_some());
    let credentials = match (&subject.credentials, with_entry) {
        (_, true) => CredentialSource::Entry,
        (Some(_), false) => CredentialSource::OneTime,
        (None, false) => CredentialSource::Anonymous,
    };
    let request = Request {
        kind: JobKind::TestRegistry,
        asked: json!({"registryHost": subject.host, "serverId": server_id}),
        // Somebody waits, so it has no longer for anything than for all.
        limits: Limits { queue: DEADLINE, stall: DEADLINE, run: DEADLINE },
        fan_out: FanOut::default(),
        goes_on: subject.is_candidate,
    };
    let target = NewTarget {
        server_id,
        image: None,
        plan: Plan { work: Work::TestRegistry { scope: subject.scope }, registry: subject.registry },
        registry_id: subject.entry.map(|entry| entry.registry_id.clone()),
        credentials,
        one_time: if with_entry { None } else { subject.credentials },
    };
    let accepted = job::accept(app, call, request, vec![target]).await?;
    match job::wait_for_verdict(app, call, accepted, PATIENCE).await? {
        Some(Verdict::Succeeded { outcome: Outcome::Tested(report), .. }) => Ok(report),
        Some(Verdict::Failed { failure, .. }) => {
            let code = failure.diagnosis.code;
            let diagnosis = Box::new(TestDiagnosis { diagnosis: failure.diagnosis, steps: failure.steps });
            Err(if code == DiagnosisCode::ServerOffline {
                Error::ServerOffline(diagnosis)
            } else {
                Error::TestFailed(diagnosis)
            })
        }
        Some(Verdict::Cancelled) => Err(Error::Conflict("the test was cancelled before it ended".to_owned())),
        None if app.dispatch.is_stopping() => Err(STOPPING),
        Some(Verdict::Succeeded { .. }) | None => Err(no_verdict(&server.name)),
    }
}

/// The host took the test and fell silent: its agent has a shorter deadline of its own, and says so when the registry
/// is what is slow. Nothing is known of the registry, so it is the host that the answer is about.
fn no_verdict(server: &str) -> Error {
    let diagnosis = Diagnosis::new(
        DiagnosisCode::ServerOffline,
        format!(
            "server {server} looked connected, but did not answer in time; nothing is known of the registry"
        ),
        "Try again; if it stays so, look at the log of purser-agent on that host.",
    );
    Error::ServerOffline(Box::new(TestDiagnosis { diagnosis, steps: Vec::new() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a call holds while its registry does not answer. It was 71 KiB once.
    #[test]
    fn a_call_that_waits_for_a_registry_holds_little() {
        fn size<I, F: Future>(_: impl Fn(Arc<App>, Arc<Call>, I) -> F) -> usize {
            size_of::<F>()
        }
        fn within<'a, F: Future>(_: impl Fn(&'a App, &'a Call, Subject<'a>) -> F) -> usize {
            size_of::<F>()
        }
        let sizes = [
            within(from_here),
            size(test_registry),
            size(test_registry_by_id),
            size(super::super::create),
            size(super::super::update),
        ];
        assert!(sizes.iter().all(|size| *size < 10 << 10), "{sizes:?}");
    }

    #[test]
    fn a_user_name_that_the_registry_never_has_is_doubted_given_or_stored() {
        let mut row = RegistryRow::of_host("public.ecr.aws");
        row.username = Some("someone".to_owned());
        let doubt = |row: &RegistryRow, entry: bool, given: Option<&str>| {
            let credentials = given.map(|name| (name.to_owned(), secrecy::SecretString::from("x").into()));
            let (registry, host) = (plan::planned(row), row.registry_host.clone());
            let entry = entry.then_some(row);
            Subject { registry, host, entry, credentials, scope: None, is_candidate: false }.doubt()
        };
        assert!(doubt(&row, true, None).is_some_and(|doubt| doubt.contains("AWS")));
        assert!(doubt(&row, false, Some("admin")).is_some_and(|doubt| doubt.contains("AWS")));
        assert_eq!(doubt(&row, false, Some("AWS")), None);
        assert_eq!(doubt(&row, false, None), None);
    }
}
