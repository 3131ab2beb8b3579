//! Tests of `jinabert serve` as a separate process.

mod addresses;
mod dialects;
mod docker;
mod gpu;
mod kit;
mod life;
#[cfg(feature = "otlp")]
mod otlp;
mod prompts;
mod refusals;
#[path = "../../../../tests/common/root.rs"]
mod root;
