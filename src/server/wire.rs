//! What clients send and get, as JSON.
//!
//! `null` stands for what is left out, everywhere; fields that are not known are passed over, for
//! clients of three dialects send theirs to one address.

use super::refusal::Refusal;
use crate::{
    Precision,
    precision::{Quantized, Quantizer},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};
use std::fmt;
use utoipa::ToSchema;

/// One text or several, or lists of token ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Texts.
    Texts(Vec<String>),
    /// Token ids of texts, in the model's own vocabulary.
    Ids(Vec<Vec<u32>>),
}

impl Input {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Self::Texts(texts) => texts.len(),
            Self::Ids(lists) => lists.len(),
        }
    }

    /// Characters of the texts together.
    pub fn characters(&self) -> usize {
        match self {
            Self::Texts(texts) => texts.iter().map(|text| text.chars().count()).sum(),
            Self::Ids(_) => 0,
        }
    }
}

/// One of a list.
enum Item {
    Text(String),
    Id(u32),
    Ids(Vec<u32>),
}

/// A text as an object: `{"text": "…"}`.
#[derive(Deserialize)]
struct TextObject {
    text: Option<String>,
}

/// Items of a list, at most: no limit that one may set is higher, and a body of commas is large.
const MOST: usize = 1 << 20;

/// Whether a list of so many has room for one more.
pub(super) fn room<E: serde::de::Error>(items: usize) -> Result<(), E> {
    if items < MOST { Ok(()) } else { Err(E::custom(format!("a list of more than {MOST} items"))) }
}

struct ItemVisitor;

impl<'de> Visitor<'de> for ItemVisitor {
    type Value = Item;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a text, {\"text\": …}, or token ids")
    }

    fn visit_str<E>(self, text: &str) -> Result<Item, E> {
        Ok(Item::Text(text.to_owned()))
    }

    fn visit_u64<E: serde::de::Error>(self, id: u64) -> Result<Item, E> {
        u32::try_from(id).map(Item::Id).map_err(|_| E::custom(format!("token id {id}")))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Item, A::Error> {
        let object = TextObject::deserialize(MapAccessDeserializer::new(map))?;
        object.text.map(Item::Text).ok_or_else(|| {
            A::Error::custom("an object without `text`; texts alone are embedded here")
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Item, A::Error> {
        let mut ids = Vec::new();
        while let Some(id) = list.next_element()? {
            room::<A::Error>(ids.len())?;
            ids.push(id);
        }
        Ok(Item::Ids(ids))
    }
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ItemVisitor)
    }
}

/// Reads an [`Input`].
pub struct InputVisitor;

impl<'de> Visitor<'de> for InputVisitor {
    type Value = Input;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a text, a list of texts, token ids, or a list of lists of token ids")
    }

    fn visit_str<E>(self, text: &str) -> Result<Input, E> {
        Ok(Input::Texts(vec![text.to_owned()]))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Input, A::Error> {
        match ItemVisitor.visit_map(map)? {
            Item::Text(text) => Ok(Input::Texts(vec![text])),
            _ => Err(A::Error::custom("an object is a text")),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Input, A::Error> {
        let mut n = 0;
        let (mut texts, mut own, mut lists) = (Vec::new(), Vec::new(), Vec::new());
        let at = |n: usize, e: A::Error| A::Error::custom(format!("input[{n}]: {e}"));
        while let Some(item) = list.next_element().map_err(|e| at(n, e))? {
            room::<A::Error>(n)?;
            match item {
                Item::Text(text) => texts.push(text),
                Item::Id(id) => own.push(id),
                Item::Ids(ids) => lists.push(ids),
            }
            let kinds = [texts.is_empty(), own.is_empty(), lists.is_empty()];
            if kinds.iter().filter(|empty| !**empty).count() > 1 {
                let what = "texts, token ids and lists of them do not mix";
                return Err(at(n, A::Error::custom(what)));
            }
            n += 1;
        }
        Ok(match (own.is_empty(), lists.is_empty()) {
            (false, _) => Input::Ids(vec![own]),
            (_, false) => Input::Ids(lists),
            _ => Input::Texts(texts),
        })
    }
}

impl<'de> Deserialize<'de> for Input {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(InputVisitor)
    }
}

/// A text to be ranked: a string, or `{"text": "…"}`.
#[derive(Clone, Debug, PartialEq, Eq, ToSchema)]
#[schema(value_type = String)]
pub struct Document(pub String);

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match Item::deserialize(from)? {
            Item::Text(text) => Ok(Self(text)),
            _ => Err(D::Error::custom("a document is a text or {\"text\": …}")),
        }
    }
}

/// How a vector is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum Encoding {
    /// A list of numbers.
    #[default]
    Float,
    /// The bytes of its little-endian 32-bit floats, in base64.
    Base64,
    /// One bit a component, set where it is positive, eight to a number from -128 to 127.
    Binary,
    /// The same from 0 to 255.
    Ubinary,
}

