//! Vectors of texts and of token ids.

use super::{
    CallError, CallerError, EmbedderHandle, Status, guard, handle, options,
    raw::{self, Room, Versioned},
};
use jinabert::{Embedded, Tokens};
use std::{
    ffi::{c_char, c_void},
    mem::offset_of,
    ops::ControlFlow,
};

/// Progress callback, called between batches: `done` of `total` texts are embedded.  A return value
/// other than 0 cancels the call, which then returns JINABERT_STATUS_CANCELLED.
///
/// Threads: the calling thread.  The callback may use the library, including this handle, and may
/// free the handle.  It must not unwind (no C++ exceptions) or longjmp.
pub type Progress =
    Option<unsafe extern "C" fn(done: usize, total: usize, user: *mut c_void) -> i32>;

/// Optional arguments and outputs of one call; zeros are the defaults.  Versioned by its `size`
/// like `jinabert_options`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Call {
    /// sizeof(jinabert_call)
    pub size: usize,
    /// Progress callback, or NULL.
    pub progress: Progress,
    /// Argument of `progress`.
    pub user: *mut c_void,
    /// NULL, or an output with one element per text: number of tokens in the vector, special tokens
    /// included.
    pub tokens: *mut usize,
    /// NULL, or an output with one element per text: number of tokens of the whole text if it was
    /// truncated, otherwise 0.
    pub truncated: *mut usize,
    /// Task of the LoRA adapter for this call, such as "retrieval.query"; that of
    /// `jinabert_options.adapter` if NULL, none if "".  Its instruction goes before each text
    /// unless the options set a prompt.
    pub adapter: *const c_char,
}

// SAFETY: repr(C), begins with `size`; pointers that are looked at before they are followed, and a
// function or null.
unsafe impl Versioned for Call {
    const NAME: &'static str = "call";
    const FIRST: usize = offset_of!(Self, adapter); // fields that were added later do not count
}

/// Embeds texts, in order.
///
/// `texts`: `count` pointers to UTF-8.
/// `lengths`: length of each text in bytes; texts then may contain NULs and need not end with one.
/// NULL: every text ends with NUL.  Empty texts are allowed.
/// `vectors`: output of `capacity` floats; `count * dimensions` floats are written, row by row,
/// when all are computed; none on error.
/// `call`: NULL, or options of this call.
/// Threads: any, concurrently with one handle too; batches of calls take turns on the device.
/// Errors: TOO_LONG for a text over the limit, unless it is truncated or read in windows;
/// BAD_UTF8; CAPACITY; OPTION if the model has no tokenizer; DEVICE, MEMORY, NOT_FINITE if the
/// device fails; CANCELLED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jinabert_embed(
    embedder: *const EmbedderHandle,
    texts: *const *const c_char,
    lengths: *const usize,
    count: usize,
    vectors: *mut f32,
    capacity: usize,
    call: *const Call,
    error: *mut CallerError,
) -> Status {
    let call = || {
        let embedder = handle::get(embedder)?;
        // SAFETY: what the header asks of a caller.
        let (mut vectors, call, task, mut tokens, mut truncated, texts) = unsafe {
            let vectors = rows(vectors, capacity, count, embedder.dim())?;
            let call = raw::versioned(call)?;
            let task = options::optional_string("call.adapter", call.adapter)?;
            let tokens = Room::optional("call.tokens", call.tokens, count)?;
            let truncated = Room::optional("call.truncated", call.truncated, count)?;
            (vectors, call, task, tokens, truncated, raw::texts("texts", texts, lengths, count)?)
        };
        let mut options = embedder.encode_options();
        options.adapter = match task.as_deref() {
            None => options.adapter,
            Some("") => None,
            Some(task) => Some(embedder.adapter(task)?),
        };
        let embedded = embedder.embed_watched(&texts, options, |progress| {
            let Some(callback) = call.progress else { return ControlFlow::Continue(()) };
            // SAFETY: the caller gave both for this.
            match unsafe { callback(progress.done, progress.total, call.user) } {
                0 => ControlFlow::Continue(()),
                _ => ControlFlow::Break(()),
            }
        })?;
        for Embedded { vector, tokens: read, truncated: whole, .. } in &embedded {
            vectors.write(vector);
            if let Some(tokens) = &mut tokens {
                tokens.write(&[*read]);
            }
            if let Some(truncated) = &mut truncated {
                truncated.write(&[whole.unwrap_or(0)]);
            }
        }
        Ok(())
    };
    // SAFETY: as above.
    unsafe { guard(error, call) }
}

/// Output with room for `count` vectors.
///
/// # Safety
/// As [`Room::new`].
unsafe fn rows<'a>(
    vectors: *mut f32,
    capacity: usize,
    count: usize,
    dim: usize,
) -> Result<Room<'a, f32>, CallError> {
    let needed = raw::product("vectors", count, dim)?;
    let what = format_args!("{count} vectors of {dim} components");
    // SAFETY: the caller's promise is the same.
    unsafe { Room::new("vectors", vectors, capacity, needed, what) }
}

/// Embeds lists of token ids, in order.  Ids are used unchanged: the caller includes the special
/// tokens.
///
/// `ids`: `id_count` ids, the concatenated lists.
/// `offsets`: `count + 1` offsets: list `n` is `ids[offsets[n]]` to `ids[offsets[n + 1]]`, end
/// exclusive.  They never decrease, and the last is at most `id_count`.
/// `vectors`: as for `jinabert_embed`.
/// Threads: as `jinabert_embed`.
/// Errors: INPUT for an empty list or an id outside the vocabulary, TOO_LONG (ids are never
/// truncated; with windows there is no limit), BAD_ARGUMENT for the offsets, CAPACITY, DEVICE,
/// MEMORY, NOT_FINITE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jinabert_embed_ids(
    embedder: *const EmbedderHandle,
    ids: *const u32,
    id_count: usize,
    offsets: *const usize,
    count: usize,
    vectors: *mut f32,
    capacity: usize,
    error: *mut CallerError,
) -> Status {
    let call = || {
        let embedder = handle::get(embedder)?;
        // SAFETY: what the header asks of a caller.
        let (mut vectors, lists) = unsafe {
            let vectors = rows(vectors, capacity, count, embedder.dim())?;
            let ids = raw::elements("ids", ids, id_count)?;
            (vectors, raw::lists("offsets", offsets, count, ids)?)
        };
        let lists: Vec<_> = lists.into_iter().map(|list| Tokens::new(list.to_vec())).collect();
        let embedded = embedder.tokens().embed(&lists.iter().collect::<Vec<_>>())?;
        embedded.iter().for_each(|vector| vectors.write(vector));
        Ok(())
    };
    // SAFETY: as above.
    unsafe { guard(error, call) }
}
