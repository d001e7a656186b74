//! Raising and lowering the IRQL.

#![allow(non_snake_case, reason = "exports have their Windows names")]

use crate::cpu;
use crate::export::exports;
use nt_abi::Irql;

exports! {
    "ntoskrnl.exe";
    KeGetCurrentIrql: HIGH,
    KfRaiseIrql: HIGH,
    KeRaiseIrqlToDpcLevel: HIGH,
    KeLowerIrql: HIGH,
}

extern "win64" fn KeGetCurrentIrql() -> u8 {
    cpu::irql().0
}

extern "win64" fn KfRaiseIrql(new: u8) -> u8 {
    cpu::raise(Irql(new)).0
}

extern "win64" fn KeRaiseIrqlToDpcLevel() -> u8 {
    cpu::raise(Irql::DISPATCH).0
}

extern "win64" fn KeLowerIrql(old: u8) {
    cpu::lower(Irql(old));
}
