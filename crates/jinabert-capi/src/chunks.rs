//! Late chunking: vectors of the parts of a text that is encoded as a whole.

use super::{
    CallError, CallerError, EmbedderHandle, Status, guard, handle,
    raw::{self, Room, Versioned},
};
use jinabert::{Prompt, text};
use std::{ffi::c_char, mem::offset_of, num::NonZeroUsize, ops::Range};

/// `jinabert_chunking.unit`: where texts are split.
#[repr(C)]
pub enum Cut {
    /// After every `every` tokens.
    Tokens = 0,
    /// After every `every` sentences, by Unicode's UAX #29.
    Sentences = 1,
    /// At the caller's spans.
    Spans = 2,
}

/// Byte range of a text.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Span {
    /// First byte, at a character boundary.
    pub start: usize,
    /// End, exclusive.
    pub end: usize,
}

/// Options for splitting texts.  Versioned by its `size` like `jinabert_options`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Chunking {
    /// sizeof(jinabert_chunking)
    pub size: usize,
    /// Tokens or sentences per chunk, at least 1; the last chunk may have fewer.
    pub every: usize,
    /// Spans of all texts, concatenated; in order, without overlap, each with the first character
    /// of at least one token.  Text between spans belongs to no chunk.
    pub spans: *const Span,
    /// Number of spans of all texts together.
    pub span_count: usize,
    /// `count + 1` offsets: text `n` has `spans[span_offsets[n]]` to `spans[span_offsets[n + 1]]`,
    /// end exclusive, at least one.
    pub span_offsets: *const usize,
    /// A jinabert_cut.
    pub unit: u32,
    /// Must be 0.
    pub reserved: u32,
    /// Tokens or sentences that a chunk shares with the previous one, fewer than `every`.
    pub overlap: usize,
}

// SAFETY: repr(C), begins with `size`; integers, and pointers that are looked at before they are
// followed.
unsafe impl Versioned for Chunking {
    const NAME: &'static str = "chunking";
    const FIRST: usize = offset_of!(Self, overlap); // fields that were added later do not count
}

/// A chunk of a text.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Index of the text.
    pub text: usize,
    /// First byte in the text.
    pub start: usize,
    /// End byte, exclusive.
    pub end: usize,
    /// First token, special tokens counted.
    pub first_token: usize,
    /// End token, exclusive.
    pub end_token: usize,
}

/// Embeds the chunks of texts, each text encoded as a whole ("late chunking", arXiv:2409.04701).
///
/// The number of chunks is known only after tokenisation.  Call the function twice: first with
/// `vectors` NULL and `vector_capacity` 0, which computes no vectors and returns the number of
/// chunks, then with large enough outputs; or once, if the outputs are certainly large enough.
///
/// `texts`, `lengths`, `count`: as for `jinabert_embed`.
/// `chunking`: its `size` must be set.
/// `chunks`: output of `chunk_capacity` chunks, in the order of the texts; NULL with
/// `chunk_capacity` 0 if not needed.
/// `vectors`: output of `vector_capacity` floats: one vector per chunk, row by row.
/// `chunk_count`: receives the number of chunks, also with CAPACITY; 0 with any other error.
/// Threads: as `jinabert_embed`.
/// Errors: INPUT for spans that do not fit their text (`index` is the text), BAD_ARGUMENT for
/// offsets; CAPACITY, with which only `chunk_count` is written; otherwise as `jinabert_embed`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jinabert_embed_chunks(
    embedder: *const EmbedderHandle,
    texts: *const *const c_char,
    lengths: *const usize,
    count: usize,
    chunking: *const Chunking,
    chunks: *mut Chunk,
    chunk_capacity: usize,
    vectors: *mut f32,
    vector_capacity: usize,
    chunk_count: *mut usize,
    error: *mut CallerError,
) -> Status {
    let call = || {
        // SAFETY: what the header asks of a caller.
        unsafe { raw::give("chunk_count", chunk_count, 0) }?;
        let embedder = handle::get(embedder)?;
        // SAFETY: as above.
        let (texts, chunkings) = unsafe {
            let texts = raw::texts("texts", texts, lengths, count)?;
            let chunkings = chunkings(chunking, &texts)?;
            (texts, chunkings)
        };
        let by: Vec<_> = match &chunkings[..] {
            [one] => vec![one; count],
            each => each.iter().collect(),
        };
        let options = embedder.encode_options();
        let chunked = embedder.tokenization().chunks(&texts, &by, &Prompt::Auto, options)?;
        let found: Vec<Chunk> = (0..).zip(&chunked).flat_map(positions).collect();
        let dim = embedder.dim();
        let needed = raw::product("vectors", found.len(), dim)?;
        // SAFETY: as above.
        let give_count = || unsafe { raw::give("chunk_count", chunk_count, found.len()) };
        // SAFETY: as above.
        let outputs = || unsafe {
            let to_chunks = if chunks.is_null() && chunk_capacity == 0 {
                None
            } else {
                let what = format_args!("{} chunks", found.len());
                Some(Room::new("chunks", chunks, chunk_capacity, found.len(), what)?)
            };
            let to_vectors = if vectors.is_null() && vector_capacity == 0 {
                None
            } else {
                let what = format_args!("{} chunks of {dim} components", found.len());
                Some(Room::new("vectors", vectors, vector_capacity, needed, what)?)
            };
            Ok((to_chunks, to_vectors))
        };
        let (to_chunks, to_vectors) = outputs().or_else(|failure: CallError| {
            if failure.status() == Status::Capacity {
                give_count()?;
            }
            Err(failure)
        })?;
        if let Some(mut vectors) = to_vectors {
            let spans: Vec<Vec<Range<usize>>> = chunked
                .iter()
                .map(|text| text.chunks.iter().map(|chunk| chunk.tokens.clone()).collect())
                .collect();
            let tokens: Vec<_> = chunked.iter().map(|text| &text.tokens).collect();
            let embedded = embedder.tokens().spans(&tokens, &spans)?;
            embedded.iter().flatten().for_each(|vector| vectors.write(vector));
        }
        if let Some(mut chunks) = to_chunks {
            chunks.write(&found);
        }
        give_count()
    };
    // SAFETY: as above.
    unsafe { guard(error, call) }
}

