//! Prompts, put before the texts to embed.

use super::{Embedder, EncodeOptions, Error, Options, Prompt};
use crate::{
    model::{SentenceTransformersConfig, Task},
    text::Tokenized,
};

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

impl Embedder {
    /// Settings declared by the model's sentence-transformers files, such as prompts; empty unless
    /// the model was opened for embeddings.
    pub fn declared(&self) -> &SentenceTransformersConfig {
        &self.declared
    }

    /// Text of a prompt, empty for none.
    ///
    /// # Errors
    /// [`Error::Option`] for an unknown name, and if the model's pooling excludes prompts.
    pub fn prompt<'a>(&'a self, prompt: &'a Prompt) -> Result<&'a str, Error> {
        text(&self.declared, prompt, &self.prompt)
    }

    /// As [`Embedder::tokenize_as`], with another prompt.
    ///
    /// # Errors
    /// As [`Embedder::tokenize_as`] and [`Embedder::prompt`].
    pub fn tokenize_prompted<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        prompt: &Prompt,
        options: EncodeOptions,
    ) -> Result<Vec<Tokenized>, Error> {
        let prompt = self.prompt(prompt)?;
        let tokenizer = self.tokenizer()?;
        let cut = self.cut(options);
        let tokenized = if prompt.is_empty() {
            tokenizer.encode(texts, cut)?
        } else {
            let whole: Vec<String> =
                texts.iter().map(|text| [prompt, text.as_ref()].concat()).collect();
            tokenizer.encode(&whole, cut)?
        };
        self.within(&tokenized, options)?;
        Ok(tokenized)
    }

    /// As [`Embedder::tokenize_ids`], with another prompt.
    ///
    /// # Errors
    /// As [`Embedder::tokenize_ids`] and [`Embedder::prompt`].
    pub fn tokenize_ids_prompted(
        &self,
        texts: &[Vec<u32>],
        prompt: &Prompt,
        options: EncodeOptions,
    ) -> Result<Vec<Tokenized>, Error> {
        let tokenizer = self.tokenizer()?;
        let parts = tokenizer.encode_parts("")?;
        let prompted = !self.prompt(prompt)?.is_empty();
        let cut = self.cut(options).filter(|_| !prompted);
        let tokenized: Vec<Tokenized> = texts.iter().map(|ids| parts.around(ids, cut)).collect();
        for (index, text) in tokenized.iter().enumerate() {
            self.check_ids(index, &text.tokens)?;
        }
        if prompted {
            // At the boundary, one token may span prompt and text.
            let texts = texts.iter().map(|ids| tokenizer.decode_with(parts.within(ids), true));
            return self.tokenize_prompted(&texts.collect::<Vec<_>>(), prompt, options);
        }
        self.within(&tokenized, options)?;
        Ok(tokenized)
    }
}
