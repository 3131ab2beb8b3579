//! Models: open, describe, free.

use super::{
    CallError, CallerError, CallerOptions, EmbedderHandle, Status, guard, handle, options,
    raw::{self, Versioned, chars},
    status::{forked, guard_anywhere, guard_value, not_forked},
};
use jinabert::{Embedder, Files};
use std::{
    ffi::{c_char, c_void},
    mem::size_of,
    path::PathBuf,
    ptr, slice,
};

/// Opens a model directory with config.json, model.safetensors (or shards and their index) and
/// tokenizer.json (without it, only token ids can be embedded).  The files must not change while
/// the model is open.
///
/// `path`: ends with NUL; UTF-8, on Unix any bytes.
/// `options`: NULL for the defaults.
/// `embedder`: receives the handle, to be freed with `jinabert_free`; NULL on error.
/// Threads: any, concurrently too.
/// Errors: READ and MODEL for the files, NO_GPU, DEVICE and MEMORY for the device, OPTION for
/// options that contradict the model, BAD_ARGUMENT for invalid arguments.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jinabert_open(
    path: *const c_char,
    options: *const CallerOptions,
    embedder: *mut *mut EmbedderHandle,
    error: *mut CallerError,
) -> Status {
    let call = || {
        // SAFETY: what the header asks of a caller.
        let (path, options) = unsafe {
            raw::give("embedder", embedder, ptr::null_mut())?;
            (raw::bytes("path", path)?, options::read(options)?)
        };
        if path.is_empty() {
            return Err(CallError::argument("`path` is empty: expected the directory of a model"));
        }
        let opened = Embedder::open_with(to_path(path)?, options)?;
        // SAFETY: as above.
        unsafe { raw::give("embedder", embedder, handle::insert(opened)?) }
    };
    // SAFETY: as above.
    unsafe { guard(error, call) }
}

#[cfg(unix)]
fn to_path(bytes: &[u8]) -> Result<PathBuf, CallError> {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    Ok(OsStr::from_bytes(bytes).into())
}

#[cfg(not(unix))]
fn to_path(bytes: &[u8]) -> Result<PathBuf, CallError> {
    let path = std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        CallError::new(Status::BadUtf8, format!("`path` is not UTF-8 from byte {at} on"))
            .sizes(0, at)
    })?;
    Ok(path.into())
}

/// Callback that releases the bytes of a `jinabert_file`.
///
/// Threads: called once per file, by the thread that ends the last use of the model or fails to
/// open it.  It must not unwind or longjmp.
pub type Release = Option<unsafe extern "C" fn(user: *mut c_void)>;

/// Model file in memory.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct File {
    /// File name: "config.json", "model.safetensors", "tokenizer.json", …; ends with NUL.
    pub name: *const c_char,
    /// Content.
    pub bytes: *const u8,
    /// Number of bytes.
    pub length: usize,
    /// NULL: the bytes are copied before `jinabert_open_memory` returns.  Otherwise they are used
    /// in place and must not change until `release` is called: the model needs them while it is
    /// open, since the weights are read again after a device loss.  `release` is called for every
    /// file, also if the call fails.
    pub release: Release,
    /// Argument of `release`.
    pub user: *mut c_void,
}

/// Bytes borrowed from the caller; `release` is called when this is dropped.
struct BorrowedBytes {
    bytes: *const u8,
    length: usize,
    _release: OnDrop,
}

/// Calls `release` when dropped.
struct OnDrop {
    release: unsafe extern "C" fn(user: *mut c_void),
    user: *mut c_void,
}

impl Drop for OnDrop {
    fn drop(&mut self) {
        // SAFETY: the caller gave both for this.
        unsafe { (self.release)(self.user) }
    }
}

impl AsRef<[u8]> for BorrowedBytes {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: checked when it was made; the caller promises that the bytes stay as they are
        // until `release`.
        unsafe { slice::from_raw_parts(self.bytes, self.length) }
    }
}

// SAFETY: the bytes are only read, and the header says that `release` may come from any thread.
unsafe impl Send for BorrowedBytes {}
// SAFETY: as above.
unsafe impl Sync for BorrowedBytes {}

/// Opens a model from files in memory, otherwise like `jinabert_open`.
///
/// `files`: `count` files, with the names that they have in a model directory.
/// Memory: `files` and names are not used after the call; for the bytes see `jinabert_file`.
/// Threads: any, concurrently too.
/// Errors: as `jinabert_open`; `index` is the file with a null pointer or a name not in UTF-8.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jinabert_open_memory(
    files: *const File,
    count: usize,
    options: *const CallerOptions,
    embedder: *mut *mut EmbedderHandle,
    error: *mut CallerError,
) -> Status {
    let call = || {
        // The files are released on any error, also in a fork.
        // SAFETY: what the header asks of a caller.
        let borrowed = unsafe { borrow(files, count) };
        not_forked()?;
        // SAFETY: as above.
        let options = unsafe {
            raw::give("embedder", embedder, ptr::null_mut())?;
            options::read(options)
        };
        let opened = Embedder::open_with(borrowed??, options?)?;
        // SAFETY: as above.
        unsafe { raw::give("embedder", embedder, handle::insert(opened)?) }
    };
    // SAFETY: as above.
    unsafe { guard_anywhere(error, call) }
}

