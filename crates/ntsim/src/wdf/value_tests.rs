//! Strings, memory, collections, registry keys, and what the driver object answers.

use core::ptr;

use super::RegistryValue;
use super::abi::{Handle, ObjectAttributes, UnicodeString, VersionAvailable};
use super::testing::{Calls, Rig, Wide, attributes, wdf};
use nt_abi::NtStatus;

const NO_RIG: Calls = Calls { globals: ptr::null() };
const NO_ATTRIBUTES: *const ObjectAttributes = ptr::null();

fn text_of(string: Handle) -> String {
    let mut out = UnicodeString { length: 0, maximum_length: 0, buffer: ptr::null_mut() };
    wdf!(NO_RIG, WdfStringGetUnicodeString(string => Handle, &raw mut out => *mut UnicodeString) -> ());
    // SAFETY: the string object's buffer, with its terminator.
    unsafe {
        assert_eq!(*out.buffer.add(usize::from(out.length) / 2), 0, "terminated");
        String::from_utf16(core::slice::from_raw_parts(out.buffer, usize::from(out.length) / 2)).unwrap()
    }
}

fn string(rig: &Rig, text: *const UnicodeString) -> Result<Handle, NtStatus> {
    let mut string = Handle::NULL;
    let status = wdf!(rig, WdfStringCreate(
        text => *const UnicodeString, NO_ATTRIBUTES => *const ObjectAttributes, &raw mut string => *mut Handle) -> NtStatus);
    status.ok().map(|()| string)
}

#[test]
fn strings_are_copied_and_broken_ones_refused() {
    let rig = Rig::new();
    rig.run(|| {
        let text = Wide::new("grüße");
        assert_eq!(text_of(string(&rig, text.get()).unwrap()), "grüße");
        assert_eq!(text_of(string(&rig, ptr::null()).unwrap()), "");
        let odd = UnicodeString { length: 3, maximum_length: 4, buffer: ptr::dangling_mut() };
        let longer_than_its_room = UnicodeString { length: 4, maximum_length: 2, buffer: ptr::dangling_mut() };
        let without_buffer = UnicodeString { length: 4, maximum_length: 4, buffer: ptr::null_mut() };
        for broken in [odd, longer_than_its_room, without_buffer] {
            assert_eq!(string(&rig, &raw const broken), Err(NtStatus::INVALID_PARAMETER));
        }
    })
    .unwrap();
    assert_eq!(rig.unload().unwrap(), Vec::<String>::new());
}

#[test]
fn the_driver_object_answers() {
    let rig = Rig::new();
    rig.run(|| {
        let path = wdf!(rig, WdfDriverGetRegistryPath(rig.driver => Handle) -> *const u16);
        // SAFETY: NUL-terminated.
        let units: Vec<u16> = unsafe { (0..).map(|i| *path.add(i)).take_while(|unit| *unit != 0).collect() };
        assert!(String::from_utf16(&units).unwrap().ends_with(r"\Services\Testee"));
        let object = wdf!(rig, WdfDriverWdmGetDriverObject(rig.driver => Handle) -> usize);
        assert_eq!(object, rig.object_address() as usize);
        assert_eq!(wdf!(rig, WdfWdmDriverGetWdfDriverHandle(object => usize) -> Handle), rig.driver);
        let version = string(&rig, ptr::null()).unwrap();
        let status = wdf!(rig, WdfDriverRetrieveVersionString(rig.driver => Handle, version => Handle) -> NtStatus);
        assert_eq!(status, NtStatus::SUCCESS);
        assert!(text_of(version).contains("1.33"), "{}", text_of(version));
        for (major, minor, there) in [(1, 9, 1), (1, 33, 1), (1, 34, 0), (2, 0, 0)] {
            let asked = VersionAvailable { size: 12, major, minor };
            let answer = wdf!(rig, WdfDriverIsVersionAvailable(
                rig.driver => Handle, &raw const asked => *const VersionAvailable) -> u8);
            assert_eq!(answer, there, "{major}.{minor}");
        }
    })
    .unwrap();
}

