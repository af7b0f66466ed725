//! Decoding: postcard with a bound on depth. Values come from peers, and a reader's stack is finite.

use std::cell::Cell;
use std::fmt;

use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};

use super::{CodecError, DEPTH_MAX};

/// Decodes all of `bytes`: bytes that are left over are an error too.
#[inline]
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let depth = Depth::default();
    let mut postcard = postcard::Deserializer::from_bytes(bytes);
    let decoded = T::deserialize(Bounded { inner: &mut postcard, depth: &depth });
    if depth.passed.get() {
        return Err(CodecError::Depth);
    }
    let decoded = decoded?;
    let rest = postcard.finalize()?;
    match rest.len() {
        0 => Ok(decoded),
        left => Err(CodecError::Other(format!("more is left than the value needs, by {left} in bytes"))),
    }
}

/// How deep the decoder is, and whether that was too deep once.
#[derive(Debug, Default)]
struct Depth {
    now: Cell<usize>,
    passed: Cell<bool>,
}

impl Depth {
    /// Runs `inner` one level deeper.
    #[inline]
    fn deeper<T, E: de::Error>(&self, inner: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        if self.now.get() >= DEPTH_MAX {
            self.passed.set(true);
            return Err(E::custom("nested too deep"));
        }
        self.now.set(self.now.get() + 1);
        let result = inner();
        self.now.set(self.now.get() - 1);
        result
    }
}

/// Something of serde that counts how deep it is. All of it is inline: otherwise each level hands a whole value through several
/// calls, and a list spends as long on that as on decoding.
struct Bounded<'d, T> {
    inner: T,
    depth: &'d Depth,
}

macro_rules! pass {
    ($($method:ident($($arg:ident: $ty:ty),*)),* $(,)?) => {
        $(#[inline]
        fn $method<V: Visitor<'de>>(self, $($arg: $ty,)* visitor: V) -> Result<V::Value, D::Error> {
            let Self { inner, depth } = self;
            inner.$method($($arg,)* Bounded { inner: visitor, depth })
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Bounded<'_, D> {
    type Error = D::Error;

    pass! {
        deserialize_any(), deserialize_bool(), deserialize_i8(), deserialize_i16(), deserialize_i32(),
        deserialize_i64(), deserialize_i128(), deserialize_u8(), deserialize_u16(), deserialize_u32(),
        deserialize_u64(), deserialize_u128(), deserialize_f32(), deserialize_f64(), deserialize_char(),
        deserialize_str(), deserialize_string(), deserialize_bytes(), deserialize_byte_buf(),
        deserialize_option(), deserialize_unit(), deserialize_unit_struct(name: &'static str),
        deserialize_newtype_struct(name: &'static str), deserialize_seq(), deserialize_tuple(len: usize),
        deserialize_tuple_struct(name: &'static str, len: usize), deserialize_map(),
        deserialize_struct(name: &'static str, fields: &'static [&'static str]),
        deserialize_enum(name: &'static str, variants: &'static [&'static str]), deserialize_identifier(),
        deserialize_ignored_any(),
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! visit {
    ($($method:ident: $ty:ty),* $(,)?) => {
        $(#[inline]
        fn $method<E: de::Error>(self, value: $ty) -> Result<V::Value, E> {
            self.inner.$method(value)
        })*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Bounded<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    visit! {
        visit_bool: bool, visit_i8: i8, visit_i16: i16, visit_i32: i32, visit_i64: i64, visit_i128: i128,
        visit_u8: u8, visit_u16: u16, visit_u32: u32, visit_u64: u64, visit_u128: u128, visit_f32: f32,
        visit_f64: f64, visit_char: char, visit_str: &str, visit_borrowed_str: &'de str, visit_string: String,
        visit_bytes: &[u8], visit_borrowed_bytes: &'de [u8], visit_byte_buf: Vec<u8>,
    }

    #[inline]
    fn visit_none<E: de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    #[inline]
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        let Self { inner, depth } = self;
        depth.deeper(|| inner.visit_some(Bounded { inner: deserializer, depth }))
    }

    #[inline]
    fn visit_unit<E: de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    #[inline]
    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        let Self { inner, depth } = self;
        depth.deeper(|| inner.visit_newtype_struct(Bounded { inner: deserializer, depth }))
    }

    #[inline]
    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let Self { inner, depth } = self;
        depth.deeper(|| inner.visit_seq(Bounded { inner: access, depth }))
    }

    #[inline]
    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let Self { inner, depth } = self;
        depth.deeper(|| inner.visit_map(Bounded { inner: access, depth }))
    }

    #[inline]
    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let Self { inner, depth } = self;
        depth.deeper(|| inner.visit_enum(Bounded { inner: access, depth }))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Bounded<'_, S> {
    type Value = S::Value;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        let Self { inner, depth } = self;
        inner.deserialize(Bounded { inner: deserializer, depth })
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Bounded<'_, A> {
    type Error = A::Error;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, A::Error> {
        self.inner.next_element_seed(Bounded { inner: seed, depth: self.depth })
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Bounded<'_, A> {
    type Error = A::Error;

    #[inline]
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        self.inner.next_key_seed(Bounded { inner: seed, depth: self.depth })
    }

    #[inline]
    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.inner.next_value_seed(Bounded { inner: seed, depth: self.depth })
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, 'd, A: EnumAccess<'de>> EnumAccess<'de> for Bounded<'d, A> {
    type Error = A::Error;
    type Variant = Bounded<'d, A::Variant>;

    #[inline]
    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self::Variant), A::Error> {
        let Self { inner, depth } = self;
        let (value, variant) = inner.variant_seed(Bounded { inner: seed, depth })?;
        Ok((value, Bounded { inner: variant, depth }))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Bounded<'_, A> {
    type Error = A::Error;

    #[inline]
    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    #[inline]
    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, A::Error> {
        let Self { inner, depth } = self;
        depth.deeper(|| inner.newtype_variant_seed(Bounded { inner: seed, depth }))
    }

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        let Self { inner, depth } = self;
        inner.tuple_variant(len, Bounded { inner: visitor, depth })
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        let Self { inner, depth } = self;
        inner.struct_variant(fields, Bounded { inner: visitor, depth })
    }
}
