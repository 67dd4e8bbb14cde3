//! YAML files as JSON values, for tests that look into them. Anchors and tags are not understood: the files have none.

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

/// The documents of a text.
pub(crate) fn documents(text: &str) -> Vec<Value> {
    let mut reader = Reader {
        events: Parser::new_from_str(text)
            .map(|event| event.expect("YAML").0)
            .collect(),
        at: 0,
    };
    let mut found = Vec::new();
    while let Some(event) = reader.next() {
        if let Event::DocumentStart(_) = event {
            found.push(reader.value().expect("a document's value"));
        }
    }
    found
}

struct Reader<'t> {
    events: Vec<Event<'t>>,
    at: usize,
}

impl<'t> Reader<'t> {
    fn next(&mut self) -> Option<Event<'t>> {
        self.at += 1;
        self.events.get(self.at - 1).cloned()
    }

    /// The value that begins here; `None` at the end of a collection.
    fn value(&mut self) -> Option<Value> {
        match self.next().expect("an event") {
            Event::Scalar(text, style, ..) => Some(scalar(&text, style)),
            Event::SequenceStart(..) => {
                let mut items = Vec::new();
                while let Some(item) = self.value() {
                    items.push(item);
                }
                Some(Value::Array(items))
            }
            Event::MappingStart(..) => {
                let mut fields = Map::new();
                while let Some(key) = self.value() {
                    let key = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
                    fields.insert(key, self.value().expect("a value"));
                }
                Some(Value::Object(fields))
            }
            Event::SequenceEnd | Event::MappingEnd => None,
            other => panic!("not expected in these files: {other:?}"),
        }
    }
}

fn scalar(text: &str, style: ScalarStyle) -> Value {
    match text {
        _ if style != ScalarStyle::Plain => Value::from(text),
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ => text
            .parse::<i64>()
            .map_or_else(|_| Value::from(text), Value::from),
    }
}