#[test]
fn memory_comes_from_pool_with_its_tag_and_goes_with_its_object() {
    let rig = Rig::new();
    rig.run(|| {
        let create = |size: usize, tag: u32| {
            let (mut memory, mut buffer) = (Handle::NULL, 0_usize);
            let status = wdf!(rig, WdfMemoryCreate(
                NO_ATTRIBUTES => *const ObjectAttributes, 512 => u32, tag => u32, size => usize,
                &raw mut memory => *mut Handle, &raw mut buffer => *mut usize) -> NtStatus);
            status.ok().map(|()| (memory, buffer))
        };
        assert_eq!(create(0, 0), Err(NtStatus::INVALID_PARAMETER));
        let (memory, buffer) = create(100, u32::from_le_bytes(*b"Tst1")).unwrap();
        let mut size = 0;
        let got = wdf!(rig, WdfMemoryGetBuffer(memory => Handle, &raw mut size => *mut usize) -> usize);
        assert_eq!((got, size), (buffer, 100));
        let mut bytes = [7_u8; 10];
        let out = wdf!(rig, WdfMemoryCopyToBuffer(
            memory => Handle, 90 => usize, bytes.as_mut_ptr() => *mut u8, 10 => usize) -> NtStatus);
        assert_eq!((out, bytes), (NtStatus::SUCCESS, [0; 10]));
        rig.delete(memory);

        let mut mine = [1_u8, 2, 3];
        let mut memory = Handle::NULL;
        let status = wdf!(rig, WdfMemoryCreatePreallocated(
            NO_ATTRIBUTES => *const ObjectAttributes, mine.as_mut_ptr() => *mut u8, 3 => usize,
            &raw mut memory => *mut Handle) -> NtStatus);
        assert_eq!(status, NtStatus::SUCCESS);
        let got = wdf!(rig, WdfMemoryGetBuffer(memory => Handle, ptr::null_mut() => *mut usize) -> *const u8);
        assert_eq!(got, mine.as_ptr());
        rig.delete(memory);
        assert_eq!(mine, [1, 2, 3]);
    })
    .unwrap();
    assert_eq!(rig.unload().unwrap(), Vec::<String>::new());
}

#[test]
fn a_lookaside_list_makes_memory_of_one_size() {
    let rig = Rig::new();
    rig.run(|| {
        let mut list = Handle::NULL;
        let status = wdf!(rig, WdfLookasideListCreate(
            NO_ATTRIBUTES => *const ObjectAttributes, 48 => usize, 512 => u32,
            NO_ATTRIBUTES => *const ObjectAttributes, 0 => u32, &raw mut list => *mut Handle) -> NtStatus);
        assert_eq!(status, NtStatus::SUCCESS);
        let mut memory = Handle::NULL;
        let status =
            wdf!(rig, WdfMemoryCreateFromLookaside(list => Handle, &raw mut memory => *mut Handle) -> NtStatus);
        assert_eq!(status, NtStatus::SUCCESS);
        let mut size = 0;
        wdf!(rig, WdfMemoryGetBuffer(memory => Handle, &raw mut size => *mut usize) -> usize);
        assert_eq!(size, 48);
    })
    .unwrap();
    assert_eq!(rig.unload().unwrap(), Vec::<String>::new());
}

fn collection(rig: &Rig) -> Handle {
    let mut collection = Handle::NULL;
    let status = wdf!(rig, WdfCollectionCreate(
        NO_ATTRIBUTES => *const ObjectAttributes, &raw mut collection => *mut Handle) -> NtStatus);
    assert_eq!(status, NtStatus::SUCCESS);
    collection
}

#[test]
fn collections_keep_their_items_in_order_and_alive() {
    let rig = Rig::new();
    rig.run(|| {
        let collection = collection(&rig);
        let items: Vec<Handle> = (0..3).map(|_| rig.object(attributes())).collect();
        for item in &items {
            let status = wdf!(rig, WdfCollectionAdd(collection => Handle, *item => Handle) -> NtStatus);
            assert_eq!(status, NtStatus::SUCCESS);
        }
        let count = || wdf!(rig, WdfCollectionGetCount(collection => Handle) -> u32);
        let item = |index: u32| wdf!(rig, WdfCollectionGetItem(collection => Handle, index => u32) -> Handle);
        assert_eq!((count(), item(0), item(2), item(3)), (3, items[0], items[2], Handle::NULL));
        rig.delete(items[1]);
        assert_eq!(item(1), items[1], "the collection's reference keeps it");
        wdf!(rig, WdfCollectionRemove(collection => Handle, items[1] => Handle) -> ());
        wdf!(rig, WdfCollectionRemoveItem(collection => Handle, 0 => u32) -> ());
        assert_eq!((count(), item(0)), (1, items[2]));
        assert_eq!(wdf!(rig, WdfCollectionGetFirstItem(collection => Handle) -> Handle), items[2]);
        assert_eq!(wdf!(rig, WdfCollectionGetLastItem(collection => Handle) -> Handle), items[2]);
    })
    .unwrap();
    assert_eq!(rig.unload().unwrap(), Vec::<String>::new());
    let rig = Rig::new();
    let (_, why) = rig.violation(|| {
        let collection = collection(&rig);
        wdf!(rig, WdfCollectionRemoveItem(collection => Handle, 0 => u32) -> ());
    });
    assert!(why.contains("no item at index 0"), "{why}");
}

fn parameters(rig: &Rig) -> Handle {
    let mut key = Handle::NULL;
    let status = wdf!(rig, WdfDriverOpenParametersRegistryKey(
        rig.driver => Handle, 0x2_0019 => u32, NO_ATTRIBUTES => *const ObjectAttributes,
        &raw mut key => *mut Handle) -> NtStatus);
    assert_eq!(status, NtStatus::SUCCESS);
    key
}

fn ulong(key: Handle, name: &str) -> Result<u32, NtStatus> {
    let (name, mut value) = (Wide::new(name), 0);
    let status = wdf!(NO_RIG, WdfRegistryQueryULong(
        key => Handle, name.get() => *const UnicodeString, &raw mut value => *mut u32) -> NtStatus);
    status.ok().map(|()| value)
}

