//! Items of a file or pipe, one a line or from a JSON list.

use crate::{
    error::{CliError, InputPosition},
    item::{self, Item, Others},
    options::{InputArgs, InputFormat},
};
use serde_json::value::RawValue;
use std::{
    fs::File,
    io::{self, BufRead, BufReader, IsTerminal},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    vec,
};

/// The UTF-8 byte order mark.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// Reader of items that holds at most one line, or one list, in memory.
pub struct Items {
    path: PathBuf,
    reader: Box<dyn BufRead + Send>,
    format: InputFormat,
    others: Others,
    /// Record of bad items, if they are to be skipped.
    skipped: Option<Arc<Skipped>>,
    /// Lines, or list elements, read so far.
    line: u64,
    /// Items read so far, including skipped ones.
    index: u64,
    /// Remaining elements of a JSON list.
    list: Option<vec::IntoIter<Box<RawValue>>>,
    /// Size of the input in bytes, if it is a file.
    pub size: Option<u64>,
    /// Bytes read so far.
    pub position: u64,
}

impl InputArgs {
    /// Opens the input, standard input for `-`; `None` if the `texts` are arguments.  `what` is the
    /// word for a text in messages, `own` are the names of the output's own fields.
    pub fn open(
        &self,
        texts: &[String],
        what: &str,
        own: &'static [&'static str],
    ) -> Result<Option<Items>, CliError> {
        let stdin = PathBuf::from("-");
        let path = match (&self.input, texts) {
            (Some(path), _) => path.clone(),
            (None, []) if io::stdin().is_terminal() => {
                let name = what.to_uppercase();
                return Err(CliError::Usage(format!(
                    "no {what}: give {name}, --input FILE, or pipe lines in"
                )));
            }
            (None, []) => stdin,
            (None, [only]) if only == "-" => stdin,
            (None, texts) if texts.iter().any(|text| text == "-") => {
                let what = format!("`-` is standard input: expected no other {what} beside it");
                return Err(CliError::Usage(what));
            }
            (None, _) if self.keep_fields => {
                let what = "--keep-fields is for jsonl and json input, not for arguments";
                return Err(CliError::Usage(what.to_owned()));
            }
            (None, _) => return Ok(None),
        };
        let format = self.input_format.unwrap_or_else(|| InputFormat::by_name(&path));
        if self.keep_fields && format == InputFormat::Lines {
            let what = "--keep-fields is for jsonl and json input: this is lines (--input-format)";
            return Err(CliError::Usage(what.to_owned()));
        }
        let mut items = Items::open(&path, format)?;
        items.others = if self.keep_fields { Others::Keep(own) } else { Others::Refuse };
        items.skipped = self.skip_bad_lines.then(Arc::default);
        Ok(Some(items))
    }
}

impl Items {
    fn open(path: &Path, format: InputFormat) -> Result<Self, CliError> {
        if path == Path::new("-") {
            let stdin = Box::new(BufReader::new(io::stdin()));
            return Ok(Self::new(path.to_owned(), stdin, format));
        }
        let failed = |source| CliError::Input { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        let size = metadata.is_file().then_some(metadata.len());
        let reader = Box::new(BufReader::new(file));
        Ok(Self { size, ..Self::new(path.to_owned(), reader, format) })
    }

    fn new(path: PathBuf, reader: Box<dyn BufRead + Send>, format: InputFormat) -> Self {
        Self {
            path,
            reader,
            format,
            others: Others::Refuse,
            skipped: None,
            line: 0,
            index: 0,
            list: None,
            size: None,
            position: 0,
        }
    }

    /// Items of texts on the command line.
    pub fn of_texts(texts: &[String]) -> Vec<Item> {
        let item =
            |(n, text): (u64, &String)| Item::of_text(InputPosition::Text(n + 1), n, text.clone());
        (0..).zip(texts).map(item).collect()
    }

    /// Record of bad items, if they are to be skipped.
    pub fn skipped(&self) -> Option<Arc<Skipped>> {
        self.skipped.clone()
    }

    /// The next good item.
    pub fn next(&mut self) -> Result<Option<Item>, CliError> {
        loop {
            match (self.next_of_any(), &self.skipped) {
                (Err(failure @ CliError::Item { .. }), Some(skipped)) => skipped.add(&failure),
                (next, _) => return next,
            }
        }
    }

    /// The next item, good or bad.
    fn next_of_any(&mut self) -> Result<Option<Item>, CliError> {
        if self.list.is_some() {
            return self.next_of_list();
        }
        let mut before = Vec::new(); // blank lines
        loop {
            let Some(mut bytes) = self.read_line()? else { return Ok(None) };
            let json = self.format != InputFormat::Lines;
            let blank = bytes.trim_ascii();
            if json && blank.is_empty() {
                before.append(&mut bytes);
                continue;
            }
            if self.format == InputFormat::Json {
                if blank.starts_with(b"[") {
                    before.append(&mut bytes);
                    self.read_list(before)?;
                    return self.next_of_list();
                }
                // The file contains objects, one a line.
                self.format = InputFormat::Jsonl;
            }
            return self.of_line(bytes).map(Some);
        }
    }

    /// Reads a line, including its line break.
    fn read_line(&mut self) -> Result<Option<Vec<u8>>, CliError> {
        let mut bytes = Vec::new();
        let read = self.reader.read_until(b'\n', &mut bytes).map_err(|e| self.failed(e))?;
        if read == 0 {
            return Ok(None);
        }
        if self.line == 0 && bytes.starts_with(BOM) {
            bytes.drain(..BOM.len());
        }
        self.line += 1;
        self.position += read as u64;
        // A file with nothing but the mark has no line.
        Ok((!bytes.is_empty()).then_some(bytes))
    }

    fn of_line(&mut self, mut bytes: Vec<u8>) -> Result<Item, CliError> {
        let place = InputPosition::Line(self.line);
        let index = self.index;
        self.index += 1;
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        }
        let text = String::from_utf8(bytes).map_err(|e| {
            let at = e.utf8_error().valid_up_to();
            CliError::Item { place, what: format!("not UTF-8 at byte {at}") }
        })?;
        match self.format {
            InputFormat::Lines => Ok(Item::of_text(place, index, text)),
            InputFormat::Jsonl | InputFormat::Json => item::line(place, index, &text, self.others),
        }
    }

