//! Attributes of serde with which no value of a model reads back as it was put.
//!
//! `skip_serializing_if` is not among them: the values that leave nothing out are read back, and the others are refused
//! when they are committed.

use syn::punctuated::Punctuated;
use syn::{Attribute, Error, Meta, Token};

use crate::keys::{Errors, Place};

/// Notes the attributes that are refused at `place`.
pub(crate) fn refuse(attributes: &[Attribute], place: Place, errors: &mut Errors) {
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("serde")) {
        // A mistake in it is for serde to report.
        let Ok(metas) = attribute.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated) else {
            continue;
        };
        for meta in metas {
            let name = meta.path().get_ident().map(ToString::to_string).unwrap_or_default();
            let why = match (place, name.as_str()) {
                (Place::Field, "skip" | "skip_serializing" | "skip_deserializing") => {
                    "the field would be lost: a record is read back as it was put; remove the attribute, or keep the \
                     field outside the model"
                }
                (Place::Field, "flatten") => {
                    "a flattened field cannot be read back: postcard has no names; name the fields here"
                }
                (Place::Struct, "tag" | "untagged") => {
                    "a tagged model cannot be read back: postcard does not say which type comes; remove the attribute"
                }
                _ => continue,
            };
            errors.add(Error::new_spanned(&meta, why));
        }
    }
}
