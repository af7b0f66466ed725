use syncline::Syncable;

#[derive(Syncable)]
#[sync(model = "tag")]
struct Tag {
    #[sync(id)]
    id: u64,
    #[sync(id)]
    name: String,
}

fn main() {}
