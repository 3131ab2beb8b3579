//! Late chunking: vectors of parts of a text that is read as a whole.
//!
//! Günther, Mohr, Williams, Wang, Xiao 2024, "Late Chunking: Contextual Chunk Embeddings Using
//! Long-Context Embedding Models", arXiv:2409.04701.  The model reads the whole text once; a
//! chunk's vector is the mean of the token outputs in it, so that it knows what surrounds it.
//!
//! A text over the limit is read in windows of `limit` tokens; each begins with the last
//! [`Options::overlap`](super::Options::overlap) tokens of the window before (section 3.2 there,
//! "long late chunking").  Windows get no special tokens of their own.  A window's outputs for its
//! overlap are dropped: those tokens had more left context in the window before.  The vector of a
//! chunk that crosses windows is the mean of its parts, weighted by their token counts.
//!
//! A prompt goes before the text once; its tokens belong to the text's first chunk.

use super::{
    Embedder, EncodeOptions, Jobs, OnLong, Output, Pooling, Prompt, TokenCalls, Tokenization,
    Vector,
    job::{EncodeJob, SequenceInput},
    tokens::cloned,
};
use crate::{
    batch::Tokens,
    error::Error,
    text::{self, Chunk, Chunked, Chunking},
};
use std::{iter, ops::Range};

/// A chunk's embedding.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct EmbeddedChunk {
    /// Position of the chunk in the text.
    pub chunk: Chunk,
    /// Its embedding.
    pub vector: Vector,
}

/// Chunks of one text, with token counts.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct EmbeddedChunks {
    /// Chunks in text order.
    pub chunks: Vec<EmbeddedChunk>,
    /// Number of tokens read, special tokens included.
    pub tokens: usize,
    /// Token count of the whole text, if it was truncated.
    pub truncated: Option<usize>,
}

/// Spans of a sequence in one of its windows.
pub(super) struct WindowShares {
    pub(super) sequence: usize,
    /// For each pooled vector, the index of its span and its share of the span's tokens.
    shares: Vec<(usize, f64)>,
    /// First token of the sequence that this window owns.
    pub(super) owned: usize,
}

impl Embedder {
    /// Embeds the chunks of each text, the text read as a whole: late chunking.
    ///
    /// A text over the limit is an error, is cut, or is read in windows, as
    /// [`OnLong`](super::OnLong) says.  [`Jobs::chunks`] takes a chunking for each text and
    /// a prompt.
    ///
    /// # Errors
    /// As [`Embedder::embed`], and [`Error::Input`] for chunks that are not of their text.
    pub fn embed_chunks<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        chunking: &Chunking,
    ) -> Result<Vec<EmbeddedChunks>, Error> {
        let chunkings = vec![chunking; texts.len()];
        self.compute(self.jobs().chunks(texts, &chunkings, &Prompt::Auto, self.defaults)?)
    }

    /// Chunks of each text, and its token count before truncation.
    fn chunked<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        chunkings: &[&Chunking],
        prompt: &Prompt,
        options: EncodeOptions,
    ) -> Result<(Vec<Chunked>, Vec<usize>), Error> {
        assert_eq!(texts.len(), chunkings.len(), "chunkings of the texts");
        if self.pooling() != Pooling::Mean {
            let pooling = self.pooling();
            let what = format!("late chunks are means of tokens, this model's vectors `{pooling}`");
            return Err(Error::Option(what));
        }
        if self.declared.lower_case {
            let what = "late chunks are parts of the text, and the model declares do_lower_case";
            return Err(Error::Option(what.to_owned()));
        }
        let tokenizer = self.tokenizer()?;
        let prompt = self.tokenization().prompt(prompt, options.adapter)?;
        let mut chunked = text::each(texts, 0, |(index, text)| {
            let chunking = chunkings[index];
            let chunked = tokenizer.encode_chunked_after(prompt, text.as_ref(), chunking);
            chunked.map_err(|error| error.moved(|_| index))
        })?;
        let lengths: Vec<usize> = chunked.iter().map(|text| text.tokens.len()).collect();
        let limit = self.limit(options)?;
        for (index, (text, &tokens)) in chunked.iter_mut().zip(&lengths).enumerate() {
            if tokens > limit {
                match options.on_long {
                    OnLong::Window => {}
                    OnLong::Truncate => text.truncate(limit),
                    OnLong::Error => return Err(Error::TooLong { index, tokens, limit }),
                }
            }
        }
        Ok((chunked, lengths))
    }

    /// All tokens of each sequence, in the windows that own them; consecutive windows share
    /// `overlap` tokens.
    pub(super) fn whole_windows(
        &self,
        sequences: &[Tokens],
        overlap: usize,
        options: EncodeOptions,
    ) -> Result<(Vec<SequenceInput>, Vec<WindowShares>), Error> {
        let whole: Vec<_> = sequences.iter().map(|tokens| vec![0..tokens.len()]).collect();
        self.all_windows(sequences, &whole, overlap, options)
    }

    /// Checks all sequences and their spans; returns all windows in order.
    fn all_windows(
        &self,
        sequences: &[Tokens],
        spans: &[Vec<Range<usize>>],
        overlap: usize,
        options: EncodeOptions,
    ) -> Result<(Vec<SequenceInput>, Vec<WindowShares>), Error> {
        assert_eq!(sequences.len(), spans.len(), "spans of the sequences");
        for (index, (tokens, spans)) in iter::zip(sequences, spans).enumerate() {
            match options.on_long {
                OnLong::Window => self.check_ids(index, tokens)?,
                _ => self.check(index, tokens)?,
            }
            let within = |span: &&Range<usize>| span.start < span.end && span.end <= tokens.len();
            if let Some(span) = spans.iter().find(|span| !within(span)) {
                let what = format!("tokens {span:?} are no part of {}", tokens.len());
                return Err(Error::Input { index, what });
            }
        }
        let limit = self.limit(options)?;
        let overlap = overlap.min(limit - 1);
        let windows = (0..sequences.len())
            .flat_map(|n| windows_of(n, &sequences[n], &spans[n], limit, overlap));
        Ok(windows.unzip())
    }
}

