//! One step down the stack by a driver's own unwind tables: RUNTIME_FUNCTION and UNWIND_INFO ("x64 exception handling",
//! Microsoft C++ documentation).
//!
//! [`super::super::unwind`] walks a stack for a report and only needs each frame's address; here every saved register
//! is restored, because execution continues with them.

use super::record::{Context, RSP};
use crate::cpu::modules;
use core::ops::Range;

/// UNW_FLAG_EHANDLER: the handler is called in the search for an exception handler.
pub(super) const EHANDLER: u8 = 1;
/// UNW_FLAG_UHANDLER: the handler is called when frames are unwound.
pub(super) const UHANDLER: u8 = 2;
/// UNW_FLAG_CHAININFO: the codes continue in another function's entry.
const CHAININFO: u8 = 4;

/// The most chained entries; the format has no limit, and a hostile image may chain in a cycle.
const CHAIN_LIMIT: usize = 32;

/// One frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) image_base: u64,
    /// The address of its RUNTIME_FUNCTION.
    pub(super) function_entry: u64,
    /// The start of its fixed stack allocation.
    pub(super) establisher: u64,
    /// UNW_FLAG_*.
    pub(super) flags: u8,
    /// The language handler and its data.
    pub(super) handler: Option<(u64, u64)>,
}

/// Unwinds the frame of `context`, which is in the caller afterwards. None when it is not in a driver, or when the
/// tables or the stack are not valid.
pub(super) fn unwind(context: &mut Context, stack: &Range<u64>) -> Option<Frame> {
    let before = context.rsp();
    // A caller is further up; tables that lead elsewhere would make the walk endless.
    step(context, stack).filter(|_| context.rsp() > before)
}

fn step(context: &mut Context, stack: &Range<u64>) -> Option<Frame> {
    modules::with_driver_at(context.rip, |module| {
        let image = Image { bytes: module.image, base: module.range.start };
        let offset = u32::try_from(context.rip - image.base).ok()?;
        match image.function(module.pdata, offset) {
            Some(entry) => unwind_function(&image, entry, offset, context, stack),
            // "If no function table entry is found, the function is a leaf function": only the return address is there.
            None => {
                let frame = Frame {
                    image_base: image.base,
                    function_entry: 0,
                    establisher: context.rsp(),
                    flags: 0,
                    handler: None,
                };
                pop_return(context, stack)?;
                Some(frame)
            }
        }
    })
}

/// A RUNTIME_FUNCTION and its offset in the image.
#[derive(Clone, Copy)]
struct Entry {
    at: u64,
    begin: u32,
    end: u32,
    info: u64,
}

/// A driver's image, into which the tables' offsets point.
struct Image<'a> {
    bytes: &'a [u8],
    base: u64,
}

impl Image<'_> {
    /// `offset` is wider than an image's offsets, so that sums do not overflow.
    fn at<const N: usize>(&self, offset: u64) -> Option<[u8; N]> {
        self.bytes.get(usize::try_from(offset).ok()?..)?.first_chunk().copied()
    }

    fn u16(&self, offset: u64) -> Option<u16> {
        self.at(offset).map(u16::from_le_bytes)
    }

    fn u32(&self, offset: u64) -> Option<u32> {
        self.at(offset).map(u32::from_le_bytes)
    }

    fn entry(&self, at: u64) -> Option<Entry> {
        Some(Entry { at, begin: self.u32(at)?, end: self.u32(at + 4)?, info: self.u32(at + 8)?.into() })
    }

    /// The function that contains `offset`. The table is sorted by address.
    fn function(&self, pdata: &Range<usize>, offset: u32) -> Option<Entry> {
        let (mut low, mut high) = (0, pdata.len() / 12);
        while low < high {
            let middle = low.midpoint(high);
            let entry = self.entry((pdata.start + 12 * middle) as u64)?;
            if offset < entry.begin {
                high = middle;
            } else if offset >= entry.end {
                low = middle + 1;
            } else {
                return Some(entry);
            }
        }
        None
    }
}

