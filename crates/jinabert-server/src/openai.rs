//! `/v1/embeddings` and `/v1/models`: OpenAI's routes, with Jina's fields.

use crate::{
    call::{Call, SharedState, parse},
    dialect::RouteInfo,
    error::ApiError,
    state::{Capability, Kind, ServedModel, State},
    tasks,
    wire::{EmbeddingsAnswer, EmbeddingsItem, EmbeddingsRequest, Input, Usage},
};
use axum::{
    Json,
    body::Body,
    extract,
    http::{Request, Response, StatusCode},
    response::IntoResponse,
};
use jinabert::{
    Embedded, Embedder, EncodeJob, EncodeOptions, Error, OnLong, Prompt,
    text::{Chunking, Tokenized},
};
use serde::Serialize;
use utoipa::ToSchema;

/// Vectors of texts: OpenAI's fields and Jina's; `null` stands for what is left out.
#[utoipa::path(
    post, path = "/v1/embeddings", tag = "OpenAI and Jina", request_body = EmbeddingsRequest,
    responses(
        (status = 200, body = EmbeddingsAnswer),
        (status = "4XX", description = "OpenAI's error object, with `detail` and `message`"),
    )
)]
pub async fn embeddings(state: SharedState, request: Request<Body>) -> Response<Body> {
    Call::handle(state, request, embed).await
}

async fn embed(call: &mut Call) -> Result<EmbeddingsAnswer, ApiError> {
    let (prepared, model, characters) = call
        .prepare(|state, body| {
            let request: EmbeddingsRequest = parse(body)?;
            let encoding = request.encoding()?;
            let model = state.model(request.model.as_deref(), Capability::Embed)?;
            let characters = request.input.characters();
            // Vectors are written on the thread that computed them if there are many.
            let prepared = prepare(state, &model, request)?.map(move |vectors| {
                let items = vectors.vectors.into_iter().enumerate().map(|(index, vector)| {
                    let embedding = encoding.write(vector)?;
                    Ok(EmbeddingsItem { object: "embedding", index, embedding })
                });
                Ok((items.collect::<Result<Vec<_>, ApiError>>()?, vectors.lengths))
            });
            Ok((prepared, model, characters))
        })
        .await?;
    let (data, lengths) = call.compute(&model, prepared).await??;
    call.stats.record(characters, data.len(), lengths);
    call.stats.response_bytes = data.iter().map(|item| item.embedding.estimated_bytes()).sum();
    let usage = Usage::of(call.stats.tokens);
    Ok(EmbeddingsAnswer { object: "list", data, model: model.name.clone(), usage })
}

/// Embeddings of a request, before serialisation.
struct Vectors {
    vectors: Vec<Vec<f32>>,
    /// Lengths of the texts: tokens read, and the length of the whole if some were dropped.
    lengths: Vec<(usize, Option<usize>)>,
}

fn prepare(
    state: &State,
    model: &ServedModel,
    request: EmbeddingsRequest,
) -> Result<EncodeJob<Vectors>, ApiError> {
    let EmbeddingsRequest { input, dimensions, normalized, truncate, late_chunking, .. } = request;
    let (task, input_type) = (request.task.as_deref(), request.input_type.as_deref());
    let embedder = model.embedder();
    state.limits.batch("input", input.len())?;
    let options = state.encode_options(embedder, dimensions, normalized, truncate)?;
    let adapter = tasks::adapter(embedder, task, input_type)?.or(options.adapter);
    let options = EncodeOptions { adapter, ..options };
    if late_chunking == Some(true) {
        // Truncation would leave chunks at the end without a vector, so windows are used.
        let on_long = if truncate == Some(false) { OnLong::Error } else { OnLong::Window };
        return late(embedder, input, EncodeOptions { on_long, ..options });
    }
    let tokenized = tokenize(state, embedder, ("input", &input), &Prompt::Auto, options)?;
    let prepared = embedder.jobs().tokenized(tokenized, options).map_err(ApiError::engine)?;
    Ok(prepared.map(|embedded: Vec<Embedded>| {
        let parts = embedded.into_iter().map(|one| {
            let lengths = (one.tokens, one.truncated);
            (one.vector.into_inner(), lengths)
        });
        let (vectors, lengths) = parts.unzip();
        Vectors { vectors, lengths }
    }))
}

