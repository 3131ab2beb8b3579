//! Input of the tasks: texts that are read before the first is computed.

use crate::{
    error::CliError,
    input::{Items, Skipped},
    item::{Content, Item, with_position},
    options::InputArgs,
};
use jinabert::Error;
use std::{slice, sync::Arc};

/// Texts of a run that are held in memory together.
pub struct Texts {
    /// Items, each with a text.
    pub items: Vec<Item>,
    /// Record of bad items, if they are to be skipped.
    pub skipped: Option<Arc<Skipped>>,
}

impl Texts {
    /// Reads arguments, or the whole of a file or of standard input.  `what` is the word for a text
    /// in messages, `own` are the names of the output's own fields.
    pub fn read(
        args: &InputArgs,
        given: &[String],
        what: &str,
        own: &'static [&'static str],
    ) -> Result<Self, CliError> {
        let Some(mut input) = args.open(given, what, own)? else {
            let skipped = args.skip_bad_lines.then(Arc::default);
            return Ok(Self { items: Items::of_texts(given), skipped });
        };
        let mut items = Vec::new();
        let skipped = input.skipped();
        while let Some(item) = input.next()? {
            match (is_text(&item), &skipped) {
                (Ok(()), _) => items.push(item),
                (Err(failure), Some(skipped)) => skipped.add(&failure),
                (Err(failure), None) => return Err(failure),
            }
        }
        Ok(Self { items, skipped })
    }

    /// The texts of the items.
    pub fn texts(&self) -> Vec<&str> {
        self.items.iter().filter_map(Item::text).collect()
    }

    /// Removes the items that `check` refuses, if bad items are to be skipped.
    pub fn skip(&mut self, check: impl Fn(&str) -> Result<(), Error>) -> Result<(), CliError> {
        let Some(skipped) = &self.skipped else { return Ok(()) };
        let mut good = Vec::new();
        for item in self.items.drain(..) {
            match check(item.text().unwrap_or_default()) {
                Ok(()) => good.push(item),
                Err(error) => match with_position(error, slice::from_ref(&item)) {
                    failure @ CliError::Item { .. } => skipped.add(&failure),
                    failure => return Err(failure),
                },
            }
        }
        self.items = good;
        Ok(())
    }

    /// Reports the skipped items on stderr; `texts` items were not skipped.
    pub fn report(&self, texts: usize) {
        if let Some(skipped) = &self.skipped {
            skipped.report(texts as u64);
        }
    }
}

/// Checks that an item is only a text.
fn is_text(item: &Item) -> Result<(), CliError> {
    let bad = |what: &str| Err(CliError::Item { place: item.place, what: what.to_owned() });
    match &item.content {
        Content::Text(_) if item.spans.is_some() => bad("\"spans\" are for `jinabert embed`"),
        Content::Text(_) => Ok(()),
        Content::Tokens(_) => bad("expected \"text\", got \"ids\""),
    }
}
