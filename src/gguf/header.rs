//! GGUF, ggml's container of models: metadata by key and tensors by name, in one file.
//!
//! Every count, length, type, size and offset of a file is checked before it is used, and nothing
//! is allocated that the file's own size does not bound: its source may be hostile.

use super::quants::GgmlType;
use std::{collections::BTreeMap, ops::Range};

const MAGIC: [u8; 4] = *b"GGUF";

/// Maximum number of dimensions.
const MAX_DIMENSIONS: u32 = 4;

/// Metadata value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Integer(i128),
    Real(f64),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    Integers(Vec<i128>),
    Reals(Vec<f64>),
    Bools(Vec<bool>),
}

/// A tensor's place in the file.
#[derive(Clone, Debug)]
pub struct TensorEntry {
    pub kind: GgmlType,
    /// Sizes, the last one contiguous, as in safetensors.
    pub shape: Vec<usize>,
    /// Bytes of the file.
    pub bytes: Range<usize>,
}

/// Contents of a file without its elements.
#[derive(Debug)]
pub struct Header {
    pub metadata: BTreeMap<String, Value>,
    pub tensors: BTreeMap<String, TensorEntry>,
}

/// Unread rest of the file.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let left = self.left();
        if n > left {
            let at = self.at;
            return Err(format!(
                "expected {n} bytes at byte {at}, got {left}: the file is cut off"
            ));
        }
        self.at += n;
        Ok(&self.bytes[self.at - n..self.at])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        Ok(self.take(N)?.try_into().expect("N bytes"))
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }

    /// Number of things of at least `size` bytes each.
    fn count(&mut self, what: &str, size: usize) -> Result<usize, String> {
        let count = self.u64()?;
        let most = self.left() / size;
        match usize::try_from(count) {
            Ok(count) if count <= most => Ok(count),
            _ => Err(format!("{count} {what}; the rest of the file has room for {most}")),
        }
    }

    fn text(&mut self) -> Result<String, String> {
        let length = self.count("bytes of a string", 1)?;
        let at = self.at;
        let text = self.take(length)?.to_vec();
        String::from_utf8(text).map_err(|e| format!("the string at byte {at}: {e}"))
    }

    fn integer(&mut self, kind: u32) -> Result<i128, String> {
        Ok(match kind {
            0 => u8::from_le_bytes(self.array()?).into(),
            1 => i8::from_le_bytes(self.array()?).into(),
            2 => u16::from_le_bytes(self.array()?).into(),
            3 => i16::from_le_bytes(self.array()?).into(),
            4 => self.u32()?.into(),
            5 => i32::from_le_bytes(self.array()?).into(),
            10 => self.u64()?.into(),
            _ => i64::from_le_bytes(self.array()?).into(),
        })
    }

    fn real(&mut self, kind: u32) -> Result<f64, String> {
        Ok(match kind {
            6 => f32::from_le_bytes(self.array()?).into(),
            _ => f64::from_le_bytes(self.array()?),
        })
    }

    fn bool(&mut self) -> Result<bool, String> {
        let [byte] = self.array()?;
        if byte > 1 {
            return Err(format!("expected 0 or 1 for a boolean, got {byte}"));
        }
        Ok(byte == 1)
    }

    fn value(&mut self) -> Result<Value, String> {
        let kind = self.u32()?;
        Ok(match kind {
            0..=5 | 10 | 11 => Value::Integer(self.integer(kind)?),
            6 | 12 => Value::Real(self.real(kind)?),
            7 => Value::Bool(self.bool()?),
            8 => Value::Text(self.text()?),
            9 => self.list()?,
            other => return Err(format!("metadata type {other}; GGUF has 0 to 12")),
        })
    }

    fn list(&mut self) -> Result<Value, String> {
        let kind = self.u32()?;
        let size = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            9 => return Err("an array of arrays, which no model needs".to_owned()),
            other => return Err(format!("metadata type {other}; GGUF has 0 to 12")),
        };
        let count = self.count("elements of an array", size)?;
        Ok(match kind {
            6 | 12 => Value::Reals((0..count).map(|_| self.real(kind)).collect::<Result<_, _>>()?),
            7 => Value::Bools((0..count).map(|_| self.bool()).collect::<Result<_, _>>()?),
            8 => Value::Texts((0..count).map(|_| self.text()).collect::<Result<_, _>>()?),
            _ => {
                let values = (0..count).map(|_| self.integer(kind));
                Value::Integers(values.collect::<Result<_, _>>()?)
            }
        })
    }
}

