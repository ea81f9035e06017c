use super::*;

/// A file as it came: what a shop runs, with all that the specification has.
const SHOP: &str = r#"
name: shop
x-logging: &logging
  logging: {driver: json-file, options: {max-size: 10m}}
x-app: &app
  <<: *logging
  image: "${REGISTRY:-registry.example.com:5000}/shop/app:${VERSION:?choose one}"
  restart: unless-stopped
  environment: &env
    DATABASE_URL: postgres://shop:${DB_PASSWORD:?}@db/shop
    COST: 5$$
services:
  web:
    <<: *app
    ports: ["8080:80", {target: 443, published: "8443"}]
    deploy: {resources: {limits: {cpus: .5}}, replicas: 2}
  worker:
    <<: [*app, *logging]
    platform: linux/arm64
    command: [work, --cost, "$NOT_GIVEN"]
    environment: {<<: *env, ROLE: worker, NAN: .nan}
  db:
    image: postgres:16@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
    healthcheck: {test: [CMD, pg_isready], interval: 10s}
  cache: {image: redis}
  site:
    build: {context: ./site, args: [VERSION]}
  api:
    build: .
    image: ghcr.io/shop/api:$VERSION
  local: {image: shop-local, pull_policy: never}
  made: {image: shop-made, build: ., pull_policy: build}
  adminer: {image: adminer, profiles: [debug, "${EXTRA:-more}"]}
  tunnel: {provider: {type: vpn}}
volumes: {data: {}}
secrets: {key: {file: ./key}}
"#;

fn with(text: &str, profiles: &[&str]) -> Result<Stack, Fault> {
    let set = [("VERSION", "1.2"), ("EMPTY", "")];
    let variables = set.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect();
    let profiles: Vec<_> = profiles.iter().map(|profile| (*profile).to_owned()).collect();
    read(text, &variables, &profiles)
}

/// `service=image` and `service=image on platform`, or `service: why not`.
fn images(text: &str, profiles: &[&str]) -> Vec<String> {
    let stack = with(text, profiles).unwrap();
    let wanted = stack.wanted.iter().map(|wanted| match &wanted.platform {
        None => format!("{}={}", wanted.service, wanted.reference),
        Some(platform) => format!("{}={} on {platform}", wanted.service, wanted.reference),
    });
    let skipped = stack.skipped.iter().map(|skipped| format!("{}: {:?}", skipped.service, skipped.why));
    wanted.chain(skipped).collect()
}

/// The rule that a file breaks, with its place.
#[track_caller]
fn refusal(text: &str) -> String {
    match with(text, &["*"]) {
        Ok(stack) => panic!("accepted: {stack:?}"),
        Err(fault) => Error::from(fault).to_string(),
    }
}

#[test]
fn a_whole_file_comes_to_its_images() {
    let digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    assert_eq!(
        images(SHOP, &[]),
        [
            "api=ghcr.io/shop/api:1.2",
            "cache=docker.io/library/redis:latest",
            &format!("db=docker.io/library/postgres:16@{digest}"),
            "web=registry.example.com:5000/shop/app:1.2",
            "worker=registry.example.com:5000/shop/app:1.2 on linux/arm64",
            "adminer: Profile",
            "local: PullPolicy",
            "made: PullPolicy",
            "site: Build",
            "tunnel: Provider",
        ]
    );
}

#[test]
fn a_service_with_profiles_is_in_when_one_of_them_is_asked_for() {
    let file =
        "services: {a: {image: a}, b: {image: b, profiles: [x, y]}, c: {image: c, profiles: [\"${P:-z}\"]}}";
    let (a, b, c) =
        ("a=docker.io/library/a:latest", "b=docker.io/library/b:latest", "c=docker.io/library/c:latest");
    for (profiles, expected) in [
        (&[][..], [a, "b: Profile", "c: Profile"]),
        (&["y"], [a, b, "c: Profile"]),
        (&["z", "other"], [a, c, "b: Profile"]),
        (&["X"], [a, "b: Profile", "c: Profile"]),
        (&["*"], [a, b, c]),
    ] {
        assert_eq!(images(file, profiles), expected, "{profiles:?}");
    }
    // What is not in needs no variable.
    let file = "services: {a: {image: a}, b: {image: \"b:$NONE\", profiles: [x]}}";
    assert_eq!(images(file, &[]), [a, "b: Profile"]);
    assert!(with(file, &["x"]).is_err());
}

#[test]
fn a_service_has_what_it_extends() {
    let file = "
services:
  base: {image: 'base:1', platform: linux/amd64, profiles: [x]}
  one: {extends: base}
  two: {extends: {service: one}, image: 'two:2'}
  three: {extends: {service: three, file: other.yml}, image: 'three:3'}
";
    assert_eq!(
        images(file, &["x"]),
        [
            "base=docker.io/library/base:1 on linux/amd64",
            "one=docker.io/library/base:1 on linux/amd64",
            "three=docker.io/library/three:3",
            "two=docker.io/library/two:2 on linux/amd64",
        ]
    );
    assert_eq!(images(file, &[])[0], "three=docker.io/library/three:3", "profiles, too");
}

#[test]
fn an_empty_image_is_none() {
    assert_eq!(images("services: {a: {image: \"${EMPTY}\", build: .}}", &[]), ["a: Build"]);
    assert_eq!(images("services: {a: {image: !reset null, build: .}}", &[]), ["a: Build"]);
    assert!(refusal("services: {a: {image: \"${EMPTY}\"}}").contains("image or build"));
}

