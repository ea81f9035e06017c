use super::*;
use crate::{RegistryAddress, parse_challenge};

#[test]
fn kinds_are_told_by_their_hosts() {
    let table = [
        ("https://index.docker.io/v1/", RegistryKind::DockerHub),
        ("ghcr.io/myorg", RegistryKind::Ghcr),
        ("registry.gitlab.com", RegistryKind::Gitlab),
        ("gcr.io", RegistryKind::GoogleArtifactRegistry),
        ("eu.gcr.io", RegistryKind::GoogleArtifactRegistry),
        ("europe-west1-docker.pkg.dev/p/r", RegistryKind::GoogleArtifactRegistry),
        ("123456789012.dkr.ecr.eu-central-1.amazonaws.com", RegistryKind::Ecr),
        ("123456789012.dkr.ecr-fips.us-east-1.amazonaws.com", RegistryKind::Ecr),
        ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", RegistryKind::Ecr),
        ("public.ecr.aws", RegistryKind::EcrPublic),
        ("Name.azurecr.io", RegistryKind::Acr),
        ("quay.io:443", RegistryKind::Quay),
        ("registry.digitalocean.com/x", RegistryKind::DigitalOcean),
        ("mycompany.jfrog.io", RegistryKind::Artifactory),
        ("codeberg.org", RegistryKind::Gitea),
        ("registry.example.com", RegistryKind::Other),
        ("ghcr.io.evil.test", RegistryKind::Other),
        ("a.dkr.ecr.evil.test", RegistryKind::Other),
        ("evilgcr.io", RegistryKind::Other),
        ("[::1]:5000", RegistryKind::Other),
    ];
    for (typed, kind) in table {
        assert_eq!(RegistryKind::of_host(&RegistryAddress::parse(typed).unwrap().host), kind, "{typed}");
    }
}

#[test]
fn what_the_host_does_not_tell_the_answer_does() {
    let recognise = |host: &str, field: (&'static str, &str)| {
        let mut headers = HeaderMap::new();
        headers.insert(field.0, field.1.parse().unwrap());
        let challenge = (field.0 == "www-authenticate").then(|| parse_challenge(field.1)).flatten();
        RegistryKind::recognise(host, &headers, challenge.as_ref())
    };
    let bearer = |realm: &str, service: &str| {
        let value = format!(r#"Bearer realm="{realm}",service="{service}""#);
        recognise("r.test", ("www-authenticate", &value))
    };
    assert_eq!(bearer("https://r.test/service/token", "harbor-registry"), RegistryKind::Harbor);
    assert_eq!(bearer("https://gitlab.test/jwt/auth", "container_registry"), RegistryKind::Gitlab);
    assert_eq!(bearer("https://r.test/v2/auth", "r.test"), RegistryKind::Quay);
    assert_eq!(bearer("https://git.test/v2/token", "container_registry"), RegistryKind::Gitea);
    assert_eq!(bearer("https://r.test/v2/token", "https://r.test/v2/token"), RegistryKind::Nexus);
    assert_eq!(bearer("https://r.test/artifactory/api/docker/k/v2/token", "r"), RegistryKind::Artifactory);
    assert_eq!(bearer("https://r.test/auth", "r"), RegistryKind::Other);
    assert_eq!(bearer("not a uri", "r"), RegistryKind::Other);
    assert_eq!(recognise("r.test", ("server", "Nexus/3.70.1 (OSS)")), RegistryKind::Nexus);
    assert_eq!(
        recognise("r.test", ("www-authenticate", r#"Basic realm="Sonatype Nexus Repository Manager""#)),
        RegistryKind::Nexus
    );
    assert_eq!(recognise("r.test", ("x-jfrog-version", "7")), RegistryKind::Artifactory);
    let version = ("docker-distribution-api-version", "registry/2.0");
    assert_eq!(recognise("r.test", version), RegistryKind::Distribution);
    assert_eq!(recognise("ghcr.io", version), RegistryKind::Ghcr);
}

#[test]
fn every_kind_has_a_preset_whose_example_is_an_address_of_that_kind() {
    for preset in presets() {
        assert_eq!(preset.kind.preset(), preset);
        let kind = RegistryKind::of_host(&RegistryAddress::parse(&preset.registry_url).unwrap().host);
        assert!(kind == preset.kind || kind == RegistryKind::Other, "{}", preset.name);
    }
    assert_eq!(RegistryKind::Other.preset().kind, RegistryKind::Distribution);
    let json = serde_json::to_value(RegistryKind::Ecr.preset()).unwrap();
    assert_eq!(
        (&json["kind"], &json["usernameHint"], &json["registryType"]),
        (&"ecr".into(), &"AWS".into(), &"cloud".into())
    );
}

#[test]
fn a_kind_of_a_newer_peer_is_unknown() {
    assert_eq!(serde_json::from_str::<RegistryKind>("\"zot\"").unwrap(), RegistryKind::Other);
    assert_eq!(serde_json::to_value(RegistryKind::Other).unwrap(), "other");
    assert_eq!(serde_json::to_value(RegistryKind::DockerHub).unwrap(), "dockerHub");
}

#[test]
fn refused_logins_are_advised_by_kind_and_user_name() {
    let advice = |kind: RegistryKind, username| {
        kind.advise(Diagnosis::new(Code::Unauthorized, "refused", "general"), Some(username)).advice
    };
    assert!(advice(RegistryKind::Ecr, "bob").contains("user name for Amazon ECR is AWS"));
    assert!(advice(RegistryKind::Ecr, "AWS").contains("12 hours"));
    assert!(advice(RegistryKind::GoogleArtifactRegistry, "bob").contains("_json_key"));
    assert!(advice(RegistryKind::GoogleArtifactRegistry, "oauth2accesstoken").contains("one hour"));
    assert!(advice(RegistryKind::Harbor, "bob").contains("robot$"));
    assert!(advice(RegistryKind::DockerHub, "bob").contains("access token"));
    assert_eq!(advice(RegistryKind::Distribution, "bob"), "general");
    let dns = RegistryKind::Ecr.advise(Diagnosis::new(Code::Dns, "m", "general"), Some("bob"));
    assert_eq!(dns.advice, "general");
}

#[test]
fn a_user_name_that_no_login_of_the_kind_has_is_doubted_and_no_other() {
    use RegistryKind::{Acr, DockerHub, Ecr, EcrPublic, Ghcr, GoogleArtifactRegistry as Google, Other};
    for (kind, username, word) in [
        (Ecr, "admin", "AWS"),
        (Ecr, "aws", "AWS"),
        (EcrPublic, "AKIAEXAMPLE", "AWS"),
        (Google, "someone@example.com", "_json_key"),
        (DockerHub, "someone@example.com", "Docker ID"),
    ] {
        let doubt = kind.doubts_username(username);
        assert!(doubt.is_some_and(|doubt| doubt.contains(word)), "{kind:?} {username}");
    }
    for (kind, username) in [
        (Ecr, "AWS"),
        (EcrPublic, "AWS"),
        (Google, "_json_key"),
        (Google, "_json_key_base64"),
        (Google, "oauth2accesstoken"),
        (DockerHub, "someone"),
        (Ghcr, "someone@example.com"),
        (Acr, "00000000-0000-0000-0000-000000000000"),
        (Other, "AWS"),
    ] {
        assert_eq!(kind.doubts_username(username), None, "{kind:?} {username}");
    }
}
