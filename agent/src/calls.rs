//! What the server may ask of this host: one thin method per call.

use std::{sync::Arc, time::Duration};

use jsonrpsee::{
    core::{RpcResult, async_trait},
    types::ErrorObjectOwned,
};
use purser_proto_schema::{
    agent::{
        calls::{AgentCallsServer, Attempt, StartReply, StartTarget},
        command::Command,
    },
    image::Image,
};
use purser_registry_client::{Diagnosis, DiagnosisCode};
use tracing::Instrument as _;

use crate::{
    commands::Commands,
    engine::Engine,
    targets::{Limits, Targets},
};

/// The code of an answer that is a [`Diagnosis`].
const DIAGNOSIS: i32 = -32_000;

/// More than an answer has around its result, in bytes.
const ENVELOPE: usize = 1024;

/// The method table's state.
pub(crate) struct Calls {
    pub(crate) commands: Arc<Commands>,
    pub(crate) engine: Arc<Engine>,
    pub(crate) targets: Arc<Targets>,
}

#[async_trait]
impl AgentCallsServer for Calls {
    async fn target_start(&self, request: StartTarget) -> RpcResult<StartReply> {
        let StartTarget { attempt, job_id, request_id, deadline_ms, stall_ms, command } = request;
        let limits = Limits {
            deadline: Duration::from_millis(deadline_ms),
            stall: stall_ms.map(Duration::from_millis),
        };
        let (target_id, attempt_number, name) = (attempt.target_id.clone(), attempt.attempt, command.name());
        // An error's level, so that no filter leaves it out of a line that it lets pass.
        let span = tracing::error_span!("target", %job_id, %target_id, attempt = attempt_number, request_id);
        let _here = span.clone().entered();
        let reply = if matches!(command, Command::Unknown) {
            StartReply::Unsupported
        } else {
            let commands = Arc::clone(&self.commands);
            let work = |progress| async move {
                let done = commands.run(command, progress).await;
                let code = done.as_ref().err().map(|failure| failure.diagnosis.code.as_str());
                tracing::info!(command = name, ok = done.is_ok(), code, "target ended");
                done
            };
            self.targets.start(attempt, limits, |progress| work(progress).instrument(span))
        };
        tracing::info!(command = name, reply = reply.name(), "target");
        Ok(reply)
    }

    async fn target_cancel(&self, request: Attempt) -> RpcResult<()> {
        tracing::info!(target_id = %request.target_id, attempt = request.attempt, "cancel");
        self.targets.cancel(&request);
        Ok(())
    }

    async fn engine_images(&self) -> RpcResult<Vec<Image>> {
        let images = self.engine.images().await.map_err(refuse)?;
        // An answer over the channel's limit would end the session.
        let longest = self.targets.agreed().text_bytes as usize;
        let fits = serde_json::to_vec(&images).is_ok_and(|text| text.len() + ENVELOPE <= longest);
        if fits { Ok(images) } else { Err(refuse(too_many(images.len()))) }
    }
}

fn too_many(images: usize) -> Diagnosis {
    Diagnosis::new(
        DiagnosisCode::EngineError,
        format!("the host has {images} images, more than one answer can hold"),
        "Remove images that nothing uses.",
    )
}

fn refuse(diagnosis: Diagnosis) -> ErrorObjectOwned {
    ErrorObjectOwned::owned(DIAGNOSIS, diagnosis.message.clone(), Some(diagnosis))
}
