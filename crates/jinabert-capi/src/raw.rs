//! Checks of pointers and sizes that come from C.

use super::{CallError, Status};
use std::{
    ffi::{CStr, c_char},
    fmt::Display,
    marker::PhantomData,
    mem::{MaybeUninit, size_of},
    ptr, slice, str,
};

/// Slice of `count` elements in memory of the caller.
///
/// # Safety
/// `pointer` is null or points to `count` elements that are not modified during `'a`.
pub unsafe fn elements<'a, T>(
    name: &str,
    pointer: *const T,
    count: usize,
) -> Result<&'a [T], CallError> {
    if count == 0 {
        return Ok(&[]);
    }
    check(name, pointer, count)?;
    // SAFETY: the pointer is neither null nor misaligned, the size is valid, and the number of
    // elements is the caller's promise.
    Ok(unsafe { slice::from_raw_parts(pointer, count) })
}

/// Checks for null, alignment, and sizes that exceed the address space.
fn check<T>(name: &str, pointer: *const T, count: usize) -> Result<(), CallError> {
    let bad = |what: String| Err(CallError::argument(format!("`{name}` {what}")));
    if pointer.is_null() {
        return bad(format!("is null, with {count} elements"));
    }
    if !pointer.is_aligned() {
        return bad(format!("is not a multiple of {} bytes", align_of::<T>()));
    }
    if count.checked_mul(size_of::<T>()).is_none_or(|bytes| bytes > isize::MAX as usize) {
        return bad(format!("has {count} elements: more than there are addresses"));
    }
    Ok(())
}

/// String of any bytes that ends with NUL.
///
/// # Safety
/// `pointer` is null or points to a NUL-terminated string that is not modified during `'a`.
pub unsafe fn bytes<'a>(name: &str, pointer: *const c_char) -> Result<&'a [u8], CallError> {
    if pointer.is_null() {
        return Err(CallError::argument(format!("`{name}` is null")));
    }
    // SAFETY: it is not null, and that it ends is the caller's promise.
    Ok(unsafe { CStr::from_ptr(pointer) }.to_bytes())
}

/// UTF-8 string that ends with NUL.
///
/// # Safety
/// As [`bytes`].
pub unsafe fn string<'a>(name: &str, pointer: *const c_char) -> Result<&'a str, CallError> {
    // SAFETY: the caller's promise is the same.
    utf8(name, unsafe { bytes(name, pointer) }?)
}

/// Text of `length` bytes, or up to its NUL if that is [`usize::MAX`].
///
/// # Safety
/// As [`bytes`], or `pointer` points to `length` bytes that are not modified during `'a`.
pub unsafe fn text<'a>(
    name: &str,
    pointer: *const c_char,
    length: usize,
) -> Result<&'a str, CallError> {
    // SAFETY: the caller's promise is the same.
    let bytes = unsafe {
        match length {
            usize::MAX => bytes(name, pointer)?,
            _ => elements(name, pointer.cast::<u8>(), length)?,
        }
    };
    utf8(name, bytes)
}

/// Texts, each of its length or, if there are no lengths, up to its NUL.
///
/// # Safety
/// `texts` is null or points to `count` pointers, each valid for [`text`]; `lengths` is null or
/// points to `count` lengths; none of this is modified during `'a`.
pub unsafe fn texts<'a>(
    name: &str,
    texts: *const *const c_char,
    lengths: *const usize,
    count: usize,
) -> Result<Vec<&'a str>, CallError> {
    // SAFETY: the caller's promise.
    let pointers = unsafe { elements(name, texts, count) }?;
    let known_lengths = if lengths.is_null() {
        None
    } else {
        // SAFETY: the caller's promise.
        Some(unsafe { elements("lengths", lengths, count) }?)
    };
    let each = pointers.iter().enumerate().map(|(index, &pointer)| {
        let length = known_lengths.map_or(usize::MAX, |lengths| lengths[index]);
        let read = |name: &str| {
            // SAFETY: the caller's promise.
            unsafe { text(name, pointer, length) }
        };
        // The indexed name is formatted only after an error.
        read(name).or_else(|_| read(&format!("{name}[{index}]"))).map_err(|error| error.at(index))
    });
    each.collect()
}

