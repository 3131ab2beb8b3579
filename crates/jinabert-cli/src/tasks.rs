//! `jinabert rerank`, `multi-vector` and `fill-mask`

use crate::{
    CliError,
    input::{Items, Skipped},
    input_args::InputArgs,
    item::{Fields, Item, Source},
    source,
    task_args::{FillMask, MultiVector, Rerank, TextRole},
    window,
};
use jinabert::{Error, Options, Role, Score, Task, TokenVectors};
use serde::Serialize;
use serde_json::value::RawValue;
use std::{
    io::{self, Write},
    sync::Arc,
};

/// Own fields of the output for ranked texts, without `id`.
const RANKED: &[&str] = &["index", "score", "logit", "tokens"];

/// Document with its score.
#[derive(Serialize)]
struct Ranked<'a> {
    index: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a RawValue>,
    #[serde(flatten)]
    fields: &'a Fields,
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    logit: Option<f32>,
    tokens: usize,
    text: &'a str,
}

/// `jinabert rerank`
pub fn rerank(args: &Rerank, quiet: bool) -> Result<(), CliError> {
    source::named(&args.model.source, "rerank", "a reranker")?;
    let mut given = Given::read(&args.input, &args.document, "document", RANKED)?;
    let options = Options { task: Task::Rerank, ..args.model.options()? };
    let (embedder, _) = source::open(&args.model, options, "rerank", quiet)?;
    given.skip(|text| {
        embedder.prepare_scores(&args.query, &[text], embedder.encode_options()).map(|_| ())
    })?;
    let (items, texts) = (&given.items, given.texts());
    let mut scores =
        embedder.rerank(&args.query, &texts).map_err(|error| window::at_line(error, items))?;
    let truncated = scores.iter().filter(|score| score.truncated.is_some()).count();
    if truncated > 0 {
        let limit = embedder.max_length();
        tracing::warn!("truncated {truncated} documents so that a pair has {limit} tokens");
    }
    scores.truncate(args.top_n.unwrap_or(usize::MAX));
    lines(scores.iter().map(|&Score { index, score, logit, tokens, .. }| Ranked {
        index: items[index].index,
        id: items[index].id.as_deref(),
        fields: &items[index].fields,
        score,
        logit: Some(logit),
        tokens,
        text: texts[index],
    }))?;
    given.report(items.len());
    Ok(())
}

/// Token vectors of a text.
#[derive(Serialize)]
pub struct Vectors<'a> {
    pub index: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<&'a RawValue>,
    #[serde(flatten)]
    pub fields: &'a Fields,
    pub ids: &'a [u32],
    pub embeddings: Vec<&'a [f32]>,
}

/// `jinabert multi-vector`
pub fn multi_vector(args: &MultiVector, quiet: bool) -> Result<(), CliError> {
    source::named(&args.model.source, "multi-vector", "a ColBERT model")?;
    let own = if args.query.is_some() { RANKED } else { &["index", "embeddings"] };
    let mut given = Given::read(&args.input, &args.text, "text", own)?;
    let (task, query_length) = (Task::MultiVector, args.query_length);
    let options = Options { task, query_length, ..args.model.options()? };
    let (embedder, _) = source::open(&args.model, options, "multi-vector", quiet)?;
    let role = match (args.role, &args.query) {
        (Some(TextRole::Plain), _) | (None, None) => Role::Plain,
        (Some(TextRole::Query), _) => Role::Query,
        (Some(TextRole::Document), _) | (None, Some(_)) => Role::Document,
    };
    given.skip(|text| embedder.tokenize(&[text]).map(|_| ()))?;
    let (items, texts) = (&given.items, given.texts());
    let vectors = embedder.multi_vector(&texts, role);
    let vectors = vectors.map_err(|error| window::at_line(error, items))?;
    if let Some(query) = &args.query {
        let role = if role == Role::Plain { Role::Plain } else { Role::Query };
        let query = embedder.multi_vector(&[query], role)?.remove(0);
        let mut ranked: Vec<(usize, f32, &TokenVectors)> =
            vectors.iter().enumerate().map(|(n, text)| (n, query.max_sim(text), text)).collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
        lines(ranked.into_iter().map(|(n, score, vectors)| Ranked {
            index: items[n].index,
            id: items[n].id.as_deref(),
            fields: &items[n].fields,
            score,
            logit: None,
            tokens: vectors.ids.len(),
            text: texts[n],
        }))?;
    } else {
        lines(items.iter().zip(&vectors).map(|(item, vectors)| Vectors {
            index: item.index,
            id: item.id.as_deref(),
            fields: &item.fields,
            ids: &vectors.ids,
            embeddings: vectors.rows().collect(),
        }))?;
    }
    given.report(items.len());
    Ok(())
}

