//! `/v1/embeddings` and `/v1/models`: OpenAI's routes, with Jina's fields.

use super::{
    call::{Call, parse, route},
    refusal::{Dialect, Refusal},
    state::{Kind, Served, State, Use},
    wire::{EmbeddingsAnswer, EmbeddingsItem, EmbeddingsRequest, Input, Usage},
};
use crate::{
    Embedded, Embedder, Error, OnLong, Prepared, Wanted,
    text::{Chunking, Tokenized},
};
use axum::{
    Json,
    body::Body,
    extract,
    http::{Response, StatusCode},
    response::IntoResponse,
};
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

route!(
    embeddings,
    embed,
    "embed",
    OpenAi,
    #[doc = "Vectors of texts: OpenAI's fields and Jina's; `null` stands for what is left out."],
    #[utoipa::path(
        post, path = "/v1/embeddings", tag = "OpenAI and Jina", request_body = EmbeddingsRequest,
        responses(
            (status = 200, body = EmbeddingsAnswer),
            (status = "4XX", description = "OpenAI's error object, `detail` and `message`"),
        )
    )]
);

async fn embed(call: &mut Call) -> Result<EmbeddingsAnswer, Refusal> {
    let (prepared, model, characters) = call
        .prepare(|state, body| {
            let request: EmbeddingsRequest = parse(body)?;
            let encoding = request.encoding()?;
            let model = state.model(request.model.as_deref(), Use::Embed)?;
            let characters = request.input.characters();
            // Written where they are made: off the threads that serve others, if they are many.
            let prepared = prepare(state, &model, request)?.map(move |vectors| {
                let items = vectors.vectors.into_iter().enumerate().map(|(index, vector)| {
                    let embedding = encoding.write(vector)?;
                    Ok(EmbeddingsItem { object: "embedding", index, embedding })
                });
                Ok((items.collect::<Result<Vec<_>, Refusal>>()?, vectors.lengths))
            });
            Ok((prepared, model, characters))
        })
        .await?;
    let (data, lengths) = call.compute(&model, prepared).await??;
    call.report.read(characters, data.len(), lengths);
    call.report.room = data.iter().map(|item| item.embedding.room()).sum();
    let (model, usage) = (model.name.clone(), Usage::of(call.report.tokens));
    Ok(EmbeddingsAnswer { object: "list", data, model, usage })
}

/// What a request gets, not yet written.
struct Vectors {
    vectors: Vec<Vec<f32>>,
    /// Of the texts that were read: tokens, and those of the whole, where some were dropped.
    lengths: Vec<(usize, Option<usize>)>,
}

fn prepare(
    state: &State,
    model: &Served,
    request: EmbeddingsRequest,
) -> Result<Prepared<Vectors>, Refusal> {
    let EmbeddingsRequest { input, dimensions, normalized, truncate, late_chunking, .. } = request;
    let embedder = model.embedder();
    state.limits.batch("input", input.len())?;
    let wanted = state.wanted(embedder, dimensions, normalized, truncate)?;
    if late_chunking == Some(true) {
        // Cut, chunks at the end would have no vector: windows are for them.
        let on_long = if truncate == Some(false) { OnLong::Error } else { OnLong::Window };
        return late(embedder, input, Wanted { on_long, ..wanted });
    }
    let tokenized = tokenize(state, embedder, ("input", &input), wanted)?;
    let prepared = embedder.prepare_tokenized(tokenized, wanted).map_err(Refusal::engine)?;
    Ok(prepared.map(|embedded: Vec<Embedded>| {
        let one = |one: Embedded| (one.vector.into_inner(), (one.tokens, one.truncated));
        let (vectors, lengths) = embedded.into_iter().map(one).unzip();
        Vectors { vectors, lengths }
    }))
}

