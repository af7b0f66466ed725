//! A log entry as it travels: without what the receiver can rebuild, and exactly as its author wrote it once rebuilt.
//!
//! The author's device stands once for a run of commits, a stamp as its distance from the one before it, the name of a
//! model once in a message, and the digest of a value nowhere: the receiver hashes the value anyway. Numbers are as
//! short as they are. Nothing is judged here: a flag or a name that means nothing is copied, and the entry that was
//! rebuilt is refused where entries are.

use std::collections::btree_map::{BTreeMap, Entry};

use super::frame::WireError;
use super::numbers::{CUT_SHORT, Numbers, OUT_OF_RANGE, put_number, unread};
use crate::ids::ReplicaId;
use crate::stored::log::{DELETE, EPOCH, SAME};
use crate::stored::{FORMAT, Reader, digest};

/// The bytes of an entry before its causes: format, device, time.
const HEAD_BYTES: usize = 1 + 16 + 8;
const EPOCH_BYTES: usize = 24;
const DIGEST_BYTES: usize = 32;

/// The names of the models that a message has named so far, as its writer knows them.
pub(super) type NamesWritten = BTreeMap<Vec<u8>, u64>;

/// The same, as its reader knows them.
#[derive(Debug, Default)]
pub(super) struct NamesRead<'a> {
    names: Vec<&'a [u8]>,
    known: std::collections::BTreeSet<&'a [u8]>,
}

/// The streams that a message has named so far, each with the number of its first run.
#[derive(Debug, Default)]
pub(super) struct Streams {
    numbers: BTreeMap<ReplicaId, u64>,
    /// The same, by number: a message may name thousands, and each of its causes looks one up.
    ids: BTreeMap<u64, ReplicaId>,
}

impl Streams {
    /// Takes the run of a stream; only its first one counts.
    pub(super) fn name(&mut self, stream: ReplicaId, run: u64) {
        if let Entry::Vacant(number) = self.numbers.entry(stream) {
            number.insert(run);
            self.ids.insert(run, stream);
        }
    }

    fn number_of(&self, stream: ReplicaId) -> Option<u64> {
        self.numbers.get(&stream).copied()
    }

    fn of(&self, run: u64) -> Option<ReplicaId> {
        self.ids.get(&run).copied()
    }
}

/// The device that an entry names; `None` if it is too short to name one, or of another format.
pub(super) fn device_of(entry: &[u8]) -> Option<[u8; 16]> {
    let (format, rest) = entry.split_first()?;
    let (device, _) = rest.split_first_chunk()?;
    (*format == FORMAT).then_some(*device)
}

/// Milliseconds and counter of a stamp.
fn split_time(time: [u8; 8]) -> (u64, u16) {
    let time = u64::from_be_bytes(time);
    (time >> 16, (time & 0xffff) as u16)
}

/// Writes the entry and its values, given the streams that the message has named so far; `None` if the entry is not made
/// as entries of this version are, or other values than its own came with it. Then nothing that was written counts.
pub(super) fn pack(
    out: &mut Vec<u8>,
    entry: &[u8],
    values: &[u8],
    names: &mut NamesWritten,
    last_ms: &mut u64,
    streams: &Streams,
) -> Option<()> {
    let mut entry = unread(entry);
    let (format, _device) = (entry.byte().ok()?, entry.array::<16>().ok()?);
    let (ms, counter) = split_time(entry.array().ok()?);
    let causes = entry.u16().ok()?;
    let mut after = Vec::new();
    for _ in 0..causes {
        let (stream, seq) =
            (ReplicaId::from_bytes(entry.array().ok()?), u64::from_be_bytes(entry.array().ok()?));
        let check = entry.array::<8>().ok()?;
        match streams.number_of(stream) {
            Some(run) => put_number(&mut after, run + 1),
            None => {
                put_number(&mut after, 0);
                after.extend_from_slice(stream.as_bytes());
            }
        }
        put_number(&mut after, seq);
        after.extend_from_slice(&check);
    }
    let count = entry.u32().ok()?;
    if format != FORMAT {
        return None;
    }
    put_number(out, u64::from(count) + 1);
    let by = ms.cast_signed().wrapping_sub(last_ms.cast_signed());
    put_number(out, (by << 1 ^ by >> 63).cast_unsigned());
    put_number(out, u64::from(counter));
    put_number(out, u64::from(causes));
    out.extend_from_slice(&after);
    let mut new_names = BTreeMap::<&[u8], u64>::new();
    let mut bytes = 0_usize;
    for _ in 0..count {
        let flags = entry.byte().ok()?;
        out.push(flags);
        if flags & SAME == 0 {
            let len = entry.byte().ok()?;
            let name = entry.slice(len.into()).ok()?;
            match names.get(name).or_else(|| new_names.get(name)).copied() {
                Some(at) => put_number(out, at + 1),
                None => {
                    put_number(out, 0);
                    out.push(len);
                    out.extend_from_slice(name);
                    new_names.insert(name, (names.len() + new_names.len()) as u64);
                }
            }
        }
        let len = entry.u16().ok()?;
        put_number(out, len.into());
        out.extend_from_slice(entry.slice(len.into()).ok()?);
        if flags & EPOCH != 0 {
            out.extend_from_slice(entry.slice(EPOCH_BYTES).ok()?);
        }
        if flags & DELETE == 0 {
            put_number(out, entry.u16().ok()?.into());
            let len = entry.u32().ok()?;
            put_number(out, len.into());
            entry.slice(DIGEST_BYTES).ok()?;
            bytes = bytes.checked_add(usize::try_from(len).ok()?)?;
        }
    }
    if entry.remaining() > 0 || bytes != values.len() {
        return None;
    }
    names.extend(new_names.into_iter().map(|(name, at)| (name.to_vec(), at)));
    *last_ms = ms;
    out.extend_from_slice(values);
    Some(())
}