/// Files of the caller; if one is invalid, all are released.
///
/// # Safety
/// `files` is null or points to `count` files with valid names and bytes.
unsafe fn borrow(files: *const File, count: usize) -> Result<Result<Files, CallError>, CallError> {
    // SAFETY: the caller's promise is the same.
    let files = unsafe { raw::elements("files", files, count) }?;
    let release = |file: &File| file.release.map(|release| OnDrop { release, user: file.user });
    let releases: Vec<_> = files.iter().map(release).collect();
    let mut all = Files::memory();
    for (index, (file, release)) in files.iter().zip(releases).enumerate() {
        let name_of = |field: &str| format!("files[{index}].{field}");
        // SAFETY: the caller's promise is the same.
        let read = unsafe {
            let name = raw::string(&name_of("name"), file.name);
            name.and_then(|name| {
                Ok((name, raw::elements(&name_of("bytes"), file.bytes, file.length)?))
            })
        };
        let (name, bytes) = match read {
            Ok(read) => read,
            Err(failure) => return Ok(Err(failure.at(index))),
        };
        all = match release {
            None => all.with(name, bytes.to_vec()),
            Some(release) => {
                let length = bytes.len();
                let borrowed = BorrowedBytes { bytes: bytes.as_ptr(), length, _release: release };
                all.with(name, borrowed)
            }
        };
    }
    Ok(Ok(all))
}

/// Frees a model.  Calls in progress in other threads complete normally; the last of them frees the
/// memory.
///
/// `embedder`: invalid after the call; NULL does nothing.
/// Threads: any, also during other calls with the same handle.
/// Errors: BAD_HANDLE if the handle was freed before or is invalid; FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jinabert_free(embedder: *mut EmbedderHandle) -> Status {
    if embedder.is_null() {
        return Status::Ok;
    }
    let call = || handle::remove(embedder).map(drop);
    // SAFETY: there is no error to write.
    unsafe { guard(ptr::null_mut(), call) }
}

/// Returns the number of open models in this process; 0 in a fork.
///
/// Threads: any, at any time.
#[unsafe(no_mangle)]
pub extern "C" fn jinabert_open_handles() -> usize {
    guard_value(0, || if forked().is_some() { 0 } else { handle::open() })
}

/// Properties of a model.  The caller sets `size`, `jinabert_describe` the rest.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Description {
    /// sizeof(jinabert_description)
    pub size: usize,
    /// Components of a vector: the output for `count` texts has `count * dimensions` floats.
    pub dimensions: usize,
    /// Maximum text length in tokens, special tokens included.
    pub max_length: usize,
    /// Maximum tokens per batch, unless a single text has more.
    pub batch_tokens: usize,
    /// Bytes currently allocated on the device.
    pub allocated_bytes: u64,
    /// Not 0: the model has a tokenizer and can embed texts, not only token ids.
    pub reads_texts: u32,
    /// Not 0: the model runs on the CPU.
    pub on_cpu: u32,
    /// Human-readable name of the device; ends with NUL.
    pub device: [c_char; 256],
}

// SAFETY: repr(C), begins with `size`; integers only.
unsafe impl Versioned for Description {
    const NAME: &'static str = "description";
    const FIRST: usize = size_of::<Self>(); // a field that is added later does not count
}

/// Returns the properties of a model.
///
/// `description`: its `size` must be set.
/// Threads: any, concurrently too; may wait until the current batch is computed, on the CPU, or
/// submitted, on a GPU.
/// Errors: BAD_HANDLE, BAD_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jinabert_describe(
    embedder: *const EmbedderHandle,
    description: *mut Description,
    error: *mut CallerError,
) -> Status {
    let call = || {
        let embedder = handle::get(embedder)?;
        let described = Description {
            size: size_of::<Description>(),
            dimensions: embedder.dim(),
            max_length: embedder.max_length(),
            batch_tokens: embedder.runtime().batch_tokens(),
            allocated_bytes: embedder.runtime().allocated_bytes(),
            reads_texts: embedder.tokenization().reads_texts().into(),
            on_cpu: (embedder.runtime().kind() == "cpu").into(),
            device: chars(&embedder.device()),
        };
        // SAFETY: what the header asks of a caller.
        unsafe { raw::give_versioned(description, described) }
    };
    // SAFETY: as above.
    unsafe { guard(error, call) }
}
