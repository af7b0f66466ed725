//! The program of the README.
#![allow(clippy::disallowed_methods, reason = "an app may read the clock for its ids")]

use serde::{Deserialize, Serialize};
use syncline::{DeviceId, GroupId, Syncable, TransactionManager, Uuid};
use syncline_backends::RedbStorage;

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
    let data = tempfile::tempdir()?; // an app has a directory for its data, and keeps its device id there
    let device = DeviceId::new();
    let (library, driver) = TransactionManager::builder(RedbStorage::open(data.path().join("library.redb"))?)
        .device(device)
        .found(GroupId::new())
        .model::<Tag>()
        .model::<Location>()
        .open()
        .await?;
    tokio::spawn(driver.run());

    let tag = library.commit_shared(Tag { id: Uuid::now_v7(), name: "holiday".into() }).await?;
    let photos = library
        .commit_device_owned(Location { id: Uuid::now_v7(), device_id: device, path: "/photos".into() })
        .await?;
    let beach = Tag { name: "beach".into(), ..tag.clone() };
    library
        .commit_batch(move |batch| {
            batch.put(&beach)?;
            batch.delete::<Location>((device, photos.id))?;
            Ok(())
        })
        .await?;
    assert_eq!(library.get::<Tag>(tag.id).await?.map(|t| t.name), Some("beach".into()));
    println!("{:#?}", library.status().await?);
    library.shutdown().await?;
    Ok(())
}
