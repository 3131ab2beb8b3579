//! What follows when a device fails.
//!
//! A batch that is not computed is tried again, once in each of these ways, as far as the failure
//! and the options leave them open:
//!
//! * where room is what lacks, in two halves, down to single texts;
//! * where the result is not finite, on a lower tier of kernels, or in f32 instead of f16;
//! * where the device was lost, gave no answer or left work out, on the same device opened anew;
//! * on the CPU, where [`Options::fallback`] allows that.
//!
//! What helped stays.  If nothing helps, the caller gets the last error, and the next call finds
//! the embedder as this one did.

use super::{
    Embedder, Error, Options,
    load::{self, Loaded},
};
use crate::{kernels::Version, model::Model, tune::Tune};
use std::{
    fmt,
    sync::{MutexGuard, PoisonError, atomic::Ordering, mpsc},
    thread,
    time::{Duration, Instant},
};

/// How often a device is opened anew within [`REBUILD_TIME`]; one that fails more often is broken,
/// and opening it takes longer than saying so.
const REBUILDS: usize = 3;
const REBUILD_TIME: Duration = Duration::from_secs(60);

/// How long a device that failed may take to be closed before it is left to itself.
const CLOSING: Duration = Duration::from_secs(2);

/// The model on its device.
pub(super) struct Seat {
    pub(super) model: Model,
    /// How many sat here before it.
    pub(super) generation: u64,
    /// When its device was opened anew.
    rebuilt: Vec<Instant>,
    /// Whether a lower tier returned what is not finite, too: then it is the model's doing.
    in_vain: bool,
}

impl Seat {
    pub(super) fn new(model: Model) -> Self {
        Self { model, generation: 0, rebuilt: Vec::new(), in_vain: false }
    }

    fn rebuilds(&self) -> usize {
        self.rebuilt.iter().filter(|at| at.elapsed() < REBUILD_TIME).count()
    }
}

/// Where the model is, for those who do not want to wait for it.
#[derive(Clone)]
pub(super) struct Place {
    /// For people.
    pub(super) device: String,
    /// Whether it is the CPU path.
    pub(super) cpu: bool,
    /// Whether the processor computes.
    pub(super) software: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Remedy {
    /// The same device, opened anew.
    Rebuild,
    /// Plainer kernels, or wider numbers.
    Lower(Version),
    /// The CPU path.
    Cpu,
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rebuild => f.write_str("it is opened anew"),
            Self::Lower(version) => write!(f, "{version} kernels are tried"),
            Self::Cpu => f.write_str("the CPU takes over"),
        }
    }
}

