//! What follows when a device fails.
//!
//! Texts and tokens that are not embedded are tried again, in each of these ways as far as the
//! failure and the options leave them open:
//!
//! * where room lacks, in two halves, down to single texts;
//! * where the result is not finite, on a lower tier of kernels, or in f32 instead of f16;
//! * where the device was lost, gave no answer or left work out, on the same device opened anew;
//! * on the CPU, where [`Options::fallback`] allows that.
//!
//! What helped stays.  If nothing helps, the caller gets the last error, and the next call finds
//! the embedder as this one did.

use super::{
    Embedder, Error, Options,
    load::{self, Loaded},
    no_thread,
};
use crate::{kernels::Version, model::Model, recording::Caps, tune::Tune};
use std::{
    fmt,
    panic::resume_unwind,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// How often a device is opened anew within [`WHILE`]; one that fails more often is broken, and
/// opening it takes longer than saying so.
const REBUILDS: usize = 3;

/// How long it is remembered what did not help, and what there was no room for.
const WHILE: Duration = Duration::from_secs(60);

/// Batches are not made smaller than this for lack of memory, only halved when it lacks.
const FEW_TOKENS: usize = 64;

/// The model on its device.
pub(super) struct Seat {
    /// None where a device that failed could not be opened anew.
    model: Option<Model>,
    /// Of the last model.
    version: Version,
    /// Likewise.
    caps: Caps,
    /// How many sat here before it.
    pub(super) generation: u64,
    /// When its device was opened anew.
    rebuilt: Vec<Instant>,
    /// When a lower tier returned what is not finite, too: then it is the model's doing.
    in_vain: Option<Instant>,
}

impl Seat {
    pub(super) fn new(model: Model) -> Self {
        let (version, caps) = (model.version(), model.caps().clone());
        let model = Some(model);
        Self { model, version, caps, generation: 0, rebuilt: Vec::new(), in_vain: None }
    }

    /// Has the model do something.
    pub(super) fn with<T>(
        &mut self,
        work: impl FnOnce(&mut Model) -> Result<T, Error>,
    ) -> Result<T, Error> {
        match &mut self.model {
            Some(model) => work(model),
            None => Err(Error::Gpu("it was lost, and could not be opened anew".to_owned())),
        }
    }

    pub(super) fn allocated_bytes(&self) -> u64 {
        self.model.as_ref().map_or(0, Model::allocated_bytes)
    }

    fn rebuilds(&self) -> usize {
        self.rebuilt.iter().filter(|at| at.elapsed() < WHILE).count()
    }
}

/// Tokens of a batch, fewer for a while where there was no room.
pub(super) struct BatchTokens(Mutex<(usize, Option<(usize, Instant)>)>);

impl BatchTokens {
    pub(super) fn new(most: usize) -> Self {
        Self(Mutex::new((most, None)))
    }

    pub(super) fn get(&self) -> usize {
        match *self.lock() {
            (most, Some((fewer, since))) if since.elapsed() < WHILE => fewer.min(most),
            (most, _) => most,
        }
    }

    /// There was no room for more.
    pub(super) fn lower(&self, tokens: usize) {
        let fewer = tokens.max(FEW_TOKENS).min(self.get());
        self.lock().1 = Some((fewer, Instant::now()));
    }

    /// Another device.
    fn limit(&self, most: usize) {
        let mut all = self.lock();
        all.0 = all.0.min(most);
    }

    fn lock(&self) -> MutexGuard<'_, (usize, Option<(usize, Instant)>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the model is, for those who do not want to wait for it.
pub(super) struct Place {
    /// For people.
    pub(super) device: String,
    /// Why it is there, and not what was asked for.
    pub(super) after: Option<String>,
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

    pub(super) fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what holds the seat on threads of this embedder's own.  Rayon's may all be waiting for
    /// the seat, and one that waits for others takes up what else there is: the next call for it.
    pub(super) fn apart<R: Send>(
        &self,
        work: impl FnOnce(&mut Seat) -> R + Send,
    ) -> Result<R, Error> {
        let seated = move || {
            let mut seat = self.seat();
            let seat = &mut *seat;
            self.pool.install(move || work(seat))
        };
        if rayon::current_thread_index().is_none() {
            return Ok(seated());
        }
        thread::scope(|scope| {
            let thread = thread::Builder::new().spawn_scoped(scope, seated).map_err(no_thread)?;
            Ok(thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
        })
    }

    /// Runs `work`, and again as this module says.
    pub(super) fn attempt<T: Send>(
        &self,
        work: impl FnMut(&mut Model) -> Result<T, Error> + Send,
    ) -> Result<T, Error> {
        self.apart(|seat| self.seated(seat, work))?
    }

    /// As [`Embedder::attempt`], of work that failed with the model of some generation.
    pub(super) fn again<T: Send>(
        &self,
        generation: u64,
        error: Error,
        work: impl FnMut(&mut Model) -> Result<T, Error> + Send,
    ) -> Result<T, Error> {
        self.apart(|seat| match seat.generation == generation {
            true => self.remedied(seat, error, work),
            // Others that it was lost for have brought a new one.
            false => self.seated(seat, work),
        })?
    }

    fn seated<T>(
        &self,
        seat: &mut Seat,
        mut work: impl FnMut(&mut Model) -> Result<T, Error>,
    ) -> Result<T, Error> {
        match seat.with(&mut work) {
            Err(error) if error.is_of_device() => self.remedied(seat, error, work),
            result => result,
        }
    }

    fn remedied<T>(
        &self,
        seat: &mut Seat,
        mut error: Error,
        mut work: impl FnMut(&mut Model) -> Result<T, Error>,
    ) -> Result<T, Error> {
        for remedy in self.remedies(seat, &error) {
            tracing::warn!("{error}; {remedy}");
            if remedy == Remedy::Rebuild {
                seat.rebuilt.retain(|at| at.elapsed() < WHILE);
                seat.rebuilt.push(Instant::now());
                // Its room is needed.
                seat.model = None;
                seat.generation += 1;
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
                    if matches!((&failed, remedy), (Error::NotFinite(_), Remedy::Lower(_))) {
                        seat.in_vain = Some(Instant::now());
                    }
                    error = failed;
                    // What it was opened for has no model any more; others were spares.
                    if remedy == Remedy::Rebuild {
                        self.take_over(seat, loaded);
                    }
                }
                result => {
                    loaded.after = match remedy {
                        Remedy::Cpu => Some(error.to_string()),
                        _ => self.place().after.clone(),
                    };
                    self.take_over(seat, loaded);
                    return result;
                }
            }
        }
        Err(error)
    }

    fn opens_anew(&self, seat: &Seat) -> bool {
        let ours = !seat.caps.cpu && self.options.gpu.is_none();
        ours && seat.rebuilds() < REBUILDS
    }

    fn remedies(&self, seat: &Seat, error: &Error) -> Vec<Remedy> {
        let caps = &seat.caps;
        let mut remedies = Vec::new();
        match error {
            Error::NotFinite(_) if seat.in_vain.is_some_and(|at| at.elapsed() < WHILE) => {
                return remedies;
            }
            Error::NotFinite(_) => {
                remedies.extend(seat.version.lower(caps).map(Remedy::Lower));
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
            _ => seat.version,
        };
        let as_before = Options {
            tier: Some(version.tier),
            dtype: version.dtype,
            tune: if self.options.tune == Tune::Off { Tune::Off } else { Tune::Known },
            ..self.options.clone()
        };
        let options = match remedy {
            Remedy::Cpu => as_before.on_cpu(),
            // Plainer kernels of the CPU, though the options may name a device that it took over.
            _ if seat.caps.cpu => Options { tier: Some(version.tier), ..as_before.on_cpu() },
            _ => as_before,
        };
        let loaded = load::load(&self.files, &options, &self.config)?;
        if *loaded.model.config() != self.config {
            let what = "its files are not what they were when it was opened";
            return Err(Error::Model(what.to_owned()));
        }
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
    fn take_over(&self, seat: &mut Seat, loaded: Loaded) {
        let Loaded { model, device, after, batch_tokens, software } = loaded;
        tracing::info!("device: {device}, {} kernels", model.version());
        let most = self.options.batch_tokens.unwrap_or(batch_tokens).min(model.max_tokens());
        self.batch_tokens.limit(most);
        *self.place() = Place { device, after, cpu: model.caps().cpu, software };
        let (generation, rebuilt) = (seat.generation + 1, std::mem::take(&mut seat.rebuilt));
        *seat = Seat { generation, rebuilt, ..Seat::new(model) };
    }
}
