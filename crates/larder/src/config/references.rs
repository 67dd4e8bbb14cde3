//! References to the environment: `${NAME}` in the values that take them, and what else begins with `$`.
//!
//! One rule for all keys. Secrets and what belongs to them (`username`, `password`, `auth.admin_token`, `proxy`, values below `headers`)
//! take references, anywhere in the text. Patterns and descriptions may hold any `$`. Everywhere else a reference is an error, for it
//! would be taken literally. `$$` before a name or a brace is a `$`.

use larder_core::REDACTED;

use super::diagnostic::{Place, Report};
use super::env::Environment;
use super::merge::Document;
use super::node::{Entry, Node, Value};
use super::schema;

/// What a `$` means in a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dollar {
    /// `${NAME}` is replaced.
    Refers,
    /// It is a character like any other.
    IsPlain,
    /// A reference is an error.
    MustNotRefer,
}

/// The document with every reference replaced, and each wrong one reported. Messages never show the text, which may be a secret.
pub(super) fn resolve(
    document: &Document,
    environment: &Environment,
    report: &mut Report,
) -> Document {
    let mut resolver = Resolver {
        environment,
        report,
    };
    let top = document
        .top
        .iter()
        .map(|entry| resolver.entry(entry, "", Dollar::MustNotRefer))
        .collect();
    let remotes = document
        .remotes
        .iter()
        .map(|entry| resolver.entry(entry, "remotes", Dollar::MustNotRefer))
        .collect();
    Document { top, remotes }
}

struct Resolver<'a> {
    environment: &'a Environment,
    report: &'a mut Report,
}

impl Resolver<'_> {
    fn entry(&mut self, entry: &Entry, above: &str, inherited: Dollar) -> Entry {
        let path = if above.is_empty() {
            entry.key.clone()
        } else {
            format!("{above}.{}", entry.key)
        };
        let own = match entry.key.as_str() {
            // Below `headers`, and below a repository that is called like a key, names are the operator's own.
            _ if inherited == Dollar::Refers || above == "remotes" => inherited,
            key if schema::takes_references(key) => Dollar::Refers,
            key if schema::is_free_text(key) => Dollar::IsPlain,
            _ => inherited,
        };
        Entry {
            key: entry.key.clone(),
            place: entry.place.clone(),
            node: self.node(&entry.node, &path, own),
        }
    }

    fn node(&mut self, node: &Node, path: &str, dollar: Dollar) -> Node {
        let value = match &node.value {
            Value::Scalar { text, plain } => {
                let is_masked =
                    text == REDACTED || text.contains("://***@") || text.contains("password=***");
                if dollar == Dollar::Refers && is_masked {
                    let why = "which stands for a secret in what `GET /config` shows: put the secret itself or `${NAME}` there";
                    self.report
                        .error(&node.place, format!("`{path}` holds `{REDACTED}`, {why}"));
                }
                let text = if dollar == Dollar::IsPlain {
                    text.clone()
                } else {
                    self.text(text, path, &node.place, dollar)
                };
                Value::Scalar {
                    text,
                    plain: *plain,
                }
            }
            Value::List(items) => Value::List(
                items
                    .iter()
                    .map(|item| self.node(item, path, dollar))
                    .collect(),
            ),
            Value::Map(entries) => Value::Map(
                entries
                    .iter()
                    .map(|entry| self.entry(entry, path, dollar))
                    .collect(),
            ),
            Value::Null => Value::Null,
        };
        Node {
            place: node.place.clone(),
            value,
        }
    }

    fn text(&mut self, text: &str, path: &str, place: &Place, dollar: Dollar) -> String {
        match replaced(text, self.environment, dollar) {
            Ok(Replaced { text, escaped }) => {
                if escaped {
                    self.report
                        .note(place, format!("`$$` in `{path}` is read as one `$`"));
                }
                text
            }
            Err(wrong) => {
                self.report
                    .error(place, format!("`{path}`: {}", wrong.said()));
                // A text that passes most checks, so that the one mistake is not told twice.
                text.replace('$', "")
            }
        }
    }
}

struct Replaced {
    text: String,
    /// `$$` stood for a `$`.
    escaped: bool,
}

/// What is wrong with a `$`.
#[derive(Debug, PartialEq, Eq)]
enum Wrong {
    Unset(String),
    Unclosed,
    NoName,
    Operator(String),
    Bare,
    NotHere,
}

impl Wrong {
    fn said(&self) -> String {
        const FORM: &str = "write `${NAME}`, or `$$` for a `$` itself";
        match self {
            Self::Unset(name) => format!("takes the environment variable {name}, which is not set"),
            Self::Unclosed => format!("`${{` has no `}}`: {FORM}"),
            Self::NoName => {
                format!(
                    "`${{…}}` holds no name of a variable (letters, digits and `_`, not beginning with a digit): {FORM}"
                )
            }
            Self::Operator(name) => {
                format!(
                    "`${{{name}…}}` holds more than a name: defaults and other operators of shells are not known; {FORM}"
                )
            }
            Self::Bare => {
                format!("`$` stands before a name without braces, which is no reference: {FORM}")
            }
            Self::NotHere => {
                let keys =
                    "`username`, `password`, `admin_token`, `proxy` and values below `headers`";
                format!(
                    "takes nothing from the environment, only {keys} do: write the value itself, or `$$` for a `$`"
                )
            }
        }
    }
}

