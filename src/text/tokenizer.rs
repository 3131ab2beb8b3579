//! Reader of `tokenizer.json`: texts to tokens and back, by the library `tokenizers`.

use super::{
    chunk::{Chunked, Chunking, Places},
    long::{Added, Keep, Kind, Own, Pieces, Seams, starts},
    offsets::{CharOffsets, prompted, stripped, trimmed},
    piece_model::{Library, PieceModel, read},
    tokens::{Around, Cut, Parts, Piece, Tokenized, each, longest_first},
};
use crate::{batch::Tokens, error::Error};
use std::{borrow::Cow, collections::HashSet, fmt, path::Path};
use tokenizers::{
    Encoding, Model, ModelWrapper, NormalizerWrapper, OffsetType, PostProcessor,
    PostProcessorWrapper, PreTokenizer, PreTokenizerWrapper, Token, TruncationDirection,
    models::bpe::BPE, pre_tokenizers::byte_level::ByteLevel,
};

/// Tokenizer with truncation and padding of its file disabled: this crate handles lengths.
pub struct Tokenizer {
    inner: Library,
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
        let inner =
            read(bytes).map_err(|what| Error::Model(format!("`{}`: {what}", name.display())))?;
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
        each(texts, 0, |(n, text)| self.encode_one(text.as_ref(), cut).map_err(|e| refused(n, e)))
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
    /// leaves no room for a token of each; [`Error::Query`] if the tokenizer rejects the first
    /// text, [`Error::Input`] with the index of another one that it rejects.
    pub fn encode_pairs<S: AsRef<str> + Sync>(
        &self,
        first: &str,
        others: &[S],
        cut: Option<Cut>,
    ) -> Result<Vec<Tokenized>, Error> {
        let special = self.special_in_pairs();
        if special <= self.special {
            let what = "tokenizer.json joins no pairs: nothing would part the two texts";
            return Err(Error::Model(what.to_owned()));
        }
        let room = cut.map_or(usize::MAX, |cut| cut.limit.saturating_sub(special));
        if let Some(cut) = cut.filter(|_| room < 2) {
            let what = format!("expected room for two texts, got {} tokens in all", cut.limit);
            return Err(Error::Option(what));
        }
        let own_cut = cut.map(|cut| Cut { limit: room, ..cut });
        let own = self.own(first, own_cut).map_err(|e| refused(0, e).of_query())?;
        each(others, first.len(), |(n, other)| {
            self.join(&own, other.as_ref(), own_cut).map_err(|e| refused(n, e))
        })
    }

    /// Pair of a text, given as its own tokens and their full number, and another; the limit is
    /// that of both without special tokens.
    fn join(
        &self,
        (first, first_length): &(Encoding, usize),
        other: &str,
        cut: Option<Cut>,
    ) -> tokenizers::Result<Tokenized> {
        let (mut other, other_length) = self.own(other, cut)?;
        let mut first = first.clone();
        let own_length = first_length + other_length;
        if let Some(cut) = cut.filter(|cut| own_length > cut.limit) {
            let kept = longest_first(*first_length, other_length, cut.limit);
            first.truncate(kept.0, 0, direction(cut));
            other.truncate(kept.1, 0, direction(cut));
        }
        let pair = self.inner.post_process(first, Some(other), true)?;
        let full_length = own_length + self.special_in_pairs();
        Ok(Tokenized { tokens: tokens(&pair), full_length })
    }

    /// Number of special tokens in every pair.
    fn special_in_pairs(&self) -> usize {
        self.inner.get_post_processor().map_or(0, |post| post.added_tokens(true))
    }

