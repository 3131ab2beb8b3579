//! Vectors of parts of a text that were read as a whole: late chunking.
//!
//! Günther, Mohr, Williams, Wang, Xiao 2024, "Late Chunking: Contextual Chunk Embeddings Using
//! Long-Context Embedding Models", arXiv:2409.04701.  The model reads the whole text once; a
//! chunk's vector is the mean of the token outputs in it, so that it knows what surrounds it.
//!
//! A text over the limit is read in windows of as many tokens as the limit, each of which begins
//! with the last [`Options::overlap`](super::Options::overlap) tokens of the one before (section
//! 3.2 there, "long late chunking").  Windows get no special tokens of their own, and what a window
//! makes of its overlap is left out: those tokens saw more on their left before.  A chunk that
//! crosses windows is the mean of its parts, each weighted by its tokens.

use super::{Embedder, Output, Spans, Vector};
use crate::{
    batch::Tokens,
    error::Error,
    text::{Chunk, Chunking},
};
use rayon::prelude::*;
use std::ops::Range;

/// A chunk's embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbeddedChunk {
    /// What of the text it is.
    pub chunk: Chunk,
    /// Its embedding.
    pub vector: Vector,
}

/// A text's chunks and what they took.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbeddedChunks {
    /// In order.
    pub chunks: Vec<EmbeddedChunk>,
    /// Tokens that were read, special ones included.
    pub tokens: usize,
    /// Tokens of the whole text, where some were dropped.
    pub truncated: Option<usize>,
}

/// A window of a sequence: a forward of its own.
struct Window {
    /// Which sequence.
    sequence: usize,
    tokens: Tokens,
    /// Parts of the sequence's spans that this window owns, counted from its first token.
    spans: Vec<Range<u32>>,
    /// Whose parts they are.
    of: Vec<usize>,
}