/// Candidates for a masked token.
#[derive(Serialize)]
struct Filled<'a> {
    index: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a RawValue>,
    #[serde(flatten)]
    fields: &'a Fields,
    position: usize,
    score: f32,
    token: u32,
    token_str: &'a str,
}

/// `jinabert fill-mask`
pub fn fill_mask(args: &FillMask, quiet: bool) -> Result<(), CliError> {
    source::named(&args.model.source, "fill-mask", "a masked language model")?;
    let own = &["index", "position", "score", "token", "token_str"];
    let given = Given::read(&args.input, &args.text, "text", own)?;
    let options = Options { task: Task::FillMask, ..args.model.options()? };
    let (embedder, _) = source::open(&args.model, options, "fill-mask", quiet)?;
    let mut filled = 0;
    for (n, item) in given.items.iter().enumerate() {
        let masked = embedder.fill_mask(item.text().unwrap_or_default(), args.top_k);
        let masked = masked.map_err(|e| window::at_line(e.moved(|_| n), &given.items));
        let masked = match (masked, &given.skipped) {
            (Err(failure @ CliError::Item { .. }), Some(skipped)) => {
                skipped.add(&failure);
                continue;
            }
            (masked, _) => masked?,
        };
        filled += 1;
        lines(masked.iter().flat_map(|masked| {
            masked.candidates.iter().map(move |candidate| Filled {
                index: item.index,
                id: item.id.as_deref(),
                fields: &item.fields,
                position: masked.position,
                score: candidate.probability,
                token: candidate.id,
                token_str: &candidate.token,
            })
        }))?;
    }
    given.report(filled);
    Ok(())
}

/// Texts of a run that are held in memory together.
struct Given {
    /// Items, each with a text.
    items: Vec<Item>,
    /// Record of bad items, if they are to be skipped.
    skipped: Option<Arc<Skipped>>,
}

impl Given {
    /// Reads arguments, or the whole of a file or of standard input.  `what` is the word for a text
    /// in messages, `own` are the names of the output's own fields.
    fn read(
        args: &InputArgs,
        given: &[String],
        what: &str,
        own: &'static [&'static str],
    ) -> Result<Self, CliError> {
        let Some(mut lines) = args.open(given, what, own)? else {
            let skipped = args.skip_bad_lines.then(Arc::default);
            return Ok(Self { items: Items::of_texts(given), skipped });
        };
        let mut given = Self { items: Vec::new(), skipped: lines.skipped() };
        while let Some(item) = lines.next()? {
            match (is_text(&item), &given.skipped) {
                (Ok(()), _) => given.items.push(item),
                (Err(failure), Some(skipped)) => skipped.add(&failure),
                (Err(failure), None) => return Err(failure),
            }
        }
        Ok(given)
    }

    fn texts(&self) -> Vec<&str> {
        self.items.iter().filter_map(Item::text).collect()
    }

    /// Removes the items that `check` refuses, if bad items are to be skipped.
    fn skip(&mut self, check: impl Fn(&str) -> Result<(), Error>) -> Result<(), CliError> {
        let Some(skipped) = &self.skipped else { return Ok(()) };
        let mut good = Vec::new();
        for item in self.items.drain(..) {
            match check(item.text().unwrap_or_default()) {
                Ok(()) => good.push(item),
                Err(error) => match window::at_line(error, std::slice::from_ref(&item)) {
                    failure @ CliError::Item { .. } => skipped.add(&failure),
                    failure => return Err(failure),
                },
            }
        }
        self.items = good;
        Ok(())
    }

    /// Reports the skipped items on stderr; `texts` items were not skipped.
    fn report(&self, texts: usize) {
        if let Some(skipped) = &self.skipped {
            skipped.report(texts as u64);
        }
    }
}

/// Checks that an item is only a text.
fn is_text(item: &Item) -> Result<(), CliError> {
    let bad = |what: &str| Err(CliError::Item { place: item.place, what: what.to_owned() });
    match &item.source {
        Source::Text(_) if item.spans.is_some() => bad("\"spans\" are for embed"),
        Source::Text(_) => Ok(()),
        Source::Tokens(_) => bad("expected \"text\", got \"ids\""),
    }
}

/// Writes each record as a line of JSON.
pub fn lines<T: Serialize>(records: impl Iterator<Item = T>) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    for record in records {
        serde_json::to_writer(&mut out, &record).map_err(io::Error::from)?;
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}
