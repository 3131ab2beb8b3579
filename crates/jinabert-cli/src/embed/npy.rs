//! NumPy's array format: writing headers, reading rows.

use jinabert::{elements::TensorData, precision::Precision};
use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
};

/// Size of a header in bytes: enough for any count, and a multiple of 64 as the format requires.
pub const HEADER: usize = 128;

const MAGIC: &[u8] = b"\x93NUMPY";

/// Name of the element type in NumPy.
fn dtype(precision: Precision) -> &'static str {
    match precision {
        Precision::Float32 => "<f4",
        Precision::Float16 => "<f2",
        Precision::Int8 | Precision::Binary => "|i1",
        Precision::Uint8 | Precision::Ubinary => "|u1",
    }
}

/// Version 1.0: magic, version, header length, and a Python dict padded with spaces.
pub fn header(precision: Precision, rows: u64, cols: usize) -> Vec<u8> {
    let dtype = dtype(precision);
    let dict =
        format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({rows}, {cols}), }}");
    let mut header = [MAGIC, &[1, 0]].concat();
    header.extend_from_slice(&(HEADER as u16 - 10).to_le_bytes());
    header.extend_from_slice(dict.as_bytes());
    header.resize(HEADER - 1, b' ');
    header.push(b'\n');
    header
}

/// Reader of rows in float32, float16 or float64, one at a time; float64 is rounded to float32.
pub struct Rows<R> {
    source: R,
    /// Bytes of an element.
    size: usize,
    rows: usize,
    /// Columns.
    pub cols: usize,
    next: usize,
}

impl Rows<BufReader<File>> {
    /// Opens a file and reads its header.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::new(BufReader::new(File::open(path)?))
    }
}

impl<R: Read> Rows<R> {
    fn new(mut source: R) -> io::Result<Self> {
        let mut start = [0; 8];
        source.read_exact(&mut start).map_err(|_| bad("not an npy file"))?;
        let length = match (start.strip_prefix(MAGIC), start[6]) {
            (Some(_), 1) => u32::from(u16::from_le_bytes(bytes(&mut source)?)),
            (Some(_), 2 | 3) => u32::from_le_bytes(bytes(&mut source)?),
            (Some(_), version) => {
                return Err(bad(&format!("npy version {version}; 1 to 3 are known")));
            }
            (None, _) => return Err(bad("not an npy file")),
        };
        let mut dict = String::new();
        let read = source.by_ref().take(length.into()).read_to_string(&mut dict)?;
        if read < length as usize {
            return Err(bad("the header ends early"));
        }
        let value = |key: &str| -> io::Result<&str> {
            let rest = dict.split_once(&format!("'{key}':"));
            Ok(rest.ok_or_else(|| bad(&format!("the header has no `{key}`")))?.1.trim_start())
        };
        let descr = value("descr")?.split('\'').nth(1).unwrap_or("a list");
        let size = match descr {
            "<f2" => 2,
            "<f4" => 4,
            "<f8" => 8,
            _ => return Err(bad(&format!("elements of type {descr}; <f2, <f4, <f8 are known"))),
        };
        if !value("fortran_order")?.starts_with("False") {
            return Err(bad("expected rows first, got columns first (fortran_order)"));
        }
        let shape = value("shape")?.split(['(', ')']).nth(1).unwrap_or_default();
        let sizes = shape.split(',').map(str::trim).filter(|size| !size.is_empty());
        let sizes: Option<Vec<usize>> = sizes.map(|size| size.parse().ok()).collect();
        match sizes.as_deref() {
            Some(&[rows, cols]) if cols > 0 => Ok(Self { source, size, rows, cols, next: 0 }),
            _ => Err(bad(&format!("expected a shape (vectors, components), got ({shape})"))),
        }
    }

    fn row(&mut self) -> io::Result<Vec<f32>> {
        let length = self.cols.saturating_mul(self.size);
        // The row grows as it is read: a wrong header may claim any size.
        let mut bytes = Vec::new();
        if self.source.by_ref().take(length as u64).read_to_end(&mut bytes)? < length {
            return Err(bad(&format!("ends in row {} of {}", self.next, self.rows)));
        }
        Ok(match self.size {
            2 => TensorData::f16(&bytes).widened().into_owned(),
            4 => TensorData::f32(&bytes).widened().into_owned(),
            _ => bytes.as_chunks().0.iter().map(|&x| f64::from_le_bytes(x) as f32).collect(),
        })
    }
}

