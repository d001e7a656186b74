/* What a kit's wdm.h and the headers it includes do to a compiler, written for this test. */
#pragma once

#if defined(_M_ARM64)
/* Pastes tokens that make none together. */
#define KIT_ADDRESS_OF(variable) (&##variable)

static __inline int KitRead(int value) {
    return *KIT_ADDRESS_OF(value);
}
#endif
