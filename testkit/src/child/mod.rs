//! Child processes of a test: the harness of [`crash_tests!`](crate::crash_tests), [`power_tests!`](crate::power_tests)
//! and [`fault_tests!`](crate::fault_tests).
//!
//! A test of these lists is its own child. The test function looks at an environment variable. Without it, the function
//! is the parent: it starts the test binary again for this one test, with the variable set, tells the child what to do,
//! kills it, and starts others to look at the store. With it, the function opens the store and does as it is told. So
//! there is no second test that prints `ok` without having checked anything. The test must be one of the usual harness,
//! which runs a test by its name.
//!
//! The parent never opens the store itself: a store that hangs, aborts or panics ends a child, and the parent says in one
//! sentence what the child was doing. A wait that takes longer than [`Opener::patience`] ends the test in the same way.
//!
//! A test of an app, or of a whole replica, can be its own child too: [`play`], [`tell`] and [`kill_after`].

mod commands;
mod judge;
mod numbers;
mod opener;
mod own_story;
mod parent;
mod process;
mod script;
mod serve;

pub(crate) use commands::{ANSWER, Answer, Command};
pub(crate) use judge::Question;
pub(crate) use numbers::Numbers;
pub use opener::Opener;
pub use own_story::{kill_after, play, tell};
pub(crate) use parent::{Parent, run};
pub(crate) use process::{Child, NoAnswer, Wrapper, not_ok};
pub(crate) use script::{Script, Size};
