// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/* Inbound, second half: hand a flow that tc has noted to the pod's plaintext listener.
 *
 * Runs in every listener lookup of the namespace, the one for a SYN that meets TIME_WAIT included. The
 * accepted socket keeps the packet's addresses: getsockname() is the original destination. Without a listener
 * the answer is a reset at once, as from a closed port, and never the app's own listener.
 */
#include "lib/abi.h"
#include "lib/addr.h"
#include "lib/maps.h"

static __always_inline void zp_lookup_flow(struct bpf_sk_lookup *ctx, struct zp_flow *flow)
{
	if (ctx->family == ZP_AF_INET) {
		zp_set_ip4(flow->src_ip, ctx->remote_ip4);
		zp_set_ip4(flow->dst_ip, ctx->local_ip4);
		zp_barrier();
	} else {
		zp_word(flow->src_ip, 0) = ctx->remote_ip6[0];
		zp_word(flow->src_ip, 1) = ctx->remote_ip6[1];
		zp_word(flow->src_ip, 2) = ctx->remote_ip6[2];
		zp_word(flow->src_ip, 3) = ctx->remote_ip6[3];
		zp_word(flow->dst_ip, 0) = ctx->local_ip6[0];
		zp_word(flow->dst_ip, 1) = ctx->local_ip6[1];
		zp_word(flow->dst_ip, 2) = ctx->local_ip6[2];
		zp_word(flow->dst_ip, 3) = ctx->local_ip6[3];
	}
	flow->src_port = zp_ntohs((__be16)ctx->remote_port);
	flow->dst_port = ctx->local_port;
}

static __always_inline int zp_assign(struct bpf_sk_lookup *ctx, u32 slot)
{
	struct bpf_sock *listener = (void *)zp_lsn.lookup(&slot);
	long failed;

	if (!listener) {
		zp_count(ZP_NO_LISTENER);
		return SK_DROP;
	}
	failed = bpf_sk_assign(ctx, listener, 0);
	bpf_sk_release(listener);
	zp_count(failed ? ZP_ASSIGN_ERROR : ZP_INBOUND_ASSIGNED);
	return failed ? SK_DROP : SK_PASS;
}

int zp_lookup(struct bpf_sk_lookup *ctx)
{
	struct zp_flow flow = {};
	u32 *found, slot;

	if (ctx->protocol != ZP_TCP)
		return SK_PASS;
	zp_lookup_flow(ctx, &flow);
	found = zp_in.lookup(&flow);
	if (!found)
		return SK_PASS;
	slot = *found;
	zp_in.delete(&flow);
	return zp_assign(ctx, slot);
}
