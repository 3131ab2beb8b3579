//! Options as C gives them: a struct whose zeros are the defaults.

use super::{
    Failure,
    raw::{self, Versioned},
};
use crate::{Options, kernels};
use std::{ffi::c_char, mem::size_of, time::Duration};

/// `jinabert_options.task`: what the model is for.
#[repr(C)]
pub enum Task {
    /// One vector per text, from a model that was made for it.
    Embed = 0,
    /// A score for a pair of texts: for `jinabert_rerank`.
    Rerank = 1,
    /// One vector per text from the encoder of any model.
    Encode = 2,
}

/// `jinabert_options.dtype`: how the device stores weights and wide activations.
#[repr(C)]
pub enum Dtype {
    /// 32-bit floats.
    F32 = 0,
    /// 16-bit floats, half the memory; sums stay in 32.  On a GPU.
    F16 = 1,
}

/// `jinabert_options.on_long`: what happens to a text over the limit.
#[repr(C)]
pub enum OnLong {
    /// It is JINABERT_STATUS_TOO_LONG.
    Error = 0,
    /// Its last tokens are dropped.
    Truncate = 1,
    /// It is read in windows; its vector is the mean over what all of them make of it.
    Window = 2,
}

/// `jinabert_options.pooling`: what of a text's tokens its vector is made of.
#[repr(C)]
pub enum Pooling {
    /// As the model's files declare it (`modules.json`); the mean where they say nothing.
    Auto = 0,
    /// The mean of all.
    Mean = 1,
    /// The first token.
    Cls = 2,
}

/// `jinabert_options.tune`: whether kernels are fitted to the GPU.
#[repr(C)]
pub enum Tune {
    /// As an earlier search found, if there was one.
    Known = 0,
    /// The usual kernels.
    Off = 1,
    /// Search once, for up to 3 seconds, and keep the result on disk (JINABERT_CACHE says where).
    Search = 2,
}

/// `jinabert_options.fallback`: whether the CPU takes over where a GPU failed twice.
#[repr(C)]
pub enum Fallback {
    /// Where the device is "auto".
    Auto = 0,
    /// Yes.
    Yes = 1,
    /// No: calls end with JINABERT_STATUS_DEVICE.
    No = 2,
}

/// How to open a model.  Zeros are the defaults: `jinabert_options options = {sizeof options};`
///
/// The struct ages by its `size`.  A later version adds fields at the end; a program that does not
/// know them gives a smaller size and gets their defaults, and an older library refuses bytes that
/// it does not know unless they are 0.  So both sides may be the newer one, the compiler checks
/// every field's type, and there is nothing to free, which is why it is not a handle with setters.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CallerOptions {
    /// sizeof(jinabert_options)
    pub size: usize,
    /// "auto" (a hardware GPU, otherwise the CPU), "cpu", "vulkan", "metal", "dx12", "gl", or what
    /// `jinabert_device.option` says; "auto" if NULL.
    pub device: *const c_char,
    /// Longest text in tokens, special ones included; the model's limit if 0.
    pub max_length: usize,
    /// Tokens that two windows of a text share; 256 if 0, none if JINABERT_NONE.
    pub overlap: usize,
    /// Leading components to keep, before the norm; all if 0.
    pub dimensions: usize,
    /// Tokens in one batch; the device's default if 0.
    pub batch_tokens: usize,
    /// Milliseconds without an answer after which the device counts as hung; the library's default
    /// if 0.
    pub patience_ms: usize,
    /// Milliseconds that a GPU is kept at a time, by prediction; 100, which is the most, if 0.  An
    /// application that draws on it meanwhile may want 4.
    pub slice_ms: usize,
    /// A jinabert_task.
    pub task: u32,
    /// A jinabert_dtype.
    pub dtype: u32,
    /// A jinabert_on_long.
    pub on_long: u32,
    /// A jinabert_pooling.
    pub pooling: u32,
    /// A jinabert_tune.
    pub tune: u32,
    /// Not 0: vectors are as the model gives them, not of unit length.
    pub raw: u32,
    /// Not 0: a text has the same bits in every batch, not only the same to rounding.
    pub deterministic: u32,
    /// A jinabert_fallback.
    pub fallback: u32,
}

