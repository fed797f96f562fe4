// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* Answer getsockopt(SO_ORIGINAL_DST) on the proxy's accepted sockets as netfilter's conntrack would: level
 * SOL_IP with a sockaddr_in for IPv4, level SOL_IPV6 with a sockaddr_in6 for IPv6. A socket without an entry
 * keeps the kernel's answer, which is an error without conntrack.
 *
 * This hook makes every getsockopt() below its cgroup copy its value once more. It is therefore attached at
 * the daemon's own cgroup and not at the root.
 */
#include "lib/abi.h"
#include "lib/addr.h"
#include "lib/maps.h"

#define ZP_SOL_IP	   0
#define ZP_SOL_IPV6	   41
#define ZP_SO_ORIGINAL_DST 80

struct zp_sockaddr4 {
	u16 family;
	__be16 port;
	__be32 ip;
	u64 zero;
};

struct zp_sockaddr6 {
	u16 family;
	__be16 port;
	__be32 flowinfo;
	__be32 ip[4];
	u32 scope;
};

static __always_inline void zp_answer(struct bpf_sockopt *ctx, int size)
{
	ctx->optlen = size;
	zp_barrier();
	ctx->retval = 0;
}

static __always_inline void zp_answer4(struct bpf_sockopt *ctx, struct zp_origin *orig)
{
	struct zp_sockaddr4 *answer = ctx->optval;

	if ((void *)(answer + 1) > ctx->optval_end)
		return;
	answer->family = ZP_AF_INET;
	answer->port = zp_htons(orig->port);
	answer->ip = zp_word(orig->ip, 3);
	answer->zero = 0;
	zp_answer(ctx, sizeof(*answer));
}

static __always_inline void zp_answer6(struct bpf_sockopt *ctx, struct zp_origin *orig)
{
	struct zp_sockaddr6 *answer = ctx->optval;

	if ((void *)(answer + 1) > ctx->optval_end)
		return;
	answer->family = ZP_AF_INET6;
	answer->port = zp_htons(orig->port);
	answer->flowinfo = 0;
	zp_copy_ip((u8 *)answer->ip, orig->ip);
	answer->scope = 0;
	zp_answer(ctx, sizeof(*answer));
}

int zp_getsockopt(struct bpf_sockopt *ctx)
{
	struct zp_origin *orig;

	if (ctx->optname != ZP_SO_ORIGINAL_DST || (ctx->level != ZP_SOL_IP && ctx->level != ZP_SOL_IPV6))
		return 1;
	orig = zp_orig.sk_storage_get(ctx->sk, 0, 0);
	if (!orig)
		return 1;
	if (ctx->level == ZP_SOL_IP && orig->family == ZP_AF_INET)
		zp_answer4(ctx, orig);
	else if (ctx->level == ZP_SOL_IPV6 && orig->family == ZP_AF_INET6)
		zp_answer6(ctx, orig);
	return 1;
}
