//! Options in C: a struct whose zeros are the defaults.

use super::{
    CallError,
    raw::{self, Versioned},
};
use jinabert::{Options, Prompt};
use std::{
    ffi::c_char,
    mem::{offset_of, size_of},
    time::Duration,
};

/// `jinabert_options.task`: task of the model.
#[repr(C)]
pub enum Task {
    /// One vector per text, from an embedding model.
    Embed = 0,
    /// One score per pair of texts, for `jinabert_rerank`.
    Rerank = 1,
    /// One vector per text, from the encoder of any model.
    Encode = 2,
}

/// `jinabert_options.dtype`: storage type of weights and wide activations on the device.
#[repr(C)]
pub enum Dtype {
    /// 32-bit floats.
    F32 = 0,
    /// 16-bit floats, half the memory; sums stay in 32 bits.  Only on a GPU.
    F16 = 1,
}

/// `jinabert_options.on_long`: handling of texts over the token limit.
#[repr(C)]
pub enum OnLong {
    /// The call fails with JINABERT_STATUS_TOO_LONG.
    Error = 0,
    /// The text is truncated at the end.
    Truncate = 1,
    /// The text is read in overlapping windows; its vector is the mean over all of them.
    Window = 2,
}

/// `jinabert_options.pooling`: pooling of token vectors into a text vector.
#[repr(C)]
pub enum Pooling {
    /// As declared in the model's `modules.json`; the mean if it declares nothing.
    Auto = 0,
    /// Mean of all tokens.
    Mean = 1,
    /// First token.
    Cls = 2,
}

/// `jinabert_options.tune`: tuning of kernels for the GPU.
#[repr(C)]
pub enum Tune {
    /// Use the result of an earlier search, if there is one.
    Known = 0,
    /// Use the default kernels.
    Off = 1,
    /// Search once, for up to 3 seconds, and keep the result on disk (directory JINABERT_CACHE).
    Search = 2,
}

/// `jinabert_options.fallback`: use the CPU if the GPU fails repeatedly.
#[repr(C)]
pub enum Fallback {
    /// Only if the device is "auto".
    Auto = 0,
    /// Always.
    Yes = 1,
    /// Never: calls fail with JINABERT_STATUS_DEVICE.
    No = 2,
}

/// Options for opening a model.  Zeros are the defaults:
/// `jinabert_options options = {sizeof options};`
///
/// The struct is versioned by its `size`.  Later versions add fields at the end: an older program
/// passes a smaller size and gets the defaults of the new fields; an older library refuses fields
/// that it does not know unless they are 0.  Either side may be the newer one, the compiler checks
/// the types of all fields, and nothing needs to be freed.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CallerOptions {
    /// sizeof(jinabert_options)
    pub size: usize,
    /// "auto" (the faster of a hardware GPU and the CPU), "cpu", "vulkan", "metal", "dx12", "gl",
    /// or the value of `jinabert_device.option`; "auto" if NULL.
    pub device: *const c_char,
    /// Maximum text length in tokens, special tokens included; the model's limit if 0.
    pub max_length: usize,
    /// Overlap of consecutive windows in tokens; 256 if 0, none if JINABERT_NONE.
    pub overlap: usize,
    /// Number of leading components to keep, before normalisation; all if 0.
    pub dimensions: usize,
    /// Maximum tokens per batch; the device's default if 0.
    pub batch_tokens: usize,
    /// Timeout for a result of the device in milliseconds, after which it counts as hung; the
    /// library's default if 0.
    pub patience_ms: usize,
    /// Maximum predicted GPU time of one submission in milliseconds; 100, the upper limit, if 0.
    /// An application that renders on the same GPU may want 4.
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
    /// Not 0: vectors are not normalised to unit length.
    pub raw: u32,
    /// Not 0: vectors of a text are bit-identical in every batch, not only equal up to rounding.
    pub deterministic: u32,
    /// A jinabert_fallback.
    pub fallback: u32,
    /// Name of the model's prompt to put before each text; its default prompt if NULL.
    pub prompt_name: *const c_char,
    /// Prompt text to put before each text instead, "" for none; `prompt_name` if NULL.
    pub prompt: *const c_char,
    /// Task of the LoRA adapter for calls that choose none, such as "retrieval.query", for a model
    /// that has tasks; its instruction goes before each text unless a prompt is set.  No adapter if
    /// NULL.
    pub adapter: *const c_char,
    /// Not 0: `dimensions` may be any number, also for a model that declares those it was trained
    /// for.
    pub any_dimensions: usize,
}

