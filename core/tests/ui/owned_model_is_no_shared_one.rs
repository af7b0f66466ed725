use serde::{Deserialize, Serialize};
use syncline::{DeviceId, Syncable, TransactionManager, Uuid};

#[derive(Clone, Serialize, Deserialize, Syncable)]
#[sync(model = "location")]
struct Location {
    #[sync(id)]
    id: Uuid,
    device_id: DeviceId,
}

#[derive(Clone, Serialize, Deserialize, Syncable)]
#[sync(model = "tag")]
struct Tag {
    #[sync(id)]
    id: Uuid,
}

async fn commits(library: TransactionManager, location: Location, tag: Tag) {
    let _ = library.commit_shared(location).await;
    let _ = library.commit_device_owned(tag).await;
}

fn main() {}
