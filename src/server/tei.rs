//! The routes of text-embeddings-inference.

use super::{
    call::{Call, parse},
    openai,
    refusal::{Dialect, Refusal},
    state::{Served, State},
    wire::Input,
};
use crate::{
    Embedded, End, Wanted,
    text::{Piece, Tokenized},
};
use axum::{
    Json,
    body::Body,
    extract,
    http::{Request, Response, StatusCode},
    response::IntoResponse,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
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
        let (inputs, limit) = (&self.inputs, state.limits.client_batch);
        if inputs.len() == 0 {
            return Err(Refusal::empty("inputs"));
        }
        if inputs.len() > limit {
            return Err(Refusal::too_many("inputs", inputs.len(), limit));
        }
        let embedder = model.embedder();
        let wanted = state.wanted(embedder, self.dimensions, self.normalize, self.truncate)?;
        let wanted = Direction::of(self.truncation_direction, wanted);
        Ok((openai::tokenize(state, embedder, inputs, wanted)?, wanted))
    }
}

/// Answers a request of one of the routes here.
macro_rules! route {
    ($name:ident, $run:ident, $method:literal, #[$docs:meta], #[$path:meta]) => {
        #[$docs]
        #[$path]
        pub async fn $name(
            extract::State(state): extract::State<Arc<State>>,
            request: Request<Body>,
        ) -> Response<Body> {
            match Call::begin(state, $method, Dialect::Tei, request).await {
                Ok(mut call) => {
                    let result = $run(&mut call).await;
                    call.end(result)
                }
                Err(refused) => *refused,
            }
        }
    };
}

route!(embed, vectors, "embed", #[doc = "A vector for each text."],
    #[utoipa::path(post, path = "/embed", tag = "TEI", request_body = EmbedRequest,
        responses((status = 200, body = Vec<Vec<f32>>)))]);

async fn vectors(call: &mut Call) -> Result<Vec<Vec<f32>>, Refusal> {
    let (prepared, model, characters) = call
        .prepare(|state, body| {
            let request: EmbedRequest = parse(body)?;
            let model = state.model(None, false)?;
            let characters = request.inputs.characters();
            let (tokenized, wanted) = request.read(state, &model)?;
            let prepared = model.embedder().prepare_tokenized(tokenized, wanted);
            Ok((prepared.map_err(Refusal::engine)?, model, characters))
        })
        .await?;
    let embedded: Vec<Embedded> = call.compute(&model, prepared).await?;
    call.report.characters = characters;
    call.report.inputs = embedded.len();
    call.report.tokens = embedded.iter().map(|embedded| embedded.tokens).sum();
    call.report.truncated = embedded.iter().filter(|one| one.truncated.is_some()).count();
    Ok(embedded.into_iter().map(|embedded| embedded.vector.into_inner()).collect())
}

route!(embed_all, token_vectors, "embed_all", #[doc = "The last hidden state of every token."],
    #[utoipa::path(post, path = "/embed_all", tag = "TEI", request_body = EmbedRequest,
        responses((status = 200, body = Vec<Vec<Vec<f32>>>)))]);

async fn token_vectors(call: &mut Call) -> Result<Vec<Vec<Vec<f32>>>, Refusal> {
    let (prepared, model, characters, report) = call
        .prepare(|state, body| {
            let request: EmbedRequest = parse(body)?;
            let model = state.model(None, false)?;
            let characters = request.inputs.characters();
            let (tokenized, wanted) = request.read(state, &model)?;
            let lengths = tokenized.iter().map(|text| (text.tokens.len(), text.full_length));
            let report: Vec<(usize, usize)> = lengths.collect();
            let tokens: usize = report.iter().map(|(tokens, _)| tokens).sum();
            let (numbers, limit) = (tokens * wanted_width(&model), state.limits.answer);
            if numbers > limit {
                let message = format!(
                    "{tokens} tokens come to {numbers} numbers, over the limit of {limit} an answer"
                );
                let status = StatusCode::PAYLOAD_TOO_LARGE;
                return Err(Refusal::new(status, message).about("inputs"));
            }
            let tokens = tokenized.into_iter().map(|text| text.tokens).collect();
            let prepared = model.embedder().prepare_each_token(tokens, wanted);
            Ok((prepared.map_err(Refusal::engine)?, model, characters, report))
        })
        .await?;
    let hidden = call.compute(&model, prepared).await?;
    call.report.characters = characters;
    call.report.inputs = hidden.len();
    call.report.tokens = report.iter().map(|(tokens, _)| tokens).sum();
    call.report.truncated = report.iter().filter(|(tokens, full)| full > tokens).count();
    let rows =
        |hidden: &Vec<f32>| hidden.chunks(wanted_width(&model)).map(<[f32]>::to_vec).collect();
    Ok(hidden.iter().map(rows).collect())
}

