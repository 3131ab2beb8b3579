//! Vectors and cosines as text-embeddings-inference has them: `/embed`, `/embed_all`,
//! `/similarity`.

use super::{
    call::{Call, parse, route},
    openai,
    refusal::{Dialect, Refusal},
    state::{Served, State, Use},
    wire::{Input, InputVisitor, NUMBER},
};
use crate::{Embedded, End, Error, Prepared, Wanted, text::Tokenized};
use axum::{
    body::Body,
    extract,
    http::{Request, Response, StatusCode},
};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};
use std::{fmt, sync::Arc};
use utoipa::ToSchema;

/// Which end of a text over the limit is dropped.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
pub enum Direction {
    /// Its first tokens.
    #[serde(alias = "left")]
    Left,
    /// Its last tokens.
    #[serde(alias = "right")]
    Right,
}

impl Direction {
    /// What is wanted, cut there.
    pub fn of(direction: Option<Self>, wanted: Wanted) -> Wanted {
        let drop = match direction {
            Some(Self::Left) => End::First,
            _ => End::Last,
        };
        Wanted { drop, ..wanted }
    }
}

/// A request for vectors.
#[derive(Debug, Deserialize, ToSchema)]
pub struct EmbedRequest {
    /// A text, several, token ids, or lists of them.
    #[schema(value_type = Vec<String>, example = json!(["A blue cat", "A cat that is blue"]))]
    inputs: Input,
    /// Whether a text over the limit is cut, or refused.
    #[serde(default)]
    truncate: Option<bool>,
    /// Which end of it is dropped.
    #[serde(default)]
    truncation_direction: Option<Direction>,
    /// Whether vectors have unit length.
    #[serde(default)]
    normalize: Option<bool>,
    /// Leading components to keep.
    #[serde(default)]
    dimensions: Option<u64>,
    /// Models of this family know no prompts.
    #[serde(default)]
    prompt_name: Option<String>,
}

impl EmbedRequest {
    fn read(self, state: &State, model: &Served) -> Result<(Vec<Tokenized>, Wanted), Refusal> {
        if let Some(name) = &self.prompt_name {
            let name: String = name.chars().take(100).collect();
            let message = format!("`prompt_name` `{name}`: this model has no prompts");
            return Err(Refusal::bad(message).about("prompt_name"));
        }
        let inputs = &self.inputs;
        state.limits.batch("inputs", inputs.len())?;
        let embedder = model.embedder();
        let wanted = state.wanted(embedder, self.dimensions, self.normalize, self.truncate)?;
        let wanted = Direction::of(self.truncation_direction, wanted);
        Ok((openai::tokenize(state, embedder, ("inputs", inputs), wanted)?, wanted))
    }
}

route!(embed, vectors, "embed", Tei, #[doc = "A vector for each text."],
    #[utoipa::path(post, path = "/embed", tag = "TEI", request_body = EmbedRequest,
        responses((status = 200, body = Vec<Vec<f32>>)))]);

async fn vectors(call: &mut Call) -> Result<Vec<Vec<f32>>, Refusal> {
    let asked = call.prepare(|state, body| Asked::vectors(state, parse(body)?)).await?;
    let vectors = inner(asked.embed(call).await?);
    call.report.room = vectors.iter().map(Vec::len).sum::<usize>() * NUMBER;
    Ok(vectors)
}

fn inner(embedded: Vec<Embedded>) -> Vec<Vec<f32>> {
    embedded.into_iter().map(|embedded| embedded.vector.into_inner()).collect()
}

/// What a request for vectors or cosines comes to.
struct Asked {
    prepared: Prepared<Vec<Embedded>>,
    model: Arc<Served>,
    characters: usize,
}

impl Asked {
    fn vectors(state: &State, request: EmbedRequest) -> Result<Self, Refusal> {
        let model = state.model(None, Use::Embed)?;
        let characters = request.inputs.characters();
        let (tokenized, wanted) = request.read(state, &model)?;
        let prepared = model.embedder().prepare_tokenized(tokenized, wanted);
        let prepared = prepared.map_err(Refusal::engine_in("inputs"))?;
        Ok(Self { prepared, model, characters })
    }

