/* Kernel interfaces beyond wdm.h: this project uses none yet. */
#pragma once
#include "wdm.h"