impl Encoding {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "float" => Self::Float,
            "base64" => Self::Base64,
            "binary" => Self::Binary,
            "ubinary" => Self::Ubinary,
            _ => return None,
        })
    }

    /// A vector, written so.
    ///
    /// # Errors
    /// If the vector cannot be: it never happens to what a device returns.
    pub fn write(self, vector: Vec<f32>) -> Result<Embedding, Refusal> {
        let precision = match self {
            Self::Float => return Ok(Embedding::Floats(vector)),
            Self::Base64 => Precision::Float32,
            Self::Binary => Precision::Binary,
            Self::Ubinary => Precision::Ubinary,
        };
        let quantizer = Quantizer::new(precision, vector.len());
        let quantized = quantizer.quantize(&vector).map_err(Refusal::engine)?;
        Ok(match quantized {
            Quantized::Int8(codes) => {
                Embedding::Integers(codes.into_iter().map(i16::from).collect())
            }
            Quantized::Uint8(codes) => {
                Embedding::Integers(codes.into_iter().map(i16::from).collect())
            }
            other => Embedding::Base64(BASE64_STANDARD.encode(other.to_le_bytes())),
        })
    }
}

/// A name, or a list of just one.
impl<'de> Deserialize<'de> for Encoding {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let name = match Input::deserialize(from)? {
            Input::Texts(mut names) if names.len() == 1 => names.remove(0),
            Input::Texts(names) if !names.is_empty() => {
                return Err(D::Error::custom("one encoding a request, please"));
            }
            _ => return Err(D::Error::custom("the name of an encoding is meant")),
        };
        Self::named(&name).ok_or_else(|| {
            let known = "float, base64, binary and ubinary";
            D::Error::custom(format!("encoding `{name}` is none of {known}"))
        })
    }
}

/// A vector in an answer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Embedding {
    /// [`Encoding::Float`]
    Floats(Vec<f32>),
    /// [`Encoding::Base64`]
    Base64(String),
    /// [`Encoding::Binary`] and [`Encoding::Ubinary`]
    Integers(Vec<i16>),
}

/// Bytes of a number in an answer, such as `-0.0123456789,`; hardly one has more.
pub const NUMBER: usize = 14;

impl Embedding {
    /// Bytes that it takes in an answer.
    pub fn room(&self) -> usize {
        match self {
            Self::Floats(values) => values.len() * NUMBER,
            Self::Base64(text) => text.len(),
            Self::Integers(codes) => codes.len() * 5,
        }
    }
}

/// A request for embeddings, OpenAI's and Jina's fields in one.
#[derive(Debug, Deserialize, ToSchema)]
pub struct EmbeddingsRequest {
    /// A text, several, `{"text": …}`, token ids, or lists of them.
    #[schema(value_type = Vec<String>, example = json!(["A blue cat", "A cat that is blue"]))]
    pub input: Input,
    /// Which model: not needed if there is one.
    #[serde(default)]
    pub model: Option<String>,
    /// OpenAI's name for the encoding.
    #[serde(default)]
    pub encoding_format: Option<Encoding>,
    /// Jina's name for it.
    #[serde(default)]
    pub embedding_type: Option<Encoding>,
    /// LlamaIndex's name for it.
    #[serde(default)]
    pub encoding_type: Option<Encoding>,
    /// Leading components to keep; 0 and null for all.
    #[serde(default)]
    pub dimensions: Option<u64>,
    /// Whether vectors have unit length: true unless said otherwise.
    #[serde(default)]
    pub normalized: Option<bool>,
    /// Whether a text over the limit is cut, or refused.
    #[serde(default)]
    pub truncate: Option<bool>,
    /// Whether the texts are consecutive chunks of one document, which is read as a whole.
    #[serde(default)]
    pub late_chunking: Option<bool>,
}

impl EmbeddingsRequest {
    /// The encoding by any of its names.
    ///
    /// # Errors
    /// If two of them contradict each other.
    pub fn encoding(&self) -> Result<Encoding, Refusal> {
        let named = [
            ("encoding_format", self.encoding_format),
            ("embedding_type", self.embedding_type),
            ("encoding_type", self.encoding_type),
        ];
        let mut named = named.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let Some((first, encoding)) = named.next() else { return Ok(Encoding::default()) };
        match named.find(|(_, other)| *other != encoding) {
            None => Ok(encoding),
            Some((other, _)) => {
                Err(Refusal::bad(format!("`{first}` and `{other}` differ")).about(other))
            }
        }
    }
}

/// Vectors, OpenAI's way.
#[derive(Debug, Serialize, ToSchema)]
pub struct EmbeddingsAnswer {
    /// `list`
    pub object: &'static str,
    /// One for each input, in order.
    pub data: Vec<EmbeddingsItem>,
    /// The model that made them.
    pub model: String,
    /// What was read.
    pub usage: Usage,
}

/// A vector and whose it is.
#[derive(Debug, Serialize, ToSchema)]
pub struct EmbeddingsItem {
    /// `embedding`
    pub object: &'static str,
    /// Place of the input.
    pub index: usize,
    /// The vector.
    pub embedding: Embedding,
}

/// Tokens that the model read, special ones included.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub struct Usage {
    /// Of the input.
    pub prompt_tokens: usize,
    /// The same: nothing is generated.
    pub total_tokens: usize,
}

impl Usage {
    /// So many tokens.
    pub fn of(tokens: usize) -> Self {
        Self { prompt_tokens: tokens, total_tokens: tokens }
    }
}
