//! `jinabert multi-vector`

use super::{
    args::{MultiVector, TextRole},
    kept,
    ranked::{RANKED_FIELDS, Ranked},
    texts::Texts,
};
use crate::{
    atomic_file::AtomicFile,
    error::CliError,
    item::{Item, with_position},
    json_lines::{self, TokenVectorsLine},
    source,
};
use jinabert::{Embedder, Options, Role, Task, TokenVectors};
use std::path::Path;

/// Computes a vector for every token; with a query, ranks the texts.
pub fn run(args: &MultiVector, quiet: bool) -> Result<(), CliError> {
    source::named(&args.model.source, "multi-vector", "a ColBERT model")?;
    if let (Some(query), Some(vectors)) = (&args.query, &args.vectors) {
        return rank_kept(args, query, vectors, quiet);
    }
    let own = if args.query.is_some() { RANKED_FIELDS } else { &["index", "ids", "embeddings"] };
    let mut texts = Texts::read(&args.input, &args.text, "text", own)?;
    let (embedder, output) = open(args, quiet)?;
    let role = match (args.role, &args.query) {
        (Some(TextRole::Plain), _) | (None, None) => Role::Plain,
        (Some(TextRole::Query), _) => Role::Query,
        (Some(TextRole::Document), _) | (None, Some(_)) => Role::Document,
    };
    let options = embedder.encode_options();
    texts.skip(|text| embedder.tokenization().of_role(&[text], role, options).map(|_| ()))?;
    let items = &texts.items;
    let vectors = embedder.multi_vector(&texts.texts(), role);
    let vectors = vectors.map_err(|error| with_position(error, items))?;
    if let Some(query) = &args.query {
        let query_role = if role == Role::Plain { Role::Plain } else { Role::Query };
        let query = embedder.multi_vector(&[query], query_role)?.remove(0);
        let scored: Vec<(f32, (&Item, &TokenVectors))> = items
            .iter()
            .zip(&vectors)
            .map(|(item, vectors)| (query.max_sim(vectors), (item, vectors)))
            .collect();
        let ranked = best_first(scored, args.top_n);
        let ranked = ranked
            .iter()
            .map(|&(score, (item, vectors))| Ranked::new(item, score, None, vectors.ids.len()));
        json_lines::write_to(output, ranked)?;
    } else {
        let vectors = items.iter().zip(&vectors).map(|(item, vectors)| TokenVectorsLine {
            index: item.index,
            id: item.id.as_deref(),
            fields: &item.fields,
            ids: &vectors.ids,
            embeddings: vectors.rows().collect(),
        });
        json_lines::write_to(output, vectors)?;
    }
    texts.report(items.len());
    Ok(())
}

/// Opens the model and the output.
fn open(args: &MultiVector, quiet: bool) -> Result<(Embedder, AtomicFile), CliError> {
    let options = Options {
        task: Task::MultiVector,
        query_length: args.query_length,
        ..args.model.options()?
    };
    let (embedder, _) = source::open(&args.model, options, "multi-vector", quiet)?;
    Ok((embedder, AtomicFile::open(&args.output)?))
}

/// Ranks the documents of an earlier run.
fn rank_kept(args: &MultiVector, query: &str, path: &Path, quiet: bool) -> Result<(), CliError> {
    let (embedder, output) = open(args, quiet)?;
    let query = embedder.multi_vector(&[query], Role::Query)?.remove(0);
    let ranked = best_first(kept::scores(&query, path)?, args.top_n);
    let ranked = ranked.iter().map(|(score, document)| Ranked::of_kept(document, *score));
    json_lines::write_to(output, ranked)
}

/// The best of some scored documents; equal scores keep their order.
fn best_first<T>(mut scored: Vec<(f32, T)>, top: Option<usize>) -> Vec<(f32, T)> {
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.truncate(top.unwrap_or(usize::MAX));
    scored
}
