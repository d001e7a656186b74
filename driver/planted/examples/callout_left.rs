//! Unloads with its callout registered.
#![no_std]

use planted::Defect;

struct Planted;

impl Defect for Planted {
    const UNREGISTERS: bool = false;
}

planted::driver!(Planted);