/// The head of an UNWIND_INFO.
struct Info {
    flags: u8,
    prolog: u8,
    codes: u64,
    count: u8,
    frame_register: usize,
    frame_offset: u64,
}

impl Info {
    fn read(image: &Image<'_>, at: u64) -> Option<Self> {
        let [first, prolog, count, frame] = image.at(at)?;
        matches!(first & 7, 1 | 2).then_some(Self {
            flags: first >> 3,
            prolog,
            codes: at + 4,
            count,
            frame_register: usize::from(frame & 15),
            frame_offset: u64::from(frame >> 4) * 16,
        })
    }

    /// What follows the codes, which are rounded up to an even number.
    fn behind(&self) -> u64 {
        self.codes + 2 * u64::from(self.count).next_multiple_of(2)
    }
}

fn unwind_function(
    image: &Image<'_>,
    entry: Entry,
    offset: u32,
    context: &mut Context,
    stack: &Range<u64>,
) -> Option<Frame> {
    let info = Info::read(image, entry.info)?;
    let mut done = offset.checked_sub(entry.begin)?;
    // After the prolog every code has been executed.
    if done >= u32::from(info.prolog) {
        done = u32::MAX;
    }
    let establisher = establisher(image, &info, done, context)?;
    // In a prolog the function has not begun: its handler is not called.
    let begun = done == u32::MAX;
    let mut info = info;
    for _ in 0..CHAIN_LIMIT {
        let left = undo(image, &info, done, establisher, context, stack)?;
        if info.flags & CHAININFO == 0 || left == Left::Interrupt {
            if left == Left::Codes {
                pop_return(context, stack)?;
            }
            // The last entry of a chain is the function itself, with the handler of all its parts.
            let flags = info.flags & (EHANDLER | UHANDLER);
            let handler = if begun && flags != 0 && info.flags & CHAININFO == 0 {
                let at = info.behind();
                Some((image.base + u64::from(image.u32(at)?), image.base + at + 4))
            } else {
                None
            };
            let function_entry = image.base + entry.at;
            return Some(Frame { image_base: image.base, function_entry, establisher, flags, handler });
        }
        // The chained entry's prolog was executed in full.
        done = u32::MAX;
        info = Info::read(image, image.entry(info.behind())?.info)?;
    }
    None
}

/// The frame pointer's base if there is one and it has been set, else the stack pointer.
fn establisher(image: &Image<'_>, info: &Info, done: u32, context: &Context) -> Option<u64> {
    if info.frame_register == 0 {
        return Some(context.rsp());
    }
    let mut set = done == u32::MAX;
    let mut slot = 0;
    while !set && slot < info.count {
        let code = Code::read(image, info, slot)?;
        set = code.operation == op::SET_FPREG && u32::from(code.offset) <= done;
        slot = slot.saturating_add(code.slots);
    }
    Some(match set {
        true => context.registers[info.frame_register].wrapping_sub(info.frame_offset),
        false => context.rsp(),
    })
}

/// UNWIND_CODE operations.
mod op {
    pub(super) const PUSH_NONVOL: u8 = 0;
    pub(super) const ALLOC_LARGE: u8 = 1;
    pub(super) const ALLOC_SMALL: u8 = 2;
    pub(super) const SET_FPREG: u8 = 3;
    pub(super) const SAVE_NONVOL: u8 = 4;
    pub(super) const SAVE_NONVOL_FAR: u8 = 5;
    /// Version 2 only: describes an epilog.
    pub(super) const EPILOG: u8 = 6;
    pub(super) const SPARE: u8 = 7;
    pub(super) const SAVE_XMM128: u8 = 8;
    pub(super) const SAVE_XMM128_FAR: u8 = 9;
    pub(super) const PUSH_MACHFRAME: u8 = 10;
}

