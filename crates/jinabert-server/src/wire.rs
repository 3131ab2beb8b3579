//! JSON of requests and responses.
//!
//! `null` means the same as an absent field, everywhere; unknown fields are ignored, since clients
//! of three dialects send theirs to one address.

use crate::error::ApiError;
use base64::{Engine, prelude::BASE64_STANDARD};
use jinabert::{
    Precision,
    precision::{Quantized, Quantizer},
};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};
use std::{fmt, marker::PhantomData};
use utoipa::ToSchema;

/// One text, several texts, or lists of token ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Texts.
    Texts(Vec<String>),
    /// Token ids of texts, in the vocabulary of the model.
    Ids(Vec<Vec<u32>>),
}

impl Input {
    /// Number of inputs.
    pub fn len(&self) -> usize {
        match self {
            Self::Texts(texts) => texts.len(),
            Self::Ids(lists) => lists.len(),
        }
    }

    /// Total number of characters of the texts.
    pub fn characters(&self) -> usize {
        match self {
            Self::Texts(texts) => texts.iter().map(|text| text.chars().count()).sum(),
            Self::Ids(_) => 0,
        }
    }
}

/// Item of a list.
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

/// Maximum items of any list: above every configurable limit, and a bound for a body of commas.
const MAX_ITEMS: usize = 1 << 20;

/// Checks that a list of `items` items may have one more.
pub fn check_length<E: serde::de::Error>(items: usize) -> Result<(), E> {
    if items < MAX_ITEMS {
        return Ok(());
    }
    Err(E::custom(format!("expected at most {MAX_ITEMS} items in a list, got more")))
}

/// Visitor for objects only: serde also accepts a list, with its items as the fields in order.
struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<T, A::Error> {
        Err(A::Error::custom("expected an object, got a list"))
    }
}

/// Deserialises an object; a list is an error.
pub fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    from.deserialize_any(ObjectVisitor(PhantomData))
}

