//! `jinabert serve` as clients see it.

mod dialects;
mod kit;
mod life;
mod refusals;
