//! What Docker Engines and registries say, and what it means.

use std::time::Duration;

use super::DiagnosisCode as Code;
use super::{Diagnosis, presentable};

/// Classifies a message of the Docker Engine (or the text of a registry's error) by what it says, since the HTTP status
/// says little: the Engine answers 500 for most refusals of a registry. Letter case doesn't matter.
///
/// Never fails: an unknown message is [`DiagnosisCode::Other`](Code::Other) and speaks for itself.
pub fn classify_engine_message(message: &str) -> Diagnosis {
    let text = presentable(message);
    match recognise(&text) {
        Some(known) => {
            let diagnosis =
                Diagnosis::new(known.code, known.message, known.advice).with_engine_message(&text);
            if known.passes { diagnosis.passing_after(Duration::ZERO) } else { diagnosis }
        }
        None if text.is_empty() => Diagnosis::new(Code::Other, "it failed without saying why", ""),
        None => Diagnosis::new(Code::Other, &text, "").with_engine_message(&text),
    }
}

/// The cause that `text` names, if it is a known one.
pub(crate) fn recognise(text: &str) -> Option<&'static Cause> {
    let text = text.to_lowercase();
    CAUSES.iter().find(|cause| {
        cause.any.iter().any(|all| all.iter().all(|fragment| text.contains(fragment)))
            || cause.whole.contains(&&*text)
    })
}

/// A known cause.
pub(crate) struct Cause {
    pub(crate) code: Code,
    /// Alternatives; in each, all fragments (lower case) must occur.
    any: &'static [&'static [&'static str]],
    /// Messages that say so little that only the whole text counts.
    whole: &'static [&'static str],
    pub(crate) message: &'static str,
    pub(crate) advice: &'static str,
    /// Whether it may pass by itself although its code does not say so.
    passes: bool,
}

