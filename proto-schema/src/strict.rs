//! Where serde alone would take more or less than the contract and the schemas say: use with
//! `deserialize_with`.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IntoDeserializer, MapAccess, Visitor, value::MapAccessDeserializer},
};

/// One of an enum's words, or null. serde alone also takes `{"cloud": null}` for `"cloud"`.
pub(crate) fn word_or_null<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| T::deserialize(text.into_deserializer())).transpose()
}

/// One of an enum's words.
pub(crate) fn word<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    T::deserialize(String::deserialize(deserializer)?.into_deserializer())
}

/// A list of an enum's words.
pub(crate) fn words<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    let list = Vec::<String>::deserialize(deserializer)?;
    list.into_iter().map(|text| T::deserialize(text.into_deserializer())).collect()
}

/// A whole number, or null. serde alone refuses `5.0`, which is whole to JSON Schema and to every language
/// without integers.
pub(crate) fn whole_or_null<'de, D>(deserializer: D) -> Result<Option<u32>, D::Error>
where
    D: Deserializer<'de>,
{
    struct Whole;

    impl Visitor<'_> for Whole {
        type Value = Option<u32>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a whole number, not negative")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
            u32::try_from(number).map(Some).map_err(|_| E::custom("is too large"))
        }

        fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
            if number.fract() != 0.0 || number < 0.0 {
                return Err(E::custom("must be a whole number, not negative"));
            }
            if number > f64::from(u32::MAX) {
                return Err(E::custom("is too large"));
            }
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole and in range")]
            let whole = number as u32;
            Ok(Some(whole))
        }
    }

    deserializer.deserialize_any(Whole)
}

/// A whole number.
pub(crate) fn whole<'de, D>(deserializer: D) -> Result<u32, D::Error>
where
    D: Deserializer<'de>,
{
    whole_or_null(deserializer)?.ok_or_else(|| D::Error::custom("must be a whole number"))
}

/// A list of an enum's words, or null.
pub(crate) fn words_or_null<'de, T, D>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    let list = Option::<Vec<String>>::deserialize(deserializer)?;
    let read = |text: String| T::deserialize(text.into_deserializer());
    list.map(|list| list.into_iter().map(read).collect()).transpose()
}

/// An object of named fields, or null. serde alone also takes an array of the fields in order.
pub(crate) fn object_or_null<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    struct Object<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
        type Value = Option<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of named fields")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map)).map(Some)
        }
    }

    deserializer.deserialize_any(Object(PhantomData))
}