/// Components of a token's vector.
fn wanted_width(model: &Served) -> usize {
    model.embedder().config().hidden as usize
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

route!(similarity, cosines, "similarity", #[doc = "The cosine of one text with each of several."],
    #[utoipa::path(post, path = "/similarity", tag = "TEI", request_body = SimilarityRequest,
        responses((status = 200, body = Vec<f32>)))]);

async fn cosines(call: &mut Call) -> Result<Vec<f32>, Refusal> {
    let (prepared, model, characters) = call
        .prepare(|state, body| {
            let SimilarityRequest { inputs, parameters } = parse(body)?;
            let parameters = parameters.unwrap_or_default();
            let limit = state.limits.client_batch;
            if inputs.sentences.is_empty() {
                return Err(Refusal::empty("sentences"));
            }
            if inputs.sentences.len() > limit {
                return Err(Refusal::too_many("sentences", inputs.sentences.len(), limit));
            }
            let model = state.model(None, false)?;
            let wanted = state.wanted(model.embedder(), None, Some(true), parameters.truncate)?;
            let wanted = Direction::of(parameters.truncation_direction, wanted);
            let mut texts = inputs.sentences;
            texts.push(inputs.source_sentence);
            let characters = texts.iter().map(|text| text.chars().count()).sum();
            let prepared = model.embedder().prepare(&texts, wanted).map_err(Refusal::engine)?;
            Ok((prepared, model, characters))
        })
        .await?;
    let mut embedded: Vec<Embedded> = call.compute(&model, prepared).await?;
    call.report.characters = characters;
    call.report.inputs = embedded.len();
    call.report.tokens = embedded.iter().map(|embedded| embedded.tokens).sum();
    call.report.truncated = embedded.iter().filter(|one| one.truncated.is_some()).count();
    let source = embedded.pop().ok_or_else(|| Refusal::empty("sentences"))?;
    Ok(embedded.iter().map(|sentence| sentence.vector.dot(&source.vector)).collect())
}

/// Texts to be classified.
#[derive(Debug, Deserialize, ToSchema)]
pub struct PredictRequest {
    /// A text, a pair of texts, or a list of lists of one or two texts.
    #[schema(value_type = Vec<Vec<String>>, example = json!([["What is a panda?", "A bear"]]))]
    inputs: Value,
    /// Logits instead of probabilities.
    #[serde(default)]
    raw_scores: Option<bool>,
    /// Whether a text over the limit is cut, or refused.
    #[serde(default)]
    truncate: Option<bool>,
    /// Which end of it is dropped.
    #[serde(default)]
    truncation_direction: Option<Direction>,
}

/// What a text is, and how surely.
#[derive(Debug, Serialize, ToSchema)]
pub struct Prediction {
    /// From 0 to 1, or a logit.
    score: f32,
    /// The name of the class.
    label: String,
}

/// Classes of one text, or of each of several.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Predictions {
    /// Of one.
    One(Vec<Prediction>),
    /// Of each.
    Each(Vec<Vec<Prediction>>),
}

/// One text or a pair, from a list of one or two.
fn sequence(value: &Value) -> Option<(String, Option<String>)> {
    match value {
        Value::String(text) => Some((text.clone(), None)),
        Value::Array(texts) => match &texts[..] {
            [Value::String(text)] => Some((text.clone(), None)),
            [Value::String(first), Value::String(second)] => {
                Some((first.clone(), Some(second.clone())))
            }
            _ => None,
        },
        _ => None,
    }
}

route!(predict, classes, "predict", #[doc = "The classes of texts or pairs, of a model with a classifier."],
    #[utoipa::path(post, path = "/predict", tag = "TEI", request_body = PredictRequest,
        responses((status = 200, body = Predictions)))]);

