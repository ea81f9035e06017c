//! `$NAME` and `${NAME…}` in a Compose file, filled in as the Compose specification says, with one
//! difference: a variable that is needed, not given and without default is an error and not empty text. In the
//! name of an image empty text would mean another image.

use purser_proto_schema::stack::Variables;

/// How deep defaults may hold further references.
const MAX_DEPTH: usize = 16;
/// The longest text that may come out: no name of an image is longer.
const MAX_BYTES: usize = 4 * 1024;
/// A longer name is not repeated.
const MAX_SHOWN_NAME: usize = 64;

/// Why a text could not be filled in.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A `$` that begins no reference, or a reference without end.
    Malformed,
    /// References within references beyond the bound.
    TooDeep,
    /// More text than any name has.
    TooLong,
    /// This variable is needed.
    Unset(String),
}

impl Refusal {
    /// The rule that was broken. Of the text only a variable's name is in it.
    pub fn rule(&self) -> String {
        match self {
            Self::Malformed => {
                "a `$` must begin $NAME, ${NAME} or ${NAME:-default} with its brace closed; $$ stands for itself"
                    .to_owned()
            }
            Self::TooDeep => format!("holds defaults within defaults more than {MAX_DEPTH} deep"),
            Self::TooLong => format!("comes to more than {MAX_BYTES} bytes with its variables filled in"),
            Self::Unset(name) => {
                let name = if name.len() <= MAX_SHOWN_NAME { name } else { "with a long name" };
                format!(
                    "needs the variable {name}, which is not set or empty: give it in `variables`, or write a \
                     default into the file"
                )
            }
        }
    }
}

/// `text` with its variables filled in.
///
/// # Errors
/// [`Refusal`].
pub fn expand(text: &str, variables: &Variables) -> Result<String, Refusal> {
    let mut expansion = Expansion { rest: text, variables, out: String::new() };
    expansion.run(0, true)?;
    Ok(expansion.out)
}

struct Expansion<'a> {
    rest: &'a str,
    variables: &'a Variables,
    out: String,
}

impl<'a> Expansion<'a> {
    /// Goes to the end of the text, and inside of a reference beyond the brace that closes it. What is
    /// not `live` is only read over.
    fn run(&mut self, depth: usize, live: bool) -> Result<(), Refusal> {
        if depth > MAX_DEPTH {
            return Err(Refusal::TooDeep);
        }
        loop {
            let stop = self.rest.find(|c| c == '$' || (c == '}' && depth > 0)).unwrap_or(self.rest.len());
            let (plain, rest) = self.rest.split_at(stop);
            self.emit(plain, live)?;
            if let Some(rest) = rest.strip_prefix('$') {
                self.rest = rest;
                self.reference(depth, live)?;
            } else if let Some(rest) = rest.strip_prefix('}') {
                self.rest = rest;
                return Ok(());
            } else {
                return if depth == 0 { Ok(()) } else { Err(Refusal::Malformed) };
            }
        }
    }

    /// What follows a `$`.
    fn reference(&mut self, depth: usize, live: bool) -> Result<(), Refusal> {
        if let Some(rest) = self.rest.strip_prefix('$') {
            self.rest = rest;
            return self.emit("$", live);
        }
        if let Some(rest) = self.rest.strip_prefix('{') {
            self.rest = rest;
            return self.braced(depth, live);
        }
        let name = self.name()?;
        self.emit_variable(name, live)
    }

    /// What follows a `${`.
    fn braced(&mut self, depth: usize, live: bool) -> Result<(), Refusal> {
        let name = self.name()?;
        let value = self.variables.get(name);
        let empty_is_unset = self.took(':');
        let is_set = value.is_some_and(|value| !(empty_is_unset && value.is_empty()));
        if self.took('-') {
            self.emit(value.unwrap_or_default(), live && is_set)?;
            self.run(depth + 1, live && !is_set)
        } else if self.took('+') {
            self.run(depth + 1, live && is_set)
        } else if self.took('?') {
            // What follows is the file's own message, which is not repeated.
            self.run(depth + 1, false)?;
            if live && !is_set {
                return Err(Refusal::Unset(name.to_owned()));
            }
            self.emit(value.unwrap_or_default(), live)
        } else if !empty_is_unset && self.took('}') {
            self.emit_variable(name, live)
        } else {
            Err(Refusal::Malformed)
        }
    }

