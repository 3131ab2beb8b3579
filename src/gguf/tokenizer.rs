//! `tokenizer.json` from metadata: WordPiece, byte-level BPE, BPE of whole words, or a unigram.

use super::{
    header::{Header, Value},
    names::expected,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value as Json, json};

/// Start of a word in sentencepiece's vocabularies, and in llama.cpp's WordPiece.
const START: char = '▁';

/// `LLAMA_TOKEN_TYPE_CONTROL`: special tokens.
const CONTROL: i128 = 3;

/// Vocabulary of a file.
struct Vocabulary<'a> {
    header: &'a Header,
    tokens: &'a [String],
    kinds: &'a [i128],
}

/// `tokenizer.json`; none if the file has no tokenizer.
///
/// # Errors
/// Description of a tokenizer that is damaged or not supported.
pub(super) fn tokenizer(header: &Header) -> Result<Option<Json>, String> {
    let Some(model) = header.metadata.get("tokenizer.ggml.model") else { return Ok(None) };
    let Value::Text(model) = model else {
        return Err(expected("tokenizer.ggml.model", "a string", Some(model)));
    };
    let vocabulary = Vocabulary::of(header)?;
    match model.as_str() {
        "bert" => vocabulary.word_piece(),
        "gpt2" => vocabulary.bpe(),
        "t5" => vocabulary.unigram(),
        other => Err(format!(
            "tokenizer.ggml.model is `{}`; supported: bert, gpt2, t5",
            other.escape_debug()
        )),
    }
    .map(Some)
}

impl<'a> Vocabulary<'a> {
    fn of(header: &'a Header) -> Result<Self, String> {
        let key = "tokenizer.ggml.tokens";
        let tokens = match header.metadata.get(key) {
            Some(Value::Texts(tokens)) if !tokens.is_empty() => tokens,
            other => return Err(expected(key, "strings", other)),
        };
        let key = "tokenizer.ggml.token_type";
        let kinds = match header.metadata.get(key) {
            None => &[][..],
            Some(Value::Integers(kinds)) if kinds.len() == tokens.len() => kinds,
            other => return Err(expected(key, &format!("{} integers", tokens.len()), other)),
        };
        Ok(Self { header, tokens, kinds })
    }

    /// Id and text of a special token that metadata names.
    fn special(&self, keys: &[&str]) -> Result<Option<(u32, &'a str)>, String> {
        for name in keys {
            let key = format!("tokenizer.ggml.{name}_token_id");
            if self.header.metadata.contains_key(&key) {
                let id = self.header.size(&key)?;
                let token = self.tokens.get(id as usize).ok_or_else(|| {
                    format!("{key} is {id}; the vocabulary has {} tokens", self.tokens.len())
                })?;
                return Ok(Some((id, token)));
            }
        }
        Ok(None)
    }

    fn required(&self, keys: &[&str]) -> Result<(u32, &'a str), String> {
        let found = self.special(keys)?;
        found.ok_or_else(|| format!("expected tokenizer.ggml.{}_token_id, got none", keys[0]))
    }

    /// True for a special token.
    fn is_control(&self, id: usize) -> bool {
        self.kinds.get(id) == Some(&CONTROL)
    }

    /// The special tokens as `tokenizer.json` lists them.
    fn added(&self) -> Result<Json, String> {
        let mut ids = Vec::new();
        for key in ["bos", "cls", "padding", "eos", "seperator", "unknown", "mask"] {
            ids.extend(self.special(&[key])?.map(|(id, _)| id as usize));
        }
        ids.extend((0..self.kinds.len()).filter(|id| self.is_control(*id)));
        ids.sort_unstable();
        ids.dedup();
        let mask = self.special(&["mask"])?.map(|(id, _)| id as usize);
        let token = |id: usize| {
            json!({
                "id": id, "content": self.tokens[id], "single_word": false,
                // Both BERT's and RoBERTa's tokenizers read the mask so.
                "lstrip": Some(id) == mask && self.tokens[id] == "<mask>",
                "rstrip": false, "normalized": false, "special": true,
            })
        };
        Ok(ids.into_iter().map(token).collect())
    }

