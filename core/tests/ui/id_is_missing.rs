use syncline::Syncable;

#[derive(Syncable)]
#[sync(model = "tag")]
struct Tag {
    id: u64,
    name: String,
}

fn main() {}
