//! Encoding: postcard, with three additions. A field that is left out is an error, since postcard has no names by which a
//! reader could tell. Maps are written in the order of their encoded keys, so that equal maps are equal bytes. Depth is
//! bounded.

use std::fmt::Display;

use serde::Serialize;
use serde::ser::{
    self, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant,
};

use super::{CodecError, DEPTH_MAX};

/// Appends the encoding of `value` to `out`.
pub(crate) fn encode_to(value: &(impl Serialize + ?Sized), out: Vec<u8>) -> Result<Vec<u8>, CodecError> {
    let mut encoder = Encoder { out, depth: 0, sorts_sequences: false };
    value.serialize(&mut encoder)?;
    Ok(encoder.out)
}

/// The encoding of `value` with the elements of every sequence in the order of their bytes: equal for collections that
/// differ in nothing but the order in which they are iterated.
pub(super) fn encode_unordered(value: &(impl Serialize + ?Sized)) -> Result<Vec<u8>, CodecError> {
    let mut encoder = Encoder { out: Vec::new(), depth: 0, sorts_sequences: true };
    value.serialize(&mut encoder)?;
    Ok(encoder.out)
}

/// Writes values as postcard does.
struct Encoder {
    out: Vec<u8>,
    /// How many values are open around the one that is written.
    depth: usize,
    sorts_sequences: bool,
}

impl Encoder {
    /// Writes a value that has no others in it, as postcard does.
    fn leaf<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        self.out = postcard::to_extend(value, std::mem::take(&mut self.out))?;
        Ok(())
    }

    fn len(&mut self, len: usize) -> Result<(), CodecError> {
        self.leaf(&u64::try_from(len).unwrap_or(u64::MAX))
    }

    fn deeper(&mut self) -> Result<(), CodecError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX { Err(CodecError::Depth) } else { Ok(()) }
    }

    /// Writes a value that stands inside another one.
    fn inner<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        self.deeper()?;
        value.serialize(&mut *self)?;
        self.depth -= 1;
        Ok(())
    }

    fn compound(&mut self, ty: &'static str) -> Result<Compound<'_>, CodecError> {
        self.deeper()?;
        Ok(Compound { encoder: self, ty, parts: None })
    }
}

/// A value with others in it, while it is written.
struct Compound<'a> {
    encoder: &'a mut Encoder,
    ty: &'static str,
    /// For a map or a sequence that is sorted: the bytes before it, and its parts so far.
    parts: Option<Parts>,
}

struct Parts {
    before: Vec<u8>,
    parts: Vec<Vec<u8>>,
}

impl Compound<'_> {
    fn sorted(mut self) -> Self {
        self.parts = Some(Parts { before: std::mem::take(&mut self.encoder.out), parts: Vec::new() });
        self
    }

    /// Writes a part of it.
    fn part<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        value.serialize(&mut *self.encoder)
    }

    /// The part that was written is complete.
    fn end_part(&mut self) {
        if let Some(parts) = &mut self.parts {
            parts.parts.push(std::mem::take(&mut self.encoder.out));
        }
    }

    fn finish(self) -> Result<(), CodecError> {
        let Self { encoder, parts, .. } = self;
        encoder.depth -= 1;
        if let Some(Parts { before, mut parts }) = parts {
            parts.sort_unstable();
            encoder.out = before;
            parts.iter().for_each(|part| encoder.out.extend_from_slice(part));
        }
        Ok(())
    }

    fn skipped(&self, field: &'static str) -> CodecError {
        CodecError::SkippedField { ty: self.ty, field }
    }
}

macro_rules! leaves {
    ($($method:ident: $ty:ty),* $(,)?) => {
        $(fn $method(self, value: $ty) -> Result<(), CodecError> {
            self.leaf(&value)
        })*
    };
}

impl<'a> ser::Serializer for &'a mut Encoder {
    type Ok = ();
    type Error = CodecError;
    type SerializeSeq = Compound<'a>;
    type SerializeTuple = Compound<'a>;
    type SerializeTupleStruct = Compound<'a>;
    type SerializeTupleVariant = Compound<'a>;
    type SerializeMap = Compound<'a>;
    type SerializeStruct = Compound<'a>;
    type SerializeStructVariant = Compound<'a>;

