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

use super::{
    Embedder, OnLong, Output, Pooling, Vector, Wanted,
    forward::{Forward, Prepared},
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
    /// What of the text it is.
    pub chunk: Chunk,
    /// Its embedding.
    pub vector: Vector,
}

/// A text's chunks and what they took.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct EmbeddedChunks {
    /// In order.
    pub chunks: Vec<EmbeddedChunk>,
    /// Tokens that were read, special ones included.
    pub tokens: usize,
    /// Tokens of the whole text, where some were dropped.
    pub truncated: Option<usize>,
}

/// Whose the vectors of a forward are: a window of a sequence.
struct Owner {
    sequence: usize,
    /// Which of its spans each belongs to, and what share of the span's tokens it is made of.
    of: Vec<(usize, f64)>,
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
        self.compute(self.prepare_chunks(texts, chunkings, self.wanted())?)
    }

    /// Where the chunks of each text are; nothing is computed.  [`Embedder::embed_spans`] makes of
    /// their tokens what [`Embedder::embed_chunks`] does.
    ///
    /// # Errors
    /// As [`Embedder::embed_chunks`].
    ///
    /// # Panics
    /// As [`Embedder::embed_chunks_of`].
    pub fn chunk<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        chunkings: &[&Chunking],
        wanted: Wanted,
    ) -> Result<Vec<Chunked>, Error> {
        Ok(self.chunked(texts, chunkings, wanted)?.0)
    }

    /// As [`Embedder::chunk`], and how many tokens each text had before it was cut.
    fn chunked<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        chunkings: &[&Chunking],
        wanted: Wanted,
    ) -> Result<(Vec<Chunked>, Vec<usize>), Error> {
        assert_eq!(texts.len(), chunkings.len(), "chunkings of the texts");
        if self.pooling() == Pooling::Cls {
            let what = "late chunks are means of tokens, this model's vectors the first token's";
            return Err(Error::Option(what.to_owned()));
        }
        let tokenizer = self.tokenizer()?;
        let mut chunked = text::each(texts, 0, |(index, text)| {
            let chunked = tokenizer.encode_chunked(text.as_ref(), chunkings[index]);
            chunked.map_err(|error| error.moved(|_| index))
        })?;
        let lengths: Vec<usize> = chunked.iter().map(|text| text.tokens.len()).collect();
        for (index, (text, &tokens)) in chunked.iter_mut().zip(&lengths).enumerate() {
            if tokens > self.limit {
                match wanted.on_long {
                    OnLong::Window => {}
                    OnLong::Truncate => text.truncate(self.limit),
                    OnLong::Error => {
                        return Err(Error::TooLong { index, tokens, limit: self.limit });
                    }
                }
            }
        }
        Ok((chunked, lengths))
    }

    /// The vectors of the chunks of each text.
    ///
    /// # Errors
    /// As [`Embedder::embed_chunks`], before anything is computed.
    ///
    /// # Panics
    /// As [`Embedder::embed_chunks_of`].
    pub fn prepare_chunks<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        chunkings: &[&Chunking],
        wanted: Wanted,
    ) -> Result<Prepared<Vec<EmbeddedChunks>>, Error> {
        let (chunked, lengths) = self.chunked(texts, chunkings, wanted)?;
        let spans = chunked.iter().map(|text| text.chunks.iter().map(|c| c.tokens.clone()));
        let spans: Vec<Vec<Range<usize>>> = spans.map(Iterator::collect).collect();
        let (tokens, chunks): (Vec<_>, Vec<_>) =
            chunked.into_iter().map(|text| (text.tokens, text.chunks)).unzip();
        let read: Vec<usize> = tokens.iter().map(Tokens::len).collect();
        Ok(self.prepare_spans(tokens, spans, wanted)?.map(|vectors| {
            let texts = chunks.into_iter().zip(vectors).zip(iter::zip(read, lengths));
            let texts = texts.map(|((chunks, vectors), (tokens, full))| {
                let pairs = chunks.into_iter().zip(vectors);
                let chunks = pairs.map(|(chunk, vector)| EmbeddedChunk { chunk, vector }).collect();
                EmbeddedChunks { chunks, tokens, truncated: (full > tokens).then_some(full) }
            });
            texts.collect()
        }))
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
        let sequences = sequences.iter().map(|&tokens| tokens.clone()).collect();
        self.compute(self.prepare_spans(sequences, spans.to_vec(), self.wanted())?)
    }

    /// The vectors of spans of token lists.
    ///
    /// # Errors
    /// As [`Embedder::embed_spans`], before anything is computed.
    ///
    /// # Panics
    /// As [`Embedder::embed_spans`].
    pub fn prepare_spans(
        &self,
        sequences: Vec<Tokens>,
        spans: Vec<Vec<Range<usize>>>,
        wanted: Wanted,
    ) -> Result<Prepared<Vec<Vec<Vector>>>, Error> {
        self.embeds()?;
        let Wanted { dimensions: dims, normalize, .. } = self.checked(wanted)?;
        let (forwards, owners) = self.all_windows(&sequences, &spans, wanted)?;
        let output = Output::Vectors { dims: dims as u32, normalize: false };
        Ok(Prepared::new(forwards, output, move |rows| {
            let mut sums: Vec<Vec<Vec<f64>>> =
                spans.iter().map(|spans| vec![vec![0.0; dims]; spans.len()]).collect();
            for (owner, rows) in iter::zip(owners, rows) {
                for (&(of, share), row) in iter::zip(&owner.of, rows.chunks_exact(dims)) {
                    let sum = &mut sums[owner.sequence][of];
                    sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += share * f64::from(*x));
                }
            }
            let vector = |sum: Vec<f64>| {
                let norm = sum.iter().map(|x| x * x).sum::<f64>().sqrt().max(1e-12);
                let scale = if normalize { 1.0 / norm } else { 1.0 };
                Vector(sum.into_iter().map(|x| (x * scale) as f32).collect())
            };
            sums.into_iter().map(|sums| sums.into_iter().map(vector).collect()).collect()
        }))
    }

    /// The last hidden state of every token of each list, \[T, D\] row-major, neither cut nor
    /// normalised.  Of a list that is read in windows, each token's as the window made it that owns
    /// it.
    ///
    /// # Errors
    /// As [`Embedder::embed_tokens`].
    pub fn embed_each_token(&self, sequences: &[&Tokens]) -> Result<Vec<Vec<f32>>, Error> {
        let sequences = sequences.iter().map(|&tokens| tokens.clone()).collect();
        self.compute(self.prepare_each_token(sequences, self.wanted())?)
    }

    /// The last hidden state of every token of each list.
    ///
    /// # Errors
    /// As [`Embedder::embed_each_token`], before anything is computed.
    pub fn prepare_each_token(
        &self,
        sequences: Vec<Tokens>,
        wanted: Wanted,
    ) -> Result<Prepared<Vec<Vec<f32>>>, Error> {
        self.embeds()?;
        let (d, count) = (self.config.hidden as usize, sequences.len());
        let whole: Vec<_> = sequences.iter().map(|tokens| vec![0..tokens.len()]).collect();
        let (forwards, owners) = self.all_windows(&sequences, &whole, wanted)?;
        let owned = forwards.iter().map(|f| f.spans[0].start as usize * d).collect::<Vec<_>>();
        Ok(Prepared::new(forwards, Output::Tokens, move |rows| {
            let mut hidden = vec![Vec::new(); count];
            for ((owner, mut rows), start) in owners.into_iter().zip(rows).zip(owned) {
                let hidden: &mut Vec<f32> = &mut hidden[owner.sequence];
                match hidden.is_empty() {
                    true => *hidden = rows.split_off(start),
                    false => hidden.extend_from_slice(&rows[start..]),
                }
            }
            hidden
        }))
    }

    /// Checks all sequences and their spans; every window of each, in order.
    fn all_windows(
        &self,
        sequences: &[Tokens],
        spans: &[Vec<Range<usize>>],
        wanted: Wanted,
    ) -> Result<(Vec<Forward>, Vec<Owner>), Error> {
        assert_eq!(sequences.len(), spans.len(), "spans of the sequences");
        for (index, (tokens, spans)) in iter::zip(sequences, spans).enumerate() {
            match wanted.on_long {
                OnLong::Window => self.check_ids(index, tokens)?,
                _ => self.check(index, tokens)?,
            }
            let within = |span: &&Range<usize>| span.start < span.end && span.end <= tokens.len();
            if let Some(span) = spans.iter().find(|span| !within(span)) {
                let what = format!("tokens {span:?} are no part of {}", tokens.len());
                return Err(Error::Input { index, what });
            }
        }
        let windows =
            (0..sequences.len()).flat_map(|n| self.windows_of(n, &sequences[n], &spans[n]));
        Ok(windows.unzip())
    }

    /// The windows of one sequence that hold something of a span.
    fn windows_of(
        &self,
        sequence: usize,
        tokens: &Tokens,
        spans: &[Range<usize>],
    ) -> Vec<(Forward, Owner)> {
        let mut windows = Vec::new();
        let mut owned = 0; // first token that no window owns
        while owned < tokens.len() {
            let start = owned.saturating_sub(self.overlap);
            let end = tokens.len().min(start + self.limit);
            let part = |(n, span): (usize, &Range<usize>)| {
                let (from, to) = (span.start.max(owned), span.end.min(end));
                let share = to.saturating_sub(from) as f64 / span.len() as f64;
                (from < to).then(|| ((n, share), (from - start) as u32..(to - start) as u32))
            };
            let (of, spans): (Vec<_>, Vec<_>) = spans.iter().enumerate().filter_map(part).unzip();
            if !of.is_empty() {
                let (ids, type_ids) = (&tokens.ids[start..end], &tokens.type_ids[start..end]);
                let unseen = tokens.unseen.saturating_sub(tokens.len() - end).min(ids.len() - 1);
                let tokens = Tokens { ids: ids.to_vec(), type_ids: type_ids.to_vec(), unseen };
                windows.push((Forward { tokens, spans }, Owner { sequence, of }));
            }
            owned = end;
        }
        windows
    }
}
