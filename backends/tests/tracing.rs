//! Goal: the spans and events that the documentation names are told, with the fields that it names. Method: two replicas
//! on stores in memory, one of which has a projection that refuses and a clock an hour ahead, under a subscriber that
//! notes what it hears.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fmt::{Debug, Write as _};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use syncline::{BoxError, DeviceId, GroupId, Native, Projection, Syncable, TransactionManager};
use syncline_backends::{MemoryNetwork, MemoryStorage};
use syncline_testkit::{Disk, Fixture as _, Reference, StepClock};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Notes each span and event as its name or message and its fields.
#[derive(Clone, Default)]
struct Heard(Arc<(Mutex<Vec<String>>, AtomicU64)>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ =
            if field.name() == "message" { write!(self.0, "{value:?}") } else { write!(self.0, " {field}") };
    }
}

impl Heard {
    fn note(&self, name: &str, fields: impl FnOnce(&mut Line)) {
        let mut line = Line(name.to_owned());
        fields(&mut line);
        self.0.0.lock().unwrap().push(line.0);
    }
}

impl Subscriber for Heard {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "syncline"
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.note(span.metadata().name(), |line| span.record(line));
        Id::from_u64(self.0.1.fetch_add(1, Relaxed) + 1)
    }

    fn event(&self, event: &Event<'_>) {
        self.note("", |line| event.record(line));
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[derive(Clone, Debug, Serialize, Deserialize, Syncable)]
#[sync(model = "word")]
struct Word {
    #[sync(id)]
    id: u32,
    text: String,
}

fn word(id: u32, text: &str) -> Word {
    Word { id, text: text.into() }
}

/// A table of the app that takes no word.
struct Words;

impl Projection<Reference> for Words {
    type Model = Word;
    const NAME: &'static str = "words";
    const VERSION: u32 = 1;

    fn reset(&self, _: &Native<'_, Reference>) -> Result<(), BoxError> {
        Ok(())
    }

    fn put(&self, _: &Native<'_, Reference>, _: &Word) -> Result<(), BoxError> {
        Err("none".into())
    }

    fn delete(&self, _: &Native<'_, Reference>, _: &u32) -> Result<(), BoxError> {
        Ok(())
    }
}

#[tokio::test]
async fn what_the_documentation_names_is_told() {
    let heard = Heard::default();
    let _guard = tracing::subscriber::set_default(heard.clone());
    let (network, clock) = (MemoryNetwork::new(), StepClock::at(1_700_000_000_000));
    let (group, ahead) = (GroupId::new(), clock.another());
    let builder = TransactionManager::builder(MemoryStorage::new()).device(DeviceId::new()).found(group);
    let builder = builder.clock(ahead.clone()).transport(network.transport()).model::<Word>();
    let (a, driver) = builder.open().await.unwrap();
    let a_runs = tokio::spawn(driver.run());
    let store = Disk::new().open().await.unwrap();
    let builder = TransactionManager::builder(store).device(DeviceId::new()).join(group, a.replica());
    let builder = builder.clock(clock.clone()).transport(network.transport()).project(Words);
    let (b, driver) = builder.open().await.unwrap();
    let b_runs = tokio::spawn(driver.run());
    a.add_member(b.replica()).await.unwrap();
    let until = async |what: &str| {
        for _ in 0..20_000 {
            if heard.0.0.lock().unwrap().iter().any(|line| line.contains(what)) {
                return;
            }
            clock.advance(10);
            tokio::task::yield_now().await;
        }
        panic!("{what:?} was not told; this was: {:#?}", heard.0.0.lock().unwrap());
    };
    a.commit(word(1, "owed")).await.unwrap();
    until("projection replica name state debts").await;
    ahead.step_wall(3_600_000);
    a.commit(word(2, "held")).await.unwrap();
    until("stop replica stream reason").await;
    clock.advance(3_700_000);
    until("resume replica stream").await;
    let _ = a.wait_synced(Duration::ZERO).await.unwrap();
    let _ = a.wait_durable_on(1, a.last_commit().unwrap(), Duration::ZERO).await.unwrap();
    network.disconnect(a.replica(), b.replica());
    a.commit(word(3, "pulled")).await.unwrap();
    network.heal();
    for what in [
        "write replica kind rows",
        "write replica kind",
        "page replica",
        "commit replica stream seq changes",
        "peer up replica peer",
        "peer down replica peer",
        "synced replica outcome with away stopped differ",
        "durable replica stream seq on wanted",
    ] {
        until(what).await;
    }
    a.shutdown().await.unwrap();
    b.shutdown().await.unwrap();
    a_runs.await.unwrap().unwrap();
    b_runs.await.unwrap().unwrap();
}
