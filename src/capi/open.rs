//! Models: open, ask, free.

use super::{
    CallerError, CallerOptions, EmbedderHandle, Failure, Status, guard, handle, options,
    raw::{self, Versioned, chars},
    status::guard_value,
};
use crate::{Embedder, Files};
use std::{
    ffi::{c_char, c_void},
    mem::size_of,
    path::PathBuf,
    ptr, slice,
};

/// Opens a model directory: config.json, model.safetensors or shards and their index,
/// tokenizer.json (without it, only token ids can be embedded).  The files must not change while
/// the model is open.
///
/// `path`: ends with NUL; UTF-8, on Unix any bytes.
/// `options`: NULL for the defaults.
/// `embedder`: becomes the handle, to be freed with `jinabert_free`; NULL if there is an error.
/// Threads: any, at the same time too.
/// Errors: READ and MODEL for the files, NO_GPU, DEVICE and MEMORY for the device, OPTION for
/// options that contradict the model, BAD_ARGUMENT for what no model could be opened with.
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
        let opened = Embedder::open_with(to_path(path)?, options)?;
        // SAFETY: as above.
        unsafe { raw::give("embedder", embedder, handle::insert(opened)?) }
    };
    // SAFETY: as above.
    unsafe { guard(error, call) }
}

#[cfg(unix)]
fn to_path(bytes: &[u8]) -> Result<PathBuf, Failure> {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    Ok(OsStr::from_bytes(bytes).into())
}

#[cfg(not(unix))]
fn to_path(bytes: &[u8]) -> Result<PathBuf, Failure> {
    let at = |error: std::str::Utf8Error| error.valid_up_to();
    let path = std::str::from_utf8(bytes).map_err(|error| {
        let what = format!("`path` is not UTF-8 from byte {} on", at(error));
        Failure::new(Status::BadUtf8, what).sizes(0, at(error))
    })?;
    Ok(path.into())
}

/// Says that the bytes of a `jinabert_file` are no longer needed.
///
/// Threads: called once for each file, by the thread that ends the last use of the model, or that
/// fails to open it.  It must not unwind or longjmp.
pub type Release = Option<unsafe extern "C" fn(user: *mut c_void)>;

/// A file of a model in memory.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct File {
    /// "config.json", "model.safetensors", "tokenizer.json", …; ends with NUL.
    pub name: *const c_char,
    /// What is in it.
    pub bytes: *const u8,
    /// How many bytes.
    pub length: usize,
    /// NULL: the bytes are copied before `jinabert_open_memory` returns.  Otherwise they are used
    /// where they are, must not change, and `release` is called when they are no longer needed: the
    /// weights are read again when a device was lost, so they are needed as long as the model is.
    /// It is called for every file of a call, also if that ends with an error.
    pub release: Release,
    /// Handed to `release`.
    pub user: *mut c_void,
}

/// Bytes of the caller's, until they are dropped.
struct Lent {
    bytes: *const u8,
    length: usize,
    _release: OnDrop,
}

/// Tells the caller.
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

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: checked when it was made; the caller promises that the bytes stay as they are
        // until `release`.
        unsafe { slice::from_raw_parts(self.bytes, self.length) }
    }
}

// SAFETY: the bytes are only read, and the header says that `release` may come from any thread.
unsafe impl Send for Lent {}
// SAFETY: as above.
unsafe impl Sync for Lent {}

/// As `jinabert_open`, for files that the caller has in memory.
///
/// `files`: `count` of them; as many names as a directory would have.
/// Memory: `files` and names are not looked at after the call; for the bytes see `jinabert_file`.
/// Threads: any, at the same time too.
/// Errors: as `jinabert_open`; `index` is the file where one is null or is no UTF-8.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jinabert_open_memory(
    files: *const File,
    count: usize,
    options: *const CallerOptions,
    embedder: *mut *mut EmbedderHandle,
    error: *mut CallerError,
) -> Status {
    let call = || {
        // Whatever is wrong with the rest, the files are released.
        // SAFETY: what the header asks of a caller.
        let lent = unsafe { lend(files, count) };
        // SAFETY: as above.
        let options = unsafe {
            raw::give("embedder", embedder, ptr::null_mut())?;
            options::read(options)
        };
        let opened = Embedder::open_with(lent??, options?)?;
        // SAFETY: as above.
        unsafe { raw::give("embedder", embedder, handle::insert(opened)?) }
    };
    // SAFETY: as above.
    unsafe { guard(error, call) }
}

