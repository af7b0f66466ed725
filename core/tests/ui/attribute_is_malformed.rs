use syncline::Syncable;

#[derive(Syncable)]
#[sync = "tag"]
struct Tag {
    #[sync]
    id: u64,
}

#[derive(Syncable)]
#[sync(model("note"))]
struct Note {
    #[sync(id)]
    id: u64,
}

#[derive(Syncable)]
#[sync(model = "page" shared)]
struct Page {
    #[sync("id")]
    id: u64,
}

#[derive(Syncable)]
#[sync(model = )]
struct Book {
    #[sync(id)]
    id: u64,
}

fn main() {}