    /// Takes the name that comes next.
    fn name(&mut self) -> Result<&'a str, Refusal> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(Refusal::Malformed);
        }
        self.rest = rest;
        Ok(name)
    }

    /// Takes a character, if it comes next.
    fn took(&mut self, character: char) -> bool {
        match self.rest.strip_prefix(character) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn emit_variable(&mut self, name: &str, live: bool) -> Result<(), Refusal> {
        match self.variables.get(name) {
            Some(value) => self.emit(value, live),
            None if live => Err(Refusal::Unset(name.to_owned())),
            None => Ok(()),
        }
    }

    fn emit(&mut self, text: &str, live: bool) -> Result<(), Refusal> {
        if !live {
            return Ok(());
        }
        if self.out.len() + text.len() > MAX_BYTES {
            return Err(Refusal::TooLong);
        }
        self.out.push_str(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> Result<String, Refusal> {
        let set = [("A", "a"), ("EMPTY", ""), ("_b2", "b"), ("NOTE", "$A ${A}")];
        let variables = set.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect();
        expand(text, &variables)
    }

    #[test]
    fn every_form_of_the_specification_is_filled_in() {
        for (text, expected) in [
            ("plain", "plain"),
            ("$A", "a"),
            ("x-$A.y", "x-a.y"),
            ("${A}${_b2}", "ab"),
            ("$$A $${A}", "$A ${A}"),
            ("${A:-d}${A-d}", "aa"),
            ("${EMPTY:-d}|${EMPTY-d}|${EMPTY}", "d||"),
            ("${NONE:-d}${NONE-d}", "dd"),
            ("${NONE:-}${NONE-}", ""),
            ("${A:?needed}${A?needed}${EMPTY?needed}", "aa"),
            ("${A:+alt}|${EMPTY:+alt}|${NONE:+alt}", "alt||"),
            ("${A+alt}|${EMPTY+alt}|${NONE+alt}", "alt|alt|"),
            ("${NONE:-${NONE:-${A}}}", "a"),
            ("${NONE:-r.example.com:5000/$A:${NONE-1.0}}", "r.example.com:5000/a:1.0"),
            // What is not chosen needs nothing.
            ("${A:-$NONE}${NONE:+$NONE}${A:-${NONE:?x}}", "a".repeat(2).as_str()),
            // A value is text: nothing in it is filled in.
            ("$NOTE", "$A ${A}"),
            ("}", "}"),
        ] {
            assert_eq!(expanded(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_variable_that_is_needed_is_named() {
        for text in ["$NONE", "${NONE}", "${NONE:?no}", "${NONE?no}", "${EMPTY:-$NONE}", "${A:+${NONE}}"] {
            assert_eq!(expanded(text), Err(Refusal::Unset("NONE".into())), "{text}");
        }
        assert_eq!(expanded("${EMPTY:?no}"), Err(Refusal::Unset("EMPTY".into())));
        assert!(Refusal::Unset("NONE".into()).rule().contains("variable NONE,"));
        assert!(!Refusal::Unset("x".repeat(65)).rule().contains("xxx"));
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for text in [
            "$",
            "a$",
            "$1",
            "$ A",
            "${",
            "${}",
            "${A",
            "${A:",
            "${A:}",
            "${A:-",
            "${A:-b",
            "${1}",
            "${A b}",
            "${A:=b}",
            "${A:-${B}",
            "${É}",
        ] {
            assert_eq!(expanded(text), Err(Refusal::Malformed), "{text}");
        }
    }

    #[test]
    fn depth_and_length_are_bounded() {
        let nested = |depth: usize| format!("{}x{}", "${NONE:-".repeat(depth), "}".repeat(depth));
        assert_eq!(expanded(&nested(MAX_DEPTH)).as_deref(), Ok("x"));
        assert_eq!(expanded(&nested(MAX_DEPTH + 1)), Err(Refusal::TooDeep));
        assert_eq!(expanded(&"${A:-".repeat(100_000)), Err(Refusal::TooDeep));
        let variables = [("BIG".to_owned(), "x".repeat(60_000))].into_iter().collect();
        assert_eq!(expand(&"$BIG".repeat(100_000), &variables), Err(Refusal::TooLong));
    }
}
