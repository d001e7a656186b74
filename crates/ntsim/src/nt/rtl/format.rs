//! The formats of `printf` as the kernel has them ("Format specification syntax", Microsoft C runtime), floating point
//! excepted, which the kernel does not print either.

use nt_abi::{AnsiString, UnicodeString};

/// The arguments of a variadic win64 call: 8-byte slots one after the other, as a `va_list` walks them.
#[derive(Debug)]
pub struct Arguments(*const u64);

impl Arguments {
    /// # Safety
    /// `slots` points at as many readable slots as the format takes; when it does not, the access faults inside
    /// [`crate::cpu::enter`] or reads other stack words, as on Windows.
    pub unsafe fn new(slots: *const u64) -> Self {
        Self(slots)
    }

    fn take(&mut self) -> u64 {
        // SAFETY: the promise of `new`.
        unsafe {
            let value = self.0.read();
            self.0 = self.0.add(1);
            value
        }
    }
}

/// The size prefix of a conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    Char,
    Short,
    Int,
    Long,
    Quad,
}

#[derive(Clone, Copy, Debug, Default)]
struct Spec {
    left: bool,
    plus: bool,
    space: bool,
    zero: bool,
    alternate: bool,
    width: usize,
    precision: Option<usize>,
}

/// The most a width or precision counts for; a hostile one must not exhaust memory.
const WIDEST: usize = 4096;

/// Formats. `wide` says that the format string was, which turns the meaning of `%s` and `%S` around.
pub fn format(format: &str, arguments: &mut Arguments, wide: bool) -> String {
    let mut out = String::new();
    let mut rest = format.chars().peekable();
    while let Some(c) = rest.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut spec = Spec::default();
        while let Some(&flag) = rest.peek() {
            match flag {
                '-' => spec.left = true,
                '+' => spec.plus = true,
                ' ' => spec.space = true,
                '0' => spec.zero = true,
                '#' => spec.alternate = true,
                _ => break,
            }
            rest.next();
        }
        spec.width = number(&mut rest, arguments).unwrap_or(0);
        if rest.peek() == Some(&'.') {
            rest.next();
            spec.precision = Some(number(&mut rest, arguments).unwrap_or(0));
        }
        let size = size(&mut rest);
        let Some(conversion) = rest.next() else { break };
        convert(&mut out, conversion, spec, size, arguments, wide);
    }
    out
}

fn number(rest: &mut core::iter::Peekable<core::str::Chars<'_>>, arguments: &mut Arguments) -> Option<usize> {
    if rest.peek() == Some(&'*') {
        rest.next();
        return Some((arguments.take() as i32).max(0) as usize).map(|n| n.min(WIDEST));
    }
    let mut value = None;
    while let Some(digit) = rest.peek().and_then(|c| c.to_digit(10)) {
        value = Some((value.unwrap_or(0) * 10 + digit as usize).min(WIDEST));
        rest.next();
    }
    value
}

fn size(rest: &mut core::iter::Peekable<core::str::Chars<'_>>) -> Size {
    let mut size = Size::Int;
    loop {
        size = match rest.peek() {
            Some('h') if size == Size::Short => Size::Char,
            Some('h') => Size::Short,
            Some('l') if size == Size::Long => Size::Quad,
            Some('l' | 'w') => Size::Long,
            Some('z' | 't' | 'j') => Size::Quad,
            Some('I') => {
                rest.next();
                let digits: String = [rest.next_if(|c| "36".contains(*c)), rest.next_if(|c| "24".contains(*c))]
                    .into_iter()
                    .flatten()
                    .collect();
                size = if digits == "32" { Size::Int } else { Size::Quad };
                continue;
            }
            _ => return size,
        };
        rest.next();
    }
}

