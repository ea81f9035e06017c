use std::{env, fs, path::Path};

use super::*;

const VERSIONS: [Version; 2] = [Version::V11, Version::V10];

#[test]
fn the_committed_declarations_are_those_of_the_table() {
    for version in VERSIONS {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(version.file());
        if env::var_os("PURSER_RENEW").is_some() {
            fs::write(&path, declarations(version)).unwrap();
        }
        assert!(
            fs::read_to_string(&path).unwrap_or_default() == declarations(version),
            "proto-schema/{} is stale; run `PURSER_RENEW=1 cargo test -p purser-proto-schema --lib typescript` to \
             renew it, and look at the diff: it is what callers will see",
            version.file()
        );
    }
}

#[test]
fn every_procedure_and_every_field_is_declared_with_its_docs() {
    let text = declarations(Version::V11);
    for info in procedure::table() {
        let (_, name) = info.name.split_once('.').unwrap();
        assert!(text.contains(&format!("\n    {name}: {:?}<", info.kind)), "{}", info.name);
        for (field, ..) in schemas().fields(info.name) {
            assert!(
                text.contains(&format!("\n  {field}: ")) || text.contains(&format!("\n  {field}?: ")),
                "{field}"
            );
        }
    }
    let undocumented: Vec<_> = text
        .lines()
        .zip(text.lines().skip(1))
        .filter(|(above, line)| {
            let is_named =
                line.starts_with("export type ") || line.starts_with("    ") && line.ends_with(">;");
            let is_documented = above.trim_end().ends_with("*/");
            // Opaque texts with rules of their own are documented where they are used.
            is_named && !is_documented && *line != "export type Labels = { [key: string]: string };"
        })
        .collect();
    assert!(undocumented.is_empty(), "{undocumented:#?}");
}

#[test]
fn no_schema_is_of_a_form_that_is_not_known() {
    for version in VERSIONS {
        let text = declarations(version).strip_prefix(version.preamble()).unwrap();
        // A word of the wire is one, too.
        let text = text.replace("\"unknown\"", "");
        let words =
            |line: &str| line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unknown");
        let line = text.lines().find(|line| !line.contains("* ") && words(line));
        assert_eq!(line, None, "{version:?}");
    }
}

/// A type of the table in the place of one that the preamble needs, or of one that TypeScript has.
#[test]
fn no_name_hides_another() {
    let taken =
        ["AppRouter", "SuperjsonAppRouter", "Tracked", "ErrorShape", "Json", "Router", "Config", "Call"];
    let more =
        ["Query", "Mutation", "Subscription", "Procedures", "Record", "Error", "AsyncIterable", "Procedure"];
    for name in VERSIONS.into_iter().flat_map(reachable) {
        assert!(!taken.contains(&name.as_str()) && !more.contains(&name.as_str()), "{name}");
    }
}

#[test]
fn a_comment_cannot_be_ended_by_what_is_in_it() {
    let mut text = String::new();
    comment(&mut text, 2, "ends here: */ or not");
    assert_eq!(text, "  /** ends here: *\\/ or not */\n");
}

#[test]
fn fields_that_may_be_absent_null_or_both_are_told_apart() {
    let text = declarations(Version::V11);
    for line in [
        // An input: absent, `undefined` and null alike.
        "  username?: string | null | undefined;",
        // Outputs: always there, and never null.
        "  image: string | null;",
        "  nextAttemptAt?: string;",
        "  success: true;",
        "  engine: Engine | null;",
    ] {
        assert!(text.contains(&format!("\n{line}\n")), "{line}");
    }
}
