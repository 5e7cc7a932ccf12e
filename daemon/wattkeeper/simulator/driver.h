/* Which driver the library passes for. build_simulator.py compiles driver.c anew for each older one: names-525.txt
 * and its like say what that exports, and in their first line what is here. */
#ifndef WK_DRIVER_H
#define WK_DRIVER_H

struct wk_driver {
    unsigned field_end; /* one more than the newest field of nvmlDeviceGetFieldValues that it knows */
    int cuda_version;   /* major * 1000 + minor * 10 */
    const char *nvml_version;
};

extern const struct wk_driver wk_driver;

#endif
