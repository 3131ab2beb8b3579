//! Error responses, in the format of each dialect.

use crate::dialect::Dialect;
use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
};
use jinabert::Error;
use serde_json::json;
use std::fmt;

/// Error that a request is answered with.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    message: String,
    /// Field that caused the error.
    param: Option<&'static str>,
    code: Option<&'static str>,
    /// Value of `Retry-After` in seconds, where it is sent.
    retry_after: u64,
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl ApiError {
    /// Error with a status and a message.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code: None, retry_after: 1 }
    }

    /// 400: the request is invalid.
    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 400: the field is empty.
    pub fn empty(field: &'static str) -> Self {
        Self::bad(format!("`{field}` is empty")).about(field).coded("empty")
    }

    /// 413: the field has more items than allowed.
    pub fn too_many(field: &'static str, count: usize, limit: usize) -> Self {
        let message = format!(
            "`{field}` has {count} items, over the limit of {limit} a request (--max-client-batch-size)"
        );
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, message).about(field).coded("batch_too_large")
    }

    /// 413: the body is larger than allowed.
    pub fn payload_too_large(limit: usize) -> Self {
        let message = format!("the body is over the limit of {limit} bytes (--payload-limit)");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    }

    /// 500: the cause is in the log, or a thread has panicked.
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal error")
    }

    /// 429: all permits are taken; `retry_after` is in seconds.
    pub fn overloaded(message: impl Into<String>, retry_after: u64) -> Self {
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, message).coded("overloaded");
        Self { retry_after, ..error }
    }

    /// Error for a failure of the engine.
    pub fn engine(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::TooLong { .. } => Self::too_long(&message).about("input"),
            Error::QueryTooLong { .. } => Self::too_long(&message).about("query"),
            Error::Input { .. } => Self::bad(message).about("input"),
            Error::Query { .. } => Self::bad(message).about("query"),
            // These errors are about the model, not its files, which were read when it was opened.
            Error::Option(_) | Error::Model(_) => Self::bad(message),
            Error::Gpu(_) | Error::Compile { .. } | Error::Memory(_) | Error::NotFinite(_) => {
                tracing::error!("{message}");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, message).coded("backend")
            }
            // Other errors name files, which must not appear in a response.
            other => {
                tracing::error!("{other}");
                Self::internal()
            }
        }
    }

    /// 400: a text has more tokens than allowed.
    fn too_long(message: &str) -> Self {
        Self::bad(format!("{message}; `truncate: true` truncates it"))
            .coded("context_length_exceeded")
    }

    /// As [`ApiError::engine`], for texts of a given field.
    pub fn engine_in(field: &'static str) -> impl Fn(Error) -> Self {
        move |error| {
            let error = Self::engine(error);
            let param = error.param.map(|param| if param == "input" { field } else { param });
            Self { param, ..error }
        }
    }

    /// Sets the field that caused the error.
    pub fn about(mut self, param: &'static str) -> Self {
        self.param = Some(param);
        self
    }

    /// Sets the machine-readable code.
    pub fn coded(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    /// Status, for the log and the metrics.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Error type in OpenAI's terms.
    fn kind(&self) -> &'static str {
        match self.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            404 | 405 => "not_found_error",
            429 => "rate_limit_error",
            503 => "service_unavailable_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        }
    }

    /// Error type in text-embeddings-inference's terms.
    fn tei_kind(&self) -> &'static str {
        match (self.status.as_u16(), self.code) {
            (_, Some("empty")) => "Empty",
            (429, _) => "Overloaded",
            (503, _) => "Unhealthy",
            (500.., _) => "Backend",
            _ => "Validation",
        }
    }

    /// Response in a dialect.
    pub fn response(self, dialect: Dialect) -> Response<Body> {
        let Self { status, message, param, code, .. } = &self;
        let status = match (dialect, code) {
            (Dialect::Tei, Some("context_length_exceeded")) => StatusCode::PAYLOAD_TOO_LARGE,
            (Dialect::Tei, Some("backend")) => StatusCode::FAILED_DEPENDENCY,
            _ => *status,
        };
        let body = match dialect {
            Dialect::OpenAi => json!({
                "error": { "message": message, "type": self.kind(), "param": param, "code": code },
                "detail": message,
                "message": message,
            }),
            Dialect::Tei => json!({
                "error": message,
                "error_type": self.tei_kind(),
                "message": message,
            }),
        };
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = status;
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        if matches!(status.as_u16(), 429 | 503) {
            let value = HeaderValue::from(self.retry_after);
            response.headers_mut().insert(header::RETRY_AFTER, value);
        }
        if status == StatusCode::UNAUTHORIZED {
            let bearer = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
        }
        response
    }
}
