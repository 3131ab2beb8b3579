//! `/rerank`, `/v1/rerank`, `/v2/rerank`: two dialects at one address. A request with `texts` is in
//! text-embeddings-inference's, one with `documents` in Jina's and Cohere's or, at the address
//! without a version, in infinity's, whose documents are returned as bare strings.

use crate::{
    call::{Call, SharedState, parse},
    dialect::Dialect,
    error::ApiError,
    state::{Capability, ServedModel, State},
    tei::Direction,
    wire::{Document, Usage},
};
use axum::{
    body::Body,
    http::{Request, Response},
};
use jinabert::{EncodeJob, Score};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// Texts to be ranked by relevance to a query.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(example = json!({"query": "What is a panda?", "documents": ["A bear", "A ship"], "top_n": 1}))]
pub struct RerankRequest {
    /// The query.
    query: Document,
    /// The texts, in Jina's and Cohere's dialect: strings or `{"text": …}`.
    #[serde(default)]
    documents: Option<Vec<Document>>,
    /// The texts, in text-embeddings-inference's dialect.
    #[serde(default)]
    texts: Option<Vec<Document>>,
    /// The reranker's name; optional if there is only one.
    #[serde(default)]
    model: Option<String>,
    /// Number of best results to return; all by default.
    #[serde(default)]
    top_n: Option<u64>,
    /// Return the text with each result; default true (`documents`).
    #[serde(default)]
    return_documents: Option<bool>,
    /// Return the text with each result; default false (`texts`).
    #[serde(default)]
    return_text: Option<bool>,
    /// Return logits instead of scores: a classifier's instead of its sigmoid, with MaxSim the sum
    /// over the query's tokens instead of the mean.
    #[serde(default)]
    raw_scores: Option<bool>,
    /// Truncate a pair over the limit, with MaxSim a text, instead of refusing it.
    #[serde(default, alias = "truncation")]
    truncate: Option<bool>,
    /// Side of the pair that is truncated.
    #[serde(default)]
    truncation_direction: Option<Direction>,
}

/// The response, by dialect.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum RerankAnswer {
    /// Response to `texts`: best first.
    Ranks(Vec<Rank>),
    /// Response to `documents`.
    Results(Results),
}

/// Score of a text.
#[derive(Debug, Serialize, ToSchema)]
pub struct Rank {
    /// Index of the text in the request.
    index: usize,
    /// Score from 0 to 1, with MaxSim from -1 to 1; or a logit.
    score: f32,
    /// The text itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

/// Scores in Jina's and Cohere's dialect.
#[derive(Debug, Serialize, ToSchema)]
pub struct Results {
    /// `list`; at `/rerank` `rerank`.
    object: &'static str,
    /// Unused: Cohere's clients require one.
    id: String,
    /// Name of the model.
    model: String,
    /// Results, best first.
    results: Vec<Ranked>,
    /// Number of tokens read.
    usage: Usage,
}

/// Score of a document.
#[derive(Debug, Serialize, ToSchema)]
pub struct Ranked {
    /// Index of the document in the request.
    index: usize,
    /// Score from 0 to 1, with MaxSim from -1 to 1; or a logit.
    relevance_score: f32,
    /// The document's text.
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<Text>,
}

/// Text as a string, or as an object.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Text {
    /// String: at `/rerank`.
    Bare(String),
    /// Object: at addresses with a version.
    Object {
        /// The text itself.
        text: String,
    },
}

/// Ranks texts by relevance to a query.
#[utoipa::path(post, path = "/rerank", tag = "Rerank",
    request_body = RerankRequest, responses((status = 200, body = RerankAnswer)))]
pub async fn rerank(state: SharedState, request: Request<Body>) -> Response<Body> {
    let bare = request.uri().path() == "/rerank";
    Call::handle(state, request, async move |call: &mut Call| rank(call, bare).await).await
}

async fn rank(call: &mut Call, bare: bool) -> Result<RerankAnswer, ApiError> {
    let (tei, ranking) = call
        .prepare(|state, body| {
            let request: RerankRequest = parse(body)?;
            Ok((request.texts.is_some(), Ranking::new(state, request)))
        })
        .await?;
    if tei {
        call.set_dialect(Dialect::Tei);
    }
    let Ranking { model, prepared, documents, top_n, raw, texts } = ranking?;
    let mut scores: Vec<Score> = call.compute(&model, prepared).await?;
    let characters = documents.iter().map(|text| text.chars().count()).sum();
    let lengths = scores.iter().map(|score| (score.tokens, score.truncated));
    call.stats.record(characters, scores.len(), lengths);
    scores.sort_by(|a, b| b.logit.total_cmp(&a.logit));
    scores.truncate(top_n);
    let number = move |score: &Score| if raw { score.logit } else { score.score };
    let text = |score: &Score| texts.then(|| documents[score.index].clone());
    if tei {
        let ranks = scores.iter().map(|score| Rank {
            index: score.index,
            score: number(score),
            text: text(score),
        });
        return Ok(RerankAnswer::Ranks(ranks.collect()));
    }
    let document = |text| if bare { Text::Bare(text) } else { Text::Object { text } };
    let results = scores.iter().map(|score| Ranked {
        index: score.index,
        relevance_score: number(score),
        document: text(score).map(document),
    });
    Ok(RerankAnswer::Results(Results {
        object: if bare { "rerank" } else { "list" },
        id: call.state.next_id(),
        model: model.name.clone(),
        results: results.collect(),
        usage: Usage::of(call.stats.tokens),
    }))
}

/// Parsed and checked request.
struct Ranking {
    model: Arc<ServedModel>,
    prepared: EncodeJob<Vec<Score>>,
    documents: Vec<String>,
    top_n: usize,
    /// Scores are logits.
    raw: bool,
    /// Results include their text.
    texts: bool,
}

impl Ranking {
    fn new(state: &State, request: RerankRequest) -> Result<Self, ApiError> {
        let RerankRequest { query, documents, texts, model, top_n, .. } = request;
        let (field, documents, texts) = match (documents, texts) {
            (Some(documents), None) => {
                ("documents", documents, request.return_documents != Some(false))
            }
            (None, Some(texts)) => ("texts", texts, request.return_text == Some(true)),
            (None, None) => {
                let message = "expected `documents` (Jina, Cohere) or `texts` (TEI), got neither";
                return Err(ApiError::bad(message).about("documents"));
            }
            (Some(_), Some(_)) => {
                let message = "expected `documents` (Jina, Cohere) or `texts` (TEI), got both";
                return Err(ApiError::bad(message).about("documents"));
            }
        };
        state.limits.batch(field, documents.len())?;
        if top_n == Some(0) {
            return Err(ApiError::bad("`top_n`: expected at least 1, got 0").about("top_n"));
        }
        let model = state.model(model.as_deref(), Capability::Rank)?;
        let embedder = model.embedder();
        let options = state.encode_options(embedder, None, None, request.truncate)?;
        let options = Direction::of(request.truncation_direction, options);
        let documents: Vec<String> = documents.into_iter().map(|document| document.0).collect();
        let prepared = embedder.jobs().scores(&query.0, &documents, options);
        Ok(Self {
            prepared: prepared.map_err(ApiError::engine_in(field))?,
            top_n: top_n.map_or(usize::MAX, |n| n as usize),
            raw: request.raw_scores == Some(true),
            model,
            documents,
            texts,
        })
    }
}
