use syncline::Syncable;

#[derive(Syncable)]
#[sync(model = "zero", schema = 0)]
struct Zero {
    #[sync(id)]
    id: u64,
}

#[derive(Syncable)]
#[sync(model = "large", schema = 65536)]
struct TooLarge {
    #[sync(id)]
    id: u64,
}

#[derive(Syncable)]
#[sync(model = "negative", schema = -1)]
struct Negative {
    #[sync(id)]
    id: u64,
}

#[derive(Syncable)]
#[sync(model = "text", schema = "2")]
struct Text {
    #[sync(id)]
    id: u64,
}

fn main() {}
