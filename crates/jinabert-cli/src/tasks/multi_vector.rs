//! `jinabert multi-vector`

use super::{
    args::{MultiVector, TextRole},
    ranked::{RANKED_FIELDS, Ranked},
    texts::Texts,
};
use crate::{
    error::CliError,
    item::with_position,
    json_lines::{self, TokenVectorsLine},
    source,
};
use jinabert::{Options, Role, Task, TokenVectors};

/// Computes a vector for every token; with a query, ranks the texts.
pub fn run(args: &MultiVector, quiet: bool) -> Result<(), CliError> {
    source::named(&args.model.source, "multi-vector", "a ColBERT model")?;
    let own = if args.query.is_some() { RANKED_FIELDS } else { &["index", "embeddings"] };
    let mut texts = Texts::read(&args.input, &args.text, "text", own)?;
    let options = Options {
        task: Task::MultiVector,
        query_length: args.query_length,
        ..args.model.options()?
    };
    let (embedder, _) = source::open(&args.model, options, "multi-vector", quiet)?;
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
        let mut ranked: Vec<(usize, f32, &TokenVectors)> =
            vectors.iter().enumerate().map(|(n, text)| (n, query.max_sim(text), text)).collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
        json_lines::write(
            ranked
                .into_iter()
                .map(|(n, score, vectors)| Ranked::new(&items[n], score, None, vectors.ids.len())),
        )?;
    } else {
        json_lines::write(items.iter().zip(&vectors).map(|(item, vectors)| TokenVectorsLine {
            index: item.index,
            id: item.id.as_deref(),
            fields: &item.fields,
            ids: &vectors.ids,
            embeddings: vectors.rows().collect(),
        }))?;
    }
    texts.report(items.len());
    Ok(())
}
