//! Prompts, put before the texts to embed.

use super::{Embedder, Error, Options, Prompt, Tokenization};
use crate::{
    batch::Adapter,
    model::{SentenceTransformersConfig, Task},
};

/// Prompt of an embedder's texts.
pub(super) struct DefaultPrompt {
    /// Chosen by the options, or the model's default one; may be empty.
    pub(super) text: String,
    /// True if the options choose it, so that it takes the place of a task's instruction.
    pub(super) chosen: bool,
}

/// Prompt chosen by the options, or the model's default one.
pub(super) fn of_options(
    declared: &SentenceTransformersConfig,
    options: &Options,
) -> Result<DefaultPrompt, Error> {
    let prompt = &options.prompt;
    let task = options.task;
    let chosen = matches!(prompt, Prompt::Named(_) | Prompt::Text(_));
    if chosen && !matches!(task, Task::Embed | Task::Encode) {
        let what = format!("a prompt is for embeddings, and the model was opened for {task}");
        return Err(Error::Option(what));
    }
    let named = declared.default_prompt.clone().map(Prompt::Named);
    let prompt = if *prompt == Prompt::Auto { named.as_ref() } else { Some(prompt) };
    let text = prompt.map_or(Ok(""), |prompt| text(declared, prompt, ""))?;
    Ok(DefaultPrompt { text: text.to_owned(), chosen: options.prompt != Prompt::Auto })
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

    /// Text of a prompt before texts of a task, empty for none.  [`Prompt::Auto`] is the task's
    /// instruction, unless the [`Options`] choose a prompt.
    ///
    /// # Errors
    /// [`Error::Option`] for an unknown name, and if the model's pooling excludes prompts.
    pub fn prompt<'p>(self, prompt: &'p Prompt, task: Option<Adapter>) -> Result<&'p str, Error>
    where
        'a: 'p,
    {
        let Embedder { declared, adapters, prompt: default, .. } = self.0;
        let task = task.filter(|_| !default.chosen);
        let task = task.and_then(|adapter| adapters.get(adapter.0 as usize));
        text(declared, prompt, task.map_or(&default.text, |info| &info.instruction))
    }
}
