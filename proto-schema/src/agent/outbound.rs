//! Calls to the other side of a session, and who waits for which answer.
//!
//! This is jsonrpsee's `ClientT`, so that the traits of [`calls`](super::calls) are called through it.
//! jsonrpsee's own asynchronous client would do as well, with two tasks and four channels for each session;
//! a control plane holds thousands of sessions that are idle nearly always. Here an idle session costs an
//! empty table, and a call passes through no task but its caller's and the session's.
//!
//! It knows nothing of sockets and seals: texts go out by a line, and answers are delivered to it.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use jsonrpsee::{
    core::{
        client::{BatchResponse, ClientT, Error},
        params::BatchRequestBuilder,
        traits::ToRpcParams,
    },
    types::{Id, Notification, Request, Response, ResponsePayload},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use tokio::{sync::oneshot, time::timeout};

use super::{
    CALL_DEADLINE,
    outgoing::{Ended, Outgoing},
};

/// Calls that may wait for their answers at once; more fail at once.
pub const WAITING: usize = 256;

/// The calls of one session. Every call fails after [`CALL_DEADLINE`], and as soon as the session ends.
#[derive(Debug)]
pub struct Outbound {
    texts: Outgoing,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// No call is numbered twice, so that a late answer is nobody else's.
    last: u64,
    /// `None` once the session has ended.
    calls: Option<HashMap<u64, oneshot::Sender<String>>>,
}

/// A number whose answer is waited for until this is dropped.
struct Call<'a> {
    number: u64,
    of: &'a Outbound,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if let Some(calls) = &mut self.of.lock().calls {
            calls.remove(&self.number);
            if calls.is_empty() {
                calls.shrink_to_fit();
            }
        }
    }
}

impl Outbound {
    /// No call waits yet; what is asked goes out by `texts`.
    #[must_use]
    pub fn new(texts: Outgoing) -> Self {
        let waiting = Waiting { last: 0, calls: Some(HashMap::new()) };
        Self { texts, waiting: Mutex::new(waiting) }
    }

    /// What waits to be written: calls, and whatever else the session has to say.
    #[must_use]
    pub fn texts(&self) -> &Outgoing {
        &self.texts
    }

    /// Gives an answer to whoever waits for it. One that nobody waits for any more is dropped.
    pub(super) fn deliver(&self, number: u64, answer: String) {
        let call = self.lock().calls.as_mut().and_then(|calls| calls.remove(&number));
        if let Some(call) = call {
            let _ = call.send(answer);
        }
    }

    /// Fails every call that waits, and those to come.
    pub(super) fn end(&self) {
        self.lock().calls = None;
        self.texts.end();
    }

    fn call(&self) -> Result<(Call<'_>, oneshot::Receiver<String>), Error> {
        let (answered, answer) = oneshot::channel();
        let mut waiting = self.lock();
        let number = waiting.last + 1;
        let calls = waiting.calls.as_mut().ok_or_else(ended)?;
        if calls.len() >= WAITING {
            return Err(Error::Custom("too many calls wait for answers".to_owned()));
        }
        calls.insert(number, answered);
        waiting.last = number;
        Ok((Call { number, of: self }, answer))
    }

