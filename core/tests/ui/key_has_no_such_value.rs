use syncline::Syncable;

#[derive(Syncable)]
#[sync(model = "tag", shared = true, crate = "syncline")]
struct Tag {
    #[sync(id = "id")]
    id: u64,
}

#[derive(Syncable)]
#[sync(model = "label", schema = 2, migrate = "from_older")]
struct Label {
    #[sync(id)]
    id: u64,
}

#[derive(Syncable)]
#[sync(model = "name", schema, migrate)]
struct Name {
    #[sync(id)]
    id: u64,
}

fn main() {}
