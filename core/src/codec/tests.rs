//! Goal: C17, I13: what is encoded reads back as it was, or is refused with a word on what to do. Method: shapes and attributes
//! of serde, one by one; random values beside postcard itself.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Debug;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::*;

fn round_trip<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    let encoded = encode(value, Vec::new()).unwrap();
    assert_eq!(&decode::<T>(&encoded).unwrap(), value);
}

fn refused<T: Serialize + DeserializeOwned>(value: &T) -> String {
    encode(value, Vec::new()).unwrap_err().to_string()
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Photo {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rating: Option<u8>,
    shelf: u8,
    pages: Vec<u8>,
}

#[test]
fn a_field_that_is_left_out_is_refused_for_the_values_that_leave_it_out() {
    let error = refused(&Photo { rating: None, shelf: 1, pages: vec![9, 1, 7] });
    assert!(error.contains("`rating` of `Photo`") && error.contains("skip_serializing_if"), "{error}");
    round_trip(&Photo { rating: Some(3), shelf: 1, pages: vec![9, 1, 7] });
    let inside = vec![Some(Photo { rating: None, shelf: 1, pages: vec![] })];
    assert!(refused(&inside).contains("`rating`"));
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum State {
    Open,
    #[serde(skip)]
    Draft,
    Done,
    Archived,
}

#[test]
fn a_variant_that_would_be_read_as_another_is_refused() {
    round_trip(&State::Open);
    assert!(refused(&State::Done).contains("another value"));
    assert!(encode(&State::Draft, Vec::new()).is_err());
    assert!(encode(&State::Archived, Vec::new()).is_err());
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(u64),
    Text(String),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    Number { n: u64 },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Flat {
    a: u8,
    #[serde(flatten)]
    rest: BTreeMap<String, u8>,
}

#[test]
fn what_needs_a_format_that_describes_itself_is_refused() {
    for error in [
        refused(&Untagged::Text("x".into())),
        refused(&Untagged::Number(1)),
        refused(&Tagged::Number { n: 1 }),
        refused(&Flat { a: 1, rest: BTreeMap::from([("b".into(), 2)]) }),
    ] {
        assert!(error.contains("plain enum") || error.contains("flatten"), "{error}");
    }
}

#[test]
fn equal_maps_are_equal_bytes() {
    let one: HashMap<u32, u32> = (0..50).map(|n| (n, n)).collect();
    let other: HashMap<u32, u32> = (0..50).rev().map(|n| (n, n)).collect();
    let bytes = |map: &HashMap<u32, u32>| encode(map, Vec::new()).unwrap();
    assert_eq!(bytes(&one), bytes(&other));
    round_trip(&one);
    round_trip(&vec![one, HashMap::new()]);
    round_trip(&HashMap::from([("a".to_owned(), HashMap::from([(1u8, vec![2u8])]))]));
}

#[test]
fn a_hash_set_reads_back_whatever_its_order() {
    for count in [0, 1, 2, 100] {
        round_trip(&(0..count).map(|n| format!("{n}")).collect::<HashSet<String>>());
    }
    round_trip(&BTreeSet::from([3u8, 1, 2]));
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Nested(Option<Box<Nested>>);

fn nested(depth: usize) -> Nested {
    (0..depth).fold(Nested(None), |inner, _| Nested(Some(Box::new(inner))))
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Tree {
    Leaf,
    Node(Vec<Tree>),
}

fn tree(depth: usize) -> Tree {
    (0..depth).fold(Tree::Leaf, |inner, _| Tree::Node(vec![inner]))
}

#[test]
fn depth_is_bounded_in_both_directions() {
    round_trip(&nested(30));
    round_trip(&tree(30));
    assert_eq!(encode(&nested(1_000), Vec::new()), Err(CodecError::Depth));
    assert_eq!(encode(&tree(1_000), Vec::new()), Err(CodecError::Depth));
    // Thirty thousand levels, as only a peer can make them.
    assert_eq!(decode::<Nested>(&[1; 30_000]), Err(CodecError::Depth));
    assert_eq!(decode::<Tree>(&[1; 60_000]), Err(CodecError::Depth));
}

/// The bound of depth is the same for what is written and what is read, and in every version.
#[test]
fn the_deepest_value_that_is_written_is_read() {
    let deepest = (1..200).take_while(|depth| encode(&nested(*depth), Vec::new()).is_ok()).last().unwrap();
    assert_eq!(2 * deepest + 1, DEPTH_MAX - 1, "an option and a struct each, and one more struct");
    let deeper = [vec![1; deepest + 1], vec![0]].concat();
    assert_eq!(decode::<Nested>(&deeper), Err(CodecError::Depth), "{deepest} levels are the most");
    assert!(decode::<Nested>(&deeper[1..]).is_ok());
    let deepest = (1..200).take_while(|depth| encode(&tree(*depth), Vec::new()).is_ok()).last().unwrap();
    let mut deeper = vec![1; 2 * (deepest + 1)];
    deeper.push(0);
    assert_eq!(decode::<Tree>(&deeper), Err(CodecError::Depth), "{deepest} levels are the most");
    assert!(decode::<Tree>(&deeper[2..]).is_ok());
}

/// A value that is nested without end must not be written first, and refused once it is read back: that would end the
/// stack.
#[test]
fn a_value_is_written_no_deeper_than_the_bound() {
    assert_eq!(encode_to(&tree(DEPTH_MAX), Vec::new()), Err(CodecError::Depth));
}

#[test]
fn bytes_that_are_left_over_are_an_error() {
    assert!(decode::<u8>(&[1, 2]).is_err());
    assert_eq!(decode::<u8>(&[1]), Ok(1));
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Unit,
    New(i64),
    Tuple(u8, String),
    Struct { a: Option<bool>, b: char },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Everything {
    numbers: (i8, u16, i32, u64, i128, u128),
    float: f64,
    text: String,
    #[serde(with = "serde_bytes")]
    bytes: Vec<u8>,
    shapes: Vec<Shape>,
    map: BTreeMap<String, Option<Vec<u8>>>,
    unit: (),
}

fn any_shape() -> impl Strategy<Value = Shape> {
    prop_oneof![
        Just(Shape::Unit),
        any::<i64>().prop_map(Shape::New),
        any::<(u8, String)>().prop_map(|(n, text)| Shape::Tuple(n, text)),
        any::<(Option<bool>, char)>().prop_map(|(a, b)| Shape::Struct { a, b }),
    ]
}

prop_compose! {
    fn everything()(
        numbers in any::<(i8, u16, i32, u64, i128, u128)>(),
        float in any::<f64>().prop_filter("equal to itself", |float| !float.is_nan()),
        text: String,
        bytes: Vec<u8>,
        shapes in prop::collection::vec(any_shape(), 0..5),
        map in any::<BTreeMap<String, Option<Vec<u8>>>>(),
    ) -> Everything {
        Everything { numbers, float, text, bytes, shapes, map, unit: () }
    }
}

proptest! {
    /// Bytes are postcard's, but for the order of maps, whose keys of one length sort as they are.
    #[test]
    fn bytes_are_postcards(value in everything()) {
        let ours = encode(&value, Vec::new()).unwrap();
        prop_assert_eq!(decode::<Everything>(&ours).unwrap(), value.clone());
        let plain = Everything { map: BTreeMap::new(), ..value };
        prop_assert_eq!(encode(&plain, Vec::new()).unwrap(), postcard::to_allocvec(&plain).unwrap());
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        let _ = decode::<Everything>(&bytes);
        let _ = decode::<Tree>(&bytes);
    }
}
