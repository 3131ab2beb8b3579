//! `jinabert rerank`, `multi-vector` and `fill-mask`

use super::{
    Failure,
    args::ModelArgs,
    input::{Item, Items, Source},
    source,
    task_args::{FillMask, MultiVector, Rerank, TextRole},
    window,
};
use crate::{Embedder, Options, Role, Score, Task, TokenVectors};
use serde::Serialize;
use serde_json::Value;
use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
};

/// A document and how well it answers.
#[derive(Serialize)]
struct Ranked<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a Value>,
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    logit: Option<f32>,
    tokens: usize,
    text: &'a str,
}

/// `jinabert rerank`
pub fn rerank(args: &Rerank, quiet: bool) -> Result<(), Failure> {
    let items = items(&args.document, args.input.as_deref(), "document")?;
    let texts = texts(&items)?;
    let options = Options { task: Task::Rerank, ..args.model.options()? };
    let embedder = open(&args.model, options, quiet)?;
    let mut scores =
        embedder.rerank(&args.query, &texts).map_err(|error| window::at_line(error, &items))?;
    let truncated = scores.iter().filter(|score| score.truncated.is_some()).count();
    if truncated > 0 {
        let limit = embedder.max_length();
        tracing::warn!("truncated {truncated} documents so that a pair has {limit} tokens");
    }
    scores.truncate(args.top_n.unwrap_or(usize::MAX));
    lines(scores.iter().map(|&Score { index, score, logit, tokens, .. }| Ranked {
        index,
        id: items[index].id.as_ref(),
        score,
        logit: Some(logit),
        tokens,
        text: texts[index],
    }))
}

/// The vectors of a text's tokens.
#[derive(Serialize)]
pub struct Vectors<'a> {
    pub index: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<&'a Value>,
    pub ids: &'a [u32],
    pub embeddings: Vec<&'a [f32]>,
}

/// `jinabert multi-vector`
pub fn multi_vector(args: &MultiVector, quiet: bool) -> Result<(), Failure> {
    let items = items(&args.text, args.input.as_deref(), "text")?;
    let texts = texts(&items)?;
    let (task, query_length) = (Task::MultiVector, args.query_length);
    let options = Options { task, query_length, ..args.model.options()? };
    let embedder = open(&args.model, options, quiet)?;
    let role = match (args.role, &args.query) {
        (Some(TextRole::Plain), _) | (None, None) => Role::Plain,
        (Some(TextRole::Query), _) => Role::Query,
        (Some(TextRole::Document), _) | (None, Some(_)) => Role::Document,
    };
    let vectors = embedder.multi_vector(&texts, role);
    let vectors = vectors.map_err(|error| window::at_line(error, &items))?;
    let Some(query) = &args.query else {
        return lines((0..).zip(items.iter().zip(&vectors)).map(|(index, (item, vectors))| {
            let embeddings = vectors.rows().collect();
            Vectors { index, id: item.id.as_ref(), ids: &vectors.ids, embeddings }
        }));
    };
    let role = if role == Role::Plain { Role::Plain } else { Role::Query };
    let query = embedder.multi_vector(&[query], role)?.remove(0);
    let mut ranked: Vec<(usize, f32, &TokenVectors)> =
        vectors.iter().enumerate().map(|(n, text)| (n, query.max_sim(text), text)).collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    lines(ranked.into_iter().map(|(index, score, vectors)| Ranked {
        index,
        id: items[index].id.as_ref(),
        score,
        logit: None,
        tokens: vectors.ids.len(),
        text: texts[index],
    }))
}

/// What a masked token may be.
#[derive(Serialize)]
struct Filled<'a> {
    index: usize,
    position: usize,
    score: f32,
    token: u32,
    token_str: &'a str,
}

/// `jinabert fill-mask`
pub fn fill_mask(args: &FillMask, quiet: bool) -> Result<(), Failure> {
    let items = items(&args.text, args.input.as_deref(), "text")?;
    let texts = texts(&items)?;
    let options = Options { task: Task::FillMask, ..args.model.options()? };
    let embedder = open(&args.model, options, quiet)?;
    for (index, text) in texts.iter().enumerate() {
        let masked = embedder.fill_mask(text, args.top_k);
        let masked = masked.map_err(|e| window::at_line(e.moved(|n| index + n), &items))?;
        lines(masked.iter().flat_map(|masked| {
            masked.candidates.iter().map(move |candidate| Filled {
                index,
                position: masked.position,
                score: candidate.probability,
                token: candidate.id,
                token_str: &candidate.token,
            })
        }))?;
    }
    Ok(())
}

fn open(args: &ModelArgs, options: Options, quiet: bool) -> Result<Embedder, Failure> {
    Ok(Embedder::open_with(source::directory(&args.source, quiet)?, options)?)
}

/// Arguments, or the lines of a file or of standard input.
fn items(given: &[String], input: Option<&Path>, what: &str) -> Result<Vec<Item>, Failure> {
    let path = match (input, given.is_empty()) {
        (None, false) => return Ok(Items::of_texts(given)),
        (None, true) if io::stdin().is_terminal() => {
            let name = what.to_uppercase();
            return Err(Failure::Usage(format!(
                "no {what}: give {name}, --input FILE, or pipe lines in"
            )));
        }
        (None, true) => PathBuf::from("-"),
        (Some(path), _) => path.to_owned(),
    };
    let mut lines = Items::open(&path, None)?;
    let mut items = Vec::new();
    while let Some(item) = lines.next()? {
        items.push(item);
    }
    Ok(items)
}

fn texts(items: &[Item]) -> Result<Vec<&str>, Failure> {
    let text = |item: &'_ Item| match &item.source {
        Source::Text(_) if item.spans.is_some() => {
            Err(Failure::Item { place: item.place, what: "\"spans\" are for embed".to_owned() })
        }
        Source::Text(_) => Ok(()),
        Source::Tokens(_) => {
            Err(Failure::Item { place: item.place, what: "a text is meant, not ids".to_owned() })
        }
    };
    items.iter().try_for_each(text)?;
    Ok(items.iter().filter_map(|item| item.text()).collect())
}

/// A line of JSON each.
pub fn lines<T: Serialize>(records: impl Iterator<Item = T>) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    for record in records {
        serde_json::to_writer(&mut out, &record).map_err(io::Error::from)?;
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}