const fn cause(
    code: Code,
    any: &'static [&'static [&'static str]],
    message: &'static str,
    advice: &'static str,
) -> Cause {
    Cause { code, any, whole: &[], message, advice, passes: false }
}

/// The first that matches counts, so what is specific stands before what is general.
static CAUSES: &[Cause] = &[
    // The Engine itself.
    cause(
        Code::EngineError,
        &[&["cannot connect to the docker daemon"], &["permission denied while trying to connect"]],
        "the Docker Engine of that host doesn't answer",
        "Start the Engine there, and let the agent's user reach its socket.",
    ),
    cause(
        Code::EngineError,
        &[&["client version", "is too old"]],
        "the Docker Engine refuses the API version that was spoken",
        "Engine 29 wants API 1.44 or newer; update the agent.",
    ),
    cause(
        Code::EngineError,
        &[&["no space left on device"]],
        "the host's disk is full",
        "Prune images and build cache on that host, then try again.",
    ),
    // Limits, before `unauthorized` and `denied`, which such messages mention as well.
    cause(
        Code::RateLimited,
        &[
            &["toomanyrequests"],
            &["pull rate limit"],
            &["too many requests"],
            &["error parsing http 429 response body"],
        ],
        "the registry's rate limit is used up",
        "Use credentials, or wait as long as the registry says (Retry-After).",
    ),
    // Token servers, before the words that such messages quote.
    cause(
        Code::Other,
        &[
            &["did not include a token in the response"],
            &["unable to decode token response", "invalid character"],
            &["unable to decode token response", "cannot unmarshal"],
            &["unable to decode token response: eof"],
            &["invalid header field value for", "authorization"],
        ],
        "the token server answered without a token that can be used",
        "Check the registry's token settings (realm), and the proxies on the way.",
    ),
    // Credentials that were right once.
    cause(
        Code::TokenExpired,
        &[&["personal access token is expired"], &["access token", "expired"]],
        "the access token has expired",
        "Create a new access token and enter it; public images can be pulled without one.",
    ),
    cause(
        Code::TokenExpired,
        &[&["token has expired"], &["failed with status: 400"]],
        "the registry's login token has expired or was cut on the way",
        "Amazon ECR's passwords last 12 hours and hold for one region: mint a new one, without a trailing newline.",
    ),
    // Credentials that are too weak.
    cause(
        Code::InsufficientScope,
        &[&["insufficient_scope"], &["insufficient scope"]],
        "the credentials are not allowed to do this",
        "Widen the token's scope (pushing needs read and write) and check the repository's name.",
    ),
    // Credentials that are wrong or were not sent.
    cause(
        Code::Unauthorized,
        &[&["no basic auth credentials"]],
        "no credentials reached the registry",
        "The entry's host must be the image's host, port included.",
    ),
    cause(
        Code::Unauthorized,
        &[
            &["incorrect username or password"],
            &["bad_credential"],
            &["could not find robot"],
            &["denied: denied"],
        ],
        "the registry doesn't accept this user name and password",
        "Re-enter them; many registries, Docker Hub among them, want an access token in place of the password.",
    ),
    cause(
        Code::Forbidden,
        &[&["error parsing http 403 response body"]],
        "something in front of the registry refused the request",
        "A proxy or web application firewall answered with a page of its own; let it pass the registry's paths.",
    ),
    cause(
        Code::Forbidden,
        &[&["access forbidden"]],
        "the registry forbids this",
        "With GitLab: the token needs read_registry (and write_registry to push), and with two-factor login only tokens work.",
    ),
    cause(
        Code::Forbidden,
        &[&["pull access denied"]],
        "the repository doesn't exist, or these credentials may not read it",
        "Check the name and the namespace, and that the credentials may read this repository.",
    ),
    cause(
        Code::Forbidden,
        &[&["requested access to the resource is denied"]],
        "these credentials have no right to this repository",
        "Check the namespace, which must be one that the user may write to, and that the token may push.",
    ),
    // TLS.
    cause(
        Code::TlsExpired,
        &[&["certificate has expired"], &["is not yet valid"]],
        "the registry's certificate has expired or isn't valid yet",
        "Renew the certificate, and check the clock of that host.",
    ),
    cause(
        Code::TlsUnknownAuthority,
        &[&["unknown authority"], &["self-signed certificate"], &["self signed certificate"]],
        "the registry's certificate was issued by an authority that isn't trusted",
        "Enter the authority's certificate; a Docker host needs it in /etc/docker/certs.d/HOST/ca.crt.",
    ),
    cause(
        Code::TlsName,
        &[
            &["x509", "valid for", "not"],
            &["x509", "cannot validate certificate for"],
            &["x509", "common name"],
        ],
        "the registry's certificate is for another name",
        "Use the name that the certificate is for, or have one issued for this name.",
    ),
    cause(
        Code::HttpOnHttps,
        &[&["server gave http response to https client"]],
        "the registry speaks plain HTTP, not TLS",
        "Put TLS in front of it, or list it under insecure-registries in that host's daemon.json (Podman: insecure = true in \
         registries.conf).",
    ),
    // The network.
    cause(
        Code::Dns,
        &[
            &["no such host"],
            &["temporary failure in name resolution"],
            &["server misbehaving"],
            &["lookup ", "i/o timeout"],
        ],
        "the registry's name can't be resolved there",
        "Check the name, and the DNS settings of that very host.",
    ),
    cause(
        Code::Connect,
        &[&["connection refused"], &["no route to host"], &["network is unreachable"]],
        "nothing answers at the registry's address",
        "Check that the registry is up, and its port.",
    ),
    cause(
        Code::Timeout,
        &[&["tls handshake timeout"]],
        "the TLS handshake took too long",
        "Look for a proxy, an overloaded registry, or an MTU that is too large for the way there.",
    ),
    cause(
        Code::Timeout,
        &[&["i/o timeout"], &["client.timeout exceeded"], &["context deadline exceeded"]],
        "the registry or its token server didn't answer in time",
        "Look for a firewall, and check that this host can reach the token server as well.",
    ),
    // What is asked for.
    cause(
        Code::NotFound,
        &[
            &["no matching manifest for"],
            &["no match for platform"],
            &["no image found in", "for architecture"],
        ],
        "the image doesn't exist for this platform",
        "Choose a platform that the image was built for.",
    ),
    cause(
        Code::NotFound,
        &[&["manifest unknown"], &["manifest for", "not found"]],
        "the tag or digest doesn't exist in this repository",
        "List the repository's tags.",
    ),
    cause(
        Code::NotFound,
        &[&["tag does not exist"], &["image not known"]],
        "the image to push doesn't exist on that host",
        "Build or tag it there first.",
    ),
    cause(
        Code::NotFound,
        &[&["name unknown"], &["name_unknown"], &["repository", "not found"]],
        "the repository doesn't exist",
        "Create the repository or project first; Amazon ECR, Artifact Registry and Harbor don't create it by a push.",
    ),
    cause(
        Code::Other,
        &[&["must be lowercase"], &["must be lower case"]],
        "the repository's name must be lower case",
        "Lower-case the path.",
    ),
    cause(
        Code::Other,
        &[&["invalid reference format"]],
        "that is not an image reference",
        "Write host/namespace/name:tag, without https://.",
    ),
    cause(
        Code::Other,
        &[&["schema 1 support has been removed"]],
        "the image has a format that Docker no longer reads",
        "Build and push it again with a current Docker.",
    ),
    cause(
        Code::Other,
        &[&["unsupported media type"]],
        "that is an OCI artifact, not an image",
        "Check the name; charts and signatures can't be pulled as images.",
    ),
    cause(
        Code::Other,
        &[&["request entity too large"]],
        "a proxy in front of the registry refuses uploads of this size",
        "Raise its body limit (nginx: client_max_body_size 0).",
    ),
    cause(
        Code::Other,
        &[&["blob upload unknown"], &["blob_upload_unknown"]],
        "the registry forgot the upload in the middle",
        "With several replicas behind a load balancer, give them shared storage and one shared secret, or sticky sessions.",
    ),
    // Said of many causes, so last.
    cause(
        Code::Unauthorized,
        &[&["authentication required"], &["unauthorized"], &["failed with status: 401"]],
        "the registry refused the credentials, or got none",
        "Re-enter user name and password, and check that the entry's host is the image's host.",
    ),
    Cause {
        code: Code::Forbidden,
        any: &[&["denied: "], &["403 forbidden"], &["failed with status: 403"]],
        // All that is left of a refused HEAD, whose body nobody sees.
        whole: &["denied", "error response from daemon: denied", "error from registry: denied"],
        message: "the registry refused this",
        advice: "Check the name and the rights of these credentials.",
        passes: false,
    },
    Cause {
        code: Code::Other,
        any: &[
            &["failed with status: 5"],
            &["unexpected http status: 5"],
            &["unexpected status", ": 50"],
            &["error parsing http 50"],
        ],
        whole: &[],
        message: "the registry or its token server failed",
        advice: "The registry or a proxy in front of it has a fault; look at its log, and try again.",
        passes: true,
    },
    cause(
        Code::NotARegistry,
        &[
            &["failed with status: 404"],
            &["looking for beginning of value"],
            &["malformed http"],
            &["stopped after 10 redirects"],
        ],
        "what answers there is not a registry",
        "Check host and port.",
    ),
    Cause {
        code: Code::Connect,
        any: &[&["connection reset"], &["unexpected eof"], &[": eof"], &["broken pipe"]],
        whole: &["eof"],
        message: "the connection was cut",
        advice: "Try again; if it keeps happening, look at the proxies on the way.",
        passes: true,
    },
    cause(
        Code::Other,
        &[&["unsupported"]],
        "the registry doesn't support this operation",
        "It may be a read-only mirror; push to the registry behind it.",
    ),
];

#[cfg(test)]
mod tests;
