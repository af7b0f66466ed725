use syncline::Syncable;

#[derive(Syncable)]
struct Tag {
    #[sync(id)]
    id: u64,
}

fn main() {}
