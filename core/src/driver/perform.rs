//! Performs the engine's effects.

use std::future::Future;
use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Release;

use futures::FutureExt;
use futures::future::{BoxFuture, Either, select};
use tracing::{Instrument, Span};

use crate::engine::{Answer, Effect, Input, JobId, Pen, Query, Unwritten};
use crate::error::{Error, StopReason, panic_message};
use crate::in_pieces;
use crate::joined::{Undone, Work};
use crate::pages::PAGE;
use crate::projection::{Mended, Next};
use crate::storage::{Key, KeyRange, ReadError, Storage, WriteError};
use crate::transport::TransportError;

use super::channels::OpenStore;
use super::line::unless_it_panics;
use super::{Driver, Yield, answer, next_control, next_done, trace};

/// The result of projecting or joining without any work to do. The engine never asks for that.
const NO_PROJECTIONS: Error = Error::Stopped(StopReason::DriverDropped);

impl<S: Storage> Driver<S> {
    /// Performs one effect. The work of the store goes on beside everything else.
    pub(super) async fn perform(&mut self, effect: Effect) -> Result<(), StopReason> {
        let Some(open) = self.store.clone() else { return Err(StopReason::DriverDropped) };
        let span = trace::span(self.engine.me(), &effect);
        if matches!(effect, Effect::Reply(..) | Effect::Notify(_)) {
            self.channels.own_commits.store(self.engine.own_commits(), Release);
        }
        match effect {
            Effect::Read(job, keys) => self.begin(span, async move {
                let values = in_pieces::get_many(&open.store, &keys).await;
                Ok(Input::Read(job, keys, values))
            }),
            Effect::Scan(job, range, limit) => {
                self.begin(span, async move { Ok(Input::Scanned(job, open.store.scan(range, limit).await)) })
            }
            Effect::Write(job, batch) => self.begin(span, async move {
                match in_pieces::write(&open.store, batch).await {
                    Ok(()) => Ok(Input::Written(job, Ok(()))),
                    Err(WriteError::Rejected(error)) => {
                        Ok(Input::Written(job, Err(Unwritten::Rejected(Arc::from(error)))))
                    }
                    Err(WriteError::TooLarge(error)) => {
                        Ok(Input::Written(job, Err(Unwritten::TooLarge(Arc::from(error)))))
                    }
                    Err(WriteError::Unknown(error)) => Err(StopReason::Unknown(Arc::from(error))),
                    Err(WriteError::Fenced) => Err(StopReason::Fenced),
                }
            }),
            Effect::Round(job, round, pen) => {
                let work = self.projections.clone().map(|all| all.round(round));
                self.begin_join(span, open, job, *pen, work)
            }
            Effect::Join(job, ticket, pen) => {
                let work = self.joins.remove(&ticket);
                self.begin_join(span, open, job, *pen, work)
            }
            Effect::Receive(job, commits, pen) => {
                let work = self.projections.clone().map(|all| all.receive(commits));
                self.begin_join(span, open, job, *pen, work)
            }
            Effect::WriteProjected(job, batch) => match self.projections.clone() {
                Some(all) => self.begin(span, async move {
                    let written = all.write(&open.store, batch).await?;
                    Ok(Input::Projected(job, written))
                }),
                None => self.begin(span, async move { Ok(Input::Projected(job, Err(NO_PROJECTIONS))) }),
            },
            Effect::Mend(job) => match self.projections.clone() {
                Some(all) => {
                    self.begin(span, async move { Ok(Input::Mended(job, all.mend(&open.store).await?)) })
                }
                None => self.begin(span, async move {
                    Ok(Input::Mended(job, Mended { told: None, next: Next::Done }))
                }),
            },
            Effect::Folded => {
                self.channels.folding.store(false, Release);
                Ok(())
            }
            Effect::Folding => {
                self.channels.folding.store(true, Release);
                Ok(())
            }
            Effect::Overlay(overlay) => {
                self.channels.overlay.set(overlay);
                Ok(())
            }
            Effect::Find(job, query) => self.begin(span, async move {
                let answer = match query {
                    Query::Scan(range, limit) => open.store.scan(range, limit).await.map(Answer::Page),
                    Query::Get(keys) => open.store.get_many(&keys).await.map(Answer::Values),
                    Query::Count(range) => {
                        count(&open.store, range).await.map(|(rows, bytes)| Answer::Count(rows, bytes))
                    }
                };
                Ok(Input::Found(job, answer))
            }),
            Effect::Send(to, frame) => {
                if let Some(transport) = self.line.transport.clone() {
                    self.hand_over(async move { transport.send(to, frame).await }.boxed()).await?;
                }
                Ok(())
            }
            Effect::Broadcast(members, frame) => {
                if let Some(transport) = self.line.transport.clone() {
                    self.hand_over(async move { transport.broadcast(&members, frame).await }.boxed()).await?;
                }
                Ok(())
            }
            Effect::Reply(ticket, result) => {
                // A joined write that was refused before its turn still has its work here.
                self.joins.remove(&ticket);
                if let Some(waiting) = self.waiting.remove(&ticket) {
                    // The caller may no longer wait; its commit stands all the same.
                    let _ = waiting.reply.send(result);
                }
                Ok(())
            }
            Effect::Knocked(ticket, device) => {
                self.callers.knocked(ticket, device);
                Ok(())
            }
            Effect::Checked(ticket, result) => {
                self.callers.checked(ticket, result);
                Ok(())
            }
            Effect::Synced(ticket, answer) => {
                trace::synced(self.engine.me(), &answer);
                self.callers.is_synced(ticket, answer);
                Ok(())
            }
            Effect::Durable(ticket, wanted, answer) => {
                trace::durable(self.engine.me(), wanted, &answer);
                self.callers.is_durable(ticket, answer);
                Ok(())
            }
            Effect::Notify(notice) => {
                trace::notice(self.engine.me(), &notice);
                self.channels.notify(notice);
                Ok(())
            }
        }
    }

