//! API dialects, and the properties of a route that handlers and middleware need.

/// API whose error format a response uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAI, Jina, Cohere: an object `error`, with Jina's `detail` and a `message` beside it.
    #[default]
    OpenAi,
    /// text-embeddings-inference: a string `error` and its type.
    Tei,
}

/// Properties of a route; every request carries those of its path as an extension.
#[derive(Clone, Copy, Debug, Default)]
pub struct RouteInfo {
    /// Dialect of errors.
    pub dialect: Dialect,
    /// Label of the route in the metrics; `None` if its requests are not counted.
    pub label: Option<&'static str>,
}
