//! The token server of the registry with token authentication, as the Distribution specification
//! describes it: `GET /token` with Basic credentials, `POST /token` in the OAuth2 form.
//!
//! Right passwords get what they ask for (the reader: `pull` only), nobody gets `pull` on
//! `public/*` only, wrong passwords get a 401.

use std::{
    convert::Infallible,
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use chrono::Utc;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use purser_tests::{
    percent,
    testbed::TokenRequest,
    user::{Kind, User},
    wait::random_hex,
};
use rcgen::{CertificateParams, DnType, KeyPair};
use ring::{rand::SystemRandom, signature};
use serde_json::{Value, json};
use tokio::{net::TcpListener, runtime::Runtime};

use crate::{
    auth_proxy::{UNAUTHORIZED, login},
    folder::Folder,
};

/// The `service` that tokens are for.
pub(crate) const SERVICE: &str = "purser-testbed-registry";
/// The `iss` of tokens.
pub(crate) const ISSUER: &str = "purser-testbed-tokens";

/// How long a token is good for, in seconds.
const LIFETIME: i64 = 300;

/// A running token server.
pub(crate) struct TokenServer {
    /// Its URL.
    pub(crate) realm: String,
    /// The certificate that registries check tokens by.
    pub(crate) bundle: PathBuf,
    /// JSON lines of [`TokenRequest`].
    pub(crate) log: PathBuf,
}

struct Issuer {
    users: Arc<[User]>,
    key: signature::EcdsaKeyPair,
    /// The certificate of `key`, as the `x5c` header wants it.
    certificate: String,
    log: Mutex<File>,
}

impl TokenServer {
    pub(crate) fn start(runtime: &Runtime, folder: &Folder, users: Arc<[User]>) -> Result<Self, String> {
        let bundle = folder.path().join("tokens.pem");
        let log = folder.log("token-requests");
        let issuer =
            Arc::new(Issuer::new(users, &bundle, &log).map_err(|error| format!("token server: {error}"))?);
        let bound = runtime.block_on(TcpListener::bind("127.0.0.1:0"));
        let listener = bound.map_err(|error| error.to_string())?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let issuer = issuer.clone();
                let service = service_fn(move |request| {
                    let issuer = issuer.clone();
                    async move { Ok::<_, Infallible>(issuer.answer(request).await) }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Ok(Self { realm: format!("http://{address}/token"), bundle, log })
    }
}

/// What a request asks for, by whichever form.
struct Asked {
    method: Method,
    service: String,
    scopes: Vec<String>,
    /// `Err` holds the name of whom the password did not fit.
    login: Option<Result<User, String>>,
}

impl Issuer {
    fn new(users: Arc<[User]>, bundle: &Path, log: &Path) -> Result<Self, Box<dyn std::error::Error>> {
        let pair = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, ISSUER);
        let certificate = params.self_signed(&pair)?;
        std::fs::write(bundle, certificate.pem())?;
        let algorithm = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
        let key = signature::EcdsaKeyPair::from_pkcs8(algorithm, pair.serialized_der(), &SystemRandom::new())
            .map_err(|error| error.to_string())?;
        let log = Mutex::new(File::create(log)?);
        Ok(Self { users, key, certificate: BASE64_STANDARD.encode(certificate.der()), log })
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if request.uri().path() != "/token" {
            return respond(StatusCode::NOT_FOUND, "{}".into());
        }
        let Some(asked) = self.read(request).await else {
            return respond(StatusCode::METHOD_NOT_ALLOWED, "{}".into());
        };
        let status = match (&asked.login, asked.service.as_str()) {
            (Some(Err(_)), _) => StatusCode::UNAUTHORIZED,
            (_, SERVICE) => StatusCode::OK,
            _ => StatusCode::BAD_REQUEST,
        };
        self.record(&asked, status);
        match status {
            StatusCode::OK => respond(status, self.grant(&asked).to_string()),
            _ => respond(status, UNAUTHORIZED.into()),
        }
    }

    async fn read(&self, request: Request<Incoming>) -> Option<Asked> {
        let method = request.method().clone();
        let by_header = login(request.headers(), &self.users).map(|login| login.cloned());
        let fields = match method {
            Method::GET => percent::pairs(request.uri().query().unwrap_or_default()),
            Method::POST => {
                let body = request.into_body().collect().await.ok()?.to_bytes();
                percent::pairs(&String::from_utf8_lossy(&body))
            }
            _ => return None,
        };
        let all = |name: &'static str| {
            fields.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
        };
        let scopes = all("scope").flat_map(|value| value.split(' ')).filter(|scope| !scope.is_empty());
        let form = all("username").next().map(|name| {
            let password = all("password").next().unwrap_or_default();
            let found = self.users.iter().find(|user| user.username == name && user.password == password);
            found.cloned().ok_or_else(|| name.to_owned())
        });
        Some(Asked {
            service: all("service").next().unwrap_or_default().to_owned(),
            scopes: scopes.map(str::to_owned).collect(),
            login: by_header.or(form),
            method,
        })
    }

    fn record(&self, asked: &Asked, status: StatusCode) {
        let username = asked.login.as_ref().map(|login| match login {
            Ok(user) => user.username.clone(),
            Err(name) => name.clone(),
        });
        let line = TokenRequest {
            method: asked.method.to_string(),
            username,
            credentials_sent: asked.login.is_some(),
            scopes: asked.scopes.clone(),
            status: status.as_u16(),
        };
        let mut log = self.log.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let line = serde_json::to_string(&line).expect("a log line can be written as JSON");
        let _ = writeln!(log, "{line}");
    }

    fn grant(&self, asked: &Asked) -> Value {
        let user = asked.login.as_ref().and_then(|login| login.as_ref().ok());
        let access: Vec<_> = asked.scopes.iter().filter_map(|scope| granted(scope, user)).collect();
        let now = Utc::now().timestamp();
        let claims = json!({
            "iss": ISSUER,
            "sub": user.map_or("", |user| &user.username),
            "aud": SERVICE,
            "iat": now,
            "nbf": now - 10,
            "exp": now + LIFETIME,
            "jti": random_hex(8),
            "access": access,
        });
        let token = self.sign(&claims);
        json!({
            "token": token,
            "access_token": token,
            "expires_in": LIFETIME,
            "issued_at": Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
        })
    }

    fn sign(&self, claims: &Value) -> String {
        let header = json!({"typ": "JWT", "alg": "ES256", "x5c": [self.certificate]});
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(claims));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).expect("a key can sign");
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }
}

/// The entry of a token's `access` for one `type:name:actions`, `None` when nothing is granted.
fn granted(scope: &str, user: Option<&User>) -> Option<Value> {
    // A name may hold a colon (a registry's port); type and actions never do.
    let (kind, rest) = scope.split_once(':')?;
    let (name, actions) = rest.rsplit_once(':')?;
    let may = |action: &&str| match user {
        Some(user) => user.kind != Kind::Reader || *action == "pull",
        None => kind == "repository" && name.starts_with("public/") && *action == "pull",
    };
    let actions: Vec<_> = actions.split(',').filter(may).collect();
    (!actions.is_empty()).then(|| json!({"type": kind, "name": name, "actions": actions}))
}

fn respond(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .expect("a constant response is well-formed")
}
