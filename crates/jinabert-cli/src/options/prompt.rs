//! Arguments for the task of texts and the prompt before them.

use jinabert::{Options, Prompt};

/// Task of the texts, and the prompt before each of them.
#[derive(clap::Args)]
pub struct PromptArgs {
    /// Task of the texts, for a model with LoRA adapters such as jina-embeddings-v3:
    /// retrieval.query, retrieval.passage, separation, classification or text-matching.  Its
    /// adapter is applied, and its instruction put before each text unless another prompt is
    /// chosen [default: no adapter].
    #[arg(long, value_name = "TASK")]
    task: Option<String>,
    /// Name of the model's prompt to put before each text; it counts towards the text's length
    /// [default: default_prompt_name in the model's config_sentence_transformers.json].
    #[arg(long, value_name = "NAME", conflicts_with_all = ["prompt", "no_prompt"])]
    prompt_name: Option<String>,
    /// Prompt text to put before each text.
    #[arg(long, value_name = "TEXT", conflicts_with = "no_prompt")]
    prompt: Option<String>,
    /// Use no prompt, even if the model has a default one or the task an instruction.
    #[arg(long, visible_alias = "no-instruction")]
    no_prompt: bool,
}

impl PromptArgs {
    /// Adds the task and the prompt to the options of the library.
    pub fn chosen(&self, options: Options) -> Options {
        let prompt = match (&self.prompt_name, &self.prompt, self.no_prompt) {
            (Some(name), ..) => Prompt::Named(name.clone()),
            (_, Some(text), _) => Prompt::Text(text.clone()),
            (.., true) => Prompt::None,
            _ => Prompt::Auto,
        };
        Options { adapter: self.task.clone(), prompt, ..options }
    }
}
