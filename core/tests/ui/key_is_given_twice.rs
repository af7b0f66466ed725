use syncline::Syncable;

#[derive(Syncable)]
#[sync(model = "tag", schema = 2)]
#[sync(model = "label")]
struct Tag {
    #[sync(id, id)]
    id: u64,
}

fn main() {}