#[test]
fn what_is_wrong_is_told_with_its_place_and_never_repeated() {
    for (file, expected) in [
        ("hunter2", "line 1, column 1: expected mapping start"),
        ("services: [hunter2]", "line 1, column 11: expected mapping start"),
        ("services:\n  web: hunter2\n", "line 2, column 8: expected mapping start"),
        ("services:\n\tweb: hunter2\n", "line 2, column 2: is no YAML: tabs disallowed"),
        ("services:\n  web:\n    image: \"hunter2\n    build: .\n", "line 4, column 5: is no YAML: "),
        ("services: {web: {image: hunter2]}", "line 1, column 17: is no YAML: mismatched"),
        ("services: {web: {image: @hunter2}}", "line 1, column 25: is no YAML: "),
        ("services:\n  web: {image: [hunter2]}\n", "line 2, column 16: expected string"),
        ("services:\n  web: {image: a, image: hunter2}\n", "line 2, column 19: a key is there twice"),
        ("services:\n  web: *hunter2\n", "line 2, column 8: an alias names no anchor"),
        ("services:\n  web: &hunter2 {image: a, x: *hunter2}\n", "line 2, column 31: an anchor holds itself"),
        ("services: {web: {<<: hunter2}}", "line 1, column 22: `<<` takes a mapping"),
        ("services: {web: {image: a}}\n---\nhunter2: 1\n", "line 3, column 1: a second document"),
        ("services:\n  web:\n    image: a:hunter2!\n", "line 3, column 12: invalid image reference"),
        ("services:\n  web:\n    image: a:${hunter2!}\n", "line 3, column 12: a `$` must begin"),
        ("services:\n  web: {image: a, platform: hunter2}\n", "line 2, column 29: platform must be"),
        ("services:\n  web: {image: a, profiles: hunter2}\n", "line 2, column 29: expected sequence"),
        ("services:\n  web: {command: hunter2}\n", "line 2, column 8: a service must have image or build"),
        ("services:\n  web:\n  hunter2: {image: a}\n", "a service must be a mapping"),
        ("services:\n  hunter2 x: {image: a}\n", "line 2, column 14: a service's name"),
        ("services:\n  web: {extends: hunter2}\n", "line 2, column 18: extends a service that is not"),
        ("services:\n  web: {extends: web}\n", "line 2, column 18: a service extends itself"),
        (
            "services:\n  web: {extends: {file: hunter2, service: x}}\n",
            "line 2, column 8: extends a service of",
        ),
        ("include: [hunter2.yml]\nservices: {web: {image: a}}", "line 1, column 10: includes other files"),
        ("x-hunter2: {}", "has no services"),
        ("services: {}", "has no services"),
    ] {
        let said = refusal(file);
        assert!(said.starts_with("composeFile: ") && said.contains(expected), "{file}: {said}");
        assert!(!said.contains("hunter2"), "{file}: {said}");
    }
}

#[test]
fn a_variable_without_value_is_named_with_its_place() {
    let said = refusal("services:\n  web:\n    image: registry.example.com/app:${NONE:?hunter2}\n");
    assert!(said.contains("line 3, column 12: needs the variable NONE,"), "{said}");
    assert!(!said.contains("hunter2") && !said.contains("registry.example.com"), "{said}");
}

/// Each level is nine of the one before.
fn bomb(levels: usize, of: impl Fn(usize, &str) -> String) -> String {
    (1..=levels).map(|n| of(n, &vec![format!("*a{}", n - 1); 9].join(", "))).collect()
}

#[test]
fn what_grows_without_end_is_refused() {
    let lists = bomb(9, |n, items| format!("x-{n}: &a{n} [{items}]\n"));
    let maps = bomb(30, |n, items| format!("x-{n}: &a{n} {{<<: [{items}]}}\n"));
    let services: String = (0..=MAX_SERVICES).map(|n| format!("  s{n}: {{image: a}}\n")).collect();
    for (name, file, expected) in [
        (
            "lists",
            format!("x-0: &a0 [x]\n{lists}services: {{web: {{image: a, command: *a9}}}}\n"),
            "too large",
        ),
        ("maps", format!("x-0: &a0 {{k: v}}\n{maps}services: {{web: {{image: a, x: *a30}}}}\n"), "too large"),
        ("flow", format!("x-a: {}", "[".repeat(100_000)), "recursion limit"),
        ("block", (0..700).map(|n| format!("{}k:\n", " ".repeat(n))).collect(), "nested too deeply"),
        ("nodes", format!("x-a: [{}]", "1,".repeat(200_000)), "too large"),
        ("services", format!("services:\n{services}"), "more than 500 services"),
    ] {
        let said = refusal(&file);
        assert!(said.contains(expected), "{name}: {said}");
    }
}

#[test]
fn a_large_file_with_one_anchor_for_all_is_taken() {
    let services: String =
        (0..MAX_SERVICES).map(|n| format!("  s{n}: {{<<: *all, image: 'a:{n}', logging: *log}}\n")).collect();
    let file = format!(
        "x-log: &log {{driver: x}}\nx-all: &all {{restart: always, y: [1, 2]}}\nservices:\n{services}"
    );
    assert_eq!(with(&file, &[]).unwrap().wanted.len(), MAX_SERVICES);
}
