/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Alias addresses: one for each resolver that a pod's apps ask.
 *
 * All queries go to one listener, and the hook that restores the source of an answer sees nothing but that
 * source. So the listener is reached under as many addresses as there are resolvers: the query goes to the
 * alias, the answer comes from it, and it stands for exactly one resolver of this pod. A socket may ask as
 * many resolvers as it likes, and processes may share it.
 */
#ifndef ZP_DNS_H
#define ZP_DNS_H

#include "abi.h"
#include "addr.h"
#include "maps.h"

#define ZP_DNS_PROBES 4

/* A pod's slot 0 is alias ...1. */
static __always_inline void zp_set_alias(u8 *ip, u16 family, u32 slot)
{
	if (family == ZP_AF_INET) {
		zp_set_ip4(ip, zp_htonl(ZP_ALIAS_IP4 + slot + 1));
		return;
	}
	zp_word(ip, 0) = zp_htonl(ZP_ALIAS_IP6_0);
	zp_word(ip, 1) = zp_htonl(ZP_ALIAS_IP6_1);
	zp_word(ip, 2) = 0;
	zp_word(ip, 3) = zp_htonl(slot + 1);
}

static __always_inline int zp_is_alias(const u8 *ip)
{
	if (zp_is_ip4(ip))
		return (zp_word(ip, 3) & zp_htonl(0xffffff00)) == zp_htonl(ZP_ALIAS_IP4);
	return zp_word(ip, 0) == zp_htonl(ZP_ALIAS_IP6_0) && zp_word(ip, 1) == zp_htonl(ZP_ALIAS_IP6_1);
}

/* Resolvers differ in their last byte mostly, which lies at the top of a word on most machines: shift it down
 * before a product can only lift it further.
 */
static __always_inline u32 zp_hash_ip(const u8 *ip)
{
	u32 hash = zp_word(ip, 0) * 0x9e3779b1u ^ zp_word(ip, 1) * 0x85ebca77u ^ zp_word(ip, 2) * 0xc2b2ae3du;

	hash ^= zp_word(ip, 3);
	hash = (hash ^ hash >> 16) * 0x85ebca6bu;
	hash = (hash ^ hash >> 13) * 0xc2b2ae35u;
	return hash ^ hash >> 16;
}

/* Fill in the alias of the resolver `orig`, a new one if it has none; 0 when it could not be kept. Where all
 * the slots that it may have are taken, the one that was asked least lately gives way.
 */
static __always_inline int zp_take_alias(u64 netns, struct zp_origin *orig, u8 *alias)
{
	struct zp_resolver fresh = {.orig = *orig, .used_ns = bpf_ktime_get_ns()};
	u32 first = zp_hash_ip(orig->ip), oldest = first % ZP_POD_RESOLVERS;
	struct zp_alias key = {.netns = netns};
	u64 oldest_ns = ~0ull;
	int i;

#pragma unroll
	for (i = 0; i < ZP_DNS_PROBES; i++) {
		u32 slot = (first + i) % ZP_POD_RESOLVERS;
		struct zp_resolver *kept;

		zp_set_alias(key.ip, orig->family, slot);
		kept = zp_resolver.lookup(&key);
		if (kept && zp_is_same_ip(kept->orig.ip, orig->ip)) {
			kept->used_ns = fresh.used_ns;
			zp_copy_ip(alias, key.ip);
			return 1;
		}
		if (!kept && !zp_resolver.insert(&key, &fresh)) {
			zp_copy_ip(alias, key.ip);
			return 1;
		}
		if (kept && kept->used_ns < oldest_ns) {
			oldest_ns = kept->used_ns;
			oldest = slot;
		}
	}
	zp_set_alias(key.ip, orig->family, oldest);
	zp_copy_ip(alias, key.ip);
	return !zp_resolver.update(&key, &fresh);
}

#endif
