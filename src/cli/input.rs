//! Texts and token lists, a line at a time.

use super::{Failure, args::InputFormat};
use crate::batch::Tokens;
use serde::Deserialize;
use serde_json::Value;
use std::{
    fmt,
    fs::File,
    io::{self, BufRead, BufReader},
    ops::Range,
    path::{Path, PathBuf},
};

/// Where an input came from, for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A line of a file or pipe, from 1.
    Line(u64),
    /// An argument, from 1.
    Text(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(n) => write!(f, "line {n}"),
            Self::Text(n) => write!(f, "text {n}"),
        }
    }
}

/// One thing to embed.
#[derive(Debug, PartialEq)]
pub struct Item {
    /// Where it came from.
    pub place: Place,
    /// The caller's name for it.
    pub id: Option<Value>,
    /// What to embed.
    pub source: Source,
    /// Ranges of characters, where it says which chunks it has.
    pub spans: Option<Vec<Range<usize>>>,
}

impl Item {
    /// Its text, if it is one.
    pub fn text(&self) -> Option<&str> {
        match &self.source {
            Source::Text(text) => Some(text),
            Source::Tokens(_) => None,
        }
    }
}

/// What to embed.
#[derive(Debug, PartialEq)]
pub enum Source {
    /// To be tokenised.
    Text(String),
    /// Taken as given.
    Tokens(Tokens),
}

/// Reads items without holding more than one line.
pub struct Items {
    path: PathBuf,
    reader: Box<dyn BufRead + Send>,
    format: InputFormat,
    line: u64,
    /// Bytes of the input, if it is a file.
    pub size: Option<u64>,
    /// Bytes read so far.
    pub position: u64,
}

impl Items {
    /// Opens a file, or standard input for `-`.
    pub fn open(path: &Path, format: Option<InputFormat>) -> Result<Self, Failure> {
        let by_name = match path.extension() {
            Some(extension) if extension == "jsonl" => InputFormat::Jsonl,
            _ => InputFormat::Lines,
        };
        let (reader, size): (Box<dyn BufRead + Send>, _) = match path == Path::new("-") {
            true => (Box::new(BufReader::new(io::stdin())), None),
            false => {
                let failed = |source| Failure::Input { path: path.to_owned(), source };
                let file = File::open(path).map_err(failed)?;
                let metadata = file.metadata().map_err(failed)?;
                if metadata.is_dir() {
                    return Err(failed(io::ErrorKind::IsADirectory.into()));
                }
                (Box::new(BufReader::new(file)), metadata.is_file().then_some(metadata.len()))
            }
        };
        let format = format.unwrap_or(by_name);
        Ok(Self { path: path.to_owned(), reader, format, line: 0, size, position: 0 })
    }

    /// Items of texts on the command line.
    pub fn of_texts(texts: &[String]) -> Vec<Item> {
        let texts = texts.iter().zip(1..);
        texts
            .map(|(text, n)| Item {
                place: Place::Text(n),
                id: None,
                source: Source::Text(text.clone()),
                spans: None,
            })
            .collect()
    }

    /// The next item.
    pub fn next(&mut self) -> Result<Option<Item>, Failure> {
        let mut bytes = Vec::new();
        let read = self
            .reader
            .read_until(b'\n', &mut bytes)
            .map_err(|source| Failure::Input { path: self.path.clone(), source })?;
        if read == 0 {
            return Ok(None);
        }
        self.line += 1;
        self.position += read as u64;
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        }
        let place = Place::Line(self.line);
        let text = String::from_utf8(bytes).map_err(|e| {
            let at = e.utf8_error().valid_up_to();
            Failure::Item { place, what: format!("not UTF-8 at byte {at}") }
        })?;
        match self.format {
            InputFormat::Lines => {
                Ok(Some(Item { place, id: None, source: Source::Text(text), spans: None }))
            }
            InputFormat::Jsonl => parse(place, text.trim_start_matches('\u{feff}')).map(Some),
        }
    }
}

/// A line of jsonl.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    text: Option<String>,
    ids: Option<Vec<u32>>,
    type_ids: Option<Vec<u32>>,
    id: Option<Value>,
    spans: Option<Vec<[usize; 2]>>,
}

