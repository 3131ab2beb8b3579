//! `jinabert rerank`

use super::{
    args::{RankBy, Rerank},
    ranked::{RANKED_FIELDS, Ranked},
    texts::Texts,
};
use crate::{error::CliError, item::with_position, json_lines, source};
use jinabert::{Embedder, ModelInfo, OnLong, Options, Score, Task};

/// Ranks documents for a query.
pub fn run(args: &Rerank, quiet: bool) -> Result<(), CliError> {
    source::named(&args.model.source, "rerank", "a reranker")?;
    let mut documents = Texts::read(&args.input, &args.document, "document", RANKED_FIELDS)?;
    let mut options = Options { task: Task::Rerank, ..args.model.options()? };
    if args.by == Some(RankBy::Maxsim) {
        let info = ModelInfo::open(source::directory(&args.model.source, quiet)?)?;
        match info.task() {
            Task::Embed | Task::FillMask => {
                options = Options { task: Task::Encode, max_sim: true, ..options };
            }
            Task::Rerank => {
                let what = "--by maxsim: expected a ColBERT or an embedding model, got a reranker";
                return Err(CliError::Usage(what.into()));
            }
            _ => {}
        }
    }
    let (embedder, _) = source::open(&args.model, options, "rerank", quiet)?;
    documents.skip(|text| {
        embedder.jobs().scores(&args.query, &[text], embedder.encode_options()).map(|_| ())
    })?;
    let items = &documents.items;
    let scores = embedder.rerank(&args.query, &documents.texts());
    let mut scores = scores.map_err(|error| with_position(error, items))?;
    report_truncated(&embedder, &scores);
    scores.truncate(args.top_n.unwrap_or(usize::MAX));
    json_lines::write(scores.iter().map(|&Score { index, score, logit, tokens, .. }| {
        Ranked::new(&items[index], score, Some(logit), tokens)
    }))?;
    documents.report(items.len());
    Ok(())
}

/// Reports on stderr what was truncated.
fn report_truncated(embedder: &Embedder, scores: &[Score]) {
    let truncated = scores.iter().filter(|score| score.truncated.is_some()).count();
    let limit = embedder.max_length();
    if truncated == 0 {
        return;
    }
    if embedder.ranks_by_max_sim() {
        let of = scores.len();
        tracing::warn!("truncated the query, or {truncated} of {of} documents, to {limit} tokens");
    } else if embedder.encode_options().on_long == OnLong::Window {
        tracing::warn!("truncated the query to half of the limit of {limit} tokens");
    } else {
        tracing::warn!("truncated {truncated} documents so that a pair has {limit} tokens");
    }
}
