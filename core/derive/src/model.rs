//! Reads a model from the attributes and fields of its struct, and checks it.

use quote::ToTokens;
use syn::ext::IdentExt;
use syn::parse::Parser;
use syn::spanned::Spanned;
use syn::{
    Data, DeriveInput, Error, Expr, ExprLit, ExprPath, Field, Fields, FieldsNamed, Generics, Ident, Lit,
    LitInt, LitStr, Path, Type, WhereClause, parse_quote,
};

use crate::keys::{Errors, Key, Keys, Place};
use crate::serde_attributes;

/// A model that was read and has no mistakes.
pub(crate) struct Model<'a> {
    pub(crate) ident: &'a Ident,
    pub(crate) where_clause: Option<&'a WhereClause>,
    /// The path of `syncline`.
    pub(crate) syncline: Path,
    pub(crate) name: LitStr,
    pub(crate) schema: u16,
    pub(crate) migrate: Option<ExprPath>,
    pub(crate) merge: Option<ExprPath>,
    pub(crate) id: &'a Ident,
    pub(crate) id_type: &'a Type,
    /// The field that holds the owner of a device-owned model.
    pub(crate) device_id: Option<&'a Ident>,
}

/// The longest model name, in bytes: `MODEL_BYTES_MAX` of `syncline`, on which this crate cannot depend.
const MODEL_BYTES_MAX: usize = 64;

/// The beginning of the names of the library's own models.
const RESERVED: &str = "syncline.";

/// Reads the model of `input`.
///
/// # Errors
/// All mistakes at once, in the order of the source.
pub(crate) fn read(input: &DeriveInput) -> syn::Result<Model<'_>> {
    let header = header(input);
    let generics = no_parameters(&input.generics);
    let body = body(input);
    // Without a header it is unknown whether the model says `shared`. The mistake of an id called `device_id` is then
    // left for the next build: to report it here might be wrong.
    let device_id = match (&header, &body) {
        (Ok(header), Ok(body)) if !header.shared => body.owner(),
        _ => Ok(None),
    };

    let mut errors = Errors::default();
    errors.note(&header);
    errors.note(&generics);
    errors.note(&body);
    errors.note(&device_id);
    errors.check()?;

    let Header { syncline, name, schema, migrate, merge, .. } = header?;
    let Body { id, id_type, .. } = body?;
    let where_clause = generics?;
    let device_id = device_id?;
    if let (Some(merge), Some(_)) = (&merge, device_id) {
        return Err(Error::new_spanned(
            merge,
            "a device-owned record has one author, so there is nothing to merge: leave `merge` out, \
             or add `shared`",
        ));
    }
    Ok(Model {
        ident: &input.ident,
        where_clause,
        syncline,
        name,
        schema,
        migrate,
        merge,
        id,
        id_type,
        device_id,
    })
}

/// The attributes of the struct, read and checked.
struct Header {
    syncline: Path,
    name: LitStr,
    schema: u16,
    migrate: Option<ExprPath>,
    merge: Option<ExprPath>,
    shared: bool,
}

fn header(input: &DeriveInput) -> syn::Result<Header> {
    let mut errors = Errors::default();
    let keys = Keys::read(&input.attrs, Place::Struct, &mut errors);
    serde_attributes::refuse(&input.attrs, Place::Struct, &mut errors);
    let missing = || {
        Error::new(
            input.ident.span(),
            "this model has no name: add `#[sync(model = \"...\")]`, the same on all devices and for ever",
        )
    };
    let name = match keys.find("model") {
        Some(key) => model_name(key).map(Some),
        // If another key is wrong, say only that: the wrong key may be the missing one, misspelt.
        None if errors.is_empty() => Err(missing()),
        None => Ok(None),
    };
    let schema = keys.find("schema").map_or(Ok(1), schema_version);
    let migrate = keys.find("migrate").map(|key| migration(key, &schema)).transpose();
    let merge = keys.find("merge").map(own_merge).transpose();
    let shared = keys.find("shared").map(Key::no_value).transpose();
    let syncline = keys.find("crate").map_or_else(|| Ok(parse_quote!(::syncline)), crate_path);

    errors.note(&name);
    errors.note(&schema);
    errors.note(&migrate);
    errors.note(&merge);
    errors.note(&shared);
    errors.note(&syncline);
    errors.check()?;
    Ok(Header {
        syncline: syncline?,
        name: name?.ok_or_else(missing)?,
        schema: schema?,
        migrate: migrate?,
        merge: merge?,
        shared: shared?.is_some(),
    })
}

fn model_name(key: &Key) -> syn::Result<LitStr> {
    let value = key.value("model = \"...\"")?;
    let Expr::Lit(ExprLit { lit: Lit::Str(name), .. }) = value else {
        return Err(Error::new_spanned(value, "the model's name is a string literal: `model = \"...\"`"));
    };
    let text = name.value();
    if text.is_empty() {
        Err(Error::new_spanned(name, "the model's name is empty"))
    } else if text.len() > MODEL_BYTES_MAX {
        let message =
            format!("the model's name has {} bytes; it may have at most {MODEL_BYTES_MAX}", text.len());
        Err(Error::new_spanned(name, message))
    } else if text.starts_with(RESERVED) {
        Err(Error::new_spanned(name, format!("names that start with `{RESERVED}` are the library's own")))
    } else {
        Ok(name.clone())
    }
}

