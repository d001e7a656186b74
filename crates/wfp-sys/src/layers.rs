//! Layers and the fields of a classify by name, as the headers number them (FWPS_BUILTIN_LAYERS and FWPS_FIELDS_*).
//!
//! The tables are constants: a lookup in a constant is computed when the driver is compiled, and no name reaches the
//! image.

/// A layer.
#[derive(Clone, Copy, Debug)]
pub struct Layer {
    /// The run-time id, FWPS_LAYER_*.
    pub id: u16,
    /// The name without FWPS_LAYER_.
    pub name: &'static str,
    /// The fields in order: the name without FWPS_FIELD_ and the layer's name, and the index of its value.
    pub fields: &'static [(&'static str, u16)],
}

include!(concat!(env!("OUT_DIR"), "/layers.rs"));

impl Layer {
    /// The layer with this id, if its fields are known.
    #[must_use]
    pub const fn with_id(id: u16) -> Option<Self> {
        let mut at = 0;
        while at < LAYERS.len() {
            if LAYERS[at].id == id {
                return Some(LAYERS[at]);
            }
            at += 1;
        }
        None
    }

    /// Whether `name` is its name, without FWPS_LAYER_.
    #[must_use]
    pub const fn is_named(&self, name: &str) -> bool {
        equal(self.name, name)
    }

    /// The index of a field's value; None when the layer has no such field.
    #[must_use]
    pub const fn field(&self, name: &str) -> Option<u16> {
        let mut at = 0;
        while at < self.fields.len() {
            if equal(self.fields[at].0, name) {
                return Some(self.fields[at].1);
            }
            at += 1;
        }
        None
    }
}

const fn equal(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    true
}

// The numbers are those that every header from WDK 10.0.14393 to SDK 10.0.25290 agrees on.
const _: () = {
    let Some(layer) = Layer::with_id(48) else { panic!("layer 48") };
    assert!(layer.is_named("ALE_AUTH_CONNECT_V4"));
    assert!(matches!(layer.field("IP_REMOTE_PORT"), Some(7)) && layer.field("MAX").is_none());
};
