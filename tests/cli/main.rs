//! The command line as its users meet it: the real program, run on small model directories.
//!
//! Everything that is refused ends with the documented exit code and one line on standard error
//! that names the thing, the limit and the value; it leaves no output behind, and never a panic.

#![cfg(feature = "cli")]

mod bench;
mod cache;
mod formats;
mod hub;
mod info;
mod input;
mod kit;
mod models;
mod output;
mod pages;
mod perplexity;
mod places;
mod precision;
mod tasks;
mod tune;
