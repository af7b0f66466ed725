//! Goal: the bytes that the pages in `docs/` show are the bytes that the code writes and sends. Method: three replicas
//! live a short life on a clock that stands still; every row and frame of the pages is looked up in their stores and in
//! what they sent.
//!
//! A block of bytes in a page is announced by a comment: `<!-- row of A -->` or `<!-- frame of B -->`. With
//! `SYNCLINE_UPDATE_DOCS=1` the bytes are written into the page, line for line, where a row or a frame has kept its
//! length: a digest changes with whatever it covers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use async_trait::async_trait;
use bytes::Bytes;
use futures::executor::block_on;
use futures::future::{join3, poll_fn};
use serde::{Deserialize, Serialize};
use syncline::internals::{Rules, fuzz};
use syncline::{
    BoxError, Builder, DeviceId, Entry, GroupId, Incoming, KeyRange, Native, Projection, ReplicaId,
    ScanLimit, Storage, Syncable, TransactionManager, Transport, TransportError, Uuid, WallMs,
};
use syncline_backends::{MemoryNetwork, MemoryTransport};
use syncline_testkit::{Disk, Fixture, Reference, StepClock};

// --- what the pages show ------------------------------------------------------------------------------------------

/// The replicas of the pages, by the letters that the pages call them.
const REPLICAS: [(&str, ReplicaId); 3] = [("A", A), ("B", B), ("C", C)];

#[test]
fn the_rows_of_the_page_are_rows_of_a_store() {
    let life = live();
    if updates() {
        update("storage-format.md", "value", |block| life.rows[&block.of].get(&block.parts["key"]).cloned());
    }
    let mut kinds = BTreeSet::new();
    for Block { name, of, parts } in blocks("storage-format.md") {
        let ["key", "value"] = parts.keys().map(String::as_str).collect::<Vec<_>>()[..] else {
            panic!("a row has a key and a value, not {parts:?}")
        };
        assert_eq!(name, "row");
        let (key, value) = (&parts["key"], &parts["value"]);
        let rows = &life.rows[&of];
        let stored = rows.get(key).unwrap_or_else(|| {
            panic!("{of} has no row {}; these it has:\n{}", hex(key), listed(rows));
        });
        assert_eq!(hex(stored), hex(value), "{of} has another value in {}", hex(key));
        kinds.insert(kind(key));
    }
    let stored: BTreeSet<_> = life.rows.values().flat_map(BTreeMap::keys).map(|key| kind(key)).collect();
    assert_eq!(kinds, stored, "every kind of row that a store holds has an example in the page");
}

#[test]
fn the_frames_of_the_page_are_frames_that_were_sent() {
    let life = live();
    if updates() {
        update("protocol.md", "frame", |block| {
            // Only checksums and digests have changed, so the frame is the one that has most in common.
            let (shown, of) = (&block.parts["frame"], &block.of);
            let sent = life.frames.iter().filter(|(from, sent)| from == of && sent.len() == shown.len());
            let differs = |sent: &[u8]| sent.iter().zip(shown).filter(|(one, other)| one != other).count();
            sent.map(|(_, sent)| sent.clone()).min_by_key(|sent| differs(sent))
        });
    }
    let mut shown = 0;
    for Block { name, of, parts } in blocks("protocol.md") {
        assert_eq!(name, "frame");
        let frame = &parts["frame"];
        let sent: BTreeSet<_> =
            life.frames.iter().filter(|(from, _)| *from == of).map(|sent| &sent.1).collect();
        assert!(
            sent.iter().any(|sent| *sent == frame),
            "{of} sent no frame {}, but these:\n{}",
            hex(frame),
            sent.iter().fold(String::new(), |list, frame| list + &hex(frame) + "\n")
        );
        shown += 1;
    }
    assert!(shown > 0, "the page shows a frame");
}

