//! The part of the build steps that tests use as well: what a driver image and its INF must be like.

pub mod image;
pub mod inf;
pub mod process;
pub mod signature;
