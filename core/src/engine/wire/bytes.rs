//! Bytes of a peer, front to back: fixed fields, and numbers of seven bits a byte, the lowest first.
//!
//! A number is written in one way only: a last byte of zero is refused, since it adds nothing.

use super::frame::WireError;

pub(super) const CUT_SHORT: WireError = WireError::Body("it ends before it should");
pub(super) const OUT_OF_RANGE: WireError = WireError::Body("a field is out of range");

/// The part of a body that was not read yet.
#[derive(Clone, Debug)]
pub(super) struct Unread<'a>(pub(super) &'a [u8]);

impl<'a> Unread<'a> {
    pub(super) fn slice(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (slice, rest) = self.0.split_at_checked(len).ok_or(CUT_SHORT)?;
        self.0 = rest;
        Ok(slice)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (array, rest) = self.0.split_first_chunk::<N>().ok_or(CUT_SHORT)?;
        self.0 = rest;
        Ok(*array)
    }

    pub(super) fn byte(&mut self) -> Result<u8, WireError> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn number(&mut self) -> Result<u64, WireError> {
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

    /// A number that fits the type.
    pub(super) fn fitting<N: TryFrom<u64>>(&mut self) -> Result<N, WireError> {
        N::try_from(self.number()?).map_err(|_| OUT_OF_RANGE)
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
                let mut unread = Unread(&out);
                prop_assert_eq!((unread.number().unwrap(), unread.0.len()), (number, 0));
                // The same number, one byte longer.
                *out.last_mut().unwrap() |= 0x80;
                out.push(0);
                prop_assert!(Unread(&out).number().is_err());
            }
            let mut unread = Unread(&bytes);
            if let Ok(number) = unread.number() {
                let mut out = Vec::new();
                put_number(&mut out, number);
                prop_assert_eq!(&out[..], &bytes[..bytes.len() - unread.0.len()]);
            }
        }
    }

    #[test]
    fn a_number_beyond_64_bits_is_refused() {
        let most = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(Unread(&most).number(), Ok(u64::MAX));
        assert!(Unread(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]).number().is_err());
        assert!(Unread(&[0x80; 20]).number().is_err());
        assert!(Unread(&[0x80]).number().is_err());
    }
}
