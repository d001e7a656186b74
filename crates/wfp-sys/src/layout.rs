//! Layout of the structures and values of the constants, checked when this is compiled.
