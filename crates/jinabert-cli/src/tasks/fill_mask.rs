//! `jinabert fill-mask`

use super::{args::FillMask, texts::Texts};
use crate::{
    error::CliError,
    item::{Fields, with_position},
    json_lines, source,
};
use jinabert::{Options, Task};
use serde::Serialize;
use serde_json::value::RawValue;

/// Candidate for a masked token.
#[derive(Serialize)]
struct Candidate<'a> {
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

/// Predicts the masked tokens of each text.
pub fn run(args: &FillMask, quiet: bool) -> Result<(), CliError> {
    source::named(&args.model.source, "fill-mask", "a masked language model")?;
    let own = &["index", "position", "score", "token", "token_str"];
    let texts = Texts::read(&args.input, &args.text, "text", own)?;
    let options = Options { task: Task::FillMask, ..args.model.options()? };
    let (embedder, _) = source::open(&args.model, options, "fill-mask", quiet)?;
    let mut filled = 0;
    for (n, item) in texts.items.iter().enumerate() {
        let result = embedder.fill_mask(item.text().unwrap_or_default(), args.top_k);
        let result = result.map_err(|error| with_position(error.moved(|_| n), &texts.items));
        let masks = match (result, &texts.skipped) {
            (Err(failure @ CliError::Item { .. }), Some(skipped)) => {
                skipped.add(&failure);
                continue;
            }
            (result, _) => result?,
        };
        filled += 1;
        json_lines::write(masks.iter().flat_map(|mask| {
            mask.candidates.iter().map(move |candidate| Candidate {
                index: item.index,
                id: item.id.as_deref(),
                fields: &item.fields,
                position: mask.position,
                score: candidate.probability,
                token: candidate.id,
                token_str: &candidate.token,
            })
        }))?;
    }
    texts.report(filled);
    Ok(())
}
