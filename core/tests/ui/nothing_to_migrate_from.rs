use syncline::{BoxError, Syncable};

#[derive(Syncable)]
#[sync(model = "tag", migrate = Tag::from_older)]
struct Tag {
    #[sync(id)]
    id: u64,
}

impl Tag {
    fn from_older(_schema: u16, _value: &[u8]) -> Result<Self, BoxError> {
        Ok(Self { id: 1 })
    }
}

fn main() {}
