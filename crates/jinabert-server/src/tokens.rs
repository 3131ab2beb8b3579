//! `/tokenize` and `/decode`: from texts to tokens, and back.

use crate::{
    call::{Call, SharedState, parse},
    error::ApiError,
    tasks,
    wire::Input,
};
use axum::{
    body::Body,
    http::{Request, Response, StatusCode},
};
use jinabert::text::Piece;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use utoipa::ToSchema;

/// Texts to be tokenised.
#[derive(Debug, Deserialize, ToSchema)]
pub struct TokenizeRequest {
    /// A text, or several.
    #[schema(value_type = Vec<String>)]
    inputs: Input,
    /// Include the special tokens; default true.
    #[serde(default)]
    add_special_tokens: Option<bool>,
    /// Name of the prompt put before each text; offsets count from the start of the prompt.
    #[serde(default)]
    prompt_name: Option<String>,
}

/// Token of a text.
#[derive(Debug, Serialize, ToSchema)]
pub struct Token {
    /// Token id.
    id: u32,
    /// Part of the text that the token covers, in lower case if the model declares
    /// `do_lower_case`; for a special token its name.
    text: String,
    /// True for a special token.
    special: bool,
    /// Start offset, in characters.
    start: Option<usize>,
    /// End offset, in characters.
    stop: Option<usize>,
}

/// The tokens of texts.
#[utoipa::path(post, path = "/tokenize", tag = "TEI", request_body = TokenizeRequest,
    responses((status = 200, body = Vec<Vec<Token>>)))]
pub async fn tokenize(state: SharedState, request: Request<Body>) -> Response<Body> {
    Call::handle(state, request, pieces).await
}

async fn pieces(call: &mut Call) -> Result<Vec<Vec<Token>>, ApiError> {
    call.prepare(|state, body| {
        let request: TokenizeRequest = parse(body)?;
        let Input::Texts(texts) = request.inputs else {
            let message = "`inputs`: expected texts, got token ids; `/decode` takes token ids";
            return Err(ApiError::bad(message).about("inputs"));
        };
        state.limits.at_most("inputs", texts.len())?;
        let models = state.models()?;
        let special = request.add_special_tokens != Some(false);
        let embedder = models[0].embedder();
        let tokenization = embedder.tokenization();
        let (named, _) = tasks::prompt(embedder, request.prompt_name)?;
        let adapter = embedder.encode_options().adapter;
        let prompt = tokenization.prompt(&named, adapter).map_err(ApiError::engine)?;
        let limit = state.limits.answer / NUMBERS_PER_TOKEN;
        let mut left = limit;
        let mut all = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            let prompted = tokenization.as_read([prompt, text].concat());
            let found = tokenization
                .pieces(&prompted, special, left)
                .map_err(|error| ApiError::engine_in("inputs")(error.moved(|_| index)))?;
            let Some(pieces) = found else {
                let message = format!("expected at most {limit} tokens in a response, got more");
                let status = StatusCode::PAYLOAD_TOO_LARGE;
                return Err(ApiError::new(status, message).about("inputs"));
            };
            left = left.saturating_sub(pieces.len());
            let mut cursor = Cursor { text: &prompted, chars: 0, bytes: 0 };
            let tokens = pieces.into_iter().map(|piece| token(piece, &mut cursor));
            all.push(tokens.collect::<Vec<_>>());
        }
        Ok(all)
    })
    .await
}

/// Numbers that one token counts for in the response limit: its line of JSON is about as long.
const NUMBERS_PER_TOKEN: usize = 16;

/// Cursor in a text that moves forward, since tokens come in order.
struct Cursor<'a> {
    text: &'a str,
    chars: usize,
    bytes: usize,
}

impl Cursor<'_> {
    /// Characters of a range; fast if it does not begin before the previous one.
    fn slice(&mut self, range: &Range<usize>) -> String {
        if range.start < self.chars {
            self.chars = 0;
            self.bytes = 0;
        }
        let skipped = self.text[self.bytes..].chars().take(range.start - self.chars);
        self.bytes += skipped.map(char::len_utf8).sum::<usize>();
        self.chars = range.start;
        self.text[self.bytes..].chars().take(range.len()).collect()
    }
}

fn token(piece: Piece, cursor: &mut Cursor) -> Token {
    let Piece { id, token, special, chars } = piece;
    if special {
        return Token { id, text: token, special, start: None, stop: None };
    }
    let text = cursor.slice(&chars);
    Token { id, text, special, start: Some(chars.start), stop: Some(chars.end) }
}

/// Token ids to be decoded.
#[derive(Debug, Deserialize, ToSchema)]
pub struct DecodeRequest {
    /// Ids of one text, or a list of them for each text.
    #[schema(value_type = Vec<Vec<u32>>)]
    ids: Input,
    /// Skip special tokens; default true.
    #[serde(default)]
    skip_special_tokens: Option<bool>,
}

/// The texts of token ids.
#[utoipa::path(post, path = "/decode", tag = "TEI", request_body = DecodeRequest,
    responses((status = 200, body = Vec<String>)))]
pub async fn decode(state: SharedState, request: Request<Body>) -> Response<Body> {
    Call::handle(state, request, texts).await
}

async fn texts(call: &mut Call) -> Result<Vec<String>, ApiError> {
    call.prepare(|state, body| {
        let request: DecodeRequest = parse(body)?;
        let special = request.skip_special_tokens == Some(false);
        let lists = match request.ids {
            Input::Ids(lists) => lists,
            Input::Texts(texts) if texts.is_empty() => return Err(ApiError::empty("ids")),
            Input::Texts(_) => {
                let message = "`ids`: expected token ids, got texts";
                return Err(ApiError::bad(message).about("ids"));
            }
        };
        state.limits.batch("ids", lists.len())?;
        let models = state.models()?;
        let text = |ids: &Vec<u32>| models[0].embedder().tokenization().decode(ids, special);
        lists.iter().map(text).collect::<Result<_, _>>().map_err(ApiError::engine)
    })
    .await
}
