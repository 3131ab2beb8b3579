//! Routes of the server.

use crate::{
    body,
    dialect::{
        Dialect::{self, OpenAi, Tei},
        RouteInfo,
    },
    error::ApiError,
    metrics, openai, page, predict, rerank,
    state::State,
    status, tei, tokens,
};
use axum::{
    Json, Router,
    body::Body,
    extract,
    http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header},
    middleware::{self, Next},
    routing::{MethodFilter, MethodRouter, get, on},
};
use std::{sync::Arc, time::Duration};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};
use tracing::Instrument;
use utoipa::{
    OpenApi,
    openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
};
use utoipa_swagger_ui::{Config, SwaggerUi};

/// Route of the API, which needs a key if there are any.
pub struct Route {
    /// Method; every route has one.
    pub method: MethodFilter,
    /// Path, in which `{*name}` stands for the rest.
    pub path: &'static str,
    /// Dialect of errors, and label in the metrics.
    pub info: RouteInfo,
    handler: fn(MethodFilter) -> MethodRouter<Arc<State>>,
}

/// All routes of the API; a path has one dialect and one label.
pub const ROUTES: &[Route] = &[
    Route::post("/", Tei, "embed", |method| on(method, tei::embed_or_similarity)),
    Route::post("/embed", Tei, "embed", |method| on(method, tei::embed)),
    Route::post("/embed_all", Tei, "embed_all", |method| on(method, tei::embed_all)),
    Route::post("/similarity", Tei, "similarity", |method| on(method, tei::similarity)),
    Route::post("/predict", Tei, "predict", |method| on(method, predict::predict)),
    Route::post("/tokenize", Tei, "tokenize", |method| on(method, tokens::tokenize)),
    Route::post("/decode", Tei, "decode", |method| on(method, tokens::decode)),
    Route::get("/info", Tei, |method| on(method, status::info)),
    // A request with `texts` switches to the other dialect.
    Route::post("/rerank", OpenAi, "rerank", |method| on(method, rerank::rerank)),
    Route::post("/v1/rerank", OpenAi, "rerank", |method| on(method, rerank::rerank)),
    Route::post("/v2/rerank", OpenAi, "rerank", |method| on(method, rerank::rerank)),
    Route::post("/embeddings", OpenAi, "embed", |method| on(method, openai::embeddings)),
    Route::post("/v1/embeddings", OpenAi, "embed", |method| on(method, openai::embeddings)),
    Route::get("/models", OpenAi, |method| on(method, openai::models)),
    Route::get("/v1/models", OpenAi, |method| on(method, openai::models)),
    Route::get("/models/{*model}", OpenAi, |method| on(method, openai::model)),
    Route::get("/v1/models/{*model}", OpenAi, |method| on(method, openai::model)),
];

impl Route {
    const fn get(
        path: &'static str,
        dialect: Dialect,
        handler: fn(MethodFilter) -> MethodRouter<Arc<State>>,
    ) -> Self {
        let info = RouteInfo { dialect, label: None };
        Self { method: MethodFilter::GET, path, info, handler }
    }

    const fn post(
        path: &'static str,
        dialect: Dialect,
        label: &'static str,
        handler: fn(MethodFilter) -> MethodRouter<Arc<State>>,
    ) -> Self {
        let info = RouteInfo { dialect, label: Some(label) };
        Self { method: MethodFilter::POST, path, info, handler }
    }

    fn matches(&self, path: &str) -> bool {
        match self.path.split_once("{*") {
            Some((prefix, _)) => path.starts_with(prefix),
            None => path == self.path,
        }
    }
}

/// Properties of the route at a path; the defaults if there is none.
fn route_info(path: &str) -> RouteInfo {
    let route = ROUTES.iter().find(|route| route.matches(path));
    route.map_or_else(RouteInfo::default, |route| route.info)
}

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
    let normalize = middleware::from_fn_with_state(Arc::<str>::from(base), normalize_path);
    Router::new().fallback_service(routes(state, origins)).layer(normalize)
}

