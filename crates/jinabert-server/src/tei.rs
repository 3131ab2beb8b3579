//! Embeddings and cosine similarities in text-embeddings-inference's dialect: `/embed`,
//! `/embed_all`, `/similarity`.

use crate::{
    call::{Call, SharedState, parse},
    error::ApiError,
    openai,
    state::{Capability, ServedModel, State},
    tasks,
    wire::{Input, InputVisitor, NUMBER_BYTES, object, optional_object},
};
use axum::{
    body::Body,
    http::{Request, Response, StatusCode},
};
use jinabert::{Embedded, EncodeJob, EncodeOptions, Error, TruncationSide, text::Tokenized};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};
use std::{fmt, sync::Arc};
use utoipa::ToSchema;

/// Side of a text over the limit that is truncated.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
pub enum Direction {
    /// The first tokens are dropped.
    #[serde(alias = "left")]
    Left,
    /// The last tokens are dropped.
    #[serde(alias = "right")]
    Right,
}

impl Direction {
    /// Options with this truncation side.
    pub fn of(direction: Option<Self>, options: EncodeOptions) -> EncodeOptions {
        let truncation_side = match direction {
            Some(Self::Left) => TruncationSide::Left,
            _ => TruncationSide::Right,
        };
        EncodeOptions { truncation_side, ..options }
    }
}

/// Request for embeddings.
#[derive(Debug, Deserialize, ToSchema)]
pub struct EmbedRequest {
    /// A text, several texts, token ids, or lists of token ids.
    #[schema(value_type = Vec<String>, example = json!(["A blue cat", "A cat that is blue"]))]
    inputs: Input,
    /// Truncate a text over the limit instead of refusing it.
    #[serde(default)]
    truncate: Option<bool>,
    /// Side of the text that is truncated.
    #[serde(default)]
    truncation_direction: Option<Direction>,
    /// Scale vectors to unit length.
    #[serde(default)]
    normalize: Option<bool>,
    /// Number of leading components to keep.
    #[serde(default)]
    dimensions: Option<u64>,
    /// Name of the prompt put before each text.
    #[serde(default)]
    prompt_name: Option<String>,
}

impl EmbedRequest {
    fn tokenize(
        self,
        state: &State,
        model: &ServedModel,
    ) -> Result<(Vec<Tokenized>, EncodeOptions), ApiError> {
        let embedder = model.embedder();
        let (prompt, adapter) = tasks::prompt(embedder, self.prompt_name)?;
        state.limits.batch("inputs", self.inputs.len())?;
        let options =
            state.encode_options(embedder, self.dimensions, self.normalize, self.truncate)?;
        let options = Direction::of(self.truncation_direction, options);
        let options = EncodeOptions { adapter: adapter.or(options.adapter), ..options };
        let inputs = ("inputs", &self.inputs);
        Ok((openai::tokenize(state, embedder, inputs, &prompt, options)?, options))
    }
}

/// A vector for each text.
#[utoipa::path(post, path = "/embed", tag = "TEI", request_body = EmbedRequest,
    responses((status = 200, body = Vec<Vec<f32>>)))]
pub async fn embed(state: SharedState, request: Request<Body>) -> Response<Body> {
    Call::handle(state, request, vectors).await
}

async fn vectors(call: &mut Call) -> Result<Vec<Vec<f32>>, ApiError> {
    let prepared = call.prepare(|state, body| Prepared::vectors(state, parse(body)?)).await?;
    let vectors = into_vectors(prepared.embed(call).await?);
    call.stats.response_bytes = vectors.iter().map(Vec::len).sum::<usize>() * NUMBER_BYTES;
    Ok(vectors)
}

fn into_vectors(embedded: Vec<Embedded>) -> Vec<Vec<f32>> {
    embedded.into_iter().map(|embedded| embedded.vector.into_inner()).collect()
}

/// Request for embeddings or similarities, ready to be computed.
struct Prepared {
    job: EncodeJob<Vec<Embedded>>,
    model: Arc<ServedModel>,
    characters: usize,
}

