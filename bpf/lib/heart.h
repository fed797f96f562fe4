/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Whether a pod is to be left alone because nobody is there to serve it. Only pods that asked for it ever
 * are: every other one is refused when its daemon dies.
 */
#ifndef ZP_HEART_H
#define ZP_HEART_H

#include "config.h"
#include "maps.h"
#include "types.h"

static __always_inline int zp_is_abandoned(struct zp_pod *pod)
{
	struct zp_heart *heart;
	u32 first = 0;

	if (!(pod->flags & ZP_POD_FAIL_OPEN))
		return 0;
	heart = zp_heart.lookup(&first);
	return !heart || bpf_ktime_get_ns() - heart->beat_ns > ZP_HEART_NS;
}

#endif
