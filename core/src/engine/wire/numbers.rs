//! Numbers of a peer: seven bits a byte, the lowest first.
//!
//! A number is written in one way only: a last byte of zero is refused, since it adds nothing.

use super::frame::WireError;
use crate::stored::{FormatError, Reader};

pub(super) const CUT_SHORT: WireError = WireError::Body("it ends before it should");
pub(super) const OUT_OF_RANGE: WireError = WireError::Body("a field is out of range");

/// Fields without a range of their own fail only where the bytes end.
impl From<FormatError> for WireError {
    fn from(_: FormatError) -> Self {
        CUT_SHORT
    }
}

/// A reader of a part of a body.
pub(super) const fn unread(bytes: &[u8]) -> Reader<'_> {
    Reader::bare("a message", bytes)
}

/// Reads numbers among other fields.
pub(super) trait Numbers {
    fn number(&mut self) -> Result<u64, WireError>;

    /// A number that fits the type.
    fn fitting<N: TryFrom<u64>>(&mut self) -> Result<N, WireError> {
        N::try_from(self.number()?).map_err(|_| OUT_OF_RANGE)
    }
}

impl Numbers for Reader<'_> {
    fn number(&mut self) -> Result<u64, WireError> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits || byte == 0 && shift > 0 {
                return Err(OUT_OF_RANGE);
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(OUT_OF_RANGE)
    }
}

pub(super) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        let [low, ..] = number.to_le_bytes();
        out.push(low | 0x80);
        number >>= 7;
    }
    let [low, ..] = number.to_le_bytes();
    out.push(low);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_come_back_and_are_written_in_one_way(number: u64, shift in 0..64_u32, bytes: Vec<u8>) {
            for number in [number, number >> shift, u64::MAX >> shift, 1 << shift] {
                let mut out = Vec::new();
                put_number(&mut out, number);
                prop_assert_eq!(&out, &postcard::to_allocvec(&number).unwrap());
                let mut reader = unread(&out);
                prop_assert_eq!((reader.number().unwrap(), reader.remaining()), (number, 0));
                // The same number, one byte longer.
                *out.last_mut().unwrap() |= 0x80;
                out.push(0);
                prop_assert!(unread(&out).number().is_err());
            }
            let mut reader = unread(&bytes);
            if let Ok(number) = reader.number() {
                let mut out = Vec::new();
                put_number(&mut out, number);
                prop_assert_eq!(&out[..], &bytes[..bytes.len() - reader.remaining()]);
            }
        }
    }

    #[test]
    fn a_number_beyond_64_bits_is_refused() {
        let most = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(unread(&most).number(), Ok(u64::MAX));
        assert!(unread(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]).number().is_err());
        assert!(unread(&[0x80; 20]).number().is_err());
        assert!(unread(&[0x80]).number().is_err());
    }
}
