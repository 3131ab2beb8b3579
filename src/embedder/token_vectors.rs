//! A vector for every token: ColBERT's, and scores by MaxSim.

use super::{
    Embedder, EncodeOptions, Jobs, OnLong, Output, Prompt, Score, TokenCalls,
    job::{EncodeJob, SequenceInput},
    tokens::cloned,
};
use crate::{
    batch::Tokens,
    error::Error,
    model::{Task, normalize},
    text::{Tokenized, Tokenizer},
};
use rayon::prelude::*;

/// A vector for every token of a text.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TokenVectors {
    /// The tokens.
    pub ids: Vec<u32>,
    /// Components of each vector.
    pub dim: usize,
    /// Row-major vectors.
    pub values: Vec<f32>,
}

impl TokenVectors {
    /// The vectors.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> + Clone {
        self.values.chunks_exact(self.dim)
    }

    /// Vectors scaled to unit length.
    fn unit(ids: Vec<u32>, dim: usize, mut values: Vec<f32>) -> Self {
        values.chunks_exact_mut(dim).for_each(normalize);
        Self { ids, dim, values }
    }

    /// Keeps some of the vectors.
    fn keep(&mut self, kept: &[usize]) {
        let row = |n: &usize| self.values[n * self.dim..][..self.dim].iter().copied();
        self.values = kept.iter().flat_map(row).collect();
        self.ids = kept.iter().filter_map(|&n| self.ids.get(n).copied()).collect();
    }

    /// ColBERT's score of a document for this query: the sum over the query's tokens of the largest
    /// dot product with a token of the document (Khattab and Zaharia 2020, arXiv:2004.12832).
    ///
    /// # Panics
    /// If the vectors differ in length.
    pub fn max_sim(&self, document: &Self) -> f32 {
        assert_eq!(self.dim, document.dim, "components of the two");
        let best = |query: &[f32]| {
            let dot = |row: &[f32]| query.iter().zip(row).map(|(q, d)| q * d).sum::<f32>();
            document.rows().map(dot).fold(f32::NEG_INFINITY, f32::max)
        };
        self.rows().map(|query| f64::from(best(query))).sum::<f64>() as f32
    }
}

/// ColBERT's role of a text, marked by a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Plain text, without a marker.
    #[default]
    Plain,
    /// A query: a marker, `[QueryMarker]` or `[unused0]`, follows the first special token, and
    /// masks pad it to [`Options::query_length`](crate::Options::query_length) tokens; masks have
    /// vectors, too.  A longer query is not padded.
    Query,
    /// A document: the marker is `[DocumentMarker]` or `[unused1]`, and single punctuation marks
    /// get no vector.
    Document,
}

/// Markers of queries and of documents in jina-colbert-v2, whose queries attend to their padding.
const MARKERS_V2: [&str; 2] = ["[QueryMarker]", "[DocumentMarker]"];

/// Markers of queries and of documents in jina-colbert-v1 and ColBERT.
const MARKERS_V1: [&str; 2] = ["[unused0]", "[unused1]"];

impl Role {
    /// Id of the role's marker; none for plain text.
    fn marker(self, tokenizer: &Tokenizer) -> Result<Option<u32>, Error> {
        let n = match self {
            Self::Plain => return Ok(None),
            Self::Query => 0,
            Self::Document => 1,
        };
        let ids = [MARKERS_V2, MARKERS_V1].map(|markers| tokenizer.id_of(markers[n]));
        let found = ids.into_iter().flatten().next();
        found.map(Some).ok_or_else(|| {
            Error::Model(format!(
                "the vocabulary has neither `{}` nor `{}`, the marker of a {self:?}",
                MARKERS_V2[n], MARKERS_V1[n]
            ))
        })
    }
}

impl Embedder {
    /// A unit vector for every token of each text; for a model opened for [`Task::MultiVector`].
    ///
    /// # Errors
    /// As [`Embedder::embed`], and [`Error::Model`] if the vocabulary lacks the role's marker or
    /// the mask.
    pub fn multi_vector<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        role: Role,
    ) -> Result<Vec<TokenVectors>, Error> {
        self.opened_for(Task::MultiVector)?;
        let tokenized = self.of_role(texts, role, self.defaults)?;
        let tokens: Vec<&Tokens> = tokenized.iter().map(|text| &text.tokens).collect();
        let mut vectors = self.tokens().multi_vector(&tokens)?;
        if role == Role::Document {
            for vectors in &mut vectors {
                let kept = self.without_punctuation(&vectors.ids)?;
                vectors.keep(&kept);
            }
        }
        Ok(vectors)
    }

    /// Tokens of texts, with the marker and the padding of their role.
    fn of_role<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        role: Role,
        options: EncodeOptions,
    ) -> Result<Vec<Tokenized>, Error> {
        let tokenizer = self.tokenizer()?;
        let limit = self.limit(options)?;
        let mut tokenized = self.tokenization().texts(texts, &Prompt::Auto, options)?;
        if let Some(id) = role.marker(tokenizer)? {
            for text in &mut tokenized {
                // The marker replaces the last token of a text that fills the limit.
                if text.tokens.len() == limit && limit > 2 {
                    let last = text.tokens.len() - 2;
                    text.tokens.ids.remove(last);
                    text.tokens.type_ids.remove(last);
                }
                text.tokens.ids.insert(1.min(text.tokens.len()), id);
                text.tokens.type_ids.push(0);
            }
        }
        if role == Role::Query {
            self.pad(&mut tokenized)?;
        }
        Ok(tokenized)
    }

    /// Pads queries with mask tokens, as ColBERT does.
    fn pad(&self, queries: &mut [Tokenized]) -> Result<(), Error> {
        let length = self.queries.length.min(self.limit);
        let [marker, _] = MARKERS_V2;
        let usual = self.tokenizer()?.id_of(marker).is_some();
        let attend = self.queries.attend.unwrap_or(usual);
        let short = queries.iter_mut().map(|query| &mut query.tokens);
        for tokens in short.filter(|tokens| tokens.len() < length) {
            let (mask, _) = self.mask()?;
            let masks = length - tokens.len();
            tokens.ids.resize(length, mask);
            tokens.type_ids.resize(length, 0);
            tokens.query_only = if attend { 0 } else { masks };
        }
        Ok(())
    }

    /// Indices of the tokens that are no single punctuation mark.
    fn without_punctuation(&self, ids: &[u32]) -> Result<Vec<usize>, Error> {
        let tokenizer = self.tokenizer()?;
        let mark = |id: u32| {
            let token = tokenizer.token_of(id).unwrap_or_default();
            let token = token.strip_prefix('▁').unwrap_or(&token);
            matches!(token.as_bytes(), [byte] if byte.is_ascii_punctuation())
        };
        Ok((0..ids.len()).filter(|&n| !mark(ids[n])).collect())
    }
}

