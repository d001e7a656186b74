//! How the build script fixes ndis.h.

#[path = "../build/ndis.rs"]
mod ndis;

use ndis::expand_pasted_arguments;

#[test]
fn a_macro_that_pastes_numbers_expands_its_arguments_first() {
    let header = "#pragma once\r\n\
        #define AVAILABLE(major,minor) ((((0x ## major) << 8) + (0x ## minor)) >= 0x630)\r\n\
        #if !AVAILABLE(MAJOR, MINOR)\r\n";
    let mended = "#pragma once\r\n\
        #define AVAILABLE_OF_DIGITS(major,minor) ((((0x ## major) << 8) + (0x ## minor)) >= 0x630)\n\
        #define AVAILABLE(major,minor) AVAILABLE_OF_DIGITS(major,minor)\n\
        #if !AVAILABLE(MAJOR, MINOR)\r\n";
    assert_eq!(expand_pasted_arguments(header), mended);
}

#[test]
fn a_definition_may_take_several_lines_and_spaces() {
    let header = "  #  define F( a ) \\\n    (0X##a)";
    let mended = "  #  define F_OF_DIGITS( a ) \\\n    (0X##a)\n#define F( a ) F_OF_DIGITS( a )\n";
    assert_eq!(expand_pasted_arguments(header), mended);
}

#[test]
fn everything_else_stays_as_it_is() {
    let header = "#define NAME(type) L ## #type\n#define TEN 0x10\n#define F (0x ## 1)\nint x; /* 0x ## */\n\\\n";
    assert_eq!(expand_pasted_arguments(header), header);
}
