//! A command's registry and credential, and what may be done with them.

use purser_proto_schema::agent::command::{Failure, RegistryAccess};
use purser_registry_client::{
    Credentials, Diagnosis, DiagnosisCode, Reference, RegistryAddress, Target, diagnosis::Secrets,
};

use crate::engine::Login;

/// A registry, and as whom. The secret is wiped when this is dropped, at the end of the command.
pub(super) struct Access {
    target: Target,
    credentials: Option<Credentials>,
}

impl Access {
    /// Reads what the server sent.
    pub(super) fn new(access: RegistryAccess) -> Result<Self, Diagnosis> {
        let address = RegistryAddress::parse(&access.address).map_err(|error| {
            Diagnosis::new(DiagnosisCode::Other, error.to_string(), "Correct the registry's URL.")
        })?;
        let credentials = access.credentials.map(|credentials| Credentials {
            username: credentials.username,
            password: credentials.password.into_inner(),
        });
        let target = Target {
            address,
            insecure: access.insecure,
            ca_certificate: access.ca_certificate,
            realm_allow: access.realm_allow,
        };
        Ok(Self { target, credentials })
    }

    /// The registry.
    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// The credential for the agent's own questions.
    pub(super) fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_ref()
    }

    /// As whom.
    pub(super) fn username(&self) -> Option<&str> {
        self.credentials.as_ref().map(|credentials| credentials.username.as_str())
    }

    /// The credential for the engine.
    pub(super) fn login(&self) -> Option<Login<'_>> {
        self.credentials.as_ref().map(|credentials| Login {
            username: &credentials.username,
            password: &credentials.password,
            server_address: self.target.address.engine_server_address(),
        })
    }

    /// Reads an image's name, and makes sure that it is kept at this registry.
    pub(super) fn reference(&self, image: &str) -> Result<Reference, Diagnosis> {
        let reference = Reference::parse(image).map_err(|error| {
            Diagnosis::new(DiagnosisCode::Other, error.to_string(), "Correct the image's name.")
        })?;
        if self.target.address.serves(reference.registry()) {
            return Ok(reference);
        }
        // The server has matched them; a secret is not sent on its word alone.
        Err(Diagnosis::new(
            DiagnosisCode::Forbidden,
            format!(
                "the image is kept at {}, the credential is for {}",
                reference.registry(),
                self.target.address.host
            ),
            "Use the entry of the image's own registry.",
        ))
    }

    /// Takes the secret out of what the other side said: a registry may repeat it.
    pub(super) fn scrub(&self, mut failure: Failure) -> Failure {
        let Some(credentials) = &self.credentials else { return failure };
        let mut secrets = Secrets::default();
        secrets.add_credentials(&credentials.username, &credentials.password);
        let diagnosis = &mut failure.diagnosis;
        if let Some(said) = &mut diagnosis.engine_message {
            let scrubbed = secrets.scrub(said);
            // An unknown message speaks for itself, and then stands in both places.
            if diagnosis.message == *said {
                diagnosis.message.clone_from(&scrubbed);
            }
            *said = scrubbed;
        }
        failure
    }
}

#[cfg(test)]
mod tests {
    use purser_proto_schema::agent::command::ChannelCredentials;
    use purser_registry_client::classify_engine_message;
    use secrecy::SecretString;

    use super::*;

    fn access(address: &str) -> Access {
        let credentials = ChannelCredentials {
            username: "bob".to_owned(),
            password: SecretString::from("correct horse ~>?").into(),
        };
        Access::new(RegistryAccess {
            address: address.to_owned(),
            insecure: false,
            ca_certificate: None,
            realm_allow: Vec::new(),
            credentials: Some(credentials),
        })
        .unwrap()
    }

    #[test]
    fn an_image_of_another_registry_is_refused() {
        let ghcr = access("ghcr.io");
        assert_eq!(ghcr.reference("ghcr.io/o/app:1").unwrap().to_string(), "ghcr.io/o/app:1");
        for other in ["nginx", "ghcr.io.evil.test/o/app", "quay.io/o/app"] {
            assert_eq!(ghcr.reference(other).unwrap_err().code, DiagnosisCode::Forbidden, "{other}");
        }
        assert!(access("docker.io").reference("nginx").is_ok());
    }

    #[test]
    fn an_echoed_secret_is_taken_out() {
        let failure = Failure::from(classify_engine_message("weird: you sent correct horse ~>? to me"));
        let scrubbed = access("ghcr.io").scrub(failure);
        let text = serde_json::to_string(&scrubbed).unwrap();
        assert!(!text.contains("correct horse"), "{text}");
        assert!(text.contains("weird"), "{text}");
    }
}