/// An UNWIND_CODE with the slots that belong to it.
struct Code {
    /// Its offset in the prolog.
    offset: u8,
    operation: u8,
    argument: u8,
    /// Slots of 2 bytes, including its own.
    slots: u8,
    /// The value of the following slots, unscaled.
    operand: u64,
}

impl Code {
    fn read(image: &Image<'_>, info: &Info, slot: u8) -> Option<Self> {
        let at = info.codes + 2 * u64::from(slot);
        let [offset, second] = image.at(at)?;
        let (operation, argument) = (second & 15, second >> 4);
        let slots = match operation {
            op::ALLOC_LARGE => 2 + argument.min(1),
            op::SAVE_NONVOL | op::SAVE_XMM128 => 2,
            op::SAVE_NONVOL_FAR | op::SAVE_XMM128_FAR => 3,
            op::SPARE => 3,
            op::PUSH_NONVOL | op::ALLOC_SMALL | op::SET_FPREG | op::EPILOG | op::PUSH_MACHFRAME => 1,
            _ => return None,
        };
        let operand = match slots {
            2 => u64::from(image.u16(at + 2)?),
            3 => u64::from(image.u32(at + 2)?),
            _ => 0,
        };
        Some(Self { offset, operation, argument, slots, operand })
    }
}

#[derive(PartialEq)]
enum Left {
    Codes,
    /// The frame was a machine frame, which holds the caller's instruction and stack pointers.
    Interrupt,
}

/// Undoes, in reverse order, the codes executed up to `done`.
fn undo(
    image: &Image<'_>,
    info: &Info,
    done: u32,
    establisher: u64,
    context: &mut Context,
    stack: &Range<u64>,
) -> Option<Left> {
    let mut slot = 0;
    while slot < info.count {
        let code = Code::read(image, info, slot)?;
        slot = slot.saturating_add(code.slots);
        if u32::from(code.offset) > done {
            continue;
        }
        let register = usize::from(code.argument);
        match code.operation {
            op::PUSH_NONVOL => {
                context.registers[register] = word(context.rsp(), stack)?;
                drop_bytes(context, 8);
            }
            op::ALLOC_SMALL => drop_bytes(context, u64::from(code.argument) * 8 + 8),
            op::ALLOC_LARGE if code.argument == 0 => drop_bytes(context, code.operand * 8),
            op::ALLOC_LARGE => drop_bytes(context, code.operand),
            op::SET_FPREG => {
                context.registers[RSP] = context.registers[info.frame_register].wrapping_sub(info.frame_offset);
            }
            op::SAVE_NONVOL => context.registers[register] = word(establisher.wrapping_add(code.operand * 8), stack)?,
            op::SAVE_NONVOL_FAR => context.registers[register] = word(establisher.wrapping_add(code.operand), stack)?,
            op::SAVE_XMM128 | op::SAVE_XMM128_FAR => {
                let scale = if code.operation == op::SAVE_XMM128 { 16 } else { 1 };
                let at = establisher.wrapping_add(code.operand * scale);
                let (low, high) = (word(at, stack)?.to_le_bytes(), word(at.wrapping_add(8), stack)?.to_le_bytes());
                let mut value = [0; 16];
                value[..8].copy_from_slice(&low);
                value[8..].copy_from_slice(&high);
                context.fx.set_xmm(register, value);
            }
            op::PUSH_MACHFRAME => {
                let frame = context.rsp().wrapping_add(8 * u64::from(code.argument & 1));
                context.rip = word(frame, stack)?;
                context.registers[RSP] = word(frame.wrapping_add(24), stack)?;
                return Some(Left::Interrupt);
            }
            _ => {} // an epilog's description
        }
    }
    Some(Left::Codes)
}

fn drop_bytes(context: &mut Context, bytes: u64) {
    context.registers[RSP] = context.rsp().wrapping_add(bytes);
}

