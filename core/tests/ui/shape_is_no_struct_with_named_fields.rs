use syncline::Syncable;

#[derive(Syncable)]
#[sync(model = "enum")]
enum Enum {
    A,
}

#[derive(Syncable)]
#[sync(model = "union")]
union Union {
    a: u64,
}

#[derive(Syncable)]
#[sync(model = "tuple")]
struct Tuple(#[sync(id)] u64);

#[derive(Syncable)]
#[sync(model = "unit")]
struct Unit;

fn main() {}
