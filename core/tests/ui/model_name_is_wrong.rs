use syncline::Syncable;

const TAG: &str = "tag";

#[derive(Syncable)]
#[sync(model = TAG)]
struct NoLiteral {
    #[sync(id)]
    id: u64,
}

#[derive(Syncable)]
#[sync(model = 7)]
struct NoString {
    #[sync(id)]
    id: u64,
}

#[derive(Syncable)]
#[sync(model)]
struct NoValue {
    #[sync(id)]
    id: u64,
}

#[derive(Syncable)]
#[sync(model = "")]
struct Empty {
    #[sync(id)]
    id: u64,
}

#[derive(Syncable)]
#[sync(model = "a2345678901234567890123456789012345678901234567890123456789012345")]
struct TooLong {
    #[sync(id)]
    id: u64,
}

#[derive(Syncable)]
#[sync(model = "syncline.tag")]
struct Reserved {
    #[sync(id)]
    id: u64,
}

fn main() {}