#[test]
fn every_rule_of_the_protocol_has_its_section() {
    let page = page("protocol.md");
    let sections: BTreeSet<_> =
        page.lines().filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`')).collect();
    let rules = format!("{:?}", Rules::ALL);
    let rules: BTreeSet<_> =
        rules.split(['{', ',']).filter_map(|field| Some(field.split_once(':')?.0.trim())).collect();
    assert!(rules.len() > 10, "{rules:?}");
    assert_eq!(sections, rules, "the sections of the page, and the fields of `Rules`");
}

/// Links between the pages and into the sources: rustdoc checks only those that lead to items.
#[test]
fn links_lead_to_headings_and_files() {
    const PAGES: [&str; 6] = [
        "protocol.md",
        "storage-format.md",
        "properties.md",
        "stores.md",
        "writing-a-store.md",
        "writing-a-transport.md",
    ];
    let headings = |page: &str| -> BTreeSet<String> {
        let page = self::page(page);
        page.lines().filter(|line| line.starts_with('#')).map(anchor).collect()
    };
    let mut checked = 0;
    for name in PAGES {
        let page = page(name);
        let inline = page.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link);
        let defined =
            page.lines().filter(|line| line.starts_with('[')).filter_map(|line| line.split_once("]: "));
        for link in inline.chain(defined.map(|(_, link)| link)) {
            let (file, heading) = link.split_once('#').map_or((link, None), |(file, to)| (file, Some(to)));
            let path = format!("{}/../docs/{file}", env!("CARGO_MANIFEST_DIR"));
            assert!(std::path::Path::new(&path).exists(), "{name}: there is no {file}");
            if let Some(heading) = heading {
                let to = if file.is_empty() { name } else { file };
                assert!(headings(to).contains(heading), "{name}: {to} has no heading {heading}");
            }
            checked += 1;
        }
    }
    assert!(checked > 40, "{checked} links were found");
}

/// A page shows the file that it names in `<!-- source PATH -->`, from the first line that is not of its head.
#[test]
fn the_sources_of_the_pages_are_the_files_that_are_tested() {
    for name in ["writing-a-store.md", "writing-a-transport.md"] {
        let old = page(name);
        let mut pieces = old.split("<!-- source ");
        let mut new = pieces.next().unwrap().to_owned();
        let mut shown = 0;
        for piece in pieces {
            let (path, rest) = piece.split_once(" -->\n```rust\n").unwrap();
            let behind = rest.strip_prefix("```\n").or_else(|| Some(rest.split_once("\n```\n")?.1)).unwrap();
            let file =
                std::fs::read_to_string(format!("{}/../docs/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap();
            let head = |line: &&str| line.starts_with("//!") || line.starts_with("#![") || line.is_empty();
            let code = file.lines().skip_while(head).fold(String::new(), |code, line| code + line + "\n");
            write!(new, "<!-- source {path} -->\n```rust\n{code}```\n{behind}").unwrap();
            shown += 1;
        }
        assert!(shown > 0, "{name} shows no file");
        if updates() && new != old {
            std::fs::write(format!("{}/../docs/{name}", env!("CARGO_MANIFEST_DIR")), &new).unwrap();
        }
        assert!(page(name) == new, "{name} shows other code than its files: SYNCLINE_UPDATE_DOCS=1");
    }
}

/// What a link to a heading calls it.
fn anchor(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
    words.chars().filter(|c| c.is_alphanumeric() || ['-', '_'].contains(c)).collect()
}

/// Bytes that a page shows.
struct Block {
    /// What they are.
    name: String,
    /// Whose.
    of: String,
    /// By what stands in front of them.
    parts: BTreeMap<String, Vec<u8>>,
}

fn page(name: &str) -> String {
    let path = format!("{}/../docs/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The blocks of bytes in a page. A line has a label or none, bytes in hex, two spaces, and words that explain them.
fn blocks(name: &str) -> Vec<Block> {
    let page = page(name);
    let mut lines = page.lines();
    let mut blocks = Vec::new();
    while let Some(line) = lines.next() {
        let marker = line.strip_prefix("<!-- ").and_then(|line| line.strip_suffix(" -->"));
        let Some((name, of)) = marker.and_then(|marker| marker.split_once(" of ")) else { continue };
        assert_eq!(lines.next(), Some("```text"), "what follows {line}");
        let mut parts = BTreeMap::<_, Vec<u8>>::new();
        let mut label = "";
        for line in lines.by_ref().take_while(|line| *line != "```") {
            if !line.starts_with(' ') {
                label = line.split(' ').next().unwrap();
            }
            let bytes = line.strip_prefix(label).unwrap_or(line).trim_start();
            let bytes = bytes.split("  ").next().unwrap();
            parts.entry(label.to_owned()).or_default().extend(unhex(bytes));
        }
        blocks.push(Block { name: name.to_owned(), of: of.to_owned(), parts });
    }
    blocks
}

/// Whether the pages are to be written.
fn updates() -> bool {
    std::env::var_os("SYNCLINE_UPDATE_DOCS").is_some()
}

/// Writes the bytes that `found` gives for a block into the page, behind the label, if they are as long as those that
/// the page shows.
fn update(name: &str, label: &str, found: impl Fn(&Block) -> Option<Vec<u8>>) {
    let mut page: Vec<String> = page(name).lines().map(str::to_owned).collect();
    let mut from = 0;
    for block in blocks(name) {
        let at = from + page[from..].iter().position(|line| line.starts_with("<!-- ")).unwrap();
        let end = at + page[at..].iter().position(|line| line == "```").unwrap();
        from = end;
        let Some(bytes) = found(&block).filter(|bytes| bytes.len() == block.parts[label].len()) else {
            continue;
        };
        let first = at + page[at..end].iter().position(|line| line.starts_with(label)).unwrap();
        let mut rest = bytes.as_slice();
        for line in &mut page[first..end] {
            let digits = line[7..].split("  ").next().unwrap().len();
            let (bytes, behind) = rest.split_at(digits / 2);
            *line = format!("{}{}{}", &line[..7], hex(bytes), &line[7 + digits..]);
            rest = behind;
        }
    }
    let path = format!("{}/../docs/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::write(path, page.join("\n") + "\n").unwrap();
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: String = text.split(' ').collect();
    assert!(digits.len().is_multiple_of(2), "half a byte in {text:?}");
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap_or_else(|_| panic!("no hex: {text:?}")))
        .collect()
}

fn listed(rows: &Rows) -> String {
    rows.iter().fold(String::new(), |list, (key, value)| list + &hex(key) + "\n    " + &hex(value) + "\n")
}

/// What kind of row a key is of, told by its first byte and, for the small rows, by its name.
fn kind(key: &[u8]) -> String {
    const NAMES: [&str; 6] = ["store", "clock", "model", "projection", "introducer", "fork"];
    match (key[0], std::str::from_utf8(&key[1..key.len().min(11)])) {
        (0x01, _) => NAMES.into_iter().find(|name| key[1..].starts_with(name.as_bytes())).unwrap().into(),
        (0x10..0x70, _) => "shared record".into(),
        (0x70..0xd0, _) => "owned record".into(),
        (other, _) => format!("{other:02x}"),
    }
}

// --- the life that they show --------------------------------------------------------------------------------------

#[derive(Clone, Debug, Serialize, Deserialize, Syncable)]
#[sync(model = "tag")]
struct Tag {
    #[sync(id)]
    id: u32,
    name: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, Syncable)]
#[sync(model = "place")]
struct Place {
    #[sync(id)]
    id: u32,
    device_id: DeviceId,
    path: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, Syncable)]