// SAFETY: repr(C), begins with `size`; integers and pointers that are checked before they are
// dereferenced.
unsafe impl Versioned for CallerOptions {
    const NAME: &'static str = "options";
    const FIRST: usize = offset_of!(Self, prompt_name); // fields that were added later do not count
}

// Padding at the end would be counted as a field that is added there.
const _: () = assert!(size_of::<CallerOptions>() == size_of::<[usize; 12]>() + 8 * 4);

/// Options of the library; the defaults if null.
///
/// # Safety
/// `options` is null or points to a struct of its `size`, whose `device`, prompts and `adapter` are
/// null or strings.
pub unsafe fn read(options: *const CallerOptions) -> Result<Options, CallError> {
    // SAFETY: the caller's promise is the same.
    let given = unsafe { raw::versioned(options) }?;
    let mut options = Options::default();
    if !given.device.is_null() {
        // SAFETY: the caller's promise is the same.
        let name = unsafe { raw::string("options.device", given.device) }?;
        options.device = name.parse().map_err(|_| {
            let known =
                "auto, cpu, vulkan, metal, dx12, gl, or a number that `jinabert_device_at` has";
            CallError::argument(format!("`options.device` is `{name}`: expected {known}"))
        })?;
    }
    // SAFETY: the caller's promise is the same.
    let prompts = unsafe {
        let name = optional_string("options.prompt_name", given.prompt_name)?;
        (name, optional_string("options.prompt", given.prompt)?)
    };
    options.prompt = match prompts {
        (None, None) => Prompt::Auto,
        (Some(name), None) => Prompt::Named(name),
        (None, Some(text)) => Prompt::Text(text),
        (Some(name), Some(_)) => {
            let what =
                format!("`options.prompt_name` is `{name}`, and `options.prompt` is set, too");
            return Err(CallError::argument(what));
        }
    };
    // SAFETY: as above.
    options.adapter = unsafe { optional_string("options.adapter", given.adapter) }?;
    options.any_dimensions = given.any_dimensions != 0;
    options.max_length = nonzero(given.max_length);
    options.overlap = match given.overlap {
        0 => options.overlap,
        usize::MAX => 0,
        overlap => overlap,
    };
    options.dimensions = nonzero(given.dimensions);
    options.batch_tokens = nonzero(given.batch_tokens);
    let tasks = [jinabert::Task::Embed, jinabert::Task::Rerank, jinabert::Task::Encode];
    options.task = choose("task", given.task, &tasks)?;
    options.dtype = choose("dtype", given.dtype, &[jinabert::Dtype::F32, jinabert::Dtype::F16])?;
    let on_long = [jinabert::OnLong::Error, jinabert::OnLong::Truncate, jinabert::OnLong::Window];
    options.on_long = choose("on_long", given.on_long, &on_long)?;
    let poolings = [jinabert::Pooling::Auto, jinabert::Pooling::Mean, jinabert::Pooling::Cls];
    options.pooling = choose("pooling", given.pooling, &poolings)?;
    let tunes = [jinabert::Tune::Known, jinabert::Tune::Off, jinabert::Tune::Search];
    options.tune = choose("tune", given.tune, &tunes)?;
    options.fallback = choose("fallback", given.fallback, &[None, Some(true), Some(false)])?;
    if let Some(milliseconds) = nonzero(given.patience_ms) {
        options.device_timeout = Duration::from_millis(milliseconds as u64);
    }
    options.normalize = given.raw == 0;
    options.deterministic = given.deterministic != 0;
    if let Some(milliseconds) = nonzero(given.slice_ms) {
        options.max_submission_time = Duration::from_millis(milliseconds as u64);
    }
    Ok(options)
}

/// String of the caller; `None` if the pointer is null.
///
/// # Safety
/// `pointer` is null or points to a string that ends with NUL.
pub unsafe fn optional_string(
    field: &str,
    pointer: *const c_char,
) -> Result<Option<String>, CallError> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise is the same.
    let text = unsafe { raw::string(field, pointer) }?;
    Ok(Some(text.to_owned()))
}

