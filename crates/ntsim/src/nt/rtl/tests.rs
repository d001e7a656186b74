use super::format::{Arguments, format};
use crate::cpu;
use crate::machine::Machine;
use crate::pe::gate::import;
use nt_abi::Irql;
use nt_abi::NtStatus;
use nt_abi::{OwnedUnicodeString, UnicodeString};

fn formatted(template: &str, slots: &[u64]) -> String {
    // SAFETY: as many slots as the templates below take.
    format(template, &mut unsafe { Arguments::new(slots.as_ptr()) }, false)
}

fn inside<R>(f: impl FnOnce() -> R) -> R {
    cpu::enter(&Machine::new(), Irql::PASSIVE, f).unwrap()
}

#[test]
fn integers_are_formatted_as_the_c_runtime_does() {
    let minus_one = u64::MAX;
    let cases: &[(&str, &[u64], &str)] = &[
        ("%d|%i", &[minus_one, 7], "-1|7"),
        ("%u %I64u", &[minus_one, minus_one], "4294967295 18446744073709551615"),
        ("%x %X %#x %#X %o", &[255, 255, 255, 0, 8], "ff FF 0xff 0 10"),
        ("%hd %hhd %lld %Id", &[0x1_ffff, 0x1ff, minus_one, minus_one], "-1 -1 -1 -1"),
        ("[%5d][%-5d][%05d][%+d][% d]", &[42, 42, 42, 42, 42], "[   42][42   ][00042][+42][ 42]"),
        ("[%.3d][%5.3d][%*d]", &[7, 7, 4, 9], "[007][  007][   9]"),
        ("%p", &[0xffff_f780_0000_0000], "FFFFF78000000000"),
        ("100%% %c%c", &[65, 66], "100% AB"),
        ("%", &[], ""),
    ];
    for (template, slots, expected) in cases {
        assert_eq!(formatted(template, slots), *expected, "{template}");
    }
}

#[test]
fn strings_are_formatted_by_their_width() {
    let narrow = c"narrow".as_ptr() as u64;
    let wide: Vec<u16> = "wide\0".encode_utf16().collect();
    let wide = wide.as_ptr() as u64;
    let counted = OwnedUnicodeString::new("counted");
    let cases: &[(&str, &[u64], &str)] = &[
        ("%s %S %ws %ls", &[narrow, wide, wide, wide], "narrow wide wide wide"),
        ("[%8s][%-8s][%.3s]", &[narrow, narrow, narrow], "[  narrow][narrow  ][nar]"),
        ("%wZ", &[counted.as_ptr() as u64], "counted"),
        ("%s %wZ", &[0, 0], "(null) (null)"),
    ];
    for (template, slots, expected) in cases {
        assert_eq!(formatted(template, slots), *expected, "{template}");
    }
    // In a wide format the small letter is wide.
    // SAFETY: one slot each.
    let in_wide = |template, slot: &u64| format(template, &mut unsafe { Arguments::new(slot) }, true);
    assert_eq!((in_wide("%s", &wide), in_wide("%S", &narrow), in_wide("%hs", &narrow)).0, "wide");
    assert_eq!(in_wide("%S", &narrow), "narrow");
    assert_eq!(in_wide("%hs", &narrow), "narrow");
}

#[test]
fn a_huge_width_is_bounded() {
    assert_eq!(formatted("%999999999d", &[1]).len(), 4096);
}

