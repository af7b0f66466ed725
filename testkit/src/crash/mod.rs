//! The list of crashes: what a store on files keeps when its process is killed.
//!
//! Each test starts [children](crate::child), lets them write, kills them, and lets others look. What the list sees:
//! acknowledged batches that are lost, batches that are there in part, batches that are there without an earlier one,
//! stores that do not open again, locks that outlive their owner or that another process does not see.
//!
//! What it cannot see is a missing sync: bytes that the kernel has survive the process. That is the matter of
//! [`power_tests!`](crate::power_tests).

mod another_process_is_fenced;
mod kill_9;
mod killed_while_opening_it_opens_again;

pub use another_process_is_fenced::another_process_is_fenced;
pub use kill_9::{
    kill_9_keeps_rows_and_batches_in_step, kill_9_loses_nothing_acknowledged, kill_9_tears_no_batch,
};
pub use killed_while_opening_it_opens_again::killed_while_opening_it_opens_again;

/// The list, as a macro: calls the macro in brackets with the arguments and the names of all properties.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_crash_property {
    ([$($callback:tt)*] $($arguments:tt)*) => {
        $($callback)*! {
            [$($arguments)*]
            kill_9_loses_nothing_acknowledged
            kill_9_tears_no_batch
            killed_while_opening_it_opens_again
            another_process_is_fenced
        }
    };
}

/// The list for joined writes, as a macro.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_crash_join_property {
    ([$($callback:tt)*] $($arguments:tt)*) => {
        $($callback)*! {
            [$($arguments)*]
            kill_9_keeps_rows_and_batches_in_step
        }
    };
}

/// Makes a module of the given name with one test for each property of the [list of crashes](mod@crate::crash).
///
/// The closure opens the store at a path, as a file or as a directory:
/// `crash_tests!(mine, |path| Mine::open(path));` prints `mine::kill_9_tears_no_batch ... ok` and so on. It must open
/// the same store at the same path in every process, and nothing else may live in the directory above the path.
#[macro_export]
macro_rules! crash_tests {
    ($module:ident, $open:expr $(,)?) => {
        $crate::for_each_crash_property! { [$crate::child_test_module] crash, $module, new, $open }
    };
}

/// As [`crash_tests!`], with joined writes: the app's row and the batch of one transaction are there together or not
/// at all.
///
/// The closure makes the [`JoinFixture`](crate::JoinFixture) of a path:
/// `crash_join_tests!(mine_joined, |path| MyFixture::at(path));`
#[macro_export]
macro_rules! crash_join_tests {
    ($module:ident, $fixture:expr $(,)?) => {
        $crate::for_each_crash_join_property! { [$crate::child_test_module] crash, $module, joining, $fixture }
    };
}

/// Makes a module with one test for each property of a list whose tests are their own children.
#[doc(hidden)]
#[macro_export]
macro_rules! child_test_module {
    ([$list:ident, $module:ident, $new:ident, $open:expr] $($property:ident)*) => {
        mod $module {
            #[allow(unused_imports, reason = "the expression may need nothing from outside")]
            use super::*;

            $(
                #[test]
                fn $property() {
                    let test = concat!(module_path!(), "::", stringify!($property));
                    $crate::$list::$property(&$crate::child::Opener::$new(test, $open));
                }
            )*
        }
    };
}