#[sync(model = "basket", merge = united)]
struct Basket {
    #[sync(id)]
    id: u32,
    items: BTreeSet<u32>,
}

fn united(mut one: Basket, other: Basket) -> Basket {
    one.items.extend(other.items);
    one
}

/// The names of tags, in a table of the app, which takes no "green". What it writes there is of no interest here.
struct Names;

impl Projection<Reference> for Names {
    type Model = Tag;
    const NAME: &'static str = "names";
    const VERSION: u32 = 1;

    fn reset(&self, _: &Native<'_, Reference>) -> Result<(), BoxError> {
        Ok(())
    }

    fn put(&self, _: &Native<'_, Reference>, tag: &Tag) -> Result<(), BoxError> {
        if tag.name == "green" { Err("no green".into()) } else { Ok(()) }
    }

    fn delete(&self, _: &Native<'_, Reference>, _: &u32) -> Result<(), BoxError> {
        Ok(())
    }
}

const fn repeated(byte: u8) -> Uuid {
    Uuid::from_bytes([byte; 16])
}

const GROUP: GroupId = GroupId(repeated(0x99));
const A: ReplicaId = ReplicaId(repeated(0xaa));
const B: ReplicaId = ReplicaId(repeated(0xbb));
const C: ReplicaId = ReplicaId(repeated(0xcc));
const DEVICE_OF_A: DeviceId = DeviceId(repeated(0xa1));
const DEVICE_OF_B: DeviceId = DeviceId(repeated(0xb1));
const DEVICE_OF_C: DeviceId = DeviceId(repeated(0xc1));
const START_MS: u64 = 1_700_000_000_000;

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;
type Frames = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// What became of it.
struct Life {
    rows: BTreeMap<String, Rows>,
    frames: Vec<(String, Vec<u8>)>,
}