fn parse(place: Place, text: &str) -> Result<Item, Failure> {
    let bad = |what: String| Failure::Item { place, what };
    let parsed: Line = serde_json::from_str(text).map_err(|e| {
        // serde_json counts lines within this line; only the column is news.
        let what = e.to_string();
        let what = what.split(" at line ").next().unwrap_or_default();
        bad(format!("{what} at column {}", e.column()))
    })?;
    let source = match (parsed.text, parsed.ids, parsed.type_ids) {
        (Some(text), None, None) => Source::Text(text),
        (None, Some(ids), None) => Source::Tokens(Tokens::new(ids)),
        (None, Some(ids), Some(type_ids)) => Source::Tokens(Tokens { ids, type_ids, unseen: 0 }),
        _ => {
            return Err(bad(
                "an object has \"text\", or \"ids\" with or without \"type_ids\"".into()
            ));
        }
    };
    let spans = parsed.spans.map(|spans| spans.into_iter().map(|[a, b]| a..b).collect());
    if spans.is_some() && !matches!(source, Source::Text(_)) {
        return Err(bad("\"spans\" are of characters: they need \"text\"".into()));
    }
    Ok(Item { place, id: parsed.id, source, spans })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Every line is an item or an error that names it; `PROPTEST_CASES` says how many are
        /// tried.
        #[test]
        fn any_line(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            text in r#"\{("(text|ids|id|spans|type_ids|x)": ?(null|-?[0-9]{1,20}|"[^"]{0,9}"|\[[0-9, \[\]]{0,9}\]),? ?){0,4}\}?"#,
            jsonl: bool,
        ) {
            let bytes = if jsonl { text.into_bytes() } else { bytes };
            let lines = bytes.iter().filter(|&&byte| byte == b'\n').count();
            for format in [InputFormat::Lines, InputFormat::Jsonl] {
                let mut items = Items {
                    path: "-".into(),
                    reader: Box::new(io::Cursor::new(bytes.clone())),
                    format,
                    line: 0,
                    size: None,
                    position: 0,
                };
                let mut read = 0;
                loop {
                    match items.next() {
                        Ok(None) => break,
                        Ok(Some(item)) => prop_assert_eq!(item.place, Place::Line(read + 1)),
                        Err(Failure::Item { place, .. }) => {
                            prop_assert_eq!(place, Place::Line(read + 1));
                        }
                        Err(error) => return Err(TestCaseError::fail(error.to_string())),
                    }
                    read += 1;
                }
                let last = usize::from(bytes.last().is_some_and(|&byte| byte != b'\n'));
                prop_assert_eq!(read as usize, lines + last);
                prop_assert_eq!(items.position as usize, bytes.len());
            }
        }
    }

    #[test]
    fn jsonl_lines() {
        let text = parse(Place::Line(3), r#"{"id": "a", "text": "x\ny"}"#).expect("good");
        assert_eq!((text.place, text.id), (Place::Line(3), Some(Value::from("a"))));
        assert_eq!(text.source, Source::Text("x\ny".into()));
        let ids =
            parse(Place::Line(1), r#"{"ids": [2, 3], "type_ids": [0, 1]}"#).expect("good").source;
        assert_eq!(ids, Source::Tokens(Tokens { type_ids: vec![0, 1], ..Tokens::new(vec![2, 3]) }));
        for (line, says) in [
            ("", "EOF while parsing a value at column 0"),
            ("{\"text\": \"a\"", "EOF"),
            ("[1]", "at column"),
            ("{}", "an object has"),
            ("{\"text\": \"a\", \"ids\": [1]}", "an object has"),
            ("{\"ids\": [-1]}", "invalid value"),
            ("{\"ids\": [4294967296]}", "invalid value"),
            ("{\"txt\": \"a\"}", "unknown field `txt`"),
        ] {
            let error = parse(Place::Line(7), line).expect_err(line).to_string();
            assert!(error.starts_with("line 7: ") && error.contains(says), "{error}");
        }
    }
}
