//! `jinabert serve` as clients see it.

mod dialects;
mod docker;
mod gpu;
mod kit;
mod life;
#[cfg(feature = "otlp")]
mod otlp;
mod refusals;
