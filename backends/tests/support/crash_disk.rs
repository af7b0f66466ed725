//! A medium in memory that records its operations, fails on demand, and can lose power at any operation.

use std::io;
use std::sync::{Arc, Barrier, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

use super::Rng;

/// A medium in memory. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct CrashDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// The bytes that reads see: every write, synced or not.
    image: Vec<u8>,
    trace: Vec<Op>,
    fault: Option<Fault>,
    /// How many operations of the fault's kind there were since the fault was set.
    seen: usize,
    /// The next operation of this kind stops at the barrier.
    hold: Option<(Kind, Arc<Barrier>)>,
    syncs: usize,
    closes: usize,
}

/// An operation on the medium.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Write {
        offset: usize,
        data: Vec<u8>,
    },
    SetLen(usize),
    Sync,
    /// A sync that failed. The writes before it that were not synced are lost for good, even if a later sync succeeds.
    FailedSync,
}

/// Operations of one kind that fail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) on: Kind,
    /// The number of the first operation that fails, counted from zero.
    pub(crate) at: usize,
    /// Whether the operations after it fail too.
    pub(crate) sticky: bool,
    pub(crate) how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    /// A write, or a change of the length.
    Write,
    Sync,
    /// Any operation. For faults only.
    Any,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum How {
    Error(io::ErrorKind),
    Panic,
}

impl CrashDisk {
    pub(crate) fn with(image: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(State { image, ..State::default() })))
    }

    pub(crate) fn image(&self) -> Vec<u8> {
        self.state().image.clone()
    }

    pub(crate) fn trace(&self) -> Vec<Op> {
        self.state().trace.clone()
    }

    /// How many operations were recorded.
    pub(crate) fn ops(&self) -> usize {
        self.state().trace.len()
    }

    pub(crate) fn syncs(&self) -> usize {
        self.state().syncs
    }

    /// How often a database on this medium was closed.
    pub(crate) fn closes(&self) -> usize {
        self.state().closes
    }

    /// How many stores and tests hold this medium.
    pub(crate) fn holders(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    /// Sets the fault, whose operations are counted from now on. `None` heals the medium.
    pub(crate) fn set_fault(&self, fault: impl Into<Option<Fault>>) {
        let mut state = self.state();
        state.fault = fault.into();
        state.seen = 0;
    }

    /// Stops the next operation of this kind. The first `wait` on the barrier returns once the operation has stopped,
    /// the second one lets it go on.
    pub(crate) fn hold_next(&self, on: Kind) -> Arc<Barrier> {
        let barrier = Arc::new(Barrier::new(2));
        self.state().hold = Some((on, Arc::clone(&barrier)));
        barrier
    }

    /// Whether the fault has happened.
    pub(crate) fn has_failed(&self) -> bool {
        let state = self.state();
        state.fault.is_some_and(|fault| state.seen > fault.at)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins an operation of this kind: waits for the hold, if there is one. The caller checks for the fault.
    fn begin(&self, kind: Kind) -> MutexGuard<'_, State> {
        let held = self.state().hold.take_if(|(on, _)| *on == kind);
        if let Some((_, barrier)) = held {
            barrier.wait();
            barrier.wait();
        }
        self.state()
    }
}

impl State {
    fn check(&mut self, kind: Kind) -> io::Result<()> {
        let Some(fault) = self.fault.filter(|fault| fault.on == kind || fault.on == Kind::Any) else {
            return Ok(());
        };
        let now = self.seen;
        self.seen += 1;
        if now < fault.at || (now > fault.at && !fault.sticky) {
            return Ok(());
        }
        match fault.how {
            How::Error(kind) => Err(io::Error::new(kind, "injected")),
            How::Panic => syncline_testkit::panic_quietly("injected"),
        }
    }
}