/// The files of the caller; whatever is wrong with one, all are released.
///
/// # Safety
/// `files` is null or leads to `count` files, each with a name and bytes as it says.
unsafe fn lend(files: *const File, count: usize) -> Result<Result<Files, Failure>, Failure> {
    // SAFETY: the caller's promise is the same.
    let files = unsafe { raw::elements("files", files, count) }?;
    let release = |file: &File| file.release.map(|release| OnDrop { release, user: file.user });
    let releases: Vec<_> = files.iter().map(release).collect();
    let mut all = Files::memory();
    for (index, (file, release)) in files.iter().zip(releases).enumerate() {
        let of = |field: &str| format!("files[{index}].{field}");
        // SAFETY: the caller's promise is the same.
        let read = unsafe {
            let name = raw::string(&of("name"), file.name);
            name.and_then(|name| Ok((name, raw::elements(&of("bytes"), file.bytes, file.length)?)))
        };
        let (name, bytes) = match read {
            Ok(read) => read,
            Err(failure) => return Ok(Err(failure.at(index))),
        };
        all = match release {
            None => all.with(name, bytes.to_vec()),
            Some(release) => {
                let (bytes, length) = (bytes.as_ptr(), bytes.len());
                all.with(name, Lent { bytes, length, _release: release })
            }
        };
    }
    Ok(Ok(all))
}

/// Frees a model.  Calls that are under way in other threads end as if nothing had happened, and
/// the last of them gives its memory back.
///
/// `embedder`: no longer a handle; NULL does nothing.
/// Threads: any, at the same time as other calls with the handle too.
/// Errors: BAD_HANDLE if it was freed before or is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jinabert_free(embedder: *mut EmbedderHandle) -> Status {
    let call = || match embedder.is_null() {
        true => Ok(()),
        false => handle::remove(embedder).map(drop),
    };
    // SAFETY: there is no error to write.
    unsafe { guard(ptr::null_mut(), call) }
}

/// How many models are open in this process.
///
/// Threads: any, at any time.
#[unsafe(no_mangle)]
pub extern "C" fn jinabert_open_handles() -> usize {
    guard_value(0, handle::open)
}

/// What a model is.  `size` is set by the caller, the rest by `jinabert_describe`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Description {
    /// sizeof(jinabert_description)
    pub size: usize,
    /// Components of a vector: an output for `count` texts has `count * dimensions` floats.
    pub dimensions: usize,
    /// Longest text in tokens, special ones included.
    pub max_length: usize,
    /// Tokens of a batch, unless a single text has more.
    pub batch_tokens: usize,
    /// Bytes that the device holds for it now.
    pub allocated_bytes: u64,
    /// Not 0: there is a tokenizer, so that texts can be embedded, not only ids.
    pub reads_texts: u32,
    /// Not 0: it runs on the CPU.
    pub on_cpu: u32,
    /// What it runs on, for people; ends with NUL.
    pub device: [c_char; 256],
}

// SAFETY: repr(C), begins with `size`; integers only.
unsafe impl Versioned for Description {
    const NAME: &'static str = "description";
    const FIRST: usize = size_of::<Self>(); // a field that is added later does not count
}

/// Says what a model is.
///
/// `description`: its `size` must be set.
/// Threads: any, at the same time too; may wait until a batch under way is
/// done, on the CPU, or handed over.
/// Errors: BAD_HANDLE, BAD_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jinabert_describe(
    embedder: *const EmbedderHandle,
    description: *mut Description,
    error: *mut CallerError,
) -> Status {
    let call = || {
        let embedder = handle::get(embedder)?;
        let told = Description {
            size: size_of::<Description>(),
            dimensions: embedder.dim(),
            max_length: embedder.max_length(),
            batch_tokens: embedder.batch_tokens(),
            allocated_bytes: embedder.allocated_bytes(),
            reads_texts: embedder.reads_texts().into(),
            on_cpu: (embedder.kind() == "cpu").into(),
            device: chars(&embedder.device()),
        };
        // SAFETY: what the header asks of a caller.
        unsafe { raw::give_versioned(description, told) }
    };
    // SAFETY: as above.
    unsafe { guard(error, call) }
}