/// Parts of `elements` between `count + 1` offsets.
///
/// # Safety
/// `offsets` is null or points to `count + 1` offsets that are not modified during the call.
pub unsafe fn lists<'a, T>(
    name: &str,
    offsets: *const usize,
    count: usize,
    elements: &'a [T],
) -> Result<Vec<&'a [T]>, CallError> {
    let Some(offset_count) = count.checked_add(1).filter(|_| count > 0) else {
        return match count {
            0 => Ok(Vec::new()),
            _ => Err(CallError::argument(format!("`{name}` would have {count} and one more"))),
        };
    };
    // SAFETY: the caller's promise is the same.
    let offsets = unsafe { self::elements(name, offsets, offset_count) }?;
    let list = |(index, ends): (usize, &[usize])| {
        let start = ends[0];
        let end = ends[1];
        elements.get(start..end).ok_or_else(|| {
            let there = elements.len();
            let what = format!("`{name}[{index}]`: {start}..{end} is no part of {there} elements");
            CallError::argument(what).at(index)
        })
    };
    offsets.windows(2).enumerate().map(list).collect()
}

fn utf8<'a>(name: &str, bytes: &'a [u8]) -> Result<&'a str, CallError> {
    str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        let what = format!("`{name}` is not UTF-8 from byte {at} on: {:#04x}", bytes[at]);
        CallError::new(Status::BadUtf8, what).sizes(0, at)
    })
}

/// Product of two sizes, if it does not overflow.
pub fn product(name: &str, count: usize, each: usize) -> Result<usize, CallError> {
    let what = || format!("`{name}`: {count} times {each} elements are more than can be counted");
    count.checked_mul(each).ok_or_else(|| CallError::argument(what()))
}

/// Output array in memory of the caller: checked before anything is computed, written at the end.
pub struct Room<'a, T> {
    pointer: *mut T,
    /// Number of elements not yet written.
    left: usize,
    _caller: PhantomData<&'a mut [T]>,
}

impl<T: Copy> Room<'_, T> {
    /// Output for `needed` elements, described by `what`.
    ///
    /// # Safety
    /// `pointer` is null or points to `given` elements that nothing else uses during `'a`.
    pub unsafe fn new(
        name: &str,
        pointer: *mut T,
        given: usize,
        needed: usize,
        what: impl Display,
    ) -> Result<Self, CallError> {
        if given > 0 {
            check(name, pointer, given)?;
        }
        if needed > given {
            let message = format!("`{name}` has room for {given} elements; {what} need {needed}");
            return Err(CallError::new(Status::Capacity, message).sizes(needed, given));
        }
        Ok(Self { pointer, left: needed, _caller: PhantomData })
    }

    /// Output for `count` elements; `None` if the pointer is null.
    ///
    /// # Safety
    /// As [`Room::new`].
    pub unsafe fn optional(
        name: &str,
        pointer: *mut T,
        count: usize,
    ) -> Result<Option<Self>, CallError> {
        if pointer.is_null() {
            return Ok(None);
        }
        // SAFETY: the caller's promise is the same.
        unsafe { Self::new(name, pointer, count, count, "") }.map(Some)
    }

    /// Writes the next elements.
    pub fn write(&mut self, values: &[T]) {
        assert!(values.len() <= self.left, "{} elements, {} left", values.len(), self.left);
        // SAFETY: the memory is the caller's promise, and no more is written than was checked.  It
        // may overlap inputs borrowed from C: they are not read any more, and `copy` is a memmove.
        unsafe {
            ptr::copy(values.as_ptr(), self.pointer, values.len());
            self.pointer = self.pointer.add(values.len());
        }
        self.left -= values.len();
    }
}

