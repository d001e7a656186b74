//! `__C_specific_handler`: the language handler of C, which finds a function's `__try` blocks in their scope table.

use super::record::{Context, DispatcherContext, ExceptionPointers, ExceptionRecord, TARGET_UNWIND, UNWINDING};
use super::{CONTINUE_EXECUTION, CONTINUE_SEARCH, unwind_to};

/// An entry of SCOPE_TABLE_AMD64 (winnt.h): all offsets into the image.
#[derive(Clone, Copy)]
#[repr(C)]
struct Scope {
    begin: u32,
    end: u32,
    /// The filter's funclet, [`EXECUTE_HANDLER`] for `__except (EXCEPTION_EXECUTE_HANDLER)`, or the `__finally`'s
    /// funclet.
    handler: u32,
    /// Where the `__except` block begins; 0 for a `__finally`.
    target: u32,
}

/// EXCEPTION_EXECUTE_HANDLER, in place of a filter that always returns it.
const EXECUTE_HANDLER: u32 = 1;

impl Scope {
    fn contains(&self, offset: u64) -> bool {
        (u64::from(self.begin)..u64::from(self.end)).contains(&offset)
    }
}

/// Calls the filters of the `__try` blocks around the frame's position, innermost first, or runs their `__finally`
/// blocks when the frame is unwound.
///
/// # Safety
/// The structures are those of [`super::dispatch`] or [`super::unwind_to`], which call it, through the driver.
pub(crate) unsafe extern "win64" fn handler(
    record: *mut ExceptionRecord,
    establisher: u64,
    context: *mut Context,
    dispatcher: *mut DispatcherContext,
) -> i32 {
    // SAFETY: by this function's contract; nothing else uses the dispatcher context during the call.
    let (flags, dispatcher) = unsafe { ((*record).flags, &mut *dispatcher) };
    let base = dispatcher.image_base;
    let at = dispatcher.control_pc.wrapping_sub(base);
    let table = dispatcher.handler_data.cast::<u32>();
    // SAFETY: the compiler's table for this handler: a count, then so many entries.
    let count = unsafe { table.read_unaligned() };
    // SAFETY: as above.
    let scope_at = |index: u32| unsafe { table.add(1).cast::<Scope>().add(index as usize).read_unaligned() };
    let scopes = (dispatcher.scope_index..count).map(|index| (index, scope_at(index)));
    for (index, scope) in scopes.filter(|(_, scope)| scope.contains(at)) {
        if flags & UNWINDING != 0 {
            let target = (flags & TARGET_UNWIND != 0).then(|| dispatcher.target_ip.wrapping_sub(base));
            if scope.target != 0 {
                // Execution continues at this block's handler: the blocks around it are not left.
                if target == Some(u64::from(scope.target)) {
                    break;
                }
                continue;
            }
            // Execution continues inside this block, which may have several ranges: it is not left.
            let same = |other: Scope| (other.handler, other.target) == (scope.handler, 0);
            if target.is_some_and(|target| (0..count).map(scope_at).any(|s| same(s) && s.contains(target))) {
                break;
            }
            // A `__finally` block that raises is not run again.
            dispatcher.scope_index = index + 1;
            // SAFETY: the compiler's funclet for this block: (abnormal termination, frame).
            unsafe {
                let finally: unsafe extern "win64" fn(u8, u64) = core::mem::transmute(base + u64::from(scope.handler));
                finally(1, establisher);
            }
        } else if scope.target != 0 {
            let answer = if scope.handler == EXECUTE_HANDLER {
                1
            } else {
                let mut pointers = ExceptionPointers { record, context };
                // SAFETY: the compiler's funclet for this filter: (EXCEPTION_POINTERS, frame).
                unsafe {
                    let filter: unsafe extern "win64" fn(*mut ExceptionPointers, u64) -> i32 =
                        core::mem::transmute(base + u64::from(scope.handler));
                    filter(&mut pointers, establisher)
                }
            };
            match answer {
                // SAFETY: by this function's contract; nothing here owns anything.
                1.. => unsafe { unwind_to(establisher, base + u64::from(scope.target), &mut *record, &*context) },
                0 => {}
                _ => return CONTINUE_EXECUTION,
            }
        }
    }
    CONTINUE_SEARCH
}
