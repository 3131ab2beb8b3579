//! Reader of `tokenizer.json`, and the only file that uses `tokenizers`.

use super::{
    chunk::{Chunked, Chunking, Places},
    long::{Added, Keep, Kind, Own, Pieces, Seams, boundary, starts},
    tokens::{Around, Cut, Parts, Piece, Tokenized, each, longest_first},
};
use crate::{batch::Tokens, error::Error};
use std::{
    borrow::Cow,
    collections::HashSet,
    fmt,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};
use tokenizers::{
    Encoding, Model, ModelWrapper, NormalizerWrapper, OffsetType, PostProcessor,
    PostProcessorWrapper, PreTokenizer, PreTokenizerWrapper, Token, TruncationDirection,
    pre_tokenizers::byte_level::ByteLevel,
};

/// Tokenizer with truncation and padding of its file disabled: this crate handles lengths.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    special: usize,
    /// Ids that texts never produce.
    specials: HashSet<u32>,
    /// Seam finder for long texts; without it they are tokenised whole.
    pub(super) seams: Option<Seams>,
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokenizer({} words)", self.inner.get_vocab_size(true))
    }
}

impl Tokenizer {
    /// Reads `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::Read`] if it is missing, [`Error::Model`] if it is not a tokenizer.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let bytes =
            std::fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        Self::parse(&bytes, path)
    }

    /// As [`Tokenizer::open`], from bytes; `name` is used in messages.
    ///
    /// # Errors
    /// [`Error::Model`] if it is not a tokenizer.
    pub fn parse(bytes: &[u8], name: &Path) -> Result<Self, Error> {
        let bad = |e: &dyn std::fmt::Display| Error::Model(format!("`{}`: {e}", name.display()));
        let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
        // The library panics in some places if this is not JSON, or JSON of another kind.
        serde_json::from_slice::<serde::de::IgnoredAny>(bytes).map_err(|e| bad(&e))?;
        let mut inner = catch_unwind(|| tokenizers::Tokenizer::from_bytes(bytes))
            .map_err(|_| bad(&"not a tokenizer, though JSON"))?
            .map_err(|e| bad(&e))?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| bad(&e))?;
        // It also panics on any text if a post-processor names a token that does not exist.
        let texts = || (inner.encode("a", true).is_ok(), inner.encode(("a", "b"), true).is_ok());
        let tried = catch_unwind(AssertUnwindSafe(texts));
        tried.map_err(|_| bad(&"its post-processor contradicts itself"))?;
        let special = inner.get_post_processor().map_or(0, |post| post.added_tokens(false));
        let added = inner.get_added_tokens_decoder();
        let specials = added.iter().filter(|(_, token)| token.special).map(|(&id, _)| id);
        Ok(Self { specials: specials.collect(), seams: seams(&inner), inner, special })
    }

    /// Number of special tokens around every text, in most models `[CLS]` and `[SEP]`.
    pub fn special_tokens(&self) -> usize {
        self.special
    }

    /// Tokenises texts on all cores, with special tokens, and truncates those that are too long.
    ///
    /// Truncation keeps the special tokens; its limit must leave room for them.  Of a long text
    /// only the tokens to keep are read, and a megabyte for the token count.
    ///
    /// # Errors
    /// [`Error::Input`] with the index of a text that the tokenizer rejects.
    pub fn encode<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        cut: Option<Cut>,
    ) -> Result<Vec<Tokenized>, Error> {
        let encode =
            |(n, text): (usize, &S)| self.encode_one(text.as_ref(), cut).map_err(|e| refused(n, e));
        each(texts, 0, encode)
    }

    /// Tokenises two texts as one sequence, with special tokens and type ids from the tokenizer.
    ///
    /// # Errors
    /// [`Error::Input`] if the tokenizer rejects them.
    pub fn encode_pair(&self, first: &str, second: &str) -> Result<Tokens, Error> {
        let encoding = self.inner.encode_fast((first, second), true).map_err(|e| refused(0, e))?;
        Ok(tokens(&encoding))
    }

    /// Tokenises one text with each of some others as pairs on all cores, and truncates the longer
    /// text of a pair that is too long, or both, like `longest_first` in other libraries.
    ///
    /// # Errors
    /// [`Error::Model`] if the tokenizer has no separator for pairs; [`Error::Option`] if the limit
    /// leaves no room for a token of each; [`Error::Input`] with the index of the other text, if
    /// the tokenizer rejects the pair.
    pub fn encode_pairs<S: AsRef<str> + Sync>(
        &self,
        first: &str,
        others: &[S],
        cut: Option<Cut>,
    ) -> Result<Vec<Tokenized>, Error> {
        let special = self.inner.get_post_processor().map_or(0, |post| post.added_tokens(true));
        if special <= self.special {
            let what = "tokenizer.json joins no pairs: nothing would part the two texts";
            return Err(Error::Model(what.to_owned()));
        }
        let room = cut.map_or(usize::MAX, |cut| cut.limit.saturating_sub(special));
        if let Some(cut) = cut.filter(|_| room < 2) {
            let what = format!("expected room for two texts, got {} tokens in all", cut.limit);
            return Err(Error::Option(what));
        }
        let bytes = first.len();
        let cut = cut.map(|cut| Cut { limit: room, ..cut });
        let (first, length) = self.own(first, cut).map_err(|e| refused(0, e))?;
        let encode = |(n, other): (usize, &S)| {
            let (mut other, others) = self.own(other.as_ref(), cut).map_err(|e| refused(n, e))?;
            let mut first = first.clone();
            let full_length = length + others + special;
            if let Some(cut) = cut.filter(|_| length + others > room) {
                let (some, rest) = longest_first(length, others, room);
                first.truncate(some, 0, direction(cut));
                other.truncate(rest, 0, direction(cut));
            }
            let pair =
                self.inner.post_process(first, Some(other), true).map_err(|e| refused(n, e))?;
            Ok(Tokenized { tokens: tokens(&pair), full_length })
        };
        each(others, bytes, encode)
    }

    /// Number of tokens of a text plus the special tokens of a pair.
    ///
    /// # Errors
    /// [`Error::Input`] if the tokenizer rejects it.
    pub fn length_in_pairs(&self, text: &str, limit: usize) -> Result<usize, Error> {
        let special = self.inner.get_post_processor().map_or(0, |post| post.added_tokens(true));
        let own = self.own(text, Some(Cut { limit, first: false }));
        own.map(|(_, length)| length + special).map_err(|e| refused(0, e))
    }

    /// Tokenises a text, with its own tokens separate from the special tokens.
    ///
    /// # Errors
    /// [`Error::Input`] if the tokenizer rejects it.
    pub fn encode_parts(&self, text: &str) -> Result<Parts, Error> {
        let Around { before, after, .. } = self.around().map_err(|e| refused(0, e))?;
        let own = match self.long(text) {
            Some(seams) => seams.read(text, Keep::ALL, self).map_err(|e| refused(0, e))?.0.ids,
            None => {
                self.inner.encode_fast(text, false).map_err(|e| refused(0, e))?.get_ids().to_vec()
            }
        };
        Ok(Parts { before: before.ids, own, after: after.ids })
    }

    /// Id of a token, by its spelling in the vocabulary.
    pub fn id_of(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Spelling of an id in the vocabulary.
    pub fn token_of(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Decodes ids into text, without special tokens.
    pub fn decode(&self, ids: &[u32]) -> String {
        self.decode_with(ids, false)
    }

    /// Decodes ids into text, with or without special tokens.
    pub fn decode_with(&self, ids: &[u32], special: bool) -> String {
        self.inner.decode(ids, !special).unwrap_or_default()
    }

    /// True if this tokenizer produces these ids for some text, with or without the special tokens
    /// around it, given in `parts`: ids of another vocabulary hardly ever pass.
    pub fn made(&self, ids: &[u32], parts: &Parts) -> bool {
        let own = parts.within(ids);
        let allowed = [self.mask().map(|(id, _)| id), self.unknown()];
        if own.iter().any(|&id| self.is_special(id) && !allowed.contains(&Some(id))) {
            return false;
        }
        let text = self.decode_with(own, true);
        self.encode_parts(&text).is_ok_and(|again| again.own == own)
    }

    /// Tokens of a text, with or without special tokens; none if there are more than `most`.
    ///
    /// # Errors
    /// [`Error::Input`] if the tokenizer rejects it.
    pub fn pieces(
        &self,
        text: &str,
        special: bool,
        most: usize,
    ) -> Result<Option<Vec<Piece>>, Error> {
        if let Some(seams) = self.long(text) {
            let keep = Keep { limit: most, last: false, spans: true };
            let read = seams.read(text, keep, self).map_err(|e| refused(0, e))?;
            let around = self.around().map_err(|e| refused(0, e))?;
            let own = read.0;
            return Ok((read.1 <= most).then(|| self.long_pieces(text, own, special, &around)));
        }
        let encoding = self.inner.encode_char_offsets(text, special).map_err(|e| refused(0, e))?;
        let own = encoding.get_sequence_ids();
        let pieces = (0..encoding.len()).map(|n| Piece {
            id: encoding.get_ids()[n],
            token: encoding.get_tokens()[n].clone(),
            special: own[n].is_none(),
            chars: encoding.get_offsets()[n].0..encoding.get_offsets()[n].1,
        });
        Ok((encoding.len() <= most).then(|| pieces.collect()))
    }

    fn long_pieces(&self, text: &str, own: Own, special: bool, around: &Around) -> Vec<Piece> {
        let spelled = |id| self.inner.id_to_token(id).unwrap_or_default();
        let added = |tokens: &Tokens| {
            let piece = |&id: &u32| Piece { id, token: spelled(id), special: true, chars: 0..0 };
            tokens.ids.iter().filter(|_| special).map(piece).collect::<Vec<_>>()
        };
        let trims = match self.inner.get_post_processor() {
            Some(PostProcessorWrapper::Roberta(post)) => post.trim_offsets,
            Some(PostProcessorWrapper::ByteLevel(post)) => post.trim_offsets,
            _ => false,
        };
        let mut byte = 0;
        let mut char = 0;
        let mut chars = |to: usize| {
            let to = boundary(text, to);
            char = if to >= byte {
                char + text[byte..to].chars().count()
            } else {
                char - text[to..byte].chars().count()
            };
            byte = to;
            char
        };
        let pieces = own.ids.iter().zip(own.spans).map(|(&id, mut span)| {
            let part = text.get(span.clone()).unwrap_or_default();
            let token = spelled(id);
            let end = span.end;
            // An added token may include white space of the text.
            let added = part.trim() == token;
            let token = if added { part.to_owned() } else { token };
            if trims {
                let mark = |c: char| if added { c.is_whitespace() } else { c == ' ' };
                let left = part.trim_start_matches(mark);
                let right = part.trim_end_matches(mark);
                span.end = (end - (part.len() - right.len())).max(span.start);
                span.start = (span.start + part.len() - left.len()).min(end);
            }
            span.end = span.end.max(span.start);
            Piece { id, token, special: false, chars: chars(span.start)..chars(span.end) }
        });
        let mut all = added(&around.before);
        all.extend(pieces);
        all.extend(added(&around.after));
        all
    }

    /// True for a special token: one that texts never produce.
    pub fn is_special(&self, id: u32) -> bool {
        self.specials.contains(&id)
    }

    /// Mask of a masked language model: `[MASK]` or `<mask>`.
    pub fn mask(&self) -> Option<(u32, &'static str)> {
        ["[MASK]", "<mask>"].into_iter().find_map(|mask| Some((self.id_of(mask)?, mask)))
    }

    /// Token for a word that the vocabulary cannot spell: `[UNK]` or `<unk>`.
    pub fn unknown(&self) -> Option<u32> {
        ["[UNK]", "<unk>"].into_iter().find_map(|unknown| self.id_of(unknown))
    }

    /// Tokenises a text and assigns tokens to chunks.  Nothing is truncated.
    ///
    /// # Errors
    /// [`Error::Input`] for the first span that does not fit the text, and if the tokenizer rejects
    /// the text.
    pub fn encode_chunked(&self, text: &str, chunking: &Chunking) -> Result<Chunked, Error> {
        self.encode_chunked_after("", text, chunking)
    }

    /// As [`Tokenizer::encode_chunked`], with a prompt before the text.  Its tokens belong to the
    /// first chunk, like the special tokens before the text; a token of both belongs to the text.
    ///
    /// # Errors
    /// As [`Tokenizer::encode_chunked`].
    pub fn encode_chunked_after(
        &self,
        prompt: &str,
        text: &str,
        chunking: &Chunking,
    ) -> Result<Chunked, Error> {
        let bad = |what: String| Error::Input { index: 0, what };
        let whole = if prompt.is_empty() {
            Cow::Borrowed(text)
        } else {
            Cow::Owned([prompt, text].concat())
        };
        let of_prompt = |end: &usize| !prompt.is_empty() && *end <= prompt.len();
        let after_prompt = |starts: &[usize]| {
            starts.iter().map(|start| start.saturating_sub(prompt.len())).collect()
        };
        if let Some(seams) = self.long(&whole) {
            let keep = Keep { spans: true, ..Keep::ALL };
            let (own, _) = seams.read(&whole, keep, self).map_err(|e| refused(0, e))?;
            let around = self.around().map_err(|e| refused(0, e))?;
            let prompted = own.spans.iter().map(|span| span.end).take_while(of_prompt).count();
            let starts = starts(&whole, own.spans.iter().map(|span| (span.start, span.end, 0)));
            let before = around.before.len() + prompted;
            let after = around.after.len();
            let places = Places { starts: after_prompt(&starts[prompted..]), before, after };
            let chunks = places.cut(text, chunking).map_err(bad)?;
            return Ok(Chunked { chunks, after, tokens: around.with(&own.ids) });
        }
        let own = self.inner.encode(&*whole, false).map_err(|e| refused(0, e))?;
        let ends = own.get_offsets().iter().map(|(_, end)| *end);
        let prompted = ends.take_while(of_prompt).count();
        // A byte-level post-processor strips spaces, `Ġ`, from the offsets of every token.
        let taken = |token: &String| token.chars().take_while(|&c| c == 'Ġ').count();
        let spans = own.get_offsets().iter().zip(own.get_tokens());
        let starts = starts(&whole, spans.map(|(&(start, end), token)| (start, end, taken(token))));
        let encoding = self.inner.post_process(own, None, true).map_err(|e| refused(0, e))?;
        let sequences = encoding.get_sequence_ids();
        let before = sequences.iter().position(Option::is_some).unwrap_or(0);
        if sequences.iter().flatten().count() != starts.len() {
            return Err(bad("the tokenizer does not say which tokens are the text's".to_owned()));
        }
        let after = encoding.len() - before - starts.len();
        let starts = after_prompt(&starts[prompted..]);
        let places = Places { starts, before: before + prompted, after };
        let chunks = places.cut(text, chunking).map_err(bad)?;
        Ok(Chunked { chunks, after, tokens: tokens(&encoding) })
    }

    fn encode_one(&self, text: &str, cut: Option<Cut>) -> tokenizers::Result<Tokenized> {
        if let (None, Some(seams)) = (cut, self.long(text)) {
            let (own, full_length) = seams.read(text, Keep::ALL, self)?;
            let tokens = self.around()?.with(&own.ids);
            return Ok(Tokenized { tokens, full_length: full_length + self.special });
        }
        let cut = cut.map(|cut| Cut { limit: cut.limit.saturating_sub(self.special), ..cut });
        let (mut encoding, full_length) = self.own(text, cut)?;
        if let Some(cut) = cut {
            encoding.truncate(cut.limit, 0, direction(cut));
        }
        let encoding: Encoding = self.inner.post_process(encoding, None, true)?;
        Ok(Tokenized { tokens: tokens(&encoding), full_length: full_length + self.special })
    }

    /// Seam finder, for a text that is long enough to be split.
    fn long(&self, text: &str) -> Option<&Seams> {
        self.seams.as_ref().filter(|seams| seams.is_long(text))
    }

    /// Own tokens of a text, of a long one only those to keep; and the token count.
    fn own(&self, text: &str, cut: Option<Cut>) -> tokenizers::Result<(Encoding, usize)> {
        let Some(seams) = self.long(text) else {
            let own = self.inner.encode_fast(text, false)?;
            let length = own.len();
            return Ok((own, length));
        };
        let keep =
            cut.map_or(Keep::ALL, |cut| Keep { limit: cut.limit, last: cut.first, spans: false });
        let (own, length) = seams.read(text, keep, self)?;
        let token = |id| Token::new(id, String::new(), (0, 0));
        let own = Encoding::from_tokens(own.ids.into_iter().map(token).collect(), 0);
        Ok((self.inner.post_process(own, None, false)?, length))
    }

    /// Special tokens around a text, which do not depend on its length.
    fn around(&self) -> tokenizers::Result<Around> {
        let mut few = self.inner.encode_fast("a", false)?;
        few.truncate(1, 0, TruncationDirection::Right);
        let length = few.len();
        let whole = self.inner.post_process(few, None, true)?;
        let before = whole.get_sequence_ids().iter().position(Option::is_some).unwrap_or(0);
        let whole = tokens(&whole);
        let part = |range: Range<usize>| Tokens {
            ids: whole.ids[range.clone()].to_vec(),
            type_ids: whole.type_ids[range].to_vec(),
            query_only: 0,
        };
        let kind = whole.type_ids.get(before).copied().unwrap_or(0);
        Ok(Around { before: part(0..before), kind, after: part(before + length..whole.len()) })
    }
}

impl Pieces for Tokenizer {
    /// Omits the post-processor, which moves offsets.
    fn tokens(&self, piece: &str, spans: bool) -> Result<Own, String> {
        let inner = &self.inner;
        let encode = || {
            if !spans {
                return inner.encode_fast(piece, false);
            }
            let added = inner.get_added_vocabulary();
            let mut parts = added.extract_and_normalize(inner.get_normalizer(), piece);
            inner.get_pre_tokenizer().map_or(Ok(()), |pre| pre.pre_tokenize(&mut parts))?;
            parts.tokenize(|part| inner.get_model().tokenize(part.get()))?;
            parts.into_encoding(None, 0, OffsetType::Byte)
        };
        let encoding = encode().map_err(|e| e.to_string())?;
        let places = encoding.get_offsets().iter().filter(|_| spans).map(|&(from, to)| from..to);
        Ok(Own { ids: encoding.get_ids().to_vec(), spans: places.collect() })
    }

    fn apart(&self, left: u32, right: u32) -> bool {
        let model = self.inner.get_model();
        let spelled = |id| model.id_to_token(id).unwrap_or_default();
        let both = model.tokenize(&(spelled(left) + &spelled(right)));
        both.is_ok_and(|both| both.iter().map(|token| token.id).eq([left, right]))
    }
}

fn direction(cut: Cut) -> TruncationDirection {
    if cut.first { TruncationDirection::Left } else { TruncationDirection::Right }
}

fn seams(inner: &tokenizers::Tokenizer) -> Option<Seams> {
    let normalizer = inner.get_normalizer();
    let kind = match (inner.get_pre_tokenizer()?, inner.get_model()) {
        (PreTokenizerWrapper::BertPreTokenizer(_), ModelWrapper::WordPiece(model)) => {
            let chinese = match normalizer {
                None => false,
                Some(NormalizerWrapper::BertNormalizer(bert)) => bert.handle_chinese_chars,
                Some(_) => return None,
            };
            Kind::Words { most: model.max_input_chars_per_word, chinese }
        }
        (PreTokenizerWrapper::ByteLevel(pre), ModelWrapper::BPE(model)) => {
            let none = |part: &Option<String>| part.as_deref().unwrap_or_default().is_empty();
            let known = |c: char| model.token_to_id(c.encode_utf8(&mut [0; 4])).is_some();
            let plain = pre.use_regex
                && !pre.add_prefix_space
                && normalizer.is_none()
                && !model.dropout.is_some_and(|share| share > 0.0)
                && !model.ignore_merges
                && none(&model.continuing_subword_prefix)
                && none(&model.end_of_word_suffix)
                && ByteLevel::alphabet().into_iter().all(known);
            plain.then_some(Kind::Bytes)?
        }
        _ => return None,
    };
    let added = inner.get_added_tokens_decoder().into_values().map(|token| Added {
        content: token.content,
        single_word: token.single_word,
        lstrip: token.lstrip,
        rstrip: token.rstrip,
        normalized: token.normalized && normalizer.is_some(),
    });
    Seams::new(kind, added.collect())
}

/// Error for a text that the tokenizer rejects.
fn refused(index: usize, why: impl std::fmt::Display) -> Error {
    Error::Input { index, what: format!("cannot be tokenised: {why}") }
}

fn tokens(encoding: &Encoding) -> Tokens {
    let ids = encoding.get_ids().to_vec();
    let type_ids = encoding.get_type_ids().to_vec();
    Tokens { ids, type_ids, query_only: 0 }
}
