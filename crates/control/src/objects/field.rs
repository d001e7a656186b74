//! FWPM_CONDITION_* (fwpmu.h): the fields that our filters ask about.

use sluice_host::Guid;

pub(crate) const FLAGS: Guid = Guid(0x632ce23b_5167_435c_86d7_e903684aa80c);
pub(crate) const PROTOCOL: Guid = Guid(0x3971ef2b_623e_4f9a_8cb1_6e79b806b9a7);
/// The ICMP type, too (FWPM_CONDITION_ICMP_TYPE).
pub(crate) const LOCAL_PORT: Guid = Guid(0x0c1ba1af_5765_453f_af22_a8f791ac775b);
/// The ICMP code, too (FWPM_CONDITION_ICMP_CODE).
pub(crate) const REMOTE_PORT: Guid = Guid(0xc35a604d_d22b_4e1a_91b4_68f674ee674b);
pub(crate) const LOCAL_ADDRESS: Guid = Guid(0xd9ee00de_c1ef_4617_bfe3_ffd8f5a08957);
pub(crate) const REMOTE_ADDRESS: Guid = Guid(0xb235ae9a_1d64_49b8_a44c_5ff3d9095045);
pub(crate) const SOURCE_ADDRESS: Guid = Guid(0xae96897e_2e94_4bc9_b313_b27ee80e574d);
pub(crate) const DESTINATION_ADDRESS: Guid = Guid(0x2d79133b_b390_45c6_8699_acaceaafed33);
pub(crate) const APP_ID: Guid = Guid(0xd78e1e87_8644_4ea5_9437_d809ecefc971);
pub(crate) const USER_ID: Guid = Guid(0xaf043a0a_b34d_4f86_979c_c90371af6e66);
pub(crate) const PACKAGE_ID: Guid = Guid(0x71bc78fa_f17c_4997_a602_6abb261f351c);
pub(crate) const LOCAL_INTERFACE: Guid = Guid(0x4cd62a49_59c3_4969_b7f3_bda5d32890a4);
