use syncline::Syncable;

#[derive(Syncable)]
#[sync(model = "tag")]
struct Tag<T> {
    #[sync(id)]
    id: u64,
    value: T,
}

#[derive(Syncable)]
#[sync(model = "note")]
struct Note<'a, const N: usize> {
    #[sync(id)]
    id: [u8; N],
    text: &'a str,
}

fn main() {}
