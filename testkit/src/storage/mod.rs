//! The list: one property for each bullet of the [contract](syncline::Storage), and one that checks them together.

mod behaves_like_a_sorted_map;
mod cancel_is_all_or_nothing;
mod delete_range_stays_inside;
mod empty_is_not_absent;
mod later_ops_win;
mod reads_are_never_torn;
mod reads_keep_request_order;
mod reads_see_last_write;
mod rejected_leaves_no_trace;
mod reopening_changes_nothing;
pub(crate) mod samples;
mod scan_is_ordered;
mod second_owner_is_fenced;
mod sizes_are_kept;
pub(crate) mod subject;
pub(crate) mod sweep;
mod visit_is_a_scan;
mod write_is_atomic;
mod write_survives_reopening;
mod writes_are_ordered;

use std::fmt;

pub use behaves_like_a_sorted_map::{Step, behaves_like_a_sorted_map, replay};
pub use cancel_is_all_or_nothing::cancel_is_all_or_nothing;
pub use delete_range_stays_inside::delete_range_stays_inside;
pub use empty_is_not_absent::empty_is_not_absent;
pub use later_ops_win::later_ops_win;
pub use reads_are_never_torn::reads_are_never_torn;
pub use reads_keep_request_order::reads_keep_request_order;
pub use reads_see_last_write::reads_see_last_write;
pub use rejected_leaves_no_trace::rejected_leaves_no_trace;
pub use reopening_changes_nothing::reopening_changes_nothing;
pub use scan_is_ordered::scan_is_ordered;
pub use second_owner_is_fenced::second_owner_is_fenced;
pub use sizes_are_kept::sizes_are_kept;
pub use visit_is_a_scan::visit_is_a_scan;
pub use write_is_atomic::write_is_atomic;
pub use write_survives_reopening::write_survives_reopening;
pub use writes_are_ordered::writes_are_ordered;

use crate::Fixture;

/// The list, as a macro: calls the macro in brackets with the arguments and the names of all properties.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_storage_property {
    ([$($callback:tt)*] $($arguments:tt)*) => {
        $($callback)*! {
            [$($arguments)*]
            reads_see_last_write
            reads_are_never_torn
            reads_keep_request_order
            scan_is_ordered
            visit_is_a_scan
            later_ops_win
            delete_range_stays_inside
            write_is_atomic
            write_survives_reopening
            writes_are_ordered
            rejected_leaves_no_trace
            second_owner_is_fenced
            cancel_is_all_or_nothing
            empty_is_not_absent
            sizes_are_kept
            reopening_changes_nothing
            behaves_like_a_sorted_map
        }
    };
}

/// Makes a module of the given name with one test for each property of the contract.
///
/// The expression is a function that makes a fresh [`Fixture`]: `storage_tests!(redb, RedbFixture::new);` prints
/// `redb::write_is_atomic ... ok` and so on.
///
/// If the fixture implements [`Fixture::break_medium`], a third argument says so: `breaks_its_medium`. What is not checked
/// shows as ignored tests, each with the reason.
#[macro_export]
macro_rules! storage_tests {
    ($module:ident, $fixture:expr $(,)?) => {
        $crate::for_each_storage_property! {
            [$crate::test_module] storage, $module, $fixture, {
                mod not_checked {
                    #[test]
                    #[ignore = "implement Fixture::break_medium and say `breaks_its_medium` in storage_tests!, or use fault_tests!"]
                    fn failing_medium() {}

                    $crate::beyond_storage_tests! {}
                }
            }
        }
    };
    ($module:ident, $fixture:expr, breaks_its_medium $(,)?) => {
        $crate::for_each_storage_property! {
            [$crate::test_module] storage, $module, $fixture, {
                #[test]
                fn medium_breaks() {
                    assert!(
                        $crate::Fixture::break_medium(&($fixture)(), None),
                        "storage_tests! was told `breaks_its_medium`, but Fixture::break_medium says that it cannot"
                    );
                }

                mod not_checked {
                    $crate::beyond_storage_tests! {}
                }
            }
        }
    };
}

/// Tests that are ignored, for what no list within one process can see.
#[doc(hidden)]
#[macro_export]
macro_rules! beyond_storage_tests {
    () => {
        #[test]
        #[ignore = "this list has one process: use crash_tests! if the store lies on files"]
        fn another_process() {}

        #[test]
        #[ignore = "this list reopens, but no power is lost: use power_tests! if the store lies on files"]
        fn power_loss() {}
    };
}

/// One property of a list, for callers that choose at run time what is tested, or by which properties.
pub struct Property<F> {
    /// The name of the property, which is that of the bullet in the contract.
    pub name: &'static str,
    pub(crate) check: fn(&dyn Fn() -> F),
}

impl<F> Property<F> {
    /// Checks what the fixtures that `fresh` makes open.
    ///
    /// # Panics
    /// If the property does not hold.
    pub fn check(&self, fresh: &dyn Fn() -> F) {
        (self.check)(fresh);
    }
}

impl<F> fmt::Debug for Property<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Property").field(&self.name).finish()
    }
}

/// Returns all properties, in the order of the contract.
#[must_use]
pub fn properties<F: Fixture>() -> Vec<Property<F>> {
    macro_rules! list {
        ([] $($property:ident)*) => {
            vec![$(Property {
                name: stringify!($property),
                check: |fresh| futures::executor::block_on($property(&|| fresh())),
            }),*]
        };
    }
    for_each_storage_property!([list])
}
