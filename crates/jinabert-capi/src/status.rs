//! Results of calls: a status, and an error with details.

use super::raw;
use jinabert::Error;
use std::{
    any::Any,
    ffi::{CStr, c_char},
    panic::{AssertUnwindSafe, catch_unwind},
    process, ptr,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

/// Result of a call.  Values never change; later versions may add some.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Success.
    Ok = 0,
    /// An argument is invalid: a required pointer is null, a pointer is misaligned, sizes exceed
    /// the address space, offsets decrease, a struct's `size` is not set, an enum value is unknown.
    BadArgument = 1,
    /// The handle is null, was freed, or was not created by this library.
    BadHandle = 2,
    /// An output array is too small; nothing was written.  `needed` and `given` are in elements.
    Capacity = 3,
    /// A text, path or name is not UTF-8.  `index` is the text, `given` the offset of the error.
    BadUtf8 = 4,
    /// Options contradict the model or each other.
    Option = 5,
    /// An input cannot be embedded: ids outside the vocabulary, no tokens, invalid spans.
    Input = 6,
    /// A text has more tokens than the limit, and truncation is off.  `needed` is its length in
    /// tokens, `given` the limit.
    TooLong = 7,
    /// A model file is missing or unreadable.
    Read = 8,
    /// Model files are damaged, contradict each other, or do not fit the task.
    Model = 9,
    /// There is no such device, or it lacks a required feature.
    NoGpu = 10,
    /// The device failed or was lost, and retries failed too.
    Device = 11,
    /// The device is out of memory, even for a single text.
    Memory = 12,
    /// The device returned NaN or infinity.
    NotFinite = 13,
    /// The progress callback cancelled the call after `given` of `needed` texts.
    Cancelled = 14,
    /// A bug in the library: a panic, which was caught.  Handles stay usable.
    Internal = 15,
    /// This process is a fork of one that had used the library: threads, devices and models do not
    /// survive a fork.  Start processes with exec, or use the library only after the fork.
    Forked = 16,
}

impl Status {
    const ALL: [(Self, &CStr); 17] = [
        (Self::Ok, c"JINABERT_STATUS_OK"),
        (Self::BadArgument, c"JINABERT_STATUS_BAD_ARGUMENT"),
        (Self::BadHandle, c"JINABERT_STATUS_BAD_HANDLE"),
        (Self::Capacity, c"JINABERT_STATUS_CAPACITY"),
        (Self::BadUtf8, c"JINABERT_STATUS_BAD_UTF8"),
        (Self::Option, c"JINABERT_STATUS_OPTION"),
        (Self::Input, c"JINABERT_STATUS_INPUT"),
        (Self::TooLong, c"JINABERT_STATUS_TOO_LONG"),
        (Self::Read, c"JINABERT_STATUS_READ"),
        (Self::Model, c"JINABERT_STATUS_MODEL"),
        (Self::NoGpu, c"JINABERT_STATUS_NO_GPU"),
        (Self::Device, c"JINABERT_STATUS_DEVICE"),
        (Self::Memory, c"JINABERT_STATUS_MEMORY"),
        (Self::NotFinite, c"JINABERT_STATUS_NOT_FINITE"),
        (Self::Cancelled, c"JINABERT_STATUS_CANCELLED"),
        (Self::Internal, c"JINABERT_STATUS_INTERNAL"),
        (Self::Forked, c"JINABERT_STATUS_FORKED"),
    ];

    /// Status for an error of the library.
    fn of(error: &Error) -> Self {
        match error {
            Error::Option(_) => Self::Option,
            Error::Input { .. } | Error::Query { .. } => Self::Input,
            Error::TooLong { .. } | Error::QueryTooLong { .. } => Self::TooLong,
            // Errors of the hub do not occur in C, where models are named by their files.
            Error::Read { .. } | Error::Hub(_) | Error::Network(_) | Error::Cache { .. } => {
                Self::Read
            }
            Error::Model(_) => Self::Model,
            Error::NoGpu { .. } => Self::NoGpu,
            Error::Gpu(_) | Error::Compile { .. } => Self::Device,
            Error::Memory(_) => Self::Memory,
            Error::NotFinite(_) => Self::NotFinite,
            Error::Cancelled { .. } => Self::Cancelled,
            _ => Self::Internal,
        }
    }
}

/// Size of `jinabert_error.message` in bytes, including the terminating NUL.
pub const MESSAGE_BYTES: usize = 512;