/// Number of an option; `None` if it is 0.
fn nonzero(number: usize) -> Option<usize> {
    (number != 0).then_some(number)
}

/// Value for the number of an enum.
fn choose<T: Copy>(field: &str, number: u32, known: &[T]) -> Result<T, CallError> {
    known.get(number as usize).copied().ok_or_else(|| {
        let last = known.len() - 1;
        CallError::argument(format!("`options.{field}` is {number}: 0 to {last} are known"))
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
        prompt_name: ptr::null(),
        prompt: ptr::null(),
        adapter: ptr::null(),
        any_dimensions: 0,
    };

    fn of(options: &CallerOptions) -> Result<Options, CallError> {
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
            prompt_name: c"query".as_ptr(),
            adapter: c"separation".as_ptr(),
            any_dimensions: 1,
            ..ZEROS
        });
        let expected = Options {
            device: jinabert::Device::Cpu,
            max_length: Some(20),
            overlap: 0,
            dimensions: Some(3),
            batch_tokens: Some(99),
            task: jinabert::Task::Encode,
            dtype: jinabert::Dtype::F16,
            on_long: jinabert::OnLong::Window,
            pooling: jinabert::Pooling::Cls,
            tune: jinabert::Tune::Off,
            normalize: false,
            deterministic: true,
            fallback: Some(false),
            prompt: Prompt::Named("query".to_owned()),
            adapter: Some("separation".to_owned()),
            any_dimensions: true,
            device_timeout: Duration::from_millis(1500),
            max_submission_time: Duration::from_millis(4),
            ..Options::default()
        };
        assert_eq!(format!("{:?}", options.expect("good")), format!("{expected:?}"));
        let rerank = of(&CallerOptions { task: Task::Rerank as u32, ..ZEROS }).expect("good");
        assert_eq!((rerank.task, rerank.overlap), (jinabert::Task::Rerank, 256));
        let long = CallerOptions { on_long: OnLong::Truncate as u32, ..ZEROS };
        assert_eq!(of(&long).expect("good").on_long, jinabert::OnLong::Truncate);
        let fallback = CallerOptions { fallback: Fallback::Yes as u32, ..ZEROS };
        assert_eq!(of(&fallback).expect("good").fallback, Some(true));
        let none = CallerOptions { prompt: c"".as_ptr(), ..ZEROS };
        assert_eq!(of(&none).expect("good").prompt, Prompt::Text(String::new()));
        let tune = CallerOptions { tune: Tune::Search as u32, ..ZEROS };
        assert_eq!(of(&tune).expect("good").tune, jinabert::Tune::Search);
    }

    /// A program older than the prompts passes a smaller size.
    #[test]
    fn fields_that_a_program_does_not_know_are_the_defaults() {
        let size = offset_of!(CallerOptions, prompt_name);
        let beyond = c"query".as_ptr();
        let older = CallerOptions { size, dimensions: 7, prompt_name: beyond, ..ZEROS };
        let options = of(&older).expect("an older size");
        assert_eq!((options.dimensions, options.prompt), (Some(7), Prompt::Auto));
    }

    /// Fields of a newer header that an older library does not know.
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
        refused(
            CallerOptions { size: 0, ..ZEROS },
            "`options.size`: expected sizeof(jinabert_options)",
        );
        let first = offset_of!(CallerOptions, prompt_name);
        refused(CallerOptions { size: first - 1, ..ZEROS }, "`options.size`: expected");
        let prompt = c"query".as_ptr();
        let both = CallerOptions { prompt_name: prompt, prompt, ..ZEROS };
        refused(both, "`options.prompt_name` is `query`, and `options.prompt` is set");
        refused(CallerOptions { size: usize::MAX, ..ZEROS }, "`options.size`: expected");
        refused(CallerOptions { task: 3, ..ZEROS }, "`options.task` is 3: 0 to 2");
        refused(CallerOptions { tune: u32::MAX, ..ZEROS }, "`options.tune` is 4294967295: 0 to 2");
        refused(CallerOptions { fallback: 3, ..ZEROS }, "`options.fallback` is 3: 0 to 2");
        for device in [c"cuda", c"", c"-1"] {
            let says = format!("`options.device` is `{}`: expected auto", device.to_string_lossy());
            refused(CallerOptions { device: device.as_ptr(), ..ZEROS }, &says);
        }
    }
}
