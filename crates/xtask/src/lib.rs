//! The part of the build steps that tests use as well: what a driver image must be like.

pub mod image;
