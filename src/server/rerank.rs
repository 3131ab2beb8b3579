//! `/rerank`, `/v1/rerank`, `/v2/rerank`: two dialects at one address.  A request with `texts` is
//! text-embeddings-inference's, one with `documents` is Jina's and Cohere's or, at the address
//! without a version, infinity's, whose documents come back as bare strings.

use super::{
    call::{Call, parse},
    refusal::{Dialect, Refusal},
    state::{Served, State, Use},
    tei::Direction,
    wire::{Document, Usage},
};
use crate::{Prepared, Score};
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
    let (tei, ranking) = call
        .prepare(|state, body| {
            let request: RerankRequest = parse(body)?;
            Ok((request.texts.is_some(), Ranking::new(state, request)))
        })
        .await?;
    if tei {
        call.speak(Dialect::Tei);
    }
    let Ranking { model, prepared, documents, top_n, raw, texts } = ranking?;
    let mut scores: Vec<Score> = call.compute(&model, prepared).await?;
    let characters = documents.iter().map(|text| text.chars().count()).sum();
    let lengths = scores.iter().map(|score| (score.tokens, score.truncated));
    call.report.read(characters, scores.len(), lengths);
    scores.sort_by(|a, b| b.logit.total_cmp(&a.logit));
    scores.truncate(top_n);
    let number = move |score: &Score| if raw { score.logit } else { score.score };
    let text = |score: &Score| texts.then(|| documents[score.index].clone());
    Ok(match tei {
        true => {
            let ranks = scores.iter().map(|score| Rank {
                index: score.index,
                score: number(score),
                text: text(score),
            });
            RerankAnswer::Ranks(ranks.collect())
        }
        false => {
            let results = scores.iter().map(|score| Ranked {
                index: score.index,
                relevance_score: number(score),
                document: text(score).map(|text| match bare {
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

/// What a request comes to.
struct Ranking {
    model: Arc<Served>,
    prepared: Prepared<Vec<Score>>,
    documents: Vec<String>,
    top_n: usize,
    /// Whether scores are logits.
    raw: bool,
    /// Whether results have their text.
    texts: bool,
}

impl Ranking {
    fn new(state: &State, request: RerankRequest) -> Result<Self, Refusal> {
        let RerankRequest { query, documents, texts, model, top_n, .. } = request;
        let (field, documents, texts) = match (documents, texts) {
            (Some(documents), None) => {
                ("documents", documents, request.return_documents != Some(false))
            }
            (None, Some(texts)) => ("texts", texts, request.return_text == Some(true)),
            (None, None) => {
                let message = "`documents` (Jina, Cohere) or `texts` (TEI) is missing";
                return Err(Refusal::bad(message).about("documents"));
            }
            (Some(_), Some(_)) => {
                let message = "`documents` and `texts` are two names of the same";
                return Err(Refusal::bad(message).about("documents"));
            }
        };
        state.limits.batch(field, documents.len())?;
        if top_n == Some(0) {
            return Err(Refusal::bad("`top_n` 0: from 1 on").about("top_n"));
        }
        let model = state.model(model.as_deref(), Use::Rank)?;
        let embedder = model.embedder();
        let wanted = state.wanted(embedder, None, None, request.truncate)?;
        let wanted = Direction::of(request.truncation_direction, wanted);
        let documents: Vec<String> = documents.into_iter().map(|document| document.0).collect();
        let prepared = embedder.prepare_scores(&query.0, &documents, wanted);
        Ok(Self {
            prepared: prepared.map_err(Refusal::engine_in(field))?,
            top_n: top_n.map_or(usize::MAX, |n| n as usize),
            raw: request.raw_scores == Some(true),
            model,
            documents,
            texts,
        })
    }
}