/// Deserialises an object or `null`.
pub fn optional_object<'de, D, T>(from: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Object<T>(T);

    impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            object(from).map(Self)
        }
    }

    Ok(Option::<Object<T>>::deserialize(from)?.map(|object| object.0))
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
        let error = |_| E::custom(format!("expected a token id of 32 bits, got {id}"));
        u32::try_from(id).map(Item::Id).map_err(error)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Item, A::Error> {
        let object = TextObject::deserialize(MapAccessDeserializer::new(map))?;
        object.text.map(Item::Text).ok_or_else(|| {
            A::Error::custom(
                "expected an object with `text`, got one without: only texts can be embedded",
            )
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Item, A::Error> {
        let mut ids = Vec::new();
        while let Some(id) = list.next_element()? {
            check_length::<A::Error>(ids.len())?;
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

/// Visitor for an [`Input`].
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
            _ => Err(A::Error::custom("expected an object with `text`")),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Input, A::Error> {
        let mut n = 0;
        let mut texts = Vec::new();
        let mut ids = Vec::new();
        let mut lists = Vec::new();
        let at = |n: usize, e: A::Error| A::Error::custom(format!("input[{n}]: {e}"));
        while let Some(item) = list.next_element().map_err(|e| at(n, e))? {
            check_length::<A::Error>(n)?;
            match item {
                Item::Text(text) => texts.push(text),
                Item::Id(id) => ids.push(id),
                Item::Ids(list) => lists.push(list),
            }
            let kinds = [texts.is_empty(), ids.is_empty(), lists.is_empty()];
            if kinds.iter().filter(|empty| !**empty).count() > 1 {
                let what =
                    "expected only texts, only token ids or only lists of them, got a mixture";
                return Err(at(n, A::Error::custom(what)));
            }
            n += 1;
        }
        Ok(match (ids.is_empty(), lists.is_empty()) {
            (false, _) => Input::Ids(vec![ids]),
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

/// Document to rank: a string, or `{"text": "…"}`.
#[derive(Clone, Debug, PartialEq, Eq, ToSchema)]
#[schema(value_type = String)]
pub struct Document(pub String);

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match Item::deserialize(from)? {
            Item::Text(text) => Ok(Self(text)),
            _ => {
                Err(D::Error::custom("expected a document, a text or {\"text\": …}, got token ids"))
            }
        }
    }
}

/// Encoding of a vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum Encoding {
    /// List of numbers.
    #[default]
    Float,
    /// Base64 of the little-endian 32-bit floats.
    Base64,
    /// One bit per component, 1 if positive; eight per number, from -128 to 127.
    Binary,
    /// As binary, with numbers from 0 to 255.
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

    /// Encodes a vector.
    ///
    /// # Errors
    /// If the vector cannot be quantised, which does not occur for vectors of a device.
    pub fn write(self, vector: Vec<f32>) -> Result<Embedding, ApiError> {
        let precision = match self {
            Self::Float => return Ok(Embedding::Floats(vector)),
            Self::Base64 => Precision::Float32,
            Self::Binary => Precision::Binary,
            Self::Ubinary => Precision::Ubinary,
        };
        let quantizer = Quantizer::new(precision, vector.len());
        let quantized = quantizer.quantize(&vector).map_err(ApiError::engine)?;
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

/// A name, or a list with one name.
impl<'de> Deserialize<'de> for Encoding {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let name = match Input::deserialize(from)? {
            Input::Texts(mut names) if names.len() == 1 => names.remove(0),
            Input::Texts(names) if !names.is_empty() => {
                return Err(D::Error::custom("expected one encoding, got several"));
            }
            _ => return Err(D::Error::custom("expected the name of an encoding")),
        };
        Self::named(&name).ok_or_else(|| {
            let known = "float, base64, binary and ubinary";
            D::Error::custom(format!("encoding: expected one of {known}, got `{name}`"))
        })
    }
}

/// Vector in a response.
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

/// Bytes of a number in a response, such as `-0.0123456789,`; very few are longer.
pub const NUMBER_BYTES: usize = 14;

impl Embedding {
    /// Approximate size in a response, in bytes.
    pub fn estimated_bytes(&self) -> usize {
        match self {
            Self::Floats(values) => values.len() * NUMBER_BYTES,
            Self::Base64(text) => text.len(),
            Self::Integers(codes) => codes.len() * 5,
        }
    }
}

/// Request for embeddings, with the fields of OpenAI and Jina.
#[derive(Debug, Deserialize, ToSchema)]
pub struct EmbeddingsRequest {
    /// A text, several texts, `{"text": …}`, token ids, or lists of token ids.
    #[schema(value_type = Vec<String>, example = json!(["A blue cat", "A cat that is blue"]))]
    pub input: Input,
    /// Name of the model; optional if there is only one.
    #[serde(default)]
    pub model: Option<String>,
    /// Encoding of vectors, by OpenAI's name.
    #[serde(default)]
    pub encoding_format: Option<Encoding>,
    /// Encoding of vectors, by Jina's name.
    #[serde(default)]
    pub embedding_type: Option<Encoding>,
    /// Encoding of vectors, by LlamaIndex's name.
    #[serde(default)]
    pub encoding_type: Option<Encoding>,
    /// Number of leading components to keep; 0 or null for all.
    #[serde(default)]
    pub dimensions: Option<u64>,
    /// Scale vectors to unit length; default true.
    #[serde(default)]
    pub normalized: Option<bool>,
    /// Truncate a text over the limit instead of refusing it.
    #[serde(default)]
    pub truncate: Option<bool>,
    /// Late chunking: the texts are consecutive chunks of one document, encoded as a whole.
    #[serde(default)]
    pub late_chunking: Option<bool>,
    /// Task of the texts, by Jina's name, for a model with adapters: `retrieval.query`,
    /// `retrieval.passage`, `separation`, `classification` or `text-matching`; ignored by a model
    /// without tasks.
    #[serde(default)]
    pub task: Option<String>,
    /// Task of the texts, by Cohere's name: `search_query`, `search_document`, `classification` or
    /// `clustering`; ignored by a model without tasks.
    #[serde(default)]
    pub input_type: Option<String>,
}

impl EmbeddingsRequest {
    /// Encoding of vectors, by any of its names.
    ///
    /// # Errors
    /// If two of the fields contradict each other.
    pub fn encoding(&self) -> Result<Encoding, ApiError> {
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
                let message =
                    format!("expected one encoding, got different ones in `{first}` and `{other}`");
                Err(ApiError::bad(message).about(other))
            }
        }
    }
}

/// Embeddings in OpenAI's format.
#[derive(Debug, Serialize, ToSchema)]
pub struct EmbeddingsAnswer {
    /// `list`
    pub object: &'static str,
    /// One item per input, in order.
    pub data: Vec<EmbeddingsItem>,
    /// Name of the model.
    pub model: String,
    /// Number of tokens read.
    pub usage: Usage,
}

/// Embedding of one input.
#[derive(Debug, Serialize, ToSchema)]
pub struct EmbeddingsItem {
    /// `embedding`
    pub object: &'static str,
    /// Index of the input.
    pub index: usize,
    /// Vector in the requested encoding.
    pub embedding: Embedding,
}

/// Number of tokens read by the model, special tokens included.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub struct Usage {
    /// Tokens of the input.
    pub prompt_tokens: usize,
    /// Same as `prompt_tokens`: nothing is generated.
    pub total_tokens: usize,
}

impl Usage {
    /// Usage for a number of tokens.
    pub fn of(tokens: usize) -> Self {
        Self { prompt_tokens: tokens, total_tokens: tokens }
    }
}