fn replaced(text: &str, environment: &Environment, dollar: Dollar) -> Result<Replaced, Wrong> {
    let mut made = Replaced {
        text: String::with_capacity(text.len()),
        escaped: false,
    };
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, from) = rest.split_at(at);
        made.text.push_str(before);
        let after = from.get(1..).unwrap_or_default();
        if after
            .strip_prefix('$')
            .is_some_and(|more| more.starts_with(begins_reference))
        {
            made.escaped = true;
            made.text.push('$');
            // The second `$` and what it would have begun, but for its first character, which cannot be a `$`.
            rest = after.get(1..).unwrap_or_default();
        } else if after.starts_with(begins_reference) {
            if dollar == Dollar::MustNotRefer {
                return Err(Wrong::NotHere);
            }
            let inner = after.strip_prefix('{').ok_or(Wrong::Bare)?;
            let (name, more) = inner.split_once('}').ok_or(Wrong::Unclosed)?;
            check_name(name)?;
            made.text.push_str(
                environment
                    .get(name)
                    .ok_or_else(|| Wrong::Unset(name.to_owned()))?,
            );
            rest = more;
        } else {
            made.text.push('$');
            rest = after;
        }
    }
    made.text.push_str(rest);
    Ok(made)
}

fn begins_reference(c: char) -> bool {
    c == '{' || c == '_' || c.is_ascii_alphabetic()
}

fn check_name(name: &str) -> Result<(), Wrong> {
    let length = name
        .bytes()
        .take_while(|b| b.is_ascii_alphanumeric() || *b == b'_')
        .count();
    let (word, more) = name.split_at(length);
    if word.is_empty() || word.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(Wrong::NoName);
    }
    // The rest may be a default, and so a secret: it is not shown.
    if more.is_empty() {
        Ok(())
    } else {
        Err(Wrong::Operator(word.to_owned()))
    }
}

/// The names that a document refers to: such variables may be called as the operator likes.
pub(super) fn names(document: &Document) -> Vec<String> {
    let mut found = Vec::new();
    for entry in document.top.iter().chain(&document.remotes) {
        names_in(&entry.node, &mut found);
    }
    found
}

fn names_in(node: &Node, found: &mut Vec<String>) {
    match &node.value {
        Value::Scalar { text, .. } => {
            let after = text.split("${").skip(1);
            found.extend(
                after
                    .filter_map(|rest| rest.split_once('}'))
                    .map(|(name, _)| name.to_owned()),
            );
        }
        Value::List(items) => items.iter().for_each(|item| names_in(item, found)),
        Value::Map(entries) => entries
            .iter()
            .for_each(|entry| names_in(&entry.node, found)),
        Value::Null => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, dollar: Dollar) -> Result<String, Wrong> {
        let environment = Environment::of([("TOKEN", "canary$x"), ("_A1", "one"), ("EMPTY", "")]);
        replaced(text, &environment, dollar).map(|made| made.text)
    }

    #[test]
    fn references_are_replaced_wherever_they_stand() {
        for (text, want) in [
            ("${TOKEN}", "canary$x"),
            ("Bearer ${TOKEN}", "Bearer canary$x"),
            ("${_A1}-${_A1}", "one-one"),
            ("pa$$word", "pa$word"),
            ("$${TOKEN}", "${TOKEN}"),
            ("$$$${TOKEN}", "$$${TOKEN}"),
            ("a$", "a$"),
            ("a$$", "a$$"),
            ("$5 $! $", "$5 $! $"),
            ("none", "none"),
        ] {
            assert_eq!(read(text, Dollar::Refers).as_deref(), Ok(want), "{text}");
        }
    }

    #[test]
    fn other_forms_are_errors_that_show_the_right_one_and_no_text() {
        for (text, want) in [
            ("${}", Wrong::NoName),
            ("${1A}", Wrong::NoName),
            ("${ TOKEN }", Wrong::NoName),
            ("${A-secret}", Wrong::Operator("A".to_owned())),
            ("${A:-secret}", Wrong::Operator("A".to_owned())),
            ("${TOKEN", Wrong::Unclosed),
            ("x$secret", Wrong::Bare),
            ("${OTHER}", Wrong::Unset("OTHER".to_owned())),
            ("${EMPTY}", Wrong::Unset("EMPTY".to_owned())),
        ] {
            let wrong = read(text, Dollar::Refers).unwrap_err();
            assert!(!wrong.said().contains("secret"), "{text}: {}", wrong.said());
            assert!(
                matches!(wrong, Wrong::Unset(_)) || wrong.said().contains("`${NAME}`"),
                "{text}: {}",
                wrong.said()
            );
            assert_eq!(wrong, want, "{text}");
        }
    }

    #[test]
    fn where_nothing_is_replaced_a_reference_is_an_error_and_a_dollar_is_not() {
        for text in ["${TOKEN}", "$HOME/x", "${}"] {
            assert_eq!(
                read(text, Dollar::MustNotRefer),
                Err(Wrong::NotHere),
                "{text}"
            );
        }
        assert_eq!(
            read("https://example.com/$$web/", Dollar::MustNotRefer).as_deref(),
            Ok("https://example.com/$web/")
        );
        assert_eq!(read("5$", Dollar::MustNotRefer).as_deref(), Ok("5$"));
    }
}