impl Embedder {
    /// A panic while the model was held leaves nothing half-done that the next batch does not
    /// overwrite.
    pub(super) fn seat(&self) -> MutexGuard<'_, Seat> {
        self.seat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn place(&self) -> Place {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs `work`, and again as this module says; also returns the generation of the model that
    /// did it.
    pub(super) fn attempt<T>(
        &self,
        mut work: impl FnMut(&mut Model) -> Result<T, Error>,
    ) -> Result<(u64, T), Error> {
        let mut seat = self.seat();
        let result = match work(&mut seat.model) {
            Err(error) if error.is_of_device() => self.remedied(&mut seat, error, work),
            result => result,
        };
        Ok((seat.generation, result?))
    }

    /// As [`Embedder::attempt`], of work that failed with the model of some generation.
    pub(super) fn again<T>(
        &self,
        generation: u64,
        error: Error,
        mut work: impl FnMut(&mut Model) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut seat = self.seat();
        // Others that it was lost for have brought a new one.
        if seat.generation != generation {
            return match work(&mut seat.model) {
                Err(error) if error.is_of_device() => self.remedied(&mut seat, error, work),
                result => result,
            };
        }
        self.remedied(&mut seat, error, work)
    }

    /// Lowers the size of later batches.
    pub(super) fn fewer_tokens(&self, tokens: usize) {
        self.batch_tokens.fetch_min(tokens.max(1), Ordering::Relaxed);
    }

    fn remedied<T>(
        &self,
        seat: &mut Seat,
        mut error: Error,
        mut work: impl FnMut(&mut Model) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let odd = matches!(error, Error::NotFinite(_));
        for remedy in self.remedies(seat, &error) {
            tracing::warn!("{error}; {remedy}");
            if remedy == Remedy::Rebuild {
                seat.rebuilt.retain(|at| at.elapsed() < REBUILD_TIME);
                seat.rebuilt.push(Instant::now());
            }
            let mut loaded = match self.reopen(seat, remedy) {
                Ok(loaded) => loaded,
                Err(failed) => {
                    tracing::warn!("{failed}");
                    continue;
                }
            };
            match work(&mut loaded.model) {
                Err(failed) if failed.is_of_device() => {
                    error = failed;
                    // What it was opened for is of no use any more; others were spares.
                    if remedy == Remedy::Rebuild {
                        self.take_over(seat, loaded, None);
                    }
                }
                result => {
                    let why = (remedy == Remedy::Cpu).then_some(&error);
                    self.take_over(seat, loaded, why);
                    return result;
                }
            }
        }
        seat.in_vain |= odd;
        Err(error)
    }

    fn opens_anew(&self, seat: &Seat) -> bool {
        let ours = !seat.model.caps().cpu && self.options.gpu.is_none();
        ours && seat.rebuilds() < REBUILDS
    }

    fn remedies(&self, seat: &Seat, error: &Error) -> Vec<Remedy> {
        let caps = seat.model.caps();
        let mut remedies = Vec::new();
        match error {
            Error::NotFinite(_) if seat.in_vain => return remedies,
            Error::NotFinite(_) => {
                remedies.extend(seat.model.version().lower(caps).map(Remedy::Lower));
            }
            // One that is lost all the time is not worth the wait.
            Error::Gpu(_) if self.opens_anew(seat) => remedies.push(Remedy::Rebuild),
            _ => {}
        }
        if !caps.cpu && self.options.falls_back() {
            remedies.push(Remedy::Cpu);
        }
        remedies
    }

    fn reopen(&self, seat: &Seat, remedy: Remedy) -> Result<Loaded, Error> {
        let version = match remedy {
            Remedy::Lower(version) => version,
            _ => seat.model.version(),
        };
        let as_before = Options {
            tier: Some(version.tier),
            dtype: version.dtype,
            tune: if self.options.tune == Tune::Off { Tune::Off } else { Tune::Known },
            ..self.options.clone()
        };
        let options = match remedy {
            Remedy::Cpu => as_before.on_cpu(),
            _ => as_before,
        };
        let loaded = load::load(&self.files, &options, &self.config)?;
        let most = loaded.model.max_tokens();
        match most >= self.limit {
            true => Ok(loaded),
            false => {
                let limit = self.limit;
                Err(Error::Memory(format!("{most} tokens at a time, texts may have {limit}")))
            }
        }
    }

    /// Puts another model into the seat.
    fn take_over(&self, seat: &mut Seat, loaded: Loaded, why: Option<&Error>) {
        let Loaded { model, mut device, batch_tokens, software } = loaded;
        if let Some(why) = why {
            device = format!("{device}; took over after: {why}");
        }
        tracing::info!("device: {device}, {} kernels", model.version());
        let most = self.options.batch_tokens.unwrap_or(batch_tokens).min(model.max_tokens());
        self.fewer_tokens(most);
        let cpu = model.caps().cpu;
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) =
            Place { device, cpu, software };
        seat.generation += 1;
        seat.in_vain = false;
        retire(std::mem::replace(&mut seat.model, model));
    }
}

/// Closes a device, beside what goes on if it takes long: one that hangs is waited for by its
/// driver.
fn retire(model: Model) {
    let (sender, closed) = mpsc::channel();
    let close = move || {
        drop(model);
        let _ = sender.send(()); // nobody waits for it any more
    };
    // Without a thread, the model was dropped with the closure.
    if thread::Builder::new().name("jinabert-closing".to_owned()).spawn(close).is_ok()
        && closed.recv_timeout(CLOSING) == Err(mpsc::RecvTimeoutError::Timeout)
    {
        tracing::warn!("a device does not close; it is left to itself");
    }
}