async fn classes(call: &mut Call) -> Result<Predictions, Refusal> {
    let (prepared, model, raw, one, tokens) = call
        .prepare(|state, body| {
            let request: PredictRequest = parse(body)?;
            let (one, sequences) = match (sequence(&request.inputs), &request.inputs) {
                (Some(sequence), _) => (true, vec![sequence]),
                (None, Value::Array(list)) => {
                    let list: Option<Vec<_>> = list.iter().map(sequence).collect();
                    (false, list.ok_or_else(|| not_sequences())?)
                }
                _ => return Err(not_sequences()),
            };
            if sequences.is_empty() {
                return Err(Refusal::empty("inputs"));
            }
            let limit = state.limits.client_batch;
            if sequences.len() > limit {
                return Err(Refusal::too_many("inputs", sequences.len(), limit));
            }
            let model = state.model(None, true)?;
            let embedder = model.embedder();
            let wanted = state.wanted(embedder, None, None, request.truncate)?;
            let wanted = Direction::of(request.truncation_direction, wanted);
            let tokens =
                embedder.tokenize_sequences(&sequences, wanted).map_err(Refusal::engine)?;
            let count = tokens.iter().map(|tokens| tokens.len()).sum();
            let prepared = embedder.prepare_classes(tokens).map_err(Refusal::engine)?;
            Ok((prepared, model, request.raw_scores == Some(true), one, count))
        })
        .await?;
    let logits: Vec<Vec<f32>> = call.compute(&model, prepared).await?;
    call.report.inputs = logits.len();
    call.report.tokens = tokens;
    let labels = &model.embedder().config().labels;
    let mut each = logits.into_iter().map(|logits| predictions(logits, labels, raw));
    Ok(match one {
        true => Predictions::One(each.next().unwrap_or_default()),
        false => Predictions::Each(each.collect()),
    })
}

fn not_sequences() -> Refusal {
    let message = "`inputs` is a text, a list of one or two texts, or a list of such";
    Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, message).about("inputs")
}

/// The likeliest first: the sigmoid of a single logit, the softmax of several.
fn predictions(logits: Vec<f32>, labels: &[String], raw: bool) -> Vec<Prediction> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|x| f64::from(x - most).exp()).sum();
    let score = |logit: f32| match (raw, logits.len()) {
        (true, _) => logit,
        (false, 1) => (1.0 / (1.0 + (-f64::from(logit)).exp())) as f32,
        _ => (f64::from(logit - most).exp() / sum) as f32,
    };
    let label = |n: usize| labels.get(n).cloned().unwrap_or_else(|| format!("LABEL_{n}"));
    let all = logits.iter().enumerate();
    let mut all: Vec<_> =
        all.map(|(n, &logit)| Prediction { score: score(logit), label: label(n) }).collect();
    all.sort_by(|a, b| b.score.total_cmp(&a.score));
    all
}

/// Texts to be tokenised.
#[derive(Debug, Deserialize, ToSchema)]
pub struct TokenizeRequest {
    /// A text, or several.
    #[schema(value_type = Vec<String>)]
    inputs: Input,
    /// Whether the special tokens are among them: true unless said otherwise.
    #[serde(default)]
    add_special_tokens: Option<bool>,
}

/// A token of a text.
#[derive(Debug, Serialize, ToSchema)]
pub struct Token {
    /// Its id.
    id: u32,
    /// What of the text it is; of a special token its name.
    text: String,
    /// Whether it is none of the text's own.
    special: bool,
    /// Where it begins, in characters.
    start: Option<usize>,
    /// And ends.
    stop: Option<usize>,
}

route!(tokenize, pieces, "tokenize", #[doc = "The tokens of texts."],
    #[utoipa::path(post, path = "/tokenize", tag = "TEI", request_body = TokenizeRequest,
        responses((status = 200, body = Vec<Vec<Token>>)))]);

async fn pieces(call: &mut Call) -> Result<Vec<Vec<Token>>, Refusal> {
    call.prepare(|state, body| {
        let request: TokenizeRequest = parse(body)?;
        let Input::Texts(texts) = request.inputs else {
            let message = "`inputs` are texts here; `/decode` takes token ids";
            return Err(Refusal::bad(message).about("inputs"));
        };
        let limit = state.limits.client_batch;
        if texts.len() > limit {
            return Err(Refusal::too_many("inputs", texts.len(), limit));
        }
        let models = state.models()?;
        let special = request.add_special_tokens != Some(false);
        let tokens = |(index, text): (usize, &String)| {
            let pieces = models[0].embedder().pieces(text, special);
            let pieces = pieces.map_err(|error| Refusal::engine(error.moved(|_| index)))?;
            Ok(pieces.into_iter().map(|piece| token(piece, text)).collect())
        };
        texts.iter().enumerate().map(tokens).collect()
    })
    .await
}