/// A founds the group and commits, B joins without knowing baskets and commits once, C only begins to join.
fn live() -> Life {
    let (network, clock) = (MemoryNetwork::builder().build(), StepClock::at(START_MS));
    stand_at(&clock, START_MS);
    let disks = REPLICAS.map(|_| Disk::new());
    let frames = Frames::default();
    let builder = |at: usize, store| replica(at, store, &network, &clock, &frames);
    block_on(async {
        let store = disks[0].open().await.unwrap();
        let a = builder(0, store).device(DEVICE_OF_A).found(GROUP).project(Names).model::<Basket>();
        let (a, driver_of_a) = a.open().await.unwrap();
        let store = disks[1].open().await.unwrap();
        let b = builder(1, store).device(DEVICE_OF_B).join(GROUP, A);
        let (b, driver_of_b) = b.open().await.unwrap();
        let acked = async |seq| {
            let known = async || {
                let peers = a.status().await.unwrap().peers;
                peers.iter().any(|peer| peer.replica == B && peer.acknowledged == seq)
            };
            until("B has acknowledged", &clock, known).await;
            stand_at(&clock, START_MS + seq);
        };
        let app = async {
            stand_at(&clock, START_MS + 1);
            a.add_member_on(B, DEVICE_OF_B).await.unwrap();
            acked(2).await;
            a.commit(Tag { id: 1, name: "red".into() }).await.unwrap();
            acked(3).await;
            let place = Place { id: 1, device_id: DEVICE_OF_A, path: "/a".into() };
            let both = a.commit_batch(move |batch| {
                batch.put(&Tag { id: 1, name: "blue".into() })?;
                Ok(batch.put(&place)?)
            });
            both.await.unwrap();
            acked(4).await;
            a.commit(Basket { id: 1, items: [1].into() }).await.unwrap();
            acked(5).await;
            a.delete::<Basket>(1).await.unwrap();
            acked(6).await;
            a.commit(Basket { id: 1, items: [2].into() }).await.unwrap();
            acked(7).await;
            a.commit(Basket { id: 1, items: [3].into() }).await.unwrap();
            acked(8).await;
            b.commit(Tag { id: 2, name: "green".into() }).await.unwrap();
            until("A has B's tag", &clock, async || a.get::<Tag>(2).await.unwrap().is_some()).await;
            // Long enough for a hello, with which the rows of peers are written.
            clock.advance(60_000);
            turns(100, &clock).await;
            // B says that A once acknowledged a fifth commit of B's.
            let place = [&[16][..], B.as_bytes(), &[5], &[7; 32]].concat();
            network.inject(B, A, fuzz::seal(GROUP, 7, &place)).unwrap();
            let restored = async || a.status().await.unwrap().restored.is_some();
            until("A takes itself for restored", &clock, restored).await;
            turns(100, &clock).await;
            a.shutdown().await.unwrap();
            b.shutdown().await.unwrap();
        };
        let (of_a, of_b, ()) = join3(driver_of_a.run(), driver_of_b.run(), app).await;
        of_a.unwrap();
        of_b.unwrap();
        let store = disks[2].open().await.unwrap();
        let c = builder(2, store).device(DEVICE_OF_C).join(GROUP, A).open().await.unwrap();
        drop(c);

        let mut rows = BTreeMap::new();
        for ((letter, _), disk) in REPLICAS.iter().zip(&disks) {
            let entries =
                disk.open().await.unwrap().scan(KeyRange::all(), ScanLimit::NONE).await.unwrap().entries;
            let entries = entries.into_iter().map(|Entry { key, value }| (key, value));
            rows.insert((*letter).to_owned(), entries.collect());
        }
        let frames = frames.lock().unwrap().clone();
        Life { rows, frames }
    })
}

fn replica(
    at: usize,
    store: Reference,
    network: &MemoryNetwork,
    clock: &StepClock,
    frames: &Frames,
) -> Builder<Reference> {
    let (letter, id) = REPLICAS[at];
    TransactionManager::builder(store)
        .replica(id)
        .seed(1)
        // The page shows a log, which would be pruned before the rows of peers are written.
        .rules(Rules { prunes_by_acks: false, ..Rules::ALL })
        .model::<Tag>()
        .model::<Place>()
        .clock(clock.clone())
        .transport(Overheard { inner: network.transport(), of: letter, frames: Arc::clone(frames) })
}

/// A transport that remembers what was sent.
struct Overheard {
    inner: MemoryTransport,
    of: &'static str,
    frames: Frames,
}

#[async_trait]
impl Transport for Overheard {
    async fn attach(&self, me: ReplicaId) -> Result<(), TransportError> {
        self.inner.attach(me).await
    }

    async fn send(&self, to: ReplicaId, frame: Bytes) -> Result<(), TransportError> {
        self.frames.lock().unwrap().push((self.of.to_owned(), frame.to_vec()));
        self.inner.send(to, frame).await
    }

    async fn receive(&self) -> Result<Incoming, TransportError> {
        self.inner.receive().await
    }
}

/// Lets all walls show this, however often the drivers run: each commit of a replica has a millisecond of its own.
fn stand_at(clock: &StepClock, wall_ms: u64) {
    clock.set_wall(WallMs::new(wall_ms));
    clock.freeze_wall();
}

/// Lets the drivers run, and the timer pass, until `condition` holds.
async fn until(what: &str, clock: &StepClock, mut condition: impl AsyncFnMut() -> bool) {
    let mut left = 1000;
    while !condition().await {
        left -= 1;
        assert!(left > 0, "{what}");
        turns(1, clock).await;
    }
}

/// Lets the drivers run so many times.
async fn turns(count: u32, clock: &StepClock) {
    for _ in 0..count {
        clock.advance(10);
        let mut gone = false;
        poll_fn(|context| {
            context.waker().wake_by_ref();
            if std::mem::replace(&mut gone, true) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}