/// Details of an error, in memory of the caller.  It need not be initialised: a function that takes
/// one writes all fields, also on success.  It may be NULL.
///
/// Threads: an error belongs to a call, not to a thread: calls may run on any thread, and
/// schedulers may move them between threads.
#[repr(C)]
pub struct CallerError {
    /// The returned status.
    pub status: Status,
    /// Index of the text, list, file or span that caused the error, or `JINABERT_NONE`.
    pub index: usize,
    /// Required amount, as documented for `status`; otherwise 0.
    pub needed: usize,
    /// Available amount, as documented for `status`; otherwise 0.
    pub given: usize,
    /// Human-readable message in UTF-8, with limit and value; ends with NUL; empty on success.  A
    /// message that is too long is truncated between two characters.
    pub message: [c_char; MESSAGE_BYTES],
}

/// Error of a call.
#[derive(Debug)]
pub struct CallError {
    status: Status,
    index: usize,
    needed: usize,
    given: usize,
    message: String,
}

impl CallError {
    pub fn new(status: Status, message: impl Into<String>) -> Self {
        Self { status, index: usize::MAX, needed: 0, given: 0, message: message.into() }
    }

    pub fn argument(message: impl Into<String>) -> Self {
        Self::new(Status::BadArgument, message)
    }

    pub fn status(&self) -> Status {
        self.status
    }

    pub fn at(self, index: usize) -> Self {
        Self { index, ..self }
    }

    pub fn sizes(self, needed: usize, given: usize) -> Self {
        Self { needed, given, ..self }
    }

    fn panic(panic: &(dyn Any + Send)) -> Self {
        let message = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("something without words");
        Self::new(Status::Internal, format!("a fault of the library: {message}"))
    }
}

/// Beginnings of the library's messages about options, with the field names of C.
const FIELDS: [(&str, &str); 4] = [
    ("`dimensions` ", "`options.dimensions` "),
    ("max length ", "`options.max_length` "),
    ("overlap ", "`options.overlap` "),
    ("a batch of ", "`options.batch_tokens`: a batch of "),
];

/// Replaces option names in a message by those of C.
fn in_c(message: String) -> String {
    let known = FIELDS.iter().find_map(|(name, field)| Some((message.strip_prefix(name)?, field)));
    match known {
        Some((rest, field)) => format!("{field}{rest}"),
        None => message
            .replace("`Task::Rerank`", "`options.task` JINABERT_TASK_RERANK")
            .replace("`Task::Embed`", "`options.task` JINABERT_TASK_EMBED"),
    }
}

impl From<Error> for CallError {
    fn from(error: Error) -> Self {
        let message = match &error {
            Error::Option(what) => in_c(what.clone()),
            error => error.to_string(),
        };
        let failure = Self::new(Status::of(&error), message);
        match error {
            Error::Input { index, .. } => failure.at(index),
            Error::TooLong { index, tokens, limit } => failure.at(index).sizes(tokens, limit),
            Error::QueryTooLong { tokens, limit } => failure.sizes(tokens, limit),
            Error::Cancelled { done, total } => failure.sizes(total, done),
            _ => failure,
        }
    }
}

/// Id of the process that used the library first; 0 before.
static PROCESS: AtomicU32 = AtomicU32::new(0);

/// Id of the process that used the library first, if this one is a fork of it.
pub fn forked() -> Option<u32> {
    let first = PROCESS.load(Relaxed);
    (first != 0 && first != process::id()).then_some(first)
}

/// Refuses calls in a fork, which would wait forever for threads and locks that it does not have.
pub fn not_forked() -> Result<(), CallError> {
    // Two threads of one process write the same.
    if PROCESS.load(Relaxed) == 0 {
        PROCESS.store(process::id(), Relaxed);
    }
    let Some(first) = forked() else { return Ok(()) };
    let message = format!(
        "process {} is a fork of process {first}, which had used the library already; its threads, \
         devices and models are not in the fork: start processes with exec, or use the library only \
         after the fork",
        process::id()
    );
    Err(CallError::new(Status::Forked, message))
}

/// Runs an entry point and writes its error for the caller.  A panic becomes a status, since one
/// that leaves Rust would end the process.  Calls in a fork of a process that used the library are
/// refused.
///
/// # Safety
/// `error` is null or points to memory for a [`CallerError`].
pub unsafe fn guard(
    error: *mut CallerError,
    call: impl FnOnce() -> Result<(), CallError>,
) -> Status {
    // SAFETY: the caller's promise is the same.
    unsafe { guard_anywhere(error, || not_forked().and_then(|()| call())) }
}

/// As [`guard`], for calls that must do something even in a fork before they are refused.
///
/// # Safety
/// As [`guard`].
pub unsafe fn guard_anywhere(
    error: *mut CallerError,
    call: impl FnOnce() -> Result<(), CallError>,
) -> Status {
    let failure = match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(())) => CallError::new(Status::Ok, ""),
        Ok(Err(failure)) => failure,
        Err(panic) => CallError::panic(&*panic),
    };
    let CallError { status, index, needed, given, message } = failure;
    if !error.is_null() {
        let details = CallerError { status, index, needed, given, message: raw::chars(&message) };
        // SAFETY: it is not null, so the caller promises the room; it may lie anywhere.
        unsafe { ptr::write_unaligned(error, details) };
    }
    status
}