impl Jobs<'_> {
    /// Score of each document by MaxSim, in input order: of ColBERT's vectors, or of an embedding
    /// model's last hidden states.
    pub(super) fn max_sim<S: AsRef<str> + Sync>(
        self,
        query: &str,
        documents: &[S],
        options: EncodeOptions,
    ) -> Result<EncodeJob<Vec<Score>>, Error> {
        let Self(embedder) = self;
        // Every document is read as a whole.
        let on_long = match options.on_long {
            OnLong::Window => OnLong::Error,
            other => other,
        };
        let options = EncodeOptions { on_long, ..options };
        let projected = embedder.head.projected() as usize;
        let (roles, output, dim) = if projected > 0 {
            ([Role::Query, Role::Document], Output::Projected, projected)
        } else {
            let hidden = embedder.config().hidden as usize;
            ([Role::Plain; 2], Output::Tokens, hidden)
        };
        let of_query = |error| match error {
            Error::TooLong { tokens, limit, .. } => Error::QueryTooLong { tokens, limit },
            other => other,
        };
        let mut sequences = embedder.of_role(&[query], roles[0], options).map_err(of_query)?;
        sequences.extend(embedder.of_role(documents, roles[1], options)?);
        let lengths: Vec<_> = sequences[1..].iter().map(Tokenized::lengths).collect();
        let kept = sequences[1..].iter().map(|text| match roles[1] {
            Role::Document => embedder.without_punctuation(&text.tokens.ids),
            _ => Ok((0..text.tokens.len()).collect()),
        });
        let kept = kept.collect::<Result<Vec<_>, _>>()?;
        let tokens = sequences.into_iter().map(|text| text.tokens).collect();
        let tokens = embedder.adapted(tokens, options);
        embedder.check_all(&tokens)?;
        let sequences = tokens.into_iter().map(SequenceInput::whole).collect();
        Ok(EncodeJob::new(sequences, output, move |mut rows| {
            let documents = rows.split_off(1);
            let unit = |values| TokenVectors::unit(Vec::new(), dim, values);
            let query = unit(rows.remove(0));
            let queries = query.rows().len();
            let documents: Vec<_> = documents.into_iter().zip(kept).zip(lengths).collect();
            let scores = documents.into_par_iter().enumerate();
            let scores = scores.map(|(index, ((values, kept), (tokens, truncated)))| {
                let mut document = unit(values);
                document.keep(&kept);
                let logit = query.max_sim(&document);
                Score { index, logit, score: logit / queries as f32, tokens, truncated }
            });
            scores.collect()
        }))
    }
}

impl TokenCalls<'_> {
    /// A unit vector for every token of each list; for a model opened for [`Task::MultiVector`].
    ///
    /// # Errors
    /// As [`TokenCalls::embed`].
    pub fn multi_vector(self, sequences: &[&Tokens]) -> Result<Vec<TokenVectors>, Error> {
        self.0.opened_for(Task::MultiVector)?;
        self.project(sequences)
    }

    /// As [`TokenCalls::multi_vector`], also for a ColBERT model opened for [`Task::Rerank`].
    ///
    /// # Errors
    /// As [`TokenCalls::embed`], and [`Error::Option`] without a projection.
    pub fn project(self, sequences: &[&Tokens]) -> Result<Vec<TokenVectors>, Error> {
        let Self(embedder) = self;
        if embedder.head.projected() == 0 {
            embedder.opened_for(Task::MultiVector)?;
        }
        let dim = embedder.head.projected() as usize;
        let sequences = cloned(sequences);
        embedder.check_all(&sequences)?;
        let ids: Vec<_> = sequences.iter().map(|tokens| tokens.ids.clone()).collect();
        let sequences = sequences.into_iter().map(SequenceInput::whole).collect();
        let rows = embedder.compute(EncodeJob::new(sequences, Output::Projected, |rows| rows))?;
        let vectors = ids.into_iter().zip(rows);
        Ok(vectors.map(|(ids, values)| TokenVectors::unit(ids, dim, values)).collect())
    }
}
