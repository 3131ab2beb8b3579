//! How calls end: a status, and an error that says more.

use super::raw;
use crate::Error;
use std::{
    any::Any,
    ffi::{CStr, c_char},
    panic::{AssertUnwindSafe, catch_unwind},
    ptr,
};

/// How a call ended.  Numbers keep their meaning; later versions may add some.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It did what was asked.
    Ok = 0,
    /// An argument cannot be right: a null pointer where there must be something, a pointer out of
    /// alignment, sizes that pass the address space, offsets that run backwards, a struct whose
    /// `size` is not set, a number that no enum has.
    BadArgument = 1,
    /// The handle is null, was freed, or never came from this library.
    BadHandle = 2,
    /// An output array is too small.  Nothing was written; `needed` and `given` count elements.
    Capacity = 3,
    /// A text, path or name is not UTF-8.  `index` is the text, `given` the byte at fault.
    BadUtf8 = 4,
    /// Options contradict the model or each other.
    Option = 5,
    /// An input cannot be embedded: ids outside the vocabulary, no tokens, spans that do not suit.
    Input = 6,
    /// A text has more tokens than the limit, and is not to be truncated.  `needed` is its length
    /// in tokens, `given` the limit.
    TooLong = 7,
    /// A model file is missing or unreadable.
    Read = 8,
    /// Model files are damaged, contradict each other, or are not what is asked for.
    Model = 9,
    /// There is no such device, or it lacks something.
    NoGpu = 10,
    /// The device failed or was lost, and trying again did not help.
    Device = 11,
    /// The device has no room, not even for one text at a time.
    Memory = 12,
    /// What the device computed is not a number.
    NotFinite = 13,
    /// The progress callback ended the call.  `given` texts of `needed` were done.
    Cancelled = 14,
    /// A fault of the library: it panicked, and the panic was caught.  Handles stay usable.
    Internal = 15,
}

impl Status {
    const ALL: [(Self, &CStr); 16] = [
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
    ];

    /// What the library's error is in C.
    fn of(error: &Error) -> Self {
        match error {
            Error::Option(_) => Self::Option,
            Error::Input { .. } => Self::Input,
            Error::TooLong { .. } => Self::TooLong,
            // The hub's errors come to no caller in C, who names models by their files.
            Error::Read { .. } | Error::Hub(_) | Error::Network(_) | Error::Cache { .. } => {
                Self::Read
            }
            Error::Model(_) => Self::Model,
            Error::NoGpu { .. } => Self::NoGpu,
            Error::Gpu(_) => Self::Device,
            Error::Memory(_) => Self::Memory,
            Error::NotFinite(_) => Self::NotFinite,
            Error::Cancelled { .. } => Self::Cancelled,
        }
    }
}

/// Bytes of `jinabert_error.message`, the NUL at its end included.
pub const MESSAGE_BYTES: usize = 512;

/// What went wrong, in the caller's memory.  It need not be initialised: every function that takes
/// one writes all of it, on success too.  Where a function takes one it may be NULL.
///
/// Threads: an error belongs to the call that it is given to, so nothing is kept in the thread: it
/// does not matter where calls run or whether a scheduler moves them between threads.
#[repr(C)]
pub struct CallerError {
    /// What the function returned.
    pub status: Status,
    /// The text, list, file or span at fault, from 0; `JINABERT_NONE` if it is none of them.
    pub index: usize,
    /// How much would be needed, where `status` says so; otherwise 0.
    pub needed: usize,
    /// How much there is, where `status` says so; otherwise 0.
    pub given: usize,
    /// For people: UTF-8 that names the thing, the limit and the value; ends with NUL; empty on
    /// success.  A longer one is cut between two characters.
    pub message: [c_char; MESSAGE_BYTES],
}

/// Why a call ends without what was asked.
#[derive(Debug)]
pub struct Failure {
    status: Status,
    index: usize,
    needed: usize,
    given: usize,
    message: String,
}

impl Failure {
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
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
        let said = said.unwrap_or("something without words");
        Self::new(Status::Internal, format!("a fault of the library: {said}"))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let failure = Self::new(Status::of(&error), error.to_string());
        match error {
            Error::Input { index, .. } => failure.at(index),
            Error::TooLong { index, tokens, limit } => failure.at(index).sizes(tokens, limit),
            Error::Cancelled { done, total } => failure.sizes(total, done),
            _ => failure,
        }
    }
}

/// Every entry point runs in here: what it does, then what the caller hears of it.  A panic is a
/// status like another, for one that leaves Rust would end the process.
///
/// # Safety
/// `error` is null or leads to room for a [`CallerError`].
pub unsafe fn guard(error: *mut CallerError, call: impl FnOnce() -> Result<(), Failure>) -> Status {
    let failure = match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(())) => Failure::new(Status::Ok, ""),
        Ok(Err(failure)) => failure,
        Err(panic) => Failure::panic(&*panic),
    };
    let Failure { status, index, needed, given, message } = failure;
    if !error.is_null() {
        let message = raw::chars(&message);
        let told = CallerError { status, index, needed, given, message };
        // SAFETY: it is not null, so the caller promises the room; it may lie anywhere.
        unsafe { ptr::write_unaligned(error, told) };
    }
    status
}

/// The same for what has no error to tell: a value, or another if there was a panic.
pub fn guard_value<T>(otherwise: T, call: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or(otherwise)
}

const UNKNOWN: &CStr = c"unknown";

/// The name of a status, such as "JINABERT_STATUS_OK"; "unknown" for a number that is none.
///
/// Memory: the string is the library's and lasts as long as the process.
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

    fn guarded(call: impl FnOnce() -> Result<(), Failure>) -> CallerError {
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
    fn long_messages_are_cut_between_characters() {
        for ahead in 0..4 {
            let long = format!("{}{}", "x".repeat(ahead), "\u{1f408}".repeat(MESSAGE_BYTES));
            let error = guarded(|| Err(Failure::argument(long.clone())));
            let told = message(&error);
            assert!(long.starts_with(&told) && told.len() + 4 >= MESSAGE_BYTES, "{told}");
        }
        let error = guarded(|| Err(Failure::argument("before\0after")));
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
