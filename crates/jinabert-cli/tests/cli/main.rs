//! The command line as users see it: the real program, run on small model directories.
//!
//! Every refusal gives the documented exit code and one line on standard error that names the
//! object, the limit and the value; it leaves no output and never panics.

mod adapters;
mod bench;
mod cache;
mod declared;
mod formats;
mod gguf;
mod hub;
mod info;
mod input;
mod json;
mod kit;
mod models;
mod output;
mod pages;
mod perplexity;
mod places;
mod precision;
mod roberta;
#[path = "../../../../tests/common/root.rs"]
mod root;
mod shaders;
#[cfg(unix)]
mod signals;
mod t5;
mod tasks;
mod tune;
mod variables;
