//! What a hostile program, peer or administrator's slip can try, each on the real driver. SECURITY.md names the tests.

#[path = "../support/mod.rs"]
mod support;
#[path = "../support/wire.rs"]
mod wire;

mod exhausts_the_pool;
mod flushes_the_event_log;
mod outlives_the_policy;
mod suspends_its_own_thread;