    /// The source is the last of the vectors.
    fn cosines(state: &State, request: SimilarityRequest) -> Result<Self, Refusal> {
        let SimilarityRequest { inputs, parameters } = request;
        let parameters = parameters.unwrap_or_default();
        state.limits.batch("sentences", inputs.sentences.len())?;
        let model = state.model(None, Use::Embed)?;
        let wanted = state.wanted(model.embedder(), None, Some(true), parameters.truncate)?;
        let wanted = Direction::of(parameters.truncation_direction, wanted);
        let mut texts = inputs.sentences;
        texts.push(inputs.source_sentence);
        let characters = texts.iter().map(|text| text.chars().count()).sum();
        let prepared = model.embedder().prepare(&texts, wanted);
        let source = texts.len() - 1;
        let field = |error: &Error| match error {
            Error::TooLong { index, .. } | Error::Input { index, .. } if *index == source => {
                "source_sentence"
            }
            _ => "sentences",
        };
        let prepared = prepared.map_err(|error| Refusal::engine_in(field(&error))(error))?;
        Ok(Self { prepared, model, characters })
    }

    async fn embed(self, call: &mut Call) -> Result<Vec<Embedded>, Refusal> {
        let embedded = call.compute(&self.model, self.prepared).await?;
        call.report.embedded(&embedded, self.characters);
        Ok(embedded)
    }
}

route!(embed_all, token_vectors, "embed_all", Tei, #[doc = "The last hidden state of every token."],
    #[utoipa::path(post, path = "/embed_all", tag = "TEI", request_body = EmbedRequest,
        responses((status = 200, body = Vec<Vec<Vec<f32>>>)))]);

async fn token_vectors(call: &mut Call) -> Result<Vec<Rows>, Refusal> {
    let (prepared, model, characters, lengths) = call
        .prepare(|state, body| {
            let request: EmbedRequest = parse(body)?;
            let model = state.model(None, Use::Embed)?;
            let characters = request.inputs.characters();
            let (tokenized, wanted) = request.read(state, &model)?;
            let lengths: Vec<_> = tokenized.iter().map(Tokenized::lengths).collect();
            let tokens: usize = lengths.iter().map(|(tokens, _)| tokens).sum();
            let width = model.embedder().config().hidden as usize;
            let (numbers, limit) = (tokens * width, state.limits.answer);
            if numbers > limit {
                let message = format!(
                    "{tokens} tokens come to {numbers} numbers, over the limit of {limit} an answer"
                );
                let status = StatusCode::PAYLOAD_TOO_LARGE;
                return Err(Refusal::new(status, message).about("inputs"));
            }
            let tokens = tokenized.into_iter().map(|text| text.tokens).collect();
            let prepared = model.embedder().prepare_each_token(tokens, wanted);
            let prepared = prepared.map_err(Refusal::engine_in("inputs"))?.map(move |hidden| {
                let rows = hidden.into_iter().map(|values| Rows { values, width });
                rows.collect::<Vec<_>>()
            });
            Ok((prepared, model, characters, lengths))
        })
        .await?;
    let rows = call.compute(&model, prepared).await?;
    call.report.read(characters, rows.len(), lengths);
    call.report.room = rows.iter().map(|rows| rows.values.len()).sum::<usize>() * NUMBER;
    Ok(rows)
}

/// A vector for every token, written as a list of lists.
struct Rows {
    values: Vec<f32>,
    width: usize,
}

impl Serialize for Rows {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.values.chunks(self.width))
    }
}

/// A request for cosines.
#[derive(Debug, Deserialize, ToSchema)]
pub struct SimilarityRequest {
    /// What is compared.
    inputs: SimilarityInputs,
    /// How long texts are read.
    #[serde(default)]
    parameters: Option<SimilarityParameters>,
}

/// What is compared.
#[derive(Debug, Deserialize, ToSchema)]
pub struct SimilarityInputs {
    /// With which text.
    source_sentence: String,
    /// Which texts.
    sentences: Vec<String>,
}

/// How long texts are read.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct SimilarityParameters {
    /// Whether a text over the limit is cut, or refused.
    #[serde(default)]
    truncate: Option<bool>,
    /// Which end of it is dropped.
    #[serde(default)]
    truncation_direction: Option<Direction>,
}

