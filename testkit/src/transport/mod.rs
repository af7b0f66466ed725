//! The list for transports: one property for each bullet of the [contract](syncline::Transport).
//!
//! The author of a transport writes a [`TransportFixture`] and one line, which makes a test for each property:
//!
//! ```
//! use syncline_testkit::transport::MemoryNetworkFixture;
//!
//! syncline_testkit::transport_tests!(memory, MemoryNetworkFixture::new);
//! # // The tests of a documentation example do not run, so the list runs by hand.
//! # for property in syncline_testkit::transport::properties::<MemoryNetworkFixture>() {
//! #     property.check(&MemoryNetworkFixture::new);
//! # }
//! ```
//!
//! Where a network has no such thing as a property asks for, the line says so, and `cargo test` prints the test as
//! ignored, with the reason:
//!
//! ```
//! # use syncline_testkit::transport::MemoryNetworkFixture;
//! syncline_testkit::transport_tests!(radio, MemoryNetworkFixture::new, ignore {
//!     closed_says_closed = "the platform never takes the radio away for good",
//! });
//! ```
//!
//! What must come has ten seconds; a failure names what did not. What is not checked: that a stranger cannot attach as a
//! member, since only the transport knows what proves a replica; and that a frame is not read by others on its way.

mod connections;
mod fixture;
mod floods;
mod frames;
mod memory;
#[doc(hidden)]
pub mod over_transport;
mod subject;

use crate::storage::Property;

pub use connections::{
    attach_twice_is_refused, closed_says_closed, down_comes_after_up, dropping_an_end_is_a_down,
    from_is_true, up_comes_before_the_first_frame,
};
pub use fixture::{Holds, TransportFixture};
pub use floods::{full_queue_drops, memory_is_bounded, peers_take_turns};
pub use frames::{
    broadcast_reaches_the_named_and_no_other, frames_come_whole, largest_frame_arrives,
    receive_is_cancel_safe,
};
pub use memory::MemoryNetworkFixture;

/// The list, as a macro: calls the macro in brackets with the arguments and the names of all properties.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_transport_property {
    ([$($callback:tt)*] $($arguments:tt)*) => {
        $($callback)*! {
            [$($arguments)*]
            from_is_true
            attach_twice_is_refused
            up_comes_before_the_first_frame
            down_comes_after_up
            dropping_an_end_is_a_down
            frames_come_whole
            largest_frame_arrives
            broadcast_reaches_the_named_and_no_other
            receive_is_cancel_safe
            full_queue_drops
            peers_take_turns
            memory_is_bounded
            closed_says_closed
        }
    };
}

/// Makes a module of the given name with one test for each property of the contract of transports.
///
/// The expression is a function that makes a fresh [`TransportFixture`]. Properties that a network has no use for stand behind
/// `ignore`, each with the reason, which `cargo test` prints; see the [list](mod@crate::transport).
#[macro_export]
macro_rules! transport_tests {
    ($module:ident, $fixture:expr $(,)?) => {
        $crate::transport_tests!($module, $fixture, ignore {});
    };
    ($module:ident, $fixture:expr, ignore { $($ignored:ident = $reason:literal),* $(,)? } $(,)?) => {
        $crate::for_each_transport_property! {
            [$crate::watched_test_module]
            ($) transport, $module, $fixture, { $($ignored = $reason),* }
        }
    };
}

/// Makes a module with one test for each property of a list, each under a watchdog, and ignored if its name is among
/// those in braces.
#[doc(hidden)]
#[macro_export]
macro_rules! watched_test_module {
    (
        [($d:tt) $list:ident, $module:ident, $fixture:expr, { $($ignored:ident = $reason:literal),* }]
        $($property:ident)*
    ) => {
        mod $module {
            #[allow(unused_imports, reason = "the expression may need nothing from outside")]
            use super::*;

            // A name that is no property of the list does not compile.
            $(const _: () = {
                #[allow(unused_imports, reason = "it is there to be looked up")]
                use $crate::$list::$ignored;
            };)*

            macro_rules! unless_ignored {
                $(($ignored $d($d test:tt)*) => { #[ignore = $reason] $d($d test)* };)*
                ($d property:ident $d($d test:tt)*) => { $d($d test)* };
            }

            $(
                unless_ignored! {
                    $property
                    #[test]
                    fn $property() {
                        $crate::watched(stringify!($property), || {
                            let fixture = ($fixture)();
                            $crate::$list::run(&fixture, |fixture| Box::pin($crate::$list::$property(fixture)));
                        });
                    }
                }
            )*
        }
    };
}

/// Runs a property as its fixture says.
#[doc(hidden)]
pub fn run<F: TransportFixture>(
    fixture: &F,
    property: impl FnOnce(&F) -> std::pin::Pin<Box<dyn Future<Output = ()> + '_>>,
) {
    fixture.block_on(property(fixture));
}

/// Returns all properties, in the order of the contract.
#[must_use]
pub fn properties<F: TransportFixture>() -> Vec<Property<F>> {
    macro_rules! list {
        ([] $($property:ident)*) => {
            vec![$(Property {
                name: stringify!($property),
                check: |fresh| run(&fresh(), |fixture| Box::pin($property(fixture))),
            }),*]
        };
    }
    for_each_transport_property!([list])
}
