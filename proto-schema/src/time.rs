//! Times on the wire: RFC 3339 in UTC with milliseconds and `Z`, such as `2026-01-15T10:30:00.000Z`.

use std::{borrow::Cow, fmt, time::Duration};

use chrono::{DateTime, FixedOffset, SecondsFormat, SubsecRound, Utc};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, Visitor},
};

/// How times go out, as a regular expression.
const OUTGOING: &str = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$";
/// How times come in: any of RFC 3339's forms with a capital T and Z. Whether a month has such a day is `format`'s to say.
const INCOMING: &str = r"^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,9})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$";

/// A moment, kept to the millisecond so that what is stored and what is answered never differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(DateTime<Utc>);

impl Timestamp {
    /// The present.
    #[must_use]
    pub fn now() -> Self {
        Self::from(Utc::now())
    }

    /// A moment in seconds since 1970, as engines tell it; 1970 itself for what no calendar holds.
    #[must_use]
    pub fn from_unix_seconds(seconds: i64) -> Self {
        Self::from(DateTime::from_timestamp(seconds, 0).unwrap_or_default())
    }

    /// This moment and `later` after it.
    #[must_use]
    pub fn after(self, later: Duration) -> Self {
        Self::from(self.0 + later)
    }

    /// The moment as chrono's type, for a column.
    #[must_use]
    pub fn to_utc(self) -> DateTime<Utc> {
        self.0
    }
}

impl From<DateTime<Utc>> for Timestamp {
    fn from(at: DateTime<Utc>) -> Self {
        Self(at.trunc_subsecs(3))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

/// What is wrong is said in the caller's terms, and not in those of the parser, which speaks of an `input`.
impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Timestamp;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time such as 2026-01-15T10:30:00Z")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Timestamp, E> {
                let at = text.parse::<DateTime<FixedOffset>>();
                at.map(|at| Timestamp(at.to_utc()))
                    .map_err(|_| E::custom("must be a time such as 2026-01-15T10:30:00Z"))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl JsonSchema for Timestamp {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Timestamp".into()
    }

    /// What goes out has one form; what comes in may have any of RFC 3339's.
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let pattern = if generator.contract().is_serialize() { OUTGOING } else { INCOMING };
        json_schema!({"type": "string", "format": "date-time", "pattern": pattern})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_go_out_with_milliseconds_and_z() {
        let at: Timestamp = serde_json::from_str(r#""2026-01-15T10:30:00.1234567Z""#).unwrap();
        let at = Timestamp::from(at.to_utc());
        assert_eq!(serde_json::to_string(&at).unwrap(), r#""2026-01-15T10:30:00.123Z""#);
    }

    #[test]
    fn what_is_no_time_is_told_how_one_is_written() {
        let read = |text| serde_json::from_str::<Timestamp>(text).map_err(|error| error.to_string());
        assert_eq!(read(r#""2026-01-15T12:30:00+02:00""#), read(r#""2026-01-15T10:30:00Z""#));
        for text in [r#""2026-01-01""#, r#""2026-02-30T10:30:00Z""#, r#""2026-01-15T10:30:00""#, r#""""#, "5"]
        {
            let said = read(text).unwrap_err();
            assert!(said.contains("a time such as 2026-01-15T10:30:00Z"), "{text}: {said}");
        }
    }
}