    /// A tokenizer of these parts, which puts special tokens around a text or a pair.
    fn whole(
        &self,
        normalizer: &Json,
        pre_tokenizer: &Json,
        model: &Json,
        twice: bool,
    ) -> Result<Json, String> {
        let (first_id, first) = self.required(&["cls", "bos"])?;
        let (last_id, last) = self.required(&["seperator", "eos"])?;
        let special =
            |token: &str, kind: u32| json!({"SpecialToken": {"id": token, "type_id": kind}});
        let text = |id: &str, kind: u32| json!({"Sequence": {"id": id, "type_id": kind}});
        let single = [special(first, 0), text("A", 0), special(last, 0)];
        // RoBERTa has two separators, and one type.
        let kind = u32::from(!twice);
        let between = twice.then(|| special(last, 0));
        let second = [text("B", kind), special(last, kind)];
        let pair: Vec<_> = single.iter().cloned().chain(between).chain(second).collect();
        let mut known = Map::new();
        for (id, token) in [(first_id, first), (last_id, last)] {
            known.insert(token.to_owned(), json!({"id": token, "ids": [id], "tokens": [token]}));
        }
        Ok(json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": self.added()?,
            "normalizer": normalizer,
            "pre_tokenizer": pre_tokenizer,
            "post_processor": {
                "type": "TemplateProcessing",
                "single": single, "pair": pair, "special_tokens": known,
            },
            "decoder": null,
            "model": model,
        }))
    }

    /// Ids by token.
    ///
    /// # Errors
    /// Description of a token that is there twice.
    fn ids(&self, name: impl Fn(usize, &str) -> String) -> Result<Json, String> {
        let mut ids = Map::new();
        for (id, token) in self.tokens.iter().enumerate() {
            let name = name(id, token);
            if let Some(other) = ids.insert(name, json!(id)) {
                let token = token.escape_debug();
                return Err(format!("token `{token}` is there twice, as {other} and {id}"));
            }
        }
        Ok(Json::Object(ids))
    }

    /// BERT's WordPiece.  llama.cpp marks the starts of words instead of their continuations.
    fn word_piece(&self) -> Result<Json, String> {
        let (_, unknown) = self.required(&["unknown"])?;
        let vocabulary = self.ids(|id, token| match token.strip_prefix(START) {
            _ if self.is_control(id) => token.to_owned(),
            Some(start) => start.to_owned(),
            None => format!("##{token}"),
        })?;
        // The file does not say whether case counts; a vocabulary without capitals has no use for
        // them.
        let capital = |(id, token): (usize, &String)| {
            !self.is_control(id) && token.bytes().any(|byte| byte.is_ascii_uppercase())
        };
        let cased = self.tokens.iter().enumerate().any(capital);
        let normalizer = json!({
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": !cased,
        });
        let model = json!({
            "type": "WordPiece", "unk_token": unknown, "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocabulary,
        });
        self.whole(&normalizer, &json!({"type": "BertPreTokenizer"}), &model, false)
    }

    /// RoBERTa's byte-level BPE, or jina-v2-zh's of lower-cased words.
    fn bpe(&self) -> Result<Json, String> {
        let words = match self.header.text("tokenizer.ggml.pre")? {
            "jina-v2-zh" => true,
            "jina-v2-code" | "jina-v2-de" | "jina-v2-es" | "gpt-2" | "roberta-bpe" => false,
            other => {
                return Err(format!(
                    "tokenizer.ggml.pre is `{}`; supported: jina-v2-code, jina-v2-de, jina-v2-es, \
                     jina-v2-zh, gpt-2, roberta-bpe",
                    other.escape_debug()
                ));
            }
        };
        let key = "tokenizer.ggml.merges";
        let merges = match self.header.metadata.get(key) {
            Some(Value::Texts(merges)) => merges,
            other => return Err(expected(key, "strings", other)),
        };
        let unknown = self.special(&["unknown"])?.map(|(_, token)| token);
        let (normalizer, pre_tokenizer) = if words {
            (json!({"type": "Lowercase"}), json!({"type": "Whitespace"}))
        } else {
            let byte_level = json!({
                "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                "use_regex": true,
            });
            (Json::Null, byte_level)
        };
        let model = json!({
            "type": "BPE", "unk_token": unknown.filter(|_| words),
            "vocab": self.ids(|_, token| token.to_owned())?, "merges": merges,
        });
        self.whole(&normalizer, &pre_tokenizer, &model, true)
    }

    /// XLM-RoBERTa's unigram.
    fn unigram(&self) -> Result<Json, String> {
        let key = "tokenizer.ggml.scores";
        let scores = match self.header.metadata.get(key) {
            Some(Value::Reals(scores)) if scores.len() == self.tokens.len() => scores,
            other => return Err(expected(key, &format!("{} numbers", self.tokens.len()), other)),
        };
        if let Some(n) = scores.iter().position(|score| !score.is_finite()) {
            return Err(format!("{key}: expected finite numbers, got {} at {n}", scores[n]));
        }
        let key = "tokenizer.ggml.precompiled_charsmap";
        let normalizer = match self.header.metadata.get(key) {
            None => Json::Null,
            Some(Value::Integers(bytes)) => {
                // Signed in some files.
                let bytes: Vec<u8> = bytes.iter().map(|byte| *byte as u8).collect();
                let map = STANDARD.encode(bytes);
                json!({"type": "Precompiled", "precompiled_charsmap": map})
            }
            other => return Err(expected(key, "bytes", other)),
        };
        let (unknown, _) = self.required(&["unknown"])?;
        let vocabulary: Vec<_> =
            self.tokens.iter().zip(scores).map(|(token, score)| json!([token, score])).collect();
        let model = json!({
            "type": "Unigram", "unk_id": unknown, "vocab": vocabulary, "byte_fallback": false,
        });
        let pre_tokenizer = json!({
            "type": "Sequence",
            "pretokenizers": [
                {"type": "WhitespaceSplit"},
                {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true},
            ],
        });
        self.whole(&normalizer, &pre_tokenizer, &model, true)
    }
}
