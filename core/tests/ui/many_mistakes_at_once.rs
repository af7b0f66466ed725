use syncline::{DeviceId, Syncable};

#[derive(Syncable)]
#[sync(modle = "location", schema = 0)]
#[sync(crate = "syncline")]
struct Location<T> {
    #[sync(id, schema = 2)]
    id: u64,
    #[sync(id)]
    device_id: DeviceId,
    path: T,
}

fn main() {}