    fn begin_join(
        &mut self,
        span: Span,
        open: Arc<OpenStore<S>>,
        job: JobId,
        pen: Pen,
        work: Option<Work<S>>,
    ) -> Result<(), StopReason> {
        self.begin(span, async move {
            match work {
                Some(work) => Ok(Input::Joined(job, work(&open.store, pen).await?)),
                // The engine asks only for joined writes that brought their work, or that projections take.
                None => Ok(Input::Joined(job, Err(Undone::All(NO_PROJECTIONS)))),
            }
        })
    }

    /// Begins work of the store and tells the engine its result, at once if it is ready at once.
    ///
    /// A panic of the store stops the replica: the outcome of a write that it interrupted is unknown.
    fn begin(
        &mut self,
        span: Span,
        work: impl Future<Output = Result<Input, StopReason>> + Send + 'static,
    ) -> Result<(), StopReason> {
        let mut work = catch_panic(work).map(Result::flatten).instrument(span).boxed();
        match (&mut work).now_or_never() {
            Some(done) => self.engine.handle(self.line.now(), done?),
            None => self.running.push(work),
        }
        Ok(())
    }

    /// Hands a frame over to the transport. That it was lost needs no answer: a peer pulls the commits of a lost frame.
    async fn hand_over(
        &mut self,
        sends: BoxFuture<'static, Result<(), TransportError>>,
    ) -> Result<(), StopReason> {
        if let Err(panicked) = self.while_serving(unless_it_panics(sends)).await? {
            self.line.lost(&panicked, &mut self.engine, &self.channels);
        }
        Ok(())
    }

    /// Waits for `operation`, and meanwhile takes results of the store and answers managers.
    async fn while_serving<T>(&mut self, operation: impl Future<Output = T>) -> Result<T, StopReason> {
        let Self { engine, channels, running, line, callers, .. } = self;
        let mut operation = pin!(operation);
        loop {
            let (done, control) = (pin!(next_done(running)), pin!(next_control(&mut channels.control)));
            match select(operation.as_mut(), select(done, control)).await {
                Either::Left((result, _)) => return Ok(result),
                Either::Right((Either::Left((done, _)), _)) => engine.handle(line.now(), done?),
                Either::Right((Either::Right((control, _)), _)) => {
                    answer(engine, line, callers, &mut channels.requests, control);
                }
            }
        }
    }
}

/// Counts the entries of a range, and their bytes.
async fn count(store: &impl Storage, range: KeyRange) -> Result<(u64, u64), ReadError> {
    let (mut rows, mut bytes, mut rest) = (0_u64, 0_u64, Some(range));
    while let Some(range) = rest.take() {
        let mut last = Key::new();
        let mut each = |key: &[u8], value: &[u8]| {
            rows += 1;
            bytes += (key.len() + value.len()) as u64;
            last.clear();
            last.extend_from_slice(key);
            ControlFlow::Continue(())
        };
        let more = store.visit(range.clone(), PAGE, &mut each).await?;
        rest = (more && !last.is_empty()).then(|| range.after(&last));
        // A long range must not keep other tasks from running.
        Yield::default().await;
    }
    Ok((rows, bytes))
}

async fn catch_panic<T>(work: impl Future<Output = T>) -> Result<T, StopReason> {
    let ended = AssertUnwindSafe(work).catch_unwind().await;
    ended.map_err(|panic| StopReason::Panicked(panic_message(&*panic)))
}
