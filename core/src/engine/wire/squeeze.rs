//! Compression of pages, with LZ4: values of apps often repeat themselves. A live message is too short to gain by it.
//!
//! The length that a page says it has is compared with the limit of a frame, and with the most that its bytes can become,
//! before any memory is taken for it.

use super::frame::WireError;
use super::numbers::OUT_OF_RANGE;

/// A shorter body gains less than the attempt costs.
const BYTES_MIN: usize = 512;
/// The part by which a body is tried first: it shows whether the rest is worth the time.
const SAMPLE_BYTES: usize = 16 * 1024;
/// The most bytes that one byte of a block becomes.
const RATIO_MAX: usize = 255;

/// The body as a block, if that is shorter by an eighth at least.
pub(super) fn squeeze(body: &[u8]) -> Option<Vec<u8>> {
    let pays = |block: &[u8], bytes: &[u8]| block.len() < bytes.len() - bytes.len() / 8;
    let sample = body.get(..SAMPLE_BYTES).unwrap_or(body);
    if body.len() < BYTES_MIN {
        return None;
    }
    let block = lz4_flex::block::compress(sample);
    if !pays(&block, sample) {
        return None;
    }
    let block = if sample.len() == body.len() { block } else { lz4_flex::block::compress(body) };
    pays(&block, body).then_some(block)
}

/// The body of `len` bytes that a block becomes.
pub(super) fn unsqueeze(block: &[u8], len: usize, frame_bytes_max: usize) -> Result<Vec<u8>, WireError> {
    if len > frame_bytes_max {
        return Err(WireError::TooLong);
    }
    // A block that is not shorter than its body is not sent.
    if len <= block.len() || len > block.len().saturating_mul(RATIO_MAX) {
        return Err(OUT_OF_RANGE);
    }
    let body =
        lz4_flex::block::decompress(block, len).map_err(|_| WireError::Body("its block is damaged"))?;
    if body.len() == len { Ok(body) } else { Err(OUT_OF_RANGE) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_repeats_itself_becomes_shorter_and_what_does_not_stays() {
        let mut rng = fastrand::Rng::with_seed(1);
        let random: Vec<u8> = (0..100_000).map(|_| rng.u8(..)).collect();
        let alike: Vec<u8> = (0..1_000_u32)
            .flat_map(|n| {
                format!("{{\"id\":{},\"kind\":\"photo\",\"tags\":[\"sea\"],\"size\":{}}}", n * 7919 % 997, n)
                    .into_bytes()
            })
            .collect();
        assert_eq!((squeeze(&random), squeeze(&alike[..BYTES_MIN - 1])), (None, None));
        let late = [&random[..SAMPLE_BYTES], &alike[..]].concat();
        assert_eq!(squeeze(&late), None, "it is not tried beyond its beginning");
        let early = [&alike[..SAMPLE_BYTES], &random[..]].concat();
        assert!(squeeze(&early).is_none_or(|block| block.len() < early.len()));
        for body in [&alike[..], &alike[..SAMPLE_BYTES], &alike[..BYTES_MIN]] {
            let block = squeeze(body).unwrap();
            assert!(2 * block.len() < body.len(), "{} of {}", block.len(), body.len());
            assert_eq!(unsqueeze(&block, body.len(), body.len()).unwrap(), body);
            assert_eq!(unsqueeze(&block, body.len(), body.len() - 1), Err(WireError::TooLong));
            for wrong in [0, block.len(), body.len() - 1, body.len() + 1, block.len() * RATIO_MAX + 1] {
                assert!(unsqueeze(&block, wrong, 1 << 20).is_err(), "{wrong}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_block_panics(block: Vec<u8>, len in 0..10_000_usize, at in 0..300_usize, byte: u8) {
            let _ = unsqueeze(&block, len, 10_000);
            let mut good = squeeze(&[7; 1000]).unwrap();
            if let Some(old) = good.get_mut(at) {
                *old = byte;
            }
            let _ = unsqueeze(&good, 1000, 10_000);
        }
    }
}