fn routes(state: Arc<State>, origins: &[HeaderValue]) -> Router {
    let api = description(!state.keys.is_empty());
    metrics::create_route_series(ROUTES.iter().filter_map(|route| route.info.label));
    let mut private = Router::new();
    for route in ROUTES {
        private = private.route(route.path, (route.handler)(route.method));
    }
    private = private.route_layer(middleware::from_fn_with_state(state.clone(), check_key));
    let public = Router::new()
        .route("/", get(page::page))
        .route("/health", get(status::health))
        .route("/ping", get(status::health))
        .route("/metrics", get(status::metrics))
        .route("/api-doc/openapi.json", get(move || async move { Json(api) }))
        .merge(SwaggerUi::new("/docs").config(Config::new(["../api-doc/openapi.json"])));
    let router = private
        .merge(public)
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn(add_route_info))
        .layer(middleware::from_fn(set_security_headers))
        .layer(middleware::from_fn(trace))
        .with_state(state);
    if origins.is_empty() {
        return router;
    }
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().cloned())
    };
    let cors = CorsLayer::new()
        .allow_origin(allowed)
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
async fn normalize_path(
    extract::State(base): extract::State<Arc<str>>,
    mut request: Request<Body>,
    next: Next,
) -> Response<Body> {
    let full = request.uri().path();
    let below = full.strip_prefix(&*base).filter(|rest| rest.is_empty() || rest.starts_with('/'));
    let own = below.unwrap_or(full);
    // Relative links in a page need its trailing slash.
    let is_page = own.is_empty() || own == "/docs";
    if is_page && matches!(*request.method(), Method::GET | Method::HEAD) {
        let name = full.rsplit('/').next().unwrap_or_default();
        let location = HeaderValue::try_from(format!("{name}/"));
        let mut redirect = Response::new(Body::empty());
        *redirect.status_mut() = StatusCode::TEMPORARY_REDIRECT;
        redirect.headers_mut().extend(location.ok().map(|to| (header::LOCATION, to)));
        return redirect;
    }
    let path = if own.starts_with("/docs/") { own } else { own.trim_end_matches('/') };
    let query = request.uri().query().map_or_else(String::new, |query| format!("?{query}"));
    let uri = format!("{}{query}", if path.is_empty() { "/" } else { path });
    if let Ok(uri) = uri.parse() {
        *request.uri_mut() = uri;
    }
    next.run(request).await
}

/// Refuses requests without a valid key.
async fn check_key(
    extract::State(state): extract::State<Arc<State>>,
    request: Request<Body>,
    next: Next,
) -> Response<Body> {
    if keys(request.headers()).any(|key| state.admits(key)) {
        return next.run(request).await;
    }
    let message = "no valid API key: send `Authorization: Bearer KEY`";
    let error = ApiError::new(StatusCode::UNAUTHORIZED, message).coded("invalid_api_key");
    metrics::request_failed(error.status());
    refuse(request, error)
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

/// Adds the properties of the route at the path to a request.
async fn add_route_info(mut request: Request<Body>, next: Next) -> Response<Body> {
    let info = route_info(request.uri().path());
    request.extensions_mut().insert(info);
    next.run(request).await
}

async fn not_found(request: Request<Body>) -> Response<Body> {
    let message = "no such route; /docs lists the routes";
    refuse(request, ApiError::new(StatusCode::NOT_FOUND, message))
}

async fn method_not_allowed(request: Request<Body>) -> Response<Body> {
    let message = "method not allowed; /docs lists the methods of the routes";
    refuse(request, ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message))
}

/// Responds with an error in the dialect of the path.
fn refuse(request: Request<Body>, error: ApiError) -> Response<Body> {
    let dialect = route_info(request.uri().path()).dialect;
    body::turn_away(request);
    error.response(dialect)
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
    let response = next.run(request).instrument(span.clone()).await;
    span.record("http.response.status_code", response.status().as_u16());
    response
}

/// Sets security headers: no content sniffing, no framing by other sites.
async fn set_security_headers(request: Request<Body>, next: Next) -> Response<Body> {
    let mut response = next.run(request).await;
    for (name, value) in [("x-content-type-options", "nosniff"), ("x-frame-options", "DENY")] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