fn token(piece: Piece, text: &str) -> Token {
    let Piece { id, token, special, chars } = piece;
    match special {
        true => Token { id, text: token, special, start: None, stop: None },
        false => Token {
            id,
            text: text.chars().skip(chars.start).take(chars.len()).collect(),
            special,
            start: Some(chars.start),
            stop: Some(chars.end),
        },
    }
}

/// Token ids to be read.
#[derive(Debug, Deserialize, ToSchema)]
pub struct DecodeRequest {
    /// Ids of a text, or lists of them.
    #[schema(value_type = Vec<Vec<u32>>)]
    ids: Input,
    /// Whether special tokens are passed over: true unless said otherwise.
    #[serde(default)]
    skip_special_tokens: Option<bool>,
}

route!(decode, texts, "decode", #[doc = "The texts of token ids."],
    #[utoipa::path(post, path = "/decode", tag = "TEI", request_body = DecodeRequest,
        responses((status = 200, body = Vec<String>)))]);

async fn texts(call: &mut Call) -> Result<Vec<String>, Refusal> {
    call.prepare(|state, body| {
        let request: DecodeRequest = parse(body)?;
        let special = request.skip_special_tokens == Some(false);
        let lists = match request.ids {
            Input::Ids(lists) => lists,
            Input::Texts(texts) if texts.is_empty() => return Err(Refusal::empty("ids")),
            Input::Texts(_) => return Err(Refusal::bad("`ids` are token ids").about("ids")),
        };
        let models = state.models()?;
        let text = |ids: &Vec<u32>| models[0].embedder().decode(ids, special);
        lists.iter().map(text).collect::<Result<_, _>>().map_err(Refusal::engine)
    })
    .await
}

/// What is served.
#[utoipa::path(get, path = "/info", tag = "TEI", responses((status = 200)))]
pub async fn info(extract::State(state): extract::State<Arc<State>>) -> Response<Body> {
    let model = match state.models() {
        Ok(models) => &models[0],
        Err(refusal) => return refusal.response(Dialect::Tei),
    };
    let embedder = model.embedder();
    let labels = &embedder.config().labels;
    let kind = match (model.ranks(), labels.len()) {
        (false, _) => json!({ "embedding": { "pooling": "mean" } }),
        (true, n) => {
            let ids: serde_json::Map<_, _> =
                labels.iter().enumerate().map(|(n, name)| (n.to_string(), json!(name))).collect();
            let names: serde_json::Map<_, _> =
                labels.iter().enumerate().map(|(n, name)| (name.clone(), json!(n))).collect();
            let kind = if n > 1 { "classifier" } else { "reranker" };
            json!({ kind: { "id2label": ids, "label2id": names } })
        }
    };
    let limits = &state.limits;
    Json(json!({
        "model_id": model.name,
        "model_sha": null,
        "model_dtype": state.dtype,
        "served_model_name": model.name,
        "model_type": kind,
        "max_concurrent_requests": limits.concurrent_requests,
        "max_input_length": embedder.max_length(),
        "max_batch_tokens": embedder.batch_tokens(),
        "max_batch_requests": null,
        "max_client_batch_size": limits.client_batch,
        "auto_truncate": state.auto_truncate,
        "tokenization_workers": std::thread::available_parallelism().map_or(1, usize::from),
        "version": env!("CARGO_PKG_VERSION"),
        "device": embedder.device(),
    }))
    .into_response()
}

/// Whether the models are loaded.
#[utoipa::path(get, path = "/health", tag = "TEI", responses((status = 200), (status = 503)))]
pub async fn health(extract::State(state): extract::State<Arc<State>>) -> Response<Body> {
    match state.models() {
        Ok(_) => StatusCode::OK.into_response(),
        Err(refusal) => refusal.response(Dialect::Tei),
    }
}

/// Everything counted, for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "TEI", responses((status = 200, body = String)))]
pub async fn metrics(extract::State(state): extract::State<Arc<State>>) -> Response<Body> {
    let kind = [("content-type", "text/plain; version=0.0.4; charset=utf-8")];
    (kind, state.metrics.render()).into_response()
}
/// What `/` is asked by `huggingface_hub`: vectors, or, of an object, cosines.
pub async fn embed_or_similarity(
    extract::State(state): extract::State<Arc<State>>,
    request: Request<Body>,
) -> Response<Body> {
    match Call::begin(state, "embed", Dialect::Tei, request).await {
        Ok(mut call) if call.holds("source_sentence") => {
            let result = cosines(&mut call).await;
            call.end(result)
        }
        Ok(mut call) => {
            let result = vectors(&mut call).await;
            call.end(result)
        }
        Err(refused) => *refused,
    }
}
