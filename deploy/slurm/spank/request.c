/*
 * The grammar of a request, which is that of wattkeeper/core/request.py. ASCII alone: no locale, no allocation, and
 * time in proportion to REQUEST_MAX whatever is given.
 */

#define _POSIX_C_SOURCE 200809L

#include "request.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

#define DIGITS "0123456789"
#define LETTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

static const char *const keywords[] = {"baseline", "default", "min", "max"};

static bool is_keyword(const char *value)
{
	for (size_t i = 0; i < sizeof keywords / sizeof keywords[0]; i++)
		if (strcasecmp(value, keywords[i]) == 0)
			return true;
	return false;
}

static bool is_profile_name(const char *value)
{
	return *value != '\0' && strchr(LETTERS "_", *value) != NULL &&
	       value[strspn(value, LETTERS DIGITS "_.-")] == '\0';
}

/*
 * Whether `digits` digits and `decimals` behind a point, at most, begin the text, and not more; `*end` is what follows.
 * `*least` becomes the place behind the point of the first digit that is not 0: 0 before the point, -1 if there is none.
 */
static bool is_number(const char *text, size_t digits, size_t decimals, const char **end, int *least)
{
	size_t whole = strspn(text, DIGITS);
	*least = strspn(text, "0") < whole ? 0 : -1;
	if (whole == 0 || whole > digits)
		return false;
	*end = text + whole;
	if (**end != '.')
		return true;
	size_t part = strspn(*end + 1, DIGITS);
	size_t zeros = strspn(*end + 1, "0");
	if (*least < 0 && zeros < part)
		*least = (int)zeros + 1;
	*end += 1 + part;
	return part > 0 && part <= decimals;
}

/* Above zero, when watts are counted in thousandths, kilowatts in millionths and percent in hundredths. */
static bool is_amount(const char *value)
{
	const char *unit;
	int least;
	if (is_number(value, 4, 2, &unit, &least) && strcmp(unit, "%") == 0)
		return least >= 0;
	if (!is_number(value, 9, 6, &unit, &least) || least < 0)
		return false;
	if (*unit == '\0' || strcasecmp(unit, "W") == 0)
		return least <= 3;
	return strcasecmp(unit, "kW") == 0;
}

const char *request_problem(const char *value)
{
	if (*value == '\0')
		return "nothing follows it";
	if (strnlen(value, REQUEST_MAX + 1) <= REQUEST_MAX &&
	    (is_keyword(value) || is_amount(value) || is_profile_name(value)))
		return NULL;
	return "not a power limit; write 250W, 250, 0.25kW, 70%, baseline, default, min, max or a profile's name";
}