impl Prepared {
    fn vectors(state: &State, request: EmbedRequest) -> Result<Self, ApiError> {
        let model = state.model(None, Capability::Embed)?;
        let characters = request.inputs.characters();
        let (tokenized, options) = request.tokenize(state, &model)?;
        let prepared = model.embedder().jobs().tokenized(tokenized, options);
        let job = prepared.map_err(ApiError::engine_in("inputs"))?;
        Ok(Self { job, model, characters })
    }

    /// Prepares a request for similarities; the source sentence is the last of its texts.
    fn cosines(state: &State, request: SimilarityRequest) -> Result<Self, ApiError> {
        let SimilarityRequest { inputs, parameters } = request;
        let parameters = parameters.unwrap_or_default();
        state.limits.batch("sentences", inputs.sentences.len())?;
        let model = state.model(None, Capability::Embed)?;
        let options =
            state.encode_options(model.embedder(), None, Some(true), parameters.truncate)?;
        let options = Direction::of(parameters.truncation_direction, options);
        let mut texts = inputs.sentences;
        texts.push(inputs.source_sentence);
        let characters = texts.iter().map(|text| text.chars().count()).sum();
        let embedder = model.embedder();
        let (prompt, adapter) = tasks::prompt(embedder, parameters.prompt_name)?;
        let options = EncodeOptions { adapter: adapter.or(options.adapter), ..options };
        let tokenized = embedder.tokenization().texts(&texts, &prompt, options);
        let prepared = tokenized.and_then(|texts| embedder.jobs().tokenized(texts, options));
        let source = texts.len() - 1;
        let field = |error: &Error| match error {
            Error::TooLong { index, .. } | Error::Input { index, .. } if *index == source => {
                "source_sentence"
            }
            _ => "sentences",
        };
        let job = prepared.map_err(|error| ApiError::engine_in(field(&error))(error))?;
        Ok(Self { job, model, characters })
    }

    async fn embed(self, call: &mut Call) -> Result<Vec<Embedded>, ApiError> {
        let embedded = call.compute(&self.model, self.job).await?;
        call.stats.record_embedded(&embedded, self.characters);
        Ok(embedded)
    }
}

/// The last hidden state of every token.
#[utoipa::path(post, path = "/embed_all", tag = "TEI", request_body = EmbedRequest,
    responses((status = 200, body = Vec<Vec<Vec<f32>>>)))]
pub async fn embed_all(state: SharedState, request: Request<Body>) -> Response<Body> {
    Call::handle(state, request, token_vectors).await
}

async fn token_vectors(call: &mut Call) -> Result<Vec<Rows>, ApiError> {
    let (prepared, model, characters, lengths) = call
        .prepare(|state, body| {
            let request: EmbedRequest = parse(body)?;
            let model = state.model(None, Capability::Embed)?;
            let characters = request.inputs.characters();
            let (tokenized, options) = request.tokenize(state, &model)?;
            let lengths: Vec<_> = tokenized.iter().map(Tokenized::lengths).collect();
            let tokens: usize = lengths.iter().map(|(tokens, _)| tokens).sum();
            let width = model.embedder().config().hidden as usize;
            let numbers = tokens * width;
            let limit = state.limits.answer;
            if numbers > limit {
                let message = format!(
                    "expected at most {limit} numbers in a response, got {numbers} for {tokens} tokens"
                );
                let status = StatusCode::PAYLOAD_TOO_LARGE;
                return Err(ApiError::new(status, message).about("inputs"));
            }
            let tokens = tokenized.into_iter().map(|text| text.tokens).collect();
            let prepared = model.embedder().jobs().each_token(tokens, options);
            let prepared = prepared.map_err(ApiError::engine_in("inputs"))?.map(move |hidden| {
                let rows = hidden.into_iter().map(|values| Rows { values, width });
                rows.collect::<Vec<_>>()
            });
            Ok((prepared, model, characters, lengths))
        })
        .await?;
    let rows = call.compute(&model, prepared).await?;
    call.stats.record(characters, rows.len(), lengths);
    call.stats.response_bytes =
        rows.iter().map(|rows| rows.values.len()).sum::<usize>() * NUMBER_BYTES;
    Ok(rows)
}

