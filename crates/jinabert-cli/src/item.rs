//! Items of input, and their parsing from JSON.

use crate::error::{CliError, InputPosition};
use jinabert::{Error, batch::Tokens};
use serde::{
    Deserialize, Serialize, Serializer,
    de::{self, DeserializeSeed, Deserializer, MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::value::RawValue;
use std::{fmt, marker::PhantomData, ops::Range};

/// Text or token list to embed.
#[derive(Clone, Debug)]
pub struct Item {
    /// Position in the input, for messages.
    pub place: InputPosition,
    /// Position in the input, from 0: blank lines are not counted, skipped ones are.
    pub index: u64,
    /// Id that the caller gave the item, as it was written.
    pub id: Option<Box<RawValue>>,
    /// Text or tokens.
    pub content: Content,
    /// Character ranges of the chunks, if the item lists them.
    pub spans: Option<Vec<Range<usize>>>,
    /// Fields to copy to the output.
    pub fields: Fields,
}

impl Item {
    /// Item that is only a text.
    pub fn of_text(place: InputPosition, index: u64, text: String) -> Self {
        let content = Content::Text(text);
        Self { place, index, id: None, content, spans: None, fields: Fields::default() }
    }

    /// Text of the item, if it is one.
    pub fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Text(text) => Some(text),
            Content::Tokens(_) => None,
        }
    }
}

/// Content of an item.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Text, to be tokenised.
    Text(String),
    /// Token ids, used as given.
    Tokens(Tokens),
}

/// Fields of a JSON object that are copied to the output as they were written.
#[derive(Clone, Debug, Default)]
pub struct Fields(Vec<(String, Box<RawValue>)>);

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl Fields {
    /// Takes a field out.
    pub fn take(&mut self, name: &str) -> Option<Box<RawValue>> {
        let at = self.0.iter().position(|(field, _)| field == name)?;
        Some(self.0.remove(at).1)
    }
}

/// All fields of an object.
impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields: Vec<(String, Box<RawValue>)> = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, _>()? {
            if fields.iter().any(|(kept, _)| *kept == name) {
                return Err(de::Error::custom(format!("duplicate field `{name}`")));
            }
            fields.push((name, value));
        }
        Ok(Fields(fields))
    }
}

/// Policy for fields of an object that are not an item's own.
#[derive(Clone, Copy, Debug)]
pub enum Others {
    /// Refuse them.
    Refuse,
    /// Keep them, unless they have the name of one of these fields of the output.
    Keep(&'static [&'static str]),
}

/// Maximum depth of lists and objects, the same as serde_json's, which does not check values that
/// are kept as they were written.
const DEPTH: usize = 128;

/// Position, from 1, of the bracket that exceeds the maximum depth.
fn too_deep(json: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut in_text = false;
    let mut escaped = false;
    (1..).zip(json.bytes()).find_map(|(column, byte)| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => depth += 1,
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
        (depth > DEPTH).then_some(column)
    })
}

/// Reads a line of jsonl.
pub fn line(
    place: InputPosition,
    index: u64,
    json: &str,
    others: Others,
) -> Result<Item, CliError> {
    if let Some(column) = too_deep(json) {
        let what = format!("recursion limit exceeded at column {column}");
        return Err(CliError::Item { place, what });
    }
    read(place, index, json, others).map_err(|error| {
        // serde_json counts lines within this line: only the column is useful.
        let what = format!("{} at column {}", message(&error), error.column());
        CliError::Item { place, what }
    })?
}

/// Reads an element of a list: a text, or an object as in a line of jsonl.
pub fn element(
    place: InputPosition,
    index: u64,
    json: &str,
    others: Others,
) -> Result<Item, CliError> {
    if too_deep(json).is_some() {
        return Err(CliError::Item { place, what: "recursion limit exceeded".to_owned() });
    }
    let item = if json.starts_with('"') {
        serde_json::from_str(json).map(|text| Ok(Item::of_text(place, index, text)))
    } else {
        read(place, index, json, others)
    };
    item.map_err(|error| CliError::Item { place, what: message(&error) })?
}

/// Message of an error without its position.
fn message(error: &serde_json::Error) -> String {
    let what = error.to_string();
    what.split(" at line ").next().unwrap_or_default().to_owned()
}