fn convert(out: &mut String, conversion: char, spec: Spec, size: Size, arguments: &mut Arguments, wide: bool) {
    // `l` and `w` make a string wide, `h` makes it narrow; else it is as wide as the format for the small letter, and
    // the other way about for the capital.
    let is_wide = |capital: bool| match size {
        Size::Long | Size::Quad => true,
        Size::Short | Size::Char => false,
        Size::Int => wide != capital,
    };
    match conversion {
        '%' => out.push('%'),
        'd' | 'i' => {
            let value = signed(arguments.take(), size);
            let sign = match (value < 0, spec.plus, spec.space) {
                (true, ..) => "-",
                (_, true, _) => "+",
                (_, _, true) => " ",
                _ => "",
            };
            integer(out, spec, sign, &value.unsigned_abs().to_string());
        }
        'u' => {
            let value = unsigned(arguments.take(), size);
            integer(out, spec, "", &value.to_string());
        }
        'x' | 'X' | 'o' => {
            let value = unsigned(arguments.take(), size);
            let (prefix, digits) = match conversion {
                'x' => ("0x", format!("{value:x}")),
                'X' => ("0X", format!("{value:X}")),
                _ => ("0", format!("{value:o}")),
            };
            integer(out, spec, if spec.alternate && value != 0 { prefix } else { "" }, &digits);
        }
        'p' => integer(out, spec, "", &format!("{:016X}", arguments.take())),
        'c' | 'C' => {
            let unit = arguments.take() as u32;
            let unit = if is_wide(conversion == 'C') { unit & 0xffff } else { unit & 0xff };
            pad(out, spec, &char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER).to_string());
        }
        's' | 'S' => {
            let at = arguments.take();
            // SAFETY: the format makes this argument a terminated string, or one of `precision` characters; a wrong one
            // faults.
            let text = unsafe { string_at(at, is_wide(conversion == 'S'), spec.precision) };
            pad(out, spec, &text);
        }
        'Z' => {
            let at = arguments.take();
            // SAFETY: the format makes this argument a counted string; a wrong one faults.
            pad(out, spec, &unsafe { counted_at(at, size == Size::Long) });
        }
        // Floating point is not for the kernel; the argument is skipped as the kernel's own formatter shows nothing.
        other => {
            out.push('%');
            out.push(other);
        }
    }
}

fn signed(value: u64, size: Size) -> i64 {
    match size {
        Size::Char => i64::from(value as i8),
        Size::Short => i64::from(value as i16),
        Size::Int | Size::Long => i64::from(value as i32),
        Size::Quad => value as i64,
    }
}

fn unsigned(value: u64, size: Size) -> u64 {
    match size {
        Size::Char => u64::from(value as u8),
        Size::Short => u64::from(value as u16),
        Size::Int | Size::Long => u64::from(value as u32),
        Size::Quad => value,
    }
}

/// # Safety
/// `at` is 0 or a NUL-terminated string, or has `precision` units.
unsafe fn string_at(at: u64, wide: bool, precision: Option<usize>) -> String {
    if at == 0 {
        return "(null)".to_owned();
    }
    let most = precision.unwrap_or(usize::MAX);
    // SAFETY: the caller's promise.
    unsafe {
        if wide {
            let unit = |i: usize| (at as *const u16).add(i).read_unaligned();
            let units: Vec<u16> = (0..most).map(unit).take_while(|&u| u != 0).collect();
            String::from_utf16_lossy(&units)
        } else {
            let byte = |i: usize| (at as *const u8).add(i).read();
            let bytes: Vec<u8> = (0..most).map(byte).take_while(|&b| b != 0).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        }
    }
}

/// # Safety
/// `at` is 0 or a counted string of that kind.
unsafe fn counted_at(at: u64, wide: bool) -> String {
    if at == 0 {
        return "(null)".to_owned();
    }
    // SAFETY: the caller's promise.
    unsafe {
        if wide {
            UnicodeString::read(at as *const UnicodeString)
        } else {
            let string = (at as *const AnsiString).read_unaligned();
            let bytes = core::slice::from_raw_parts(string.buffer.cast_const(), usize::from(string.length));
            String::from_utf8_lossy(bytes).into_owned()
        }
    }
}

fn integer(out: &mut String, spec: Spec, sign: &str, digits: &str) {
    let zeros = match spec.precision {
        Some(precision) => precision.saturating_sub(digits.len()),
        None if spec.zero && !spec.left => spec.width.saturating_sub(sign.len() + digits.len()),
        None => 0,
    };
    pad(out, spec, &format!("{sign}{}{digits}", "0".repeat(zeros)));
}

fn pad(out: &mut String, spec: Spec, text: &str) {
    let fill = spec.width.saturating_sub(text.chars().count());
    if spec.left {
        out.push_str(text);
    }
    out.extend(std::iter::repeat_n(' ', fill));
    if !spec.left {
        out.push_str(text);
    }
}