#[test]
fn variadic_exports_take_register_and_stack_arguments() {
    type Print = extern "win64" fn(*const i8, u64, u64, u64, u64, u64) -> i32;
    let print: Print = import("DbgPrint");
    let m = Machine::new();
    cpu::enter(&m, Irql::DISPATCH, || print(c"%d %d %d %d %d\n".as_ptr().cast(), 1, 2, 3, 4, 5)).unwrap();
    assert_eq!(m.log.lines(), ["1 2 3 4 5"]);

    type Snprintf = extern "win64" fn(*mut u8, usize, *const i8, u64, u64) -> i32;
    let snprintf: Snprintf = import("_snprintf");
    let mut buffer = [0xff_u8; 8];
    let template = c"%x-%x".as_ptr().cast();
    inside(|| {
        assert_eq!(snprintf(buffer.as_mut_ptr(), 8, template, 0x12, 0x34), 5);
        assert_eq!(buffer[..6], *b"12-34\0");
        assert_eq!(snprintf(buffer.as_mut_ptr(), 5, template, 0x56, 0x78), 5);
        assert_eq!(buffer[..6], *b"56-78\0", "the terminator was not written");
        assert_eq!(snprintf(buffer.as_mut_ptr(), 3, template, 0x9a, 0xbc), -1);
        assert_eq!(buffer[..5], *b"9a-78");
    });
}

#[test]
fn memory_routines_move_compare_and_fill() {
    let copy: extern "win64" fn(*mut u8, *const u8, usize) -> *mut u8 = import("memcpy");
    let shift: extern "win64" fn(*mut u8, *const u8, usize) -> *mut u8 = import("memmove");
    let fill: extern "win64" fn(*mut u8, i32, usize) -> *mut u8 = import("memset");
    let compare: extern "win64" fn(*const u8, *const u8, usize) -> i32 = import("memcmp");
    let equal: extern "win64" fn(*const u8, *const u8, usize) -> usize = import("RtlCompareMemory");
    inside(|| {
        let mut a = *b"0123456789";
        let mut b = [0; 10];
        assert_eq!(copy(b.as_mut_ptr(), a.as_ptr(), 10), b.as_mut_ptr());
        assert_eq!(a, b);
        shift(a.as_mut_ptr().wrapping_add(2), a.as_ptr(), 8);
        assert_eq!(a, *b"0101234567");
        shift(a.as_mut_ptr(), a.as_ptr().wrapping_add(2), 8);
        assert_eq!(a, *b"0123456767");
        assert_eq!(fill(b.as_mut_ptr(), 0x141, 3), b.as_mut_ptr());
        assert_eq!(b, *b"AAA3456789");
        assert!(compare(a.as_ptr(), b.as_ptr(), 10) < 0 && compare(b.as_ptr(), a.as_ptr(), 10) > 0);
        assert_eq!(compare(a.as_ptr().wrapping_add(3), b.as_ptr().wrapping_add(3), 5), 0);
        assert_eq!(equal(a.as_ptr().wrapping_add(3), b.as_ptr().wrapping_add(3), 7), 5);
    });
}

#[test]
fn unicode_strings_are_copied_as_far_as_they_fit() {
    let initialize: extern "win64" fn(*mut UnicodeString, *const u16) = import("RtlInitUnicodeString");
    let copy: extern "win64" fn(*mut UnicodeString, *const UnicodeString) = import("RtlCopyUnicodeString");
    let append: extern "win64" fn(*mut UnicodeString, *const UnicodeString) -> NtStatus =
        import("RtlAppendUnicodeStringToString");
    let text: Vec<u16> = "sluice\0".encode_utf16().collect();
    inside(|| {
        let mut string = UnicodeString::EMPTY;
        initialize(&raw mut string, text.as_ptr());
        assert_eq!((string.length, string.maximum_length), (12, 14));
        let mut room = [0xffff_u16; 8];
        let mut to = UnicodeString { length: 0, maximum_length: 8, buffer: room.as_mut_ptr() };
        copy(&raw mut to, &raw const string);
        assert_eq!((to.length, &room[..5]), (8, &[text[0], text[1], text[2], text[3], 0xffff][..]));
        assert_eq!(append(&raw mut to, &raw const string), NtStatus::BUFFER_TOO_SMALL);
        assert_eq!(to.length, 8);
        copy(&raw mut to, core::ptr::null());
        assert_eq!(to.length, 0);
    });
}

