/* What may stand behind --gpu-power=: the values that a job's comment may have behind power=. */

#ifndef WATTKEEPER_REQUEST_H
#define WATTKEEPER_REQUEST_H

/* The most characters that a well-formed request has. */
#define REQUEST_MAX 64

/*
 * NULL where `value` is a well-formed request, else what is wrong with it, in words for its owner.
 * Whether the site has a profile of that name is for the site's policy to say.
 */
const char *request_problem(const char *value);

#endif
