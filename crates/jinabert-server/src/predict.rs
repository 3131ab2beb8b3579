//! `/predict`: classification of texts and pairs.

use crate::{
    call::{Call, SharedState, parse},
    error::ApiError,
    state::Capability,
    tei::Direction,
    wire::check_length,
};
use axum::{
    body::Body,
    http::{Request, Response},
};
use jinabert::probabilities;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, IgnoredAny, SeqAccess, Visitor},
};
use std::fmt;
use utoipa::ToSchema;

/// Texts to be classified.
#[derive(Debug, Deserialize, ToSchema)]
pub struct PredictRequest {
    /// A text, a pair of texts, or a list of lists of one or two texts.
    #[schema(value_type = Vec<Vec<String>>, example = json!([["What is a panda?", "A bear"]]))]
    inputs: Inputs,
    /// Return logits instead of probabilities.
    #[serde(default)]
    raw_scores: Option<bool>,
    /// Truncate a text over the limit instead of refusing it.
    #[serde(default)]
    truncate: Option<bool>,
    /// Side of the text that is truncated.
    #[serde(default)]
    truncation_direction: Option<Direction>,
}

/// Class of a text, with its score.
#[derive(Debug, Serialize, ToSchema)]
pub struct Prediction {
    /// Score from 0 to 1, or a logit.
    score: f32,
    /// Name of the class.
    label: String,
}

/// Classes of one text, or of each of several texts.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Predictions {
    /// Classes of one text.
    One(Vec<Prediction>),
    /// Classes of each text.
    Each(Vec<Vec<Prediction>>),
}

/// Input to classify: one text or pair, or several.
#[derive(Debug, PartialEq, Eq)]
struct Inputs {
    one: bool,
    sequences: Vec<Sequence>,
}

/// A text, or a pair.
type Sequence = (String, Option<String>);

/// Item of a list.
enum Item {
    Text(String),
    List(Sequence),
}

struct ItemVisitor;

impl<'de> Visitor<'de> for ItemVisitor {
    type Value = Item;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a text, or a list of one or two texts")
    }

    fn visit_str<E>(self, text: &str) -> Result<Item, E> {
        Ok(Item::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Item, A::Error> {
        let empty = || A::Error::custom("expected a list of one or two texts, got an empty list");
        let first = list.next_element()?.ok_or_else(empty)?;
        let second = list.next_element()?;
        match list.next_element::<IgnoredAny>()? {
            None => Ok(Item::List((first, second))),
            Some(_) => Err(A::Error::custom("expected a list of one or two texts, got more")),
        }
    }
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(ItemVisitor)
    }
}

struct InputsVisitor;

impl<'de> Visitor<'de> for InputsVisitor {
    type Value = Inputs;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a text, a list of one or two texts, or a list of such")
    }

    fn visit_str<E>(self, text: &str) -> Result<Inputs, E> {
        Ok(Inputs { one: true, sequences: vec![(text.to_owned(), None)] })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Inputs, A::Error> {
        let mut texts = Vec::new();
        let mut lists = Vec::new();
        while let Some(item) = list.next_element()? {
            check_length::<A::Error>(texts.len() + lists.len())?;
            match item {
                Item::Text(text) => texts.push(text),
                Item::List(sequence) => lists.push(sequence),
            }
        }
        let mut texts = texts.into_iter();
        match (texts.next(), texts.next(), texts.next()) {
            (None, ..) => Ok(Inputs { one: false, sequences: lists }),
            (Some(first), second, None) if lists.is_empty() => {
                Ok(Inputs { one: true, sequences: vec![(first, second)] })
            }
            _ => Err(A::Error::custom(
                "expected one text, one pair, or a list of lists of one or two texts, got another list",
            )),
        }
    }
}

impl<'de> Deserialize<'de> for Inputs {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(InputsVisitor)
    }
}

/// The classes of texts or pairs, of a model with a classifier.
#[utoipa::path(post, path = "/predict", tag = "TEI", request_body = PredictRequest,
    responses((status = 200, body = Predictions)))]
pub async fn predict(state: SharedState, request: Request<Body>) -> Response<Body> {
    Call::handle(state, request, classes).await
}

async fn classes(call: &mut Call) -> Result<Predictions, ApiError> {
    let (prepared, model, raw, one, tokens) = call
        .prepare(|state, body| {
            let request: PredictRequest = parse(body)?;
            let Inputs { one, sequences } = request.inputs;
            state.limits.batch("inputs", sequences.len())?;
            let model = state.model(None, Capability::Classify)?;
            let embedder = model.embedder();
            let options = state.encode_options(embedder, None, None, request.truncate)?;
            let options = Direction::of(request.truncation_direction, options);
            let tokens = embedder
                .tokenization()
                .sequences(&sequences, options)
                .map_err(ApiError::engine_in("inputs"))?;
            let count = tokens.iter().map(|tokens| tokens.len()).sum();
            let prepared =
                embedder.jobs().classes(tokens).map_err(ApiError::engine_in("inputs"))?;
            Ok((prepared, model, request.raw_scores == Some(true), one, count))
        })
        .await?;
    let logits: Vec<Vec<f32>> = call.compute(&model, prepared).await?;
    call.stats.inputs = logits.len();
    call.stats.tokens = tokens;
    let labels = &model.embedder().config().labels;
    let mut each = logits.into_iter().map(|logits| predictions(logits, labels, raw));
    Ok(if one {
        Predictions::One(each.next().unwrap_or_default())
    } else {
        Predictions::Each(each.collect())
    })
}

/// Predictions, highest score first.
fn predictions(logits: Vec<f32>, labels: &[String], raw: bool) -> Vec<Prediction> {
    let scores = if raw { logits } else { probabilities(&logits) };
    let label = |n: usize| labels.get(n).cloned().unwrap_or_else(|| format!("LABEL_{n}"));
    let mut all: Vec<_> = scores
        .into_iter()
        .enumerate()
        .map(|(n, score)| Prediction { score, label: label(n) })
        .collect();
    all.sort_by(|a, b| b.score.total_cmp(&a.score));
    all
}
