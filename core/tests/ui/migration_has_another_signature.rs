use serde::{Deserialize, Serialize};
use syncline::{BoxError, Syncable};

#[derive(Clone, Serialize, Deserialize, Syncable)]
#[sync(model = "tag", schema = 2, migrate = from_schema_1)]
struct Tag {
    #[sync(id)]
    id: u64,
}

fn from_schema_1(_value: &[u8]) -> Result<Tag, BoxError> {
    Ok(Tag { id: 1 })
}

#[derive(Clone, Serialize, Deserialize, Syncable)]
#[sync(model = "note", schema = 2, migrate = to_a_tag)]
struct Note {
    #[sync(id)]
    id: u64,
}

fn to_a_tag(_schema: u16, _value: &[u8]) -> Result<Tag, String> {
    Ok(Tag { id: 1 })
}

#[derive(Clone, Serialize, Deserialize, Syncable)]
#[sync(model = "book", schema = 2, migrate = without_a_result)]
struct Book {
    #[sync(id)]
    id: u64,
}

fn without_a_result(_schema: u16, _value: &[u8]) -> Book {
    Book { id: 1 }
}

fn main() {}