impl StorageBackend for CrashDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().image.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.begin(Kind::Read);
        state.check(Kind::Read)?;
        let start = usize::try_from(offset).unwrap();
        let data = state.image.get(start..start.saturating_add(out.len()));
        out.copy_from_slice(data.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.begin(Kind::Write);
        state.check(Kind::Write)?;
        let op = Op::SetLen(usize::try_from(len).unwrap());
        op.apply(&mut state.image);
        state.trace.push(op);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.begin(Kind::Sync);
        let outcome = state.check(Kind::Sync);
        state.syncs += 1;
        state.trace.push(if outcome.is_ok() { Op::Sync } else { Op::FailedSync });
        outcome
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.begin(Kind::Write);
        state.check(Kind::Write)?;
        let op = Op::Write { offset: usize::try_from(offset).unwrap(), data: data.to_vec() };
        op.apply(&mut state.image);
        state.trace.push(op);
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.state().closes += 1;
        Ok(())
    }
}

impl Op {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Self::Write { offset, data } => overwrite(image, *offset, data),
            Self::SetLen(len) => image.resize(*len, 0),
            Self::Sync | Self::FailedSync => {}
        }
    }
}

fn overwrite(image: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if image.len() < end {
        image.resize(end, 0);
    }
    image[offset..end].copy_from_slice(data);
}

/// A medium whose power fails after each operation in turn.
pub(crate) struct PowerCuts {
    trace: Vec<Op>,
    /// How many operations have happened.
    at: usize,
    durable: Vec<u8>,
    /// The operations that are not synced, in order.
    pending: Vec<Op>,
}

impl PowerCuts {
    /// Begins before the first operation of `trace`, on a medium with the content `image`.
    pub(crate) fn new(image: Vec<u8>, trace: Vec<Op>) -> Self {
        Self { trace, at: 0, durable: image, pending: Vec::new() }
    }

    /// How many operations have happened.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// Lets one more operation happen. Returns false after the last one.
    pub(crate) fn advance(&mut self) -> bool {
        let Some(op) = self.trace.get(self.at) else { return false };
        self.at += 1;
        match op {
            Op::Sync => self.pending.drain(..).for_each(|op| op.apply(&mut self.durable)),
            Op::FailedSync => self.pending.clear(),
            op => self.pending.push(op.clone()),
        }
        true
    }

    /// The contents that the medium may have if the power fails now, each with a name.
    ///
    /// A prefix of the pending operations is not built: it was the "all" of an earlier cut.
    pub(crate) fn images(&self, rng: &mut Rng) -> Vec<(&'static str, Vec<u8>)> {
        let mut images = vec![("none", self.durable.clone())];
        let Some(last) = self.pending.last() else { return images };
        images.push(("all", self.build(|_| true)));
        if self.pending.len() > 1 {
            for _ in 0..3 {
                let keep: Vec<bool> = self.pending.iter().map(|_| rng.below(2) == 0).collect();
                images.push(("subset", self.build(|index| keep[index])));
            }
            images.push(("last alone", self.build(|index| index + 1 == self.pending.len())));
        }
        let Op::Write { offset, data } = last else { return images };
        for (name, sector) in [("torn at 512", 512), ("torn at 4096", 4096)] {
            if data.len() > sector {
                let whole = (1 + rng.below((data.len() - 1) / sector)) * sector;
                let mut image = self.build(|index| index + 1 < self.pending.len());
                overwrite(&mut image, *offset, &data[..whole]);
                images.push((name, image));
            }
        }
        // The header gets no garbage: redb relies on a medium that writes a single sector of 512 bytes whole or not at
        // all.
        if *offset > 0 {
            let mut image = self.build(|index| index + 1 < self.pending.len());
            overwrite(&mut image, *offset, &rng.bytes(data.len()));
            images.push(("garbage", image));
        }
        images
    }

    fn build(&self, keep: impl Fn(usize) -> bool) -> Vec<u8> {
        let mut image = self.durable.clone();
        for (_, op) in self.pending.iter().enumerate().filter(|(index, _)| keep(*index)) {
            op.apply(&mut image);
        }
        image
    }
}
