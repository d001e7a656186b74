//! The part of the build steps that tests use as well: what a driver image must be like, and the package.

pub mod image;
pub mod inf;
pub mod package;
pub mod process;
pub mod signature;
