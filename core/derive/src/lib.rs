#![forbid(unsafe_code)]
//! The `Syncable` derive macro of `syncline`, which re-exports it.

use proc_macro::TokenStream;

/// Derives `Syncable`.
#[proc_macro_derive(Syncable, attributes(sync))]
pub fn derive_syncable(_input: TokenStream) -> TokenStream {
    TokenStream::new()
}
