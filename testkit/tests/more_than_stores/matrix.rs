//! A matrix: a row for each flaw, a column for each property of a list.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::thread;

/// Checks that each flaw is caught by the property that names it, and that each property names a flaw. Prints `X` where
/// the property that names the flaw has caught it, and `x` where another has; then what each said of it.
///
/// `check` panics if the property finds the flaw.
pub(crate) fn every_flaw_is_caught<W: Copy + Display>(
    properties: &[&'static str],
    flaws: &[W],
    named_by: fn(W) -> &'static str,
    check: impl Fn(&'static str, W),
) {
    only_news_is_printed();
    for (column, property) in properties.iter().enumerate() {
        println!("{:26}{}{property}", "", "| ".repeat(column));
    }
    let (mut wrong, mut messages) = (Vec::new(), Vec::new());
    for &flaw in flaws {
        let found = |property: &&'static str| Some((*property, failure(|| check(property, flaw))?));
        let killers: BTreeMap<_, _> = properties.iter().filter_map(found).collect();
        let name = named_by(flaw);
        let cell = |property: &&'static str| match killers.contains_key(property) {
            true if *property == name => "X ",
            true => "x ",
            false => ". ",
        };
        println!("{:26}{}", flaw.to_string(), properties.iter().map(cell).collect::<String>());
        match killers.get(name) {
            Some(message) => messages.push(message.lines().next().unwrap_or_default().to_owned()),
            None => wrong.push(format!("{flaw} passes {name}")),
        }
    }
    println!("{}", messages.join("\n"));
    for property in properties {
        if !flaws.iter().any(|flaw| named_by(*flaw) == *property) {
            wrong.push(format!("{property} names no flaw: nothing shows that it can fail"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The message of the panic of `check`, which is not printed.
fn failure(check: impl FnOnce()) -> Option<String> {
    QUIET.set(true);
    let result = catch_unwind(AssertUnwindSafe(check));
    QUIET.set(false);
    let panic = result.err()?;
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    Some(text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default())
}

thread_local! {
    /// Whether a panic of this thread is what a matrix looks for.
    static QUIET: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Panics are printed if no matrix looks for them. A thread without a test's name is a watched one.
fn only_news_is_printed() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let is_test = thread::current().name().is_some_and(|name| name.starts_with("every_"));
            if is_test && !QUIET.get() {
                print(panic);
            }
        }));
    });
}
