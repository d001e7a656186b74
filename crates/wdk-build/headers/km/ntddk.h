/* What the kernel offers to drivers beyond wdm.h: nothing that this project uses yet. */
#pragma once
#include "wdm.h"