impl Embedder {
    /// Embeds the chunks of each text, the text read as a whole: late chunking.
    ///
    /// A text over the limit is an error, is cut, or is read in windows, as
    /// [`OnLong`](super::OnLong) says.
    ///
    /// # Errors
    /// As [`Embedder::embed`], and [`Error::Input`] for chunks that are not of their text.
    pub fn embed_chunks<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        chunking: &Chunking,
    ) -> Result<Vec<EmbeddedChunks>, Error> {
        let chunkings = vec![chunking; texts.len()];
        self.embed_chunks_of(texts, &chunkings)
    }

    /// As [`Embedder::embed_chunks`], with a chunking for each text.
    ///
    /// # Errors
    /// As [`Embedder::embed_chunks`].
    ///
    /// # Panics
    /// If there are not as many chunkings as texts.
    pub fn embed_chunks_of<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        chunkings: &[&Chunking],
    ) -> Result<Vec<EmbeddedChunks>, Error> {
        assert_eq!(texts.len(), chunkings.len(), "chunkings of the texts");
        let tokenizer = self.tokenizer()?;
        let pairs = texts.par_iter().zip(chunkings).enumerate();
        let chunked = pairs.map(|(index, (text, chunking))| {
            let chunked = tokenizer.encode_chunked(text.as_ref(), chunking);
            chunked.map_err(|error| error.moved(|_| index))
        });
        let mut chunked = chunked.collect::<Result<Vec<_>, _>>()?;
        let lengths: Vec<usize> = chunked.iter().map(|text| text.tokens.len()).collect();
        for (index, (text, &tokens)) in chunked.iter_mut().zip(&lengths).enumerate() {
            if tokens > self.limit && !self.windows() {
                match self.cut() {
                    Some(limit) => text.truncate(limit),
                    None => return Err(Error::TooLong { index, tokens, limit: self.limit }),
                }
            }
        }
        let tokens: Vec<&Tokens> = chunked.iter().map(|text| &text.tokens).collect();
        let spans = chunked.iter().map(|text| text.chunks.iter().map(|c| c.tokens.clone()));
        let spans: Vec<Vec<Range<usize>>> = spans.map(Iterator::collect).collect();
        let vectors = self.embed_spans(&tokens, &spans)?;
        let texts = chunked.into_iter().zip(vectors).zip(lengths).map(|((text, vectors), full)| {
            let (tokens, pairs) = (text.tokens.len(), text.chunks.into_iter().zip(vectors));
            let chunks = pairs.map(|(chunk, vector)| EmbeddedChunk { chunk, vector }).collect();
            EmbeddedChunks { chunks, tokens, truncated: (full > tokens).then_some(full) }
        });
        Ok(texts.collect())
    }

    /// Embeds spans of token lists, each list read as a whole, or in windows where it is over the
    /// limit and [`OnLong::Window`](super::OnLong::Window) says so.
    ///
    /// # Errors
    /// As [`Embedder::embed_tokens`], and [`Error::Input`] for a span that is empty, runs backwards
    /// or passes the end.
    ///
    /// # Panics
    /// If there are not as many lists of spans as of tokens.
    pub fn embed_spans(
        &self,
        sequences: &[&Tokens],
        spans: &[Vec<Range<usize>>],
    ) -> Result<Vec<Vec<Vector>>, Error> {
        let windows = self.all_windows(sequences, spans)?;
        let tokens: Vec<&Tokens> = windows.iter().map(|window| &window.tokens).collect();
        let parts: Vec<Vec<Range<u32>>> = windows.iter().map(|w| w.spans.clone()).collect();

        let dims = self.dims;
        let mut sums: Vec<Vec<Vec<f64>>> =
            spans.iter().map(|spans| vec![vec![0.0; dims]; spans.len()]).collect();
        let output = Output::Vectors { dims: dims as u32, normalize: false };
        self.run(&tokens, output, Spans::Each(&parts), |members, _, values| {
            let mut rows = values.chunks_exact(dims);
            for window in members.iter().map(|&n| &windows[n]) {
                for (&of, part) in window.of.iter().zip(&window.spans) {
                    let row = rows.next().expect("a row for each span");
                    let share = part.len() as f64 / spans[window.sequence][of].len() as f64;
                    let sum = &mut sums[window.sequence][of];
                    sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += share * f64::from(*x));
                }
            }
        })?;
        let vector = |sum: Vec<f64>| {
            let norm = sum.iter().map(|x| x * x).sum::<f64>().sqrt().max(1e-12);
            let scale = if self.normalize { 1.0 / norm } else { 1.0 };
            Vector(sum.into_iter().map(|x| (x * scale) as f32).collect())
        };
        Ok(sums.into_iter().map(|sums| sums.into_iter().map(vector).collect()).collect())
    }

    /// The last hidden state of every token of each list, \[T, D\] row-major, neither cut nor
    /// normalised.  Of a list that is read in windows, each token's as the window made it that owns
    /// it.
    ///
    /// # Errors
    /// As [`Embedder::embed_tokens`].
    pub fn embed_each_token(&self, sequences: &[&Tokens]) -> Result<Vec<Vec<f32>>, Error> {
        let d = self.config.hidden as usize;
        let whole: Vec<_> = sequences.iter().map(|tokens| vec![0..tokens.len()]).collect();
        let windows = self.all_windows(sequences, &whole)?;
        let tokens: Vec<&Tokens> = windows.iter().map(|window| &window.tokens).collect();
        let mut owned = vec![Vec::new(); windows.len()];
        self.run(&tokens, Output::Tokens, Spans::Whole, |members, batch, values| {
            for (&n, range) in members.iter().zip(&batch.cu_seqlens) {
                let part = &windows[n].spans[0];
                let [start, end] = [part.start, part.end].map(|row| (range + row) as usize * d);
                owned[n] = values[start..end].to_vec();
            }
        })?;
        let mut hidden = vec![Vec::new(); sequences.len()];
        for (window, rows) in windows.iter().zip(owned) {
            let hidden: &mut Vec<f32> = &mut hidden[window.sequence];
            if hidden.is_empty() { *hidden = rows } else { hidden.extend(rows) }
        }
        Ok(hidden)
    }

    /// Checks all sequences and their spans; every window of each, in order.
    fn all_windows(
        &self,
        sequences: &[&Tokens],
        spans: &[Vec<Range<usize>>],
    ) -> Result<Vec<Window>, Error> {
        assert_eq!(sequences.len(), spans.len(), "spans of the sequences");
        for (index, (tokens, spans)) in sequences.iter().zip(spans).enumerate() {
            self.check_ids(index, tokens)?;
            if !self.windows() {
                self.check(index, tokens)?;
            }
            let within = |span: &&Range<usize>| span.start < span.end && span.end <= tokens.len();
            if let Some(span) = spans.iter().find(|span| !within(span)) {
                let what = format!("tokens {span:?} are no part of {}", tokens.len());
                return Err(Error::Input { index, what });
            }
        }
        let windows =
            (0..sequences.len()).flat_map(|n| self.windows_of(n, sequences[n], &spans[n]));
        Ok(windows.collect())
    }

    /// The windows of one sequence that hold something of a span.
    fn windows_of(&self, sequence: usize, tokens: &Tokens, spans: &[Range<usize>]) -> Vec<Window> {
        let mut windows = Vec::new();
        let mut owned = 0; // first token that no window owns
        while owned < tokens.len() {
            let start = owned.saturating_sub(self.overlap);
            let end = tokens.len().min(start + self.limit);
            let part = |span: &Range<usize>| {
                let (from, to) = (span.start.max(owned), span.end.min(end));
                (from < to).then(|| (from - start) as u32..(to - start) as u32)
            };
            let parts = spans.iter().enumerate().filter_map(|(n, span)| Some((n, part(span)?)));
            let (of, spans): (Vec<_>, Vec<_>) = parts.unzip();
            if !of.is_empty() {
                let (ids, type_ids) = (&tokens.ids[start..end], &tokens.type_ids[start..end]);
                let tokens = Tokens { ids: ids.to_vec(), type_ids: type_ids.to_vec() };
                windows.push(Window { sequence, tokens, spans, of });
            }
            owned = end;
        }
        windows
    }
}