/// Positions of the chunks of a text.
fn positions((text, chunked): (usize, &text::Chunked)) -> impl Iterator<Item = Chunk> {
    chunked.chunks.iter().map(move |chunk| Chunk {
        text,
        start: chunk.bytes.start,
        end: chunk.bytes.end,
        first_token: chunk.tokens.start,
        end_token: chunk.tokens.end,
    })
}

/// Chunking for all texts, or one for each text.
///
/// # Safety
/// `chunking` is null or points to a struct of its `size`, whose pointers are null or point to as
/// many elements as it says.
unsafe fn chunkings(
    chunking: *const Chunking,
    texts: &[&str],
) -> Result<Vec<text::Chunking>, CallError> {
    if chunking.is_null() {
        return Err(CallError::argument("`chunking` is null"));
    }
    // SAFETY: the caller's promise is the same.
    let chunking = unsafe { raw::versioned(chunking) }?;
    let by = |unit| {
        let overlap = chunking.overlap;
        match NonZeroUsize::new(chunking.every) {
            None => Err(CallError::argument("`chunking.every` is 0: a chunk has 1 or more")),
            Some(size) if overlap >= size.get() => Err(CallError::argument(format!(
                "expected a `chunking.overlap` under `chunking.every`, {size}, got {overlap}"
            ))),
            Some(size) => Ok(vec![text::Chunking::Overlapping { unit, size, overlap }]),
        }
    };
    let unit = match (chunking.unit, chunking.reserved) {
        (unit, 0) => unit,
        (_, reserved) => {
            return Err(CallError::argument(format!("`chunking.reserved` is {reserved}, not 0")));
        }
    };
    match unit {
        0 => by(text::Unit::Tokens),
        1 => by(text::Unit::Sentences),
        2 => {
            // SAFETY: the caller's promise is the same.
            let lists = unsafe {
                let spans = raw::elements("chunking.spans", chunking.spans, chunking.span_count)?;
                let offsets = chunking.span_offsets;
                raw::lists("chunking.span_offsets", offsets, texts.len(), spans)?
            };
            let each = texts.iter().zip(lists).enumerate().map(|(index, (text, spans))| {
                chars(text, spans).map(text::Chunking::Spans).map_err(|what| {
                    CallError::new(Status::Input, format!("input {index}: {what}")).at(index)
                })
            });
            each.collect()
        }
        unit => Err(CallError::argument(format!("`chunking.unit` is {unit}: 0 to 2 are known"))),
    }
}

/// Converts byte spans to character spans; a message for an invalid span.
fn chars(text: &str, spans: &[Span]) -> Result<Vec<Range<usize>>, String> {
    let mut byte = 0;
    let mut char = 0;
    let each = spans.iter().enumerate().map(|(n, &Span { start, end })| {
        let bad = |what: String| Err(format!("span {n}, bytes {start}..{end}: {what}"));
        if end > text.len() {
            return bad(format!("passes the end of the text, {} bytes", text.len()));
        }
        if start >= end {
            return bad("is empty or runs backwards".to_owned());
        }
        if start < byte {
            return bad(format!("begins before the span before it ends, at {byte}"));
        }
        if let Some(inside) = [start, end].into_iter().find(|&at| !text.is_char_boundary(at)) {
            return bad(format!("byte {inside} is inside a character"));
        }
        let first = char + text[byte..start].chars().count();
        char = first + text[start..end].chars().count();
        byte = end;
        Ok(first..char)
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_spans_become_character_spans() {
        let text = "aé日🐈b";
        let converted = |ranges: &[(usize, usize)]| {
            let spans: Vec<_> = ranges.iter().map(|&(start, end)| Span { start, end }).collect();
            chars(text, &spans)
        };
        assert_eq!(converted(&[(0, 1), (3, 10)]), Ok(vec![0..1, 2..4]));
        assert_eq!(converted(&[(1, 11)]), Ok(vec![1..5]));
        for (refused, says) in [
            (&[(0, 12)][..], "span 0, bytes 0..12: passes the end of the text, 11 bytes"),
            (&[(0, 1), (2, 6)], "span 1, bytes 2..6: byte 2 is inside a character"),
            (&[(0, 1), (1, 1)], "span 1, bytes 1..1: is empty or runs backwards"),
            (&[(3, 1)], "span 0, bytes 3..1: is empty or runs backwards"),
            (&[(0, 3), (1, 6)], "span 1, bytes 1..6: begins before the span before it ends, at 3"),
        ] {
            assert_eq!(converted(refused), Err(says.to_owned()));
        }
    }
}
