//! Which address is answered by what.

use super::{
    body, openai, page, predict,
    refusal::{Dialect, Refusal},
    rerank,
    state::State,
    status, tei, tokens,
};
use axum::{
    Router,
    body::Body,
    extract,
    http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode},
    middleware::{self, Next},
    routing::{get, post},
};
use std::{sync::Arc, time::Duration};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};
use tracing::Instrument;
use utoipa::OpenApi;
use utoipa_swagger_ui::SwaggerUi;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "jinabert",
        description = "JinaBERT embeddings in the dialects of OpenAI, Jina, Cohere and text-embeddings-inference."
    ),
    paths(
        openai::embeddings,
        openai::models,
        openai::model,
        rerank::rerank,
        tei::embed,
        tei::embed_all,
        tei::similarity,
        predict::predict,
        tokens::tokenize,
        tokens::decode,
        status::info,
        status::health,
        status::metrics
    )
)]
struct Api;

/// Everything that is answered.
pub fn router(state: Arc<State>, origins: &[HeaderValue]) -> Router {
    let private = Router::new()
        .route("/", post(tei::embed_or_similarity))
        .route("/embeddings", post(openai::embeddings))
        .route("/v1/embeddings", post(openai::embeddings))
        .route("/models", get(openai::models))
        .route("/v1/models", get(openai::models))
        .route("/v1/models/{*model}", get(openai::model))
        .route("/rerank", post(rerank::rerank))
        .route("/v1/rerank", post(rerank::rerank))
        .route("/v2/rerank", post(rerank::rerank))
        .route("/embed", post(tei::embed))
        .route("/embed_all", post(tei::embed_all))
        .route("/similarity", post(tei::similarity))
        .route("/predict", post(predict::predict))
        .route("/tokenize", post(tokens::tokenize))
        .route("/decode", post(tokens::decode))
        .route("/info", get(status::info))
        .route_layer(middleware::from_fn_with_state(state.clone(), guard));
    let public = Router::new()
        .route("/", get(page::page))
        .route("/health", get(status::health))
        .route("/ping", get(status::health))
        .route("/metrics", get(status::metrics))
        .merge(SwaggerUi::new("/docs").url("/api-doc/openapi.json", Api::openapi()));
    let router = private
        .merge(public)
        .fallback(nowhere)
        .method_not_allowed_fallback(otherwise)
        .layer(middleware::from_fn(harden))
        .layer(middleware::from_fn(trace))
        .with_state(state);
    if origins.is_empty() {
        return router;
    }
    let origins = match origins.iter().any(|origin| origin == "*") {
        true => AllowOrigin::any(),
        false => AllowOrigin::list(origins.iter().cloned()),
    };
    let cors = CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST])
        // `*` would not include `authorization`.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(EXPOSED.map(HeaderName::from_static))
        .max_age(Duration::from_secs(3600));
    router.layer(cors)
}

/// Headers of answers that pages may read.
const EXPOSED: [&str; 8] = [
    "retry-after",
    "x-compute-characters",
    "x-compute-tokens",
    "x-inference-time",
    "x-queue-time",
    "x-tokenization-time",
    "x-total-time",
    "x-truncated-inputs",
];

/// Turns away who has no key.
async fn guard(
    extract::State(state): extract::State<Arc<State>>,
    request: Request<Body>,
    next: Next,
) -> Response<Body> {
    if keys(request.headers()).any(|key| state.admits(key)) {
        return next.run(request).await;
    }
    let path = request.uri().path().to_owned();
    body::turn_away(request);
    super::metrics::failed(401);
    let message = "no valid API key: send `Authorization: Bearer KEY`";
    Refusal::new(StatusCode::UNAUTHORIZED, message)
        .coded("invalid_api_key")
        .response(dialect(&path))
}

/// The keys that a client shows: a bearer token, a bare one, or in a header of its own; the empty
/// one if it shows none.
fn keys(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = text("authorization").map(|value| match value.trim().split_once(' ') {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") => key.trim(),
        _ => value.trim(),
    });
    [bearer, text("x-api-key"), text("api-key"), Some("")].into_iter().flatten()
}

/// Whose clients ask for a path.
fn dialect(path: &str) -> Dialect {
    match path {
        "/" | "/embed" | "/embed_all" | "/similarity" | "/predict" | "/tokenize" | "/decode"
        | "/info" => Dialect::Tei,
        _ => Dialect::OpenAi,
    }
}

async fn nowhere(request: Request<Body>) -> Response<Body> {
    let message = "there is nothing at this address; /docs lists what there is";
    let dialect = dialect(request.uri().path());
    body::turn_away(request);
    Refusal::new(StatusCode::NOT_FOUND, message).response(dialect)
}

async fn otherwise(request: Request<Body>) -> Response<Body> {
    let message = "this address is asked by another method; /docs says which";
    let dialect = dialect(request.uri().path());
    body::turn_away(request);
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, message).response(dialect)
}

/// A span for each request, within the client's if it says which.
async fn trace(request: Request<Body>, next: Next) -> Response<Body> {
    let span = tracing::info_span!(
        "request",
        otel.kind = "server",
        otel.name = format!("{} {}", request.method(), request.uri().path()),
        http.request.method = %request.method(),
        url.path = request.uri().path(),
        http.response.status_code = tracing::field::Empty,
    );
    #[cfg(feature = "otlp")]
    {
        use tracing_opentelemetry::OpenTelemetrySpanExt;
        let headers = opentelemetry_http::HeaderExtractor(request.headers());
        let parent = opentelemetry::global::get_text_map_propagator(|p| p.extract(&headers));
        // Without a layer that takes it there is no parent to be had.
        let _ = span.set_parent(parent);
    }
    let answer = next.run(request).instrument(span.clone()).await;
    span.record("http.response.status_code", answer.status().as_u16());
    answer
}

/// Answers are what they say they are, and are shown in nobody else's frame.
async fn harden(request: Request<Body>, next: Next) -> Response<Body> {
    let mut response = next.run(request).await;
    for (name, value) in [("x-content-type-options", "nosniff"), ("x-frame-options", "DENY")] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