    async fn send(&self, text: &impl Serialize) -> Result<(), Error> {
        self.texts.send(serde_json::to_string(text)?).await.map_err(|_| ended())
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Every change leaves the table whole, so a panic elsewhere does not matter here.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientT for Outbound {
    async fn notification<Params>(&self, method: &str, params: Params) -> Result<(), Error>
    where
        Params: ToRpcParams + Send,
    {
        let notification = Notification::new(method.into(), params.to_rpc_params()?);
        timeout(CALL_DEADLINE, self.send(&notification)).await.map_err(|_| Error::RequestTimeout)?
    }

    async fn request<R, Params>(&self, method: &str, params: Params) -> Result<R, Error>
    where
        R: DeserializeOwned,
        Params: ToRpcParams + Send,
    {
        let params = params.to_rpc_params()?;
        let (call, answer) = self.call()?;
        let request = Request::borrowed(method, params.as_deref(), Id::Number(call.number));
        let answered = timeout(CALL_DEADLINE, async {
            self.send(&request).await?;
            answer.await.map_err(|_| ended())
        });
        let answer = answered.await.map_err(|_| Error::RequestTimeout)??;
        let answer: Response<'_, &RawValue> = serde_json::from_str(&answer)?;
        match answer.payload {
            ResponsePayload::Success(value) => Ok(serde_json::from_str(value.get())?),
            ResponsePayload::Error(error) => Err(Error::Call(error.into_owned())),
        }
    }

    /// The channel has no batches.
    async fn batch_request<'a, R>(&self, _: BatchRequestBuilder<'a>) -> Result<BatchResponse<'a, R>, Error>
    where
        R: DeserializeOwned + fmt::Debug + 'a,
    {
        Err(Error::Custom("the agent channel has no batches".to_owned()))
    }
}

fn ended() -> Error {
    Error::Transport(Box::new(Ended))
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use jsonrpsee::core::params::ObjectParams;
    use serde_json::{Value, json};

    use super::{super::outgoing::Next, *};

    type Asked = tokio::task::JoinHandle<Result<String, Error>>;

    struct Scene {
        outbound: Arc<Outbound>,
    }

    impl Scene {
        fn new() -> Self {
            Self { outbound: Arc::new(Outbound::new(Outgoing::new(4))) }
        }

        async fn ask(&mut self) -> (Asked, Value) {
            let outbound = Arc::clone(&self.outbound);
            let asked = tokio::spawn(async move { outbound.request("any", ObjectParams::new()).await });
            let Next::Text(said) = self.outbound.texts().next().await else { panic!("nobody closes") };
            (asked, serde_json::from_str::<Value>(&said).unwrap()["id"].clone())
        }

        fn answer(&self, id: &Value, member: &str, value: Value) {
            let answer = json!({"jsonrpc": "2.0", "id": id, member: value}).to_string();
            self.outbound.deliver(id.as_u64().unwrap(), answer);
        }

        fn waiting(&self) -> usize {
            self.outbound.lock().calls.as_ref().map_or(0, HashMap::len)
        }
    }

    #[tokio::test]
    async fn an_answer_reaches_who_asked_whatever_the_order() {
        let mut scene = Scene::new();
        let (first, first_id) = scene.ask().await;
        let (second, second_id) = scene.ask().await;
        let (third, third_id) = scene.ask().await;
        scene.answer(&third_id, "error", json!({"code": -32000, "message": "not now"}));
        scene.answer(&second_id, "result", json!("two"));
        scene.answer(&first_id, "result", json!("one"));
        assert_eq!(first.await.unwrap().unwrap(), "one");
        assert_eq!(second.await.unwrap().unwrap(), "two");
        let refused = third.await.unwrap().unwrap_err();
        assert!(matches!(refused, Error::Call(error) if error.message() == "not now"));
        assert_eq!(scene.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_without_an_answer_fails_at_its_deadline_and_a_late_one_is_nobodys() {
        let mut scene = Scene::new();
        let (late, late_id) = scene.ask().await;
        assert!(matches!(late.await.unwrap(), Err(Error::RequestTimeout)));
        assert_eq!(scene.waiting(), 0);
        let (next, next_id) = scene.ask().await;
        scene.answer(&late_id, "result", json!("late"));
        scene.answer(&next_id, "result", json!("next"));
        assert_eq!(next.await.unwrap().unwrap(), "next");
    }

    #[tokio::test]
    async fn the_end_of_a_session_fails_what_waits_and_what_comes() {
        let mut scene = Scene::new();
        let (asked, _) = scene.ask().await;
        scene.outbound.end();
        assert!(matches!(asked.await.unwrap(), Err(Error::Transport(_))));
        let after: Result<String, _> = scene.outbound.request("any", ObjectParams::new()).await;
        assert!(matches!(after, Err(Error::Transport(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_nobody_answers_are_bounded() {
        let mut scene = Scene::new();
        let mut asked = Vec::new();
        for _ in 0..WAITING {
            asked.push(scene.ask().await.0);
        }
        let more: Result<String, _> = scene.outbound.request("any", ObjectParams::new()).await;
        assert!(matches!(more, Err(Error::Custom(_))));
        tokio::time::sleep(CALL_DEADLINE + Duration::from_secs(1)).await;
        assert_eq!(scene.waiting(), 0);
    }
}