/// Windows of one sequence that overlap a span.
fn windows_of(
    sequence: usize,
    tokens: &Tokens,
    spans: &[Range<usize>],
    limit: usize,
    overlap: usize,
) -> Vec<(SequenceInput, WindowShares)> {
    let mut windows = Vec::new();
    let mut owned = 0; // first token without a window
    while owned < tokens.len() {
        let start = owned.saturating_sub(overlap);
        let end = tokens.len().min(start + limit);
        let part = |(n, span): (usize, &Range<usize>)| {
            let from = span.start.max(owned);
            let to = span.end.min(end);
            let share = to.saturating_sub(from) as f64 / span.len() as f64;
            (from < to).then(|| ((n, share), (from - start) as u32..(to - start) as u32))
        };
        let (shares, spans): (Vec<_>, Vec<_>) = spans.iter().enumerate().filter_map(part).unzip();
        if !shares.is_empty() {
            let ids = &tokens.ids[start..end];
            let type_ids = &tokens.type_ids[start..end];
            let query_only =
                tokens.query_only.saturating_sub(tokens.len() - end).min(ids.len() - 1);
            let (ids, type_ids) = (ids.to_vec(), type_ids.to_vec());
            let tokens = Tokens { ids, type_ids, query_only, adapter: tokens.adapter };
            let shares = WindowShares { sequence, shares, owned };
            windows.push((SequenceInput::spans(tokens, spans), shares));
        }
        owned = end;
    }
    windows
}

impl Tokenization<'_> {
    /// Positions of the chunks of each text, one chunking per text; nothing is computed.
    /// [`Jobs::spans`] of their tokens gives the vectors of [`Jobs::chunks`].
    ///
    /// # Errors
    /// As [`Jobs::chunks`].
    ///
    /// # Panics
    /// As [`Jobs::chunks`].
    pub fn chunks<S: AsRef<str> + Sync>(
        self,
        texts: &[S],
        chunkings: &[&Chunking],
        prompt: &Prompt,
        options: EncodeOptions,
    ) -> Result<Vec<Chunked>, Error> {
        Ok(self.0.chunked(texts, chunkings, prompt, options)?.0)
    }
}

