//! The limits of a replica, which may be others in each of its lives.

use serde::{Deserialize, Serialize};
use syncline::Limits;

use super::Plan;

/// The limits of one life of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sizes {
    /// The usual ones.
    Usual,
    /// All are as small as they may be.
    Small,
    /// Some large values are too large, and some are not.
    SmallValues,
    /// Two replicas may be members.
    FewMembers,
    /// They contradict each other. The life after that has the usual ones.
    Wrong,
    /// The log is cut short after a few entries, whoever lacks them.
    ShortLog,
}

impl Sizes {
    pub(in crate::sim) fn limits(self, plan: &Plan) -> Limits {
        let usual = Limits { page_bytes_max: plan.page_bytes as usize, ..Limits::default() };
        match self {
            Self::Usual => usual,
            Self::Small => Limits {
                value_bytes_max: 512,
                commit_changes_max: 16,
                commit_bytes_max: 2048,
                queue_bytes_max: 8192,
                round_commits_max: 4,
                event_commits_max: 4,
                members_max: 8,
                page_bytes_max: usual.page_bytes_max.min(6144),
                frame_bytes_max: 6144,
                ..usual
            },
            Self::SmallValues => Limits { value_bytes_max: 30 << 10, ..usual },
            Self::FewMembers => Limits { members_max: 2, ..usual },
            Self::ShortLog => Limits { retain_entries_max: 6, ..usual },
            Self::Wrong => Limits { value_bytes_max: usual.commit_bytes_max + 1, ..usual },
        }
    }
}
