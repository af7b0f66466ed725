//! The program of the README.
#![allow(clippy::disallowed_methods, reason = "an app may read the clock for its ids")]

use serde::{Deserialize, Serialize};
use syncline::{DeviceId, Syncable, TransactionManager, Uuid};
use syncline_backends::{MemoryNetwork, RedbStorage};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Syncable)]
#[sync(model = "tag")] // no `device_id` field: shared
struct Tag {
    #[sync(id)]
    id: Uuid,
    name: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Syncable)]
#[sync(model = "location")] // a `device_id` field: only that device may change it
struct Location {
    #[sync(id)]
    id: Uuid,
    device_id: DeviceId,
    path: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (data, network) = (std::path::Path::new("quickstart-data"), MemoryNetwork::new()); // an app brings its transport
    std::fs::create_dir_all(data)?;
    let (a, driver) = TransactionManager::builder(RedbStorage::open(data.join("laptop.redb"))?)
        .found_new()
        .transport(network.transport())
        .model::<Tag>()
        .model::<Location>()
        .open()
        .await?;
    tokio::spawn(driver.run());
    let (b, driver) = TransactionManager::builder(RedbStorage::open(data.join("phone.redb"))?)
        .join(a.group(), a.replica())
        .transport(network.transport())
        .model::<Tag>()
        .model::<Location>()
        .open()
        .await?;
    let mut events = b.events();
    tokio::spawn(driver.run());
    a.add_member(b.replica()).await?; // it knocks, and the laptop's user says yes: see `Event::Knocks`

    let (id, name) = (Uuid::now_v7(), "holiday".to_owned());
    let photos = Location { id: Uuid::now_v7(), device_id: a.device(), path: "/photos".into() };
    a.commit_batch(move |batch| {
        batch.put(&Tag { id, name })?;
        batch.put(&photos)?;
        Ok(())
    })
    .await?; // one commit, here and there
    while let Some(Ok(told)) = events.next_together().await {
        if told.len() == 2 {
            break;
        }
    } // each commit as a whole
    assert!(b.get::<Tag>(id).await?.is_some());
    println!("{:#?}", b.status().await?);
    Ok(b.shutdown().await?)
}

#[cfg(test)]
mod tests {
    //! Goal: the program of the README, copied into a new crate with the dependencies above it, works at every start.
    //! Method: this file is that program; it is started three times in one directory.

    use std::collections::BTreeSet;

    const README: &str = include_str!("../../README.md");
    const MANIFEST: &str = include_str!("../../Cargo.toml");

    /// The block of the README that begins with this line, without its fences.
    fn block(begin: &str) -> &'static str {
        let (_, rest) = README.split_once(begin).unwrap();
        rest.split_once("```").unwrap().0
    }

    #[test]
    fn it_can_be_started_again_and_again() {
        let directory = tempfile::tempdir().unwrap();
        std::env::set_current_dir(&directory).unwrap();
        for start in 1..=3 {
            super::main().unwrap_or_else(|error| panic!("start {start}: {error}"));
        }
        assert!(directory.path().join("quickstart-data/phone.redb").exists());
    }

    #[test]
    fn it_is_the_program_of_the_readme() {
        // The README is denser than rustfmt writes.
        let dense = |text: &str| {
            let text: String = text.split_whitespace().collect();
            [(",}", "}"), (",)", ")"), ("{{", "{"), ("}}", "}")]
                .iter()
                .fold(text, |text, (a, b)| text.replace(a, b))
        };
        let here = include_str!("quickstart.rs");
        let begin = here.find("use serde").unwrap();
        let end = here.find("#[cfg(test)]").unwrap();
        assert_eq!(dense(&here[begin..end]), dense(block("```rust,no_run\n")));
    }

    #[test]
    fn the_readme_names_the_crates_that_it_uses() {
        let program = block("```rust,no_run\n");
        let named = block("behind [dependencies]\n").lines().map(|line| line.split_once(" = ").unwrap());
        let mut crates = BTreeSet::from(["std".to_owned()]);
        for (name, version) in named {
            let path = name.replace('-', "_");
            assert!(program.contains(&format!("{path}::")), "the program does not use {name}");
            let numbers = version.split('"').find(|part| part.starts_with(char::is_numeric)).unwrap();
            let tested = MANIFEST.lines().find(|line| line.starts_with(&format!("{name} = "))).unwrap();
            assert!(tested.contains(&format!("\"{numbers}.")), "the workspace tests {tested}");
            crates.insert(path);
        }
        // A word in small letters before `::` is a crate, unless it is the type of a method's call.
        for (at, _) in program.match_indices("::") {
            let before = program[..at]
                .rsplit(|c: char| !c.is_alphanumeric() && c != '_' && c != ':' && c != '.')
                .next()
                .unwrap();
            let root = before.split("::").next().unwrap();
            if root.starts_with(char::is_lowercase) && !root.contains('.') {
                assert!(crates.contains(root), "the dependencies have no {root}");
            }
        }
    }
}
