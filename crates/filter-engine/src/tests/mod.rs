//! Tests of the engine as a whole: management calls in, classify calls out, and callouts that are closures in between.

mod arbitration;
mod flows;
mod management;
mod matching;
mod model;
mod rig;
mod streams;
mod xml;
