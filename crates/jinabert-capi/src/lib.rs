//! The C interface: cbindgen generates `include/jinabert.h` from this module, and `tests/capi`
//! checks that the two agree.
//!
//! A front end like the command line: it uses the [`Embedder`](jinabert::Embedder), its options and
//! its errors.  Misuse by a C caller gives a [`Status`] and a message: pointers are checked before
//! they are dereferenced (`raw`), handles are looked up and never dereferenced (`handle`), and
//! panics are caught (`guard`).  One thing cannot be checked: that a non-null pointer points to as
//! many elements as the caller says.  It is a precondition, which the header states.
//!
//! The documentation of public items is written for readers of the header, in terms of C.

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

use status::{CallError, guard};
