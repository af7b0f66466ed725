//! Goal: a mistake in a model is a build error that says what to do, where it was made.
//! Method: each file in `ui` fails to build with exactly the messages beside it. `TRYBUILD=overwrite` writes
//! them anew; read them before you keep them.

#[test]
fn mistakes_are_explained() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