// SAFETY: repr(C), begins with `size`; integers and a pointer that is looked at before it is
// followed.
unsafe impl Versioned for CallerOptions {
    const NAME: &'static str = "options";
    const FIRST: usize = size_of::<Self>(); // a field that is added later does not count
}

// Padding at the end would be counted as a field that is added there.
const _: () = assert!(size_of::<CallerOptions>() == size_of::<[usize; 8]>() + 8 * 4);

/// As the library takes them; null is the defaults.
///
/// # Safety
/// `options` is null or leads to a struct of its `size`, whose `device` is null or a string.
pub unsafe fn read(options: *const CallerOptions) -> Result<Options, Failure> {
    // SAFETY: the caller's promise is the same.
    let given = unsafe { raw::versioned(options) }?;
    let mut options = Options::default();
    if !given.device.is_null() {
        // SAFETY: the caller's promise is the same.
        let name = unsafe { raw::string("options.device", given.device) }?;
        options.device = name
            .parse()
            .map_err(|what| Failure::argument(format!("`options.device` is `{name}`: {what}")))?;
    }
    options.max_length = some(given.max_length);
    options.overlap = match given.overlap {
        0 => options.overlap,
        usize::MAX => 0,
        overlap => overlap,
    };
    options.dimensions = some(given.dimensions);
    options.batch_tokens = some(given.batch_tokens);
    let (task, long) = (crate::Task::Embed, crate::OnLong::Error);
    let tasks = [task, crate::Task::Rerank, crate::Task::Encode];
    options.task = choose("task", given.task, &tasks)?;
    options.dtype = choose("dtype", given.dtype, &[kernels::Dtype::F32, kernels::Dtype::F16])?;
    let longs = [long, crate::OnLong::Truncate, crate::OnLong::Window];
    options.on_long = choose("on_long", given.on_long, &longs)?;
    let poolings = [crate::Pooling::Auto, crate::Pooling::Mean, crate::Pooling::Cls];
    options.pooling = choose("pooling", given.pooling, &poolings)?;
    let tunes = [crate::Tune::Known, crate::Tune::Off, crate::Tune::Search];
    options.tune = choose("tune", given.tune, &tunes)?;
    options.fallback = choose("fallback", given.fallback, &[None, Some(true), Some(false)])?;
    if let Some(milliseconds) = some(given.patience_ms) {
        options.patience = Duration::from_millis(milliseconds as u64);
    }
    options.normalize = given.raw == 0;
    options.deterministic = given.deterministic != 0;
    if let Some(milliseconds) = some(given.slice_ms) {
        options.slice = Duration::from_millis(milliseconds as u64);
    }
    Ok(options)
}

fn some(number: usize) -> Option<usize> {
    (number != 0).then_some(number)
}

