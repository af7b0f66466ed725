use serde::{Deserialize, Serialize};
use syncline::{DeviceId, DeviceOwned, Shared, Syncable, Uuid};

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

fn commit_shared<M: Syncable<Ownership = Shared>>(_: M) {}

fn commit_device_owned<M: Syncable<Ownership = DeviceOwned>>(_: M) {}

fn commits(location: Location, tag: Tag) {
    commit_shared(location);
    commit_device_owned(tag);
}

fn main() {}
