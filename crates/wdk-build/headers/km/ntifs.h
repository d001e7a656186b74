/* What the kernel offers to file systems beyond wdm.h: nothing that this project uses. */
#pragma once
#include "wdm.h"
