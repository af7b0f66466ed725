//! The program of the README.
#![allow(clippy::disallowed_methods, reason = "an app may read the clock for its ids")]

use serde::{Deserialize, Serialize};
use syncline::{DeviceId, GroupId, Syncable, TransactionManager, Uuid};
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
    let (data, network) = (tempfile::tempdir()?, MemoryNetwork::new()); // an app has its own directory and transport
    let (laptop, phone, group) = (DeviceId::new(), DeviceId::new(), GroupId::new());
    let (a, driver) = TransactionManager::builder(RedbStorage::open(data.path().join("laptop.redb"))?)
        .device(laptop)
        .found(group)
        .transport(network.transport())
        .model::<Tag>()
        .model::<Location>()
        .open()
        .await?;
    tokio::spawn(driver.run());
    let founder = a.status().await?.replica;
    let (b, driver) = TransactionManager::builder(RedbStorage::open(data.path().join("phone.redb"))?)
        .device(phone)
        .join(group, founder)
        .transport(network.transport())
        .model::<Tag>()
        .model::<Location>()
        .open()
        .await?;
    let mut events = b.events();
    tokio::spawn(driver.run());
    a.add_member(b.status().await?.replica).await?; // it knocks, and the laptop's user says yes: see `Event::Knocks`

    let tag = Tag { id: Uuid::now_v7(), name: "holiday".into() };
    let photos = Location { id: Uuid::now_v7(), device_id: laptop, path: "/photos".into() };
    a.commit_batch(move |batch| {
        batch.put(&tag)?;
        batch.put(&photos)?;
        Ok(())
    })
    .await?; // one commit, here and there
    while let Some(Ok(told)) = events.next_together().await {
        if told.len() == 2 {
            break;
        }
    } // each commit as a whole
    assert_eq!(b.list::<Tag>().next_page().await?.map(|tags| tags.len()), Some(1));
    println!("{:#?}", b.status().await?);
    Ok(b.shutdown().await?)
}
