//! The pages for authors of stores and transports, so that their examples are compiled.
//!
//! In the repository the links of a page lead to files. Here the definitions in front of each page take precedence over
//! those at its end, and lead to the items themselves.

/// [`JoinStorage`]: syncline::JoinStorage
/// [`ScanMeter`]: syncline::ScanMeter
/// [`ScanPage::of`]: syncline::ScanPage::of
/// [`Storage`]: syncline::Storage
/// [`StoreLimits::CONTRACT`]: syncline::StoreLimits::CONTRACT
/// [`Worker`]: syncline::Worker
///
#[doc = include_str!("../docs/writing-a-store.md")]
pub mod writing_a_store {}

/// [`Transport`]: syncline::Transport
///
#[doc = include_str!("../docs/writing-a-transport.md")]
pub mod writing_a_transport {}
