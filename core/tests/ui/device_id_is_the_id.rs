use syncline::{DeviceId, Syncable};

#[derive(Syncable)]
#[sync(model = "nickname")]
struct Nickname {
    #[sync(id)]
    device_id: DeviceId,
}

fn main() {}