fn schema_version(key: &Key) -> syn::Result<u16> {
    let value = key.value("schema = 2")?;
    let version = |digits: &LitInt| match digits.suffix() {
        "" | "u16" => digits.base10_parse().ok().filter(|version| *version > 0),
        _ => None,
    };
    match value {
        Expr::Lit(ExprLit { lit: Lit::Int(digits), .. }) => version(digits),
        _ => None,
    }
    .ok_or_else(|| Error::new_spanned(value, format!("a schema is a number from 1 to {}", u16::MAX)))
}

fn migration(key: &Key, schema: &syn::Result<u16>) -> syn::Result<ExprPath> {
    let value = key.value("migrate = path::to::function")?;
    let Expr::Path(function) = value else {
        return Err(Error::new_spanned(
            value,
            "a migration is the path of a function, without quotes or arguments: \
             `migrate = path::to::function`",
        ));
    };
    if matches!(schema, Ok(1)) {
        return Err(Error::new_spanned(
            function,
            "schema 1 has nothing to migrate from: add `schema = 2`, or leave `migrate` out",
        ));
    }
    Ok(function.clone())
}

fn own_merge(key: &Key) -> syn::Result<ExprPath> {
    match key.value("merge = path::to::function")? {
        Expr::Path(function) => Ok(function.clone()),
        value => Err(Error::new_spanned(
            value,
            "a merge is the path of a function, without quotes or arguments: `merge = path::to::function`",
        )),
    }
}

fn crate_path(key: &Key) -> syn::Result<Path> {
    let value = key.value("crate = path::to::syncline")?;
    match value {
        // Parse it again as a path without generic arguments, which a crate cannot have.
        Expr::Path(path) if path.qself.is_none() => Path::parse_mod_style.parse2(path.to_token_stream()).ok(),
        _ => None,
    }
    .ok_or_else(|| {
        Error::new_spanned(value, "`crate` is a path, without quotes: `crate = path::to::syncline`")
    })
}

/// Returns the `where` clause; an error if the struct has generic parameters.
fn no_parameters(generics: &Generics) -> syn::Result<Option<&WhereClause>> {
    if generics.params.is_empty() {
        return Ok(generics.where_clause.as_ref());
    }
    let message = "a model cannot be generic: its instances would be different types under one name";
    Err(Error::new_spanned(&generics.params, message))
}

/// The fields of the struct, read and checked.
struct Body<'a> {
    id: &'a Ident,
    id_type: &'a Type,
    device_id: Option<&'a Ident>,
}

impl<'a> Body<'a> {
    /// Returns the field that holds the owner; an error if it is the id. Ask only if the model does not say `shared`.
    fn owner(&self) -> syn::Result<Option<&'a Ident>> {
        if self.device_id != Some(self.id) {
            return Ok(self.device_id);
        }
        Err(Error::new(
            self.id.span(),
            "`device_id` makes a model device-owned, so it cannot be the record's id too: \
             add `#[sync(shared)]` to the struct, or give this field another name",
        ))
    }
}

fn body(input: &DeriveInput) -> syn::Result<Body<'_>> {
    let fields = named_fields(input)?;
    let mut errors = Errors::default();
    let mut id = None;
    let mut device_id = None;
    for field in fields {
        let Field { attrs, ident: Some(ident), ty, .. } = field else { continue };
        if ident.unraw() == "device_id" {
            device_id = Some(ident);
        }
        serde_attributes::refuse(attrs, Place::Field, &mut errors);
        let keys = Keys::read(attrs, Place::Field, &mut errors);
        let Some(key) = keys.find("id") else { continue };
        errors.note(&key.no_value());
        match id {
            None => id = Some((ident, ty)),
            Some((first, _)) => errors.add(Error::new(
                key.name.span(),
                format!("a record has one id, and here it is `{first}` already"),
            )),
        }
    }
    let missing =
        || Error::new(input.ident.span(), "this model has no id: mark one field with `#[sync(id)]`");
    // If another key is wrong, say only that: the wrong key may be the missing one, misspelt.
    if id.is_none() && errors.is_empty() {
        errors.add(missing());
    }
    errors.check()?;
    let (id, id_type) = id.ok_or_else(missing)?;
    Ok(Body { id, id_type, device_id })
}

fn named_fields(input: &DeriveInput) -> syn::Result<impl Iterator<Item = &Field>> {
    let (span, what) = match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(FieldsNamed { named, .. }) => return Ok(named.iter()),
            Fields::Unnamed(_) => (input.ident.span(), "a tuple struct"),
            Fields::Unit => (input.ident.span(), "a struct without fields"),
        },
        Data::Enum(data) => (data.enum_token.span(), "an enum"),
        Data::Union(data) => (data.union_token.span(), "a union"),
    };
    Err(Error::new(span, format!("a model is a struct with named fields, and this is {what}")))
}
