//! Reading a list of names out of JSON without keeping the list.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The part of a list that is kept: after `skip` elements, those that `keep` wants, up to `room`.
pub(super) struct Window<'k> {
    pub(super) skip: usize,
    pub(super) room: usize,
    pub(super) keep: &'k (dyn Fn(&str) -> Verdict + Sync),
    pub(super) items: Vec<String>,
    /// The first element that would have been kept if there had been room.
    pub(super) next: Option<usize>,
    /// Elements that aren't proper names.
    pub(super) improper: usize,
    /// Elements so far.
    pub(super) seen: usize,
    /// Whether the list itself was there.
    pub(super) found: bool,
}

/// What becomes of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Keep,
    /// Not asked for.
    Skip,
    /// Not what a name looks like.
    Improper,
}

impl<'k> Window<'k> {
    pub(super) fn new(skip: usize, room: usize, keep: &'k (dyn Fn(&str) -> Verdict + Sync)) -> Self {
        Self { skip, room, keep, items: Vec::new(), next: None, improper: 0, seen: 0, found: false }
    }

    fn take(&mut self, name: Option<&str>) {
        let at = self.seen;
        self.seen += 1;
        if at < self.skip || self.next.is_some() {
            return;
        }
        match name.map_or(Verdict::Improper, self.keep) {
            Verdict::Keep if self.items.len() < self.room => self.items.extend(name.map(str::to_owned)),
            Verdict::Keep => self.next = Some(at),
            Verdict::Skip => {}
            Verdict::Improper => self.improper += 1,
        }
    }
}

/// Reads the array under `key` of `body` into `window`. Whatever came before an error stays there. What else is in the
/// document is passed over, however deep it is.
pub(super) fn read(body: &[u8], key: &str, window: &mut Window<'_>) -> Result<(), serde_json::Error> {
    let mut document = serde_json::Deserializer::from_slice(body);
    Object { key, window }.deserialize(&mut document)?;
    document.end()
}

struct Object<'w, 'k> {
    key: &'w str,
    window: &'w mut Window<'k>,
}

impl<'de> DeserializeSeed<'de> for Object<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key_seed(Text)? {
            if name.as_deref() == Some(self.key) {
                if self.window.found {
                    return Err(A::Error::custom("the list is there twice"));
                }
                self.window.found = true;
                map.next_value_seed(List { window: self.window })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

struct List<'w, 'k> {
    window: &'w mut Window<'k>,
}

impl<'de> DeserializeSeed<'de> for List<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for List<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    /// Nexus says `null` where there are none.
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<(), A::Error> {
        while let Some(name) = sequence.next_element_seed(Text)? {
            self.window.take(name.as_deref());
        }
        Ok(())
    }
}

/// The longest name that is looked at, in bytes: a repository path, with room.
const MAX_NAME_BYTES: usize = 512;

/// A text, `None` for an overlong one and for anything else.
struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok((text.len() <= MAX_NAME_BYTES).then(|| text.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        while sequence.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window_of(body: &str, skip: usize, room: usize) -> (Vec<String>, Option<usize>, usize, bool) {
        let keep = |name: &str| match name {
            "no" => Verdict::Skip,
            "BAD" => Verdict::Improper,
            _ => Verdict::Keep,
        };
        let mut window = Window::new(skip, room, &keep);
        let read = read(body.as_bytes(), "tags", &mut window).is_ok();
        (window.items, window.next, window.improper, read)
    }

    #[test]
    fn a_window_keeps_what_was_asked_for_and_says_where_it_goes_on() {
        let body = r#"{"name":"x","tags":["a","no","b","BAD","c","d"],"more":{"tags":["z"]}}"#;
        assert_eq!(window_of(body, 0, 2), (vec!["a".into(), "b".into()], Some(4), 1, true));
        assert_eq!(window_of(body, 4, 2), (vec!["c".into(), "d".into()], None, 0, true));
        assert_eq!(window_of(body, 99, 2), (vec![], None, 0, true));
    }

    #[test]
    fn odd_elements_are_counted_and_broken_documents_keep_what_came_before() {
        let body = r#"{"tags":[1,-1,1e400,null,true,["x"],{"y":1},"a"#;
        assert!(!window_of(body, 0, 9).3);
        let body = r#"{"tags":[1,-1,1.5,null,true,["x"],{"y":1},"a"]}"#;
        assert_eq!(window_of(body, 0, 9), (vec!["a".into()], None, 7, true));
        assert_eq!(window_of(r#"{"tags":["a","b","c"#, 0, 9).0, ["a", "b"]);
        assert_eq!(window_of(r#"{"tags":null}"#, 0, 9), (vec![], None, 0, true));
        assert_eq!(window_of(r#"{"tags":["a"],"tags":["b"]}"#, 0, 9).0, ["a"]);
        assert!(!window_of(r#"["a"]"#, 0, 9).3);
        assert!(!window_of(&format!(r#"{{"tags":{}"#, "[".repeat(100_000)), 0, 9).3);
    }
}
