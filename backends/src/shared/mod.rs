//! What the stores on an embedded engine share.

pub(crate) mod health;
pub(crate) mod worker;
