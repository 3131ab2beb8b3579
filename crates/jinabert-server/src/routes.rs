//! Routes of the server.

use super::{
    body, openai, page, predict,
    refusal::{ApiError, Dialect},
    rerank,
    state::State,
    status, tei, tokens,
};
use axum::{
    Json, Router,
    body::Body,
    extract,
    http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header},
    middleware::{self, Next},
    routing::{get, post},
};
use std::{sync::Arc, time::Duration};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};
use tracing::Instrument;
use utoipa::{
    OpenApi,
    openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
};
use utoipa_swagger_ui::{Config, SwaggerUi};

#[derive(OpenApi)]
#[openapi(
    // Addresses are relative to the address of the description: a proxy may add a prefix.
    servers((url = "..")),
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

/// OpenAPI description, with the scheme of the keys if there are any.
fn description(keys: bool) -> utoipa::openapi::OpenApi {
    let mut api = Api::openapi();
    if keys {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        api.components.get_or_insert_default().add_security_scheme("bearer", scheme);
        api.security = Some(vec![SecurityRequirement::new("bearer", [""; 0])]);
    }
    api
}

/// Router with all routes, at the root and below a base path.
pub fn router(state: Arc<State>, origins: &[HeaderValue], base: &str) -> Router {
    let base: Arc<str> = base.into();
    let addressed = middleware::from_fn_with_state(base, address);
    Router::new().fallback_service(routes(state, origins)).layer(addressed)
}

fn routes(state: Arc<State>, origins: &[HeaderValue]) -> Router {
    let api = description(!state.keys.is_empty());
    let private = Router::new()
        .route("/", post(tei::embed_or_similarity))
        .route("/embeddings", post(openai::embeddings))
        .route("/v1/embeddings", post(openai::embeddings))
        .route("/models", get(openai::models))
        .route("/models/{*model}", get(openai::model))
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
        .route("/api-doc/openapi.json", get(move || async move { Json(api) }))
        .merge(SwaggerUi::new("/docs").config(Config::new(["../api-doc/openapi.json"])));
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

/// Response headers that scripts of other origins may read.
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

/// Removes the base path and a trailing slash from an address.  An address without the base path is
/// left as it is: a proxy may have removed it.
async fn address(
    extract::State(base): extract::State<Arc<str>>,
    mut request: Request<Body>,
    next: Next,
) -> Response<Body> {
    let path = request.uri().path();
    let below = path.strip_prefix(&*base).filter(|rest| rest.is_empty() || rest.starts_with('/'));
    let own = below.unwrap_or(path);
    // Relative links in a page need its trailing slash.
    let page = own.is_empty() || own == "/docs";
    if page && matches!(*request.method(), Method::GET | Method::HEAD) {
        let name = path.rsplit('/').next().unwrap_or_default();
        let to = HeaderValue::try_from(format!("{name}/"));
        let mut moved = Response::new(Body::empty());
        *moved.status_mut() = StatusCode::TEMPORARY_REDIRECT;
        moved.headers_mut().extend(to.ok().map(|to| (header::LOCATION, to)));
        return moved;
    }
    let own = match own.starts_with("/docs/") {
        true => own,
        false => own.trim_end_matches('/'),
    };
    let query = request.uri().query().map_or_else(String::new, |query| format!("?{query}"));
    let uri = format!("{}{query}", if own.is_empty() { "/" } else { own });
    if let Ok(uri) = uri.parse() {
        *request.uri_mut() = uri;
    }
    next.run(request).await
}

/// Refuses requests without a valid key.
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
    ApiError::new(StatusCode::UNAUTHORIZED, message)
        .coded("invalid_api_key")
        .response(dialect(&path))
}

/// Keys in a request: a bearer token, a bare one, or one in a header of its own; an empty key if
/// there is none.  They are bytes: a key may be non-ASCII.
fn keys(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let bytes = |name: &str| headers.get(name).map(|value| value.as_bytes().trim_ascii());
    let bearer = bytes("authorization").map(|value| match value.split_at_checked(BEARER.len()) {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case(BEARER) => key.trim_ascii(),
        _ => value,
    });
    [bearer, bytes("x-api-key"), bytes("api-key"), Some(&b""[..])].into_iter().flatten()
}

/// Prefix of a key in the header `authorization`.
const BEARER: &[u8] = b"bearer ";

/// Dialect of errors for a path.
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
    ApiError::new(StatusCode::NOT_FOUND, message).response(dialect)
}

async fn otherwise(request: Request<Body>) -> Response<Body> {
    let message = "this address is asked by another method; /docs says which";
    let dialect = dialect(request.uri().path());
    body::turn_away(request);
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message).response(dialect)
}

/// Creates a tracing span for each request, below the client's span if its headers name one.
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
        // Without a layer that handles it, the span has no parent.
        let _ = span.set_parent(parent);
    }
    let answer = next.run(request).instrument(span.clone()).await;
    span.record("http.response.status_code", answer.status().as_u16());
    answer
}

/// Sets security headers: no content sniffing, no framing by other sites.
async fn harden(request: Request<Body>, next: Next) -> Response<Body> {
    let mut response = next.run(request).await;
    for (name, value) in [("x-content-type-options", "nosniff"), ("x-frame-options", "DENY")] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
