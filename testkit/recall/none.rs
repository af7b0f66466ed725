//! Nothing: the crates of this folder have tests alone.
