//! Prompts, put before the texts to embed.

use super::{Error, Options, Prompt, Tokenization};
use crate::model::{SentenceTransformersConfig, Task};

/// Prompt chosen by the options.
pub(super) fn of_options(
    declared: &SentenceTransformersConfig,
    options: &Options,
) -> Result<String, Error> {
    let prompt = &options.prompt;
    let task = options.task;
    let chosen = matches!(prompt, Prompt::Named(_) | Prompt::Text(_));
    if chosen && !matches!(task, Task::Embed | Task::Encode) {
        let what = format!("a prompt is for embeddings, and the model was opened for {task}");
        return Err(Error::Option(what));
    }
    let named = declared.default_prompt.clone().map(Prompt::Named);
    let prompt = if *prompt == Prompt::Auto { named.as_ref() } else { Some(prompt) };
    prompt.map_or(Ok(String::new()), |prompt| text(declared, prompt, "").map(str::to_owned))
}

/// Text of a prompt; `auto` is the text of [`Prompt::Auto`].
fn text<'a>(
    declared: &'a SentenceTransformersConfig,
    prompt: &'a Prompt,
    auto: &'a str,
) -> Result<&'a str, Error> {
    let text = match prompt {
        Prompt::Auto => auto,
        Prompt::None => "",
        Prompt::Named(name) => declared.prompt(name)?,
        Prompt::Text(text) => text,
    };
    if declared.prompt_excluded && !text.is_empty() {
        Err(Error::Option(format!(
            "prompt `{}`: the model declares include_prompt false, pooling without the prompt's \
             tokens, which is not computed here; choose no prompt",
            text.escape_debug()
        )))
    } else {
        Ok(text)
    }
}

impl<'a> Tokenization<'a> {
    /// Settings declared by the model's sentence-transformers files, such as prompts; empty unless
    /// the model was opened for embeddings.
    pub fn declared(self) -> &'a SentenceTransformersConfig {
        &self.0.declared
    }

    /// Text of a prompt, empty for none.
    ///
    /// # Errors
    /// [`Error::Option`] for an unknown name, and if the model's pooling excludes prompts.
    pub fn prompt<'p>(self, prompt: &'p Prompt) -> Result<&'p str, Error>
    where
        'a: 'p,
    {
        text(&self.0.declared, prompt, &self.0.prompt)
    }
}
