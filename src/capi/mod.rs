//! The C interface: `include/jinabert.h` is made of this room by cbindgen, and `tests/capi` holds
//! the two together.
//!
//! A door like the command line: it knows the [`Embedder`](crate::Embedder), its options and its
//! errors.  What a caller in C may get wrong is a [`Status`] and a message: pointers are looked at
//! before they are followed (`raw`), handles are numbers that are looked up and never followed
//! (`handle`), and no panic leaves (`guard`).  What cannot be checked, that a pointer which is
//! not null leads to as many elements as the caller says, is the caller's promise; the header
//! states it.
//!
//! The documentation of what C sees is written for the header's readers, in C's words.

#![allow(unsafe_code, reason = "pointers come from C")]
#![allow(clippy::missing_safety_doc, reason = "the header says it once for all functions")]

mod chunks;
mod devices;
mod embed;
mod handle;
mod open;
mod options;
mod raw;
mod rerank;
mod status;
mod version;

pub use chunks::{Chunk, Chunking, Cut, Span, jinabert_embed_chunks};
pub use devices::{DeviceEntry, jinabert_device_at, jinabert_device_count};
pub use embed::{Call, Progress, jinabert_embed, jinabert_embed_ids};
pub use handle::EmbedderHandle;
pub use open::{
    Description, File, Release, jinabert_describe, jinabert_free, jinabert_open,
    jinabert_open_handles, jinabert_open_memory,
};
pub use options::{CallerOptions, Dtype, Fallback, OnLong, Pooling, Task, Tune};
pub use rerank::jinabert_rerank;
pub use status::{CallerError, MESSAGE_BYTES, Status, jinabert_status_name};
pub use version::{ABI_VERSION, jinabert_abi_version, jinabert_version};

use status::{Failure, guard};
