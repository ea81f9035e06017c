//! A JSON-RPC text, taken apart: one call or a batch, and what a call says.

use std::{fmt, sync::Arc};

use axum::body::Bytes;
use jsonrpsee::types::ErrorObjectOwned;
use purser_proto_schema::error::{Code, PublicError};
use serde::{
    Deserialize, Deserializer,
    de::{self, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    MAX_BATCH,
    rpc::{INVALID_REQUEST, PARSE_ERROR, object, protocol_error},
};
use crate::domain::large_inputs::Place;

/// The longest id of a call, in bytes: it is kept until the call has been answered.
const MAX_ID: usize = 1024;

/// A text of one call or a batch, or the part of a batch that is one of its calls.
pub(super) struct Text {
    /// Parts share them: the last of them to be dropped gives them back.
    pub(super) bytes: Bytes,
    /// Of a large one.
    pub(super) place: Option<Arc<Place>>,
}

/// What a text is.
pub(super) enum Calls {
    /// A call.
    One,
    /// The calls of a batch, at least one.
    Batch(Vec<Text>),
}

/// Why it is none.
pub(super) struct NoCalls {
    pub(super) error: ErrorObjectOwned,
    /// It was not looked at further, and HTTP has a status for that.
    pub(super) too_large: bool,
}

/// A call as it is received. Unknown members are ignored, as JSON-RPC's extensions need.
#[derive(Deserialize)]
pub(super) struct Call<'a> {
    #[serde(borrow)]
    jsonrpc: &'a RawValue,
    #[serde(borrow)]
    method: &'a RawValue,
    #[serde(borrow, default)]
    pub(super) params: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub(super) id: Option<&'a RawValue>,
}

impl Text {
    /// Takes it apart: a batch has been read then, whenever its calls begin. Of one with too many no more is looked at
    /// than shows that.
    pub(super) fn calls(&self) -> Result<Calls, NoCalls> {
        let text = self.bytes.as_ref();
        let none = |error| NoCalls { error, too_large: false };
        let not_json = || none(protocol_error(PARSE_ERROR, "the text is not JSON"));
        if !text.trim_ascii_start().starts_with(b"[") {
            return match serde_json::from_slice::<&RawValue>(text) {
                Ok(_) => Ok(Calls::One),
                Err(_) => Err(not_json()),
            };
        }
        match serde_json::from_slice::<Batch<'_>>(text) {
            Ok(Batch(calls)) if calls.is_empty() => {
                Err(none(protocol_error(INVALID_REQUEST, "a batch has 1 to 100 calls")))
            }
            Ok(Batch(calls)) => {
                if let Some(place) = &self.place {
                    place.has_been_read();
                }
                Ok(Calls::Batch(calls.into_iter().map(|call| self.part(call)).collect()))
            }
            // Nothing but `Batch` itself complains of anything but the syntax.
            Err(error) if error.is_data() => {
                let error = PublicError::new(Code::PayloadTooLarge, "a batch has at most 100 calls");
                Err(NoCalls { error: object(&error), too_large: true })
            }
            Err(_) => Err(not_json()),
        }
    }

    /// The call that this is, and its method; or what is wrong with its form.
    pub(super) fn read(&self) -> Result<(Call<'_>, String), &'static str> {
        let is_object = self.bytes.trim_ascii_start().starts_with(b"{");
        // serde would read an array as the struct's fields in order.
        let Some(call) = is_object.then(|| serde_json::from_slice::<Call<'_>>(&self.bytes).ok()).flatten()
        else {
            return Err("a call is an object with `jsonrpc` and `method`");
        };
        if call.id.is_some_and(|id| !is_id(id)) {
            return Err("an id is a string, a number or null, of at most 1024 bytes");
        }
        let Ok(method) = serde_json::from_str::<String>(call.method.get()) else {
            return Err("`method` is a string");
        };
        if !serde_json::from_str::<String>(call.jsonrpc.get()).is_ok_and(|version| version == "2.0") {
            return Err("`jsonrpc` is \"2.0\"");
        }
        if call.params.is_some_and(|params| !params.get().starts_with(['{', '['])) {
            return Err("`params` is an object");
        }
        Ok((call, method))
    }

    fn part(&self, call: &RawValue) -> Self {
        Self { bytes: self.bytes.slice_ref(call.get().as_bytes()), place: self.place.clone() }
    }
}

/// The calls of a batch, at most [`MAX_BATCH`].
struct Batch<'a>(Vec<&'a RawValue>);

impl<'de> Deserialize<'de> for Batch<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Seen;
        impl<'de> Visitor<'de> for Seen {
            type Value = Batch<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MAX_BATCH} calls")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut calls: A) -> Result<Self::Value, A::Error> {
                let mut seen = Vec::new();
                while let Some(call) = calls.next_element()? {
                    if seen.len() == MAX_BATCH {
                        return Err(de::Error::invalid_length(MAX_BATCH + 1, &self));
                    }
                    seen.push(call);
                }
                Ok(Batch(seen))
            }
        }
        deserializer.deserialize_seq(Seen)
    }
}

/// `null` is an id; only an absent one makes a notification.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

fn is_id(id: &RawValue) -> bool {
    let text = id.get();
    let form = |first: char| first == '"' || first == '-' || first.is_ascii_digit();
    text.len() <= MAX_ID && (text == "null" || text.starts_with(form))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::large_inputs::LargeInputs;

    #[tokio::test]
    async fn a_batch_has_been_read_when_it_was_taken_apart_and_one_call_when_it_was_parsed() {
        let inputs = LargeInputs::default();
        for (text, is_read) in [("[{}, {}]", true), ("{}", false)] {
            let place = Some(Arc::new(inputs.place_of_a_test().await));
            let text = Text { bytes: Bytes::from_static(text.as_bytes()), place: place.clone() };
            assert!(text.calls().is_ok());
            assert_eq!(place.map(|place| place.is_being_read()), Some(!is_read));
        }
    }
}
