//! A vector for every token: ColBERT's.

use super::{
    Embedder, EncodeOptions, Output, Prompt, TokenCalls, Tokenization,
    job::{EncodeJob, SequenceInput},
    tokens::cloned,
};
use crate::{
    batch::Tokens,
    error::Error,
    model::{Task, normalize},
    text::{Tokenized, Tokenizer},
};

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
    /// Vectors that were kept, one for each token id.
    ///
    /// # Errors
    /// [`Error::Input`] with the index of a vector that is missing, without a token, of another
    /// length than the first, or not finite.
    pub fn from_rows(ids: Vec<u32>, rows: &[Vec<f32>]) -> Result<Self, Error> {
        let bad = |index, what: String| Err(Error::Input { index, what });
        if ids.len() != rows.len() || rows.is_empty() {
            let (ids, rows) = (ids.len(), rows.len());
            return bad(
                ids.min(rows),
                format!("expected a vector for each of {ids} ids, got {rows}"),
            );
        }
        let dim = rows[0].len();
        for (index, row) in rows.iter().enumerate() {
            if row.len() != dim || dim == 0 {
                let got = row.len();
                return bad(index, format!("expected {} components, got {got}", dim.max(1)));
            }
            if let Some(x) = row.iter().find(|x| !x.is_finite()) {
                return bad(index, format!("expected finite components, got {x}"));
            }
        }
        Ok(Self { ids, dim, values: rows.concat() })
    }

    /// The vectors.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> + Clone {
        self.values.chunks_exact(self.dim)
    }

    /// Vectors scaled to unit length.
    pub(super) fn unit(ids: Vec<u32>, dim: usize, mut values: Vec<f32>) -> Self {
        values.chunks_exact_mut(dim).for_each(normalize);
        Self { ids, dim, values }
    }

    /// Keeps some of the vectors.
    pub(super) fn keep(&mut self, kept: &[usize]) {
        let row = |n: &usize| self.values[n * self.dim..][..self.dim].iter().copied();
        self.values = kept.iter().flat_map(row).collect();
        self.ids = kept.iter().filter_map(|&n| self.ids.get(n).copied()).collect();
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
    /// As [`Embedder::embed`], [`Error::Model`] if the vocabulary lacks the role's marker or the
    /// mask, and [`Error::Option`] if the limit leaves no room for the marker.
    pub fn multi_vector<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        role: Role,
    ) -> Result<Vec<TokenVectors>, Error> {
        self.opened_for(Task::MultiVector)?;
        let tokenized = self.tokenization().of_role(texts, role, self.defaults)?;
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
    pub(super) fn without_punctuation(&self, ids: &[u32]) -> Result<Vec<usize>, Error> {
        let tokenizer = self.tokenizer()?;
        let mark = |id: u32| {
            let token = tokenizer.token_of(id).unwrap_or_default();
            let token = token.strip_prefix('▁').unwrap_or(&token);
            matches!(token.as_bytes(), [byte] if byte.is_ascii_punctuation())
        };
        Ok((0..ids.len()).filter(|&n| !mark(ids[n])).collect())
    }
}

impl Tokenization<'_> {
    /// Token ids of each text with the marker and the padding of its role; the marker counts
    /// towards the limit.
    ///
    /// # Errors
    /// As [`Embedder::multi_vector`].
    pub fn of_role<S: AsRef<str> + Sync>(
        self,
        texts: &[S],
        role: Role,
        options: EncodeOptions,
    ) -> Result<Vec<Tokenized>, Error> {
        let Some(marker) = role.marker(self.0.tokenizer()?)? else {
            return self.texts(texts, &Prompt::Auto, options);
        };
        let limit = self.0.limit(options)?;
        // The marker counts towards the limit.
        let own = EncodeOptions { max_length: limit - 1, ..options };
        self.0.limit(own).map_err(|_| {
            Error::Option(format!("max length {limit} leaves no room for the marker of a {role:?}"))
        })?;
        let tokenized = self.texts(texts, &Prompt::Auto, own);
        let mut tokenized = tokenized.map_err(|error| match error {
            Error::TooLong { index, tokens, .. } => {
                Error::TooLong { index, tokens: tokens + 1, limit }
            }
            other => other,
        })?;
        for Tokenized { tokens, full_length } in &mut tokenized {
            tokens.ids.insert(1.min(tokens.len()), marker);
            tokens.type_ids.push(0);
            *full_length += 1;
        }
        if role == Role::Query {
            self.0.pad(&mut tokenized)?;
        }
        Ok(tokenized)
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
