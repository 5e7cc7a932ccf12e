/*
 * --gpu-power of sbatch, salloc and srun, for Wattkeeper.
 *
 * Checks what the user wrote while they are looking, and hands it to the job's Prolog and Epilog, where it is
 * SPANK_WATTKEEPER_GPU_POWER. It sets nothing and guards nothing: users can go around it, so the agent on the node reads
 * the text as warily as it reads a comment, and the site's policy decides. On nodes this plugin does nothing.
 */

#define _POSIX_C_SOURCE 200809L

#include <slurm/spank.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "request.h"

SPANK_PLUGIN(wattkeeper, 1)

#define VARIABLE "WATTKEEPER_GPU_POWER"
/* What salloc and sbatch put into the environment of their job for VARIABLE. */
#define OF_THE_JOB "SLURM_SPANK_" VARIABLE

/* As the user wrote it; empty where nothing was asked for. */
static char asked[REQUEST_MAX + 1];

/* What a user wrote, in as many characters as a request has, none of which moves the cursor. */
static const char *shown(const char *text)
{
	static char safe[REQUEST_MAX + sizeof "..."];
	size_t length = strnlen(text, REQUEST_MAX + 1);
	const char *end = length > REQUEST_MAX ? "..." : "";
	if (length > REQUEST_MAX)
		length = REQUEST_MAX;
	for (size_t i = 0; i < length; i++)
		safe[i] = text[i] >= ' ' && text[i] <= '~' ? text[i] : '?';
	(void)snprintf(safe + length, sizeof safe - length, "%s", end);
	return safe;
}

/* The callback of the option. Given twice, the last counts, as with Slurm's own options. */
static int take(int val, const char *value, int remote)
{
	(void)val;
	if (remote != 0)
		return 0;
	const char *problem = request_problem(value != NULL ? value : "");
	if (problem != NULL) {
		slurm_error("--gpu-power=%s: %s", shown(value != NULL ? value : ""), problem);
		return -1;
	}
	(void)snprintf(asked, sizeof asked, "%s", value);
	return 0;
}

static char name[] = "gpu-power";
static char argument[] = "LIMIT";
static char usage[] = "power limit for each GPU of the job: 250W, 0.25kW, 70%, min, max or a profile of your site";
static struct spank_option option = {name, argument, usage, 1, 0, take};

int slurm_spank_init(spank_t spank, int argc, char *argv[])
{
	(void)argc;
	(void)argv;
	if (spank_context() == S_CTX_SLURMD || spank_context() == S_CTX_JOB_SCRIPT)
		return 0;
	return spank_option_register(spank, &option) == ESPANK_SUCCESS ? 0 : -1;
}

/* Whether srun starts a step of a job that is there already, whose limits were set when it began. */
static int in_a_job(void)
{
	return spank_context() == S_CTX_LOCAL && getenv("SLURM_JOB_ID") != NULL;
}

int slurm_spank_init_post_opt(spank_t spank, int argc, char *argv[])
{
	(void)argc;
	(void)argv;
	if (spank_remote(spank) != 0 || asked[0] == '\0')
		return 0;
	if (in_a_job()) {
		/* Slurm hands the job's own option on to its steps: only another one is the step's. */
		const char *job = getenv(OF_THE_JOB);
		if (job == NULL || strcmp(job, asked) != 0)
			slurm_info("--gpu-power=%s changes nothing: a job's limits are set when it begins, so give it to "
				   "sbatch or salloc", asked);
		return 0;
	}
	spank_err_t rc = spank_job_control_setenv(spank, VARIABLE, asked, 1);
	if (rc == ESPANK_SUCCESS)
		return 0;
	slurm_error("--gpu-power=%s could not be handed to the job: %s", asked, spank_strerror(rc));
	return -1;
}
