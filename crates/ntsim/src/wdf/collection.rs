//! Collections: ordered lists of referenced objects.

use core::any::Any;
use std::sync::Arc;

use parking_lot::Mutex;

use super::abi::{Handle, ObjectAttributes};
use super::ddi::{self, Function, Globals};
use super::handle::Kind;
use super::object::{Allowed, Attributes, Body, Object, release};
use super::violation::Violation;
use crate::machine::Machine;
use nt_abi::NtStatus;

/// The functions of this room.
pub(crate) const FUNCTIONS: &[Function] = &[
    Function::dispatch("WdfCollectionCreate", create as *const ()),
    Function::dispatch("WdfCollectionGetCount", get_count as *const ()),
    Function::dispatch("WdfCollectionAdd", add as *const ()),
    Function::dispatch("WdfCollectionRemove", remove as *const ()),
    Function::dispatch("WdfCollectionRemoveItem", remove_item as *const ()),
    Function::dispatch("WdfCollectionGetItem", get_item as *const ()),
    Function::dispatch("WdfCollectionGetFirstItem", get_first_item as *const ()),
    Function::dispatch("WdfCollectionGetLastItem", get_last_item as *const ()),
];

/// `WDFCOLLECTION`. Holds a reference on each item.
#[derive(Default)]
struct Collection {
    items: Mutex<Vec<Arc<Object>>>,
}

impl Body for Collection {
    fn kind(&self) -> Kind {
        Kind::Collection
    }

    fn dispose(&self, machine: &Arc<Machine>, _object: &Arc<Object>) -> Result<(), Box<Violation>> {
        let items = core::mem::take(&mut *self.items.lock());
        items.iter().try_for_each(|item| release(machine, item))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

extern "win64" fn create(globals: Globals, attributes: *const ObjectAttributes, out: *mut Handle) -> NtStatus {
    ddi::status(|machine| {
        let client = ddi::client(machine, globals)?;
        ddi::not_null(out, "WdfCollectionCreate", "Collection")?;
        // SAFETY: the driver passes NULL or a WDF_OBJECT_ATTRIBUTES.
        let attributes = unsafe { Attributes::read(attributes, Allowed::PARENT)? };
        let parent = ddi::parent_or_driver(machine, &client, &attributes)?;
        let object = Object::create(machine, &client, Some(&parent), &attributes, Box::new(Collection::default()))?;
        // SAFETY: not null.
        unsafe { out.write(object.handle) };
        Ok(())
    })
}

fn with<R>(handle: Handle, f: impl FnOnce(&mut Vec<Arc<Object>>) -> R) -> R {
    ddi::run(|machine| {
        let object = ddi::object(machine, handle, Kind::Collection)?;
        let collection = ddi::body::<Collection>(&object)?;
        Ok(f(&mut collection.items.lock()))
    })
}

fn handle_of(item: Option<&Arc<Object>>) -> Handle {
    item.map_or(Handle::NULL, |item| item.handle)
}

extern "win64" fn get_count(_: Globals, collection: Handle) -> u32 {
    with(collection, |items| items.len() as u32)
}

extern "win64" fn add(_: Globals, collection: Handle, item: Handle) -> NtStatus {
    ddi::status(|machine| {
        let object = ddi::object(machine, collection, Kind::Collection)?;
        let item = ddi::any_object(machine, item)?;
        item.reference();
        ddi::body::<Collection>(&object)?.items.lock().push(item);
        Ok(())
    })
}

/// Takes out the first item that `position` finds.
fn take(collection: Handle, what: &str, position: impl FnOnce(&[Arc<Object>]) -> Option<usize>) {
    ddi::run(|machine| {
        let object = ddi::object(machine, collection, Kind::Collection)?;
        let item = {
            let mut items = ddi::body::<Collection>(&object)?.items.lock();
            position(&items).map(|position| items.remove(position))
        };
        match item {
            Some(item) => release(machine, &item),
            None => Err(Violation::verifier(collection, format!("WDFCOLLECTION {collection:?} has no {what}"))),
        }
    });
}

extern "win64" fn remove(_: Globals, collection: Handle, item: Handle) {
    take(collection, &format!("item {item:?} to remove"), |items| items.iter().position(|i| i.handle == item));
}

extern "win64" fn remove_item(_: Globals, collection: Handle, index: u32) {
    take(collection, &format!("item at index {index} to remove"), |items| {
        (index < items.len() as u32).then_some(index as usize)
    });
}

extern "win64" fn get_item(_: Globals, collection: Handle, index: u32) -> Handle {
    with(collection, |items| handle_of(items.get(index as usize)))
}

extern "win64" fn get_first_item(_: Globals, collection: Handle) -> Handle {
    with(collection, |items| handle_of(items.first()))
}

extern "win64" fn get_last_item(_: Globals, collection: Handle) -> Handle {
    with(collection, |items| handle_of(items.last()))
}
