//! Tasks and prompts that requests name: Jina's `task`, Cohere's `input_type`, `prompt_name` of
//! text-embeddings-inference.

use crate::error::ApiError;
use jinabert::{Adapter, Embedder, Prompt};

/// Jina's names of Cohere's `input_type`.
const INPUT_TYPES: [(&str, &str); 4] = [
    ("search_query", "retrieval.query"),
    ("search_document", "retrieval.passage"),
    ("classification", "classification"),
    ("clustering", "separation"),
];

/// Adapter of the task that a request names, if it names one and the model has tasks.
pub fn adapter(
    embedder: &Embedder,
    task: Option<&str>,
    input_type: Option<&str>,
) -> Result<Option<Adapter>, ApiError> {
    // Client libraries send them to every model; other models' texts are all of one kind.
    if embedder.adapters().is_empty() {
        return Ok(None);
    }
    let (field, task) = match (task, input_type) {
        (Some(task), _) => ("task", task),
        (None, Some(kind)) => ("input_type", task_of(kind)?),
        (None, None) => return Ok(None),
    };
    let adapter = embedder.adapter(task);
    adapter.map(Some).map_err(|error| ApiError::engine(error).about(field))
}

/// Jina's name of Cohere's `input_type`.
fn task_of(kind: &str) -> Result<&'static str, ApiError> {
    if let Some((_, task)) = INPUT_TYPES.iter().find(|(name, _)| *name == kind) {
        return Ok(task);
    }
    let known: Vec<String> = INPUT_TYPES.iter().map(|(name, _)| format!("`{name}`")).collect();
    let kind: String = kind.chars().take(100).collect();
    let message = format!("`input_type`: expected one of {}, got `{kind}`", known.join(", "));
    Err(ApiError::bad(message).about("input_type"))
}

/// Prompt that a request names, and the adapter of the task of that name, if the model has it.
pub fn prompt(
    embedder: &Embedder,
    name: Option<String>,
) -> Result<(Prompt, Option<Adapter>), ApiError> {
    let Some(name) = name else { return Ok((Prompt::Auto, None)) };
    let declared = embedder.tokenization().declared();
    let task = embedder.adapters().iter().find(|info| info.task == name);
    let adapter = task.and_then(|info| embedder.adapter(&info.task).ok());
    let prompt = match task {
        _ if declared.prompts.contains_key(&name) => Prompt::Named(name),
        Some(info) => Prompt::Text(info.instruction.clone()),
        None => {
            let got: String = name.chars().take(100).collect();
            let message = format!("`prompt_name` `{got}`: {}", declared.known_prompts());
            return Err(ApiError::bad(message).about("prompt_name"));
        }
    };
    match embedder.tokenization().prompt(&prompt, None) {
        Ok(_) => Ok((prompt, adapter)),
        Err(error) => Err(ApiError::engine(error).about("prompt_name")),
    }
}
