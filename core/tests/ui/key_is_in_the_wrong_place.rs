use syncline::Syncable;

#[derive(Syncable)]
#[sync(id)]
struct Tag {
    #[sync(model = "tag")]
    id: u64,
}

fn main() {}
