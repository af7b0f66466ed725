use serde::{Deserialize, Serialize};
use syncline::Syncable;

#[derive(Clone, Serialize, Deserialize, Syncable)]
#[sync(model = "tag")]
struct Tag {
    #[sync(id)]
    id: f64,
}

fn main() {}