/// Writes one value.
///
/// # Safety
/// `pointer` is null or points to memory for one value.
pub unsafe fn give<T: Copy>(name: &str, pointer: *mut T, value: T) -> Result<(), CallError> {
    // SAFETY: the caller's promise is the same.
    unsafe { Room::new(name, pointer, 1, 1, "one") }?.write(&[value]);
    Ok(())
}

/// Struct that C and the library may know in different versions: `size` comes first, later versions
/// add fields at the end, and 0 in a new field means the earlier behaviour.
///
/// # Safety
/// `repr(C)`, begins with `size: usize`, and is valid whatever its bytes are.
pub unsafe trait Versioned: Copy {
    /// Name in C.
    const NAME: &'static str;
    /// Size in the first version of the interface.
    const FIRST: usize;
}

/// Upper limit for the size of any version: a larger `size` was not set.
const LARGEST: usize = 1 << 16;

fn size_of_version<T: Versioned>(pointer: *const T) -> Result<usize, CallError> {
    check(T::NAME, pointer, 1)?;
    // SAFETY: `size` exists in every version.
    let size = unsafe { pointer.cast::<usize>().read() };
    if !(T::FIRST..=LARGEST).contains(&size) {
        let name = T::NAME;
        let first = T::FIRST;
        return Err(CallError::argument(format!(
            "`{name}.size`: expected sizeof(jinabert_{name}), at least {first}, got {size}"
        )));
    }
    Ok(size)
}

/// Reads a versioned struct; all zeros if null.
///
/// # Safety
/// `pointer` is null or points to as many initialised bytes as its `size` says.
pub unsafe fn versioned<T: Versioned>(pointer: *const T) -> Result<T, CallError> {
    let mut value = MaybeUninit::<T>::zeroed();
    if !pointer.is_null() {
        let size = size_of_version(pointer)?;
        let known = size.min(size_of::<T>());
        // SAFETY: both sides have `known` bytes; that `size` bytes exist is the caller's promise.
        let beyond = unsafe {
            ptr::copy_nonoverlapping(pointer.cast::<u8>(), value.as_mut_ptr().cast(), known);
            slice::from_raw_parts(pointer.cast::<u8>().add(known), size - known)
        };
        if let Some(index) = beyond.iter().position(|&byte| byte != 0) {
            let name = T::NAME;
            let byte = known + index;
            let what = "set, but this version of the library does not know it";
            return Err(CallError::argument(format!("byte {byte} of `{name}` is {what}")));
        }
    }
    // SAFETY: any bytes are valid, as the trait says.
    Ok(unsafe { value.assume_init() })
}

/// Writes a versioned struct of the caller, whose `size` stays; fields that only the caller knows
/// become 0.
///
/// # Safety
/// `pointer` is null or points to a `size` and as many bytes as it says.
pub unsafe fn give_versioned<T: Versioned>(pointer: *mut T, value: T) -> Result<(), CallError> {
    let size = size_of_version(pointer)?;
    let known = size.min(size_of::<T>());
    // SAFETY: both sides have `known` bytes; that `size` bytes exist is the caller's promise.
    unsafe {
        let bytes = pointer.cast::<u8>();
        ptr::copy_nonoverlapping((&raw const value).cast::<u8>(), bytes, known);
        bytes.add(known).write_bytes(0, size - known);
        pointer.cast::<usize>().write(size);
    }
    Ok(())
}

/// Text as a C array with a terminating NUL; truncated between two characters if too long.
pub fn chars<const N: usize>(text: &str) -> [c_char; N] {
    let mut chars = [0; N];
    let mut at = 0;
    for given in text.chars() {
        let c = if given == '\0' { char::REPLACEMENT_CHARACTER } else { given };
        if at + c.len_utf8() >= N {
            break;
        }
        for &byte in c.encode_utf8(&mut [0; 4]).as_bytes() {
            chars[at] = byte as c_char;
            at += 1;
        }
    }
    chars
}