fn pop_return(context: &mut Context, stack: &Range<u64>) -> Option<()> {
    context.rip = word(context.rsp(), stack)?;
    drop_bytes(context, 8);
    Some(())
}

/// A word of the kernel stack. None for an address outside.
fn word(address: u64, stack: &Range<u64>) -> Option<u64> {
    let inside = address.is_multiple_of(8) && address >= stack.start && address.checked_add(8)? <= stack.end;
    // SAFETY: inside this thread's kernel stack, which is mapped while it runs on it; any bits are a u64.
    inside.then(|| unsafe { (address as *const u64).read_volatile() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A function of 64 bytes at the image's beginning, its entry at 64 and its UNWIND_INFO at 80.
    fn image(info: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        for word in [0u32, 64, 80, 0] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(info);
        bytes
    }

    fn unwind_one(bytes: &[u8], offset: u32, context: &mut Context, stack: &Range<u64>) -> Option<Frame> {
        let image = Image { bytes, base: 0x10_0000 };
        let entry = image.function(&(64..76), offset)?;
        unwind_function(&image, entry, offset, context, stack)
    }

    #[test]
    fn a_part_of_a_function_has_the_handler_of_the_whole() {
        // At 80, of a part: sub rsp, 16, chained to the entry at 88, whose UNWIND_INFO at 100 has a handler at 0x40.
        let chained = [1 | CHAININFO << 3, 4, 1, 0, 4, 0x12, 0, 0];
        let mut info = chained.to_vec();
        info.extend([200u32, 300, 100].into_iter().flat_map(u32::to_le_bytes));
        info.extend([1 | EHANDLER << 3, 0, 0, 0, 0x40, 0, 0, 0]);
        let memory = [0u64, 0, 0x1234, 0];
        let base = memory.as_ptr() as u64;
        let mut context = Context::zeroed();
        context.registers[RSP] = base;
        let frame = unwind_one(&image(&info), 20, &mut context, &(base..base + 32)).expect("well formed");
        assert_eq!((context.rip, context.rsp()), (0x1234, base + 24));
        assert_eq!((frame.flags, frame.handler), (EHANDLER, Some((0x10_0040, 0x10_0000 + 108))));
    }

    #[test]
    fn a_frame_is_undone_from_its_body_and_from_within_its_prolog() {
        // push rbx; sub rsp, 32: 5 bytes of prolog, codes in reverse order.
        let bytes = image(&[1, 5, 2, 0, 5, 0x32, 1, 0x30]);
        let memory = [0u64, 0, 0, 0, 0xb0b, 0x1234, 0];
        let base = memory.as_ptr() as u64;
        let stack = base..base + 56;
        for (offset, rsp) in [(20, base), (1, base + 32)] {
            let mut context = Context::zeroed();
            context.registers[RSP] = rsp;
            let frame = unwind_one(&bytes, offset, &mut context, &stack).expect("well formed");
            assert_eq!((context.registers[3], context.rip, context.rsp()), (0xb0b, 0x1234, base + 48), "at {offset}");
            assert_eq!((frame.establisher, frame.handler), (rsp, None), "at {offset}");
        }
    }

    proptest! {
        #[test]
        fn hostile_tables_end_the_walk_at_worst(
            info in proptest::collection::vec(any::<u8>(), 0..96),
            offset in 0u32..64,
            registers in any::<[u64; 16]>(),
            near in any::<[Option<u8>; 16]>(),
        ) {
            let memory = [0x10_0008u64; 32];
            let base = memory.as_ptr() as u64;
            let mut context = Context::zeroed();
            context.registers = registers;
            for (register, near) in context.registers.iter_mut().zip(near) {
                if let Some(near) = near {
                    *register = base + u64::from(near & 0xf8);
                }
            }
            let _any = unwind_one(&image(&info), offset, &mut context, &(base..base + 256));
        }
    }
}
