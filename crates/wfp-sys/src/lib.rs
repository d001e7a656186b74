//! Raw bindings to the kernel side of the Windows Filtering Platform.
//!
//! `wdk-sys` has no bindings to fwpsk.h; they are generated here, in the same way and over the same headers, with the
//! types of `wdk-sys` where it has them. Names are those of C. Structures, constants and enumerations that the driver
//! relies on are checked against their documented layout and value when this is compiled (`layout`, `values`).
#![no_std]

pub mod guid;
pub mod layers;
mod layout;
pub mod ndis;
pub mod token;
mod values;

pub use bindings::*;
pub use ndis::{NET_BUFFER, NET_BUFFER_LIST, PNET_BUFFER, PNET_BUFFER_LIST};

/// What bindgen made of the headers.
#[allow(missing_docs, reason = "the names are those of Microsoft's documentation")]
#[allow(non_camel_case_types, non_snake_case, non_upper_case_globals, reason = "the names are those of C")]
#[allow(unreachable_pub, dead_code, unsafe_op_in_unsafe_fn, unnecessary_transmutes, reason = "generated")]
#[allow(clippy::all, clippy::undocumented_unsafe_blocks, reason = "generated")]
mod bindings {
    use wdk_sys::*;

    use crate::ndis::*;

    include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
}