/// Offset rounded up to a multiple of the alignment.
fn aligned(at: usize, alignment: usize) -> Result<usize, String> {
    at.checked_next_multiple_of(alignment).ok_or_else(|| "an offset overflows".to_owned())
}

impl Header {
    /// Reads the header of a file.
    ///
    /// # Errors
    /// Description of what is not as the format requires, or not supported here.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let mut cursor = Cursor { bytes, at: 0 };
        let magic: [u8; 4] = cursor.array()?;
        if magic != MAGIC {
            return Err(format!("expected `GGUF` at its start, got {magic:?}"));
        }
        match cursor.u32()? {
            2 | 3 => {}
            swapped @ (0x0200_0000 | 0x0300_0000) => {
                let version = swapped.swap_bytes();
                return Err(format!("version {version} in big-endian order; expected little"));
            }
            other => return Err(format!("version {other}; supported: 2 and 3")),
        }
        // The least a tensor takes: a name's length, dimensions, one size, type, offset.
        let tensor_count = cursor.count("tensors", 32)?;
        // A key's length, type, a byte.
        let pair_count = cursor.count("metadata values", 13)?;
        let mut metadata = BTreeMap::new();
        for _ in 0..pair_count {
            let key = cursor.text()?;
            let value = cursor.value().map_err(|e| format!("`{}`: {e}", key.escape_debug()))?;
            if metadata.insert(key.clone(), value).is_some() {
                return Err(format!("`{}` is there twice", key.escape_debug()));
            }
        }
        let alignment = match metadata.get("general.alignment") {
            None => 32,
            Some(Value::Integer(n)) if (1..=1 << 20).contains(n) && n.count_ones() == 1 => {
                *n as usize
            }
            Some(other) => {
                return Err(format!("general.alignment: expected a power of two, got {other:?}"));
            }
        };
        let mut found = Vec::new();
        for _ in 0..tensor_count {
            let name = cursor.text()?;
            let entry = entry(&mut cursor);
            found.push((
                name.clone(),
                entry.map_err(|e| format!("tensor `{}`: {e}", name.escape_debug()))?,
            ));
        }
        let start = aligned(cursor.at, alignment)?;
        let mut tensors = BTreeMap::new();
        for (name, mut entry) in found {
            let bad = |e: String| format!("tensor `{}`: {e}", name.escape_debug());
            let Range { start: offset, end: size } = entry.bytes;
            if !offset.is_multiple_of(alignment) {
                return Err(bad(format!("offset {offset}, expected a multiple of {alignment}")));
            }
            let begin = start.checked_add(offset);
            let end = begin.and_then(|begin| begin.checked_add(size));
            entry.bytes = match (begin, end) {
                (Some(begin), Some(end)) if end <= bytes.len() => begin..end,
                _ => {
                    let all = bytes.len();
                    let what = format!("{size} bytes at {offset} after {start} of a file of {all}");
                    return Err(bad(format!("{what}: it is cut off")));
                }
            };
            if tensors.insert(name.clone(), entry).is_some() {
                return Err(format!("tensor `{}` is there twice", name.escape_debug()));
            }
        }
        Ok(Self { metadata, tensors })
    }
}

/// A tensor's type and shape, with its offset and size for `bytes`.
fn entry(cursor: &mut Cursor<'_>) -> Result<TensorEntry, String> {
    let dimensions = cursor.u32()?;
    if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
        return Err(format!("{dimensions} dimensions, expected 1 to {MAX_DIMENSIONS}"));
    }
    let mut shape = Vec::new();
    for _ in 0..dimensions {
        let size = cursor.u64()?;
        shape.push(usize::try_from(size).map_err(|_| format!("a size of {size}"))?);
    }
    let number = cursor.u32()?;
    let kind = GgmlType::of(number).map_err(|name| {
        format!("{name}; supported: F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K")
    })?;
    let offset = cursor.u64()?;
    let offset = usize::try_from(offset).map_err(|_| format!("offset {offset}"))?;
    let (elements, bytes) = kind.block();
    // The first dimension is the contiguous one; blocks do not cross rows.
    if !shape[0].is_multiple_of(elements) {
        let row = shape[0];
        return Err(format!("rows of {row} elements, expected whole blocks of {elements}"));
    }
    let rows = shape[1..].iter().try_fold(1usize, |rows, n| rows.checked_mul(*n));
    let size = rows.and_then(|rows| rows.checked_mul(shape[0] / elements));
    let size = size.and_then(|blocks| blocks.checked_mul(bytes));
    let size = size.ok_or_else(|| format!("shape {shape:?} overflows"))?;
    shape.reverse();
    Ok(TensorEntry { kind, shape, bytes: offset..size })
}
