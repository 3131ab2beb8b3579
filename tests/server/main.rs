//! `jinabert serve` as clients see it.

mod dialects;
mod gpu;
mod kit;
mod life;
#[cfg(feature = "otlp")]
mod otlp;
mod refusals;