route!(similarity, cosines, "similarity", Tei, #[doc = "The cosine of one text with each of several."],
    #[utoipa::path(post, path = "/similarity", tag = "TEI", request_body = SimilarityRequest,
        responses((status = 200, body = Vec<f32>)))]);

async fn cosines(call: &mut Call) -> Result<Vec<f32>, Refusal> {
    let asked = call.prepare(|state, body| Asked::cosines(state, parse(body)?)).await?;
    with_last(asked.embed(call).await?)
}

/// Cosines of the last vector with all others.
fn with_last(mut embedded: Vec<Embedded>) -> Result<Vec<f32>, Refusal> {
    let source = embedded.pop().ok_or_else(|| Refusal::empty("sentences"))?;
    Ok(embedded.iter().map(|sentence| sentence.vector.dot(&source.vector)).collect())
}

/// A request at `/`: one for vectors, or, if its inputs are an object with sentences, for cosines.
#[derive(Debug, Deserialize)]
struct RootRequest {
    inputs: RootInputs,
    #[serde(default)]
    truncate: Option<bool>,
    #[serde(default)]
    truncation_direction: Option<Direction>,
    #[serde(default)]
    normalize: Option<bool>,
    #[serde(default)]
    dimensions: Option<u64>,
    #[serde(default)]
    prompt_name: Option<String>,
    #[serde(default)]
    parameters: Option<SimilarityParameters>,
}

#[derive(Debug)]
enum RootInputs {
    Embed(Input),
    Compare(SimilarityInputs),
}

struct RootVisitor;

impl<'de> Visitor<'de> for RootVisitor {
    type Value = RootInputs;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("texts, token ids, or an object with `source_sentence` and `sentences`")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<RootInputs, E> {
        InputVisitor.visit_str(text).map(RootInputs::Embed)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<RootInputs, A::Error> {
        InputVisitor.visit_seq(list).map(RootInputs::Embed)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RootInputs, A::Error> {
        #[derive(Deserialize)]
        struct Object {
            text: Option<String>,
            source_sentence: Option<String>,
            sentences: Option<Vec<String>>,
        }
        let object = Object::deserialize(MapAccessDeserializer::new(map))?;
        match (object.source_sentence, object.text) {
            (Some(source_sentence), _) => {
                let missing = || A::Error::missing_field("sentences");
                let sentences = object.sentences.ok_or_else(missing)?;
                Ok(RootInputs::Compare(SimilarityInputs { source_sentence, sentences }))
            }
            (None, Some(text)) => Ok(RootInputs::Embed(Input::Texts(vec![text]))),
            (None, None) => Err(A::Error::custom("an object without `text` or `source_sentence`")),
        }
    }
}

impl<'de> Deserialize<'de> for RootInputs {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(RootVisitor)
    }
}

/// Vectors or cosines.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum RootAnswer {
    Vectors(Vec<Vec<f32>>),
    Cosines(Vec<f32>),
}

/// What `/` is asked by `huggingface_hub`: vectors, or, of an object, cosines.
pub async fn embed_or_similarity(
    extract::State(state): extract::State<Arc<State>>,
    request: Request<Body>,
) -> Response<Body> {
    match Call::begin(state, "embed", Dialect::Tei, request).await {
        Ok(mut call) => {
            let result = either(&mut call).await;
            call.end(result).await
        }
        Err(refused) => *refused,
    }
}

async fn either(call: &mut Call) -> Result<RootAnswer, Refusal> {
    let (asked, compared) = call
        .prepare(|state, body| {
            let request: RootRequest = parse(body)?;
            let parameters = request.parameters;
            match request.inputs {
                RootInputs::Compare(inputs) => {
                    let request = SimilarityRequest { inputs, parameters };
                    Ok((Asked::cosines(state, request)?, true))
                }
                RootInputs::Embed(inputs) => {
                    let request = EmbedRequest {
                        inputs,
                        truncate: request.truncate,
                        truncation_direction: request.truncation_direction,
                        normalize: request.normalize,
                        dimensions: request.dimensions,
                        prompt_name: request.prompt_name,
                    };
                    Ok((Asked::vectors(state, request)?, false))
                }
            }
        })
        .await?;
    let embedded = asked.embed(call).await?;
    Ok(match compared {
        true => RootAnswer::Cosines(with_last(embedded)?),
        false => RootAnswer::Vectors(inner(embedded)),
    })
}
