/* Every function that nvml.h declares and no other file defines. A missing symbol would stop a client at its
 * start; one that answers NOT_SUPPORTED is what clients see on real boards every day.
 *
 * build_simulator.py writes the list from the very nvml.h that is compiled against. The definitions are weak, so
 * those of the other files win. One body serves all signatures: in the C calling conventions of Linux's 64-bit
 * platforms the caller passes and discards the arguments, and this one looks at none. */
#include "session.h"

__attribute__((used)) static nvmlReturn_t wk_unsupported(void)
{
    struct wk_call call;
    nvmlReturn_t answer = wk_enter_node(&call, true);
    return wk_leave(&call, answer == NVML_SUCCESS ? NVML_ERROR_NOT_SUPPORTED : answer);
}

#define UNSUPPORTED(function) extern __typeof__(function) function __attribute__((weak, alias("wk_unsupported")));
/* Only the header of an older driver declares it. */
#define UNDECLARED(function)                                                                                         \
    extern nvmlReturn_t function(void) __attribute__((weak, alias("wk_unsupported"), visibility("default")));
#include "unsupported.inc"
