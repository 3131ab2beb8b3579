//! `/predict`: the classes of texts and pairs.

use super::{
    call::{Call, parse, route},
    refusal::Refusal,
    tei::Direction,
};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

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

route!(predict, classes, "predict", Tei, #[doc = "The classes of texts or pairs, of a model with a classifier."],
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
                    (false, list.ok_or_else(not_sequences)?)
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