/// The tokens of an input, whichever kind it is, and whatever its field is called.
pub fn tokenize(
    state: &State,
    embedder: &Embedder,
    (field, input): (&'static str, &Input),
    wanted: Wanted,
) -> Result<Vec<Tokenized>, Refusal> {
    let tokenized = match input {
        Input::Texts(texts) => embedder.tokenize_as(texts, wanted),
        Input::Ids(lists) => {
            if !state.trust_ids
                && let Some(index) = embedder.foreign(lists).map_err(Refusal::engine)?
            {
                let vocabulary = embedder.config().vocabulary;
                return Err(Refusal::bad(format!(
                    "input {index}: these token ids are not what this model's tokenizer, of {vocabulary} tokens, \
                     makes of a text: send texts (LangChain: `check_embedding_ctx_length=False`)"
                ))
                .about(field)
                .coded("foreign_token_ids"));
            }
            embedder.tokenize_ids(lists, wanted)
        }
    };
    tokenized.map_err(Refusal::engine_in(field))
}

/// All texts as one document, a vector for each.
fn late(embedder: &Embedder, input: Input, wanted: Wanted) -> Result<Prepared<Vectors>, Refusal> {
    let Input::Texts(texts) = input else {
        let message = "`late_chunking` takes texts, not token ids";
        return Err(Refusal::bad(message).about("late_chunking"));
    };
    if let Some(index) = texts.iter().position(|text| text.trim().is_empty()) {
        let message = format!("input {index}: an empty text is no chunk of a document");
        return Err(Refusal::bad(message).about("input"));
    }
    let (mut document, mut spans, mut end) = (String::new(), Vec::new(), 0);
    for text in &texts {
        let parted =
            document.ends_with(char::is_whitespace) || text.starts_with(char::is_whitespace);
        if !document.is_empty() && !parted {
            document.push(' ');
            end += 1;
        }
        let start = end;
        end += text.chars().count();
        spans.push(start..end);
        document.push_str(text);
    }
    let chunking = Chunking::Spans(spans);
    let prepared = embedder.prepare_chunks(&[document], &[&chunking], wanted);
    let refused = |error| match error {
        // What is a span there is an input here.
        Error::Input { what, .. } => {
            let what = what.strip_prefix("span ").map_or(what.clone(), |at| format!("input {at}"));
            Refusal::bad(format!("{what}; `late_chunking` takes consecutive parts of a document"))
                .about("input")
        }
        other => Refusal::engine(other),
    };
    Ok(prepared.map_err(refused)?.map(|mut documents| {
        let document = documents.remove(0);
        let vectors = document.chunks.into_iter().map(|chunk| chunk.vector.into_inner());
        Vectors { vectors: vectors.collect(), lengths: vec![(document.tokens, document.truncated)] }
    }))
}

/// Models, OpenAI's way.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelsAnswer {
    /// `list`
    object: &'static str,
    /// In the order in which they are served.
    data: Vec<ModelItem>,
}

/// One of them.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelItem {
    /// What a request names.
    id: String,
    /// `model`
    object: &'static str,
    /// Seconds since 1970.
    created: u64,
    /// `jinabert`
    owned_by: &'static str,
    /// Longest text in tokens.
    max_length: usize,
    /// What it is for.
    model_type: Kind,
    /// Components of a vector, if it makes any.
    dimensions: Option<usize>,
}

/// The models that are served.
#[utoipa::path(get, path = "/v1/models", tag = "OpenAI and Jina",
    responses((status = 200, body = ModelsAnswer)))]
pub async fn models(extract::State(state): extract::State<Arc<State>>) -> Response<Body> {
    let models = match state.models() {
        Ok(models) => models,
        Err(refusal) => return refusal.response(Dialect::OpenAi),
    };
    let data = models.iter().map(|model| item(&state, model)).collect();
    Json(ModelsAnswer { object: "list", data }).into_response()
}

fn item(state: &State, model: &Served) -> ModelItem {
    let embedder = model.embedder();
    ModelItem {
        id: model.name.clone(),
        object: "model",
        created: state.created,
        owned_by: "jinabert",
        max_length: embedder.max_length(),
        model_type: model.kind(),
        dimensions: (model.kind() == Kind::Embedding).then(|| embedder.dim()),
    }
}

/// One of the models.
#[utoipa::path(get, path = "/v1/models/{model}", tag = "OpenAI and Jina",
    params(("model" = String, Path)), responses((status = 200, body = ModelItem)))]
pub async fn model(
    extract::State(state): extract::State<Arc<State>>,
    extract::Path(name): extract::Path<String>,
) -> Response<Body> {
    let found = state.models().and_then(|models| {
        let found = models.iter().find(|model| model.name == name);
        found.ok_or_else(|| {
            Refusal::new(StatusCode::NOT_FOUND, "no such model").coded("model_not_found")
        })
    });
    match found {
        Ok(model) => Json(item(&state, model)).into_response(),
        Err(refusal) => refusal.response(Dialect::OpenAi),
    }
}
