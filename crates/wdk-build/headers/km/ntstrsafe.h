/* Counted string helpers are inline functions, which bindings cannot call: nothing to declare. */
#pragma once
#include "wdm.h"
