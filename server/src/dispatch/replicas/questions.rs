//! Small reads of a host whose agent is connected to another control plane: asked by a row and a word, and
//! answered by whoever holds the session. A word that is not heard is said once more.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use purser_proto_schema::{
    agent::{CALL_DEADLINE, outbound::Outbound},
    error::TestDiagnosis,
    ids::ServerId,
    image::Image,
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

use crate::{
    dispatch::{Shared, lock, plan},
    error::{Error, Result, chain},
    store::{ServerRow, Signal},
};

/// How long an answer is waited for: what the agent has for it, and two words.
const PATIENCE: Duration = CALL_DEADLINE.saturating_add(Duration::from_secs(4));
/// How often the question is repeated and the answer looked for without a word.
const AGAIN: Duration = Duration::from_secs(1);

/// What the holder of a session says.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Answer {
    Images(Vec<Image>),
    Refused(Box<TestDiagnosis>),
}

/// Who waits for which answer.
#[derive(Default)]
pub(super) struct Questions {
    asked: Mutex<HashMap<String, Arc<Notify>>>,
    /// Being answered here, so that a repeated question is not asked of the host twice.
    answering: Mutex<HashMap<String, ()>>,
}

/// A question under way; forgotten when its asker goes away. Its row goes with the answer, or in time.
struct Asked<'a> {
    questions: &'a Questions,
    id: String,
    answered: Arc<Notify>,
}

impl Questions {
    fn ask(&self) -> Asked<'_> {
        let (id, answered) = (uuid::Uuid::now_v7().simple().to_string(), Arc::new(Notify::new()));
        lock(&self.asked).insert(id.clone(), Arc::clone(&answered));
        Asked { questions: self, id, answered }
    }

    pub(super) fn answered(&self, id: &str) {
        if let Some(answered) = lock(&self.asked).get(id) {
            answered.notify_one();
        }
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        lock(&self.questions.asked).remove(&self.id);
    }
}

impl Shared {
    /// The images on a host whose agent another control plane holds.
    pub(in crate::dispatch) async fn images_elsewhere(
        self: &Arc<Self>,
        server: &ServerRow,
    ) -> Result<Vec<Image>> {
        let server_id = ServerId::from_stored(server.server_id.clone());
        let asked = self.replicas.questions.ask();
        self.store.question_ask(&asked.id, &server_id).await?;
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            self.tell(Signal::Question { question_id: asked.id.clone(), server_id: server_id.clone() });
            // Told, or not: the row says.
            let _ = timeout(AGAIN, asked.answered.notified()).await;
            if let Some(text) = self.store.question_take(&asked.id).await? {
                let answer = serde_json::from_str(&text);
                return match answer.map_err(Error::internal("reading another replica's answer"))? {
                    Answer::Images(images) => Ok(images),
                    Answer::Refused(diagnosis) => Err(Error::ServerOffline(diagnosis)),
                };
            }
        }
        self.store.question_drop(&asked.id).await?;
        Err(plan::offline(&server.name))
    }

    /// Answers a question, if this control plane holds the session that it is about.
    pub(super) fn answer(self: &Arc<Self>, question_id: String, server: &ServerId) {
        let Some(session) = self.session(server) else { return };
        if lock(&self.replicas.questions.answering).insert(question_id.clone(), ()).is_some() {
            return;
        }
        let shared = Arc::clone(self);
        self.tasks.spawn(async move {
            let answered = shared.answer_with(&question_id, session.client().as_ref()).await;
            lock(&shared.replicas.questions.answering).remove(&question_id);
            match answered {
                Ok(()) => shared.tell(Signal::Answer { question_id }),
                Err(error) => {
                    tracing::error!(error = %chain(&error), "answering another replica");
                }
            }
        });
    }

    async fn answer_with(&self, question: &str, agent: &Outbound) -> Result<()> {
        if !self.store.question_waits(question).await? {
            return Ok(());
        }
        let answer = match self::images(agent).await {
            Ok(images) => Answer::Images(images),
            Err(Error::ServerOffline(diagnosis)) => Answer::Refused(diagnosis),
            Err(error) => return Err(error),
        };
        let text = serde_json::to_string(&answer).map_err(Error::internal("writing an answer"))?;
        self.store.question_answer(question, text).await
    }
}

/// The images on a host, by its agent.
pub(in crate::dispatch) async fn images(agent: &Outbound) -> Result<Vec<Image>> {
    use purser_proto_schema::agent::calls::AgentCallsClient as _;
    agent.engine_images().await.map_err(|error| plan::engine_refused(&error))
}
