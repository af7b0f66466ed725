//! The pages of the repository's `docs/`, so that their links are checked and their examples run.
//!
//! - [`protocol`]: how a commit travels, catches up and merges; the rules by name, each with a history that breaks without
//!   it; the frames.
//! - [`storage_format`]: keys, rows and bytes.
//! - [`properties`]: the catalogue of what the tests prove, by number.
//!
//! In the repository the links of a page lead to files. Here the definitions in front of each page take precedence
//! over those at its end, and lead to the items themselves.

/// [`add_member`]: crate::TransactionManager::add_member
/// [`check_log`]: crate::TransactionManager::check_log
/// [`Error::LogDamaged`]: crate::Error::LogDamaged
/// [`Event::Accepted`]: crate::Event::Accepted
/// [`Event::Damaged`]: crate::Event::Damaged
/// [`Event::Disputed`]: crate::Event::Disputed
/// [`Event::Refused`]: crate::Event::Refused
/// [`PeerStatus::ahead_ms`]: crate::PeerStatus::ahead_ms
/// [`PeerStatus::refuses`]: crate::PeerStatus::refuses
/// [`Status::ahead_ms`]: crate::Status::ahead_ms
/// [`Error::Restored`]: crate::Error::Restored
/// [`Event::Knocks`]: crate::Event::Knocks
/// [`Event::Restored`]: crate::Event::Restored
/// [`frame_bytes_max`]: crate::Limits::frame_bytes_max
/// [`HlcGenerator`]: crate::HlcGenerator
/// [`join`]: crate::Builder::join
/// [`JoinWait`]: crate::JoinWait
/// [`Limits`]: crate::Limits
/// [`max_drift_ms`]: crate::Limits::max_drift_ms
/// [`page_bytes_max`]: crate::Limits::page_bytes_max
/// [`PeerStatus::acknowledged`]: crate::PeerStatus::acknowledged
/// [`Projection`]: crate::Projection
/// [`release_held`]: crate::TransactionManager::release_held
/// [`replica`]: crate::Builder::replica
/// [`Status`]: crate::Status
/// [`StopReason::Unknown`]: crate::StopReason::Unknown
/// [`StreamStop`]: crate::StreamStop
/// [`take_over`]: crate::TransactionManager::take_over
/// [`Transport`]: crate::Transport
/// [`with_tx`]: crate::TransactionManager::with_tx
/// [properties]: properties
/// [storage-format]: storage_format
/// [storage-format-log]: storage_format#log
///
#[doc = include_str!("../docs/protocol.md")]
pub mod protocol {}

/// [`audit`]: crate::audit()
/// [`DeviceId`]: crate::DeviceId
/// [`FormatError::Damaged`]: crate::FormatError::Damaged
/// [`FormatError::Version`]: crate::FormatError::Version
/// [`GroupId`]: crate::GroupId
/// [`Hlc`]: crate::Hlc
/// [`ReplicaId`]: crate::ReplicaId
/// [`Storage`]: crate::Storage
/// [`SyncId`]: crate::SyncId
/// [protocol]: protocol
/// [protocol-restored]: protocol#restored-and-cloned-stores
///
#[doc = include_str!("../docs/storage-format.md")]
pub mod storage_format {}

/// [protocol]: protocol
/// [storage-format]: storage_format
///
#[doc = include_str!("../docs/properties.md")]
pub mod properties {}