    leaves! {
        serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_i128: i128, serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64,
        serialize_u128: u128, serialize_f32: f32, serialize_f64: f64, serialize_char: char, serialize_str: &str,
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), CodecError> {
        self.len(value.len())?;
        self.out.extend_from_slice(value);
        Ok(())
    }

    fn serialize_none(self) -> Result<(), CodecError> {
        self.out.push(0);
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), CodecError> {
        self.out.push(1);
        self.inner(value)
    }

    fn serialize_unit(self) -> Result<(), CodecError> {
        Ok(())
    }

    fn serialize_unit_struct(self, _ty: &'static str) -> Result<(), CodecError> {
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, index: u32, _: &'static str) -> Result<(), CodecError> {
        self.leaf(&index)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), CodecError> {
        self.inner(value)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), CodecError> {
        self.leaf(&index)?;
        self.inner(value)
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Compound<'a>, CodecError> {
        let len = len.ok_or(CodecError::UnknownLength)?;
        self.len(len)?;
        let sorts = self.sorts_sequences;
        let compound = self.compound("a sequence")?;
        Ok(if sorts { compound.sorted() } else { compound })
    }

    fn serialize_tuple(self, _len: usize) -> Result<Compound<'a>, CodecError> {
        self.compound("a tuple")
    }

    fn serialize_tuple_struct(self, ty: &'static str, _len: usize) -> Result<Compound<'a>, CodecError> {
        self.compound(ty)
    }

    fn serialize_tuple_variant(
        self,
        ty: &'static str,
        index: u32,
        _: &'static str,
        _len: usize,
    ) -> Result<Compound<'a>, CodecError> {
        self.leaf(&index)?;
        self.compound(ty)
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Compound<'a>, CodecError> {
        let len = len.ok_or(CodecError::UnknownLength)?;
        self.len(len)?;
        self.compound("a map").map(Compound::sorted)
    }

    fn serialize_struct(self, ty: &'static str, _len: usize) -> Result<Compound<'a>, CodecError> {
        self.compound(ty)
    }

    fn serialize_struct_variant(
        self,
        ty: &'static str,
        index: u32,
        _: &'static str,
        _len: usize,
    ) -> Result<Compound<'a>, CodecError> {
        self.leaf(&index)?;
        self.compound(ty)
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<(), CodecError> {
        self.leaf(value.to_string().as_str())
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

impl SerializeSeq for Compound<'_> {
    type Ok = ();
    type Error = CodecError;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        self.part(value)?;
        self.end_part();
        Ok(())
    }

    fn end(self) -> Result<(), CodecError> {
        self.finish()
    }
}

impl SerializeTuple for Compound<'_> {
    type Ok = ();
    type Error = CodecError;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        self.part(value)
    }

    fn end(self) -> Result<(), CodecError> {
        self.finish()
    }
}

impl SerializeTupleStruct for Compound<'_> {
    type Ok = ();
    type Error = CodecError;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        self.part(value)
    }

    fn end(self) -> Result<(), CodecError> {
        self.finish()
    }
}

impl SerializeTupleVariant for Compound<'_> {
    type Ok = ();
    type Error = CodecError;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        self.part(value)
    }

    fn end(self) -> Result<(), CodecError> {
        self.finish()
    }
}

impl SerializeMap for Compound<'_> {
    type Ok = ();
    type Error = CodecError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), CodecError> {
        self.part(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), CodecError> {
        self.part(value)?;
        self.end_part();
        Ok(())
    }

    fn end(self) -> Result<(), CodecError> {
        self.finish()
    }
}

impl SerializeStruct for Compound<'_> {
    type Ok = ();
    type Error = CodecError;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        _: &'static str,
        value: &T,
    ) -> Result<(), CodecError> {
        self.part(value)
    }

    fn skip_field(&mut self, field: &'static str) -> Result<(), CodecError> {
        Err(self.skipped(field))
    }

    fn end(self) -> Result<(), CodecError> {
        self.finish()
    }
}

impl SerializeStructVariant for Compound<'_> {
    type Ok = ();
    type Error = CodecError;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        _: &'static str,
        value: &T,
    ) -> Result<(), CodecError> {
        self.part(value)
    }

    fn skip_field(&mut self, field: &'static str) -> Result<(), CodecError> {
        Err(self.skipped(field))
    }

    fn end(self) -> Result<(), CodecError> {
        self.finish()
    }
}
