/* NVIDIA's own header, with every function that it declares made visible: what we define of it is exported and
 * its prototype is checked; everything else in the library stays hidden. */
#ifndef WK_NVML_HEADER_H
#define WK_NVML_HEADER_H

#pragma GCC visibility push(default)
#include <nvml.h>
#pragma GCC visibility pop

#endif