/// One vector for every token, serialised as a list of lists.
struct Rows {
    values: Vec<f32>,
    width: usize,
}

impl Serialize for Rows {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.values.chunks(self.width))
    }
}

/// Request for cosine similarities.
#[derive(Debug, Deserialize, ToSchema)]
pub struct SimilarityRequest {
    /// Texts to compare.
    #[serde(deserialize_with = "object")]
    inputs: SimilarityInputs,
    /// Options for reading the texts.
    #[serde(default, deserialize_with = "optional_object")]
    parameters: Option<SimilarityParameters>,
}

/// Texts to compare.
#[derive(Debug, Deserialize, ToSchema)]
pub struct SimilarityInputs {
    /// Text that the others are compared with.
    source_sentence: String,
    /// Texts to compare with the source.
    sentences: Vec<String>,
}

/// Options for reading the texts.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct SimilarityParameters {
    /// Truncate a text over the limit instead of refusing it.
    #[serde(default)]
    truncate: Option<bool>,
    /// Side of the text that is truncated.
    #[serde(default)]
    truncation_direction: Option<Direction>,
    /// Name of the prompt put before each text.
    #[serde(default)]
    prompt_name: Option<String>,
}

/// The cosine of one text with each of several.
#[utoipa::path(post, path = "/similarity", tag = "TEI", request_body = SimilarityRequest,
    responses((status = 200, body = Vec<f32>)))]
pub async fn similarity(state: SharedState, request: Request<Body>) -> Response<Body> {
    Call::handle(state, request, cosines).await
}

async fn cosines(call: &mut Call) -> Result<Vec<f32>, ApiError> {
    let prepared = call.prepare(|state, body| Prepared::cosines(state, parse(body)?)).await?;
    with_last(prepared.embed(call).await?)
}

/// Cosine similarities of the last vector with all others.
fn with_last(mut embedded: Vec<Embedded>) -> Result<Vec<f32>, ApiError> {
    let source = embedded.pop().ok_or_else(|| ApiError::empty("sentences"))?;
    Ok(embedded.iter().map(|sentence| sentence.vector.dot(&source.vector)).collect())
}

/// Request at `/`: for embeddings; if its inputs are an object with sentences, for similarities.
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
    #[serde(default, deserialize_with = "optional_object")]
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
            (None, None) => Err(A::Error::custom(
                "expected an object with `text` or `source_sentence`, got neither",
            )),
        }
    }
}

impl<'de> Deserialize<'de> for RootInputs {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(RootVisitor)
    }
}

/// Embeddings or similarities.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum RootAnswer {
    Vectors(Vec<Vec<f32>>),
    Cosines(Vec<f32>),
}

/// Serves `/`, as called by `huggingface_hub`: embeddings or, for an object, similarities.
pub async fn embed_or_similarity(state: SharedState, request: Request<Body>) -> Response<Body> {
    Call::handle(state, request, either).await
}

async fn either(call: &mut Call) -> Result<RootAnswer, ApiError> {
    let (prepared, compare) = call
        .prepare(|state, body| {
            let request: RootRequest = parse(body)?;
            let parameters = request.parameters;
            match request.inputs {
                RootInputs::Compare(inputs) => {
                    let request = SimilarityRequest { inputs, parameters };
                    Ok((Prepared::cosines(state, request)?, true))
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
                    Ok((Prepared::vectors(state, request)?, false))
                }
            }
        })
        .await?;
    let embedded = prepared.embed(call).await?;
    Ok(if compare {
        RootAnswer::Cosines(with_last(embedded)?)
    } else {
        RootAnswer::Vectors(into_vectors(embedded))
    })
}
