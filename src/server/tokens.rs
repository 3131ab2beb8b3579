//! `/tokenize` and `/decode`: what the tokenizer makes of texts, and back.

use super::{
    call::{Call, parse, route},
    refusal::Refusal,
    wire::Input,
};
use crate::text::Piece;
use serde::{Deserialize, Serialize};
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
        let limit = state.limits.client_batch;
        if texts.len() > limit {
            return Err(Refusal::too_many("inputs", texts.len(), limit));
        }
        let models = state.models()?;
        let special = request.add_special_tokens != Some(false);
        let tokens = |(index, text): (usize, &String)| {
            let pieces = models[0].embedder().pieces(text, special);
            let pieces = pieces.map_err(|error| Refusal::engine(error.moved(|_| index)))?;
            Ok(pieces.into_iter().map(|piece| token(piece, text)).collect())
        };
        texts.iter().enumerate().map(tokens).collect()
    })
    .await
}

fn token(piece: Piece, text: &str) -> Token {
    let Piece { id, token, special, chars } = piece;
    match special {
        true => Token { id, text: token, special, start: None, stop: None },
        false => Token {
            id,
            text: text.chars().skip(chars.start).take(chars.len()).collect(),
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
        let models = state.models()?;
        let text = |ids: &Vec<u32>| models[0].embedder().decode(ids, special);
        lists.iter().map(text).collect::<Result<_, _>>().map_err(Refusal::engine)
    })
    .await
}
