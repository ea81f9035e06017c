//! The rules of the workspace's shape, held by reading its source: the arrows of the
//! architecture, the size of files, the reasons for exceptions.

use std::fs;

use purser_tests::source::{self, Source};

/// In files below `within`, `name` may be mentioned only in files below one of `except`.
struct Arrow {
    within: &'static str,
    name: &'static str,
    except: &'static [&'static str],
    why: &'static str,
}

const fn only(
    name: &'static str,
    within: &'static str,
    except: &'static [&'static str],
    why: &'static str,
) -> Arrow {
    Arrow { within, name, except, why }
}

const STORE: &str = "the store is the only door to the database";
const ROAD: &str = "doors only translate, and there is one road to a host";
const WIRES: &str = "the wires know nothing of what is behind them";

const ARROWS: &[Arrow] = &[
    only("sea_orm", "", &["server/src/store", "migrations/"], STORE),
    only("sea_orm_migration", "", &["server/src/store", "migrations/"], STORE),
    only("sqlx", "", &["server/src/store", "migrations/"], STORE),
    only("aead", "server/", &["server/src/vault"], "the vault alone opens what is sealed"),
    only("bollard", "", &["agent/src/engine"], "the engine module alone drives engines"),
    only("purser_agent", "", &["server/src/local_agent", "agent/"], "a server knows agents by the protocol"),
    only("purser_server", "", &["server/"], "nothing builds on the server"),
    only("crate::store", "server/src/http", &[], ROAD),
    only("crate::dispatch", "server/src/http", &[], ROAD),
    only("crate::store", "server/src/rpc", &[], ROAD),
    only("crate::dispatch", "server/src/rpc", &[], ROAD),
    only("crate::vault", "server/src/rpc", &[], ROAD),
    only("crate::vault", "server/src/http", &[], ROAD),
    only("crate::http", "server/src/rpc", &[], "arrows point one way"),
    only("axum", "server/src/domain", &[], "rules know no transport"),
    only("http", "server/src/domain", &[], "rules know no transport"),
    only("crate::http", "server/src/domain", &[], "arrows point one way"),
    only("crate::rpc", "server/src/domain", &[], "arrows point one way"),
    only("crate::domain", "server/src/store", &[], "arrows point one way"),
    only("axum", "proto-schema/", &[], WIRES),
    only("axum", "registry-client/", &[], WIRES),
    only("jsonrpsee", "registry-client/", &[], WIRES),
    only("purser_proto_schema", "registry-client/", &[], "arrows point one way"),
];

#[test]
fn arrows_point_one_way() {
    let sources = source::all();
    let mut broken = Vec::new();
    for arrow in ARROWS {
        for source in sources.iter().filter(|source| source.path.starts_with(arrow.within)) {
            let allowed = arrow.except.iter().any(|prefix| source.path.starts_with(prefix));
            if !allowed && source.mentions(arrow.name) {
                broken.push(format!("{} mentions {}: {}", source.path, arrow.name, arrow.why));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

/// A dependency that is not there cannot be used, not even through a re-export.
const ABSENT: &[(&str, &[&str])] = &[
    ("proto-schema", &["sea-orm", "sqlx", "axum", "bollard", "purser-server", "purser-agent"]),
    ("registry-client", &["sea-orm", "sqlx", "axum", "bollard", "jsonrpsee", "purser-proto-schema"]),
    ("migrations", &["sea-orm", "axum", "bollard", "jsonrpsee", "purser-server"]),
    ("server", &["bollard"]),
    ("agent", &["sea-orm", "sea-orm-migration", "sqlx", "axum", "purser-server", "purser-migrations"]),
    ("tests", &["bollard", "sea-orm", "sqlx", "purser-server", "purser-agent"]),
];

#[test]
fn no_crate_depends_on_what_it_must_not_know() {
    let mut broken = Vec::new();
    for (room, absent) in ABSENT {
        let path = source::workspace().join(room).join("Cargo.toml");
        let manifest = fs::read_to_string(&path).unwrap();
        let named: Vec<_> = dependencies(&manifest).collect();
        broken
            .extend(absent.iter().filter(|name| named.contains(name)).map(|name| format!("{room}: {name}")));
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

/// The names in `[dependencies]`, not those of tests.
fn dependencies(manifest: &str) -> impl Iterator<Item = &str> {
    let lines = manifest.lines().skip_while(|line| line.trim() != "[dependencies]").skip(1);
    let lines = lines.take_while(|line| !line.starts_with('['));
    lines.filter_map(|line| line.split(['.', ' ', '=']).next()).filter(|name| !name.is_empty())
}

#[test]
fn files_stay_readable() {
    let long = source::all().into_iter().map(|source| (source.text.lines().count(), source.path));
    let long: Vec<_> = long.filter(|(lines, _)| *lines > 600).collect();
    assert!(long.is_empty(), "above 600 lines: {long:?}");
}

#[test]
fn modules_are_named_for_what_they_hold() {
    let vague = ["util", "utils", "helper", "helpers", "common", "misc"];
    let paths = source::all().into_iter().map(|source| source.path);
    let named = |path: &String| path.trim_end_matches(".rs").split('/').any(|part| vague.contains(&part));
    let found: Vec<_> = paths.filter(named).collect();
    assert!(found.is_empty(), "{found:?}");
}

/// `#[allow(…, reason = "…")]`, or a comment on the same line or the one above.
#[test]
fn every_exception_has_a_reason() {
    let sources = source::all();
    let found: Vec<_> = sources.iter().flat_map(allows_without_reason).collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

fn allows_without_reason(source: &Source) -> Vec<String> {
    let (code, text): (Vec<_>, Vec<_>) = (source.code.lines().collect(), source.text.lines().collect());
    let is_bare = |at: &usize| {
        let attribute = attribute(&code[*at..]);
        let opens = code[*at].contains("[allow(") || code[*at].contains("[expect(");
        let above = at.checked_sub(1).is_some_and(|above| text[above].trim_start().starts_with("//"));
        opens && !attribute.contains("reason") && !above && !text[*at].contains("//")
    };
    let lines = (0..code.len()).filter(is_bare);
    lines.map(|at| format!("{}:{}: {}", source.path, at + 1, text[at].trim())).collect()
}

/// The lines of one attribute, joined.
fn attribute(lines: &[&str]) -> String {
    let end = lines.iter().position(|line| line.contains(']')).unwrap_or_default();
    lines[..=end].concat()
}

#[test]
fn comments_and_literals_are_no_code() {
    let text = r##"
        //! sea_orm is not here
        /* nor /* sqlx */ here */
        use crate::{domain::{job, store}, dispatch};
        fn of<'a>(x: &'a str) -> char { let _ = "bollard \" axum"; let _ = r#"aead"#; '"' }
        fn http_like() { http::get(); }
    "##;
    let source = Source { path: "x.rs".into(), text: text.into(), code: source::code_of(text) };
    for absent in ["sea_orm", "sqlx", "bollard", "axum", "aead", "crate::store"] {
        assert!(!source.mentions(absent), "{absent}");
    }
    for present in ["http", "crate::dispatch", "crate::domain", "http_like"] {
        assert!(source.mentions(present), "{present}");
    }
}