fn read(
    place: InputPosition,
    index: u64,
    json: &str,
    others: Others,
) -> Result<Result<Item, CliError>, serde_json::Error> {
    let mut json = serde_json::Deserializer::from_str(json);
    let object = ObjectSeed(others).deserialize(&mut json)?;
    json.end()?;
    let item = item(place, index, object);
    Ok(item.map_err(|what| CliError::Item { place, what: what.to_owned() }))
}

/// Item of an object, or an error message.
fn item(place: InputPosition, index: u64, object: ItemObject) -> Result<Item, &'static str> {
    let ItemObject { text, ids, type_ids, id, spans, fields } = object;
    let content = match (text, ids, type_ids) {
        (Some(text), None, None) => Content::Text(text),
        (None, Some(ids), None) => Content::Tokens(Tokens::new(ids)),
        (None, Some(ids), Some(type_ids)) => {
            Content::Tokens(Tokens { type_ids, ..Tokens::new(ids) })
        }
        _ => return Err("an object has \"text\", or \"ids\" with or without \"type_ids\""),
    };
    let spans = spans.map(|spans| spans.into_iter().map(|[a, b]| a..b).collect());
    if spans.is_some() && !matches!(content, Content::Text(_)) {
        return Err("\"spans\" are ranges of characters: expected \"text\", got \"ids\"");
    }
    Ok(Item { place, index, id, content, spans, fields })
}

/// Fields of an input object.
#[derive(Default)]
struct ItemObject {
    text: Option<String>,
    ids: Option<Vec<u32>>,
    type_ids: Option<Vec<u32>>,
    id: Option<Box<RawValue>>,
    spans: Option<Vec<[usize; 2]>>,
    fields: Fields,
}

/// Parser of an [`ItemObject`]; written by hand, since a derived one also accepts a list of the
/// fields in order.
struct ObjectSeed(Others);

impl<'de> DeserializeSeed<'de> for ObjectSeed {
    type Value = ItemObject;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<ItemObject, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ObjectSeed {
    type Value = ItemObject;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with \"text\" or \"ids\"")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ItemObject, A::Error> {
        const KNOWN: &[&str] = &["text", "ids", "type_ids", "id", "spans"];
        let mut object = ItemObject::default();
        let mut seen = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if let Some(name) = KNOWN.iter().find(|known| **known == name) {
                if seen.contains(name) {
                    return Err(de::Error::duplicate_field(name));
                }
                seen.push(name);
            }
            match (name.as_str(), self.0) {
                ("text", _) => object.text = map.next_value()?,
                ("ids", _) => object.ids = map.next_value()?,
                ("type_ids", _) => object.type_ids = map.next_value()?,
                ("id", _) => object.id = map.next_value()?,
                ("spans", _) => object.spans = map.next_value()?,
                (_, Others::Refuse) => return Err(de::Error::unknown_field(&name, KNOWN)),
                (_, Others::Keep(own)) if own.contains(&name.as_str()) => {
                    let what =
                        format!("field `{name}` is one of the output's own fields: rename it");
                    return Err(de::Error::custom(what));
                }
                (_, Others::Keep(_)) => {
                    if object.fields.0.iter().any(|(kept, _)| *kept == name) {
                        return Err(de::Error::custom(format!("duplicate field `{name}`")));
                    }
                    object.fields.0.push((name, map.next_value()?));
                }
            }
        }
        Ok(object)
    }
}

/// Replaces the index in an error of the library by the position in the input.
pub fn with_position(error: Error, items: &[Item]) -> CliError {
    match error {
        Error::Input { index, what } => CliError::Item { place: items[index].place, what },
        Error::TooLong { index, tokens, limit } => {
            let Item { place, content, .. } = &items[index];
            let help = match content {
                Content::Text(_) => " (--on-long truncate cuts, window reads all)",
                Content::Tokens(_) => "; token ids are never truncated",
            };
            let what = format!("{tokens} tokens, over the limit of {limit}{help}");
            CliError::Item { place: *place, what }
        }
        other => other.into(),
    }
}

