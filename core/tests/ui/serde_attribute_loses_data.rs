use serde::{Deserialize, Serialize};
use syncline::Syncable;

#[derive(Clone, Serialize, Deserialize)]
struct Place {
    city: String,
}

#[derive(Clone, Serialize, Deserialize, Syncable)]
#[serde(tag = "kind")]
#[sync(model = "photo")]
struct Photo {
    #[sync(id)]
    id: u64,
    #[serde(skip)]
    cached: u8,
    #[serde(default, skip_serializing)]
    shelf: u8,
    #[serde(flatten)]
    place: Place,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rating: Option<u8>,
}

fn main() {}
