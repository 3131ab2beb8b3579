//! Embedding of texts.

use super::{Embedded, Embedder, EncodeOptions, Error, Prompt, Vector, no_thread};
use std::{ops::ControlFlow, sync::mpsc, thread};

/// Texts tokenised together, ahead of the computation.
const GROUP: usize = 4096;

/// Progress of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Finished texts; for [`Embedder::compute_watched`], sequences: texts, pairs, windows.
    pub done: usize,
    /// Number of texts in the call.
    pub total: usize,
}

impl Progress {
    /// Error for a call cancelled at this point.
    pub(super) fn cancelled(self) -> Error {
        Error::Cancelled { done: self.done, total: self.total }
    }
}

impl Embedder {
    /// Embeds texts, in order.
    ///
    /// Texts are tokenised on all cores, packed without padding into batches, and run longest
    /// first; results come back in input order.  On the same device other texts in a batch change
    /// no bit of a result with [`Options::deterministic`], and otherwise only its rounding.
    ///
    /// # Errors
    /// [`Error::TooLong`] for a text over the limit, unless it is to be truncated;
    /// [`Error::Option`] if there is no tokenizer, or if the model is a reranker; [`Error::Gpu`],
    /// [`Error::Memory`] or [`Error::NotFinite`] if the device fails and all retries, including
    /// [`Options::fallback`], fail.
    ///
    /// # Example
    /// ```no_run
    /// let embedder = jinabert::Embedder::open("models/jinabert-mini-en")?;
    /// let vectors = embedder.embed(&["A blue cat", "A cat that is blue"])?;
    /// println!("{:.3}", vectors[0].dot(&vectors[1]));
    /// # Ok::<(), jinabert::Error>(())
    /// ```
    ///
    /// [`Options::deterministic`]: crate::Options::deterministic
    /// [`Options::fallback`]: crate::Options::fallback
    pub fn embed<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<Vec<Vector>, Error> {
        Ok(self.embed_counted(texts)?.into_iter().map(|embedded| embedded.vector).collect())
    }

    /// As [`Embedder::embed`], with each text's token count.
    ///
    /// # Errors
    /// As [`Embedder::embed`].
    pub fn embed_counted<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<Vec<Embedded>, Error> {
        self.embed_watched(texts, self.defaults, |_| ControlFlow::Continue(()))
    }

    /// As [`Embedder::embed_counted`], with per-call options; `watch` is called after every batch
    /// and may cancel the rest.
    ///
    /// # Errors
    /// As [`Embedder::embed`], [`Error::Option`] for dimensions that the model does not have, and
    /// [`Error::Cancelled`] if `watch` breaks.
    ///
    /// # Example
    /// ```no_run
    /// # use std::{ops::ControlFlow, sync::atomic::{AtomicBool, Ordering}};
    /// # let (texts, stop) = (vec!["A blue cat"], AtomicBool::new(false));
    /// let embedder = jinabert::Embedder::open("models/jinabert-mini-en")?;
    /// let embedded = embedder.embed_watched(&texts, embedder.encode_options(), |progress| {
    ///     eprintln!("{} of {}", progress.done, progress.total);
    ///     match stop.load(Ordering::Relaxed) {
    ///         true => ControlFlow::Break(()),
    ///         false => ControlFlow::Continue(()),
    ///     }
    /// })?;
    /// # Ok::<(), jinabert::Error>(())
    /// ```
    pub fn embed_watched<S: AsRef<str> + Sync>(
        &self,
        texts: &[S],
        options: EncodeOptions,
        mut watch: impl FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Vec<Embedded>, Error> {
        let total = texts.len();
        let mut embedded = Vec::with_capacity(total);
        let mut embed_group = |embedded: &mut Vec<Embedded>, tokenized: Result<Vec<_>, Error>| {
            let before = embedded.len();
            let tokenized = tokenized.map_err(|error| error.moved(|n| before + n))?;
            let texts = tokenized.len();
            let job = self.jobs().tokenized(tokenized, options)?;
            let mut progress = Progress { done: before, total };
            let some = self.compute_watched(job, |of| {
                progress.done = before + texts * of.done / of.total;
                watch(progress)
            });
            embedded.extend(some.map_err(|error| match error {
                Error::Cancelled { .. } => progress.cancelled(),
                other => other,
            })?);
            Ok::<(), Error>(())
        };
        let tokenize = |texts| self.tokenization().texts(texts, &Prompt::Auto, options);
        if total <= GROUP {
            embed_group(&mut embedded, tokenize(texts))?;
            return Ok(embedded);
        }
        let mut groups = texts.chunks(GROUP).map(tokenize);
        // A rayon thread must not wait for a thread that waits for rayon.
        if rayon::current_thread_index().is_some() {
            groups.try_for_each(|tokenized| embed_group(&mut embedded, tokenized))?;
            return Ok(embedded);
        }
        thread::scope(|scope| {
            let (sender, tokenized) = mpsc::sync_channel(1);
            // After an error the receiver is gone: `send` fails and this thread ends.
            let ahead = move || groups.all(|tokenized| sender.send(tokenized).is_ok());
            thread::Builder::new().spawn_scoped(scope, ahead).map_err(no_thread)?;
            tokenized.into_iter().try_for_each(|tokenized| embed_group(&mut embedded, tokenized))
        })?;
        Ok(embedded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Device, Options};

    fn embedder() -> Embedder {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny-natural");
        let options = Options { device: Device::Cpu, max_length: Some(20), ..Options::default() };
        Embedder::open_with(dir, options).expect("a good fixture")
    }

    #[test]
    fn groups_keep_the_order() {
        let embedder = embedder();
        let texts: Vec<String> = (0..2 * GROUP + 3).map(|n| format!("a {}", n % 10)).collect();
        let embedded = embedder.embed_counted(&texts).expect("short texts");
        assert_eq!(embedded.len(), texts.len());
        let ten = embedder.embed_counted(&texts[..10]).expect("short texts");
        assert!((0..texts.len()).all(|n| embedded[n] == ten[n % 10]));
    }

    #[test]
    fn who_watches_hears_of_every_text_and_may_end_it() {
        let embedder = embedder();
        let texts: Vec<String> = (0..GROUP + 3).map(|n| format!("a {}", n % 10)).collect();
        let mut heard = Vec::new();
        let all = embedder.embed_watched(&texts, embedder.encode_options(), |progress| {
            heard.push(progress.done);
            assert_eq!(progress.total, texts.len());
            ControlFlow::Continue(())
        });
        assert_eq!(all.expect("short texts").len(), texts.len());
        assert!(heard.is_sorted() && heard.last() == Some(&texts.len()), "{heard:?}");
        let half = |progress: Progress| {
            if progress.done > texts.len() / 2 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        match embedder.embed_watched(&texts, embedder.encode_options(), half) {
            Err(Error::Cancelled { done, total }) => {
                assert!((texts.len() / 2..total).contains(&done), "{done} of {total}");
            }
            other => panic!("{:?}", other.map(|embedded| embedded.len())),
        }
    }

    #[test]
    fn errors_name_the_text() {
        let embedder = embedder();
        let mut texts = vec!["a".to_owned(); 3 * GROUP];
        texts[GROUP + 5] = "a ".repeat(100);
        match embedder.embed_counted(&texts) {
            Err(Error::TooLong { index, limit: 20, .. }) => assert_eq!(index, GROUP + 5),
            other => panic!("{:?}", other.map(|embedded| embedded.len())),
        }
        assert_eq!(embedder.embed(&texts[..3]).expect("short texts").len(), 3);
    }
}