/// Derived struct that accepts only a JSON object, not a list of its fields in order.
pub struct FromObject<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for FromObject<T> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_map(ObjectVisitor(PhantomData)).map(Self)
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jsonl_lines() {
        let parse = |n, json| line(InputPosition::Line(n), n - 1, json, Others::Refuse);
        let text = parse(3, r#"{"id": "a", "text": "x\ny"}"#).expect("good");
        let id = text.id.as_ref().map(|id| id.get());
        assert_eq!((text.place, text.index, id), (InputPosition::Line(3), 2, Some("\"a\"")));
        assert_eq!(text.content, Content::Text("x\ny".into()));
        let ids = parse(1, r#"{"ids": [2, 3], "type_ids": [0, 1]}"#).expect("good").content;
        assert_eq!(
            ids,
            Content::Tokens(Tokens { type_ids: vec![0, 1], ..Tokens::new(vec![2, 3]) })
        );
        for (json, says) in [
            ("{\"text\": \"a\"", "EOF"),
            (
                "[1]",
                "invalid type: sequence, expected an object with \"text\" or \"ids\" at column",
            ),
            ("[\"a\", null, null, \"id\", null]", "invalid type: sequence"),
            ("7", "invalid type: integer `7`, expected an object"),
            ("\"a\"", "invalid type: string \"a\", expected an object"),
            ("null", "invalid type: null, expected an object"),
            ("{}", "an object has"),
            ("{\"text\": \"a\", \"ids\": [1]}", "an object has"),
            ("{\"ids\": [-1]}", "invalid value"),
            ("{\"ids\": [4294967296]}", "invalid value"),
            ("{\"txt\": \"a\"}", "unknown field `txt`"),
        ] {
            let error = parse(7, json).expect_err(json).to_string();
            assert!(error.starts_with("line 7: ") && error.contains(says), "{error}");
        }
    }

    #[test]
    fn elements_are_texts_or_objects() {
        let parse = |json| element(InputPosition::Element(2), 1, json, Others::Refuse);
        assert_eq!(parse("\"a\\n\"").expect("a text").text(), Some("a\n"));
        assert_eq!(parse("{\"text\": \"b\"}").expect("an object").text(), Some("b"));
        for json in ["[\"a\"]", "1", "null", "true"] {
            let error = parse(json).expect_err(json).to_string();
            assert!(error.starts_with("element 2: invalid type: "), "{error}");
            assert!(error.ends_with("expected an object with \"text\" or \"ids\""), "{error}");
        }
    }

    #[test]
    fn fields_are_kept_as_written() {
        let parse = |json| line(InputPosition::Line(1), 0, json, Others::Keep(&["index"]));
        let json =
            r#"{"größe": 1.50, "text": "a", "n": 123456789012345678901234567890, "x": {"y": [ ]}}"#;
        let fields = parse(json).expect("good").fields;
        let expected = r#"{"größe":1.50,"n":123456789012345678901234567890,"x":{"y": [ ]}}"#;
        assert_eq!(serde_json::to_string(&fields).expect("JSON"), expected);
        for (json, says) in [
            ("{\"text\": \"a\", \"index\": 1}", "field `index` is one of the output's own"),
            ("{\"text\": \"a\", \"b\": 1, \"b\": 2}", "duplicate field `b`"),
        ] {
            let error = parse(json).expect_err(json).to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn depth_is_limited() {
        let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(too_deep(&nested(DEPTH)), None);
        assert_eq!(too_deep(&nested(DEPTH + 1)), Some(DEPTH + 1));
        let flat = format!("[{}\"{}\\\"{}\"]", "[],".repeat(200), "[".repeat(200), "[".repeat(200));
        assert_eq!(too_deep(&flat), None, "lists in turn, and brackets in a text");
    }

    #[test]
    fn structs_are_read_from_objects_only() {
        #[derive(Debug, Deserialize)]
        struct Two {
            a: u32,
            b: u32,
        }
        let read = serde_json::from_str::<FromObject<Two>>;
        let two = read("{\"b\": 2, \"a\": 1}").map(|FromObject(two)| (two.a, two.b));
        assert_eq!(two.expect("an object"), (1, 2));
        let error = read("[1, 2]").map(|two| two.0).expect_err("a list").to_string();
        assert!(error.starts_with("invalid type: sequence, expected an object"), "{error}");
    }
}
