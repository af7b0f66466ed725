use syncline::Syncable;

#[derive(Syncable)]
#[sync(modle = "tag")]
struct Tag {
    #[sync(id)]
    id: u64,
}

#[derive(Syncable)]
#[sync(model = "note")]
struct Note {
    #[sync(key)]
    id: u64,
}

fn main() {}
