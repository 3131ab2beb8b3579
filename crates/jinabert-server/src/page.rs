//! The page at `/`: computes the similarities of texts and shows them as a heat map.

use axum::{http::header, response::IntoResponse};

/// The HTML page; it is self-contained and loads nothing from other hosts.
const PAGE: &str = include_str!("page.html");

/// Content security policy: inline scripts and styles only, requests only to the same origin.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

pub async fn page() -> impl IntoResponse {
    let kind = (header::CONTENT_TYPE, "text/html; charset=utf-8");
    ([kind, (header::CONTENT_SECURITY_POLICY, POLICY)], PAGE)
}
