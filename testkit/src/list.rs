//! A list of tests in an order of dependence: a test that fails says which one to begin with.

use std::panic::{catch_unwind, resume_unwind};

use crate::quiet::{catch_quietly, text_of};
use crate::watched;

/// A test of a list: its name, and what it does with a fresh fixture.
pub type Test = (&'static str, fn());

/// The lists in which the later tests rest on the earlier ones.
const ORDERED: [&str; 2] = ["storage", "join"];

/// Runs the test `name` of a list. If it fails, and the list is in order, the tests before it are run, each with a fresh
/// fixture: one cause makes many of them fail, and the message names the first.
///
/// # Panics
/// If the test fails.
pub fn run(list: &str, tests: &[Test], name: &'static str) {
    let Some(at) = tests.iter().position(|(test, _)| *test == name) else {
        panic!("the list has no test {name}");
    };
    // The panic of the test is printed as it would be without this, with its place.
    let Err(failure) = catch_unwind(|| watched(name, tests[at].1)) else { return };
    let before = if ORDERED.contains(&list) { &tests[..at] } else { &[] };
    match before.iter().find(|test| fails_quietly(**test)) {
        None => resume_unwind(failure),
        Some((first, _)) => panic!(
            "{}\nBegin with `{first}`: it comes before in the list, and fails too.",
            text_of(&*failure)
        ),
    }
}

fn fails_quietly((name, test): Test) -> bool {
    let quiet = move || {
        if let Err(panic) = catch_quietly(test) {
            resume_unwind(panic);
        }
    };
    catch_quietly(|| watched(name, quiet)).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: [Test; 3] =
        [("good", || {}), ("cause", || panic!("cause: wrong")), ("effect", || panic!("effect: wrong"))];

    fn message(name: &'static str) -> String {
        let failure = catch_quietly(|| run("storage", &LIST, name)).expect_err("the test fails");
        text_of(&*failure).to_owned()
    }

    #[test]
    fn a_failure_says_where_to_begin() {
        run("storage", &LIST, "good");
        assert_eq!(message("cause"), "cause: wrong");
        assert_eq!(
            message("effect"),
            "effect: wrong\nBegin with `cause`: it comes before in the list, and fails too."
        );
    }
}
