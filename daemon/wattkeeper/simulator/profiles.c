#include "profiles.h"

#include <stdio.h>
#include <string.h>

#include "physics.h"

#define MOST_SEGMENTS 16

/* Levels and shares of memory time of the four trainings are fitted to the Zeus traces of a V100 PCIe (uncapped 218,
 * 227, 161 and 36 W, see docs/simulator.md): 250 W boards with 25 W at idle, so that a level of 1 % is 2.25 W. Cycle
 * times are no multiple of a sensor's period, as those of real programs are not: a sensor that looks at a quarter of
 * the time would see the same quarter of every iteration otherwise. The other profiles are of our making. */
static const struct {
    char name[WK_PROFILE_SIZE];
    uint32_t count;
    struct wk_segment segments[MOST_SEGMENTS];
} profiles[] = {
    {"steady", 1, {{3600000000u, 10000, 0}}},
    {"idle", 0, {{0, 0, 0}}},
    {"resnet50", 2, {{355000, 9575, 4800}, {60000, 2707, 4800}}},
    {"bert", 2, {{468000, 9731, 3090}, {63000, 3347, 3090}}},
    {"deepspeech2", 2, {{271000, 9791, 3580}, {447000, 3777, 3580}}},
    {"ncf", 2, {{231000, 803, 5120}, {168000, 55, 5120}}},
    /* three quarters of the time computing, the rest exchanging gradients */
    {"training", 2, {{311000, 9700, 3000}, {103000, 4500, 6000}}},
    /* the clock hardly matters to it */
    {"memory-bound", 2, {{229000, 7000, 9000}, {41000, 5500, 9500}}},
    /* requests come in bursts */
    {"inference", 12,
     {{83000, 600, 3000}, {37000, 9800, 3000}, {141000, 600, 3000}, {29000, 8700, 3000}, {61000, 1500, 3000},
      {113000, 9800, 3000}, {211000, 600, 3000}, {43000, 9200, 3000}, {19000, 600, 3000}, {67000, 9800, 3000},
      {173000, 600, 3000}, {31000, 7600, 3000}}},
};

const size_t wk_profile_count = sizeof profiles / sizeof profiles[0];

const char *wk_profile_name(unsigned which)
{
    return which < wk_profile_count ? profiles[which].name : NULL;
}

void wk_start_profile(struct wk_gpu *gpu, uint64_t now_ns, unsigned which, uint32_t level_bp, uint64_t goal_ns)
{
    struct wk_segment segments[MOST_SEGMENTS];
    struct wk_load load = {.count = profiles[which].count, .goal_ns = goal_ns};
    if (level_bp == 0)
        load.count = 0;
    if (load.count > 0)
        snprintf(load.profile, sizeof load.profile, "%s", profiles[which].name);
    memcpy(segments, profiles[which].segments, sizeof segments);
    for (uint32_t i = 0; i < load.count; i++)
        segments[i].level_bp = (uint16_t)(segments[i].level_bp * level_bp / 10000);
    wk_start_load(gpu, now_ns, &load, segments);
}
