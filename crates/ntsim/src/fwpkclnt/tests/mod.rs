//! Tests of the imports around the engine: management calls in, classify calls out, callouts that are `extern "win64"`
//! functions in between.

mod callouts;
mod concurrency;
mod exports;
mod lists;
mod pending;
mod rig;