    /// Number of tokens of a text plus the special tokens of a pair.
    ///
    /// # Errors
    /// [`Error::Input`] if the tokenizer rejects it.
    pub fn length_in_pairs(&self, text: &str, limit: usize) -> Result<usize, Error> {
        let own = self.own(text, Some(Cut { limit, first: false }));
        own.map(|(_, length)| length + self.special_in_pairs()).map_err(|e| refused(0, e))
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
            let (own, count) = seams.read(text, keep, self).map_err(|e| refused(0, e))?;
            let around = self.around().map_err(|e| refused(0, e))?;
            return Ok((count <= most).then(|| self.long_pieces(text, own, special, &around)));
        }
        let encoding = self.inner.encode_char_offsets(text, special).map_err(|e| refused(0, e))?;
        let sequences = encoding.get_sequence_ids();
        let pieces = (0..encoding.len()).map(|n| Piece {
            id: encoding.get_ids()[n],
            token: encoding.get_tokens()[n].clone(),
            special: sequences[n].is_none(),
            chars: encoding.get_offsets()[n].0..encoding.get_offsets()[n].1,
        });
        Ok((encoding.len() <= most).then(|| pieces.collect()))
    }

    fn long_pieces(&self, text: &str, own: Own, special: bool, around: &Around) -> Vec<Piece> {
        let trims = match self.inner.get_post_processor() {
            Some(PostProcessorWrapper::Roberta(post)) => post.trim_offsets,
            Some(PostProcessorWrapper::ByteLevel(post)) => post.trim_offsets,
            _ => false,
        };
        let mut offsets = CharOffsets::new(text);
        let mut pieces = Vec::new();
        if special {
            pieces.extend(self.special_pieces(&around.before));
        }
        for (id, span) in own.ids.into_iter().zip(own.spans) {
            let part = text.get(span.clone()).unwrap_or_default();
            let spelling = self.token_of(id).unwrap_or_default();
            // An added token may include white space of the text.
            let added = part.trim() == spelling;
            let mut bytes = if trims { trimmed(span, part, added) } else { span };
            bytes.end = bytes.end.max(bytes.start);
            let token = if added { part.to_owned() } else { spelling };
            pieces.push(Piece { id, token, special: false, chars: offsets.range(&bytes) });
        }
        if special {
            pieces.extend(self.special_pieces(&around.after));
        }
        pieces
    }

    fn special_pieces(&self, tokens: &Tokens) -> impl Iterator<Item = Piece> {
        tokens.ids.iter().map(|&id| {
            let token = self.token_of(id).unwrap_or_default();
            Piece { id, token, special: true, chars: 0..0 }
        })
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
        let whole = if prompt.is_empty() {
            Cow::Borrowed(text)
        } else {
            Cow::Owned([prompt, text].concat())
        };
        let (tokens, places) = match self.long(&whole) {
            Some(seams) => self.long_places(seams, &whole, prompt.len()),
            None => self.places(&whole, prompt.len()),
        }?;
        let chunks = places.cut(text, chunking).map_err(|what| Error::Input { index: 0, what })?;
        Ok(Chunked { chunks, after: places.after, tokens })
    }

    /// Tokens of a prompt and a text, joined in `whole`, and the places of the text's own.
    fn places(&self, whole: &str, prompt_bytes: usize) -> Result<(Tokens, Places), Error> {
        let own = self.inner.encode(whole, false).map_err(|e| refused(0, e))?;
        let prompt_tokens = prompted(own.get_offsets().iter().map(|(_, end)| *end), prompt_bytes);
        let spans = own.get_offsets().iter().zip(own.get_tokens());
        let starts =
            starts(whole, spans.map(|(&(start, end), token)| (start, end, stripped(token))));
        let encoding = self.inner.post_process(own, None, true).map_err(|e| refused(0, e))?;
        let sequences = encoding.get_sequence_ids();
        let before = sequences.iter().position(Option::is_some).unwrap_or(0);
        if sequences.iter().flatten().count() != starts.len() {
            let what = "the tokenizer does not say which tokens are the text's".to_owned();
            return Err(Error::Input { index: 0, what });
        }
        let after = encoding.len() - before - starts.len();
        let places = Places { starts, before, after }.after_prompt(prompt_tokens, prompt_bytes);
        Ok((tokens(&encoding), places))
    }

    /// As [`Tokenizer::places`], for a long text.
    fn long_places(
        &self,
        seams: &Seams,
        whole: &str,
        prompt_bytes: usize,
    ) -> Result<(Tokens, Places), Error> {
        let keep = Keep { spans: true, ..Keep::ALL };
        let (own, _) = seams.read(whole, keep, self).map_err(|e| refused(0, e))?;
        let around = self.around().map_err(|e| refused(0, e))?;
        let prompt_tokens = prompted(own.spans.iter().map(|span| span.end), prompt_bytes);
        let starts = starts(whole, own.spans.iter().map(|span| (span.start, span.end, 0)));
        let places = Places { starts, before: around.before.len(), after: around.after.len() };
        Ok((around.with(&own.ids), places.after_prompt(prompt_tokens, prompt_bytes)))
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
        let tokens = own.ids.into_iter().map(|id| Token::new(id, String::new(), (0, 0)));
        let encoding = Encoding::from_tokens(tokens.collect(), 0);
        Ok((self.inner.post_process(encoding, None, false)?, length))
    }

    /// Special tokens around a text, which do not depend on its length.
    fn around(&self) -> tokenizers::Result<Around> {
        let mut few = self.inner.encode_fast("a", false)?;
        few.truncate(1, 0, TruncationDirection::Right);
        let length = few.len();
        let encoding = self.inner.post_process(few, None, true)?;
        let first = encoding.get_sequence_ids().iter().position(Option::is_some).unwrap_or(0);
        let whole = tokens(&encoding);
        let kind = whole.type_ids.get(first).copied().unwrap_or(0);
        let [before, after] = [0..first, first + length..whole.len()].map(|range| Tokens {
            ids: whole.ids[range.clone()].to_vec(),
            type_ids: whole.type_ids[range].to_vec(),
            ..Tokens::default()
        });
        Ok(Around { before, kind, after })
    }

    /// Tokens of a piece, by the steps of the library that find byte ranges.
    fn encode_spans(&self, piece: &str) -> tokenizers::Result<Encoding> {
        let inner = &self.inner;
        let added = inner.get_added_vocabulary();
        let mut parts = added.extract_and_normalize(inner.get_normalizer(), piece);
        inner.get_pre_tokenizer().map_or(Ok(()), |pre| pre.pre_tokenize(&mut parts))?;
        parts.tokenize(|part| inner.get_model().tokenize(part.get()))?;
        parts.into_encoding(None, 0, OffsetType::Byte)
    }
}