#[test]
fn unicode_strings_compare_with_and_without_case() {
    type Compare = extern "win64" fn(*const UnicodeString, *const UnicodeString, u8) -> i32;
    type Test = extern "win64" fn(*const UnicodeString, *const UnicodeString, u8) -> u8;
    let compare: Compare = import("RtlCompareUnicodeString");
    let (equal, prefix, suffix): (Test, Test, Test) =
        (import("RtlEqualUnicodeString"), import("RtlPrefixUnicodeString"), import("RtlSuffixUnicodeString"));
    let [lower, upper, longer] = ["größe", "GRÖßE", "größer"].map(OwnedUnicodeString::new);
    inside(|| {
        assert_eq!(equal(lower.as_ptr(), upper.as_ptr(), 0), 0);
        assert_eq!(equal(lower.as_ptr(), upper.as_ptr(), 1), 1);
        assert!(compare(lower.as_ptr(), longer.as_ptr(), 1) < 0 && compare(longer.as_ptr(), upper.as_ptr(), 1) > 0);
        assert_eq!(prefix(upper.as_ptr(), longer.as_ptr(), 1), 1);
        assert_eq!(prefix(longer.as_ptr(), upper.as_ptr(), 1), 0);
        assert_eq!(suffix(OwnedUnicodeString::new("SSE").as_ptr(), lower.as_ptr(), 1), 0);
        assert_eq!(suffix(OwnedUnicodeString::new("ßE").as_ptr(), lower.as_ptr(), 1), 1);
    });
}

#[test]
fn numbers_are_read_from_strings() {
    let read: extern "win64" fn(*const UnicodeString, u32, *mut u32) -> NtStatus = import("RtlUnicodeStringToInteger");
    inside(|| {
        for (text, base, value) in [("  42x", 10, 42), ("0x1F", 0, 31), ("-5", 0, -5_i32 as u32), ("z", 16, 0)] {
            let mut number = 1;
            assert_eq!(read(OwnedUnicodeString::new(text).as_ptr(), base, &raw mut number), NtStatus::SUCCESS);
            assert_eq!(number, value, "{text}");
        }
        let mut number = 1;
        let status = read(OwnedUnicodeString::new("1").as_ptr(), 7, &raw mut number);
        assert_eq!(status, NtStatus::INVALID_PARAMETER);
    });
}

#[test]
fn the_stack_probe_touches_the_pages_and_keeps_registers() {
    let probe: usize = import::<extern "win64" fn()>("__chkstk") as usize;
    let (rax, rcx) = inside(|| {
        let (rax, rcx): (u64, u64);
        // SAFETY: __chkstk is called with the size in rax and changes nothing but the flags.
        unsafe {
            core::arch::asm!("call {probe}", probe = in(reg) probe,
                inout("rax") 0x5000_u64 => rax, inout("rcx") 0x1234_u64 => rcx);
        }
        (rax, rcx)
    });
    assert_eq!((rax, rcx), (0x5000, 0x1234));
    let stopped = cpu::enter(&Machine::new(), Irql::PASSIVE, || {
        // SAFETY: more than the stack has, which faults in its guard; that is what is tested.
        unsafe { core::arch::asm!("call {probe}", probe = in(reg) probe, inout("rax") 0x8_4000_u64 => _) };
    });
    assert_eq!(stopped.unwrap_err().code, cpu::code::UNEXPECTED_KERNEL_MODE_TRAP);
}

#[test]
fn the_version_is_windows_10_22h2() {
    let version: extern "win64" fn(*mut [u32; 71]) -> NtStatus = import("RtlGetVersion");
    inside(|| {
        let mut info = [0xffff_ffff_u32; 71];
        info[0] = 284;
        assert_eq!(version(&raw mut info), NtStatus::SUCCESS);
        assert_eq!(info[..5], [284, 10, 0, 19045, 2]);
        assert_eq!(info[69..], [0, 0x0001_0000], "no service pack, a workstation");
    });
}
