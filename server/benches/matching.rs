//! Which entry serves an image: reading the reference and choosing among 10,000 entries, beside a
//! naive scan that writes every entry out as text, and beside reading the reference alone.
//!
//! `cargo bench --package purser-server --bench matching`

use std::hint::black_box;

use criterion::Criterion;
use matching::resolve;
use purser_registry_client::{Reference, canonical_registry_host};
use store::{Entries, RegistryRow};

// The resolver and its row are no part of the crate's interface, so they are built in here as they are.
#[path = "../src/store/entries.rs"]
#[allow(dead_code, unused_imports, reason = "as above")]
mod entries;
#[path = "../src/domain/matching.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "only the resolver is measured; cargo sets `test` here, but runs no tests"
)]
mod matching;
#[path = "../src/store/entity/registry.rs"]
mod row;

mod error {
    pub use purser_server::{Error, Result};
}

mod store {
    pub use crate::{entries::Entries, row::Model as RegistryRow};
}

const ENTRIES: usize = 10_000;

/// An organization's entries, and the image that is looked for among them.
struct Case {
    name: &'static str,
    image: String,
    entries: Vec<RegistryRow>,
}

fn cases() -> [Case; 4] {
    [
        // The image's entry is the last of them.
        Case {
            name: "200 hosts",
            image: "registry-199.example.com:5000/team-9999/app:1.2".to_owned(),
            entries: entries(|number| format!("registry-{}.example.com:5000/team-{number}", number % 200)),
        },
        Case {
            name: "one host",
            image: "ghcr.io/organization/team-9999/app:1.2".to_owned(),
            entries: entries(|number| format!("ghcr.io/organization/team-{number}")),
        },
        Case {
            name: "one host, everything fits, by the default",
            image: "app:1.2".to_owned(),
            entries: {
                let mut entries = entries(|_| "ghcr.io/organization".to_owned());
                entries.iter_mut().last().into_iter().for_each(|entry| entry.is_default = true);
                entries
            },
        },
        // Of the longest path every part is looked for.
        Case {
            name: "one host, the deepest image",
            image: format!("ghcr.io/a{}", "/a".repeat(120)),
            entries: entries(|number| match number {
                0 => "ghcr.io/a".to_owned(),
                _ => format!("ghcr.io/a/{number}"),
            }),
        },
    ]
}

/// Entries as the store gives them, of addresses `host/namespace`.
fn entries(address: impl Fn(usize) -> String) -> Vec<RegistryRow> {
    let entry = |number| {
        let url = address(number);
        let (host, namespace) = url.split_once('/').unwrap_or((&url, ""));
        RegistryRow { namespace: Some(namespace.to_owned()), ..RegistryRow::of_host(host) }
    };
    (0..ENTRIES).map(entry).collect()
}

impl RegistryRow {
    /// A host's entry, filled like a stored one.
    fn of_host(host: &str) -> Self {
        Self {
            registry_id: "reg_00000000000000000000000000000000".to_owned(),
            organization_id: "org_00000000000000000000000000000000".to_owned(),
            registry_name: host.to_owned(),
            registry_url: host.to_owned(),
            registry_host: host.to_owned(),
            namespace: None,
            username: Some("someone".to_owned()),
            sealed_password: Some("sealed".repeat(20)),
            credentials_updated_at: None,
            image_prefix: None,
            registry_type: "cloud".to_owned(),
            is_default: false,
            insecure: false,
            ca_certificate: None,
            realm_allow: "[]".to_owned(),
            last_test_at: None,
            last_test_ok: None,
            last_test_code: None,
            last_test_server_id: None,
            created_at: Default::default(),
            updated_at: Default::default(),
        }
    }
}

/// What one would write first: every entry as text, the longest that the image begins with.
fn naive<'a>(entries: &'a Entries, reference: &Reference) -> Option<&'a RegistryRow> {
    let default = entries.iter().find(|entry| entry.is_default);
    let written = |entry: &RegistryRow| {
        let namespace = entry.namespace.as_deref().map(|namespace| format!("{namespace}/"));
        format!("{}/{}", canonical_registry_host(&entry.registry_host), namespace.unwrap_or_default())
    };
    let image = match default {
        Some(entry) if !reference.explicit_registry() => {
            format!("{}{}", written(entry), reference.familiar_name())
        }
        _ => format!("{}/{}", canonical_registry_host(reference.registry()), reference.repository()),
    };
    let fitting = entries.iter().filter(|entry| image.starts_with(&written(entry)));
    fitting.max_by_key(|entry| (written(entry).len(), entry.is_default))
}

fn matching(criterion: &mut Criterion) {
    for case in cases() {
        let entries = Entries::from(case.entries);
        let parse = || Reference::parse(black_box(&case.image)).expect("a reference");
        let chosen = || resolve(&entries, parse(), None).expect("a match").entry;
        let (ours, theirs) = (chosen(), naive(&entries, &parse()));
        assert!(std::ptr::eq(ours.expect("an entry"), theirs.expect("an entry")), "{}", case.name);
        let mut group = criterion.benchmark_group(case.name);
        group.bench_function("reading the reference alone", |bencher| bencher.iter(parse));
        group.bench_function("reading and matching", |bencher| bencher.iter(chosen));
        group.bench_function("naive scan", |bencher| bencher.iter(|| naive(&entries, &parse())));
        group.finish();
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    matching(&mut criterion);
    criterion.final_summary();
}
