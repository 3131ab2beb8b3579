//! Scores of documents for a query.

use super::{
    CallError, CallerError, EmbedderHandle, Status, guard, handle,
    raw::{self, Room},
};
use std::ffi::c_char;

/// Scores each document for a query, in input order.  The model must be opened with
/// JINABERT_TASK_RERANK.
///
/// `query`: UTF-8 of `query_length` bytes, or up to its NUL if that is JINABERT_NONE.
/// `documents`, `lengths`: as `texts` and `lengths` of `jinabert_embed`.
/// `scores`: output of `capacity` floats from 0 to 1, the sigmoid of the classifier's logit; NULL
/// if only logits are needed.
/// `logits`: output of `capacity` floats, the scores before the sigmoid; NULL if only scores are
/// needed.
/// Threads: as `jinabert_embed`.
/// Errors: TOO_LONG for a pair over the limit, unless it is truncated; `index` is the document;
/// OPTION if the model was opened for another task; MODEL if it gives more than one score;
/// otherwise as `jinabert_embed`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jinabert_rerank(
    embedder: *const EmbedderHandle,
    query: *const c_char,
    query_length: usize,
    documents: *const *const c_char,
    lengths: *const usize,
    count: usize,
    scores: *mut f32,
    logits: *mut f32,
    capacity: usize,
    error: *mut CallerError,
) -> Status {
    let call = || {
        let embedder = handle::get(embedder)?;
        if scores.is_null() && logits.is_null() && count.max(capacity) > 0 {
            return Err(CallError::argument("`scores` and `logits` are null"));
        }
        let output = |name: &str, pointer: *mut f32| {
            let what = format_args!("{count} documents");
            // SAFETY: what the header asks of a caller.
            (!pointer.is_null())
                .then(|| unsafe { Room::new(name, pointer, capacity, count, what) })
                .transpose()
        };
        let mut to_scores = output("scores", scores)?;
        let mut to_logits = output("logits", logits)?;
        // SAFETY: as above.
        let (query, documents) = unsafe {
            let query = raw::text("query", query, query_length)?;
            (query, raw::texts("documents", documents, lengths, count)?)
        };
        let prepared = embedder.jobs().scores(query, &documents, embedder.encode_options())?;
        for score in embedder.compute(prepared)? {
            if let Some(scores) = &mut to_scores {
                scores.write(&[score.score]);
            }
            if let Some(logits) = &mut to_logits {
                logits.write(&[score.logit]);
            }
        }
        Ok(())
    };
    // SAFETY: as above.
    unsafe { guard(error, call) }
}
