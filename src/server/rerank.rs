//! `/rerank`, `/v1/rerank`, `/v2/rerank`: two dialects at one address.  A request with `texts` is
//! text-embeddings-inference's, one with `documents` is Jina's and Cohere's or, at the address
//! without a version, infinity's, whose documents come back as bare strings.

use super::{
    call::{Call, parse},
    refusal::{Dialect, Refusal},
    state::State,
    tei::Direction,
    wire::{Document, Usage},
};
use crate::Score;
use axum::{
    body::Body,
    extract,
    http::{Request, Response},
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// Texts to be ordered by how well they answer a query.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"query": "What is a panda?", "documents": ["A bear", "A ship"], "top_n": 1}))]
pub struct RerankRequest {
    /// The query.
    query: Document,
    /// The texts, Jina's and Cohere's name: strings or `{"text": …}`.
    #[serde(default)]
    documents: Option<Vec<Document>>,
    /// The texts, text-embeddings-inference's name.
    #[serde(default)]
    texts: Option<Vec<Document>>,
    /// Which reranker: not needed if there is one.
    #[serde(default)]
    model: Option<String>,
    /// Results to return, the best; all if left out.
    #[serde(default)]
    top_n: Option<u64>,
    /// Whether results have their text: true unless said otherwise (`documents`).
    #[serde(default)]
    return_documents: Option<bool>,
    /// Whether results have their text: false unless said otherwise (`texts`).
    #[serde(default)]
    return_text: Option<bool>,
    /// Logits instead of numbers from 0 to 1.
    #[serde(default)]
    raw_scores: Option<bool>,
    /// Whether a pair over the limit is cut, or refused.
    #[serde(default, alias = "truncation")]
    truncate: Option<bool>,
    /// Which end of it is dropped.
    #[serde(default)]
    truncation_direction: Option<Direction>,
}

/// The answer, by dialect.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum RerankAnswer {
    /// For `texts`: the best first.
    Ranks(Vec<Rank>),
    /// For `documents`.
    Results(Results),
}

/// A text's score.
#[derive(Debug, Serialize, ToSchema)]
pub struct Rank {
    /// Its place in the request.
    index: usize,
    /// From 0 to 1, or a logit.
    score: f32,
    /// What it says.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

/// Scores, Jina's and Cohere's way.
#[derive(Debug, Serialize, ToSchema)]
pub struct Results {
    /// `list`; at `/rerank` `rerank`.
    object: &'static str,
    /// Of no meaning: Cohere's clients want one.
    id: String,
    /// The model that made them.
    model: String,
    /// The best first.
    results: Vec<Ranked>,
    /// What was read.
    usage: Usage,
}

/// A document's score.
#[derive(Debug, Serialize, ToSchema)]
pub struct Ranked {
    /// Its place in the request.
    index: usize,
    /// From 0 to 1, or a logit.
    relevance_score: f32,
    /// What it says.
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<Text>,
}

/// A text as it is, or as an object.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Text {
    /// At `/rerank`.
    Bare(String),
    /// Where the address has a version.
    Object {
        /// What it says.
        text: String,
    },
}

/// Orders texts by how well they answer a query.
#[utoipa::path(post, path = "/rerank", tag = "Rerank",
    request_body = RerankRequest, responses((status = 200, body = RerankAnswer)))]
pub async fn rerank(
    extract::State(state): extract::State<Arc<State>>,
    request: Request<Body>,
) -> Response<Body> {
    let bare = request.uri().path() == "/rerank";
    match Call::begin(state, "rerank", Dialect::OpenAi, request).await {
        Ok(mut call) => {
            let result = rank(&mut call, bare).await;
            call.end(result).await
        }
        Err(refused) => *refused,
    }
}

async fn rank(call: &mut Call, bare: bool) -> Result<RerankAnswer, Refusal> {
    // In TEI's words as soon as it is known to be TEI's.
    let parsed = call.prepare(|_, body| parse::<RerankRequest>(body)).await?;
    let tei = parsed.texts.is_some();
    if tei {
        call.speak(Dialect::Tei);
    }
    let RerankRequest { query, documents, texts, model, top_n, raw_scores, .. } = parsed;
    let documents = match (documents, texts) {
        (Some(texts), None) | (None, Some(texts)) => texts,
        (None, None) => {
            let message = "`documents` (Jina, Cohere) or `texts` (TEI) is missing";
            return Err(Refusal::bad(message).about("documents"));
        }
        (Some(_), Some(_)) => {
            let message = "`documents` and `texts` are two names of the same";
            return Err(Refusal::bad(message).about("documents"));
        }
    };
    let field = if tei { "texts" } else { "documents" };
    if documents.is_empty() {
        return Err(Refusal::empty(field));
    }
    let limit = call.state.limits.client_batch;
    if documents.len() > limit {
        return Err(Refusal::too_many(field, documents.len(), limit));
    }
    if top_n == Some(0) {
        return Err(Refusal::bad("`top_n` 0: from 1 on").about("top_n"));
    }
    let model = call.state.model(model.as_deref(), true)?;
    let wanted = {
        let wanted = call.state.wanted(model.embedder(), None, None, parsed.truncate)?;
        Direction::of(parsed.truncation_direction, wanted)
    };
    let documents: Arc<Vec<String>> =
        Arc::new(documents.into_iter().map(|document| document.0).collect());
    let prepared = {
        let (embedder, documents) = (model.embedder().clone(), documents.clone());
        let prepare =
            move || embedder.prepare_scores(&query.0, &documents, wanted).map_err(Refusal::engine);
        call.aside(prepare).await?
    };
    let mut scores: Vec<Score> = call.compute(&model, prepared).await?;
    call.report.characters = documents.iter().map(|text| text.chars().count()).sum();
    call.report.tokens = scores.iter().map(|score| score.tokens).sum();
    call.report.inputs = scores.len();
    call.report.truncated = scores.iter().filter(|score| score.truncated.is_some()).count();
    scores.sort_by(|a, b| b.logit.total_cmp(&a.logit));
    scores.truncate(top_n.map_or(usize::MAX, |n| n as usize));
    let raw = raw_scores == Some(true);
    let number = move |score: &Score| if raw { score.logit } else { score.score };
    let scores = scores.into_iter();
    let text = |index: usize, wanted: bool| wanted.then(|| documents[index].clone());
    Ok(match tei {
        true => {
            let texts = parsed.return_text == Some(true);
            RerankAnswer::Ranks(
                scores
                    .map(|score| Rank {
                        index: score.index,
                        score: number(&score),
                        text: text(score.index, texts),
                    })
                    .collect(),
            )
        }
        false => {
            let texts = parsed.return_documents != Some(false);
            let results = scores.map(|score| Ranked {
                index: score.index,
                relevance_score: number(&score),
                document: text(score.index, texts).map(|text| match bare {
                    true => Text::Bare(text),
                    false => Text::Object { text },
                }),
            });
            RerankAnswer::Results(Results {
                object: if bare { "rerank" } else { "list" },
                id: call.state.next_id(),
                model: model.name.clone(),
                results: results.collect(),
                usage: Usage::of(call.report.tokens),
            })
        }
    })
}
