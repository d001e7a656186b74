//! Tests of the platform as a whole: management calls in, classify calls out, callouts that are `extern "win64"`
//! functions in between.

mod arbitration;
mod bed;
mod concurrency;
mod exports;
mod flows;
mod lists;
mod management;
mod matching;
mod model;
mod pending;
mod streams;
mod xml;
