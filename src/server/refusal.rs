//! Why a request gets no answer, as each dialect says it.

use crate::Error;
use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
};
use serde_json::json;
use std::fmt;

/// Whose clients an answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAI, Jina, Cohere: an object `error`; Jina's `detail` and a `message` beside it.
    OpenAi,
    /// text-embeddings-inference: a string `error` and its type.
    Tei,
}

/// A request that is refused or failed.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    message: String,
    /// The field that is to blame.
    param: Option<&'static str>,
    code: Option<&'static str>,
    /// When to come again, in seconds, if that is to be said.
    retry_after: u64,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Refusal {
    /// So refused.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code: None, retry_after: 1 }
    }

    /// What was sent makes no sense.
    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// There is nothing to do.
    pub fn empty(field: &'static str) -> Self {
        Self::bad(format!("`{field}` is empty")).about(field).coded("empty")
    }

    /// More at once than is allowed.
    pub fn too_many(field: &'static str, count: usize, limit: usize) -> Self {
        let message = format!(
            "`{field}` has {count} items, over the limit of {limit} a request (--max-client-batch-size)"
        );
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, message).about(field).coded("batch_too_large")
    }

    /// All that may be under way is; in so many seconds there may be room.
    pub fn overloaded(message: impl Into<String>, retry_after: u64) -> Self {
        let refusal = Self::new(StatusCode::TOO_MANY_REQUESTS, message).coded("overloaded");
        Self { retry_after, ..refusal }
    }

    /// The engine said no.
    pub fn engine(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::TooLong { .. } => Self::bad(format!("{message}; `truncate: true` cuts it"))
                .about("input")
                .coded("context_length_exceeded"),
            Error::Input { .. } => Self::bad(message).about("input"),
            // Of what a model is, not of its files: those were read when it was opened.
            Error::Option(_) | Error::Model(_) => Self::bad(message),
            Error::Gpu(_) | Error::Memory(_) | Error::NotFinite(_) => {
                tracing::error!("{message}");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, message).coded("backend")
            }
            // Others name files and have no place in an answer.
            other => {
                tracing::error!("{other}");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "an internal error")
            }
        }
    }

    /// As [`Refusal::engine`], of texts that came in some field.
    pub fn engine_in(field: &'static str) -> impl Fn(Error) -> Self {
        move |error| {
            let refusal = Self::engine(error);
            Self { param: refusal.param.map(|_| field), ..refusal }
        }
    }

    /// The field that is to blame.
    pub fn about(mut self, param: &'static str) -> Self {
        self.param = Some(param);
        self
    }

    /// A word for programs.
    pub fn coded(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    /// For the log and the metrics.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// OpenAI's word for what kind of error it is.
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

    /// text-embeddings-inference's word.
    fn tei_kind(&self) -> &'static str {
        match (self.status.as_u16(), self.code) {
            (_, Some("empty")) => "Empty",
            (429, _) => "Overloaded",
            (503, _) => "Unhealthy",
            (500.., _) => "Backend",
            _ => "Validation",
        }
    }

    /// The answer.
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
