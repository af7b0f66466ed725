//! Writes the implementation of `Syncable` for a model.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;

use crate::model::Model;

/// Writes the implementation for `model`.
///
/// All paths in it are absolute, also those of the primitive types: an app may have its own `Result` or `u16`.
pub(crate) fn expand(model: &Model<'_>) -> TokenStream {
    let Model { ident, where_clause, syncline, name, schema, id_type, .. } = model;
    let ownership = ownership(model);
    let sync_id = sync_id(model);
    let migrate = migrate(model);
    let merge = merge(model);
    quote! {
        #[automatically_derived]
        #[allow(deprecated, reason = "a model that is deprecated still implements `Syncable`")]
        impl #syncline::Syncable for #ident #where_clause {
            const SYNC_MODEL: &'static ::core::primitive::str = #name;
            const SCHEMA: ::core::primitive::u16 = #schema;
            type Id = #id_type;
            #ownership
            #sync_id
            #migrate
            #merge
        }
    }
}

fn ownership(model: &Model<'_>) -> TokenStream {
    let syncline = &model.syncline;
    let ownership = match model.device_id {
        // Point at the field: an error about a call that wants a shared model then shows why this model is owned.
        Some(device_id) => located(quote!(#syncline::DeviceOwned), device_id.span()),
        None => quote!(#syncline::Shared),
    };
    quote!(type Ownership = #ownership;)
}

fn sync_id(model: &Model<'_>) -> TokenStream {
    let Model { syncline, id, id_type, .. } = model;
    // Point at the type of the id: if the type is no `SyncId`, this function does not compile either.
    let head = located(quote!(fn sync_id(&self) -> #syncline::RecordId<Self>), id_type.span());
    let id = quote!(::core::clone::Clone::clone(&self.#id));
    match model.device_id {
        Some(device_id) => {
            // Point at the field: the mistake is there if its type is no `DeviceId`.
            let owner =
                located(quote!(let owner: &#syncline::DeviceId = &self.#device_id;), device_id.span());
            quote!(#head { #owner (*owner, #id) })
        }
        None => quote!(#head { #id }),
    }
}

fn migrate(model: &Model<'_>) -> Option<TokenStream> {
    let Model { syncline, migrate, .. } = model;
    let migrate = migrate.as_ref()?;
    // Point at the path: the mistake is there if the types differ.
    let span = migrate.span();
    // Use hygienic names: the app's function may itself be called `value`.
    let schema = Ident::new("schema", Span::mixed_site().located_at(span));
    let value = Ident::new("value", Span::mixed_site().located_at(span));
    let result = Ident::new("result", Span::mixed_site().located_at(span));
    let call = quote_spanned! {Span::call_site().located_at(span)=>
        let #result: ::core::result::Result<Self, _> = #migrate(#schema, #value);
        ::core::result::Result::map_err(#result, ::core::convert::Into::into)
    };
    Some(quote! {
        fn migrate(
            #schema: ::core::primitive::u16,
            #value: &[::core::primitive::u8],
        ) -> ::core::result::Result<Self, #syncline::BoxError> {
            #call
        }
    })
}

fn merge(model: &Model<'_>) -> Option<TokenStream> {
    let merge = model.merge.as_ref()?;
    // Point at the path: the mistake is there if the types differ.
    let span = merge.span();
    let other = Ident::new("other", Span::mixed_site().located_at(span));
    let call = quote_spanned!(Span::call_site().located_at(span)=> #merge(self, #other));
    Some(quote! {
        const OWN_MERGE: ::core::primitive::bool = true;

        fn merge(self, #other: Self) -> Self {
            #call
        }
    })
}

/// Moves the compiler's messages about `tokens` to `span`. The names keep their meaning.
fn located(tokens: impl ToTokens, span: Span) -> TokenStream {
    let at = |mut token: proc_macro2::TokenTree| {
        token.set_span(token.span().located_at(span));
        token
    };
    tokens.into_token_stream().into_iter().map(at).collect()
}