impl<R: Read> Iterator for Rows<R> {
    type Item = io::Result<Vec<f32>>;

    fn next(&mut self) -> Option<Self::Item> {
        (self.next < self.rows).then(|| {
            let row = self.row();
            self.next += 1;
            row
        })
    }
}

fn bytes<const N: usize>(source: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    source.read_exact(&mut bytes).map_err(|_| bad("the header ends early"))?;
    Ok(bytes)
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_has_its_size_for_any_count() {
        for (rows, cols) in [(0, 1), (u64::MAX, 65_536)] {
            for precision in Precision::ALL {
                let header = header(precision, rows, cols);
                assert_eq!(header.len(), HEADER);
                let ends = (&header[..8], header[HEADER - 1]);
                assert_eq!(ends, (&b"\x93NUMPY\x01\x00"[..], b'\n'));
            }
        }
    }

    fn read(file: &[u8]) -> io::Result<Vec<Vec<f32>>> {
        Rows::new(file)?.collect()
    }

    #[test]
    fn rows_are_read_back() {
        let rows = [[1.0f32, -2.5, 0.25], [0.0, 3.0, -1e-3]];
        let data: Vec<u8> = rows.as_flattened().iter().flat_map(|x| x.to_le_bytes()).collect();
        let file = [header(Precision::Float32, 2, 3), data].concat();
        assert_eq!(read(&file).expect("an array"), rows);
        let half = [header(Precision::Float16, 1, 2), vec![0, 0x3c, 0, 0xc1]].concat();
        assert_eq!(read(&half).expect("an array"), [[1.0, -2.5]]);
        let double =
            String::from_utf8_lossy(&header(Precision::Float32, 2, 3)[10..]).replace("<f4", "<f8");
        let data: Vec<u8> =
            rows.as_flattened().iter().flat_map(|x| f64::from(*x).to_le_bytes()).collect();
        let start = [MAGIC, &[1, 0], &(double.len() as u16).to_le_bytes(), double.as_bytes()];
        let double = [&start.concat()[..], &data].concat();
        assert_eq!(read(&double).expect("an array"), rows);
        assert!(read(&double[..double.len() - 1]).is_err());
        // Version 2, with the keys in another order.
        let dict = b"{'shape':(1,1),'fortran_order': False , 'descr':'<f4'}\n";
        let length = (dict.len() as u32).to_le_bytes();
        let start = [MAGIC, &[2, 0], &length[..], dict].concat();
        assert_eq!(read(&[&start[..], &2.0f32.to_le_bytes()].concat()).expect("an array"), [[2.0]]);
    }

    #[test]
    fn other_files_are_refused() {
        let refused = |file: &[u8]| read(file).expect_err("no array").to_string();
        let good = header(Precision::Float32, 2, 3);
        assert_eq!(refused(b""), "not an npy file");
        assert_eq!(refused(b"{\"index\": 0}"), "not an npy file");
        assert_eq!(refused(&good[..9]), "the header ends early");
        assert_eq!(refused(&good[..50]), "the header ends early");
        assert_eq!(refused(&[&good[..], &[0; 23]].concat()), "ends in row 1 of 2");
        let with = |from: &str, to: &str| {
            let dict = String::from_utf8(good[10..].to_vec()).expect("ASCII").replacen(from, to, 1);
            refused(&[&good[..8], &(dict.len() as u16).to_le_bytes(), dict.as_bytes()].concat())
        };
        assert_eq!(with("<f4", "<i8"), "elements of type <i8; <f2, <f4, <f8 are known");
        assert_eq!(with("False", "True"), "expected rows first, got columns first (fortran_order)");
        assert_eq!(with("(2, 3)", "(6,)"), "expected a shape (vectors, components), got (6,)");
        assert_eq!(with("(2, 3)", "(2, 0)"), "expected a shape (vectors, components), got (2, 0)");
        assert_eq!(with("'shape'", "'size'"), "the header has no `shape`");
        let huge = with("(2, 3)", "(9, 9223372036854775807)");
        assert_eq!(huge, "ends in row 0 of 9");
        let other = [MAGIC, &[4, 0]].concat();
        assert_eq!(refused(&other), "npy version 4; 1 to 3 are known");
    }
}
