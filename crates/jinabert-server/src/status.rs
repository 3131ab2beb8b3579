//! Status of the server: models, health, metrics.

use crate::{
    call::SharedState,
    dialect::{Dialect, RouteInfo},
    metrics,
    state::Kind,
};
use axum::{
    Json,
    body::Body,
    extract,
    http::{Response, StatusCode},
    response::IntoResponse,
};
use serde_json::json;

/// Describes the server and its model.
#[utoipa::path(get, path = "/info", tag = "TEI", responses((status = 200)))]
pub async fn info(
    extract::State(state): SharedState,
    extract::Extension(route): extract::Extension<RouteInfo>,
) -> Response<Body> {
    let model = match state.models() {
        Ok(models) => &models[0],
        Err(error) => return error.response(route.dialect),
    };
    let embedder = model.embedder();
    let labels = &embedder.config().labels;
    let kind = match model.kind() {
        Kind::Embedding => {
            let pooling = embedder.pooling().to_string();
            json!({ "embedding": { "pooling": pooling } })
        }
        other => {
            let ids: serde_json::Map<_, _> =
                labels.iter().enumerate().map(|(n, name)| (n.to_string(), json!(name))).collect();
            let numbers: serde_json::Map<_, _> =
                labels.iter().enumerate().map(|(n, name)| (name.clone(), json!(n))).collect();
            let name = if other == Kind::Classifier { "classifier" } else { "reranker" };
            json!({ name: { "id2label": ids, "label2id": numbers } })
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
        "max_batch_tokens": embedder.runtime().batch_tokens(),
        "max_batch_requests": null,
        "max_client_batch_size": limits.client_batch,
        "auto_truncate": state.auto_truncate,
        "tokenization_workers": std::thread::available_parallelism().map_or(1, usize::from),
        "version": env!("CARGO_PKG_VERSION"),
        "device": embedder.device(),
    }))
    .into_response()
}

/// Reports if the models are loaded and the device works.
#[utoipa::path(get, path = "/health", tag = "TEI", security(()), responses((status = 200), (status = 503)))]
pub async fn health(extract::State(state): SharedState) -> Response<Body> {
    match state.healthy() {
        Ok(()) => StatusCode::OK.into_response(),
        // The address belongs to no dialect; its format is that of text-embeddings-inference.
        Err(error) => error.response(Dialect::Tei),
    }
}

/// Metrics for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "TEI", security(()), responses((status = 200, body = String)))]
pub async fn metrics(extract::State(state): SharedState) -> Response<Body> {
    metrics::set_requests_in_progress(state.requests_in_progress());
    let kind = [("content-type", "text/plain; version=0.0.4; charset=utf-8")];
    (kind, state.metrics.render()).into_response()
}
