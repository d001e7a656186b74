//! The part of the build steps that tests use too: the requirements on a driver image, and the package.

pub mod image;
pub mod inf;
pub mod package;
pub mod picture;
pub mod process;
pub mod signature;