/// What a number of an enum stands for.
fn choose<T: Copy>(field: &str, number: u32, known: &[T]) -> Result<T, Failure> {
    known.get(number as usize).copied().ok_or_else(|| {
        let last = known.len() - 1;
        Failure::argument(format!("`options.{field}` is {number}: 0 to {last} are known"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ptr;

    const ZEROS: CallerOptions = CallerOptions {
        size: size_of::<CallerOptions>(),
        device: ptr::null(),
        max_length: 0,
        overlap: 0,
        dimensions: 0,
        batch_tokens: 0,
        patience_ms: 0,
        slice_ms: 0,
        task: 0,
        dtype: 0,
        on_long: 0,
        pooling: 0,
        tune: 0,
        raw: 0,
        deterministic: 0,
        fallback: 0,
    };

    fn of(options: &CallerOptions) -> Result<Options, Failure> {
        // SAFETY: it is there, with as many bytes as it says unless a test is wrong.
        unsafe { read(options) }
    }

    #[test]
    fn zeros_are_the_defaults() {
        // SAFETY: null is allowed.
        let none = unsafe { read(ptr::null()) }.expect("null is allowed");
        let zeros = of(&ZEROS).expect("zeros are allowed");
        let default = format!("{:?}", Options::default());
        assert_eq!((format!("{none:?}"), format!("{zeros:?}")), (default.clone(), default));
    }

    #[test]
    fn every_field_arrives() {
        let options = of(&CallerOptions {
            device: c"cpu".as_ptr(),
            max_length: 20,
            overlap: usize::MAX,
            dimensions: 3,
            batch_tokens: 99,
            patience_ms: 1500,
            slice_ms: 4,
            task: Task::Encode as u32,
            dtype: Dtype::F16 as u32,
            on_long: OnLong::Window as u32,
            pooling: Pooling::Cls as u32,
            tune: Tune::Off as u32,
            raw: 1,
            deterministic: 1,
            fallback: Fallback::No as u32,
            ..ZEROS
        });
        let expected = Options {
            device: crate::Device::Cpu,
            max_length: Some(20),
            overlap: 0,
            dimensions: Some(3),
            batch_tokens: Some(99),
            task: crate::Task::Encode,
            dtype: kernels::Dtype::F16,
            on_long: crate::OnLong::Window,
            pooling: crate::Pooling::Cls,
            tune: crate::Tune::Off,
            normalize: false,
            deterministic: true,
            fallback: Some(false),
            patience: Duration::from_millis(1500),
            slice: Duration::from_millis(4),
            ..Options::default()
        };
        assert_eq!(format!("{:?}", options.expect("good")), format!("{expected:?}"));
        let rerank = of(&CallerOptions { task: Task::Rerank as u32, ..ZEROS }).expect("good");
        assert_eq!((rerank.task, rerank.overlap), (crate::Task::Rerank, 256));
        let long = CallerOptions { on_long: OnLong::Truncate as u32, ..ZEROS };
        assert_eq!(of(&long).expect("good").on_long, crate::OnLong::Truncate);
        let fallback = CallerOptions { fallback: Fallback::Yes as u32, ..ZEROS };
        assert_eq!(of(&fallback).expect("good").fallback, Some(true));
        let tune = CallerOptions { tune: Tune::Search as u32, ..ZEROS };
        assert_eq!(of(&tune).expect("good").tune, crate::Tune::Search);
    }

    /// What a newer header knows and an older library does not.
    #[test]
    fn later_fields_must_be_zero() {
        #[repr(C)]
        struct Later {
            known: CallerOptions,
            added: [u8; 16],
        }
        let known = CallerOptions { size: size_of::<Later>(), dimensions: 5, ..ZEROS };
        let mut later = Later { known, added: [0; 16] };
        // SAFETY: as many bytes as it says.
        let read = |later: &Later| unsafe { read((&raw const *later).cast()) };
        assert_eq!(read(&later).expect("zeros").dimensions, Some(5));
        later.added[9] = 1;
        let refused = format!("{:?}", read(&later).expect_err("a field that nobody knows"));
        assert!(refused.contains(&format!("byte {} of `options`", size_of::<CallerOptions>() + 9)));
    }

    #[test]
    fn wrong_numbers_are_named() {
        let refused = |options: CallerOptions, says: &str| {
            let refused = format!("{:?}", of(&options).expect_err(says));
            assert!(refused.contains("BadArgument") && refused.contains(says), "{refused}");
        };
        refused(CallerOptions { size: 0, ..ZEROS }, "`options.size` is 0");
        refused(CallerOptions { size: ZEROS.size - 1, ..ZEROS }, "`options.size` is");
        refused(CallerOptions { size: usize::MAX, ..ZEROS }, "`options.size` is");
        refused(CallerOptions { task: 3, ..ZEROS }, "`options.task` is 3: 0 to 2");
        refused(CallerOptions { tune: u32::MAX, ..ZEROS }, "`options.tune` is 4294967295: 0 to 2");
        refused(CallerOptions { fallback: 3, ..ZEROS }, "`options.fallback` is 3: 0 to 2");
        refused(CallerOptions { device: c"cuda".as_ptr(), ..ZEROS }, "`options.device` is `cuda`");
    }
}
