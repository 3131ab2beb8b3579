//! Arguments for the prompt before texts.

use jinabert::Prompt;

/// Prompt before each text.
#[derive(clap::Args)]
pub struct PromptArgs {
    /// Name of the model's prompt to put before each text; it counts towards the text's length
    /// [default: default_prompt_name in the model's config_sentence_transformers.json].
    #[arg(long, value_name = "NAME", conflicts_with_all = ["prompt", "no_prompt"])]
    prompt_name: Option<String>,
    /// Prompt text to put before each text.
    #[arg(long, value_name = "TEXT", conflicts_with = "no_prompt")]
    prompt: Option<String>,
    /// Use no prompt, even if the model has a default one.
    #[arg(long)]
    no_prompt: bool,
}

impl PromptArgs {
    /// Prompt option of the library.
    pub fn choice(&self) -> Prompt {
        match (&self.prompt_name, &self.prompt, self.no_prompt) {
            (Some(name), ..) => Prompt::Named(name.clone()),
            (_, Some(text), _) => Prompt::Text(text.clone()),
            (.., true) => Prompt::None,
            _ => Prompt::Auto,
        }
    }
}