/// As [`guard`], for functions without an error: the value, or `otherwise` after a panic.
pub fn guard_value<T>(otherwise: T, call: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or(otherwise)
}

const UNKNOWN: &CStr = c"unknown";

/// Returns the name of a status, such as "JINABERT_STATUS_OK"; "unknown" for an unknown value.
///
/// Memory: the string is static; do not free it.
/// Threads: any, at any time.
#[unsafe(no_mangle)]
pub extern "C" fn jinabert_status_name(status: i32) -> *const c_char {
    let call = || {
        let known = Status::ALL.iter().find(|(known, _)| *known as i32 == status);
        known.map_or(UNKNOWN, |(_, name)| name).as_ptr()
    };
    guard_value(UNKNOWN.as_ptr(), call)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::MaybeUninit;

    fn guarded(call: impl FnOnce() -> Result<(), CallError>) -> CallerError {
        let mut error = MaybeUninit::uninit();
        // SAFETY: there is room, and `guard` fills it.
        unsafe {
            let status = guard(error.as_mut_ptr(), call);
            let error = error.assume_init();
            assert_eq!(status, error.status);
            error
        }
    }

    fn message(error: &CallerError) -> String {
        let bytes: Vec<u8> = error.message.iter().map(|&c| c as u8).collect();
        let text = CStr::from_bytes_until_nul(&bytes).expect("a NUL");
        text.to_str().expect("UTF-8").to_owned()
    }

    #[test]
    fn a_panic_is_a_status() {
        let error = guarded(|| panic!("row {}", 7));
        assert_eq!(error.status, Status::Internal);
        assert_eq!(message(&error), "a fault of the library: row 7");
        let error = guarded(|| panic!("as it is"));
        assert_eq!(message(&error), "a fault of the library: as it is");
        // SAFETY: null is allowed.
        let status = unsafe { guard(ptr::null_mut(), || panic!("to nobody")) };
        assert_eq!(status, Status::Internal);
        assert_eq!((guard_value(1, || 2), guard_value(1, || panic!("no value"))), (2, 1));
    }

    #[test]
    fn errors_say_where_and_how_much() {
        let error = guarded(|| Err(Error::TooLong { index: 3, tokens: 99, limit: 20 }.into()));
        assert_eq!((error.status, error.index), (Status::TooLong, 3));
        assert_eq!((error.needed, error.given), (99, 20));
        assert_eq!(message(&error), "input 3: 99 tokens, over the limit of 20");
        let fine = guarded(|| Ok(()));
        assert_eq!((fine.status, fine.index), (Status::Ok, usize::MAX));
        assert_eq!(message(&fine), "");
    }

    #[test]
    fn options_have_the_names_of_c() {
        let of = |what: &str| message(&guarded(|| Err(Error::Option(what.to_owned()).into())));
        for (what, says) in [
            ("`dimensions` 9: the model has 1 to 8", "`options.dimensions` 9: the model"),
            ("max length 2 leaves no room", "`options.max_length` 2 leaves no room"),
            ("overlap 9 leaves no room", "`options.overlap` 9 leaves no room"),
            ("open it with `Task::Rerank`", "open it with `options.task` JINABERT_TASK_RERANK"),
        ] {
            assert!(of(what).starts_with(says), "{}", of(what));
        }
        assert_eq!(of("this model has no tokenizer.json"), "this model has no tokenizer.json");
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        for ahead in 0..4 {
            let long = format!("{}{}", "x".repeat(ahead), "\u{1f408}".repeat(MESSAGE_BYTES));
            let error = guarded(|| Err(CallError::argument(long.clone())));
            let cut = message(&error);
            assert!(long.starts_with(&cut) && cut.len() + 4 >= MESSAGE_BYTES, "{cut}");
        }
        let error = guarded(|| Err(CallError::argument("before\0after")));
        assert_eq!(message(&error), "before\u{fffd}after");
    }

    #[test]
    fn every_status_has_its_name() {
        let name = |status| {
            // SAFETY: a string of the library.
            unsafe { CStr::from_ptr(jinabert_status_name(status)) }.to_str().expect("UTF-8")
        };
        for (number, (status, expected)) in (0..).zip(Status::ALL) {
            assert_eq!(status as i32, number);
            assert_eq!(name(number), expected.to_str().expect("UTF-8"));
        }
        assert_eq!(name(-1), "unknown");
        assert_eq!(name(Status::ALL.len() as i32), "unknown");
    }
}