/// Tokenises an input of any kind; `field` is its name in the request.
pub fn tokenize(
    state: &State,
    embedder: &Embedder,
    (field, input): (&'static str, &Input),
    prompt: &Prompt,
    options: EncodeOptions,
) -> Result<Vec<Tokenized>, ApiError> {
    let tokenization = embedder.tokenization();
    let tokenized = match input {
        Input::Texts(texts) => tokenization.texts(texts, prompt, options),
        Input::Ids(lists) => {
            if let Some(index) = lists.iter().position(Vec::is_empty) {
                let message = format!("`{field}`[{index}]: expected token ids, got an empty list");
                return Err(ApiError::bad(message).about(field).coded("empty"));
            }
            if !state.trust_ids
                && let Some(index) = tokenization.foreign(lists).map_err(ApiError::engine)?
            {
                let vocabulary = embedder.config().vocabulary;
                return Err(ApiError::bad(format!(
                    "input {index}: expected token ids that this model's tokenizer, of \
                     {vocabulary} tokens, makes of a text, got others: send texts \
                     (LangChain: `check_embedding_ctx_length=False`)"
                ))
                .about(field)
                .coded("foreign_token_ids"));
            }
            tokenization.ids(lists, prompt, options)
        }
    };
    tokenized.map_err(ApiError::engine_in(field))
}

/// Late chunking: all texts form one document, with a vector for each.
fn late(
    embedder: &Embedder,
    input: Input,
    options: EncodeOptions,
) -> Result<EncodeJob<Vectors>, ApiError> {
    let Input::Texts(texts) = input else {
        let message = "`late_chunking`: expected texts, got token ids";
        return Err(ApiError::bad(message).about("late_chunking"));
    };
    if let Some(index) = texts.iter().position(|text| text.trim().is_empty()) {
        let message = format!("input {index}: expected a part of a document, got an empty text");
        return Err(ApiError::bad(message).about("input"));
    }
    let mut document = String::new();
    let mut spans = Vec::new();
    let mut end = 0;
    for text in &texts {
        let separated =
            document.ends_with(char::is_whitespace) || text.starts_with(char::is_whitespace);
        if !document.is_empty() && !separated {
            document.push(' ');
            end += 1;
        }
        let start = end;
        end += text.chars().count();
        spans.push(start..end);
        document.push_str(text);
    }
    let chunking = Chunking::Spans(spans);
    let prepared = embedder.jobs().chunks(&[document], &[&chunking], &Prompt::Auto, options);
    Ok(prepared.map_err(late_error)?.map(|mut documents| {
        let document = documents.remove(0);
        let vectors = document.chunks.into_iter().map(|chunk| chunk.vector.into_inner());
        Vectors { vectors: vectors.collect(), lengths: vec![(document.tokens, document.truncated)] }
    }))
}

/// Error of late chunking; a span of the library is an input of the request.
fn late_error(error: Error) -> ApiError {
    match error {
        Error::Input { what, .. } => {
            let what = what.strip_prefix("span ").map_or(what.clone(), |at| format!("input {at}"));
            let message = format!("{what}; `late_chunking` needs consecutive parts of a document");
            ApiError::bad(message).about("input")
        }
        other => ApiError::engine(other),
    }
}

/// Models in OpenAI's format.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelsAnswer {
    /// `list`
    object: &'static str,
    /// Models in the order of configuration.
    data: Vec<ModelItem>,
}

/// Model.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelItem {
    /// Name for requests.
    id: String,
    /// `model`
    object: &'static str,
    /// Seconds since 1970.
    created: u64,
    /// `jinabert`
    owned_by: &'static str,
    /// Maximum text length in tokens.
    max_length: usize,
    /// Task of the model.
    model_type: Kind,
    /// Dimensions of a vector, if the model makes any.
    dimensions: Option<usize>,
}

/// Lists the models.
#[utoipa::path(get, path = "/v1/models", tag = "OpenAI and Jina",
    responses((status = 200, body = ModelsAnswer)))]
pub async fn models(
    extract::State(state): SharedState,
    extract::Extension(route): extract::Extension<RouteInfo>,
) -> Response<Body> {
    let models = match state.models() {
        Ok(models) => models,
        Err(error) => return error.response(route.dialect),
    };
    let data = models.iter().map(|model| item(&state, model)).collect();
    Json(ModelsAnswer { object: "list", data }).into_response()
}

fn item(state: &State, model: &ServedModel) -> ModelItem {
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

/// Describes one model.
#[utoipa::path(get, path = "/v1/models/{model}", tag = "OpenAI and Jina",
    params(("model" = String, Path)), responses((status = 200, body = ModelItem)))]
pub async fn model(
    extract::State(state): SharedState,
    extract::Extension(route): extract::Extension<RouteInfo>,
    extract::Path(name): extract::Path<String>,
) -> Response<Body> {
    let found = state.models().and_then(|models| {
        let found = models.iter().find(|model| model.name.eq_ignore_ascii_case(&name));
        found.ok_or_else(|| {
            ApiError::new(StatusCode::NOT_FOUND, "no such model").coded("model_not_found")
        })
    });
    match found {
        Ok(model) => Json(item(&state, model)).into_response(),
        Err(error) => error.response(route.dialect),
    }
}