/// A commit that was read: its entry, without the digests of values until they are [filled in](Unpacked::fill_digests),
/// and its values.
pub(super) struct Unpacked<'a> {
    pub(super) entry: Vec<u8>,
    pub(super) values: &'a [u8],
    /// Where each digest stands in the entry, and how long its value is.
    digests: Vec<(usize, usize)>,
}

impl Unpacked<'_> {
    /// Fills in the digests of the values.
    pub(super) fn fill_digests(&mut self) -> Result<(), WireError> {
        let mut values = unread(self.values);
        for (at, len) in std::mem::take(&mut self.digests) {
            let digest = digest(values.slice(len)?);
            self.entry.get_mut(at..at + DIGEST_BYTES).ok_or(CUT_SHORT)?.copy_from_slice(&digest);
        }
        Ok(())
    }
}

/// Reads a commit of `count` changes that [`pack`] wrote. `room` is how many bytes it may take.
pub(super) fn unpack<'a>(
    body: &mut Reader<'a>,
    count: u64,
    device: [u8; 16],
    names: &mut NamesRead<'a>,
    last_ms: &mut u64,
    streams: &Streams,
    room: usize,
) -> Result<Unpacked<'a>, WireError> {
    let count = u32::try_from(count).map_err(|_| OUT_OF_RANGE)?;
    let by = body.number()?;
    let by = (by >> 1).cast_signed() ^ -(by & 1).cast_signed();
    let ms = last_ms.cast_signed().wrapping_add(by).cast_unsigned();
    if ms >> 48 != 0 {
        return Err(OUT_OF_RANGE);
    }
    *last_ms = ms;
    let counter: u16 = body.fitting()?;
    // Half as much again as the bytes that are there is the most that is taken at once.
    let mut entry = Vec::with_capacity(HEAD_BYTES + 64);
    entry.push(FORMAT);
    entry.extend_from_slice(&device);
    entry.extend_from_slice(&(ms << 16 | u64::from(counter)).to_be_bytes());
    let causes: u16 = body.fitting()?;
    entry.extend_from_slice(&causes.to_be_bytes());
    for _ in 0..causes {
        let stream = match body.number()? {
            0 => {
                let stream = ReplicaId::from_bytes(body.array()?);
                if streams.number_of(stream).is_some() {
                    return Err(WireError::Body("it names a stream in full that has a number"));
                }
                stream
            }
            run => streams.of(run - 1).ok_or(OUT_OF_RANGE)?,
        };
        entry.extend_from_slice(stream.as_bytes());
        entry.extend_from_slice(&body.number()?.to_be_bytes());
        entry.extend_from_slice(&body.array::<8>()?);
    }
    entry.extend_from_slice(&count.to_be_bytes());
    let (mut bytes, mut digests) = (0_usize, Vec::new());
    for _ in 0..count {
        let flags = body.byte()?;
        entry.push(flags);
        if flags & SAME == 0 {
            let name = match body.number()? {
                0 => {
                    let len = body.byte()?;
                    let name = body.slice(len.into())?;
                    if !names.known.insert(name) {
                        return Err(WireError::Body("it names a model twice"));
                    }
                    names.names.push(name);
                    name
                }
                at => {
                    let at = usize::try_from(at - 1).map_err(|_| OUT_OF_RANGE)?;
                    names.names.get(at).copied().ok_or(OUT_OF_RANGE)?
                }
            };
            entry.push(u8::try_from(name.len()).map_err(|_| OUT_OF_RANGE)?);
            entry.extend_from_slice(name);
        }
        let len: u16 = body.fitting()?;
        entry.extend_from_slice(&len.to_be_bytes());
        entry.extend_from_slice(body.slice(len.into())?);
        if flags & EPOCH != 0 {
            entry.extend_from_slice(body.slice(EPOCH_BYTES)?);
        }
        if flags & DELETE == 0 {
            let (schema, len): (u16, u32) = (body.fitting()?, body.fitting()?);
            entry.extend_from_slice(&schema.to_be_bytes());
            entry.extend_from_slice(&len.to_be_bytes());
            let len = usize::try_from(len).map_err(|_| OUT_OF_RANGE)?;
            digests.push((entry.len(), len));
            entry.extend_from_slice(&[0; DIGEST_BYTES]);
            bytes = bytes.checked_add(len).ok_or(CUT_SHORT)?;
        }
        // A change of two bytes becomes more: stop before memory is taken for what no honest frame has.
        if entry.len() > room {
            return Err(WireError::TooLong);
        }
    }
    Ok(Unpacked { entry, values: body.slice(bytes)?, digests })
}