impl Pieces for Tokenizer {
    /// Omits the post-processor, which moves offsets.
    fn tokens(&self, piece: &str, spans: bool) -> Result<Own, String> {
        let encoding =
            if spans { self.encode_spans(piece) } else { self.inner.encode_fast(piece, false) };
        let encoding = encoding.map_err(|e| e.to_string())?;
        let places = encoding.get_offsets().iter().filter(|_| spans).map(|&(from, to)| from..to);
        Ok(Own { ids: encoding.get_ids().to_vec(), spans: places.collect() })
    }

    fn apart(&self, left: u32, right: u32) -> bool {
        let model = self.inner.get_model();
        let spellings = [left, right].map(|id| model.id_to_token(id).unwrap_or_default());
        let both = model.tokenize(&spellings.concat());
        both.is_ok_and(|both| both.iter().map(|token| token.id).eq([left, right]))
    }
}

fn direction(cut: Cut) -> TruncationDirection {
    if cut.first { TruncationDirection::Left } else { TruncationDirection::Right }
}

fn seams(inner: &Library) -> Option<Seams> {
    let normalizer = inner.get_normalizer();
    let kind = match (inner.get_pre_tokenizer()?, inner.get_model()) {
        (
            PreTokenizerWrapper::BertPreTokenizer(_),
            PieceModel::Library(ModelWrapper::WordPiece(model)),
        ) => {
            let chinese = match normalizer {
                None => false,
                Some(NormalizerWrapper::BertNormalizer(bert)) => bert.handle_chinese_chars,
                Some(_) => return None,
            };
            Kind::Words { most: model.max_input_chars_per_word, chinese }
        }
        (PreTokenizerWrapper::ByteLevel(pre), PieceModel::Library(ModelWrapper::BPE(model))) => {
            let plain = pre.use_regex && !pre.add_prefix_space && normalizer.is_none();
            (plain && is_plain(model)).then_some(Kind::Bytes)?
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

/// True if merges alone make the tokens, and every byte is one.
fn is_plain(model: &BPE) -> bool {
    !model.dropout.is_some_and(|share| share > 0.0)
        && !model.ignore_merges
        && model.continuing_subword_prefix.as_deref().is_none_or(str::is_empty)
        && model.end_of_word_suffix.as_deref().is_none_or(str::is_empty)
        && ByteLevel::alphabet()
            .into_iter()
            .all(|c| model.token_to_id(c.encode_utf8(&mut [0; 4])).is_some())
}

/// Error for a text that the tokenizer rejects.
fn refused(index: usize, why: impl std::fmt::Display) -> Error {
    Error::Input { index, what: format!("cannot be tokenised: {why}") }
}

fn tokens(encoding: &Encoding) -> Tokens {
    let ids = encoding.get_ids().to_vec();
    let type_ids = encoding.get_type_ids().to_vec();
    Tokens { ids, type_ids, ..Tokens::default() }
}
