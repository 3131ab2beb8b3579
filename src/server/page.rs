//! What a browser sees at `/`: texts in, their similarities as a heat map.

use axum::{http::header, response::IntoResponse};

/// The page; it has all it needs and asks nobody else.
const PAGE: &str = include_str!("page.html");

/// Scripts and styles are the page's own, requests go to where it came from.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

pub async fn page() -> impl IntoResponse {
    let kind = (header::CONTENT_TYPE, "text/html; charset=utf-8");
    ([kind, (header::CONTENT_SECURITY_POLICY, POLICY)], PAGE)
}
