//! `/tokenize` and `/decode`: what the tokenizer makes of texts, and back.

use super::{
    call::{Call, parse, route},
    refusal::Refusal,
    wire::Input,
};
use crate::text::Piece;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use utoipa::ToSchema;

/// Texts to be tokenised.
#[derive(Debug, Deserialize, ToSchema)]
pub struct TokenizeRequest {
    /// A text, or several.
    #[schema(value_type = Vec<String>)]
    inputs: Input,
    /// Whether the special tokens are among them: true unless said otherwise.
    #[serde(default)]
    add_special_tokens: Option<bool>,
}

/// A token of a text.
#[derive(Debug, Serialize, ToSchema)]
pub struct Token {
    /// Its id.
    id: u32,
    /// What of the text it is; of a special token its name.
    text: String,
    /// Whether it is none of the text's own.
    special: bool,
    /// Where it begins, in characters.
    start: Option<usize>,
    /// And ends.
    stop: Option<usize>,
}

route!(tokenize, pieces, "tokenize", Tei, #[doc = "The tokens of texts."],
    #[utoipa::path(post, path = "/tokenize", tag = "TEI", request_body = TokenizeRequest,
        responses((status = 200, body = Vec<Vec<Token>>)))]);

async fn pieces(call: &mut Call) -> Result<Vec<Vec<Token>>, Refusal> {
    call.prepare(|state, body| {
        let request: TokenizeRequest = parse(body)?;
        let Input::Texts(texts) = request.inputs else {
            let message = "`inputs` are texts here; `/decode` takes token ids";
            return Err(Refusal::bad(message).about("inputs"));
        };
        state.limits.at_most("inputs", texts.len())?;
        let models = state.models()?;
        let special = request.add_special_tokens != Some(false);
        let tokens = |(index, text): (usize, &String)| {
            let pieces = models[0].embedder().pieces(text, special);
            let pieces = pieces.map_err(|error| error.moved(|_| index));
            let pieces = pieces.map_err(Refusal::engine_in("inputs"))?;
            let mut walk = Walk { text, chars: 0, bytes: 0 };
            let pieces = pieces.into_iter().map(|piece| token(piece, &mut walk));
            Ok(pieces.collect::<Vec<_>>())
        };
        let (mut all, mut count) = (Vec::new(), 0);
        for text in texts.iter().enumerate() {
            let tokens = tokens(text)?;
            count += tokens.len();
            let limit = state.limits.answer / NUMBERS;
            if count > limit {
                let message = format!("more than {limit} tokens, over the limit of an answer");
                let status = StatusCode::PAYLOAD_TOO_LARGE;
                return Err(Refusal::new(status, message).about("inputs"));
            }
            all.push(tokens);
        }
        Ok(all)
    })
    .await
}

/// Numbers of an answer that a token counts for: its line of JSON is as long.
const NUMBERS: usize = 16;

/// A place in a text that goes forward: tokens come in order.
struct Walk<'a> {
    text: &'a str,
    chars: usize,
    bytes: usize,
}

impl Walk<'_> {
    /// The characters of a range that does not begin before the last one did.
    fn slice(&mut self, range: &Range<usize>) -> String {
        if range.start < self.chars {
            (self.chars, self.bytes) = (0, 0);
        }
        let skipped = self.text[self.bytes..].chars().take(range.start - self.chars);
        self.bytes += skipped.map(char::len_utf8).sum::<usize>();
        self.chars = range.start;
        self.text[self.bytes..].chars().take(range.len()).collect()
    }
}

fn token(piece: Piece, walk: &mut Walk) -> Token {
    let Piece { id, token, special, chars } = piece;
    match special {
        true => Token { id, text: token, special, start: None, stop: None },
        false => Token {
            id,
            text: walk.slice(&chars),
            special,
            start: Some(chars.start),
            stop: Some(chars.end),
        },
    }
}

/// Token ids to be read.
#[derive(Debug, Deserialize, ToSchema)]
pub struct DecodeRequest {
    /// Ids of a text, or lists of them.
    #[schema(value_type = Vec<Vec<u32>>)]
    ids: Input,
    /// Whether special tokens are passed over: true unless said otherwise.
    #[serde(default)]
    skip_special_tokens: Option<bool>,
}

route!(decode, texts, "decode", Tei, #[doc = "The texts of token ids."],
    #[utoipa::path(post, path = "/decode", tag = "TEI", request_body = DecodeRequest,
        responses((status = 200, body = Vec<String>)))]);

async fn texts(call: &mut Call) -> Result<Vec<String>, Refusal> {
    call.prepare(|state, body| {
        let request: DecodeRequest = parse(body)?;
        let special = request.skip_special_tokens == Some(false);
        let lists = match request.ids {
            Input::Ids(lists) => lists,
            Input::Texts(texts) if texts.is_empty() => return Err(Refusal::empty("ids")),
            Input::Texts(_) => return Err(Refusal::bad("`ids` are token ids").about("ids")),
        };
        state.limits.batch("ids", lists.len())?;
        let models = state.models()?;
        let text = |ids: &Vec<u32>| models[0].embedder().decode(ids, special);
        lists.iter().map(text).collect::<Result<_, _>>().map_err(Refusal::engine)
    })
    .await
}