impl Jobs<'_> {
    /// Vectors of the chunks of each text, one chunking per text.
    ///
    /// # Errors
    /// As [`Embedder::embed_chunks`] and [`Tokenization::prompt`].
    ///
    /// # Panics
    /// If the number of chunkings differs from the number of texts.
    pub fn chunks<S: AsRef<str> + Sync>(
        self,
        texts: &[S],
        chunkings: &[&Chunking],
        prompt: &Prompt,
        options: EncodeOptions,
    ) -> Result<EncodeJob<Vec<EmbeddedChunks>>, Error> {
        let (chunked, lengths) = self.0.chunked(texts, chunkings, prompt, options)?;
        let spans = chunked.iter().map(|text| text.chunks.iter().map(|c| c.tokens.clone()));
        let spans: Vec<Vec<Range<usize>>> = spans.map(Iterator::collect).collect();
        let (tokens, chunks): (Vec<_>, Vec<_>) =
            chunked.into_iter().map(|text| (text.tokens, text.chunks)).unzip();
        let read: Vec<usize> = tokens.iter().map(Tokens::len).collect();
        Ok(self.spans(tokens, spans, options)?.map(|vectors| {
            let texts = chunks.into_iter().zip(vectors).zip(iter::zip(read, lengths));
            let texts = texts.map(|((chunks, vectors), (tokens, full))| {
                let pairs = chunks.into_iter().zip(vectors);
                let chunks = pairs.map(|(chunk, vector)| EmbeddedChunk { chunk, vector }).collect();
                EmbeddedChunks { chunks, tokens, truncated: (full > tokens).then_some(full) }
            });
            texts.collect()
        }))
    }

    /// Vectors of spans of token lists.
    ///
    /// # Errors
    /// As [`TokenCalls::spans`].
    ///
    /// # Panics
    /// As [`TokenCalls::spans`].
    pub fn spans(
        self,
        sequences: Vec<Tokens>,
        spans: Vec<Vec<Range<usize>>>,
        options: EncodeOptions,
    ) -> Result<EncodeJob<Vec<Vec<Vector>>>, Error> {
        self.0.embeds()?;
        let EncodeOptions { dimensions: dims, normalize, .. } = self.0.checked(options)?;
        let sequences = self.0.adapted(sequences, options);
        let (sequences, windows) =
            self.0.all_windows(&sequences, &spans, self.0.overlap, options)?;
        let modules = self.0.modules.clone();
        let (output, width) = if modules.is_empty() {
            (Output::Vectors { dims: dims as u32, normalize: false }, dims)
        } else {
            (self.0.pooled(), self.0.config().hidden as usize)
        };
        Ok(EncodeJob::new(sequences, output, move |rows| {
            let mut sums: Vec<Vec<Vec<f64>>> =
                spans.iter().map(|spans| vec![vec![0.0; width]; spans.len()]).collect();
            for (window, rows) in iter::zip(windows, rows) {
                for (&(span, share), row) in iter::zip(&window.shares, rows.chunks_exact(width)) {
                    let sum = &mut sums[window.sequence][span];
                    sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += share * f64::from(*x));
                }
            }
            let vector = |sum: Vec<f64>| {
                if !modules.is_empty() {
                    let sum = sum.into_iter().map(|x| x as f32).collect();
                    return Vector(modules.ready(sum, options));
                }
                let norm = sum.iter().map(|x| x * x).sum::<f64>().sqrt().max(1e-12);
                let scale = if normalize { 1.0 / norm } else { 1.0 };
                Vector(sum.into_iter().map(|x| (x * scale) as f32).collect())
            };
            sums.into_iter().map(|sums| sums.into_iter().map(vector).collect()).collect()
        }))
    }

    /// Last hidden states of every token of each list, as [`TokenCalls::each_token`] returns them.
    ///
    /// # Errors
    /// As [`TokenCalls::each_token`].
    pub fn each_token(
        self,
        sequences: Vec<Tokens>,
        options: EncodeOptions,
    ) -> Result<EncodeJob<Vec<Vec<f32>>>, Error> {
        self.0.embeds()?;
        let d = self.0.config().hidden as usize;
        let sequences = self.0.adapted(sequences, options);
        let count = sequences.len();
        let (sequences, windows) = self.0.whole_windows(&sequences, self.0.overlap, options)?;
        let owned = sequences.iter().map(|f| f.spans[0].start as usize * d).collect::<Vec<_>>();
        Ok(EncodeJob::new(sequences, Output::Tokens, move |rows| {
            let mut hidden = vec![Vec::new(); count];
            for ((window, mut rows), start) in windows.into_iter().zip(rows).zip(owned) {
                let hidden: &mut Vec<f32> = &mut hidden[window.sequence];
                if hidden.is_empty() {
                    *hidden = rows.split_off(start)
                } else {
                    hidden.extend_from_slice(&rows[start..])
                }
            }
            hidden
        }))
    }
}

impl TokenCalls<'_> {
    /// Embeds spans of token lists.  Each list is read as a whole, or in windows if it is over the
    /// limit and [`OnLong::Window`](super::OnLong::Window) is set.
    ///
    /// # Errors
    /// As [`TokenCalls::embed`], and [`Error::Input`] for a span that is empty, runs backwards or
    /// passes the end.
    ///
    /// # Panics
    /// If the numbers of span lists and token lists differ.
    pub fn spans(
        self,
        sequences: &[&Tokens],
        spans: &[Vec<Range<usize>>],
    ) -> Result<Vec<Vec<Vector>>, Error> {
        let Self(embedder) = self;
        let jobs = embedder.jobs();
        embedder.compute(jobs.spans(cloned(sequences), spans.to_vec(), embedder.defaults)?)
    }

    /// Last hidden state of every token of each list, \[T, D\] row-major, neither truncated nor
    /// normalised.  For a list read in windows, each token's state comes from the window that owns
    /// it.
    ///
    /// # Errors
    /// As [`TokenCalls::embed`].
    pub fn each_token(self, sequences: &[&Tokens]) -> Result<Vec<Vec<f32>>, Error> {
        let Self(embedder) = self;
        embedder.compute(embedder.jobs().each_token(cloned(sequences), embedder.defaults)?)
    }
}
