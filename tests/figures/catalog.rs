//! A large catalog paged to its end by the registry client, beside a program that takes the list whole.
//! Each is a process of its own, for its memory.

use std::{
    process::{ExitCode, Stdio},
    time::Duration,
};

use axum::{
    Router,
    extract::Query,
    http::header::{HeaderMap, LINK},
    routing::get,
};
use purser_registry_client::{EgressPolicy, RegistryAddress, RegistryClient, Target};
use purser_tests::{Client, process};
use serde::{Deserialize, Serialize};

use crate::sample::{Row, print};

const REPOSITORIES: usize = 100_000;
const DEADLINE: Duration = Duration::from_secs(300);

/// Tells this program to be one of the two readers; the registry's address follows.
pub const PAGED: &str = "--paged-catalog";
/// The other.
pub const WHOLE: &str = "--whole-catalog";

/// What a reader tells, as JSON.
#[derive(Serialize, Deserialize)]
struct Report {
    repositories: usize,
    /// KiB.
    idle: u64,
    /// KiB.
    peak: u64,
}

/// Peak memory over idle.
pub async fn paged() -> Row {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.unwrap_or_else(|error| panic!("no port: {error}"));
    let address = listener.local_addr().unwrap_or_else(|error| panic!("no address: {error}")).to_string();
    let registry = Router::new().route("/v2/", get(async || "{}")).route("/v2/_catalog", get(page));
    let serving = tokio::spawn(async move { axum::serve(listener, registry).await });
    let (paged, whole) = (read(PAGED, &address).await, read(WHOLE, &address).await);
    serving.abort();
    let over_idle = |report: &Report| report.peak.saturating_sub(report.idle) as f64 / 1024.0;
    let (paged, whole) = (over_idle(&paged), over_idle(&whole));
    Row {
        figure: "memory over idle to page through 100,000 repositories, beside taking the list whole",
        purser: format!("{paged:.1} MiB"),
        baseline: format!("{whole:.1} MiB"),
        ratio: format!("{:.2}×", paged / whole),
        goal: "≤ 64 MiB",
    }
}

#[derive(Deserialize)]
struct Wanted {
    n: usize,
    last: Option<String>,
}

async fn page(Query(wanted): Query<Wanted>) -> (HeaderMap, String) {
    let name = |number: usize| format!("organization-{}/team/repository-{number:06}", number / 1000);
    let number = |name: &str| name.rsplit_once('-').and_then(|(_, number)| number.parse::<usize>().ok());
    let first = wanted.last.as_deref().and_then(number).map_or(0, |last| last + 1);
    let end = (first + wanted.n).min(REPOSITORIES);
    let mut headers = HeaderMap::new();
    if end < REPOSITORIES {
        let link = format!("</v2/_catalog?n={}&last={}>; rel=\"next\"", wanted.n, name(end - 1));
        let link = link.parse().unwrap_or_else(|error| panic!("no header: {error}"));
        headers.insert(LINK, link);
    }
    let names: Vec<_> = (first..end).map(name).collect();
    (headers, serde_json::json!({"repositories": names}).to_string())
}

async fn read(how: &'static str, address: &str) -> Report {
    let address = address.to_owned();
    let reading = tokio::task::spawn_blocking(move || {
        let mut command = process::tied(std::env::current_exe()?);
        command.args([how, &address]).stdin(Stdio::null()).stdout(Stdio::piped());
        process::spawn(command)?.wait_with_output()
    });
    let output = reading.await.unwrap_or_else(|error| panic!("{error}"));
    let output = output.unwrap_or_else(|error| panic!("no reader: {error}"));
    let report: Report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("the reader failed: {error}, {output:?}"));
    assert_eq!(report.repositories, REPOSITORIES);
    report
}

/// Reads the catalog and tells what it took.
pub fn main(how: &str, address: &str) -> ExitCode {
    let Ok(runtime) = tokio::runtime::Runtime::new() else { return ExitCode::FAILURE };
    let report = runtime.block_on(async {
        let idle = process::resident_kib(std::process::id()).unwrap_or_default();
        let repositories = if how == PAGED { by_pages(address).await } else { at_once(address).await };
        let peak = process::peak_resident_kib(std::process::id()).unwrap_or_default();
        Report { repositories, idle, peak }
    });
    print(&serde_json::json!(report).to_string());
    ExitCode::SUCCESS
}

async fn by_pages(address: &str) -> usize {
    let address = RegistryAddress::parse(address).unwrap_or_else(|error| panic!("{error}"));
    let target = Target::new(address);
    let client = RegistryClient::new(EgressPolicy::default().allow_loopback(true), "purser-figures");
    let session = client.open(&target, None, DEADLINE).await;
    let mut session = session.unwrap_or_else(|error| panic!("{error}"));
    let (mut repositories, mut cursor) = (0, None);
    loop {
        let page = session.catalog(cursor.as_deref(), 100).await.unwrap_or_else(|error| panic!("{error}"));
        repositories += page.items.len();
        cursor = page.next_cursor;
        if cursor.is_none() {
            return repositories;
        }
    }
}

async fn at_once(address: &str) -> usize {
    let client = Client::new(&format!("http://{address}"));
    let answer = client.get(&format!("/v2/_catalog?n={REPOSITORIES}")).await.json();
    answer["repositories"].as_array().map_or(0, Vec::len)
}