#[test]
fn parameters_are_what_the_machine_was_given() {
    let rig = Rig::new();
    rig.machine.set_parameter("testee", "Depth", RegistryValue::dword(7));
    rig.machine.set_parameter("Testee", "Name", RegistryValue::text("sluice"));
    rig.run(|| {
        let key = parameters(&rig);
        assert_eq!(ulong(key, "depth"), Ok(7), "names have no case");
        assert_eq!(ulong(key, "Missing"), Err(NtStatus::OBJECT_NAME_NOT_FOUND));
        assert_eq!(ulong(key, "Name"), Err(NtStatus::OBJECT_TYPE_MISMATCH));

        let name = Wide::new("Name");
        let (mut units, mut needed) = ([0xFFFF_u16; 8], 0_u16);
        let mut text = UnicodeString { length: 0, maximum_length: 16, buffer: units.as_mut_ptr() };
        let query = |text: *mut UnicodeString, needed: *mut u16| {
            wdf!(rig, WdfRegistryQueryUnicodeString(
                key => Handle, name.get() => *const UnicodeString, needed => *mut u16, text => *mut UnicodeString) -> NtStatus)
        };
        assert_eq!(query(&raw mut text, &raw mut needed), NtStatus::SUCCESS);
        assert_eq!((text.length, needed), (12, 14));
        assert_eq!(String::from_utf16(&units[..6]).unwrap(), "sluice");
        text.maximum_length = 10;
        assert_eq!(query(&raw mut text, ptr::null_mut()), NtStatus::BUFFER_OVERFLOW);
        let whole = string(&rig, ptr::null()).unwrap();
        let status = wdf!(rig, WdfRegistryQueryString(
            key => Handle, name.get() => *const UnicodeString, whole => Handle) -> NtStatus);
        assert_eq!((status, text_of(whole)), (NtStatus::SUCCESS, "sluice".to_owned()));

        let (mut bytes, mut length, mut kind) = ([0_u8; 4], 0_u32, 0_u32);
        let depth = Wide::new("Depth");
        let mut query = |room: u32| {
            wdf!(rig, WdfRegistryQueryValue(
                key => Handle, depth.get() => *const UnicodeString, room => u32, bytes.as_mut_ptr() => *mut u8,
                &raw mut length => *mut u32, &raw mut kind => *mut u32) -> NtStatus)
        };
        assert_eq!(query(3), NtStatus::BUFFER_OVERFLOW);
        assert_eq!(query(4), NtStatus::SUCCESS);
        assert_eq!((bytes, length, kind), ([7, 0, 0, 0], 4, 4));
        wdf!(rig, WdfRegistryClose(key => Handle) -> ());
    })
    .unwrap();
    assert_eq!(rig.unload().unwrap(), Vec::<String>::new());
}

#[test]
fn a_driver_writes_values_and_keys_of_its_own() {
    let rig = Rig::new();
    rig.run(|| {
        let key = parameters(&rig);
        let (name, sub) = (Wide::new("Count"), Wide::new("Sub"));
        let status = wdf!(rig, WdfRegistryAssignULong(
            key => Handle, name.get() => *const UnicodeString, 3 => u32) -> NtStatus);
        assert_eq!((status, ulong(key, "Count")), (NtStatus::SUCCESS, Ok(3)));
        let open = |out: *mut Handle| {
            wdf!(rig, WdfRegistryOpenKey(
                key => Handle, sub.get() => *const UnicodeString, 0 => u32, NO_ATTRIBUTES => *const ObjectAttributes,
                out => *mut Handle) -> NtStatus)
        };
        let mut below = Handle::NULL;
        assert_eq!(open(&raw mut below), NtStatus::OBJECT_NAME_NOT_FOUND);
        let mut disposition = 0;
        let create = |disposition: *mut u32, out: *mut Handle| {
            wdf!(rig, WdfRegistryCreateKey(
                key => Handle, sub.get() => *const UnicodeString, 0 => u32, 0 => u32, disposition => *mut u32,
                NO_ATTRIBUTES => *const ObjectAttributes, out => *mut Handle) -> NtStatus)
        };
        assert_eq!(create(&raw mut disposition, &raw mut below), NtStatus::SUCCESS);
        assert_eq!(disposition, 1);
        assert_eq!(create(&raw mut disposition, &raw mut below), NtStatus::SUCCESS);
        assert_eq!(disposition, 2);
        assert_eq!(open(&raw mut below), NtStatus::SUCCESS);
        assert_eq!(ulong(below, "Count"), Err(NtStatus::OBJECT_NAME_NOT_FOUND));
        let removed = wdf!(rig, WdfRegistryRemoveValue(key => Handle, name.get() => *const UnicodeString) -> NtStatus);
        assert_eq!((removed, ulong(key, "Count")), (NtStatus::SUCCESS, Err(NtStatus::OBJECT_NAME_NOT_FOUND)));
    })
    .unwrap();
    assert_eq!(rig.machine.parameter("testee", "count"), None);
}
