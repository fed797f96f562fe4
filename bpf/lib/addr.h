/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Pure address helpers on the 16-byte form. */
#ifndef ZP_ADDR_H
#define ZP_ADDR_H

#include "config.h"
#include "reasons.h"
#include "types.h"

/* The byte-order macros of linux/ are not among the headers that the loader provides. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define zp_htons(x) ((__be16)__builtin_bswap16(x))
#define zp_htonl(x) ((__be32)__builtin_bswap32(x))
#else
#define zp_htons(x) ((__be16)(x))
#define zp_htonl(x) ((__be32)(x))
#endif
#define zp_ntohs(x) ((u16)zp_htons(x))

/* Word `i` of an address; the arrays are aligned for it. */
#define zp_word(ip, i) (((__be32 *)(ip))[i])

/* Keep clang from merging accesses to a context: neighbouring stores, or the loads of two branches, which
 * clang 19 turns into one from a computed address. The verifier takes one field at a fixed offset.
 */
#define zp_barrier() asm volatile("" ::: "memory")

static __always_inline void zp_set_ip4(u8 *ip, __be32 address)
{
	zp_word(ip, 0) = 0;
	zp_word(ip, 1) = 0;
	zp_word(ip, 2) = zp_htonl(0xffff);
	zp_word(ip, 3) = address;
}

static __always_inline void zp_copy_ip(u8 *to, const u8 *from)
{
	zp_word(to, 0) = zp_word(from, 0);
	zp_word(to, 1) = zp_word(from, 1);
	zp_word(to, 2) = zp_word(from, 2);
	zp_word(to, 3) = zp_word(from, 3);
}

static __always_inline int zp_is_same_ip(const u8 *one, const u8 *other)
{
	return zp_word(one, 0) == zp_word(other, 0) && zp_word(one, 1) == zp_word(other, 1) &&
	       zp_word(one, 2) == zp_word(other, 2) && zp_word(one, 3) == zp_word(other, 3);
}

static __always_inline int zp_is_ip4(const u8 *ip)
{
	return !zp_word(ip, 0) && !zp_word(ip, 1) && zp_word(ip, 2) == zp_htonl(0xffff);
}

/* Return the reason why no pod's connection to `ip` is steered, 0 when it may be. (No exemption is number 0.)
 */
static __always_inline u32 zp_exempt4(const u8 *ip)
{
	__be32 address = zp_word(ip, 3);

	if (ip[12] == 127)
		return ZP_EXEMPT_LOOPBACK;
	if (!address)
		return ZP_EXEMPT_UNSPECIFIED;
	if ((ip[12] & 0xf0) == 0xe0 || address == 0xffffffff)
		return ZP_EXEMPT_MULTICAST;
	if (address == zp_htonl(ZP_PROBE_IP4))
		return ZP_EXEMPT_PROBE;
	return 0;
}

static __always_inline u32 zp_exempt6(const u8 *ip)
{
	if (!zp_word(ip, 0) && !zp_word(ip, 1) && !zp_word(ip, 2)) {
		if (zp_word(ip, 3) == zp_htonl(1))
			return ZP_EXEMPT_LOOPBACK;
		if (!zp_word(ip, 3))
			return ZP_EXEMPT_UNSPECIFIED;
	}
	if (ip[0] == 0xff)
		return ZP_EXEMPT_MULTICAST;
	if (zp_word(ip, 0) == zp_htonl(ZP_PROBE_IP6_0) && zp_word(ip, 1) == zp_htonl(ZP_PROBE_IP6_1) &&
	    zp_word(ip, 2) == 0xffffffff && zp_word(ip, 3) == 0xffffffff)
		return ZP_EXEMPT_PROBE;
	return 0;
}

#endif
