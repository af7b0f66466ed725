//! The keys of `#[sync(..)]`: reads them, and checks that each is known, in its place and given once.

use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Attribute, Error, Expr, Ident, Meta, Token, token};

/// The place of an attribute.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    Struct,
    Field,
}

impl Place {
    fn keys(self) -> &'static [&'static str] {
        match self {
            Place::Struct => &["model", "schema", "migrate", "merge", "shared", "crate"],
            Place::Field => &["id"],
        }
    }
}

/// One key, with its value if it was given one.
pub(crate) struct Key {
    pub(crate) name: Ident,
    value: Option<Expr>,
}

impl Key {
    /// Returns the value; if there is none, the error shows `example`.
    pub(crate) fn value(&self, example: &str) -> syn::Result<&Expr> {
        let mut value = self.value.as_ref().ok_or_else(|| {
            Error::new(self.name.span(), format!("`{}` needs a value: `#[sync({example})]`", self.name))
        })?;
        // Unwrap the invisible group around a value that a `macro_rules` macro passes on.
        while let Expr::Group(group) = value {
            value = &group.expr;
        }
        Ok(value)
    }

    /// Checks that the key stands alone.
    pub(crate) fn no_value(&self) -> syn::Result<()> {
        match &self.value {
            None => Ok(()),
            Some(value) => Err(Error::new_spanned(
                value,
                format!("`{name}` takes no value: `#[sync({name})]`", name = self.name),
            )),
        }
    }
}

impl Parse for Key {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        // Parse any identifier: the key `crate` is a keyword.
        let name = Ident::parse_any(input)?;
        if input.peek(token::Paren) {
            return Err(input.error(format!("the value of `{name}` follows a `=`, without parentheses")));
        }
        let value = if input.parse::<Option<Token![=]>>()?.is_some() { Some(input.parse()?) } else { None };
        Ok(Self { name, value })
    }
}

/// The keys of one struct or field.
pub(crate) struct Keys(Vec<Key>);

impl Keys {
    /// Reads all `#[sync(..)]` among `attributes`. Leaves out wrong keys and adds their mistakes to `errors`.
    pub(crate) fn read(attributes: &[Attribute], place: Place, errors: &mut Errors) -> Self {
        let mut keys = Self(Vec::new());
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("sync")) {
            let list = match &attribute.meta {
                Meta::List(list) => list.parse_args_with(Punctuated::<Key, Token![,]>::parse_terminated),
                other => Err(Error::new_spanned(other, "the keys of `sync` are missing: `#[sync(..)]`")),
            };
            match list {
                Ok(list) => list.into_iter().for_each(|key| match keys.check(&key, place) {
                    Ok(()) => keys.0.push(key),
                    Err(error) => errors.add(error),
                }),
                Err(error) => errors.add(error),
            }
        }
        keys
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Key> {
        self.0.iter().find(|key| key.name == name)
    }

    fn check(&self, Key { name, .. }: &Key, place: Place) -> syn::Result<()> {
        let belongs = |place: Place| place.keys().iter().any(|key| name == key);
        let complaint = if belongs(place) {
            if self.find(&name.to_string()).is_none() {
                return Ok(());
            }
            format!("`{name}` is given twice")
        } else {
            match place {
                Place::Struct if belongs(Place::Field) => format!(
                    "`{name}` belongs on a field: `#[sync({name})]` marks the one that is the record's id"
                ),
                Place::Field if belongs(Place::Struct) => {
                    format!("`{name}` belongs on the struct, not on a field")
                }
                _ => format!("unknown key `{name}`; known here: {}", listed(place.keys())),
            }
        };
        Err(Error::new(name.span(), complaint))
    }
}

fn listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The mistakes in a struct, gathered so that one build shows all of them.
#[derive(Default)]
pub(crate) struct Errors(Option<Error>);

impl Errors {
    pub(crate) fn add(&mut self, error: Error) {
        match &mut self.0 {
            Some(first) => first.combine(error),
            None => self.0 = Some(error),
        }
    }

    /// Adds the error of `result`, if it is one.
    pub(crate) fn note<T>(&mut self, result: &syn::Result<T>) {
        if let Err(error) = result {
            self.add(error.clone());
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Fails with all that was added; succeeds if nothing was.
    pub(crate) fn check(self) -> syn::Result<()> {
        self.0.map_or(Ok(()), Err)
    }
}