    /// Reads a JSON list up to the end of the input.
    fn read_list(&mut self, mut bytes: Vec<u8>) -> Result<(), CliError> {
        self.reader.read_to_end(&mut bytes).map_err(|e| self.failed(e))?;
        let bad = |what: String| CliError::Text { path: self.path.clone(), what };
        let text = str::from_utf8(&bytes)
            .map_err(|e| bad(format!("not UTF-8 at byte {}", e.valid_up_to())))?;
        let list: Vec<Box<RawValue>> =
            serde_json::from_str(text).map_err(|e| bad(format!("not a JSON list: {e}")))?;
        self.line = 0; // counts elements from here on
        self.position = 0;
        self.list = Some(list.into_iter());
        Ok(())
    }

    fn next_of_list(&mut self) -> Result<Option<Item>, CliError> {
        let Some(element) = self.list.as_mut().and_then(Iterator::next) else { return Ok(None) };
        let index = self.index;
        self.index += 1;
        self.line += 1;
        self.position += element.get().len() as u64;
        // Line breaks between JSON tokens would break the lines of the output.
        let json = element.get().replace(['\n', '\r'], " ");
        item::element(InputPosition::Element(self.line), index, &json, self.others).map(Some)
    }

    fn failed(&self, source: io::Error) -> CliError {
        CliError::Input { path: self.path.clone(), source }
    }
}

/// Skipped items: their number, and the message of the first.
#[derive(Default)]
pub struct Skipped(Mutex<(u64, Option<String>)>);

impl Skipped {
    /// Records a skipped item.
    pub fn add(&self, failure: &CliError) {
        let mut skipped = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        skipped.0 += 1;
        skipped.1.get_or_insert_with(|| failure.to_string());
    }

    /// Reports the skipped items on stderr; `written` items were not skipped.
    pub fn report(&self, written: u64) {
        let skipped = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let (count, Some(first)) = &*skipped {
            tracing::warn!("skipped {count} of {} inputs; the first: {first}", count + written);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn items(bytes: &[u8], format: InputFormat) -> Items {
        Items::new("-".into(), Box::new(io::Cursor::new(bytes.to_vec())), format)
    }

    proptest! {
        /// Every line gives an item or an error that names it, except blank lines of jsonl;
        /// `PROPTEST_CASES` sets the number of cases.
        #[test]
        fn every_line_gives_an_item_or_an_error_that_names_it(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            text in r#"\{("(text|ids|id|spans|type_ids|x)": ?(null|-?[0-9]{1,20}|"[^"]{0,9}"|\[[0-9, \[\]]{0,9}\]),? ?){0,4}\}?"#,
            json: bool,
        ) {
            let bytes = if json { text.into_bytes() } else { bytes };
            let mut lines: Vec<&[u8]> = bytes.split(|&byte| byte == b'\n').collect();
            if lines.last().is_some_and(|last| last.is_empty()) {
                lines.pop();
            }
            for format in [InputFormat::Lines, InputFormat::Jsonl] {
                let blank =
                    |line: &&[u8]| format == InputFormat::Jsonl && line.trim_ascii().is_empty();
                let expected: Vec<u64> =
                    (1..).zip(&lines).filter(|(_, line)| !blank(line)).map(|(n, _)| n).collect();
                let mut items = items(&bytes, format);
                let mut found = Vec::new();
                loop {
                    match items.next() {
                        Ok(None) => break,
                        Ok(Some(Item { place: InputPosition::Line(n), index, .. })) => {
                            prop_assert_eq!(index, found.len() as u64);
                            found.push(n);
                        }
                        Err(CliError::Item { place: InputPosition::Line(n), .. }) => found.push(n),
                        other => return Err(TestCaseError::fail(format!("{other:?}"))),
                    }
                }
                prop_assert_eq!(found, expected);
                prop_assert_eq!(items.position as usize, bytes.len());
            }
        }

        /// Reading ends for any text as a JSON file.
        #[test]
        fn reading_of_a_list_ends(text in r#"[ \n]{0,2}\[?("[^"]{0,5}"|\{"text": "a"\}|[0-9]{1,3}|\[|\]|,|\n){0,9}\]?"#) {
            let mut items = items(text.as_bytes(), InputFormat::Json);
            let most = text.len();
            let mut read = 0;
            while !matches!(items.next(), Ok(None) | Err(CliError::Text { .. })) {
                read += 1;
                prop_assert!(read <= most);
            }
        }
    }
}
