use serde::{Deserialize, Serialize};
use syncline::{Syncable, Uuid};

#[derive(Clone, Serialize, Deserialize, Syncable)]
#[sync(model = "location")]
struct Location {
    #[sync(id)]
    id: Uuid,
    device_id: Uuid,
}

fn main() {}
